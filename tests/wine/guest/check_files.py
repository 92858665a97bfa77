r"""Backup and restore of a tree of Windows through the command line, on the embedded virtual library."""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from capstan import file_system
from capstan.cli.main import main
from capstan.errors import TargetError
from capstan.file_system import calls
from capstan.recovery.filesystem import FilesystemTarget
from capstan.scsi.virtual.library import VirtualLibrary
from capstan.testing.target_contract import entry
from capstan.windows_attributes import PREFIX

READONLY, HIDDEN, SYSTEM, ARCHIVE = 1, 2, 4, 0x20
OLD_NS = 1_234_567_890_123_456_700
ATTRIBUTES = PREFIX + b"attributes"


def attributes(path: str | Path, value: int | None = None) -> int:
    """The attributes of a file that a person may change; `value`: change them."""
    kernel = ctypes.windll.kernel32  # type: ignore[attr-defined]
    if value is not None:
        assert kernel.SetFileAttributesW(str(path), value)
    return kernel.GetFileAttributesW(str(path)) & (READONLY | HIDDEN | SYSTEM | ARCHIVE)


def junction(target: Path, path: Path) -> None:
    import _winapi

    _winapi.CreateJunction(str(target), str(path))  # type: ignore[attr-defined]


class Home:
    """A Capstan home with a virtual library."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._capsys = capsys
        self.run("library", "create", "lib", "--virtual", "--cartridges", "4", "--capacity", "64MiB")

    def run(self, *arguments: str, code: int = 0) -> Any:
        """One command: its result, from JSON."""
        self._capsys.readouterr()
        ended = main(["--home", str(self.folder), "--json", *arguments])
        captured = self._capsys.readouterr()
        assert ended == code, captured.err + captured.out
        return json.loads(captured.out.splitlines()[-1]) if captured.out.strip() else None

    def warnings(self, job: str) -> list[tuple[str, str]]:
        self._capsys.readouterr()
        assert main(["--home", str(self.folder), "--json", "job", "warnings", job]) == 0
        return [(item["code"], item["path"]) for item in map(json.loads, self._capsys.readouterr().out.splitlines())]


@pytest.fixture
def home(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Home:
    return Home(tmp_path / "home", capsys)


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Path]:
    """Names, attributes, times, lengths and links that files of Windows have."""
    tree = tmp_path / "Meine Dateien"
    (tree / "leer").mkdir(parents=True)
    (tree / "a.txt").write_bytes(b"a\r\nb\r\n\x1a behind what CP/M ends a text with\n")
    (tree / "grün – 雪.txt").write_text("snow", encoding="utf-8")
    (tree / "100%.txt").write_bytes(b"")
    (tree / "large.bin").write_bytes(os.urandom(9_000_001))
    deep = "\\\\?\\" + str(tree)
    for _ in range(8):
        deep += "\\" + "d" * 60
    os.makedirs(deep)
    with open(f"{deep}\\deep.txt", "w") as file:
        file.write("deeper than 260 characters")
    for name, value in (("ro.txt", READONLY), ("hidden.txt", HIDDEN | SYSTEM), ("archive.txt", ARCHIVE)):
        (tree / name).write_text(name)
        attributes(tree / name, value)
    os.link(tree / "a.txt", tree / "linked.txt")
    calls.utime(str(tree / "a.txt"), ns=(OLD_NS, OLD_NS))
    calls.utime(str(tree / "leer"), ns=(OLD_NS, OLD_NS))
    yield tree
    for name in ("ro.txt", "hidden.txt"):
        attributes(tree / name, 0x80)


def state(root: Path) -> dict[str, tuple[Any, ...]]:
    """All that there is below a folder: kind, content or link, attributes, time."""
    found: dict[str, tuple[Any, ...]] = {}
    top = "\\\\?\\" + str(root)
    for above, folders, names in os.walk(top):
        for name in (*folders, *names):
            path = f"{above}\\{name}"
            known = calls.stat(path)
            kind, content = "file", b""
            if known.tag:
                kind, content = f"link {known.tag:x}", calls.readlink(path)
            elif name in folders:
                kind = "folder"
            else:
                content = hashlib.sha256(Path(path).read_bytes()).digest()
            found[path[len(top) :]] = (kind, content, attributes(path), known.st_mtime_ns, known.st_nlink)
        folders[:] = [name for name in folders if not calls.stat(f"{above}\\{name}").tag]
    return found


def back_up(home: Home, source: str | Path, *options: str) -> dict[str, Any]:
    found = home.run("backup", str(source), "--library", "lib", "--name", "files", *options)
    assert isinstance(found, dict)
    return found


def test_a_tree_comes_back(home: Home, tree: Path, tmp_path: Path) -> None:
    """Names, contents, attributes, times, links, junctions, long paths; named in another case, it is stored as it is
    spelled; verify and rebuild find all of it."""
    before = state(tree)
    assert back_up(home, str(tree).upper())["warnings"] == 0
    home.run("verify", "latest:files")
    assert home.run("restore", "latest:files", "--to", str(tmp_path / "out"))["warnings"] == 0
    stored = str(tree).replace(":", "")
    assert state(tmp_path / "out" / stored) == before
    (home.folder / "catalog.db").unlink()
    shutil.rmtree(home.folder / "indexes")
    home.run("rebuild", "--library", "lib")
    home.run("restore", "latest:files", "--to", str(tmp_path / "again"))
    assert state(tmp_path / "again" / stored) == before


@pytest.fixture
def linked(tree: Path) -> Path:
    try:
        os.symlink("a.txt", tree / "link.txt")
        os.symlink("leer", tree / "link to leer", target_is_directory=True)
        junction(tree / "leer", tree / "junction")
    except OSError as error:
        pytest.skip(f"this system makes no links: {error}")
    return tree


def test_links_come_back(home: Home, linked: Path, tmp_path: Path) -> None:
    """Symbolic links to files and to directories, and junctions, as what they were; none is followed."""
    before = state(linked)
    back_up(home, linked)
    home.run("restore", "latest:files", "--to", str(tmp_path / "out"))
    assert state(tmp_path / "out" / str(linked).replace(":", "")) == before


def test_to_where_it_was(home: Home, tree: Path) -> None:
    """Lost, and restored above all drives, everything is in its place again."""
    before = state(tree)
    back_up(home, tree)
    attributes(tree / "ro.txt", 0x80)
    (tree / "ro.txt").unlink()
    (tree / "a.txt").unlink()
    (tree / "linked.txt").unlink()
    shutil.rmtree("\\\\?\\" + str(tree / ("d" * 60)))
    home.run("restore", "latest:files", "--to", "\\")
    assert state(tree) == before


def test_one_file_by_its_path(home: Home, tree: Path, tmp_path: Path) -> None:
    r"""What is restored may be named as Windows names it, `C:\\folder\\file`."""
    back_up(home, tree)
    home.run("restore", "latest:files", str(tree / "a.txt"), "--to", str(tmp_path / "out"))
    assert [path.name for path in (tmp_path / "out").rglob("*") if path.is_file()] == ["a.txt"]


def test_a_second_set_holds_what_changed(home: Home, tree: Path, tmp_path: Path) -> None:
    """Incremental sets see changes of content and of attributes alone, and deletions."""
    back_up(home, tree)
    (tree / "grün – 雪.txt").write_text("more snow", encoding="utf-8")
    attributes(tree / "100%.txt", HIDDEN)
    (tree / "archive.txt").unlink()
    stored = str(tree).replace(":", "")
    assert back_up(home, tree, "--type", "incremental")["type"] == "incremental"
    home.run("restore", "latest:files", "--to", str(tmp_path / "out"))
    assert state(tmp_path / "out" / stored) == state(tree)


def test_access_lists_and_creation(home: Home, tmp_path: Path) -> None:
    """The access list and the time of creation are those of the original."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "f").write_text("x")
    stored = file_system.stored_path(os.fsencode(source / "f"))
    calls.setxattr(b"/" + stored, PREFIX + b"created", b"1000000000.123456700")
    calls.setxattr(b"/" + stored, PREFIX + b"sddl", b"D:P(A;;FA;;;WD)")
    back_up(home, source)
    home.run("restore", "latest:files", "--to", str(tmp_path / "out"))
    restored = file_system.stored_path(os.fsencode(tmp_path / "out")) + b"/" + stored
    sddl = calls.getxattr(b"/" + stored, PREFIX + b"sddl")
    (tmp_path / "other").write_text("x")
    assert sddl != calls.getxattr(b"/" + file_system.stored_path(os.fsencode(tmp_path / "other")), PREFIX + b"sddl")
    assert calls.getxattr(b"/" + restored, PREFIX + b"sddl") == sddl
    created = calls.getxattr(b"/" + stored, PREFIX + b"created")
    if created != b"1000000000.123456700":
        pytest.skip("this system keeps no time of creation")
    assert calls.getxattr(b"/" + restored, PREFIX + b"created") == created


def test_what_is_open_elsewhere(home: Home, tmp_path: Path) -> None:
    """A file that another program keeps for itself is told as unreadable, and the backup goes on."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "a").write_text("a")
    (source / "b").write_text("b")
    create = ctypes.windll.kernel32.CreateFileW  # type: ignore[attr-defined]
    create.restype = ctypes.c_void_p
    handle = create(str(source / "a"), 0x8000_0000, 0, None, 3, 0, None)
    try:
        found = back_up(home, source)
    finally:
        ctypes.windll.kernel32.CloseHandle(ctypes.c_void_p(handle))  # type: ignore[attr-defined]
    assert found["files"] == 1
    assert found["warnings"] == 1
    home.run("restore", "latest:files", "--to", str(tmp_path / "out"))
    assert [path.name for path in (tmp_path / "out").rglob("?") if path.is_file()] == ["b"]


def test_what_is_there_in_another_case_stays(home: Home, tmp_path: Path) -> None:
    """It would be overwritten by a name that is not its own: refused, whatever the policy; with rename it goes."""
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    (source / "readme").write_text("from tape")
    back_up(home, source)
    place = out / str(source).replace(":", "")
    place.mkdir(parents=True)
    (place / "README").write_text("mine")
    main(["--home", str(home.folder), "restore", "latest:files", "--to", str(out), "--on-conflict", "overwrite"])
    assert (place / "README").read_text() == "mine"


def test_names_that_windows_cannot_have(tmp_path: Path) -> None:
    """Of a set of another system: such a name is written with %XX, and told; nothing becomes a stream or a device."""
    told: list[tuple[str, bytes]] = []
    target = FilesystemTarget(
        file_system.target_path(tmp_path / "out"), tell=lambda code, path, detail: told.append((code, path))
    )
    names = {
        b"d/a:b": "a%3Ab",
        b"d/con": "%63on",
        b"d/COM1.txt": "%43OM1.txt",
        b"d/end.": "end%2E",
        b"d/\xff": "%FF",
        b"d/100%": "100%",
    }
    for name in names:
        target.whole_file(entry(name, size=4), memoryview(b"data"))
    target.finish()
    target.close()
    assert {path.name for path in (tmp_path / "out" / "d").iterdir()} == set(names.values())
    assert [path for code, path in told if code == "name"] == [name for name in names if name != b"d/100%"]


def test_paths_that_would_lead_out(tmp_path: Path) -> None:
    """`..` and a backslash in a name of a forged tape lead nowhere."""
    (tmp_path / "kept").write_text("mine")
    target = FilesystemTarget(file_system.target_path(tmp_path / "out"), tell=lambda code, path, detail: None)
    with pytest.raises(TargetError):
        target.whole_file(entry(b"../kept", size=4), memoryview(b"evil"))
    target.whole_file(entry(b"..\\kept", size=4), memoryview(b"evil"))
    target.whole_file(entry(b"C:\\kept", size=4), memoryview(b"evil"))
    target.finish()
    target.close()
    assert (tmp_path / "kept").read_text() == "mine"
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"..%5Ckept", "C%3A%5Ckept"}


def test_a_key_file_of_any_bytes(home: Home, tmp_path: Path) -> None:
    """None of them ends the key or is changed: 1Ah and line ends among them."""
    key = b"\x1a\r\n" + bytes(range(256))
    (tmp_path / "key").write_bytes(key)
    home.run("key", "create", "first", "--key-file", str(tmp_path / "key"))
    home.run("key", "create", "second", "--key-file", str(tmp_path / "key"))
    for other in (key[:1], key[:-1], key.replace(b"\r\n", b"\n")):
        (tmp_path / "key").write_bytes(other)
        home.run("key", "create", "third", "--key-file", str(tmp_path / "key"), code=5)


def test_two_processes(home: Home, tree: Path) -> None:
    """Who comes second hears that the library is in use, and by whom."""
    program = "import sys; from capstan.cli.main import main; sys.exit(main(sys.argv[1:]))"
    arguments = ("--home", str(home.folder), "backup", str(tree), "--library", "lib")
    library = VirtualLibrary.open(home.folder / "libraries" / "lib")
    try:
        second = subprocess.run(
            [sys.executable, "-X", "utf8", "-c", program, *arguments],
            stdin=subprocess.PIPE,
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
    finally:
        library.close()
    assert second.returncode == 4, second.stderr
    assert str(os.getpid()) in second.stderr


def test_the_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`capstan demo` loses a copy of a tree and gets it back, in its place on its drive, identical."""
    source = Path(file_system.__file__).parent / "backup"
    assert main(["--home", str(tmp_path / "demo"), "--json", "demo", "--source", str(source)]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["identical"]
