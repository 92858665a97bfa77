"""Bad input of every kind: the right exit code, a message with a remedy, and nothing has changed."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from harness import SMALL, Answer, Home, full_disk, make_tree

pytestmark = pytest.mark.slow

IMAGES = "libraries/lib/cartridges"
LIBRARY = "libraries/lib/library.json"
SIDECAR = f"{IMAGES}/CAP001L9.json"
IMAGE = f"{IMAGES}/CAP001L9.tap"
# Where a cartridge is, and how often it was loaded, may change.
CARTRIDGE = "barcode, state, reason, uuid, pool, library, end_block, index_block, index_sha256, written_bytes"
# Messages of these name what is allowed, so a hint would only repeat it.
SPEAKS_FOR_ITSELF = ("invalid-value", "already-exists", "refused", "source", "target", "media")


@dataclass(frozen=True)
class World:
    """A home with two sets on one cartridge, and what they were made of. Each test has its own copy."""

    home: Home
    tree: Path
    set_id: str
    other_id: str

    def fill(self, arguments: list[str]) -> list[str]:
        """The arguments with SET, OTHER, TREE and OUT in them replaced."""
        words = {
            "SET": self.set_id,
            "OTHER": self.other_id,
            "TREE": str(self.tree),
            "OUT": str(self.tree.parent / "out"),
        }
        return [words.get(argument, argument) for argument in arguments]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Made once."""
    folder = tmp_path_factory.mktemp("original")
    home = Home(folder / "home")
    home.configure(**SMALL)
    home.library(cartridges=3, slots=8)
    tree = make_tree(folder / "source", files=10)
    first = home.run("backup", tree, "--name", "photos").json["set_id"]
    second = home.run("backup", tree / "deep", "--name", "papers").json["set_id"]
    return World(home, tree, first, second)


@pytest.fixture
def world(original: World, tmp_path: Path) -> World:
    """A copy that may be broken."""
    shutil.copytree(original.home.path, tmp_path / "home", symlinks=True)
    return World(Home(tmp_path / "home"), original.tree, original.set_id, original.other_id)


def state(home: Home) -> dict[str, Any]:
    """What a command that is refused must leave alone: sets, cartridges and pools, and the images byte by byte."""
    found: dict[str, Any] = {
        str(path): path.read_bytes()
        for path in home.path.glob("libraries/*/cartridges/*.tap")
        if path.is_file() and path.stat().st_size
    }
    database = home.path / "catalog.db"
    if not database.is_file():
        return found
    with tempfile.TemporaryDirectory() as folder:  # a look at the database itself would make files beside it
        for path in home.path.glob("catalog.db*"):
            if path.is_file() and not path.name.endswith("-shm"):
                shutil.copy(path, folder)
        try:
            connection = sqlite3.connect(Path(folder) / "catalog.db")
            for table in ("sets", "commits", "segments", "pools"):
                found[table] = connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall()
            query = f"SELECT {CARTRIDGE} FROM cartridges ORDER BY 1"
            found["cartridges"] = connection.execute(query).fetchall()
            connection.close()
        except sqlite3.DatabaseError:
            found["database"] = database.read_bytes()
    return found


def check(answer: Answer, code: str) -> dict[str, Any]:
    """The error that the command gave, which must be `code`, say what happened and what to do."""
    found = answer.json
    # Behind the first rows of an array the error is the last event.
    error: dict[str, Any] = (answer.events[-1] if isinstance(found, list) else found)["error"]
    assert error["code"] == code, error
    assert error["message"]
    assert "Traceback" not in answer.out + answer.err
    assert error["hint"] or code in SPEAKS_FOR_ITSELF, error
    return error


def refused(world: World, arguments: list[str], exit_code: int, code: str, says: str = "") -> dict[str, Any]:
    """Run a command that is refused, and see that nothing has changed by it."""
    before = state(world.home)
    answer = world.home.run(*world.fill(arguments), code=exit_code)
    error = check(answer, code)
    assert says in error["message"] + " " + error["hint"], error
    assert state(world.home) == before
    return error


def named(value: object) -> str:
    """A short name of a case."""
    text = " ".join(value) if isinstance(value, list) else str(value)
    return text[:50].encode("ascii", "backslashreplace").decode().replace("\0", "NUL").replace("\n", "LF")


NAMES = [
    (["restore", "SET", "--to", "OUT", "--library", "lab"], "library", "did you mean lib?"),
    (["verify", "SET", "--library", "nowhere"], "library", "there are: lib"),
    (["backup", "TREE", "--library", "LIB"], "library", "did you mean lib?"),
    (["library", "show", "libb"], "library", "did you mean lib?"),
    (["library", "inventory", "lb"], "library", "did you mean lib?"),
    (["library", "import", ""], "library", "there are: lib"),
    (["library", "export", "nowhere", "CAP001L9"], "library", "there are: lib"),
    (["rebuild", "--library", "libs"], "library", "did you mean lib?"),
    (["backup", "TREE", "--pool", "defalt"], "pool", "did you mean default?"),
    (["pool", "show", "Default"], "pool", "did you mean default?"),
    (["tape", "label", "CAP002L9", "--pool", "archive"], "pool", "capstan pool list"),
    (["tape", "show", "cap001l9"], "cartridge", "did you mean CAP001L9"),
    (["tape", "erase", "CAP01L9", "--yes"], "cartridge", "did you mean CAP001L9"),
    (["tape", "dump", "X"], "cartridge", "capstan tape list"),
    (["tape", "extract", "X", "--to", "OUT"], "cartridge", "capstan tape list"),
    (["restore", "latest:photo", "--to", "OUT"], "set", "did you mean latest:photos?"),
    (["restore", "photos@2001-01-01", "--to", "OUT"], "set", "capstan sets"),
    (["restore", "%", "--to", "OUT"], "set", "capstan sets"),
    (["restore", "a\0b", "--to", "OUT"], "set", "capstan sets"),
    (["restore", "x" * 100_000, "--to", "OUT"], "set", "capstan sets"),
    (["verify", ""], "set", "capstan sets"),
    (["set", "show", "latest:papres"], "set", "did you mean latest:papers?"),
    (["set", "diff", "SET", "zzzz"], "set", "capstan sets"),
    (["find", "x", "--set", ""], "set", "capstan sets"),
    (["sets", "--name", "photo"], "series", "did you mean photos?"),
    (["job", "show", "zz"], "job", "capstan jobs"),
    (["job", "warnings", "%%"], "job", "capstan jobs"),
    (["job", "cancel", ""], "job", "capstan jobs"),
    (["library", "move", "lib", "", "slot:1005"], "place", "capstan library show"),
    (["library", "move", "lib", "slot:1001", "slot:１００５"], "place", "capstan library show"),
    (["restore", "SET", "/not/there", "--to", "OUT"], "file in set", "capstan set files"),
    (["restore", "SET", "--pattern", "*.nothing", "--to", "OUT"], "file in set", "capstan set files"),
    (["restore", "SET", "a\0b", "--to", "OUT"], "file in set", "capstan set files"),
    (["set", "files", "SET", "--prefix", "/not/there"], "path in set", "capstan find"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "what", "says"), NAMES, ids=named)
def test_a_name_that_is_not_there(world: World, arguments: list[str], what: str, says: str) -> None:
    """Exit code 3, what kind of thing it was taken for, and what it may have meant or where to look."""
    assert what in refused(world, arguments, 3, "not-found", says)["message"]


VALUES = [
    (["backup", ""], "source"),
    (["backup", "TREE", "--pool", ""], "pool"),
    (["backup", "TREE", "--name", ""], "name"),
    (["backup", "TREE", "--name", "数据"], "name"),
    (["backup", "TREE", "--name", "a\nb"], "name"),
    (["backup", "TREE", "--name", "x" * 65], "name"),
    (["backup", "TREE", "--name", "--json"], "--name"),
    (["backup", "TREE", "--codec", ""], "codec"),
    (["backup", "TREE", "--codec", "zstd:１"], "codec"),
    (["backup", "TREE", "--codec", "zstd:20"], "codec"),
    (["backup", "TREE", "--codec", "gzip:" + "9" * 5000], "codec"),
    (["backup", "TREE", "--exclude", "!"], "exclude"),
    (["backup", "a\0b"], "source"),
    (["restore", "SET", "", "--to", "OUT"], "path"),
    (["restore", "SET", "--to", ""], "to"),
    (["restore", "SET", "--to", "x\0y"], "to"),
    (["restore", "SET", "--to", "OUT", "--strip", "-1"], "--strip"),
    (["restore", "SET", "--to", "OUT", "--strip", "1e9"], "--strip"),
    (["restore", "SET", "--to", "OUT", "--on-conflict", "Skip"], "on-conflict"),
    (["restore", "photos@0001-01-01", "--to", "OUT"], "time"),
    (["restore", "photos@9999-12-31T23:59:59-12:00", "--to", "OUT"], "time"),
    (["find", "x", "--since", ""], "since"),
    (["find", "x", "--since", "9999-12-31T23:59:59-12:00"], "since"),
    (["find", "x", "--limit", "9" * 30], "--limit"),
    (["find", "x", "--limit", "１２"], "--limit"),
    (["find", "[z-a]"], "pattern"),
    (["jobs", "--limit", "9" * 30], "--limit"),
    (["tape", "extract", "CAP001L9", "--to", ""], "to"),
    (["library", "create", "a/b", "--virtual"], "library"),
    (["library", "create", "..", "--virtual"], "library"),
    (["library", "create", "new", "--virtual", "--drives", "0"], "drives"),
    (["library", "create", "new", "--virtual", "--slots", "-1"], "slots"),
    (["library", "create", "new", "--virtual", "--slots", "9" * 30], "slots"),
    (["library", "create", "new", "--virtual", "--capacity", "0"], "capacity"),
    (["library", "create", "new", "--virtual", "--capacity", "1e99"], "capacity"),
    (["library", "create", "new", "--virtual", "--capacity", "１TB"], "capacity"),
    (["library", "create", "new", "--virtual", "--capacity", ""], "capacity"),
    (["library", "create", "new", "--virtual", "--capacity", "9" * 5000], "capacity"),
    (["library", "create", "new", "--virtual", "--capacity", "99999999PB"], "capacity"),
    (["library", "create", "new", "--virtual", "--generation", "LTO-９"], "generation"),
    (["library", "create", "new", "--virtual", "--generation", "9" * 5000], "generation"),
    (["library", "create", "new", "--virtual", "--barcode-prefix", "CLN"], "barcode"),
    (["library", "create", "new", "--virtual", "--barcode-prefix", "../X"], "barcode"),
    (["pool", "create", ""], "pool"),
    (["pool", "create", "p\n"], "pool"),
    (["tape", "label", "CAP002L9", "--pool", ""], "pool"),
    (["demo", "--source", "/dev/null"], "source"),
    (["sets", "--home"], "--home"),
    (["sets", "--home="], "--home"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "says"), VALUES, ids=named)
def test_a_value_that_makes_no_sense(world: World, arguments: list[str], says: str) -> None:
    """Exit code 2, the option or argument, and what would be right; no half of a library is left."""
    before = state(world.home)
    answer = world.home.run(*world.fill(arguments), code=2)
    assert answer.json["error"]["code"] in ("invalid-value", "usage")
    assert says in answer.json["error"]["message"]
    assert state(world.home) == before
    assert [path.name for path in (world.home.path / "libraries").iterdir()] == ["lib"]
    assert len(answer.out) < 30_000


def test_a_library_whose_barcodes_are_known_is_not_built(world: World) -> None:
    """A cartridge is known by its barcode: a second library with the same ones would take the sets of the first."""
    refused(world, ["library", "create", "second", "--virtual"], 2, "already-exists", "--barcode-prefix")
    assert not (world.home.path / "libraries" / "second").exists()
    world.home.run("library", "create", "second", "--virtual", "--barcode-prefix", "SEC")
    world.home.run("verify", world.set_id)


def test_a_folder_that_is_there_is_never_built_over(world: World) -> None:
    """The tapes of a library whose definition was lost are neither overwritten nor removed."""
    (world.home.path / "libraries" / "lost").mkdir()
    (world.home.path / "libraries" / "lost" / "tape").write_text("precious")
    command = ["library", "create", "lost", "--virtual", "--barcode-prefix", "NEW"]
    refused(world, command, 2, "already-exists", "move it away")
    assert (world.home.path / "libraries" / "lost" / "tape").read_text() == "precious"


def test_a_label_is_told_with_its_times(world: World) -> None:
    """What a program is told of a cartridge is kept with the job, too."""
    told = world.home.run("tape", "label", "CAP002L9", "--pool", "default").json
    kept = world.home.run("jobs").json[0]["result"]
    assert told["labelled_at"] == kept["labelled_at"]


def test_a_library_may_be_renamed_in_the_configuration(world: World) -> None:
    """The name in capstan.toml is the one that counts, and restores find the cartridges under it."""
    file = world.home.path / "capstan.toml"
    file.write_text(file.read_text().replace("[libraries.lib]", "[libraries.vault]"))
    world.home.run("library", "inventory", "vault")
    world.home.run("verify", world.set_id)


def test_cleaning_cartridges_hold_nothing(world: World) -> None:
    """They are refused before a drive takes them."""
    for command in (["verify", "CLN001L9"], ["tape", "dump", "CLN001L9"], ["tape", "erase", "CLN001L9", "--yes"]):
        refused(world, command, 2, "refused", "cleaning")


# ── the home ──────────────────────────────────────────────────────────────────────────────────────────


def archive(line: str) -> bytes:
    return f"[archive]\n{line}\n[libraries.lib]\nkind = 'virtual'\npath = 'libraries/lib'\n".encode()


CONFIGURATIONS = [
    (b"\xff\xfe\0\0", "capstan.toml"), (b"\0", "capstan.toml"), (b"a = [[[", "capstan.toml"),
    (b"a=" + b"[" * 5000, "capstan.toml"), (b"[archive]\ncodec='lz4'\ncodec='lz4'", "codec"),
    (b"[nope]\nx = 1", "nope"), (b"[archive]\nframe_size = 1", "archive.frame_size"),
    (b"libraries = 3", "libraries"), (b"[libraries]\nx = 'y'", "libraries.x"),
    (b"[libraries.lib]\nkind = 'iscsi'\npath = 'x'", "libraries.lib.kind"),
    (b"[libraries.lib]\nkind = 'virtual'", "libraries.lib.path"),
    (b"[libraries.lib]\npath = ''", "libraries.lib.path"),
    (b'[libraries.lib]\npath = "a\\u0000b"', "libraries.lib.path"),
    (b"[libraries.'a/b']\npath = 'x'", "a/b"),
    (archive("codec = 'zip'"), "archive.codec"), (archive("codec = ''"), "archive.codec"),
    (archive("record_bytes = -5"), "archive.record_bytes"), (archive("record_bytes = 70000"), "archive.record_bytes"),
    (archive("record_bytes = true"), "archive.record_bytes"), (archive("record_bytes = 1e99"), "archive.record_bytes"),
    (archive("frame_bytes = 0"), "archive.frame_bytes"), (archive("frame_bytes = '１MiB'"), "archive.frame_bytes"),
    (archive("segment_bytes = -1"), "archive.segment_bytes"), (archive("commit_bytes = 0"), "archive.commit_bytes"),
    (archive("segment_bytes = 99999999999999999999999"), "archive.segment_bytes"),
    (archive("commit_seconds = nan"), "archive.commit_seconds"),
    (archive("commit_seconds = inf"), "archive.commit_seconds"),
    (b"[engine]\nworkers = -1", "engine.workers"), (b"[engine]\nworkers = true", "engine.workers"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "says"), CONFIGURATIONS, ids=lambda value: named(value)[:40])
def test_a_configuration_that_cannot_be_used(world: World, content: bytes, says: str) -> None:
    """Every command stops before it does anything, names the key, and leaves the file as it is."""
    file = world.home.path / "capstan.toml"
    file.write_bytes(content)
    refused(world, ["backup", "TREE"], 8, "configuration-broken", says)
    assert file.read_bytes() == content


def test_a_configuration_that_leads_nowhere(world: World) -> None:
    """A link to a share that is not mounted is not replaced by an empty configuration; a folder is no configuration."""
    file = world.home.path / "capstan.toml"
    file.unlink()
    for target in ("/not/mounted/capstan.toml", "capstan.toml"):
        file.symlink_to(target)
        refused(world, ["sets"], 8, "configuration-broken", "capstan.toml")
        assert file.is_symlink()
        file.unlink()
    file.mkdir()
    refused(world, ["sets"], 8, "configuration-broken", "capstan.toml")


def test_libraries_in_one_line_are_not_added_to(world: World) -> None:
    """TOML cannot say it; the library that could not be defined is not left half built."""
    file = world.home.path / "capstan.toml"
    file.write_text("libraries = {lib = {kind = 'virtual', path = 'libraries/lib'}}\n")
    command = ["library", "create", "new", "--virtual", "--barcode-prefix", "NEW"]
    refused(world, command, 8, "configuration-broken", "[libraries.NAME]")
    assert not (world.home.path / "libraries" / "new").exists()


Change = Callable[[dict[str, Any]], object]
LIBRARIES: list[tuple[str, bytes | Change]] = [
    ("garbage", b"\xff{"), ("empty", b""), ("a list", b"[]"), ("null", b"null"), ("nested", b"[" * 100_000),
    ("missing key", lambda value: value.pop("drives")),
    ("generation", lambda value: value.update(generation=99)),
    ("a text for a number", lambda value: value.update(drives="2")),
    ("too many drives", lambda value: value.update(drives=10**6)),
    ("fewer than none", lambda value: value.update(drives=-1)),
    ("a fraction of a slot", lambda value: value.update(slots=6.5)),
    ("places as a list", lambda value: value.update(places=[])),
    ("a place without a number", lambda value: value["places"].update({"x": "CAP009L9"})),
    ("a barcode that is a number", lambda value: value["places"].update({"1006": 7})),
    ("a barcode that leads outside", lambda value: value["places"].update({"1006": "../../x"})),
    ("a place that is not there", lambda value: value["places"].update({"5": "CAP009L9"})),
    ("a cartridge twice", lambda value: value["places"].update({"1006": "CAP001L9"})),
    ("a source that is not there", lambda value: value.update(sources={"101": 99999999})),
    ("a name that is none", lambda value: value.update(name="x" * 1000)),
]  # fmt: skip
SIDECARS: list[tuple[str, bytes | Change]] = [
    ("garbage", b"\xff{"), ("empty", b""), ("a list", b"[]"), ("nested", b"[" * 100_000),
    ("generation", lambda value: value.update(generation=99)),
    ("no capacity", lambda value: value.update(capacity_bytes=0)),
    ("a text for a number", lambda value: value.update(capacity_bytes="x")),
    ("loads", lambda value: value.update(loads="x")),
    ("another cartridge's", lambda value: value.update(barcode="CAP002L9")),
    ("a text for a yes", lambda value: value.update(write_protected="no")),
]  # fmt: skip


def break_json(path: Path, how: bytes | Change) -> None:
    if isinstance(how, bytes):
        path.write_bytes(how)
        return
    value = json.loads(path.read_bytes())
    how(value)
    path.write_text(json.dumps(value))


@pytest.mark.parametrize("how", [how for _, how in LIBRARIES], ids=[name for name, _ in LIBRARIES])
def test_a_broken_library_definition(world: World, how: bytes | Change) -> None:
    """The file is named and left as it is; nothing is moved, read or written."""
    break_json(world.home.path / LIBRARY, how)
    before = (world.home.path / LIBRARY).read_bytes()
    for command in (["restore", "SET", "--to", "OUT"], ["backup", "TREE"], ["rebuild", "--library", "lib"]):
        refused(world, command, 8, "home-damaged", "library.json")
    assert (world.home.path / LIBRARY).read_bytes() == before


@pytest.mark.parametrize("how", [how for _, how in SIDECARS], ids=[name for name, _ in SIDECARS])
def test_a_broken_sidecar(world: World, how: bytes | Change) -> None:
    """It costs its own cartridge only: that stays in its slot, and others are used as before."""
    break_json(world.home.path / SIDECAR, how)
    for command in (["restore", "SET", "--to", "OUT"], ["verify", "CAP001L9"]):
        refused(world, command, 8, "home-damaged", "CAP001L9.json")
    world.home.run("tape", "dump", "CAP002L9")


DATABASES = [b"garbage" * 999, b"SQLite format 3\0" + b"\xff" * 5000, "half", "wal"]


@pytest.mark.parametrize("how", DATABASES, ids=["garbage", "header only", "cut in half", "log of garbage"])
def test_a_broken_database(world: World, how: bytes | str) -> None:
    """Exit code 8 with the name of the file and how to get it back; a rebuild in its place brings everything back."""
    database = world.home.path / "catalog.db"
    if how == "wal":
        (world.home.path / "catalog.db-wal").write_bytes(random.Random(1).randbytes(50_000))
        world.home.run("sets")  # SQLite itself knows a log that is not of this database
        return
    content = database.read_bytes()[: database.stat().st_size // 2] if isinstance(how, str) else how
    for path in world.home.path.glob("catalog.db*"):
        path.unlink()
    database.write_bytes(content)
    for command in (["sets"], ["backup", "TREE"], ["restore", "SET", "--to", "OUT"]):
        refused(world, command, 8, "home-damaged", "catalog.db")
    assert database.read_bytes() == content
    database.unlink()
    world.home.run("rebuild", "--library", "lib")
    world.home.run("verify", world.set_id)


def test_a_database_that_is_a_folder_or_of_a_newer_version(world: World) -> None:
    """Named, and not touched."""
    database = world.home.path / "catalog.db"
    world.home.run("sets")
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    refused(world, ["backup", "TREE"], 8, "home-too-new", "9999")
    for path in world.home.path.glob("catalog.db*"):
        path.unlink()
    database.mkdir()
    refused(world, ["sets"], 8, "storage-failed", "catalog.db")


INDEXES = ["garbage", "empty", "truncated", "gone", "another set's", "a folder"]
READERS = [
    ["restore", "SET", "--to", "OUT"], ["verify", "SET"], ["set", "files", "SET"], ["find", "x"],
    ["set", "diff", "SET", "OTHER"],
]  # fmt: skip


@pytest.mark.parametrize("table", ["files", "frames"])
@pytest.mark.parametrize("how", INDEXES)
def test_a_broken_file_index(world: World, how: str, table: str) -> None:
    """Whoever reads it says which file is damaged, with exit code 8, and no wrong file is given out. Another set's
    index in its place is noticed where the tape is read."""
    [path] = (world.home.path / "indexes" / world.set_id).glob(f"1-*.{table}.parquet")
    content = path.read_bytes()
    path.unlink()
    if how == "a folder":
        path.mkdir()
    elif how == "another set's":
        [other] = (world.home.path / "indexes" / world.other_id).glob(f"1-*.{table}.parquet")
        shutil.copy(other, path)
    elif how != "gone":
        path.write_bytes({"garbage": b"x" * 9000, "empty": b"", "truncated": content[: len(content) // 2]}[how])
    for command in READERS:
        if how == "another set's":
            if command[0] in ("restore", "verify"):
                answer = world.home.run_any(*world.fill(command))
                assert answer.code in (6, 8), (command, answer.out[:500])
                assert answer.json["error"]["code"] != "unexpected"
        elif table == "files" or command[0] in ("restore", "verify") or how == "gone":
            refused(world, command, 8, "home-damaged", path.name)


# ── tapes ─────────────────────────────────────────────────────────────────────────────────────────────


def simh(*records: bytes) -> bytes:
    """A tape image: these records (an empty one is a filemark)."""
    out = b""
    for record in records:
        frame = len(record).to_bytes(4, "little")
        out += frame + record + b"\0" * (len(record) % 2) + frame if record else bytes(4)
    return out


def foreign(kind: str) -> bytes:
    if kind == "GNU tar":
        return simh(
            subprocess.run(["tar", "-cf", "-", "-C", "/etc", "hostname"], capture_output=True, check=True).stdout, b""
        )
    if kind == "ANSI label":
        return simh(b"VOL1BACKUP".ljust(80), b"HDR1".ljust(80), b"", b"data" * 999, b"")
    return simh(*(random.Random(number).randbytes(4096) for number in range(3)), b"")


@pytest.mark.parametrize("kind", ["GNU tar", "ANSI label", "random"])
def test_somebody_elses_tape(world: World, kind: str) -> None:
    """It is never written to: not by label, not by a backup that finds it among scratch ones, not by a rebuild."""
    image = world.home.path / IMAGES / "CAP002L9.tap"
    image.write_bytes(foreign(kind))
    refused(world, ["tape", "label", "CAP002L9", "--pool", "default"], 5, "not-capstan-tape", "--overwrite")
    world.home.run("rebuild", "--library", "lib")
    assert image.read_bytes() == foreign(kind)
    assert world.home.run("tape", "show", "CAP002L9").json["state"] == "foreign"
    world.home.run("pool", "create", "new")
    assert world.home.run("backup", world.tree, "--pool", "new").json["cartridges"] == ["CAP003L9"]
    assert image.read_bytes() == foreign(kind)


def test_a_tape_of_a_newer_format(world: World) -> None:
    """Format 2.0 is neither read nor appended to."""
    image = world.home.path / IMAGE
    image.write_bytes(image.read_bytes().replace(b"capstan-tape: 1.0", b"capstan-tape: 2.0"))
    refused(world, ["backup", "TREE"], 6, "unsupported-version", "2.0")


def test_a_blank_tape_has_nothing_to_verify(world: World) -> None:
    """Exit code 5, and it stays blank."""
    refused(world, ["verify", "CAP002L9"], 5, "not-capstan-tape", "blank")


@pytest.mark.parametrize("how", ["gone", "a folder", "empty", "cut", "swapped", "another's"])
def test_an_image_that_is_not_what_it_was(world: World, how: str) -> None:
    """The data of the set is not there: restore says so, a backup does not write to it, and nothing is made in its
    place. What no drive can load at all is passed over, with a warning that names it."""
    image, other = world.home.path / IMAGE, world.home.path / IMAGES / "CAP002L9.tap"
    world.home.run("tape", "label", "CAP002L9", "--pool", "default")
    content = image.read_bytes()
    image.unlink()
    for path in image.parent.glob("*.map"):
        path.unlink()
    if how == "a folder":
        image.mkdir()
    elif how == "swapped":
        shutil.copy(other, image)
        other.write_bytes(content)
    elif how == "another's":
        shutil.copy(other, image)
    elif how != "gone":
        image.write_bytes(content[: {"empty": 0, "cut": len(content) // 2}[how]])
    before = state(world.home)
    passed_over = how in ("gone", "a folder")
    for command in (["restore", "SET", "--to", "OUT"], ["verify", "SET"], ["backup", "TREE"]):
        answer = world.home.run_any(*world.fill(command))
        if command[0] == "backup" and passed_over:
            assert answer.json["cartridges"] == ["CAP002L9"] and set(answer.json["warning_codes"]) == {
                "cartridge-failed"
            }
            assert any("CAP001L9.tap" in event.get("detail", "") for event in answer.events)
            continue
        assert answer.code in (5, 6, 7), (command, answer.code, answer.out[:300])
        assert answer.json["error"]["code"] != "unexpected"
        assert answer.json["error"]["hint"] or answer.json["error"]["code"] in SPEAKS_FOR_ITSELF
    assert image.exists() == (how != "gone")
    if passed_over:
        return
    after = state(world.home)
    assert [after[key] for key in ("sets", "commits", "pools")] == [before[key] for key in ("sets", "commits", "pools")]
    assert {key: value for key, value in after.items() if key.endswith(".tap")} == {
        key: value for key, value in before.items() if key.endswith(".tap")
    }


def test_no_cartridge_to_write_to(world: World) -> None:
    """A pool that is full or takes no scratch says how to get one."""
    world.home.run("pool", "create", "strict", "--no-scratch")
    refused(world, ["backup", "TREE", "--pool", "strict"], 5, "no-cartridge-available", "import or erase")


# ── sources and targets ───────────────────────────────────────────────────────────────────────────────


def test_a_source_that_cannot_be_read(world: World, tmp_path: Path) -> None:
    """Missing, a socket, too long: the backup ends before a cartridge is fetched, and leaves no set behind."""
    sockets = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(sockets))
        for source in ("/does/not/exist", "/" + "y/" * 3000, "z" * 300):
            refused(world, ["backup", source], 1, "source")
        refused(world, ["backup", str(sockets)], 1, "source", "socket")


def test_a_fifo_and_the_parent_directory_are_sources(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What sounds odd and makes sense is done: a FIFO is an entry that is not read, `..` is a directory."""
    os.mkfifo(tmp_path / "f")
    assert world.home.run("backup", tmp_path / "f").json["files"] == 1
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert world.home.run("backup", "../here").json["name"] == "here"


@pytest.mark.parametrize("how", ["a file", "below a file", "in the home", "no file system"])
def test_a_target_that_cannot_be_written(world: World, tmp_path: Path, how: str) -> None:
    """Restore and extract name the path; nothing of the home is overwritten."""
    (tmp_path / "file").write_text("kept")
    target = {
        "a file": tmp_path / "file",
        "below a file": tmp_path / "file" / "x",
        "in the home": world.home.path / "indexes",
        "no file system": Path("/proc/nowhere"),
    }[how]
    refused(world, ["restore", "SET", "--to", str(target)], 1, "target", str(target))
    if how != "in the home":
        refused(world, ["tape", "extract", "CAP001L9", "--to", str(target)], 1, "target", str(target))
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.requires("root", "mount")
def test_a_full_target(world: World, tmp_path: Path) -> None:
    """The files that did not fit are named, none of them is there in part, and the home is as it was."""
    with full_disk(tmp_path / "small", "256k"):
        before = state(world.home)
        answer = world.home.run("restore", world.set_id, "--to", tmp_path / "small", code=6)
        assert state(world.home) == before
        assert any("No space left" in problem["what"] for problem in answer.json["problems"])
        assert not list((tmp_path / "small").rglob("*.part"))
        answer = world.home.run("tape", "extract", "CAP001L9", "--to", tmp_path / "small" / "raw", code=1)
        assert "No space left" in check(answer, "target")["message"]


def test_a_path_that_is_not_utf_8(world: World, tmp_path: Path) -> None:
    """It is shown with escapes, in every form, and never ends a command with a traceback."""
    name = os.fsencode(tmp_path) + b"/\xff\xe4"
    command = [part.encode() for part in world.home.command("backup")]
    missing = subprocess.run([*command, name], capture_output=True, check=False)
    assert missing.returncode == 1, missing.stderr
    assert json.loads(missing.stdout)["error"]["code"] == "source"
    os.mkdir(name)
    assert subprocess.run([*command, name], capture_output=True, check=False).returncode == 0
    listed = subprocess.run([*command[:-1], b"jobs"], capture_output=True, check=True).stdout
    assert json.loads(listed)
    text = [
        part for part in [*command[:-1], b"job", b"show", json.loads(listed)[0]["job_id"].encode()] if part != b"--json"
    ]
    assert subprocess.run(text, capture_output=True, check=True).stdout


# ── rights ────────────────────────────────────────────────────────────────────────────────────────────

RIGHTS = [
    (".", 0o000, ["sets"], 8), (".", 0o500, ["backup", "TREE"], 8),
    ("capstan.toml", 0o000, ["sets"], 8), ("catalog.db", 0o000, ["sets"], 8),
    ("catalog.db", 0o400, ["backup", "TREE"], 8), ("indexes", 0o000, ["set", "files", "SET"], 8),
    ("indexes", 0o000, ["restore", "SET", "--to", "OUT"], 8), ("indexes", 0o500, ["backup", "TREE"], 8),
    ("jobs", 0o500, ["backup", "TREE"], 8),
    ("spool", 0o000, ["find", "x"], 8), ("spool", 0o500, ["backup", "TREE"], 8),
    ("libraries/lib", 0o000, ["verify", "SET"], 8), (LIBRARY, 0o000, ["verify", "SET"], 8),
    (SIDECAR, 0o000, ["verify", "SET"], 8), (IMAGE, 0o000, ["verify", "CAP001L9"], 7),
    (IMAGES, 0o500, ["library", "create", "lib", "--virtual"], 2),
    ("libraries", 0o500, ["library", "create", "new", "--virtual", "--barcode-prefix", "NEW"], 8),
]  # fmt: skip


@pytest.mark.requires("setpriv")
@pytest.mark.parametrize(("place", "mode", "arguments", "code"), RIGHTS, ids=named)
def test_without_the_right(world: World, place: str, mode: int, arguments: list[str], code: int) -> None:
    """Each part of the home, unreadable or unwritable: the path, the reason, no traceback, nothing changed."""
    path = world.home.path / place
    usual = path.stat().st_mode & 0o777
    before = state(world.home)
    path.chmod(mode)
    try:
        done = subprocess.run(
            unprivileged(world.home, *world.fill(arguments)), capture_output=True, text=True, check=False
        )
    finally:
        path.chmod(usual)
    assert done.returncode == code, (done.returncode, done.stdout[-600:], done.stderr[-1500:])
    check(Answer(done.returncode, done.stdout, done.stderr), json.loads(done.stdout)["error"]["code"])
    after = state(world.home)
    if (place, arguments[0]) == ("indexes", "backup"):
        # No commit point is written that this home could not keep; the backup goes on when it can.
        assert [item["state"] for item in world.home.run("sets").json] == ["complete", "complete", "incomplete"]
        job = next(event["job"] for event in Answer(done.returncode, "", done.stderr).events if "job" in event)
        world.home.run("job", "resume", job)
        assert all(item["state"] == "complete" for item in world.home.run("sets").json)
    else:
        assert after == before


def unprivileged(home: Home, *arguments: str) -> list[str]:
    """A command that rights hold for: root keeps its name, so that it can still read this interpreter, and loses what
    lets it pass every mode."""
    drop = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    return [*drop, *home.command(*arguments)]


# ── two at once ───────────────────────────────────────────────────────────────────────────────────────


def test_two_at_once(world: World, tmp_path: Path) -> None:
    """While a backup has the library, a backup, a rebuild, an erase and a restore hear who has it."""
    (tmp_path / "large").mkdir()
    (tmp_path / "large" / "file").write_bytes(os.urandom(64 << 20))
    command = world.home.command("backup", str(tmp_path / "large"), "--codec", "zstd:19")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if json.loads(line).get("phase") == "write":
                process.send_signal(signal.SIGSTOP)
                break
        for arguments in (
            ["backup", "TREE"],
            ["rebuild", "--library", "lib"],
            ["tape", "erase", "CAP003L9", "--yes"],
            ["restore", "SET", "--to", "OUT"],
        ):
            answer = world.home.run(*world.fill(arguments), code=4)
            assert str(process.pid) in check(answer, "in-use")["message"]
    finally:
        process.kill()
        process.communicate()
    world.home.run("verify", world.set_id)
