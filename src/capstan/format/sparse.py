"""The map of a file that is stored without its holes (docs/design/tape-format.md, 3.6): GNU tar's sparse format 1.0.

Everything here costs what the extents cost, never what the holes would.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator

from capstan.format.layout import TAR_BLOCK

MAX_EXTENTS = 1 << 20  # of one file: a map is never larger than some 40 MiB
_DIGITS = 19  # what any offset of a file needs at most


class SparseMap:
    """Where the data of a file of `size` bytes lies: extents, ascending, never touching each other.

    `text` is the map as it is stored, whole tar blocks; `data_bytes` of data follow it. Extents are widened to whole
    tar blocks, because GNU tar begins each of them in a new one; the last of too many reaches to the file's end.
    """

    __slots__ = ("_offsets", "_starts", "data_bytes", "size", "text")

    def __init__(self, size: int, extents: Iterable[tuple[int, int]]) -> None:
        """`extents` as (offset, length), ascending."""
        self.size = size
        self.data_bytes = 0
        self._offsets = array("Q")  # of each extent in the file
        self._starts = array("Q")  # of each extent in the data
        lines = []
        end = 0
        for begin, end in _aligned(size, extents):
            self._offsets.append(begin)
            self._starts.append(self.data_bytes)
            self.data_bytes += end - begin
            lines.append(b"%d\n%d\n" % (begin, end - begin))
        if end < size:
            lines.append(b"%d\n0\n" % size)  # GNU tar learns from it how long the file is
        text = b"%d\n%b" % (len(lines), b"".join(lines))
        self.text = text.ljust(-(-len(text) // TAR_BLOCK) * TAR_BLOCK, b"\0")

    @property
    def has_holes(self) -> bool:
        """Whether the data is less than the file."""
        return self.data_bytes < self.size

    @property
    def stored_bytes(self) -> int:
        """Of the member's content: map and data."""
        return len(self.text) + self.data_bytes

    def pieces(self, begin: int, end: int) -> Iterator[tuple[int, int]]:
        """Where the bytes [begin, end) of the data lie in the file, as (offset, length) in order."""
        number = bisect_right(self._starts, begin) - 1
        while begin < end:
            following = self._starts[number + 1] if number + 1 < len(self._starts) else self.data_bytes
            length = min(end, following) - begin
            yield self._offsets[number] + begin - self._starts[number], length
            begin += length
            number += 1


class SparseMapReader:
    """Reads the map at the head of a member's content, piece by piece as it comes. `map` is None until it is whole."""

    def __init__(self, size: int, stored_bytes: int) -> None:
        """`size` of the file, `stored_bytes` of the member's content, as its headers say."""
        self.map: SparseMap | None = None
        self._size = size
        self._stored_bytes = stored_bytes
        self._numbers = array("Q")
        self._rest = b""
        self._at = 0

    def take(self, data: memoryview) -> int:
        """How many bytes at the head of `data` belong to the map. Raises ValueError for a map no writer makes."""
        taken = 0
        while self.map is None and taken < len(data):
            piece = data[taken : taken + TAR_BLOCK - self._at % TAR_BLOCK]
            taken += len(piece)
            self._at += len(piece)
            *lines, self._rest = (self._rest + bytes(piece)).split(b"\n")
            self._numbers.extend(map(_number, lines))
            whole = self._is_whole()
            if not whole and len(self._rest) > _DIGITS:
                raise ValueError("the sparse map is malformed")
            if whole and self._at % TAR_BLOCK == 0:
                self.map = self._read()
        return taken

    def _is_whole(self) -> bool:
        if not self._numbers:
            return False
        wanted = 1 + 2 * self._numbers[0]
        if self._numbers[0] > MAX_EXTENTS + 1 or len(self._numbers) > wanted:
            raise ValueError("the sparse map has too many numbers")
        return len(self._numbers) == wanted

    def _read(self) -> SparseMap:
        numbers = self._numbers
        pairs = zip(numbers[1::2], numbers[2::2], strict=True)
        found = SparseMap(self._size, ((offset, length) for offset, length in pairs if length))
        # One map has one form: what was read is right if it is what a writer makes of these extents.
        text = b"\n".join(b"%d" % number for number in numbers) + b"\n"
        if self._rest.strip(b"\0") or found.text.rstrip(b"\0") != text or found.stored_bytes != self._stored_bytes:
            raise ValueError("the sparse map does not go with its member")
        return found


def _aligned(size: int, extents: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """(begin, end) of whole tar blocks, joined where they touch."""
    begin = end = -1
    count = 1
    for offset, length in extents:
        low, high = offset & -TAR_BLOCK, min(offset + length + TAR_BLOCK - 1 & -TAR_BLOCK, size)
        if end < 0:
            begin, end = low, high
        elif low <= end:
            end = max(end, high)
        elif count == MAX_EXTENTS:
            end = size
            break
        else:
            yield begin, end
            begin, end = low, high
            count += 1
    if end > begin:
        yield begin, end


def _number(line: bytes) -> int:
    if not line.isdigit() or len(line) > _DIGITS:
        raise ValueError("the sparse map is malformed")
    return int(line)
