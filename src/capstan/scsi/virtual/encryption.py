"""How a virtual drive encrypts: AES-256-GCM, a record at a time, as LTO drives do since LTO-4.

An encrypted record in the image is

    0   4 bytes  "CER1"
    4   1        length of the A-KAD
    5   1        length of the U-KAD
    6   2        zeros
    8   12       nonce: 8 random bytes for each setting of a key, and the number of the record behind it
    20  8        key check: the beginning of SHA-256 over a fixed text and the key, to tell a wrong key from damage
    28           A-KAD, U-KAD, ciphertext, 16 bytes of integrity check

with everything before the U-KAD authenticated. A key is in memory only, from SET DATA ENCRYPTION until the tape is
unthreaded, the drive is reset, or the power goes off, whatever CKOD says: stricter than the standard, never laxer.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from capstan.scsi import encryption
from capstan.scsi.encryption import (
    AES_256_GCM,
    KEY_BYTES,
    MAX_AUTHENTICATED,
    MAX_UNAUTHENTICATED,
    Algorithm,
    BlockStatus,
    DecryptionMode,
    EncryptionMode,
    EncryptionStatus,
    InPage,
    KeyData,
    NextBlockStatus,
    OutPage,
    SetDataEncryption,
)
from capstan.scsi.sense import Key, Sense
from capstan.scsi.virtual.image import BadRecord, TapeImage
from capstan.scsi.virtual.target import INVALID_FIELD, CheckCondition, illegal

_MAGIC = b"CER1"
_HEAD = 28
_TAG = 16
_INDEX = 1  # of the only algorithm
_ALGORITHMS = (Algorithm(_INDEX, AES_256_GCM, KEY_BYTES, True, True, MAX_AUTHENTICATED, MAX_UNAUTHENTICATED),)
_INVALID_PARAMETER = (0x26, 0x00)
_NO_KEY, _IN_CLEAR, _WRONG_KEY, _NOT_AUTHENTIC = 0x01, 0x02, 0x03, 0x04  # ASCQ with ASC 74h (SPC-5, annex F)


class _KeyInUse:
    """A key and what belongs to it. Has no `repr` that could show it."""

    def __init__(self, key: bytes, kads: KeyData) -> None:
        self.cipher = AESGCM(key)
        self.check = hashlib.sha256(b"capstan virtual drive, key check" + key).digest()[:8]
        self.kads = kads
        self._prefix = os.urandom(8)
        self._used = 0

    def nonce(self) -> bytes:
        """One that this key was never used with."""
        if self._used == 1 << 32:
            self._prefix, self._used = os.urandom(8), 0
        self._used += 1
        return self._prefix + (self._used - 1).to_bytes(4, "big")


class DataEncryption:
    """The encryption of one drive: its parameters, the pages it answers, and the way of records to and from the image.

    Records are encrypted and decrypted in one buffer that is kept, so no record is copied on its way.
    """

    def __init__(self) -> None:
        self._encryption = EncryptionMode.DISABLE
        self._decryption = DecryptionMode.DISABLE
        self._key: _KeyInUse | None = None
        self._scope = 0
        self._instance = 0
        self._buffer = bytearray()

    def forget(self) -> None:
        """No key from here on: records are written in clear, and encrypted ones cannot be read."""
        self._instance += self._key is not None
        self._encryption, self._decryption = EncryptionMode.DISABLE, DecryptionMode.DISABLE
        self._key, self._scope = None, 0

    def answer(self, cdb: bytes, where: Callable[[], tuple[TapeImage, int]]) -> bytes:
        """To SECURITY PROTOCOL IN. `where` gives the tape and the number of its next object."""
        page = int.from_bytes(cdb[2:4], "big")
        if cdb[4] & 0x80 or cdb[1] not in (0x00, encryption.PROTOCOL):  # INC_512: LTO drives do not know it
            raise illegal(*INVALID_FIELD)
        if cdb[1] == 0x00:  # which protocols there are (SPC-5, 7.6.1)
            if page:
                raise illegal(*INVALID_FIELD)
            return bytes((0, 0, 0, 0, 0, 0, 0, 2, 0x00, encryption.PROTOCOL))
        return self.next_block(*where()) if page == InPage.NEXT_BLOCK else self.page(page)

    def take(self, cdb: bytes, data: memoryview | None, *, loaded: bool) -> int:
        """SECURITY PROTOCOL OUT; returns the bytes taken."""
        if cdb[4] & 0x80 or cdb[1] != encryption.PROTOCOL:
            raise illegal(*INVALID_FIELD)
        if int.from_bytes(cdb[6:10], "big") != (0 if data is None else len(data)):
            raise illegal(*INVALID_FIELD)
        return self.set(int.from_bytes(cdb[2:4], "big"), data, loaded=loaded)

    def set(self, page: int, data: memoryview | None, *, loaded: bool) -> int:
        """One page of SECURITY PROTOCOL OUT. ILLEGAL REQUEST leaves what was set before."""
        if page != OutPage.SET_DATA_ENCRYPTION:
            raise illegal(*INVALID_FIELD)
        asked = encryption.decode_set(memoryview(b"") if data is None else data)
        if data is None or asked is None:
            raise illegal(0x1A)
        needs_key = asked.encryption == EncryptionMode.ENCRYPT or asked.decryption != DecryptionMode.DISABLE
        if not _supported(asked, needs_key=needs_key) or (asked.clear_on_demount and not loaded):
            raise illegal(*_INVALID_PARAMETER)
        if not needs_key:
            self.forget()
            return len(data)
        self._key = _KeyInUse(asked.key, asked.kads)
        self._encryption, self._decryption = EncryptionMode(asked.encryption), DecryptionMode(asked.decryption)
        self._scope = asked.scope
        self._instance += 1
        return len(data)

    def page(self, page: int) -> bytes:
        """SECURITY PROTOCOL IN, all but the next block."""
        if page == InPage.IN_SUPPORT:
            return encryption.encode_support(page, tuple(InPage))
        if page == InPage.OUT_SUPPORT:
            return encryption.encode_support(page, tuple(OutPage))
        if page == InPage.CAPABILITIES:
            return encryption.encode_capabilities(_ALGORITHMS)
        if page == InPage.STATUS:
            kads = self._key.kads if self._key else KeyData()
            index = _INDEX if self._key else 0
            return encryption.encode_status(
                EncryptionStatus(self._encryption, self._decryption, index, self._instance, kads, self._scope)
            )
        raise illegal(*INVALID_FIELD)

    def next_block(self, tape: TapeImage, number: int) -> bytes:
        """The next block encryption status page for object `number`."""
        status, kads = BlockStatus.CLEAR, KeyData()
        if number >= tape.count:
            status = BlockStatus.NOT_NOW
        elif tape.is_filemark(number):
            status = BlockStatus.NOT_A_BLOCK
        elif tape.is_encrypted(number):
            try:
                record = self._load(tape, number)
            except BadRecord:
                status = BlockStatus.NOT_NOW
            else:
                kads = _kads(record)
                able = self._decryption != DecryptionMode.DISABLE and self._fits(record)
                status = BlockStatus.DECRYPTABLE if able else BlockStatus.NEEDS_KEY
        index = _INDEX if status >= BlockStatus.DECRYPTABLE else 0
        return encryption.encode_next_block(NextBlockStatus(number, status, index, kads))

    @property
    def overhead(self) -> int:
        """Bytes that a record written now takes beyond its own."""
        if self._key is None or self._encryption != EncryptionMode.ENCRYPT:
            return 0
        return len(_preamble(self._key)) + 12 + _TAG

    def write(self, tape: TapeImage, number: int, data: memoryview) -> None:
        """Write a record as object `number`, encrypted when the mode says so. OSError as `TapeImage.write`."""
        key = self._key
        if key is None or self._encryption != EncryptionMode.ENCRYPT:
            tape.write(number, data)
            return
        nonce = key.nonce()
        preamble = _preamble(key)
        head = len(preamble) + len(nonce)
        record = self._space(head + len(data) + _TAG)
        record[:8] = preamble[:8]
        record[8:20] = nonce
        record[20:head] = preamble[8:]
        covered = bytes(record[: _HEAD + record[4]])
        key.cipher.encrypt_into(nonce, data, covered, record[head:])
        tape.write(number, record, encrypted=True)

    def read(self, tape: TapeImage, number: int, into: memoryview) -> int:
        """Fill `into` with a record's data from its beginning; return the record's whole length.

         DATA PROTECT when it cannot be given to this host: nothing of it is in `into`, and the position stays before it
        . BadRecord.
        """
        if not tape.is_encrypted(number):
            if self._decryption == DecryptionMode.DECRYPT:
                raise _protected(_IN_CLEAR)
            return tape.read(number, into)
        record = self._load(tape, number)
        if self._key is None or self._decryption == DecryptionMode.DISABLE:
            raise _protected(_NO_KEY)
        if not self._fits(record):
            raise _protected(_WRONG_KEY)
        start, covered = _HEAD + record[4] + record[5], bytes(record[: _HEAD + record[4]])
        length = len(record) - start - _TAG
        plain = into[:length] if len(into) >= length else memoryview(bytearray(length))
        try:
            self._key.cipher.decrypt_into(bytes(record[8:20]), record[start:], covered, plain)
        except InvalidTag:
            plain[:] = bytes(length)  # what is not authentic is not shown
            raise _protected(_NOT_AUTHENTIC) from None
        if len(into) < length:
            into[:] = plain[: len(into)]
        return length

    def _fits(self, record: memoryview) -> bool:
        return self._key is not None and bytes(record[20:28]) == self._key.check

    def _load(self, tape: TapeImage, number: int) -> memoryview:
        """The encrypted record in the buffer. BadRecord."""
        record = self._space(tape.record_length(number))
        tape.read(number, record)
        if len(record) < _HEAD or bytes(record[:4]) != _MAGIC or len(record) < _HEAD + record[4] + record[5] + _TAG:
            raise BadRecord(f"record {number} is not an encrypted one")
        return record

    def _space(self, size: int) -> memoryview:
        """`size` bytes of the buffer, which grows to the longest record that was met."""
        if len(self._buffer) < size:
            self._buffer = bytearray(size)
        return memoryview(self._buffer)[:size]


def _preamble(key: _KeyInUse) -> bytes:
    """An encrypted record up to its ciphertext, without the nonce that belongs behind its first 8 bytes."""
    known, free = key.kads.authenticated, key.kads.unauthenticated
    return _MAGIC + bytes((len(known), len(free), 0, 0)) + key.check + known + free


def _kads(record: memoryview) -> KeyData:
    known, free = record[4], record[5]
    return KeyData(bytes(record[_HEAD : _HEAD + known]), bytes(record[_HEAD + known : _HEAD + known + free]))


def _supported(asked: SetDataEncryption, *, needs_key: bool) -> bool:
    """Whether the drive can do what SET DATA ENCRYPTION asks (SSC-5, 8.5.3.2)."""
    if asked.encryption not in (EncryptionMode.DISABLE, EncryptionMode.ENCRYPT):
        return False
    if asked.decryption not in (DecryptionMode.DISABLE, DecryptionMode.DECRYPT, DecryptionMode.MIXED):
        return False
    if not needs_key:
        return True
    return (
        asked.algorithm == _INDEX
        and asked.key_format == 0
        and len(asked.key) == KEY_BYTES
        and asked.scope in (1, 2)
        and len(asked.kads.authenticated) <= MAX_AUTHENTICATED
        and len(asked.kads.unauthenticated) <= MAX_UNAUTHENTICATED
    )


def _protected(ascq: int) -> CheckCondition:
    return CheckCondition(Sense(Key.DATA_PROTECT, 0x74, ascq))
