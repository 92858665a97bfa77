"""The bytes of tape data encryption, as SSC-5, 8.5, has them."""

from __future__ import annotations

import pytest

from capstan.scsi import cdb
from capstan.scsi.encryption import (
    BlockStatus,
    DecryptionMode,
    EncryptionMode,
    InPage,
    NextBlock,
    SetEncryption,
    decode_next_block,
    decode_set,
    decode_status,
    encode_capabilities,
    encode_next_block,
    encode_set,
    encode_status,
    encode_supported,
    takes_aes_256,
)

KEY = bytes(range(32))
PAGE = SetEncryption(EncryptionMode.ENCRYPT, DecryptionMode.MIXED, KEY, b"c0ffee")


def test_the_commands() -> None:
    """SPC-5, 6.41 and 6.42: protocol, page, length."""
    assert cdb.security_protocol_in(0x20, 0x0021, length=1024).hex() == "a22000210000000004000000"
    assert cdb.security_protocol_out(0x20, 0x0010, length=62).hex() == "b520001000000000003e0000"


def test_the_page_that_sets_a_key() -> None:
    """SSC-5, 8.5.3.2: scope, modes, algorithm, the key in clear behind its length, the A-KAD."""
    data = encode_set(PAGE)
    assert data[:20].hex() == "0010003a" + "40000203" + "010000" + "00" * 7 + "0020"
    assert data[20:52] == KEY and data[52:] == bytes.fromhex("01000006") + b"c0ffee"
    assert decode_set(data) == PAGE
    assert KEY.hex() not in repr(PAGE) and repr(KEY) not in repr(PAGE)


@pytest.mark.parametrize(
    "data", [b"", encode_set(PAGE)[:40], encode_supported(), bytes.fromhex("0010001040000203") + bytes(12)]
)
def test_what_is_no_such_page(data: bytes) -> None:
    """A page that is cut off, of another kind, or without a key is refused as a whole."""
    with pytest.raises(ValueError, match=r"key|page"):
        decode_set(data)


def test_the_answers() -> None:
    """Supported pages, capabilities with AES-256-GCM, status without the key, and whose key the next record wants."""
    assert encode_supported().hex() == "00000008" + "0000001000200021"
    assert takes_aes_256(encode_capabilities())
    assert not takes_aes_256(b"") and not takes_aes_256(encode_capabilities()[:30])
    status = encode_status(PAGE, 7)
    assert decode_status(status) == SetEncryption(PAGE.encryption, PAGE.decryption, key_id=b"c0ffee")
    assert KEY not in status and status[8:12] == bytes((0, 0, 0, 7))
    found = NextBlock(BlockStatus.KEY_NEEDED, b"c0ffee")
    assert decode_next_block(encode_next_block(99, found)) == found
    assert encode_next_block(99, found)[:16].hex() == "00210016" + "0000000000000063" + "06010000"
    assert decode_next_block(b"") == decode_next_block(bytes(16)) == NextBlock(BlockStatus.UNKNOWN)
    assert {page.value for page in InPage} == {0, 0x10, 0x20, 0x21}
