"""Tape data encryption by the drive: security protocol 20h (SSC-5, 8.5). Pure builders and decoders, for both ends.

A key comes with *key-associated data* that the drive keeps with each record: Capstan writes the id of the key into the
authenticated part (A-KAD), so that a drive says of a record which key it wants.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

PROTOCOL = 0x20
KEY_BYTES = 32  # AES-256
ALGORITHM_AES_256_GCM = 0x00010014  # SFSC, table "Security algorithm codes"
LONGEST_KEY_ID = 12  # bytes of A-KAD that LTO drives take
_A_KAD = 0x01
_ALGORITHM_INDEX = 0x01
_ALL_NEXUS = 0x40  # SCOPE 010b: for whoever uses the drive


class InPage(IntEnum):
    """Pages of SECURITY PROTOCOL IN (SSC-5, 8.5.2)."""

    SUPPORTED = 0x0000
    CAPABILITIES = 0x0010
    STATUS = 0x0020
    NEXT_BLOCK = 0x0021


class OutPage(IntEnum):
    """Pages of SECURITY PROTOCOL OUT (SSC-5, 8.5.3)."""

    SET_DATA_ENCRYPTION = 0x0010


class EncryptionMode(IntEnum):
    """What is done to records that are written (SSC-5, 8.5.3.2.2)."""

    DISABLE = 0
    ENCRYPT = 2


class DecryptionMode(IntEnum):
    """What is done to records that are read (SSC-5, 8.5.3.2.3). MIXED: records in clear come as they are."""

    DISABLE = 0
    DECRYPT = 2
    MIXED = 3


class BlockStatus(IntEnum):
    """What the next logical object is (SSC-5, 8.5.2.8)."""

    UNKNOWN = 1
    NOT_A_BLOCK = 2
    CLEAR = 3
    OTHER_ALGORITHM = 4
    READABLE = 5
    KEY_NEEDED = 6


@dataclass(frozen=True, slots=True)
class SetEncryption:
    """The Set Data Encryption page. `repr` does not show the key."""

    encryption: EncryptionMode
    decryption: DecryptionMode
    key: bytes = field(default=b"", repr=False)
    key_id: bytes = b""


@dataclass(frozen=True, slots=True)
class NextBlock:
    """The Next Block Encryption Status page."""

    status: BlockStatus
    key_id: bytes = b""


def encode_set(page: SetEncryption) -> bytes:
    """SSC-5, 8.5.3.2."""
    kad = _encode_kad(page.key_id) if page.key_id else b""
    body = bytes((_ALL_NEXUS, 0, page.encryption, page.decryption, _ALGORITHM_INDEX, 0, 0)) + bytes(7)
    return _framed(OutPage.SET_DATA_ENCRYPTION, body + len(page.key).to_bytes(2, "big") + page.key + kad)


def decode_set(data: bytes) -> SetEncryption:
    """ValueError for a page that does not add up, or asks for what is not known here."""
    if len(data) < 20 or int.from_bytes(data[:2], "big") != OutPage.SET_DATA_ENCRYPTION:
        raise ValueError("no Set Data Encryption page")
    length = int.from_bytes(data[18:20], "big")
    key = data[20 : 20 + length]
    page = SetEncryption(EncryptionMode(data[6]), DecryptionMode(data[7]), key, _decode_kad(data[20 + length :]))
    wanted = page.encryption is not EncryptionMode.DISABLE or page.decryption is not DecryptionMode.DISABLE
    if len(key) != length or length not in (0, KEY_BYTES) or (wanted and not length):
        raise ValueError("the key does not have 32 bytes")
    return page


def encode_supported() -> bytes:
    """Supported pages (SSC-5, 8.5.2.2)."""
    return _framed(InPage.SUPPORTED, b"".join(page.to_bytes(2, "big") for page in InPage))


def encode_capabilities() -> bytes:
    """Data Encryption Capabilities with one algorithm (SSC-5, 8.5.2.4): AES-256-GCM in hardware, both ways."""
    descriptor = bytes((_ALGORITHM_INDEX, 0)) + (20).to_bytes(2, "big") + bytes((0x0A, 0x00)) + bytes(2)
    descriptor += LONGEST_KEY_ID.to_bytes(2, "big") + KEY_BYTES.to_bytes(2, "big") + bytes(8)
    return _framed(InPage.CAPABILITIES, bytes(16) + descriptor + ALGORITHM_AES_256_GCM.to_bytes(4, "big"))


def takes_aes_256(data: bytes) -> bool:
    """Whether the capabilities of a drive name AES-256-GCM."""
    at = 20
    while at + 24 <= len(data):
        if int.from_bytes(data[at + 20 : at + 24], "big") == ALGORITHM_AES_256_GCM:
            return True
        at += 4 + int.from_bytes(data[at + 2 : at + 4], "big")
    return False


def encode_status(page: SetEncryption, instance: int) -> bytes:
    """Data Encryption Status (SSC-5, 8.5.2.7). The key is no part of it."""
    body = bytes((_ALL_NEXUS | 0x02, page.encryption, page.decryption, _ALGORITHM_INDEX))
    kad = _encode_kad(page.key_id) if page.key_id else b""
    return _framed(InPage.STATUS, body + instance.to_bytes(4, "big") + bytes(12) + kad)


def decode_status(data: bytes) -> SetEncryption:
    """The modes and the id of the key that a drive works with."""
    return SetEncryption(EncryptionMode(data[5]), DecryptionMode(data[6]), key_id=_decode_kad(data[24:]))


def encode_next_block(block: int, found: NextBlock) -> bytes:
    """Next Block Encryption Status (SSC-5, 8.5.2.8)."""
    kad = _encode_kad(found.key_id) if found.key_id else b""
    return _framed(InPage.NEXT_BLOCK, block.to_bytes(8, "big") + bytes((found.status, _ALGORITHM_INDEX, 0, 0)) + kad)


def decode_next_block(data: bytes) -> NextBlock:
    """UNKNOWN for what is cut off, or means nothing here."""
    if len(data) < 16:
        return NextBlock(BlockStatus.UNKNOWN)
    try:
        return NextBlock(BlockStatus(data[12] & 0x0F), _decode_kad(data[16:]))
    except ValueError:
        return NextBlock(BlockStatus.UNKNOWN)


def _framed(page: int, body: bytes) -> bytes:
    return page.to_bytes(2, "big") + len(body).to_bytes(2, "big") + body


def _encode_kad(key_id: bytes) -> bytes:
    """One key-associated data descriptor (SSC-5, 8.5.4)."""
    return bytes((_A_KAD, 0)) + len(key_id).to_bytes(2, "big") + key_id


def _decode_kad(data: bytes) -> bytes:
    """The authenticated one of a list; b"" when there is none."""
    at = 0
    while at + 4 <= len(data):
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at] == _A_KAD:
            return data[at + 4 : at + 4 + length]
        at += 4 + length
    return b""
