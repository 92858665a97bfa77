"""Frames: a piece of the tar stream, compressed on its own (docs/design/tape-format.md, 3.3).

Each codec's concatenated frames are one valid stream for the codec's stock program.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from typing import Protocol

import lz4.frame
import zstandard
from isal import isal_zlib

from capstan.errors import InvalidValue
from capstan.format.layout import CODECS

_LEVELS = {"zstd": (-7, 19, 3), "lz4": (0, 12, 0), "gzip": (1, 9, 2), "none": (0, 0, 0)}
_LEVEL = re.compile(r"-?[0-9]{1,3}")
_GZIP_WINDOW = 31  # zlib's wbits: the largest window, with gzip's header and trailer


class FrameCodec(Protocol):
    """Not thread-safe: one for each thread."""

    def compress(self, data: memoryview) -> bytes | memoryview:
        """One whole frame. For `none` it is `data` itself."""
        ...

    def decompress(self, data: memoryview, tar_bytes: int) -> bytes | memoryview:
        """Exactly `tar_bytes` of tar; ValueError when the frame is damaged or holds another number of bytes."""
        ...


def parse_codec(text: str) -> tuple[str, int]:
    """`zstd:3`, `lz4`, `gzip:6`, `none` as name and level. Raises InvalidValue."""
    name, colon, level = text.partition(":")
    if name not in CODECS:
        raise InvalidValue(what="codec", value=text, reason=f"use one of {', '.join(CODECS)}, like zstd:3")
    low, high, default = _LEVELS[name]
    if not colon:
        return name, default
    value = int(level) if _LEVEL.fullmatch(level) else high + 1
    if not low <= value <= high:
        raise InvalidValue(what="codec", value=text, reason=f"the level of {name} goes from {low} to {high}")
    return name, value


def frame_codec(name: str, level: int = 0) -> FrameCodec:
    """A new codec for one thread. `level` matters to `compress` only."""
    return _MAKERS[name](level)


class _Zstd:
    def __init__(self, level: int) -> None:
        self._compressor = zstandard.ZstdCompressor(level=level, write_checksum=True, write_content_size=True)
        self._decompressor = zstandard.ZstdDecompressor()

    def compress(self, data: memoryview) -> bytes:
        return self._compressor.compress(data)

    def decompress(self, data: memoryview, tar_bytes: int) -> bytes:
        try:
            if zstandard.get_frame_parameters(data).content_size != tar_bytes:
                raise ValueError("the frame holds another number of bytes")
            return self._decompressor.decompress(data, max_output_size=tar_bytes)
        except zstandard.ZstdError as error:
            raise ValueError(f"the frame cannot be decompressed: {error}") from None


class _Lz4:
    def __init__(self, level: int) -> None:
        self._level = level

    def compress(self, data: memoryview) -> bytes:
        return bytes(lz4.frame.compress(data, compression_level=self._level, content_checksum=True, store_size=True))

    def decompress(self, data: memoryview, tar_bytes: int) -> bytes:
        try:
            decompressor = lz4.frame.LZ4FrameDecompressor()
            out = bytes(decompressor.decompress(data, max_length=tar_bytes + 1))
        except RuntimeError as error:
            raise ValueError(f"the frame cannot be decompressed: {error}") from None
        return _exactly(out, tar_bytes, ended=decompressor.eof)


class _Gzip:
    def __init__(self, level: int) -> None:
        self._level = level

    def compress(self, data: memoryview) -> bytes:
        if self._level <= 3:  # ISA-L has levels up to 3, and is several times faster
            return bytes(isal_zlib.compress(data, self._level, wbits=_GZIP_WINDOW))
        return zlib.compress(data, self._level, wbits=_GZIP_WINDOW)

    def decompress(self, data: memoryview, tar_bytes: int) -> bytes:
        try:
            decompressor = isal_zlib.decompressobj(wbits=_GZIP_WINDOW)
            out = bytes(decompressor.decompress(data, tar_bytes + 1))
        except (isal_zlib.IsalError, zlib.error) as error:  # type: ignore[misc]
            raise ValueError(f"the frame cannot be decompressed: {error}") from None
        return _exactly(out, tar_bytes, ended=decompressor.eof)


class _None:
    def __init__(self, level: int) -> None:
        del level

    def compress(self, data: memoryview) -> memoryview:
        return data

    def decompress(self, data: memoryview, tar_bytes: int) -> memoryview:
        if len(data) != tar_bytes:
            raise ValueError("the frame holds another number of bytes")
        return data


def _exactly(data: bytes, tar_bytes: int, *, ended: bool) -> bytes:
    if not ended and len(data) <= tar_bytes:
        raise ValueError("the frame is cut off")
    if len(data) != tar_bytes:
        raise ValueError("the frame holds another number of bytes")
    return data


_MAKERS: dict[str, Callable[[int], FrameCodec]] = {"zstd": _Zstd, "lz4": _Lz4, "gzip": _Gzip, "none": _None}
