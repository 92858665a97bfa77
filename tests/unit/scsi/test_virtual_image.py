"""A virtual tape survives what happens to files: torn writes, a lost map, flipped bits."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from capstan.scsi.virtual.image import BadRecord, TapeImage
from capstan.scsi.virtual.storage import DiskStorage

ITEMS: list[bytes | None] = [b"a" * 10, b"b" * 11, None, b"c" * 100, None, None, b"d"]


def make(path: Path) -> TapeImage:
    """A tape with ITEMS on it, synced."""
    image = TapeImage(path, DiskStorage())
    for item in ITEMS:
        append(image, item)
    image.sync()
    return image


def append(image: TapeImage, item: bytes | None) -> None:
    if item is None:
        image.write_filemark(image.count)
    else:
        image.write(image.count, memoryview(item))


def content(path: Path) -> list[bytes | str | None]:
    """Everything on a tape; `bad` for a record that cannot be read."""
    image = TapeImage(path, DiskStorage())
    found: list[bytes | str | None] = []
    for number in range(image.count):
        buffer = memoryview(bytearray(1000))
        try:
            found.append(None if image.is_filemark(number) else bytes(buffer[: image.read(number, buffer)]))
        except BadRecord:
            found.append("bad")
    image.close()
    return found


@pytest.mark.parametrize("encrypted", [False, True])
def test_a_tail_that_is_torn_anywhere_does_not_count(tmp_path: Path, encrypted: bool) -> None:
    """The process died within its last record: all before is there, the tape opens, and can be written on."""
    path = tmp_path / "t.tap"
    image = make(path)
    size = image.end_offset
    image.write(image.count, memoryview(b"e" * 33), encrypted=encrypted)
    image.close()
    whole, mapped = path.read_bytes(), path.with_suffix(".map").read_bytes()
    for cut in range(size, len(whole)):
        path.write_bytes(whole[:cut])
        path.with_suffix(".map").write_bytes(mapped)
        assert content(path) == ITEMS
        image = TapeImage(path, DiskStorage())
        append(image, b"new")
        image.close()
        assert content(path) == [*ITEMS, b"new"]


@pytest.mark.parametrize("harm", ["gone", "short", "odd", "garbage", "long"])
def test_the_map_is_only_an_index(tmp_path: Path, harm: str) -> None:
    """Lost, cut off, or of another tape: it is made again from the image."""
    path = tmp_path / "t.tap"
    make(path).close()
    mapping = path.with_suffix(".map")
    data = mapping.read_bytes()
    harmed = {"gone": b"", "short": data[:16], "odd": data[:21], "garbage": bytes(range(7, 15)) * 4, "long": data * 2}
    mapping.write_bytes(harmed[harm])
    assert content(path) == ITEMS


def test_a_flipped_bit_in_the_framing_costs_one_record(tmp_path: Path) -> None:
    """Records behind a damaged length stay readable: the map knows where they begin."""
    path = tmp_path / "t.tap"
    make(path).close()
    data = bytearray(path.read_bytes())
    for offset in (0, 1, 2, 14, 15, 17):
        broken = bytearray(data)
        broken[offset] ^= 0x10
        path.write_bytes(broken)
        assert content(path) == ["bad", *ITEMS[1:]]


def test_writing_anywhere_ends_the_tape_there(tmp_path: Path) -> None:
    """A list is the model: writing at a number drops what was from there on."""
    chance = random.Random(3)
    model: list[bytes | None] = []
    image = TapeImage(tmp_path / "t.tap", DiskStorage())
    for step in range(400):
        at = chance.randint(0, len(model))
        item = chance.choice([None, chance.randbytes(chance.randint(1, 40))])
        if item is None:
            image.write_filemark(at)
        else:
            image.write(at, memoryview(item))
        model = [*model[:at], item]
        if step % 50 == 0:
            image.sync()
        if step % 97 == 0:
            image.close()
            image = TapeImage(tmp_path / "t.tap", DiskStorage())
        assert image.count == len(model)
        assert image.filemarks == [number for number, found in enumerate(model) if found is None]
    image.close()
    assert content(tmp_path / "t.tap") == model


def test_a_plain_image_is_as_it_always_was(tmp_path: Path) -> None:
    """Records in clear and filemarks are SIMH's own, byte for byte, so that old images and other programs go together
    with new ones. An encrypted record differs in the class of both length words; its mark survives a lost map."""
    path = tmp_path / "t.tap"
    image = TapeImage(path, DiskStorage())
    image.write(0, memoryview(b"abc"))
    image.write_filemark(1)
    image.write(2, memoryview(b"xyz"), encrypted=True)
    image.close()
    plain = b"\3\0\0\0abc\0\3\0\0\0" + bytes(4)
    assert path.read_bytes() == plain + b"\3\0\0\x10xyz\0\3\0\0\x10"
    path.with_suffix(".map").unlink()
    image = TapeImage(path, DiskStorage())
    assert (image.count, image.is_encrypted(0), image.is_encrypted(2)) == (3, False, True)
    image.close()


def test_a_mark_that_is_at_one_end_only_is_damage(tmp_path: Path) -> None:
    """A flipped bit makes no plain record encrypted, nor the reverse: that record is bad, and the others are not."""
    path = tmp_path / "t.tap"
    image = make(path)
    image.write(image.count, memoryview(b"e" * 33), encrypted=True)
    append(image, b"f")
    image.sync()
    offsets = [image.offset_of(number) for number in (0, 7)]
    image.close()
    data = bytearray(path.read_bytes())
    for offset in offsets:
        data[offset + 3] ^= 0x10
    path.write_bytes(data)
    assert content(path) == ["bad", *ITEMS[1:], "bad", b"f"]
