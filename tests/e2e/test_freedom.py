"""A tape is restored without Capstan: with dd's files, tail, tar and the codec's own program alone."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from harness import SMALL, Home, describe, make_tree

pytestmark = pytest.mark.slow

DECODE = {"zstd": "zstd -dc", "lz4": "lz4 -dc", "gzip": "gzip -dc", "none": "cat"}


def shell(command: str, cwd: Path) -> str:
    """Run one line as an operator would; its failure fails the test."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stderr}"
    return done.stdout


def headers(folder: Path) -> list[tuple[str, dict[str, str]]]:
    """File name and header of each extracted tape file, read as text."""
    found = []
    for path in sorted(folder.iterdir()):
        text = path.read_bytes()[:4096].decode()
        found.append((path.name, dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)))
    return found


def segments(folder: Path, set_id: str) -> dict[int, Path]:
    """The set's segments on one cartridge that lie before its last INDEX there, by number."""
    found = headers(folder)
    last = max(i for i, (_, header) in enumerate(found) if header["kind"] == "index" and header["set"] == set_id)
    return {
        int(header["segment"]): folder / name
        for name, header in found[:last]
        if header["kind"] == "segment" and header["set"] == set_id
    }


@pytest.mark.requires("zstd")
@pytest.mark.requires("lz4")
@pytest.mark.parametrize("codec", ["zstd", "lz4", "gzip", "none"])
def test_a_set_with_stock_programs(home: Home, tree: Path, tmp_path: Path, codec: str) -> None:
    """The whole set, and one single file, on a cartridge that holds another set too."""
    home.configure(**SMALL)
    home.library()
    home.run("backup", make_tree(tmp_path / "other", seed=9), "--name", "other")
    set_id = home.run("backup", tree, "--name", "t", "--codec", codec).json["set_id"]
    home.run("tape", "extract", "CAP001L9", "--to", tmp_path / "tape")
    pieces = " ".join(str(path) for _, path in sorted(segments(tmp_path / "tape", set_id).items()))
    stream = f"for f in {pieces}; do tail -c +4097 $f; done | {DECODE[codec]}"
    (tmp_path / "all").mkdir()
    shell(
        f"{stream} | tar -xpf - --delay-directory-restore --xattrs --xattrs-include='*' --acls --numeric-owner",
        tmp_path / "all",
    )
    assert describe(tmp_path / "all" / tree.relative_to("/")) == describe(tree)
    (tmp_path / "one").mkdir()
    wanted = str((tree / "deep" / "file 0003.dat").relative_to("/"))
    shell(f"{stream} | tar -xpf - '{wanted}'", tmp_path / "one")
    assert (tmp_path / "one" / wanted).read_bytes() == (Path("/") / wanted).read_bytes()


@pytest.mark.requires("zstd")
def test_a_spanning_set_with_stock_programs(home: Home, tmp_path: Path) -> None:
    """The segments of all cartridges, one after the other in the order of their numbers, are one archive."""
    home.configure(**SMALL)
    home.library("8MiB")
    tree = make_tree(tmp_path / "source", large=12 << 20)
    result = home.run("backup", tree, "--name", "t").json
    assert len(result["cartridges"]) >= 3
    pieces: dict[int, Path] = {}
    for barcode in result["cartridges"]:
        home.run("tape", "extract", barcode, "--to", tmp_path / barcode)
        pieces |= segments(tmp_path / barcode, result["set_id"])
    assert sorted(pieces) == list(range(len(pieces)))
    names = " ".join(str(pieces[number]) for number in sorted(pieces))
    (tmp_path / "all").mkdir()
    shell(
        f"for f in {names}; do tail -c +4097 $f; done | zstd -dc | tar -xpf - --delay-directory-restore",
        tmp_path / "all",
    )
    assert describe(tmp_path / "all" / tree.relative_to("/")) == describe(tree)


@pytest.mark.requires("zstd")
def test_each_tape_file_says_how_to_read_it(home: Home, tree: Path, tmp_path: Path) -> None:
    """The `restore:` line of every header works on that file, and the label yields RESTORE.txt, zh and en."""
    home.configure(**SMALL)
    home.library()
    home.run("backup", tree, "--name", "t")
    home.run("tape", "extract", "CAP001L9", "--to", tmp_path / "tape")
    for name, header in headers(tmp_path / "tape"):
        out = tmp_path / f"out-{name}"
        out.mkdir()
        if header["kind"] == "segment" and header["segment"] != "0":
            continue  # it may begin inside a file: only with those before it
        command = header["restore"].replace("$TAPE", str(tmp_path / "tape" / name))
        subprocess.run(["bash", "-c", command], cwd=out, check=header["kind"] != "segment", capture_output=True)
        names = {path.name for path in out.rglob("*")}
        if header["kind"] == "label":
            text = (out / "RESTORE.txt").read_text()
            assert "CAP001L9" in text
            assert re.search("[\u4e00-\u9fff]", text)
        elif header["kind"] == "index":
            assert {"manifest.json", "files.parquet", "frames.parquet", "records.crc32c"} <= names
        else:
            assert "source" in names


def test_headers_hold_no_source_names(home: Home, tree: Path, tmp_path: Path) -> None:
    """What stands in clear at the head of each tape file never names a file."""
    home.library()
    home.run("backup", tree, "--name", "t")
    home.run("tape", "extract", "CAP001L9", "--to", tmp_path / "tape")
    for path in (tmp_path / "tape").iterdir():
        head = path.read_bytes()[:4096]
        assert b"source" not in head
        assert b"file 00" not in head


@pytest.mark.requires("zstd")
@pytest.mark.parametrize("document", ["recovery-without-capstan.md", "recovery-without-capstan.zh-CN.md"])
def test_the_commands_of_the_document(home: Home, tree: Path, tmp_path: Path, document: str) -> None:
    """The shell lines for extracted files stand in the document as they are run here; only the names are put in."""
    home.configure(**SMALL)
    home.library()
    set_id = home.run("backup", tree, "--name", "t").json["set_id"]
    home.run("tape", "extract", "CAP001L9", "--to", tmp_path / "tape")
    text = (Path(__file__).parents[2] / "docs" / document).read_text(encoding="utf-8")
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    [block] = [block for block in blocks if "DIR/0001.segment" in block and "age -d" not in block]
    names = " ".join(str(path) for _, path in sorted(segments(tmp_path / "tape", set_id).items()))
    block = block.replace("DIR/0001.segment DIR/0002.segment", names).replace("DIR/", f"{tmp_path}/tape/")
    (tmp_path / "all").mkdir()
    listing = shell(block, tmp_path / "all")
    assert f"set: {set_id}" in listing
    assert describe(tmp_path / "all" / tree.relative_to("/")) == describe(tree)
