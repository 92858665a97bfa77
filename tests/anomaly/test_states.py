"""What the digest of a state tells apart, and what it does not: proofs are left out where it says that all is equal."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import states
from operations import OPERATIONS, perform
from scene import Scene

from capstan.scsi.virtual.faults import Fault, FaultKind, FaultPlan

pytestmark = pytest.mark.slow

BACKUP = OPERATIONS["backup"]


@pytest.fixture
def copy(scene: Scene, bench: Path) -> Scene:
    """A scene with something in its target."""
    copy = scene.copy(bench)
    (copy.target / "inner").mkdir(parents=True)
    (copy.target / "file").write_bytes(b"content")
    os.utime(copy.target / "file", ns=(0, 1_000_000_000))
    return copy


def flipped(path: Path) -> None:
    """Change one byte in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_every_byte_of_a_file_counts(copy: Scene) -> None:
    """Of whatever lies in the home, but for the database's own files and locks; and that it is there."""
    files = [path for path in sorted(copy.home.rglob("*")) if path.is_file() and path.stat().st_size]
    files = [path for path in files if not path.name.startswith("catalog.db") and "lock" not in path.name]
    assert {path.suffix for path in files} >= {".tap", ".map", ".json", ".parquet", ".toml"}
    before = states.digest(copy, BACKUP)
    for path in files:
        content = path.read_bytes()
        flipped(path)
        assert states.digest(copy, BACKUP) != before, path
        path.unlink()
        assert states.digest(copy, BACKUP) != before, path
        path.write_bytes(content)
    assert states.digest(copy, BACKUP) == before


def test_every_column_of_the_catalog_counts(copy: Scene) -> None:
    """But for those that are named as words; and every row."""
    database_file = copy.home / "catalog.db"
    with closing(sqlite3.connect(database_file)) as database:
        database.execute("UPDATE loads SET code = 'medium-error'")  # one that went well does not count
        database.commit()
        database.execute("PRAGMA journal_mode = DELETE")  # all of it is in one file now
    content, before = database_file.read_bytes(), states.digest(copy, BACKUP)
    seen = 0
    for table, column, words in columns(copy):
        with closing(sqlite3.connect(database_file)) as database:
            row, value = database.execute(f'SELECT rowid, "{column}" FROM "{table}" LIMIT 1').fetchone()
            database.execute(f'UPDATE "{table}" SET "{column}" = ? WHERE rowid = ?', (another(value), row))
            database.commit()
        assert (states.digest(copy, BACKUP) == before) is words, (table, column)
        database_file.write_bytes(content)
        seen += 1
    assert seen > 60
    assert states.digest(copy, BACKUP) == before


def test_of_a_reason_it_counts_that_there_is_one(copy: Scene) -> None:
    """And whether it is the one that says that a label was begun."""
    found = []
    for reason in ("", "broken", "worn out", states.LABELLING):
        with closing(sqlite3.connect(copy.home / "catalog.db")) as database:
            database.execute("UPDATE cartridges SET reason = ?", (reason,))
            database.commit()
        found.append(states.digest(copy, BACKUP))
    assert found[1] == found[2]
    assert len(set(found)) == 3


def columns(copy: Scene) -> list[tuple[str, str, bool]]:
    """All columns of tables that hold something, and whether another value makes no difference."""
    found = []
    with closing(sqlite3.connect(copy.home / "catalog.db")) as database:
        for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            if not table.startswith("sqlite_") and database.execute(f'SELECT count(*) FROM "{table}"').fetchone()[0]:
                for _, column, *_ in database.execute(f'PRAGMA table_info("{table}")').fetchall():
                    if (table, column) == ("cartridges", "reason"):
                        continue
                    words = (table, column) in states._COLUMNS or table in states._WORDS
                    found.append((table, column, words))
    return found


def another(value: object) -> object:
    """Another value of the same kind; of JSON, one with other words and the same codes."""
    if isinstance(value, int):
        return value + 1000
    if isinstance(value, str) and value.startswith("{"):
        return '{"said": 1, ' + value[1:] if value != "{}" else '{"said": 1}'
    return f"{value or ''}9"


@pytest.mark.parametrize(
    "change",
    [
        lambda target: flipped(target / "file"),
        lambda target: (target / "file").chmod(0o600),
        lambda target: os.utime(target / "file", ns=(0, 2_000_000_000)),
        lambda target: (target / "file").unlink(),
        lambda target: (target / "inner").rmdir(),
        lambda target: (target / ".capstan-1-file").touch(),
        lambda target: (target / "inner/link").symlink_to("file"),
    ],
)
def test_the_target_counts(copy: Scene, change: Callable[[Path], None]) -> None:
    """Content, kind, mode and time of what is in it."""
    before = states.digest(copy, BACKUP)
    change(copy.target)
    assert states.digest(copy, BACKUP) != before


@pytest.mark.parametrize("name", ["label", "erase", "import", "rebuild"])
def test_a_run_can_be_repeated(scene: Scene, bench: Path, name: str) -> None:
    """The same fault at the same place leaves the same state (where threads run beside one another: mostly)."""
    operation, found = OPERATIONS[name], []
    for number in range(2):
        (bench / str(number)).mkdir()
        copy = scene.copy(bench / str(number))
        operation.prepare(copy)
        perform(operation, copy, FaultPlan((Fault(FaultKind.HARDWARE_ERROR, 9, permanent=True),)), repeatably=True)
        found.append(states.digest(copy, operation))
    assert found[0] == found[1]
