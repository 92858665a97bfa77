"""The container 7z: each segment is an archive that stock 7z opens, and Capstan restores everything from it."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pyrage
import pytest
from harness import SMALL, Home, below, describe, full_disk, make_tree
from test_damage import flip, objects
from test_freedom import headers, segments, shell

from capstan.format.member_names import escape

pytestmark = pytest.mark.slow

KILLER = Path(__file__).parent / "killer.py"
SPOOLED = {**SMALL, "spooled_segment_bytes": 512 << 10}
PACKED = ("--container", "7z")


def odd_tree(root: Path) -> Path:
    """What 7z cannot hold, or not under its name, beside the usual things."""
    make_tree(root, files=90, large=3 << 20)
    os.mkfifo(root / "pipe")
    (root / "CON.txt").write_text("a device's name")
    (root / "Case").write_text("one")
    (root / "case").write_text("another")
    (root / "what?*").write_text("wild")
    (root / "xattr").write_text("more than content")
    os.setxattr(root / "xattr", "user.test", b"\0value\xff")
    with (root / "sparse").open("wb") as file:
        file.write(b"head")
        file.seek(40 << 20)
        file.write(b"tail")
    os.link(root / "large.bin", root / "zz large again")
    return root


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return odd_tree(tmp_path / "source")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.configure(**SPOOLED)
    home.library("96MiB", cartridges=8)
    return home


def check_whole(home: Home, set_id: str, tree: Path, target: Path) -> None:
    """A whole restore is the tree, with what `describe` does not see; no archive is left in the spool."""
    home.run("restore", set_id, "--to", target)
    restored = below(target, tree)
    assert describe(restored) == describe(tree)
    assert os.getxattr(restored / "xattr", "user.test") == b"\0value\xff"
    assert (restored / "sparse").stat().st_blocks < 1000
    assert all(path.stat().st_size < 64 << 10 for path in (home.path / "spool").iterdir())


@pytest.mark.parametrize("codec", ["lzma2:0", "deflate:1", "copy"])
def test_everything_that_tar_does(home: Home, tree: Path, tmp_path: Path, codec: str) -> None:
    """Whole restore, one file, verify of set and cartridge, incremental on top, rebuild: all as with tar."""
    set_id = home.run("backup", tree, "--name", "t", *PACKED, "--codec", codec).json["set_id"]
    check_whole(home, set_id, tree, tmp_path / "all")
    home.run("restore", set_id, tree / "deep/er/file 0001.dat", "--to", tmp_path / "one")
    one = below(tmp_path / "one", tree / "deep/er/file 0001.dat")
    assert one.read_bytes() == (tree / "deep/er/file 0001.dat").read_bytes()
    assert home.run("verify", set_id).json["errors"] == 0
    assert home.run("verify", "CAP001L9").json["errors"] == 0

    (tree / "deep" / "new").write_bytes(b"new" * 1000)
    (tree / "zero").unlink()
    (tree / "text.txt").write_text("changed")
    later = home.run("backup", tree, "--name", "t", "--type", "incremental", *PACKED, "--codec", codec).json
    assert later["type"] == "incremental"
    check_whole(home, later["set_id"], tree, tmp_path / "later")

    for name in ("catalog.db", "catalog.db-wal", "catalog.db-shm"):
        (home.path / name).unlink(missing_ok=True)
    shutil.rmtree(home.path / "indexes")
    home.run("rebuild", "--library", "lib")
    check_whole(home, later["set_id"], tree, tmp_path / "rebuilt")


def test_a_single_file_costs_its_segment(home: Home, tree: Path, tmp_path: Path) -> None:
    """To restore one small file no more is read than one segment; the plan says the same."""
    set_id = home.run("backup", tree, "--name", "t", *PACKED, "--codec", "copy").json["set_id"]
    answer = home.run("restore", set_id, tree / "text.txt", "--to", tmp_path / "out").json
    assert answer["bytes_read_from_tape"] < 700_000
    plan = home.run("restore", set_id, tree / "text.txt", "--to", tmp_path / "out", "--plan").json
    assert plan["bytes_to_read"] == answer["bytes_read_from_tape"]


@pytest.mark.parametrize("codec", ["lzma2", "copy"])
def test_a_chain_of_both_containers(home: Home, tree: Path, tmp_path: Path, codec: str) -> None:
    """A set in one container builds on one in the other."""
    home.run("backup", tree, "--name", "t")
    (tree / "text.txt").write_text("changed")
    home.run("backup", tree, "--name", "t", "--type", "incremental", *PACKED, "--codec", codec)
    (tree / "zero").write_text("no more")
    last = home.run("backup", tree, "--name", "t", "--type", "incremental").json
    check_whole(home, last["set_id"], tree, tmp_path / "all")


@pytest.mark.parametrize(
    ("capacity", "commit_bytes"),
    [("6MiB", 32 << 20), ("7MiB", 32 << 20), ("7MiB", 64 << 10)],
    ids=["at-the-end", "inside", "behind-a-commit-point"],
)
def test_spanning_cartridges(tmp_path: Path, capacity: str, commit_bytes: int) -> None:
    """A file larger than a segment and than a cartridge; a segment in which the early warning comes is written whole on
    the next cartridge, and nothing that counts is left of it on this one."""
    home = Home(tmp_path / "home")
    home.configure(**SMALL, spooled_segment_bytes=1 << 20, commit_bytes=commit_bytes)
    home.library(capacity, cartridges=8)
    tree = odd_tree(tmp_path / "source")
    (tree / "larger").write_bytes(random.Random(5).randbytes(9 << 20))
    result = home.run("backup", tree, "--name", "t", *PACKED, "--codec", "copy").json
    assert len(result["cartridges"]) >= 3
    check_whole(home, result["set_id"], tree, tmp_path / "all")
    assert home.run("verify", result["set_id"]).json["errors"] == 0
    numbers = []
    for barcode in result["cartridges"]:
        dump = home.run("tape", "dump", barcode).json
        last = max(place for place, item in enumerate(dump) if item["kind"] == "index")
        assert last == len(dump) - 1 or commit_bytes < 1 << 20
        numbers += (found := [item["segment"] for item in dump[:last] if item["kind"] == "segment"])
        assert len(found) <= 3, "there the early warning comes, and all that is behind it is for INDEXes"
        home.run("verify", barcode)
    states = {item["barcode"]: item["state"] for item in home.run("tape", "list").json}
    assert {states[barcode] for barcode in result["cartridges"][:-1]} == {"full"}
    assert numbers == list(range(len(numbers)))
    shutil.rmtree(home.path / "indexes")
    (home.path / "catalog.db").unlink()
    home.run("rebuild", "--library", "lib")
    check_whole(home, result["set_id"], tree, tmp_path / "rebuilt")


def test_a_segment_that_no_cartridge_can_hold(tmp_path: Path) -> None:
    """It is said after the first cartridge, and not tried on all others."""
    home = Home(tmp_path / "home")
    home.configure(**SMALL, spooled_segment_bytes=16 << 20)
    home.library("6MiB", cartridges=4)
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "large").write_bytes(random.Random(5).randbytes(9 << 20))
    answer = home.run("backup", tmp_path / "source", "--name", "t", *PACKED, "--codec", "copy", code=5)
    assert answer.json["error"]["code"] == "cartridge-too-small"
    full = [item for item in home.run("tape", "list").json if item["state"] == "full"]
    assert len(full) <= 1


@pytest.mark.parametrize(
    ("moment", "number"), [("written", 1), ("entered", 1), ("written", 3), ("entered", 3), ("entered", 4), ("event", 6)]
)
@pytest.mark.requires("7zz")
def test_killed_and_resumed(home: Home, tree: Path, tmp_path: Path, moment: str, number: int) -> None:
    """A kill at any commit point: the spool is empty, the resumed set is whole, its files in parts are numbered on."""
    config = home.path / "capstan.toml"
    config.write_text(config.read_text().replace("[archive]", f"[archive]\ncommit_bytes = {1 << 20}"))
    done = subprocess.run(
        [sys.executable, str(KILLER), str(home.path), str(tree), "t", moment, str(number), "", "7z"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr[-3000:] or "it ended before the moment came"
    job = home.run("jobs").json[0]
    result = home.run("job", "resume", job["job_id"]).json
    check_whole(home, result["set_id"], tree, tmp_path / "all")
    assert home.run("verify", result["set_id"]).json["errors"] == 0
    out = stock(home, result["set_id"], result["cartridges"], tmp_path)
    parts = sorted((out / tree.relative_to("/")).glob("large.bin.part*"))
    assert [part.suffix for part in parts] == [f".part{number:03}" for number in range(1, len(parts) + 1)]
    assert b"".join(part.read_bytes() for part in parts) == (tree / "large.bin").read_bytes()


def stock(home: Home, set_id: str, cartridges: list[str], folder: Path) -> Path:
    """All segments of the set, unpacked by the stock program, into one folder and each into one of its own."""
    pieces: dict[int, Path] = {}
    for barcode in cartridges:
        home.run("tape", "extract", barcode, "--to", folder / barcode)
        pieces |= segments(folder / barcode, set_id)
    assert sorted(pieces) == list(range(len(pieces)))
    for number, path in sorted(pieces.items()):
        archive = folder / f"{number}.7z"
        archive.write_bytes(path.read_bytes()[4096:])
        shell(f"7zz x -y -o{folder}/stock {archive} && 7zz x -o{folder}/{number} {archive}", folder)
    return folder / "stock"


@pytest.mark.requires("7zz")
@pytest.mark.parametrize("codec", ["lzma2:0", "deflate", "copy"])
def test_stock_7z(home: Home, tree: Path, tmp_path: Path, codec: str) -> None:
    """Every file is there with its content, under its name or the escaped one; what goes over several segments is
    joined by `cat`; and the lines of RESTORE.txt make the tar stream of it, from which tar restores everything."""
    result = home.run("backup", tree, "--name", "t", *PACKED, "--codec", codec).json
    out = stock(home, result["set_id"], result["cartridges"], tmp_path)
    found = {path.relative_to(out) for path in out.rglob("*") if path.is_file()}
    for path in tree.rglob("*"):
        if not path.is_file() or path.is_symlink() or path.name in ("text.txt", "zz large again", "sparse"):
            continue
        names = path.relative_to("/").parts
        name = Path(*(escape(os.fsencode(part)) for part in names))
        if name.name == "case":
            name = name.with_name("case~2")
        if name in found:
            assert (out / name).read_bytes() == path.read_bytes()
            assert (out / name).stat().st_mtime_ns // 100 == path.stat().st_mtime_ns // 100
        else:
            joined = shell(f"cat '{out / name}'.part* > joined && echo joined", tmp_path).strip()
            assert (tmp_path / joined).read_bytes() == path.read_bytes()
    assert (out / tree.relative_to("/") / "sparse.sparse").exists()
    assert (out / tree.relative_to("/") / "%43ON.txt").exists()

    text = min((tmp_path / "CAP001L9").iterdir()).read_bytes()[4096:].decode(errors="replace")
    [script] = re.findall(r"( {4}python3 -c '.*?') 1 2 4\n", text, re.DOTALL)
    numbers = " ".join(str(number) for number in range(len(list(tmp_path.glob("*.7z")))))
    (tmp_path / "all").mkdir()
    shell(
        f"{script} {numbers} | tar -xpf - -C all --delay-directory-restore --xattrs --xattrs-include='*' --acls"
        " --numeric-owner",
        tmp_path,
    )
    restored = tmp_path / "all" / tree.relative_to("/")
    assert describe(restored) == describe(tree)
    assert os.getxattr(restored / "xattr", "user.test") == b"\0value\xff"
    assert (restored / "sparse").stat().st_blocks < 1000


@pytest.mark.requires("7zz")
def test_the_lines_of_the_document(home: Home, tree: Path, tmp_path: Path) -> None:
    """What the document says of a set in 7z works as it stands there; only the names are put in."""
    result = home.run("backup", tree, "--name", "t", *PACKED).json
    home.run("tape", "extract", "CAP001L9", "--to", tmp_path / "DIR")
    text = (Path(__file__).parents[2] / "docs" / "recovery-without-capstan.md").read_text(encoding="utf-8")
    section = text.split("## A set in 7z")[1].split("\n## ")[0]
    unpack, stream = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)
    numbers = " ".join(path.stem for _, path in sorted(segments(tmp_path / "DIR", result["set_id"]).items()))
    large = str((tree / "large.bin").relative_to("/"))
    unpack = unpack.replace("0001 0002", numbers).replace("path/of/NAME", large).replace("7z x", "7zz x")
    shell(unpack, tmp_path)
    assert (tmp_path / "NAME").read_bytes() == (tree / "large.bin").read_bytes()
    shell(stream.replace("0001 0002", numbers).replace("tar -xpf -", "tar -C all -xpf -"), mkdir(tmp_path / "all"))
    assert describe(tmp_path / "all" / tree.relative_to("/")) == describe(tree)


def mkdir(folder: Path) -> Path:
    folder.mkdir()
    return folder.parent


@pytest.mark.requires("7zz")
def test_the_line_in_each_header(home: Home, tree: Path, tmp_path: Path) -> None:
    """Each header says what its tape file is, and its `restore:` line unpacks it."""
    home.run("backup", tree, "--name", "t", *PACKED)
    home.run("tape", "extract", "CAP001L9", "--to", tmp_path / "tape")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "7z").symlink_to(shutil.which("7zz") or "")
    for name, header in headers(tmp_path / "tape"):
        if header["kind"] == "label":
            continue
        assert (header["container"], header["codec"]) == ("7z", "lzma2")
        out = tmp_path / f"out-{name}"
        out.mkdir()
        command = header["restore"].replace("$TAPE", str(tmp_path / "tape" / name))
        shell(f"PATH=$PATH:{tmp_path}/bin; {command}", out)
        assert (out / "manifest.json").exists() or list(out.glob(".capstan/*.headers"))


@pytest.mark.requires("7zz", "age")
def test_a_sealed_set_with_stock_programs(home: Home, tree: Path, tmp_path: Path) -> None:
    """Where a set is sealed, the line in each header opens and unpacks its segment; no name of a file is on the tape;
    and without the key every record and segment is proven, and no file."""
    secret = pyrage.x25519.Identity.generate()
    (tmp_path / "key").write_text(f"{secret}\n")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "7z").symlink_to(shutil.which("7zz") or "")
    seal = ("--recipient", str(secret.to_public()))
    set_id = home.run("backup", tree, "--name", "t", *PACKED, "--codec", "copy", *seal).json["set_id"]
    assert b"large.bin" not in home.cartridge("CAP001L9").read_bytes()
    home.run("tape", "extract", "CAP001L9", "--to", tmp_path / "tape")
    out = tmp_path / "out"
    out.mkdir()
    for path in segments(tmp_path / "tape", set_id).values():
        line = dict(headers(path.parent))[path.name]["restore"].replace("$TAPE", str(path))
        shell(f"PATH=$PATH:{tmp_path}/bin KEY={tmp_path}/key; {line}", out)
    parts = sorted((out / tree.relative_to("/")).glob("large.bin.part*"))
    assert b"".join(part.read_bytes() for part in parts) == (tree / "large.bin").read_bytes()

    answer = home.run("verify", set_id).json
    assert answer["unchecked_files"] > 0
    assert answer["verified_files"] == 0
    segment = [item for item in home.run("tape", "dump", "CAP001L9").json if item["kind"] == "segment"][2]
    offset, size = objects(home.cartridge("CAP001L9"))[segment["block"] + 2]
    flip(home.cartridge("CAP001L9"), offset + size // 2, 0)
    for identity in ((), ("--identity", tmp_path / "key")):
        damage = home.run("verify", set_id, *identity, code=6).json["damage"]
        assert [item["block"] for item in damage] == [segment["block"] + 2]
    lost = home.run("restore", set_id, "--to", tmp_path / "rest", "--identity", tmp_path / "key", code=6).json[
        "problems"
    ]
    assert 0 < len(lost) < 80


@pytest.mark.parametrize("seed", range(4))
def test_a_damaged_record_costs_its_segment(home: Home, tree: Path, tmp_path: Path, seed: int) -> None:
    """Verify and restore name the block and the files of that segment, and restore all others."""
    set_id = home.run("backup", tree, "--name", "t", *PACKED, "--codec", "copy").json["set_id"]
    chance = random.Random(seed)
    dump = [item for item in home.run("tape", "dump", "CAP001L9").json if item["kind"] == "segment"]
    segment = chance.choice(dump)
    block = segment["block"] + 1 + chance.randrange(segment["records"] - 1)
    offset, size = objects(home.cartridge("CAP001L9"))[block]
    flip(home.cartridge("CAP001L9"), offset + 4 + chance.randrange(size - 8), chance.randrange(8))

    answer = home.run("verify", set_id, code=6).json
    assert [("CAP001L9", block)] == [(item["cartridge"], item["block"]) for item in answer["damage"]]
    cartridge = home.run("verify", "CAP001L9", code=6).json
    assert ("CAP001L9", block) in [(item["cartridge"], item["block"]) for item in cartridge["damage"]]
    restore = home.run("restore", set_id, "--to", tmp_path / "out", code=6).json
    lost = {item["path"] for item in restore["problems"]}
    links = {f"{tree}/{name}" for name in ("text.txt", "zz large again")}  # they are lost with their first names
    assert lost - links == {item["path"] for item in answer["problems"]} - links
    original = {path: item for path, item in describe(tree).items() if item[0] & 0o170000 != 0o040000}
    restored = describe(below(tmp_path / "out", tree))
    named = {f"{tree}/{path.decode('utf-8', 'backslashreplace')}" for path in original.keys() - restored.keys()}
    folders = {str(path) for path in (tree, *tree.parents, *tree.rglob("*")) if path.is_dir() and not path.is_symlink()}
    assert named == lost - folders
    assert 0 < len(named) < len(original) * 2 / 3


def test_what_cannot_be_asked_for(home: Home, tree: Path) -> None:
    """What another container cannot do, or a codec of another one, is refused before anything is made."""
    for arguments in (
        ("--container", "rar"),
        (*PACKED, "--codec", "zstd:3"),
        ("--codec", "lzma2"),
        ("--container", ""),
    ):
        answer = home.run("backup", tree, "--name", "t", *arguments, code=2)
        assert answer.json["error"]["code"] == "invalid-value"
    assert home.run("jobs").json == []


@pytest.mark.requires("root")
def test_a_spool_that_is_too_small(home: Home, tree: Path, tmp_path: Path) -> None:
    """A disk that has no room for a segment, packed and unpacked, is told of before a cartridge is fetched; with less
    than is wanted but enough, segments are smaller; to read one needs room for that one."""
    config = home.path / "capstan.toml"
    small = config.read_text()
    config.write_text(small.replace(str(512 << 10), str(64 << 20)))
    with full_disk(home.path / "spool", "8m"):
        answer = home.run("backup", tree, "--name", "t", *PACKED, code=8)
        assert "spooled_segment_bytes" in answer.json["error"]["hint"]
        assert "get-cartridge" not in answer.phases()
    config.write_text(small.replace(str(512 << 10), str(8 << 20)))
    with full_disk(home.path / "spool", "8m"):
        result = home.run("backup", tree, "--name", "t", *PACKED, "--codec", "copy").json
        check_whole(home, result["set_id"], tree, tmp_path / "all")
    with full_disk(home.path / "spool", "1m"):
        answer = home.run("restore", result["set_id"], "--to", tmp_path / "no", code=8)
        assert "unpacked" in answer.json["error"]["message"]
