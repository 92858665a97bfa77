"""The state that a case leaves behind, as a digest: what is promised of a state is proven once for all that are equal.

Everything in the home and the target counts but what no operation looks at: words for people (messages, warnings,
events, what a job told), the numbers of processes, and how the database keeps its content.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from harness import describe
from operations import Operation
from scene import Scene

from capstan.media.cartridges import LABELLING

_OF_A_PROCESS = re.compile(rb"\.capstan-\d+-")
_DATABASE = "catalog.db"


def _code(error: str) -> str:
    return json.dumps(json.loads(error).get("code"))


def _warning_codes(told: str) -> str:
    """All that a job which goes on takes up of what it told before."""
    return json.dumps(json.loads(told).get("warning_codes"))


def _reason(text: str) -> Any:
    """Only one of them is more than words."""
    return text if text == LABELLING else bool(text)


def _nothing(value: Any) -> None:
    return None


# What counts of a column that does not count as it is.
_COLUMNS: dict[tuple[str, str], Callable[[Any], Any]] = {
    ("jobs", "pid"): _nothing,
    ("jobs", "phase"): _nothing,
    ("jobs", "error"): _code,
    ("jobs", "result"): _warning_codes,
    ("jobs", "progress"): _warning_codes,
    ("cartridges", "reason"): _reason,
    ("cartridges", "loads"): _nothing,
    ("drives", "reason"): _nothing,
    ("drives", "loads"): _nothing,
    ("loads", "id"): _nothing,
    ("loads", "job_id"): _nothing,
    ("loads", "loaded_at"): _nothing,
    ("loads", "unloaded_at"): _nothing,
    ("loads", "error"): _nothing,
    ("loads", "alerts"): _nothing,
    ("loads", "counters"): _nothing,
}
_WORDS = {"events"}


def digest(scene: Scene, operation: Operation) -> str:
    """The digest of what `operation` has left in `scene`. Changes nothing there."""
    found = hashlib.sha256(operation.name.encode())
    for part in _parts(scene):
        found.update(b"%d " % len(part) + part)
    return found.hexdigest()


def is_proven(scene: Scene, state: str) -> bool:
    """Whether this run of the suite has proven that state already, in whatever process."""
    return (scene.proven / state).exists()


def is_good(scene: Scene, state: str) -> None:
    """All promises were proven of that state."""
    (scene.proven / state).touch()


def _parts(scene: Scene) -> Iterator[bytes]:
    for path in sorted(scene.home.rglob("*")):
        yield os.fsencode(path.relative_to(scene.home))
        if path.is_file() and not path.name.startswith(_DATABASE):
            yield from _file(path)
    yield from _content(scene)
    yield b"target"
    made_ns = int(scene.made_at.timestamp() * 1e9)
    for name, (*status, mtime_ns, content) in sorted(describe(scene.target).items()) if scene.target.exists() else ():
        yield _OF_A_PROCESS.sub(b".capstan-", name)
        # What is later than the scene has the time of the case: nobody gave it another.
        yield repr((*status, min(mtime_ns, made_ns), content)).encode()


def _file(path: Path) -> Iterator[bytes]:
    if path.name in ("lock", ".lock") or path.suffix == ".lock":  # the number of a process
        return
    content = path.read_bytes()
    if path.parent.name != "jobs" or "warnings" not in path.name:
        yield content
        return
    for line in content.splitlines():
        try:
            warning = json.loads(line)
        except ValueError:
            yield b"torn"
        else:
            yield repr((warning.get("code"), warning.get("path"))).encode()


def _content(scene: Scene) -> Iterator[bytes]:
    """The content of the catalog, of a copy: to open a database that was left may tidy it up."""
    files = sorted(scene.home.glob(f"{_DATABASE}*"))
    if not files:
        return
    folder = scene.root / "look"
    folder.mkdir()
    for path in files:
        shutil.copyfile(path, folder / path.name)
    root = json.dumps(str(scene.root))[1:-1]
    try:
        with closing(sqlite3.connect(folder / _DATABASE)) as database:
            for table, schema in sorted(database.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'")):
                if table.startswith("sqlite_") or table in _WORDS:
                    continue
                # A load that went well is history.
                which = "WHERE code != ''" if table == "loads" else ""
                cursor = database.execute(f'SELECT * FROM "{table}" {which}')
                kept = [_COLUMNS.get((table, column[0]), lambda value: value) for column in cursor.description]
                rows = sorted(repr([keep(value) for keep, value in zip(kept, row, strict=True)]) for row in cursor)
                yield "\n".join([table, schema, *rows]).replace(root, "").encode()
    except sqlite3.DatabaseError:
        for path in files:
            yield path.read_bytes()
    finally:
        shutil.rmtree(folder)
