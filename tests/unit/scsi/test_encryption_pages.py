"""Commands and pages of tape data encryption: as the standard draws them, and safe against a device's nonsense."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from capstan.scsi import cdb, encryption
from capstan.scsi.encryption import (
    AES_256_GCM,
    Algorithm,
    BlockStatus,
    DecryptionMode,
    EncryptionMode,
    EncryptionStatus,
    InPage,
    KeyData,
    NextBlockStatus,
    SetDataEncryption,
)

KEY = bytes(range(32))
KADS = KeyData(authenticated=bytes.fromhex("0123456789abcdef"), unauthenticated=b"who")
kads = st.builds(KeyData, authenticated=st.binary(max_size=60), unauthenticated=st.binary(max_size=60))


def hexed(data: bytes | bytearray) -> str:
    return data.hex(" ")


def test_commands() -> None:
    """SECURITY PROTOCOL IN and OUT have twelve bytes, the page in bytes 2 and 3, the length in bytes 6 to 9."""
    assert hexed(cdb.security_protocol_in(0x20, 0x0021, length=8192)) == "a2 20 00 21 00 00 00 00 20 00 00 00"
    assert hexed(cdb.security_protocol_out(0x20, 0x0010, length=64)) == "b5 20 00 10 00 00 00 00 00 40 00 00"


def test_set_data_encryption_byte_by_byte() -> None:
    """Scope of all nexuses, CKOD, ENCRYPT, MIXED, a key of 32 bytes, then U-KAD and A-KAD with their lengths."""
    page = encryption.encode_set(
        SetDataEncryption(EncryptionMode.ENCRYPT, DecryptionMode.MIXED, KEY, KADS, algorithm=1, clear_on_demount=True)
    )
    head = "00 10 00 43 40 04 02 03 01 00 00 00 00 00 00 00 00 00 00 20 "
    tail = " 00 00 00 03 77 68 6f 01 00 00 08 01 23 45 67 89 ab cd ef"
    assert hexed(page) == head + hexed(KEY) + tail


def test_pages_of_a_drive_byte_by_byte() -> None:
    """What drives answer: support, capabilities, status and next block."""
    support = encryption.encode_support(InPage.IN_SUPPORT, (0x0000, 0x0010, 0x0021))
    assert hexed(support) == "00 00 00 06 00 00 00 10 00 21"
    capabilities = encryption.encode_capabilities((Algorithm(1, AES_256_GCM, 32, True, True, 12, 32),))
    descriptor = "01 00 00 14 ba 80 00 20 00 0c 00 20 01 00 00 00 00 00 00 00 00 01 00 14"
    assert hexed(capabilities) == "00 10 00 28 05" + " 00" * 15 + " " + descriptor
    status = encryption.encode_status(EncryptionStatus(2, 3, 1, 7, KeyData(b"\xaa"), scope=2))
    counted = " 00 00 00 07 10 00 00 00" + " 00" * 8
    assert hexed(status) == "00 20 00 19 42 02 03 01" + counted + " 01 00 00 01 aa"
    block = encryption.encode_next_block(NextBlockStatus(258, BlockStatus.DECRYPTABLE, 1, KeyData(b"\xaa")))
    assert hexed(block) == "00 21 00 11 00 00 00 00 00 00 01 02 05 01 00 00 01 03 00 01 aa"


@given(st.binary(max_size=40), kads, st.integers(0, 3), st.integers(0, 3), st.booleans())
def test_what_is_set_comes_back(key: bytes, kads: KeyData, encrypt: int, decrypt: int, ckod: bool) -> None:
    """What an initiator encodes, a drive decodes; bytes cut off or left over make it no page at all."""
    asked = SetDataEncryption(encrypt, decrypt, key, kads, algorithm=1, scope=1, clear_on_demount=ckod)
    page = encryption.encode_set(asked)
    assert encryption.decode_set(memoryview(page)) == asked
    assert encryption.decode_set(memoryview(page)[:-1]) is None
    assert encryption.decode_set(memoryview(page + b"\0")) is None


@given(kads, st.integers(0, 6), st.integers(0, (1 << 32) - 1))
def test_what_a_drive_says_comes_back(kads: KeyData, value: int, count: int) -> None:
    """What a drive encodes, an initiator decodes."""
    status = EncryptionStatus(value & 2, value & 3, 1, count, kads, scope=2)
    assert encryption.decode_status(encryption.encode_status(status)) == status
    block = NextBlockStatus(count, value, 1, kads)
    assert encryption.decode_next_block(encryption.encode_next_block(block)) == block
    algorithms = (Algorithm(1, AES_256_GCM, 32, True, True, 12, 32), Algorithm(2, 5, 16, False, True, 0, 1))
    assert encryption.decode_capabilities(encryption.encode_capabilities(algorithms)) == algorithms
    pages = frozenset({0, count & 0xFFFF})
    assert encryption.decode_support(encryption.encode_support(0, tuple(sorted(pages)))) == pages


@given(st.binary(max_size=200))
def test_any_page_is_eaten(data: bytes) -> None:
    """A device's bytes never raise, whatever they are; no answer means no algorithm and nothing known."""
    for decode in (encryption.decode_support, encryption.decode_capabilities, encryption.decode_kads):
        decode(data)
    encryption.decode_status(data)
    encryption.decode_next_block(data)
    encryption.decode_set(memoryview(data))
    assert encryption.decode_capabilities(b"") == ()
    assert encryption.decode_next_block(b"").status == BlockStatus.INCAPABLE


def test_the_key_is_not_shown() -> None:
    """What is printed of the parameters holds no byte of the key."""
    shown = repr(SetDataEncryption(2, 3, b"secret-secret-secret-secret-secr", KADS))
    assert "secret" not in shown
    assert b"secret".hex() not in shown
