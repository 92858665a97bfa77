"""Encryption by a drive over any SCSI transport (SSC-5, 8.5)."""

from __future__ import annotations

from collections.abc import Callable

from capstan.scsi import cdb
from capstan.scsi.encryption import (
    PROTOCOL,
    BlockStatus,
    DecryptionMode,
    EncryptionMode,
    InPage,
    OutPage,
    SetEncryption,
    decode_next_block,
    encode_set,
    takes_aes_256,
)
from capstan.tape.discovery import Query

_ENCRYPTED = (BlockStatus.READABLE, BlockStatus.KEY_NEEDED, BlockStatus.OTHER_ALGORITHM)
_ANSWER = 1024  # bytes: more than any of the pages has

# Sends a command with data to the drive, by name; raises what it answers.
SendOut = Callable[[str, bytes, memoryview], None]


class ScsiEncryption:
    """Implements `tape.drive.BlockEncryption`, for the drive that it belongs to."""

    def __init__(self, query: Query, send: SendOut) -> None:
        self._query = query
        self._send = send

    def set_key(self, key: bytes, key_id: str, *, encrypt: bool) -> None:
        mode = EncryptionMode.ENCRYPT if encrypt else EncryptionMode.DISABLE
        self._set(SetEncryption(mode, DecryptionMode.MIXED, key, bytes.fromhex(key_id)))

    def clear_key(self) -> None:
        self._set(SetEncryption(EncryptionMode.DISABLE, DecryptionMode.DISABLE))

    def key_wanted(self) -> str | None:
        answer = self._query(cdb.security_protocol_in(PROTOCOL, InPage.NEXT_BLOCK, length=_ANSWER), _ANSWER)
        found = decode_next_block(answer)
        return found.key_id.hex() if found.status in _ENCRYPTED else None

    def _set(self, page: SetEncryption) -> None:
        data = memoryview(bytearray(encode_set(page)))
        command = cdb.security_protocol_out(PROTOCOL, OutPage.SET_DATA_ENCRYPTION, length=len(data))
        try:
            self._send("SECURITY PROTOCOL OUT", command, data)
        finally:
            data[:] = bytes(len(data))


def find_encryption(query: Query, send: SendOut) -> ScsiEncryption | None:
    """What a drive can do; None where it says nothing of AES-256-GCM."""
    command = cdb.security_protocol_in(PROTOCOL, InPage.CAPABILITIES, length=_ANSWER)
    return ScsiEncryption(query, send) if takes_aes_256(query(command, _ANSWER, optional=True)) else None
