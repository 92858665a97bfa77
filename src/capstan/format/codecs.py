"""Frames: a piece of the tar stream, compressed on its own (docs/design/tape-format.md, 3.3).

Each codec's concatenated frames are one valid stream for the codec's stock program. Further codecs come from plugins:
an entry point of the group `capstan.codecs` that loads a `Codec`.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, NamedTuple, Protocol, cast

import lz4.frame
import zstandard
from isal import isal_zlib

from capstan.errors import InvalidValue
from capstan.format.layout import CODECS
from capstan.plugins import find_plugin, plugin_names

PLUGIN_GROUP = "capstan.codecs"
INDEX_CODEC = "zstd"  # of every INDEX whose set's codec is none of this format's own: it is read without a plugin
_LEVEL = re.compile(r"-?[0-9]{1,3}")
_GZIP_WINDOW = 31  # zlib's wbits: the largest window, with gzip's header and trailer


class Levels(NamedTuple):
    """What a codec's levels go from and to, and which one is taken where none is asked for."""

    low: int
    high: int
    default: int


class FrameCodec(Protocol):
    """Not thread-safe: one for each thread."""

    def compress(self, data: memoryview) -> bytes | memoryview:
        """One whole frame. For `none` it is `data` itself."""
        ...

    def decompress(self, data: memoryview, tar_bytes: int) -> bytes | memoryview:
        """Exactly `tar_bytes` of tar; ValueError when the frame is damaged or holds another number of bytes."""
        ...


@dataclass(frozen=True, slots=True)
class Codec:
    """`name` is what `--codec` and headers say, of at most 12 characters. `program` is the shell command that decodes
    concatenated frames. `make` gives a new codec of a level for one thread; `decoded` a file of what the frames in
    another one hold, one behind the other."""

    name: str
    levels: Levels
    program: str
    make: Callable[[int], FrameCodec]
    decoded: Callable[[IO[bytes]], IO[bytes]]


def find_codec(name: str) -> Codec:
    """A codec of the format, or of a plugin. Raises InvalidValue when there is none."""
    found = _CODECS.get(name) or find_plugin(PLUGIN_GROUP, name)
    if found is None:
        known = ", ".join((*CODECS, *plugin_names(PLUGIN_GROUP)))
        raise InvalidValue(what="codec", value=name, reason=f"use one of {known}, like zstd:3")
    return cast("Codec", found)


def parse_codec(text: str) -> tuple[str, int]:
    """`zstd:3`, `lz4`, `gzip:6`, `none` as name and level. Raises InvalidValue."""
    name, colon, level = text.partition(":")
    try:
        levels = find_codec(name).levels
    except InvalidValue as error:
        raise InvalidValue(**{**error.parameters, "value": text}) from None
    return name, checked_level(name, level if colon else None, levels)


def checked_level(name: str, level: str | None, levels: Levels) -> int:
    """The level that is written so, or the default one for None. Raises InvalidValue."""
    if level is None:
        return levels.default
    value = int(level) if _LEVEL.fullmatch(level) else levels.high + 1
    if not levels.low <= value <= levels.high:
        reason = f"the level of {name} goes from {levels.low} to {levels.high}"
        raise InvalidValue(what="codec", value=f"{name}:{level}", reason=reason)
    return value


def frame_codec(name: str, level: int = 0) -> FrameCodec:
    """A new codec for one thread. `level` matters to `compress` only. Raises InvalidValue when there is none."""
    return find_codec(name).make(level)


def index_codec(name: str, level: int = 0) -> tuple[str, int]:
    """Name and level of the codec that the INDEXes of a set have, whose own codec is given (4 there)."""
    return (name, level) if name in CODECS else (INDEX_CODEC, _CODECS[INDEX_CODEC].levels.default)


def decoded(file: IO[bytes], name: str) -> IO[bytes]:
    """What the codec's stock program makes of `file`, however many frames it has."""
    return find_codec(name).decoded(file)


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


def _unzstd(file: IO[bytes]) -> IO[bytes]:
    return zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)


_CODECS = {
    codec.name: codec
    for codec in (
        Codec("zstd", Levels(-7, 19, 3), "zstd -dc", _Zstd, _unzstd),
        Codec("lz4", Levels(0, 12, 0), "lz4 -dc", _Lz4, lambda file: cast("IO[bytes]", lz4.frame.LZ4FrameFile(file))),
        Codec("gzip", Levels(1, 9, 2), "gzip -dc", _Gzip, lambda file: cast("IO[bytes]", gzip.GzipFile(fileobj=file))),
        Codec("none", Levels(0, 0, 0), "cat", _None, lambda file: file),
    )
}
