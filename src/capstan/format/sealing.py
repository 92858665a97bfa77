"""Sealed payloads: a payload is one age file, any part of which can be opened alone (docs/design/tape-format.md, 3.7).

The *beginning* of such a payload is all before its first chunk: the age header and the nonce. Manifests keep it for
each segment, so that a reader who has the right identity needs nothing from the tape but the chunks it wants.
"""

from __future__ import annotations

import io
from base64 import b64decode, b64encode
from collections.abc import Callable, Sequence
from typing import BinaryIO

from capstan.core.backup import Segment
from capstan.crypto.age import CHUNK, NONCE, TAG, AgeError, ChunkCipher, chunk_at, header_bytes, new_header, read_header
from capstan.crypto.identities import Identity

_SEALED = CHUNK + TAG
_BATCH = 16  # chunks that are handed on in one piece


class PayloadSealer:
    """Makes one age file of what it is given, and hands it on to `write` in pieces, each valid during that call.

    `file_key` opens the file; it must go no further than whoever has to read it back in this home.
    """

    def __init__(self, recipients: Sequence[str], write: Callable[[memoryview], None]) -> None:
        """Write the beginning. InvalidValue for what is no recipient."""
        header = new_header(recipients)
        self._cipher = ChunkCipher(header)
        self._write = write
        self._pending = memoryview(bytearray(CHUNK))  # held back until it is known whether it is the last chunk
        self._filled = 0
        self._out = memoryview(bytearray(_BATCH * _SEALED))
        self._used = 0
        self._number = 0
        self.file_key = header.file_key
        self.beginning = header.text + self._cipher.nonce
        self.plain_bytes = 0
        write(memoryview(self.beginning))

    def write(self, data: bytes | memoryview) -> None:
        """Add plain text. `data` may be reused when this returns."""
        view = memoryview(data)
        self.plain_bytes += len(view)
        at = 0
        if self._filled:
            at = min(CHUNK - self._filled, len(view))
            self._hold(view[:at])
            if at == len(view):
                return
            self._seal(self._pending, last=False)
            self._filled = 0
        while len(view) - at > CHUNK:
            self._seal(view[at : at + CHUNK], last=False)
            at += CHUNK
        self._hold(view[at:])

    def finish(self) -> None:
        """Seal what is held back as the last chunk, and hand all on."""
        self._seal(self._pending[: self._filled], last=True)
        self._hand_on()

    def _hold(self, data: memoryview) -> None:
        self._pending[self._filled : self._filled + len(data)] = data
        self._filled += len(data)

    def _seal(self, plain: memoryview, *, last: bool) -> None:
        end = self._used + len(plain) + TAG
        self._cipher.seal_into(self._number, plain, self._out[self._used : end], last=last)
        self._number += 1
        self._used = end
        if end > len(self._out) - _SEALED:
            self._hand_on()

    def _hand_on(self) -> None:
        if self._used:
            self._write(self._out[: self._used])
            self._used = 0


def encode_beginning(beginning: bytes) -> str:
    """As manifests and catalog keep it."""
    return b64encode(beginning).decode()


def sealed_range(segment: Segment, plain_offset: int, plain_bytes: int) -> tuple[int, int]:
    """Which bytes of a segment's payload hold those of its plain text: offset and length of the whole chunks. The same
    range, where it is not sealed."""
    if not segment.age_beginning:
        return plain_offset, plain_bytes
    text = segment.age_beginning
    begins = len(text) // 4 * 3 - text.count("=", -2)  # of base64
    offset = begins + chunk_at(plain_offset)[1]
    behind = -(-(plain_offset + max(plain_bytes, 1)) // CHUNK)
    return offset, min(begins + behind * _SEALED, segment.payload_bytes) - offset


class SegmentOpener:
    """Opens parts of one sealed segment. For any threads."""

    def __init__(self, segment: Segment, identities: Sequence[Identity]) -> None:
        """AgeError when none of the identities opens it."""
        beginning = b64decode(segment.age_beginning)
        self._cipher = _cipher(beginning, identities)
        self._chunks = -(-(segment.payload_bytes - len(beginning)) // _SEALED)

    def open(self, sealed: memoryview, plain_offset: int, plain_bytes: int) -> memoryview:
        """The plain text, from the chunks of `sealed_range`. AgeError when they are not what was written."""
        first = plain_offset // CHUNK
        plain = memoryview(bytearray(len(sealed)))
        filled = 0
        for number, at in enumerate(range(0, len(sealed), _SEALED), first):
            chunk = sealed[at : at + _SEALED]
            end = filled + len(chunk) - TAG
            if end < filled:
                raise AgeError(f"chunk {number} is cut off")
            self._cipher.open_into(number, chunk, plain[filled:end], last=number == self._chunks - 1)
            filled = end
        begin = plain_offset - first * CHUNK
        if begin + plain_bytes > filled:
            raise AgeError("the payload is cut off")
        return plain[begin : begin + plain_bytes]


class PayloadOpener:
    """Opens the whole payload of a sealed segment as it comes, and hands the plain text on to `write` in pieces."""

    def __init__(self, segment: Segment, identities: Sequence[Identity], write: Callable[[memoryview], object]) -> None:
        """AgeError when none of the identities opens it."""
        self._opener = SegmentOpener(segment, identities)
        self._skip = len(b64decode(segment.age_beginning))
        self._write = write
        self._sealed = bytearray()
        self._plain_bytes = 0

    def write(self, data: bytes | memoryview) -> None:
        """The next bytes of the payload, from its very beginning. AgeError when they are not what was written."""
        skipped = min(self._skip, len(data))
        self._skip -= skipped
        self._sealed += memoryview(data)[skipped:]
        while len(self._sealed) >= _BATCH * _SEALED:
            self._open(_BATCH * _SEALED)

    def finish(self) -> None:
        """There is no more. AgeError when there should be."""
        self._open(len(self._sealed))

    def _open(self, count: int) -> None:
        plain_bytes = count - -(-count // _SEALED) * TAG
        sealed = bytes(self._sealed[:count])
        del self._sealed[:count]
        if count:
            self._write(self._opener.open(memoryview(sealed), self._plain_bytes, plain_bytes))
        self._plain_bytes += plain_bytes


class SealedFile(io.RawIOBase):
    """The plain text of an age file, as a file that is read from its beginning to its end."""

    def __init__(self, file: BinaryIO, size: int, identities: Sequence[Identity]) -> None:
        """`file` stands at its beginning, and has `size` bytes. AgeError as of `read_header`."""
        beginning = file.read(min(size, 1 << 20))
        length = header_bytes(beginning) + NONCE
        self._cipher = _cipher(beginning[:length], identities)
        self._file = file
        self._file.seek(length)
        self._left = size - length
        self._number = 0
        self._plain = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, into: memoryview) -> int:  # type: ignore[override]
        """AgeError when what is there is not what was written."""
        if not self._plain and (self._left or not self._number):
            self._next()
        taken = min(len(into), len(self._plain))
        into[:taken] = self._plain[:taken]
        self._plain = self._plain[taken:]
        return taken

    def _next(self) -> None:
        sealed = memoryview(self._file.read(min(self._left, _SEALED)))
        self._left -= len(sealed)
        if len(sealed) < TAG:
            raise AgeError("the payload is cut off")
        plain = memoryview(bytearray(len(sealed) - TAG))
        self._cipher.open_into(self._number, sealed, plain, last=not self._left)
        self._number += 1
        self._plain = plain


def _cipher(beginning: bytes, identities: Sequence[Identity]) -> ChunkCipher:
    return ChunkCipher(read_header(beginning, identities), beginning[header_bytes(beginning) :])
