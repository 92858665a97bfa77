"""What changed from one set to another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from capstan.core.files import FileFlag, FileType
from capstan.fileindex.session import HIDDEN, PATH, SearchSession, read_parquet

_UNREADABLE = int(FileFlag.UNREADABLE)
_COLUMNS = "directory, name, raw, type, mode, uid, gid, size, mtime_ns, device, inode, target, sha256, flags"
_SAME_PATH = "a.directory = b.directory AND a.name = b.name AND a.raw IS NOT DISTINCT FROM b.raw"
_CHANGED = " OR ".join(
    f"a.{column} IS DISTINCT FROM b.{column}"
    for column in ("type", "size", "mtime_ns", "mode", "uid", "gid", "target", "sha256")
)
# The same file under another name, by what the file system says; then the same content, whatever it says.
_MOVES = (
    ("type, device, inode, size, mtime_ns", "inode <> 0"),
    ("sha256", f"type = '{FileType.REGULAR}' AND size > 0 AND sha256 IS NOT NULL"),
)


@dataclass(frozen=True, slots=True)
class Difference:
    """One path that differs between two sets. `change` is `added`, `removed`, `changed` or `moved`; of a moved file
    `path` is the new one and `moved_from` the old one."""

    change: str
    path: str
    moved_from: str = ""


def compare(session: SearchSession, before: Sequence[Path], after: Sequence[Path]) -> Iterator[Difference]:
    """What changed from the set of the parts `before` to that of `after`, sorted by path.

    A removed and an added entry are one moved entry if type, device, inode, size and time are the same, or the content
    of a file is; each is half of one move at most. An entry that could not be read in one of the sets is not compared.
    """
    files = [*before, *after]
    if not files:
        return
    for name, parts in (("a", before), ("b", after)):
        session.keep_last_resorts(f"kept_{name}", parts or files)
        session.execute(_view(name, parts or files, "true" if parts else "false"), files)
    session.execute(_only_in("removed", "a", "b"), files)
    session.execute(_only_in("added", "b", "a"), files)
    session.execute("CREATE TEMP TABLE moves (new_id BIGINT, old_id BIGINT)", files)
    for keys, condition in _MOVES:
        session.execute(
            f"INSERT INTO moves SELECT n.id, o.id FROM ({_numbered('added', 'new_id', keys, condition)}) n "
            f"JOIN ({_numbered('removed', 'old_id', keys, condition)}) o USING ({keys}, turn)",
            files,
        )
    query = f"""
        SELECT 'changed', a.path, '' FROM a JOIN b ON {_SAME_PATH}
        WHERE ((a.flags | b.flags) & {_UNREADABLE}) = 0 AND ({_CHANGED})
        UNION ALL SELECT 'moved', added.path, removed.path FROM moves
        JOIN added ON added.rowid = new_id JOIN removed ON removed.rowid = old_id
        UNION ALL SELECT 'added', path, '' FROM added ANTI JOIN moves ON added.rowid = new_id
        UNION ALL SELECT 'removed', path, '' FROM removed ANTI JOIN moves ON removed.rowid = old_id
        ORDER BY 2, 1, 3"""
    for change, path, origin in session.stream(query, [], files):
        yield Difference(change, path, origin)


def _view(name: str, files: Sequence[Path], condition: str) -> str:
    """The statement that makes a view `name` of the rows of a set that count."""
    return (
        f"CREATE TEMP VIEW {name} AS SELECT {_COLUMNS}, {PATH} AS path FROM ("
        f"SELECT {_COLUMNS} FROM {read_parquet(files)} WHERE (flags & {HIDDEN}) = 0 "
        f"UNION ALL SELECT {_COLUMNS} FROM kept_{name}) WHERE {condition}"
    )


def _only_in(table: str, here: str, there: str) -> str:
    """The statement that makes `table` of the rows of `here` whose path is not in `there`."""
    return (
        f"CREATE TEMP TABLE {table} AS SELECT path, name, type, device, inode, size, mtime_ns, sha256 "
        f"FROM {here} a WHERE NOT EXISTS (SELECT 1 FROM {there} b WHERE {_SAME_PATH})"
    )


def _numbered(table: str, moved_id: str, keys: str, condition: str) -> str:
    """Rows of `table` that are in no move yet; `turn` numbers those with the same keys, so that they pair one to one,
    where there is a choice by name."""
    return (
        f"SELECT {keys}, {table}.rowid AS id, row_number() OVER (PARTITION BY {keys} ORDER BY name, path) AS turn "
        f"FROM {table} ANTI JOIN moves ON {table}.rowid = {moved_id} WHERE {condition}"
    )
