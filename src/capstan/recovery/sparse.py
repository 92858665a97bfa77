"""Puts the stored content of a sparse file back where it was, with its holes as holes."""

from __future__ import annotations

from capstan.format.sparse import SparseMapReader
from capstan.recovery.target import FileSink


class SparseSink:
    """A `recovery.target.FileSink` that is given the member's content, map and data, and owns the sink of the file.

    `write` and `commit` raise ValueError when the map is not one that a writer makes: then `abort` it.
    """

    def __init__(self, sink: FileSink, *, size: int, stored_bytes: int) -> None:
        """`size` of the file, `stored_bytes` of the member's content, as its headers say."""
        self._sink = sink
        self._size = size
        self._reader = SparseMapReader(size, stored_bytes)
        self._taken = 0  # bytes of data
        self._end = 0  # of what the file has by now

    def write(self, data: memoryview) -> None:
        """The next piece of the content."""
        data = data[self._reader.take(data) :]
        if not data or self._reader.map is None:
            return
        begin, self._taken = self._taken, self._taken + len(data)
        for offset, length in self._reader.map.pieces(begin, self._taken):
            self._skip_to(offset)
            self._sink.write(data[:length])
            data = data[length:]
            self._end = offset + length

    def hole(self, length: int) -> None:
        """There are no holes in what is stored."""
        raise ValueError(f"a hole of {length} bytes in stored content")

    def commit(self) -> None:
        """Make the last hole, then as the file's own sink."""
        if self._reader.map is None:
            raise ValueError("the sparse map is cut off")
        self._skip_to(self._size)
        self._sink.commit()

    def abort(self) -> None:
        """As the file's own sink."""
        self._sink.abort()

    def _skip_to(self, offset: int) -> None:
        if offset > self._end:
            self._sink.hole(offset - self._end)
            self._end = offset
