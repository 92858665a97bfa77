"""The names of one directory in byte order, in memory that does not grow with the directory."""

from __future__ import annotations

import heapq
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import IO

from capstan import positional_io
from capstan.errors import StorageFailed

_SLICE = 4096  # names that are written at once
_READ = 1 << 18  # bytes of a run that are in memory while runs are merged
_END = b"/"  # the one byte, besides NUL, that is in no name


class SortedNames:
    """Collects names, then yields them sorted, once. They hold no `/`.

    Up to `limit` names are kept in memory; more are sorted in runs of `limit` in one nameless temporary file under
    `spool` (the system's temporary folder without one), which is gone with this object, however the process ends.
    Raises StorageFailed when that file cannot be made, written or read; the names are worthless then.
    """

    def __init__(self, spool: Path | None, limit: int) -> None:
        self._spool = spool
        self._limit = limit
        self._names: list[bytes] = []
        self._file: IO[bytes] | None = None
        self._runs: list[tuple[int, int]] = []  # where they begin and end in the file

    def __del__(self) -> None:
        if self._file is not None:
            with suppress(OSError):
                self._file.close()

    @property
    def runs(self) -> int:
        """How many runs are on disk."""
        return len(self._runs)

    def extend(self, names: Iterable[bytes]) -> None:
        """Take more names in. What iterating them raises passes through."""
        names = iter(names)
        while True:
            self._names.extend(islice(names, self._limit - len(self._names)))
            if len(self._names) < self._limit:
                return
            self._write_run()

    def append(self, name: bytes) -> None:
        self._names.append(name)
        if len(self._names) >= self._limit:
            self._write_run()

    def __iter__(self) -> Iterator[bytes]:
        self._names.sort()
        if not self._runs:
            return iter(self._names)
        return heapq.merge(*(self._read_run(*run) for run in self._runs), self._names)

    def _write_run(self) -> None:
        names = self._names
        names.sort()
        try:
            if self._file is None:
                # Unbuffered: what a full disk refused must not be tried again when the file is closed.
                self._file = tempfile.TemporaryFile(dir=self._spool, buffering=0)  # noqa: SIM115 - closed by __del__
            start = self._runs[-1][1] if self._runs else 0
            end = start
            for first in range(0, len(names), _SLICE):
                piece = memoryview(_END.join(names[first : first + _SLICE]) + _END)
                while piece:
                    written = positional_io.pwrite(self._file.fileno(), piece, end)
                    piece, end = piece[written:], end + written
        except OSError as error:
            raise self._failed(error) from error
        self._runs.append((start, end))
        names.clear()

    def _read_run(self, at: int, end: int) -> Iterator[bytes]:
        assert self._file is not None
        rest = b""
        while at < end:
            try:
                piece = positional_io.pread(self._file.fileno(), min(_READ, end - at), at)
            except OSError as error:
                raise self._failed(error) from error
            if not piece:
                raise self._failed(OSError(0, "a temporary file has become shorter"))
            at += len(piece)
            *names, rest = (rest + piece).split(_END)
            yield from names

    def _failed(self, error: OSError) -> StorageFailed:
        return StorageFailed(path=self._spool or tempfile.gettempdir(), reason=error.strerror or str(error))
