"""The tape format stays as it is: tapes that were written once are read by an independent reader and by Capstan of
today, and what Capstan writes today is read by the same reader."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import lzma
import os
import random
import re
import shutil
import subprocess
import tarfile
from functools import cache
from pathlib import Path
from typing import Any

import pyrage
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from harness import Home
from make import KEYS, KINDS, TAPES, make
from pyarrow.parquet import read_schema
from reader import SPARSE, opened, read_cartridge, read_sets, tape_files
from trees import describe_tree

pytestmark = [pytest.mark.slow, pytest.mark.requires("root", "age", "zstd", "lz4", "7zz", "setfacl")]

NAMES = sorted(KINDS)
DOCUMENT = Path(__file__).parents[2] / "docs/design/tape-format.md"
Records = list[bytes | None]


def records_of(image: bytes) -> Records:
    """Those of a SIMH image: each between two words of its length, padded to an even one; a length of 0 is a filemark.
    The highest byte of a word is a mark, here of what the drive has encrypted."""
    found: Records = []
    at = 0
    while at < len(image) and image[at : at + 4] != b"\xff" * 4:
        length = int.from_bytes(image[at : at + 3], "little")
        found.append(image[at + 4 : at + 4 + length] if length else None)
        at += 8 + length + length % 2 if length else 4
    return found


def decrypted(record: bytes | None, key: bytes) -> bytes | None:
    """What a drive with the key would read (the record's layout: `scsi.virtual.encryption`)."""
    if record is None or record[:4] != b"CER1":
        return record
    behind = 28 + record[4]
    return AESGCM(key).decrypt(record[8:20], record[behind + record[5] :], record[:behind])


@cache
def drive_key() -> bytes:
    """The key of the drive, as its export has it."""
    exported = pyrage.passphrase.decrypt((KEYS / "drive.age").read_bytes(), "golden").decode()
    [line] = [line for line in exported.splitlines() if line.startswith("# drive-key: ")]
    return bytes.fromhex(line.split()[-1])


def images(name: str) -> dict[str, bytes]:
    return {path.name[:-7]: lzma.decompress(path.read_bytes()) for path in sorted((TAPES / name).glob("*.tap.xz"))}


def expected(name: str) -> Any:
    return json.loads((TAPES / name / "expected.json").read_text())


def as_expected(sets: dict[str, dict[bytes, Any]], wanted: dict[str, dict[str, Any]]) -> None:
    """The reader has found, in each set, all that was there, just as it was."""
    assert sets.keys() >= wanted.keys()
    for set_id, paths in wanted.items():
        state = {os.fsdecode(path): row for path, row in sets[set_id].items() if path.startswith(b"srv/golden")}
        assert state.keys() == paths.keys()
        for path, facts in paths.items():
            row = state[path]
            if facts.get("unreadable"):
                assert row["flags"] & 8 and row["type"] == facts["type"]
                continue
            assert not row["flags"] & ~SPARSE, path
            assert row["type"] in (facts["type"], "hardlink" if facts["type"] == "file" else ""), path
            assert (row["mode"], row["uid"], row["gid"], row["mtime_ns"]) == (
                *(facts[key] for key in ("mode", "uid", "gid", "mtime_ns")),
            ), path
            if facts["type"] == "file":
                content = unfolded(row["data"], row["size"]) if row["flags"] & SPARSE else row["data"]
                assert (len(content), hashlib.sha256(content).hexdigest()) == (facts["size"], facts["sha256"]), path
            if facts["type"] == "symlink":
                assert os.fsdecode(row["target"]) == facts["target"]


def unfolded(stored: bytes, size: int) -> bytes:
    """A sparse file from its map and data (3.6)."""
    numbers, at = [], 0
    while not numbers or len(numbers) < 1 + 2 * numbers[0]:
        end = stored.index(b"\n", at)
        numbers.append(int(stored[at:end]))
        at = end + 1
    at += -at % 512
    content = bytearray(size)
    for offset, length in zip(numbers[1::2], numbers[2::2], strict=True):
        content[offset : offset + length] = stored[at : at + length]
        at += length
    return bytes(content)


def keys_of(name: str, folder: Path) -> list[Path]:
    """Files with the identities that open a kind of tapes, as only their owner may read them."""
    found = []
    for key in KINDS[name][1]:
        if key != "drive.age":
            found.append(folder / key)
            shutil.copyfile(KEYS / key, folder / key)
            (folder / key).chmod(0o600)
    return found


def read_by_reader(name: str, tapes: dict[str, bytes], folder: Path) -> dict[str, dict[bytes, Any]]:
    records = [records_of(image) for image in tapes.values()]
    if name == "drive":
        records = [[decrypted(record, drive_key()) for record in tape] for tape in records]
    found: dict[str, dict[bytes, Any]] = read_sets(records, keys_of(name, folder))
    return found


def test_every_kind_has_its_tapes() -> None:
    """And nothing else lies there."""
    assert sorted(path.name for path in TAPES.iterdir()) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_reader_reads_what_was_written_once(name: str, tmp_path: Path) -> None:
    as_expected(read_by_reader(name, images(name), tmp_path), expected(name)["sets"])


@pytest.mark.parametrize("name", NAMES)
def test_capstan_reads_what_was_written_once(name: str, tmp_path: Path) -> None:
    """A home that knows nothing: rebuild, verify and restore, everything as it was."""
    home = Home(tmp_path / "home")
    home.library(cartridges=12, drives=2)
    for barcode, image in images(name).items():
        home.cartridge(barcode).write_bytes(image)
    (tmp_path / "phrase").write_text("golden")
    opening = [option for path in keys_of(name, tmp_path) for option in ("--identity", path)]
    if name == "drive":
        opening = ["--identity", KEYS / "drive.age", "--identity-passphrase-file", tmp_path / "phrase"]
    home.run("rebuild", "--library", "lib", *opening)
    for set_id, paths in expected(name)["sets"].items():
        lossy = [path for path, facts in paths.items() if facts.get("unreadable")]
        home.run("verify", set_id, *opening)
        home.run("restore", set_id, "--to", tmp_path / set_id, *opening)
        found = describe_tree(tmp_path / set_id / "srv/golden", "srv/golden")
        assert found == {path: facts for path, facts in paths.items() if path not in lossy}


@pytest.mark.parametrize("name", ["tar-zstd", "7z-deflate", "age-x25519", "interrupted", "chain", "copies"])
def test_the_reader_reads_what_is_written_today(name: str, tmp_path: Path) -> None:
    """The same recipe, by Capstan of today."""
    kind = make(name, tmp_path)
    kind.keep("fresh", [], tmp_path)
    tapes = {path.name[:-7]: lzma.decompress(path.read_bytes()) for path in sorted((tmp_path / "fresh").glob("*.xz"))}
    as_expected(read_by_reader(name, tapes, tmp_path), kind.sets)


@pytest.mark.parametrize("name", ["tar-none", "7z-copy", "age-ssh", "chain"])
def test_the_reader_hears_every_change(name: str, tmp_path: Path) -> None:
    """One bit of any record: it never reads on as if nothing was."""
    chance = random.Random(name)
    for barcode, image in images(name).items():
        records = records_of(image)
        places = [place for place, record in enumerate(records) if record is not None]
        for place in chance.sample(places, min(6, len(places))):
            changed = bytearray(records[place] or b"")
            changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
            others = [records_of(other) for code, other in images(name).items() if code != barcode]
            tape = [*records[:place], bytes(changed), *records[place + 1 :]]
            with pytest.raises((AssertionError, ValueError, KeyError, IndexError, subprocess.CalledProcessError)):
                read_sets([tape, *others], keys_of(name, tmp_path))


def documented(section: str, end: str) -> str:
    text = DOCUMENT.read_text()
    return text[text.index(section) : text.index(end)]


def names_in(text: str) -> set[str]:
    """All words between backquotes, also of lists within them."""
    return {word for quoted in re.findall(r"`([^`]+)`", text) for word in re.split(r"[,\s]+", quoted)}


@pytest.mark.parametrize("name", NAMES)
def test_all_that_is_on_tape_is_in_the_document(name: str, tmp_path: Path) -> None:
    """Keys of header records, members of INDEXes and labels, and columns of tables."""
    header_keys = names_in(documented("## 2. The header record", "## 3. A set's stream")) | {"capstan-tape"}
    manifest = names_in(documented("### 4.1 manifest.json", "### 4.2 Tables"))
    tables = names_in(documented("### 4.2 Tables", "### 4.3 Sets"))
    label_names = names_in(documented("## 5. LABEL", "## 6. Writing"))
    members = names_in(documented("## 4. INDEX", "### 4.1 manifest.json"))
    for image in images(name).values():
        records = records_of(image)
        if name == "drive":
            records = [decrypted(record, drive_key()) for record in records]
        for file in tape_files(records):
            assert file.header.keys() - {"header-sha256"} <= header_keys, file.header.keys() - header_keys
            if file.kind == "label":
                archive = tarfile.open(fileobj=io.BytesIO(file.payload))  # noqa: SIM115
                assert archive.getnames() == ["label.json", "RESTORE.txt"]
                label = json.loads(archive.extractfile("label.json").read())  # type: ignore[union-attr]
                assert label.keys() | label["policy"].keys() <= label_names
        for index in read_cartridge(records, keys_of(name, tmp_path))[2]:
            assert index.tables.keys() <= members
            found = json.loads(index.tables["manifest.json"])
            inner = [found["set"], found["cartridge"], *found["segments"], *found["commits"], *found["set"]["mounts"]]
            assert set(found).union(*inner) <= manifest, set(found).union(*inner) - manifest
            for table in ("files.parquet", "frames.parquet"):
                columns = set(read_schema(io.BytesIO(index.tables[table])).names)
                assert columns <= tables, columns - tables


def test_the_reader_has_a_hundred_lines() -> None:
    """Of code; imports, documentation and blank lines are not counted. It knows nothing of Capstan."""
    source = Path(__file__).with_name("reader.py").read_text()
    skipped: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            assert "capstan" not in ast.unparse(node)
            skipped.add(node.lineno)
        elif isinstance(node, ast.FunctionDef | ast.Module) and ast.get_docstring(node):
            skipped |= set(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    code = [n for n, line in enumerate(source.splitlines(), 1) if line.strip() and n not in skipped]
    assert len(code) <= 100
    assert opened.__module__ == "reader"
