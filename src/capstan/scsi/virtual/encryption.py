"""How a virtual drive encrypts: each record by itself, AES-256-GCM (SSC-5, 4.2.27), the key's id beside it.

An encrypted record is a record of its own class in the image (`image.PRIVATE`), written at once:

    1 byte version · 1 byte length of the key's id · the id · 12 bytes nonce · ciphertext and its tag

The id is authenticated together with the data. Nothing here is kept when the cartridge leaves the drive.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from capstan.scsi.encryption import (
    PROTOCOL,
    BlockStatus,
    DecryptionMode,
    EncryptionMode,
    InPage,
    NextBlock,
    SetEncryption,
    decode_set,
    encode_capabilities,
    encode_next_block,
    encode_status,
    encode_supported,
)
from capstan.scsi.sense import Key, Sense
from capstan.scsi.virtual.image import BadRecord, TapeImage
from capstan.scsi.virtual.target import INVALID_FIELD, CheckCondition, illegal

_VERSION = 1
_NONCE = 12
_OFF = SetEncryption(EncryptionMode.DISABLE, DecryptionMode.DISABLE)

# SSC-5, 4.2.27.6, and SPC-5, annex F: what is said of a record that is not read.
NO_KEY = Sense(Key.DATA_PROTECT, 0x74, 0x01)  # UNABLE TO DECRYPT DATA
IN_CLEAR = Sense(Key.DATA_PROTECT, 0x74, 0x02)  # UNENCRYPTED DATA ENCOUNTERED WHILE DECRYPTING
WRONG_KEY = Sense(Key.DATA_PROTECT, 0x74, 0x03)  # INCORRECT DATA ENCRYPTION KEY
BROKEN_SEAL = Sense(Key.DATA_PROTECT, 0x74, 0x04)  # CRYPTOGRAPHIC INTEGRITY VALIDATION FAILED


class DriveCipher:
    """What a drive was told to do, and does. Made anew with each cartridge."""

    def __init__(self) -> None:
        self._set = _OFF
        self._instance = 0

    def __repr__(self) -> str:
        return "DriveCipher(…)"

    def apply(self, cdb: bytes, data: bytes) -> None:
        """SECURITY PROTOCOL OUT: from now on work so. ILLEGAL REQUEST for what is no such page."""
        if cdb[1] != PROTOCOL or cdb[4] & 0x80:  # INC_512
            raise illegal(*INVALID_FIELD)
        try:
            self._set = decode_set(data)
        except ValueError:
            raise illegal(0x26, 0x00) from None
        self._instance += 1

    def forget(self) -> None:
        """The key is gone."""
        self._set = _OFF

    def write(self, tape: TapeImage, number: int, data: memoryview) -> None:
        """As `TapeImage.write`, encrypted if the drive was told so."""
        if self._set.encryption is not EncryptionMode.ENCRYPT:
            tape.write(number, data)
            return
        key_id, nonce = self._set.key_id, os.urandom(_NONCE)
        head = bytes((_VERSION, len(key_id))) + key_id
        sealed = AESGCM(self._set.key).encrypt(nonce, data, head)
        tape.write(number, memoryview(head + nonce + sealed), private=True)

    def read(self, tape: TapeImage, number: int, into: memoryview) -> int:
        """As `TapeImage.read`, of what was written. CheckCondition for a record that cannot or shall not be read."""
        if tape.is_private(number):
            data = self._opened(_whole(tape, number))
            into[: len(data)] = data[: len(into)]
            return len(data)
        if self._set.decryption is DecryptionMode.DECRYPT:
            raise CheckCondition(IN_CLEAR)
        return tape.read(number, into)

    def _opened(self, record: bytes) -> bytes:
        if self._set.decryption is DecryptionMode.DISABLE:
            raise CheckCondition(NO_KEY)
        head, key_id = _head(record)
        if key_id != self._set.key_id:
            raise CheckCondition(WRONG_KEY)
        begin = len(head) + _NONCE
        try:
            return AESGCM(self._set.key).decrypt(record[len(head) : begin], record[begin:], head)
        except InvalidTag:
            raise CheckCondition(BROKEN_SEAL) from None

    def answer(self, cdb: bytes, tape: TapeImage | None, at: int) -> bytes:
        """SECURITY PROTOCOL IN: a page. ILLEGAL REQUEST for one that there is not."""
        number = int.from_bytes(cdb[2:4], "big")
        pages: dict[int, Callable[[], bytes]] = {
            InPage.SUPPORTED: encode_supported,
            InPage.CAPABILITIES: encode_capabilities,
            InPage.STATUS: lambda: encode_status(self._set, self._instance),
            InPage.NEXT_BLOCK: lambda: encode_next_block(at, self._next_block(tape, at)),
        }
        if cdb[1] != PROTOCOL or cdb[4] & 0x80 or number not in pages:
            raise illegal(*INVALID_FIELD)
        return pages[number]()

    def _next_block(self, tape: TapeImage | None, at: int) -> NextBlock:
        if tape is None:
            return NextBlock(BlockStatus.UNKNOWN)
        if at >= tape.count or tape.is_filemark(at):
            return NextBlock(BlockStatus.NOT_A_BLOCK)
        try:
            if not tape.is_private(at):
                return NextBlock(BlockStatus.CLEAR)
            key_id = _head(_whole(tape, at))[1]
        except BadRecord:
            return NextBlock(BlockStatus.UNKNOWN)  # reading it will say what is wrong
        able = self._set.decryption is not DecryptionMode.DISABLE and key_id == self._set.key_id
        return NextBlock(BlockStatus.READABLE if able else BlockStatus.KEY_NEEDED, key_id)


def _whole(tape: TapeImage, number: int) -> bytes:
    record = bytearray(tape.record_length(number))
    tape.read(number, memoryview(record))
    return bytes(record)


def _head(record: bytes) -> tuple[bytes, bytes]:
    """What is authenticated beside the data, and the key's id in it."""
    length = record[1] if len(record) > 1 else 0
    return record[: 2 + length], record[2 : 2 + length]
