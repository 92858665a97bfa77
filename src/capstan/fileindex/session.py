"""One DuckDB session over the file indexes of sets: its limits, its errors, and which rows count."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from capstan.core.files import FileFlag
from capstan.errors import HomeDamaged, HomeError, StorageFailed

_BATCH = 4096  # rows that are fetched at once

# The path of a row, in the display form.
PATH = "CASE WHEN directory = '' THEN name ELSE directory || '/' || name END"

# A damaged or provisional row counts only while its path has no good one.
HIDDEN = int(FileFlag.CONTINUES | FileFlag.DAMAGED)
_BAD = int(FileFlag.CONTINUES | FileFlag.DAMAGED | FileFlag.UNREADABLE)


class SearchSession:
    """A DuckDB of its own, in memory, that spills into a temporary folder. Made by `open_session`."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, spill: Path) -> None:
        self._connection = connection
        self.folder = spill  # for files that live as long as the session

    def stream(self, query: str, values: Sequence[Any], files: Sequence[Path]) -> Iterator[tuple[Any, ...]]:
        """The rows of `query`, a few at a time. `files` are what it reads: an error names the one that is damaged.

        A query without joins and sorting gives rows in the order of the files; DuckDB promises it for such, and with
        several threads for no others.
        """
        with self._translated(files):
            result = self._connection.execute(query, list(values))
            while rows := result.fetchmany(_BATCH):
                yield from rows

    def execute(self, statement: str, files: Sequence[Path]) -> None:
        """Run a statement for its effect on this session. Errors as of `stream`."""
        with self._translated(files):
            self._connection.execute(statement)

    def keep_last_resorts(self, table: str, files: Sequence[Path]) -> None:
        """Make `table` of the damaged and provisional rows that count: one for each path without a good row, the last.

        (docs/design/tape-format.md, 3.5 and 4.2.) There are few such rows, so everything else is joined to a small
        table, and `visible` need not look at all paths.
        """
        rows = read_parquet(files)
        self.execute(
            f"CREATE OR REPLACE TEMP TABLE hidden AS SELECT * FROM {rows} "
            # The first comparison lets statistics skip all row groups without such flags.
            f"WHERE flags >= {min(FileFlag.CONTINUES, FileFlag.DAMAGED)} AND (flags & {HIDDEN}) <> 0",
            files,
        )
        self.execute(
            f"CREATE OR REPLACE TEMP TABLE {table} AS SELECT DISTINCT ON (directory, name, raw) h.* FROM hidden h "
            f"WHERE NOT EXISTS (SELECT 1 FROM {rows} w WHERE w.directory = h.directory AND w.name = h.name "
            f"AND w.raw IS NOT DISTINCT FROM h.raw AND (w.flags & {_BAD}) = 0) "
            f"ORDER BY tar_offset DESC, flags & {int(FileFlag.CONTINUES)}",
            files,
        )

    @contextmanager
    def _translated(self, files: Sequence[Path]) -> Iterator[None]:
        try:
            yield
        except duckdb.OutOfMemoryException as error:
            raise StorageFailed(path=self.folder, reason=_first_line(error)) from error
        except duckdb.Error as error:
            damaged = next(filter(None, map(_damage, files)), None)
            if damaged is not None:
                raise damaged from error
            if isinstance(error, duckdb.IOException):
                raise StorageFailed(path=self.folder, reason=_first_line(error)) from error
            raise


@contextmanager
def open_session(*, memory: str, threads: int, spool: Path | None) -> Iterator[SearchSession]:
    """A session that uses at most about `memory` and `threads`, and lies on disk under `spool` while it needs more."""
    try:
        folder = tempfile.TemporaryDirectory(prefix="capstan-search-", dir=spool)
    except OSError as error:
        raise StorageFailed(path=spool, reason=error.strerror or str(error)) from None
    with folder as spill:
        settings: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": memory,
            "threads": threads,
            "temp_directory": spill,
            "preserve_insertion_order": True,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }
        with duckdb.connect(":memory:", config=settings) as connection:
            # DuckDB draws one on standard output where it takes the process for an interactive one.
            connection.execute("SET enable_progress_bar = false")
            yield SearchSession(connection, Path(spill))


def read_parquet(files: Sequence[Path]) -> str:
    """The SQL for all rows of `files`, in their order. What is a pattern to DuckDB in a path is only a path here."""
    names = ", ".join("'" + re.sub(r"([*?\[])", r"[\1]", str(path)).replace("'", "''") + "'" for path in files)
    return f"read_parquet([{names}])"


def _damage(path: Path) -> HomeError | None:
    """What is wrong with one Parquet file; None when all of it can be read. Only asked when something went wrong."""
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches():
                batch.validate(full=True)
    except FileNotFoundError:
        return HomeDamaged(path=path, reason="the file is gone")
    except PermissionError as error:
        return StorageFailed(path=path, reason=error.strerror or str(error))
    except (OSError, pa.ArrowException) as error:
        return HomeDamaged(path=path, reason=_first_line(error))
    return None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
