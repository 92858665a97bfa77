"""Copies of sets: made, found again, and read where another cannot be."""

from __future__ import annotations

import asyncio
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pyrage
import pytest
from harness import SMALL, Home, below, describe, make_tree

from capstan.bootstrap import open_home
from capstan.core.files import display_path
from capstan.core.job import Event, JobKind
from capstan.errors import JobCancelled

pytestmark = pytest.mark.slow

ORIGINAL = "CAP001L9"


def two_pools(home: Home, capacity: str = "64MiB", **options: str | int) -> None:
    """A library, and a pool `vault` for the copies."""
    home.library(capacity, **options)
    home.run("pool", "create", "vault")


@pytest.fixture
def written(home: Home, tmp_path: Path) -> tuple[Home, Path, str]:
    """A set of several segments and commit points on one cartridge."""
    home.configure(**SMALL, commit_bytes=3 << 20)
    two_pools(home, cartridges=6)
    tree = make_tree(tmp_path / "source", files=150, large=6 << 20)
    return home, tree, home.run("backup", tree, "--name", "t", "--codec", "none").json["set_id"]


def copies(home: Home, set_id: str) -> list[dict[str, Any]]:
    return [copy for copy in home.run("set", "show", set_id).json["copies"] if copy["copy"]]


def barcodes(copy: dict[str, Any]) -> list[str]:
    return [item["barcode"] for item in copy["cartridges"]]


def segments_on(home: Home, barcode: str) -> list[dict[str, Any]]:
    return [item for item in home.run("tape", "dump", barcode).json if item["kind"] == "segment"]


def objects(image: Path) -> list[tuple[int, int]]:
    """Offset and whole length, framing included, of every record and filemark of a SIMH image."""
    data = image.read_bytes()
    found, at = [], 0
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "little")
        size = 8 + length + length % 2 if length else 4
        found.append((at, size))
        at += size
    return found


def destroy(home: Home, barcode: str, block: int, records: int) -> None:
    """Change the content of some records, from the one at `block` on."""
    image = home.cartridge(barcode)
    places = objects(image)
    with image.open("rb+") as file:
        for offset, size in places[block : block + records]:
            file.seek(offset + 4)
            data = bytearray(file.read(min(size - 8, 64)))
            file.seek(offset + 4)
            file.write(bytes(byte ^ 0x5A for byte in data))


def restored(home: Home, set_id: str, tree: Path, to: Path, **how: int) -> dict[str, Any]:
    """Restore a set, and compare it with its tree."""
    answer = home.run("restore", set_id, "--to", to, **how).json
    assert describe(below(to, tree)) == describe(tree)
    return answer


def test_a_copy_is_the_same_bytes_elsewhere(written: tuple[Home, Path, str], tmp_path: Path) -> None:
    """The copy is whole, on cartridges of its pool, and its payloads are those of the original, which stays as it was.
    Copying again copies nothing. With the original gone the copy restores, verifies, and keeps the set whole."""
    home, tree, set_id = written
    before = home.cartridge(ORIGINAL).read_bytes()
    made = home.run("copy", set_id, "--pool", "vault").json
    assert (made["copy"], made["whole"], made["set_id"]) == (1, True, set_id)
    assert home.cartridge(ORIGINAL).read_bytes() == before
    (barcode,) = barcodes(made)
    assert barcode != ORIGINAL and made["segments_copied"] == len(segments_on(home, ORIGINAL)) > 5
    for name in (ORIGINAL, barcode):
        home.run("tape", "extract", name, "--to", tmp_path / name)

    def payloads(name: str) -> list[bytes]:
        return [path.read_bytes()[4096:] for path in sorted((tmp_path / name).glob("*.segment"))]

    assert payloads(barcode) == payloads(ORIGINAL)
    assert home.run("copy", set_id, "--pool", "vault").json["segments_copied"] == 0
    assert home.run("verify", barcode).json["verified_files"] == home.run("verify", set_id).json["verified_files"]
    assert home.run("tape", "erase", ORIGINAL, "--yes").json["partial_sets"] == []
    (found,) = home.run("sets").json
    assert (found["state"], found["missing"]) == ("complete", [])
    answer = restored(home, set_id, tree, tmp_path / "out")
    assert [item["cartridge"] for item in answer["copies_used"]] == [barcode]
    assert answer["files_by_cartridge"] == {barcode: answer["files"]} and answer["files_from_copies"] == answer["files"]
    home.run("verify", set_id)


class Unharmed:
    """A home as it is now: cartridges, catalog and file indexes, to come back to."""

    def __init__(self, home: Home, aside: Path) -> None:
        self._home, self._aside = home, aside
        shutil.copytree(home.path, aside)

    def back(self) -> None:
        shutil.rmtree(self._home.path)
        shutil.copytree(self._aside, self._home.path)


def members_of(home: Home, set_id: str, segment: int) -> set[str]:
    """The paths of all that has a byte in a segment, by the tables of the set, and of further names of that."""
    with closing(sqlite3.connect(home.path / "catalog.db")) as catalog:
        query = "SELECT tar_offset, tar_bytes FROM segments WHERE set_id = ? AND number = ?"
        ((begin, length),) = set(catalog.execute(query, (set_id, segment)))
    tables = (home.path / "indexes" / set_id).glob("*.files.parquet")
    rows = [row for path in tables for row in pq.read_table(path).to_pylist()]
    names = [f"{row['directory']}/{row['name']}".lstrip("/") for row in rows]
    inside = [begin < row["tar_offset"] + row["tar_bytes"] and row["tar_offset"] < begin + length for row in rows]
    found = {name for name, is_inside in zip(names, inside, strict=True) if is_inside}
    links = {name for name, row in zip(names, rows, strict=True) if (row["target"] or b"").decode() in found}
    return {"/" + name for name in found | links}


def test_any_segment_may_be_destroyed_where_there_is_a_copy(written: tuple[Home, Path, str], tmp_path: Path) -> None:
    """Without a copy exactly the files of the segment are named, and all others restore. With one everything does, in
    one restore, which says what it read from where; the bad cartridge is suspect, and the next restore begins with the
    copy."""
    home, tree, set_id = written
    alone = Unharmed(home, tmp_path / "alone")
    (vault,) = barcodes(home.run("copy", set_id, "--pool", "vault").json)
    both = Unharmed(home, tmp_path / "both")
    segments = segments_on(home, ORIGINAL)
    named: set[str] = set()
    for item in segments:
        for unharmed in (alone, both):
            unharmed.back()
            destroy(home, ORIGINAL, item["block"], item["records"])
            out = tmp_path / f"out-{item['segment']}-{unharmed is both}"
            if unharmed is alone:
                answer = home.run("restore", set_id, "--to", out, code=6).json
                lost = {problem["path"] for problem in answer["problems"]}
                assert lost == members_of(home, set_id, item["segment"])
                whole, there = describe(tree), describe(below(out, tree))
                kept = [path for path in whole if f"{tree}/{display_path(path)}" not in lost]
                assert [path for path in kept if whole[path][4] != there[path][4]] == []
                named |= lost
                continue
            answer = restored(home, set_id, tree, out)
            (used,) = answer["copies_used"]
            assert used["cartridge"] == vault and item["segment"] in used["segments"]
            assert min(used["segments"]) == item["segment"] and answer["damage"] == []
            others = {entry["path"] for entry in answer["from_copies"]}
            assert others and len(others) == answer["files_from_copies"] <= answer["files_by_cartridge"][vault]
            there = {path for path in members_of(home, set_id, item["segment"]) if not Path(path).is_dir()}
            assert there <= others
            cartridge = home.run("tape", "show", ORIGINAL).json
            assert cartridge["state"] == "suspect" and f"block {item['block']}" in cartridge["reason"]
            shutil.rmtree(out)
            (used,) = restored(home, set_id, tree, out)["copies_used"]
            assert used["segments"] == [segment["segment"] for segment in segments]
        shutil.rmtree(tmp_path / f"out-{item['segment']}-{True}")
    assert named >= {f"{tree}", *(f"{tree}/{display_path(path)}" for path in describe(tree))}


def test_damage_in_both_copies(written: tuple[Home, Path, str], tmp_path: Path) -> None:
    """In different segments: all restores. In the same one: what neither has is lost and named, and nothing else."""
    home, tree, set_id = written
    (vault,) = barcodes(home.run("copy", set_id, "--pool", "vault").json)
    here, there = segments_on(home, ORIGINAL), segments_on(home, vault)
    destroy(home, ORIGINAL, here[1]["block"], here[1]["records"])
    destroy(home, vault, there[3]["block"], there[3]["records"])
    both = Unharmed(home, tmp_path / "both")
    answer = restored(home, set_id, tree, tmp_path / "one")
    assert [item["state"] for item in home.run("tape", "list").json if item["barcode"] in (ORIGINAL, vault)] == [
        "suspect"
    ] * 2
    assert answer["damage"] == [] and answer["warning_codes"]["other-copy"] >= 2
    both.back()
    destroy(home, ORIGINAL, here[3]["block"], here[3]["records"])
    answer = home.run("restore", set_id, "--to", tmp_path / "two", code=6).json
    assert {problem["path"] for problem in answer["problems"]} == members_of(home, set_id, 3)


def lose_catalog(home: Home) -> None:
    """What is left are the tapes."""
    for path in home.path.glob("catalog.db*"):
        path.unlink()
    shutil.rmtree(home.path / "indexes")


@pytest.mark.parametrize("drives", [1, 2])
def test_small_cartridges(home: Home, tmp_path: Path, drives: int) -> None:
    """A copy spans cartridges that hold a few segments each, in another library, with one drive there or two in all; no
    segment is divided. It restores, verifies, and is found again from its cartridges alone."""
    home.configure(**SMALL, commit_bytes=5 << 20)
    two_pools(home, "64MiB", cartridges=1, drives=drives)
    home.library("6MiB", name="small", cartridges=8, drives=drives, barcode_prefix="SML")
    tree = make_tree(tmp_path / "source", files=100, large=7 << 20)
    set_id = home.run("backup", tree, "--name", "t", "--library", "lib").json["set_id"]
    made = home.run("copy", set_id, "--pool", "vault", "--library", "small").json
    assert made["whole"] and len(barcodes(made)) > 2 and all(name.startswith("SML") for name in barcodes(made))
    for barcode in barcodes(made):
        assert home.run("verify", barcode).json["damage"] == []
    assert home.run("tape", "erase", ORIGINAL, "--yes").json["partial_sets"] == []
    restored(home, set_id, tree, tmp_path / "out")
    lose_catalog(home)
    assert home.run("rebuild", "--library", "small").json["complete"] == 1
    (found,) = home.run("sets").json
    assert (found["state"], found["cartridges"]) == ("complete", barcodes(made))
    assert [copy["whole"] for copy in found["copies"]] == [True]
    restored(home, set_id, tree, tmp_path / "again")
    home.run("tape", "erase", barcodes(made)[1], "--yes")
    (found,) = home.run("sets").json
    assert (found["state"], found["missing"]) == ("partial", [barcodes(made)[1]])


def test_one_drive_goes_through_the_spool(home: Home, tmp_path: Path) -> None:
    """With one drive in all a copy is made too, and nothing is left in the spool."""
    home.configure(**SMALL, commit_bytes=3 << 20)
    two_pools(home, cartridges=3, drives=1)
    tree = make_tree(tmp_path / "source", files=40, large=5 << 20)
    set_id = home.run("backup", tree, "--name", "t").json["set_id"]
    made = home.run("copy", set_id, "--pool", "vault").json
    assert made["whole"] and not list((home.path / "spool").iterdir())
    home.run("tape", "erase", ORIGINAL, "--yes")
    restored(home, set_id, tree, tmp_path / "out")


def test_no_cartridge_is_large_enough(home: Home, tmp_path: Path) -> None:
    """Cartridges on which not one segment finds room end the copy with an error that says so; the set is as before."""
    home.configure(**SMALL | {"segment_bytes": 4 << 20})
    two_pools(home, cartridges=1)
    home.library("4MiB", name="small", cartridges=3, barcode_prefix="SML")
    tree = make_tree(tmp_path / "source", files=10, large=9 << 20)
    set_id = home.run("backup", tree, "--name", "t", "--library", "lib").json["set_id"]
    answer = home.run("copy", set_id, "--pool", "vault", "--library", "small", code=5)
    assert answer.json["error"]["code"] == "cartridge-too-small"
    assert home.run("sets").json[0]["state"] == "complete" and copies(home, set_id) == []


@pytest.mark.parametrize("number", [1, 2, 3, 5])
def test_cancelled_and_gone_on_with(written: tuple[Home, Path, str], tmp_path: Path, number: int) -> None:
    """A copy that is cancelled keeps what it had committed; the next one copies the rest, and no more."""
    home, tree, set_id = written

    async def cancelled() -> None:
        seen = 0

        def hear(event: Event) -> None:
            nonlocal seen
            seen += event.kind in ("job.committed", "cartridge.loaded", "job.progress")
            if seen == number:
                capstan.jobs.cancel_all()

        async with open_home(home.path, listener=hear) as capstan:
            await capstan.jobs.run(
                JobKind.COPY, lambda job: capstan.copying.run(set_id, job, library="lib", pool="vault")
            )

    with pytest.raises(JobCancelled):
        asyncio.run(cancelled())
    before = sum(len(segments_on(home, name)) for copy in copies(home, set_id) for name in barcodes(copy))
    rest = home.run("copy", set_id, "--pool", "vault").json
    assert rest["whole"] and rest["segments_copied"] == len(segments_on(home, ORIGINAL)) - before
    home.run("tape", "erase", ORIGINAL, "--yes")
    restored(home, set_id, tree, tmp_path / "out")
    lose_catalog(home)
    assert home.run("rebuild", "--library", "lib").json["complete"] == 1
    restored(home, set_id, tree, tmp_path / "again")


KILLER = Path(__file__).parent / "copy_killer.py"


@pytest.mark.parametrize(
    ("moment", "number"), [("written", 1), ("written", 2), ("entered", 1), ("event", 4), ("event", 7)]
)
def test_killed_and_gone_on_with(written: tuple[Home, Path, str], tmp_path: Path, moment: str, number: int) -> None:
    """kill -9: a commit point that was on the medium counts, also where the catalog was not told; the set is whole all
    the time, and the next run copies what is lacking."""
    home, tree, set_id = written
    done = subprocess.run(
        [sys.executable, str(KILLER), str(home.path), set_id, moment, str(number)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr[-3000:]
    assert home.run("sets").json[0]["state"] == "complete"
    rest = home.run("copy", set_id, "--pool", "vault").json
    assert rest["whole"]
    if moment != "event":
        assert rest["segments_copied"] < len(segments_on(home, ORIGINAL))
    (barcode,) = barcodes(rest)
    assert home.run("verify", barcode).json["damage"] == []
    home.run("tape", "erase", ORIGINAL, "--yes")
    restored(home, set_id, tree, tmp_path / "out")
    home.run("backup", tree, "--name", "t", "--pool", "vault")


def test_a_chain_of_different_copies(written: tuple[Home, Path, str], tmp_path: Path) -> None:
    """The full set comes from its copy, the incremental one from its original, and the other way round."""
    home, tree, full = written
    (vault,) = barcodes(home.run("copy", full, "--pool", "vault").json)
    home.run("pool", "create", "other")
    home.run("pool", "create", "deep")
    (tree / "deep" / "file 0000.dat").write_bytes(b"changed")
    (tree / "zero").unlink()
    child = home.run("backup", tree, "--name", "t", "--type", "incremental", "--pool", "other").json
    assert child["type"] == "incremental"
    (deep,) = barcodes(home.run("copy", child["set_id"], "--pool", "deep").json)
    unharmed = Unharmed(home, tmp_path / "unharmed")
    for lost, used in (((ORIGINAL, deep), [(full, vault)]), ((*child["cartridges"], vault), [(child["set_id"], deep)])):
        unharmed.back()
        for barcode in lost:
            home.run("tape", "erase", barcode, "--yes")
        answer = restored(home, child["set_id"], tree, tmp_path / f"out-{used[0][1]}")
        assert [(item["set_id"], item["cartridge"]) for item in answer["copies_used"]] == used
        lose_catalog(home)
        assert home.run("rebuild", "--library", "lib").json["complete"] == 2
        restored(home, child["set_id"], tree, tmp_path / f"again-{used[0][1]}")


def test_a_pool_that_demands_copies(home: Home, tmp_path: Path) -> None:
    """Each backup to it is copied in the same job. Where that fails the backup is whole all the same, with a warning,
    and `copy --missing` catches up; what has its copy, or is of another pool, is left alone."""
    home.configure(**SMALL)
    two_pools(home, cartridges=3)
    tree = make_tree(tmp_path / "source", files=20, large=2 << 20)
    home.run("pool", "create", "daily", "--copy-pool", "vault")
    assert home.run("pool", "show", "daily").json["copy_pool"] == "vault"
    first = home.run("backup", tree, "--name", "t", "--pool", "daily").json
    assert [copy["whole"] for copy in first["copies"]] == [True]
    assert [copy["whole"] for copy in copies(home, first["set_id"])] == [True]
    home.run("pool", "change", "vault", "--no-scratch")
    home.run("tape", "erase", barcodes(first["copies"][0])[0], "--yes")
    assert [copy["whole"] for copy in copies(home, first["set_id"])] == []
    second = home.run("backup", tree, "--name", "t", "--pool", "daily")
    assert second.json["warning_codes"] == {"copy-missed": 1} and second.json["state"] == "complete"
    answer = home.run("copy", "--missing", code=5).json
    assert [item["error"]["code"] for item in answer["failed"]] == ["no-cartridge-available"] * 2
    home.run("pool", "change", "vault", "--scratch")
    home.run("backup", tree, "--name", "elsewhere")
    answer = home.run("copy", "--missing").json
    assert {item["set_id"] for item in answer["copied"]} == {first["set_id"], second.json["set_id"]}
    assert home.run("copy", "--missing", "--pool", "vault").json == {"copied": [], "failed": [], "warning_codes": {}}
    home.run("pool", "change", "daily", "--copy-pool", "")
    assert "copies" not in home.run("backup", tree, "--name", "t", "--pool", "daily").json


def test_what_cannot_be_asked_for(written: tuple[Home, Path, str], tmp_path: Path) -> None:
    """Each is an error with a hint, and nothing is written."""
    home, _, set_id = written
    images = home.cartridge(ORIGINAL).parent
    before = {path: path.read_bytes() for path in images.glob("*.tap")}
    assert "--pool" in home.run("copy", set_id, code=2).json["error"]["message"]
    home.run("copy", set_id, "--missing", code=2)
    home.run("copy", code=2)
    home.run("copy", set_id, "--pool", "nowhere", code=3)
    home.run("copy", "--missing", "--pool", "nowhere", code=3)
    home.run("copy", "latest:nothing", "--pool", "vault", code=3)
    home.run("pool", "create", "x", "--copy-pool", "nowhere", code=3)
    home.run("pool", "change", "vault", "--copy-pool", "vault", code=2)
    assert {path: path.read_bytes() for path in images.glob("*.tap")} == before


def test_a_copy_in_the_same_pool(written: tuple[Home, Path, str]) -> None:
    """It goes to other cartridges than those that hold the set."""
    home, _, set_id = written
    made = home.run("copy", set_id, "--pool", "default").json
    assert made["whole"] and ORIGINAL not in barcodes(made)


def test_a_segment_that_can_be_read_nowhere(written: tuple[Home, Path, str]) -> None:
    """All others are copied, the result names what was not, and a later run tries that again."""
    home, _, set_id = written
    here = segments_on(home, ORIGINAL)
    image = home.cartridge(ORIGINAL).read_bytes()
    destroy(home, ORIGINAL, here[2]["block"] + 2, 1)
    answer = home.run("copy", set_id, "--pool", "vault", code=6).json
    assert answer["error"]["code"] == "copy-incomplete" and "segment 2" in answer["error"]["message"]
    assert (answer["whole"], answer["segments_copied"]) == (False, len(here) - 1)
    assert home.run("verify", barcodes(answer)[0]).json["damage"] == []
    home.cartridge(ORIGINAL).write_bytes(image)
    answer = home.run("copy", set_id, "--pool", "vault").json
    assert (answer["whole"], answer["segments_copied"]) == (True, 1)
    assert home.run("verify", barcodes(answer)[0]).json["damage"] == []


def test_a_sealed_archive_goes_on_with_its_copy(home: Home, tmp_path: Path) -> None:
    """Segments that are unpacked as a whole, and sealed, are read from the other copy where one cannot be read; nobody
    needs a key to copy them."""
    secret = pyrage.x25519.Identity.generate()
    (tmp_path / "key").write_text(str(secret))
    home.configure(**SMALL, spooled_segment_bytes=1 << 20)
    home.library()
    home.run("pool", "create", "vault")
    tree = make_tree(tmp_path / "source", large=3 << 20)
    sealing = ("--recipient", str(secret.to_public()), "--container", "7z", "--codec", "copy")
    set_id = home.run("backup", tree, "--name", "t", *sealing).json["set_id"]
    (vault,) = barcodes(home.run("copy", set_id, "--pool", "vault").json)
    second = segments_on(home, ORIGINAL)[1]
    destroy(home, ORIGINAL, second["block"] + 3, 1)
    answer = home.run("restore", set_id, "--to", tmp_path / "out", "--identity", tmp_path / "key").json
    assert describe(below(tmp_path / "out", tree)) == describe(tree)
    assert [(used["cartridge"], min(used["segments"])) for used in answer["copies_used"]] == [(vault, 1)]


def test_a_pool_keeps_what_it_promises(home: Home, tmp_path: Path) -> None:
    """What is not encrypted, or opens for others, is not copied to a pool that says whom its sets are for; and no pool
    may name such a one for its copies."""
    mine, other = (str(pyrage.x25519.Identity.generate().to_public()) for _ in range(2))
    home.configure(**SMALL)
    home.library()
    home.run("pool", "create", "vault", "--recipient", mine)
    tree = make_tree(tmp_path / "source", files=3)
    for recipients in ((), ("--recipient", other), ("--recipient", mine, "--recipient", other)):
        set_id = home.run("backup", tree, "--name", "t", *recipients).json["set_id"]
        error = home.run("copy", set_id, "--pool", "vault", code=2).json["error"]
        assert error["code"] == "refused" and "vault" in error["message"]
    set_id = home.run("backup", tree, "--name", "t", "--recipient", mine).json["set_id"]
    assert home.run("copy", set_id, "--pool", "vault").json["whole"]
    home.run("pool", "create", "plain", "--copy-pool", "vault", code=2)
    home.run("pool", "create", "sealed", "--recipient", mine, "--copy-pool", "vault")


def test_nothing_is_built_on_what_is_suspect(home: Home, tmp_path: Path) -> None:
    """An incremental set whose parent lies on a suspect cartridge alone becomes a full one; with a whole copy it does
    not."""
    home.configure(**SMALL)
    home.library()
    home.run("pool", "create", "vault")
    tree = make_tree(tmp_path / "source", files=3)
    set_id = home.run("backup", tree, "--name", "t").json["set_id"]
    (vault,) = barcodes(home.run("copy", set_id, "--pool", "vault").json)
    destroy(home, ORIGINAL, segments_on(home, ORIGINAL)[0]["block"] + 1, 1)
    home.run("verify", ORIGINAL, code=6)
    assert home.run("backup", tree, "--name", "t", "--type", "incremental").json["type"] == "incremental"
    home.run("tape", "erase", vault, "--yes")
    answer = home.run("backup", tree, "--name", "t", "--type", "incremental")
    assert answer.json["type"] == "full"
    assert "suspect" in next(event["detail"] for event in answer.events if event.get("code") == "no-parent")
