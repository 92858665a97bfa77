"""The mode page and the four bytes of logical block protection, as SSC-5 has them."""

from __future__ import annotations

import pytest

from capstan.scsi.block_protection import Protection, decode_page, encode_page, guard_of, is_whole


def test_the_mode_page() -> None:
    """SSC-5, 8.3.9: method 2 with four bytes, LBP_W and LBP_R; all zero when it is off."""
    assert encode_page(Protection(writes=True, reads=True)).hex() == "4af0001c" + "0204c0" + "00" * 25
    assert encode_page(Protection()).hex() == "4af0001c" + "00" * 28
    for page in (Protection(), Protection(writes=True), Protection(reads=True), Protection(writes=True, reads=True)):
        assert decode_page(encode_page(page)) == page
    assert decode_page(b"") is None and decode_page(bytes.fromhex("0f0e") + bytes(14)) is None
    with pytest.raises(ValueError, match="method"):
        decode_page(bytes.fromhex("4af0001c0104c0") + bytes(25))


def test_what_stands_behind_a_record() -> None:
    """CRC-32C of "123456789" is E3069283h (RFC 3720, B.4 has its kin); the lowest byte comes first."""
    guarded = bytearray(b"123456789" + guard_of(memoryview(b"123456789")))
    assert guarded[-4:].hex() == "839206e3" and is_whole(memoryview(guarded))
    for at in range(len(guarded)):
        guarded[at] ^= 1
        assert not is_whole(memoryview(guarded))
        guarded[at] ^= 1
    assert not is_whole(memoryview(b"1234"))
