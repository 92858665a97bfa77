"""Searches over the file indexes of many sets, by DuckDB straight from the Parquet files, in bounded memory.

All paths here are stored paths in the display form. Of each path one row counts: the good one, else the last that is
damaged or provisional.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

from capstan.core.files import FileFlag, Row, display_path
from capstan.errors import InvalidValue
from capstan.fileindex.builder import FileIndexBuilder
from capstan.fileindex.chain import ChainSet, state_rows
from capstan.fileindex.comparison import Difference, compare
from capstan.fileindex.reading import at_or_below
from capstan.fileindex.session import HIDDEN, PATH, SearchSession, open_session, read_parquet

MEMORY = "128MB"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

_GLOB = re.compile(r"[*?]|\[[^\]]+\]")
_TOKEN = re.compile(r"\[(?P<negated>[!^]?)(?P<members>\]?[^\]]+|\])\]|.", re.DOTALL)


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
        return _EPOCH + timedelta(microseconds=self.mtime_ns // 1000)

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


class FileSearch:
    """Searches in the parts that it is given. Each call opens its own in-memory DuckDB: many may run at once.

    Everything is streamed: who stops early pays for no more, and errors come when the first row is asked for.
    HomeDamaged names the file that cannot be read,
    StorageFailed the spool when it has no room for what does not fit into `memory`.
    """

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
        until: datetime | None = None,
        ignore_case: bool = False,
        limit: int | None = None,
    ) -> Iterator[FoundFile]:
        """Files whose name or path matches `pattern`, set by set in the order given, each in its own order.

        With `*`, `?` or `[…]` it is a glob: of the whole path if it begins with `/`, of the path's end from any
        component on if it holds a `/` elsewhere, else of the name (`*` matches a `/` too). Otherwise it is a substring
        of the path, where a leading `/` stands at the beginning of a component. A pattern whose only special characters
        are brackets also matches itself. `since` and `until`: modified at or after, at or before. InvalidValue: a glob
        with a range that goes backwards.
        """
        condition, values = _condition(pattern, ignore_case=ignore_case)
        for moment, comparison in ((since, ">="), (until, "<=")):
            if moment is not None:
                condition += f" AND mtime_ns {comparison} ?"
                values.append((moment - _EPOCH) // _MICROSECOND * 1000)
        return islice(self._find(sets, condition, values), limit)

    def list_files(self, chain: Sequence[ChainSet], prefix: str = "") -> Iterator[FoundFile]:
        """Everything at or below `prefix` (with or without its leading slash) in the state that a chain describes, in
        scan order. `set_id` of each is the set that holds it."""
        prefix = prefix.strip("/")
        if len(chain) > 1:
            where = at_or_below([prefix] if prefix else [])
            return (_found(chain[found.place].set_id, found.row) for found in state_rows(chain, where))
        return self._list_files(chain[0], prefix)

    def diff(self, before: Sequence[ChainSet], after: Sequence[ChainSet]) -> Iterator[Difference]:
        """What changed from the state of one chain to that of another, sorted by path (see `comparison.compare`)."""
        with self._session() as session:
            yield from compare(session, _state_files(session, before), _state_files(session, after))

    def _list_files(self, item: ChainSet, prefix: str) -> Iterator[FoundFile]:
        condition, values = "true", []
        if prefix:
            directory, _, name = prefix.rpartition("/")
            condition = "((directory = ? AND name = ?) OR directory = ? OR starts_with(directory, ?))"
            values = [directory, name, prefix, prefix + "/"]
        with self._session() as session:
            yield from _select(session, item.set_id, [part.files for part in item.parts], condition, values)

    def _find(
        self, sets: Sequence[tuple[str, Sequence[Path]]], condition: str, values: Sequence[Any]
    ) -> Iterator[FoundFile]:
        with self._session() as session:
            for set_id, files in sets:
                yield from _select(session, set_id, files, condition, values)

    def _session(self) -> AbstractContextManager[SearchSession]:
        return open_session(memory=self._memory, threads=self._threads, spool=self._spool)


def _found(set_id: str, row: Row) -> FoundFile:
    entry = row.entry
    return FoundFile(
        set_id,
        display_path(entry.path),
        entry.type.value,
        entry.size,
        entry.mtime_ns,
        entry.mode,
        entry.owner,
        entry.group,
        row.flags,
    )


def _state_files(session: SearchSession, chain: Sequence[ChainSet]) -> list[Path]:
    """Tables with one row for each path of a chain's state: a single set's own, else one made for this session."""
    if len(chain) == 1:
        return [part.files for part in chain[0].parts]
    path = session.folder / f"{chain[-1].set_id}.parquet"
    with closing(FileIndexBuilder(path)) as builder:
        for found in state_rows(chain):
            builder.add(*found.row)
        builder.finish()
    return [path]


def _select(
    session: SearchSession, set_id: str, files: Sequence[Path], condition: str, values: Sequence[Any]
) -> Iterator[FoundFile]:
    """The rows that count and meet `condition`, in the order of the set."""
    if not files:
        return
    session.keep_last_resorts("kept", files)
    kept = {tuple(row) for row in session.stream("SELECT tar_offset, flags FROM kept", [], files)}
    query = (
        f'SELECT tar_offset, {PATH}, type, size, mtime_ns, mode, owner, "group", flags'
        f" FROM {read_parquet(files)} WHERE {condition}"
    )
    for tar_offset, *columns in session.stream(query, values, files):
        flags = columns[-1]
        if flags & HIDDEN:
            if (tar_offset, flags) not in kept:
                continue
            kept.discard((tar_offset, flags))  # each INDEX that a member goes on behind repeats its row
        yield FoundFile(set_id, *columns)


def _condition(pattern: str, *, ignore_case: bool) -> tuple[str, list[Any]]:
    """The SQL condition and its values for what `FileSearch.find` calls a pattern."""
    value, text, name, directory = "?", f"'/' || {PATH}", "name", "directory"
    if ignore_case:
        value, text, name, directory = (f"lower({part})" for part in (value, text, name, directory))
    if "/" in pattern:
        literal, literal_values = f"contains({text}, {value})", [pattern]
    else:
        # No component of a path holds a slash, so it is enough to look at both parts, which need not be joined.
        literal, literal_values = f"(contains({name}, {value}) OR contains({directory}, {value}))", [pattern, pattern]
    if not _GLOB.search(pattern):
        return literal, literal_values
    # DuckDB's own GLOB counts bytes: its `?` would not match a Chinese character.
    subject, whole = (f"'/' || {PATH}", pattern if pattern.startswith("/") else "*/" + pattern)
    if "/" not in pattern:
        subject, whole = "name", pattern
    glob, glob_values = f"regexp_full_match({subject}, ?, '{'si' if ignore_case else 's'}')", [_regex(whole)]
    if "*" in pattern or "?" in pattern:
        return glob, glob_values
    return f"({glob} OR {literal})", [*glob_values, *literal_values]


def _regex(pattern: str) -> str:
    """The regular expression, good for RE2 and for Python, that matches what the glob `pattern` does."""
    pieces = []
    for token in _TOKEN.finditer(pattern):
        if token["members"]:
            members = re.sub(r"([\\\[\]^&~|])", r"\\\1", token["members"])
            pieces.append(f"[{'^' if token['negated'] else ''}{members}]")
        else:
            pieces.append({"*": ".*", "?": "."}.get(token[0]) or re.escape(token[0]))
    regex = "".join(pieces)
    try:
        re.compile(regex)
    except re.error as error:
        raise InvalidValue(what="pattern", value=pattern, reason=str(error)) from error
    return regex
