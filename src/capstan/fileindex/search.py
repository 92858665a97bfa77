"""Searches over the file indexes of many sets, by DuckDB straight from the Parquet files, in bounded memory.

All paths here are stored paths in the display form. A row that was provisional (flag CONTINUES) and has a whole one
later in its set is left out; so is a damaged copy of a file that has a good one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb

from capstan.core.files import FileFlag
from capstan.errors import HomeDamaged

MEMORY = "256MB"
_BATCH = 4096
_HIDDEN = int(FileFlag.CONTINUES | FileFlag.DAMAGED)

_PATH = "CASE WHEN directory = '' THEN name ELSE directory || '/' || name END"


@dataclass(frozen=True, slots=True)
class FoundFile:
    """One file of one set. `path` is for display; `flags` are `core.files.FileFlag`."""

    set_id: str
    path: str
    type: str
    size: int
    mtime_ns: int
    mode: int
    owner: str
    group: str
    flags: int

    @property
    def modified_at(self) -> datetime:
        """To the microsecond, which is what a datetime holds."""
        return datetime.fromtimestamp(self.mtime_ns // 1_000_000_000, UTC).replace(
            microsecond=self.mtime_ns % 1_000_000_000 // 1000
        )

    def as_dict(self) -> dict[str, Any]:
        """The form for `--json`."""
        return {
            "set_id": self.set_id,
            "path": "/" + self.path,
            "type": self.type,
            "size": self.size,
            "modified_at": self.modified_at.isoformat(),
            "mode": f"{self.mode:04o}",
            "owner": self.owner,
            "group": self.group,
            "flags": [flag.name.lower() for flag in FileFlag if flag and self.flags & flag and flag.name],
        }


@dataclass(frozen=True, slots=True)
class Difference:
    """One path that differs between two sets. `change` is `added`, `removed`, `changed` or `moved`; of a moved file
    `path` is the new one and `moved_from` the old one."""

    change: str
    path: str
    moved_from: str = ""


class FileSearch:
    """Searches in the parts that it is given. Each call opens its own in-memory DuckDB: many may run at once."""

    def __init__(self, *, memory: str = MEMORY, threads: int = 2, spool: Path | None = None) -> None:
        self._memory = memory
        self._threads = threads
        self._spool = spool

    def find(
        self,
        sets: Sequence[tuple[str, Sequence[Path]]],
        pattern: str,
        *,
        since: datetime | None = None,
        limit: int | None = None,
    ) -> Iterator[FoundFile]:
        """Files whose name or path matches `pattern`, set by set in the order given.

        With `*`, `?` or `[` it is a glob, of the whole path if it holds a `/`, else of the name; otherwise a substring
        of the path. Case matters. `since`: modified at or after.
        """
        for set_id, files in sets:
            if limit is not None and limit <= 0:
                return
            condition, values = _condition(pattern)
            if since is not None:
                condition += " AND mtime_ns >= ?"
                values.append(int(since.timestamp() * 1_000_000_000))
            for found in self._select(set_id, files, condition, values, limit):
                yield found
                limit = None if limit is None else limit - 1

    def list_files(self, set_id: str, files: Sequence[Path], prefix: str = "") -> Iterator[FoundFile]:
        """Everything at or below `prefix` (with or without its leading slash), in the order of the set."""
        prefix = prefix.strip("/")
        if not prefix:
            return self._select(set_id, files, "true", [], None)
        directory, _, name = prefix.rpartition("/")
        condition = "((directory = ? AND name = ?) OR directory = ? OR starts_with(directory, ?))"
        return self._select(set_id, files, condition, [directory, name, prefix, prefix + "/"], None)

    def diff(self, before: Sequence[Path], after: Sequence[Path]) -> Iterator[Difference]:
        """What changed from one set to another, sorted by path. A removed and an added file with the same inode and
        content, or the same content, name and time, are one moved file."""
        compared = (
            "a.type <> b.type OR a.size <> b.size OR a.mtime_ns <> b.mtime_ns OR a.mode <> b.mode"
            " OR a.uid <> b.uid OR a.gid <> b.gid OR a.target IS DISTINCT FROM b.target"
            " OR a.sha256 IS DISTINCT FROM b.sha256"
        )
        query = f"""
            WITH a AS (SELECT {_PATH} AS path, * FROM ({_visible(before)})),
                 b AS (SELECT {_PATH} AS path, * FROM ({_visible(after)})),
                 removed AS (SELECT * FROM a ANTI JOIN b USING (path)),
                 added AS (SELECT * FROM b ANTI JOIN a USING (path)),
                 moved AS (
                     SELECT b.path AS path, min(a.path) AS origin FROM added b JOIN removed a
                     ON a.type = 'file' AND b.type = 'file' AND a.sha256 = b.sha256 AND a.size > 0
                        AND ((a.inode = b.inode AND a.device = b.device)
                             OR (a.name = b.name AND a.mtime_ns = b.mtime_ns))
                     GROUP BY b.path)
            SELECT 'changed', a.path, '' FROM a JOIN b USING (path) WHERE {compared}
            UNION ALL SELECT 'moved', path, origin FROM moved
            UNION ALL SELECT 'added', path, '' FROM added WHERE path NOT IN (SELECT path FROM moved)
            UNION ALL SELECT 'removed', path, '' FROM removed WHERE path NOT IN (SELECT origin FROM moved)
            ORDER BY 2, 1"""
        for change, path, origin in self._run(query, [], [*before, *after]):
            yield Difference(change, path, origin)

    def _select(
        self, set_id: str, files: Sequence[Path], condition: str, values: list[Any], limit: int | None
    ) -> Iterator[FoundFile]:
        if not files:
            return
        query = (
            f'SELECT {_PATH}, type, size, mtime_ns, mode, owner, "group", flags'
            f" FROM ({_visible(files)}) WHERE {condition}"
        )
        if limit is not None:
            query += f" LIMIT {int(limit)}"
        for row in self._run(query, values, files):
            yield FoundFile(set_id, *row)

    def _run(self, query: str, values: list[Any], files: Sequence[Path]) -> Iterator[tuple[Any, ...]]:
        settings: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": self._memory,
            "threads": self._threads,
            "preserve_insertion_order": True,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }
        if self._spool is not None:
            settings["temp_directory"] = str(self._spool)
        try:
            with duckdb.connect(":memory:", config=settings) as connection:
                result = connection.execute(query, values)
                while rows := result.fetchmany(_BATCH):
                    yield from rows
        except (duckdb.IOException, duckdb.InvalidInputException) as error:
            first = str(error).splitlines()[0]
            named = next((path for path in files if str(path) in str(error)), files[0])
            raise HomeDamaged(path=named, reason=first) from error


def _visible(files: Sequence[Path]) -> str:
    """The rows of a set that count."""
    names = ", ".join("'" + str(path).replace("'", "''") + "'" for path in files)
    table = f"read_parquet([{names}])"
    # Few sets have such rows at all: then the sub-query is empty and costs one look at the statistics.
    return (
        f"SELECT * FROM {table} r WHERE (r.flags & {_HIDDEN}) = 0 OR NOT EXISTS ("
        f"SELECT 1 FROM {table} w WHERE w.directory = r.directory AND w.name = r.name"
        f" AND (w.flags & {_HIDDEN}) = 0)"
    )


def _condition(pattern: str) -> tuple[str, list[Any]]:
    if not any(character in pattern for character in "*?["):
        return f"contains({_PATH}, ?)", [pattern.removeprefix("/") if pattern.startswith("/") else pattern]
    if "/" in pattern:
        return f"({_PATH}) GLOB ?", [pattern.removeprefix("/")]
    return "name GLOB ?", [pattern]
