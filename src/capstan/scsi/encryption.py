"""Encryption by the drive: pages of the security protocol 20h, tape data encryption (SSC-5, 8.5), from and to bytes.

Pure functions, for both ends of the wire. A device's bytes are not trusted: what is too short is read as zeros or left
out. No key is ever part of a `repr`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

PROTOCOL = 0x20  # tape data encryption (SPC-5, 7.6.1)
KEY_BYTES = 32  # AES-256
MAX_AUTHENTICATED = 12  # bytes of an A-KAD that LTO drives keep with a block; others keep more
MAX_UNAUTHENTICATED = 32  # bytes of a U-KAD
AES_256_GCM = 0x0001_0014  # security algorithm code: AES-GCM with 16 bytes of integrity check (SPC-5, 5.14.8)


class InPage(IntEnum):
    """Pages of SECURITY PROTOCOL IN (SSC-5, 8.5.2)."""

    IN_SUPPORT = 0x0000
    OUT_SUPPORT = 0x0001
    CAPABILITIES = 0x0010
    STATUS = 0x0020
    NEXT_BLOCK = 0x0021


class OutPage(IntEnum):
    """Pages of SECURITY PROTOCOL OUT (SSC-5, 8.5.3)."""

    SET_DATA_ENCRYPTION = 0x0010


class EncryptionMode(IntEnum):
    """What the drive does to a block that it writes (SSC-5, 8.5.3.2, ENCRYPTION MODE)."""

    DISABLE = 0
    EXTERNAL = 1
    ENCRYPT = 2


class DecryptionMode(IntEnum):
    """What the drive does to a block that it reads (SSC-5, 8.5.3.2, DECRYPTION MODE). MIXED: as the block needs it."""

    DISABLE = 0
    RAW = 1
    DECRYPT = 2
    MIXED = 3


class BlockStatus(IntEnum):
    """What the drive knows of the next block (SSC-5, 8.5.2.8, ENCRYPTION STATUS)."""

    INCAPABLE = 0
    NOT_NOW = 1
    NOT_A_BLOCK = 2
    CLEAR = 3
    UNKNOWN_ALGORITHM = 4
    DECRYPTABLE = 5
    NEEDS_KEY = 6


@dataclass(frozen=True, slots=True)
class KeyData:
    """What lies with a block to say which key it needs: KADs (SSC-5, 8.5.4). `authenticated`: A-KAD, type 01h, covered
    by the block's integrity check; `unauthenticated`: U-KAD, type 00h."""

    authenticated: bytes = b""
    unauthenticated: bytes = b""


@dataclass(frozen=True, slots=True)
class Algorithm:
    """One algorithm of the capabilities page. `encrypts` and `decrypts`: by the drive itself, in any way."""

    index: int
    code: int
    key_bytes: int
    encrypts: bool
    decrypts: bool
    max_authenticated: int
    max_unauthenticated: int


@dataclass(frozen=True, slots=True)
class SetDataEncryption:
    """The parameters of SET DATA ENCRYPTION. `scope` 2: for all I_T nexuses; `clear_on_demount` is CKOD."""

    encryption: int = EncryptionMode.DISABLE
    decryption: int = DecryptionMode.DISABLE
    key: bytes = field(default=b"", repr=False)
    kads: KeyData = KeyData()
    algorithm: int = 0
    key_format: int = 0
    scope: int = 2
    clear_on_demount: bool = False


@dataclass(frozen=True, slots=True)
class EncryptionStatus:
    """The data encryption status page. `key_instance` counts the changes of the key since power on."""

    encryption: int = EncryptionMode.DISABLE
    decryption: int = DecryptionMode.DISABLE
    algorithm: int = 0
    key_instance: int = 0
    kads: KeyData = KeyData()
    scope: int = 0


@dataclass(frozen=True, slots=True)
class NextBlockStatus:
    """The next block encryption status page: of the object that the next READ would meet."""

    block: int = 0
    status: int = BlockStatus.INCAPABLE
    algorithm: int = 0
    kads: KeyData = KeyData()


# ── pages that say what is supported ──────────────────────────────────────────────────────────────────


def encode_support(page: int, supported: tuple[int, ...]) -> bytes:
    """In or out support page (SSC-5, 8.5.2.2 and 8.5.2.3): page codes of two bytes each, ascending."""
    return _page(page, b"".join(code.to_bytes(2, "big") for code in supported))


def decode_support(data: bytes) -> frozenset[int]:
    """The page codes in a support page."""
    body = _body(data)
    return frozenset(int.from_bytes(body[at : at + 2], "big") for at in range(0, len(body) - 1, 2))


def encode_capabilities(algorithms: tuple[Algorithm, ...]) -> bytes:
    """Data encryption capabilities page (SSC-5, 8.5.2.4): EXTDECC 01b (no external control), CFG_P 01b (not locked)."""
    return _page(InPage.CAPABILITIES, b"\x05" + bytes(15) + b"".join(map(_algorithm, algorithms)))


def _algorithm(algorithm: Algorithm) -> bytes:
    """Algorithm descriptor (SSC-5, 8.5.2.4.2): AVFMV (valid for the mounted volume), MAC_C and DED_C (authenticates,
    tells encrypted from clear), DECRYPT_C and ENCRYPT_C 10b (in hardware), AVFCLP 10b (valid at this place),
    UKADF and AKADF 0 (KADs of variable length)."""
    can = 0xB0 | (0x08 if algorithm.decrypts else 0) | (0x02 if algorithm.encrypts else 0)
    return (
        bytes((algorithm.index, 0, 0, 20, can, 0x80))
        + algorithm.max_unauthenticated.to_bytes(2, "big")
        + algorithm.max_authenticated.to_bytes(2, "big")
        + algorithm.key_bytes.to_bytes(2, "big")
        + bytes((0x01, 0, 0, 0, 0, 0, 0, 0))  # EAREM: the mode is recorded with each block
        + algorithm.code.to_bytes(4, "big")
    )


def decode_capabilities(data: bytes) -> tuple[Algorithm, ...]:
    """The algorithms of a capabilities page, in its order."""
    body = _body(data)[16:]
    found, at = [], 0
    while at + 4 <= len(body):
        length = int.from_bytes(body[at + 2 : at + 4], "big")
        item = body[at : at + 4 + length].ljust(24, b"\0")
        found.append(
            Algorithm(
                index=item[0],
                code=int.from_bytes(item[20:24], "big"),
                key_bytes=int.from_bytes(item[10:12], "big"),
                encrypts=bool(item[4] & 0x03),
                decrypts=bool(item[4] & 0x0C),
                max_authenticated=int.from_bytes(item[8:10], "big"),
                max_unauthenticated=int.from_bytes(item[6:8], "big"),
            )
        )
        at += 4 + length
    return tuple(found)


# ── what is so now ────────────────────────────────────────────────────────────────────────────────────


def encode_status(status: EncryptionStatus) -> bytes:
    """Data encryption status page (SSC-5, 8.5.2.7): PARAMETERS CONTROL 1 (by the application), CEEMS and RDMD 0."""
    scopes = status.scope << 5 | status.scope
    head = bytes((scopes, status.encryption, status.decryption, status.algorithm))
    body = head + status.key_instance.to_bytes(4, "big") + bytes((0x10, 0, 0, 0)) + bytes(8)
    return _page(InPage.STATUS, body + encode_kads(status.kads))


def decode_status(data: bytes) -> EncryptionStatus:
    """Decode a data encryption status page."""
    body = _body(data)
    padded = body.ljust(20, b"\0")
    return EncryptionStatus(
        encryption=padded[1],
        decryption=padded[2],
        algorithm=padded[3],
        key_instance=int.from_bytes(padded[4:8], "big"),
        kads=decode_kads(body[20:]),
        scope=padded[0] >> 5,
    )


def encode_next_block(status: NextBlockStatus) -> bytes:
    """Next block encryption status page (SSC-5, 8.5.2.8): COMPRESSION STATUS 0 (cannot tell), EMES and RDMDS 0."""
    body = status.block.to_bytes(8, "big") + bytes((status.status, status.algorithm, 0, 0))
    return _page(InPage.NEXT_BLOCK, body + encode_kads(status.kads, checked=status.status == BlockStatus.DECRYPTABLE))


def decode_next_block(data: bytes) -> NextBlockStatus:
    """Decode a next block encryption status page; no answer at all is INCAPABLE."""
    body = _body(data)
    padded = body.ljust(12, b"\0")
    return NextBlockStatus(
        block=int.from_bytes(padded[:8], "big"),
        status=padded[8] & 0x0F,
        algorithm=padded[9],
        kads=decode_kads(body[12:]),
    )


# ── what is asked for ─────────────────────────────────────────────────────────────────────────────────


def encode_set(parameters: SetDataEncryption) -> bytearray:
    """Set data encryption page (SSC-5, 8.5.3.2). The result holds the key: whoever sends it wipes it behind that."""
    key = parameters.key
    page = bytearray(20 + len(key))
    page[0:2] = OutPage.SET_DATA_ENCRYPTION.to_bytes(2, "big")
    page[4] = parameters.scope << 5
    page[5] = 0x04 if parameters.clear_on_demount else 0  # CEEM, RDMC, SDK, CKORP and CKORL are 0
    page[6:10] = bytes((parameters.encryption, parameters.decryption, parameters.algorithm, parameters.key_format))
    page[18:20] = len(key).to_bytes(2, "big")
    page[20:] = key
    page += encode_kads(parameters.kads)
    page[2:4] = (len(page) - 4).to_bytes(2, "big")
    return page


def decode_set(data: memoryview) -> SetDataEncryption | None:
    """Decode a set data encryption page, as a drive does; None when its lengths do not agree with what was sent."""
    if len(data) < 20 or int.from_bytes(data[2:4], "big") != len(data) - 4:
        return None
    stop = 20 + int.from_bytes(data[18:20], "big")
    if stop > len(data):
        return None
    return SetDataEncryption(
        encryption=data[6],
        decryption=data[7],
        key=bytes(data[20:stop]),
        kads=decode_kads(bytes(data[stop:])),
        algorithm=data[8],
        key_format=data[9],
        scope=data[4] >> 5,
        clear_on_demount=bool(data[5] & 0x04),
    )


def encode_kads(kads: KeyData, *, checked: bool = False) -> bytes:
    """Key-associated data descriptors (SSC-5, 8.5.4), ascending by type. `checked`: the drive has authenticated the
    A-KAD with its block (AUTHENTICATED 3); else the field is 0: reserved on the way out, not reported on the way in."""
    found = b""
    if kads.unauthenticated:
        found += bytes((0x00, 0x00)) + len(kads.unauthenticated).to_bytes(2, "big") + kads.unauthenticated
    if kads.authenticated:
        found += bytes((0x01, 0x03 if checked else 0x00)) + len(kads.authenticated).to_bytes(2, "big")
        found += kads.authenticated
    return found


def decode_kads(data: bytes) -> KeyData:
    """The A-KAD and U-KAD of a list of descriptors; nonces and others are passed over."""
    found = {0x00: b"", 0x01: b""}
    at = 0
    while at + 4 <= len(data):
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        found[data[at]] = data[at + 4 : at + 4 + length]
        at += 4 + length
    return KeyData(authenticated=found[0x01], unauthenticated=found[0x00])


def _page(code: int, body: bytes) -> bytes:
    return code.to_bytes(2, "big") + len(body).to_bytes(2, "big") + body


def _body(data: bytes) -> bytes:
    return data[4 : 4 + int.from_bytes(data[2:4], "big")]
