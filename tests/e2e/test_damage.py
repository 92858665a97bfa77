"""Damage is always found, named by cartridge, block and file, and costs no other file."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from harness import SMALL, Home, below, describe, make_tree

pytestmark = pytest.mark.slow


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


def flip(image: Path, offset: int, bit: int) -> None:
    """Change one bit of a file."""
    with image.open("rb+") as file:
        file.seek(offset)
        value = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([value ^ 1 << bit]))


@pytest.fixture
def written(home: Home, tmp_path: Path) -> tuple[Home, Path, str]:
    """A set on one cartridge with several segments."""
    home.configure(**SMALL)
    home.library("64MiB", cartridges=2)
    tree = make_tree(tmp_path / "source", files=200, large=2 << 20)
    return home, tree, home.run("backup", tree, "--name", "t", "--codec", "none").json["set_id"]


@pytest.mark.parametrize("seed", range(6))
def test_a_flipped_bit_in_a_record(written: tuple[Home, Path, str], tmp_path: Path, seed: int) -> None:
    """In any payload record or its framing: verify and restore name the block and the files, restore all others, leave
    no bad file under its name, and do not end with 0."""
    home, tree, set_id = written
    image = home.cartridge("CAP001L9")
    dump = home.run("tape", "dump", "CAP001L9").json
    chance = random.Random(seed)
    segment = chance.choice([item for item in dump if item["kind"] == "segment"])
    block = segment["block"] + 1 + chance.randrange(segment["records"] - 1)
    offset, size = objects(image)[block]
    framing = seed % 3 == 0
    inside = chance.choice([0, 1, size - 2]) if framing else 4 + chance.randrange(size - 8)
    flip(image, offset + inside, chance.randrange(8))

    answer = home.run("verify", set_id, code=6).json
    assert ("CAP001L9", block) in [(item["cartridge"], item["block"]) for item in answer["damage"]]
    cartridge = home.run("verify", "CAP001L9", code=6).json
    assert ("CAP001L9", block) in [(item["cartridge"], item["block"]) for item in cartridge["damage"]]

    restore = home.run("restore", set_id, "--to", tmp_path / "out", code=6).json
    lost = {item["path"] for item in restore["problems"]}
    assert lost == {item["path"] for item in answer["problems"]}
    original = {path: value for path, value in describe(tree).items() if value[0] & 0o170000 != 0o040000}
    restored = {
        path: value
        for path, value in describe(below(tmp_path / "out", tree)).items()
        if value[0] & 0o170000 != 0o040000
    }
    assert {f"{tree}/{path.decode('utf-8', 'backslashreplace')}" for path in original.keys() - restored.keys()} == lost
    assert all(original[path][:4] == value[:4] for path, value in restored.items())
    assert len(restored) > 100


def test_a_flipped_bit_in_any_structure(written: tuple[Home, Path, str]) -> None:
    """Headers, INDEXes, the label and the filemarks between: `verify` of the cartridge finds each."""
    home, _, _ = written
    image = home.cartridge("CAP001L9")
    places = objects(image)
    clean = image.read_bytes()
    dump = home.run("tape", "dump", "CAP001L9").json
    blocks = {0, 1, len(places) - 1}
    for item in dump:
        blocks |= {item["block"], item["block"] - 1, item["block"] + 1}
    missed = []
    for block in sorted(blocks - {-1}):
        offset, size = places[block]
        flip(image, offset + size // 2, 3)
        code = home.run_any("verify", "CAP001L9").code
        if code == 0:
            missed.append(block)
        image.write_bytes(clean)
    assert missed == []


def test_a_damaged_tape_is_not_appended_to(written: tuple[Home, Path, str]) -> None:
    """When the last INDEX is not what the catalog knows, nothing is written behind it."""
    home, tree, _ = written
    image = home.cartridge("CAP001L9")
    index = [item for item in home.run("tape", "dump", "CAP001L9").json if item["kind"] == "index"][-1]
    offset, _ = objects(image)[index["block"]]
    flip(image, offset + 100, 0)
    before = image.read_bytes()
    answer = home.run("backup", tree, "--name", "t", code=5)
    assert answer.json["error"]["code"] == "tape-differs-from-catalog"
    assert image.read_bytes() == before
