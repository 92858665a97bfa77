"""The 7z container: each segment is one whole .7z file that stock 7-Zip opens (docs/design/tape-format.md, 8).

py7zr writes and reads all that is special to 7z. The bytes of the one folder that such a file has go through code of
our own, in both directions: py7zr compresses in one thread, knows no level for Deflate, and holds the whole packed
file in memory where a folder of LZMA2 has many small files.
"""

from __future__ import annotations

import lzma
import struct
import zlib
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO, Any, Protocol, cast

from py7zr import SevenZipFile
from py7zr.exceptions import ArchiveError
from py7zr.properties import FILTER_COPY, FILTER_DEFLATE, FILTER_LZMA2

from capstan.format.codecs import Levels
from capstan.format.segment_archive import RawSegment, SegmentAssembler

_PIECE = 1 << 20
_BLOCK = 8 << 20  # what is compressed on its own; larger where LZMA2's dictionary is
_EPOCH = 116_444_736_000_000_000  # 1970 in units of 100 ns since 1601, as 7z has times
_ARCHIVE, _UNIX, _REGULAR = 0x20, 0x8000, 0o100000  # of attributes: the archive bit; the mode is in the high half
_DEFLATE_END = zlib.compressobj(wbits=-15).flush()  # an empty last block
# Method identifiers of 7-Zip's DOC/Methods.txt.
_COPY_ID, _LZMA2_ID, _DEFLATE_ID = b"\x00", b"\x21", b"\x04\x01\x08"
# What py7zr and the decompressors say of a file that is not whole.
_DAMAGE = (
    ArchiveError,
    lzma.LZMAError,
    zlib.error,
    struct.error,
    EOFError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    OverflowError,
)


class SevenZip:
    """A `SegmentContainer`."""

    name = "7z"
    suffix = "7z"
    methods: Mapping[str, Levels] = {"copy": Levels(0, 0, 0), "deflate": Levels(1, 9, 2), "lzma2": Levels(0, 9, 0)}
    default = "lzma2"
    extract = "7z x FILE"

    def pack(self, segment: RawSegment, packed: IO[bytes], *, method: str, level: int, workers: int) -> None:
        """As the port has it. Memory: 30 MiB for each of `workers` (some hundreds with LZMA2 above level 6), and 4 KiB
        for each content."""
        filters = {
            "copy": {"id": FILTER_COPY},
            "deflate": {"id": FILTER_DEFLATE},
            "lzma2": {"id": FILTER_LZMA2, "preset": level},
        }
        with ThreadPoolExecutor(workers, thread_name_prefix="capstan-7z") as pool:
            archive = SevenZipFile(packed, "w", filters=[filters[method]])
            chain = archive.header.initialize().get_compressor().chain
            if method == "deflate":
                chain[:] = [_Blocks(pool, workers, lambda block: _deflate(block, level), _BLOCK, _DEFLATE_END)]
            elif method == "lzma2":
                # Up to level 6 the dictionary is no larger than 8 MiB; behind it each one is twice as large.
                size = _BLOCK << max(level - 6, 0)
                chain[:] = [_Blocks(pool, workers, lambda block: _lzma2(block, level), size, b"\0")]
            for member in segment.members():
                archive.writef(cast("IO[bytes]", member.source), member.name)
                facts = cast("dict[str, Any]", archive.files.files_list[-1])
                facts["lastwritetime"] = min(max(member.mtime_ns // 100 + _EPOCH, 0), (1 << 63) - 1)
                facts["attributes"] = (_REGULAR | member.mode & 0o777) << 16 | _UNIX | _ARCHIVE
                facts["data"] = None  # or every source would be kept to the end
            archive.close()

    def unpack(self, packed: IO[bytes], assembler: SegmentAssembler) -> None:
        """As the port has it. Every member's CRC-32 is compared."""
        try:
            packed.seek(0)
            _unpack(packed, assembler)
        except _DAMAGE as error:
            raise ValueError(f"the archive cannot be read: {type(error).__name__}: {error}") from None


def _unpack(file: IO[bytes], assembler: SegmentAssembler) -> None:
    archive = SevenZipFile(file)
    streams = archive.header.main_streams
    [folder] = streams.unpackinfo.folders
    [coder] = folder.coders
    [packed_bytes] = streams.packinfo.packsizes
    file.seek(archive.afterheader + streams.packinfo.packpos)
    stream = _Stream(file, packed_bytes, _decompressor(coder["method"], coder.get("properties")))
    for member in archive.files:
        assembler.member(member.filename)
        left, crc = member.uncompressed, 0
        while left:
            piece = stream.read(min(left, _PIECE))
            if not piece:
                raise ValueError("the archive is cut off")
            crc = zlib.crc32(piece, crc)
            left -= len(piece)
            assembler.write(piece)
        if member.crc32 is not None and member.crc32 != crc:
            raise ValueError(f"the member {member.filename!r} does not match its CRC")
    assembler.finish()


class _Blocks:
    """Stands in the place of a compressor of py7zr's: cuts what it is given into blocks, which several threads
    compress, each on its own. Of both methods, such blocks one behind the other are one stream."""

    def __init__(
        self, pool: ThreadPoolExecutor, workers: int, compress: Callable[[bytes], bytes], size: int, end: bytes
    ) -> None:
        self._pool = pool
        self._in_flight = workers + 1
        self._compress = compress
        self._size = size
        self._end = end
        self._block = bytearray()
        self._work: deque[Future[bytes]] = deque()

    def compress(self, data: bytes) -> bytes:
        self._block += data
        done = b""
        if len(self._block) >= self._size:
            self._submit()
            if len(self._work) > self._in_flight:
                done = self._work.popleft().result()
        return done

    def flush(self) -> bytes:
        if self._block:
            self._submit()
        rest = [work.result() for work in self._work]
        self._work.clear()
        return b"".join(rest) + self._end

    def _submit(self) -> None:
        self._work.append(self._pool.submit(self._compress, bytes(self._block)))
        self._block.clear()


def _deflate(block: bytes, level: int) -> bytes:
    """Whole blocks of RFC 1951 up to a byte boundary, none of them the last, that look back at nothing before."""
    compressor = zlib.compressobj(level, zlib.DEFLATED, -15)
    return compressor.compress(block) + compressor.flush(zlib.Z_FULL_FLUSH)


def _lzma2(block: bytes, level: int) -> bytes:
    """LZMA2 chunks, the first of which resets the dictionary, without the zero byte that ends a stream."""
    filters = [{"id": lzma.FILTER_LZMA2, "preset": level}]
    return lzma.compress(block, format=lzma.FORMAT_RAW, filters=filters)[:-1]


class _Decompressor(Protocol):
    """As of `lzma` and `bz2`."""

    @property
    def needs_input(self) -> bool: ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


class _Stream:
    """The packed bytes of a folder, unpacked as they are asked for."""

    def __init__(self, file: IO[bytes], packed_bytes: int, decompressor: _Decompressor) -> None:
        self._file = file
        self._left = packed_bytes
        self._decompressor = decompressor

    def read(self, size: int) -> bytes:
        """Up to `size` bytes, which is at least 1; none when the stream has ended."""
        while True:
            data = b""
            if self._decompressor.needs_input:
                data = self._file.read(min(_PIECE, self._left))
                self._left -= len(data)
                if not data:
                    return self._decompressor.decompress(b"", size)  # zlib may still hold some
            piece = self._decompressor.decompress(data, size)
            if piece:
                return piece


class _Inflate:
    def __init__(self) -> None:
        self._inflater = zlib.decompressobj(-15)

    @property
    def needs_input(self) -> bool:
        return not self._inflater.unconsumed_tail

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        return self._inflater.decompress(data or self._inflater.unconsumed_tail, max_length)


class _Copy:
    def __init__(self) -> None:
        self._view = memoryview(b"")

    @property
    def needs_input(self) -> bool:
        return not self._view

    def decompress(self, data: bytes, max_length: int, /) -> bytes:
        view = self._view or memoryview(data)
        self._view = view[max_length:]
        return bytes(view[:max_length])


def _decompressor(method: bytes, properties: bytes | None) -> _Decompressor:
    if method == _COPY_ID:
        return _Copy()
    if method == _DEFLATE_ID:
        return _Inflate()
    if method == _LZMA2_ID and properties and properties[0] <= 40:
        # 7-Zip's DOC/lzma.txt: the property byte is the size of the dictionary, in half powers of two from 4 KiB.
        size = min((2 | properties[0] & 1) << (properties[0] // 2 + 11), (1 << 32) - 1)
        return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA2, "dict_size": size}])
    raise ValueError(f"the archive has the method {method.hex()}, which no segment has")
