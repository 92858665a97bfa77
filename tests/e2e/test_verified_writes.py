"""Pools whose sets are read again by the job that has written them."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness import SMALL, Home

from capstan.scsi.virtual.image import TapeImage

pytestmark = pytest.mark.slow


def test_what_was_written_is_read_again(home: Home, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A good set says how much was verified. A cartridge that takes everything and keeps it wrong fails the job: the
    set is kept, its cartridge is suspect, and the next backup uses another one."""
    home.configure(**SMALL)
    home.library()
    home.run("pool", "create", "checked", "--verify-writes")
    good = home.run("backup", tree, "--name", "t", "--pool", "checked").json
    assert good["verification"]["verified_files"] > 60 and good["verification"]["errors"] == 0

    write = TapeImage.write

    def weak(image: TapeImage, number: int, data: memoryview, **options: bool) -> None:
        changed = bytearray(data)
        if len(data) == SMALL["record_bytes"]:
            changed[1000] ^= 1
        write(image, number, memoryview(changed), **options)

    with monkeypatch.context() as patch:
        patch.setattr(TapeImage, "write", weak)
        told = home.run("backup", tree, "--name", "t", "--pool", "checked", code=6).json
    assert told["error"]["code"] == "verification-failed" and told["verification"]["damage"]
    cartridge = home.run("tape", "show", "CAP001L9").json
    assert cartridge["state"] == "suspect" and "CRC" in cartridge["reason"]
    assert [item["state"] for item in home.run("sets").json] == ["complete", "complete"]
    again = home.run("backup", tree, "--name", "t", "--pool", "checked").json
    assert again["cartridges"] == ["CAP002L9"] and again["verification"]["errors"] == 0


def test_a_copy_is_read_again_where_its_pool_wants_that(
    home: Home, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written in the same pass or afterwards. A bad one is a warning for the backup, which is whole; its cartridge is
    suspect, and `copy --missing` makes another."""
    home.configure(**SMALL)
    home.library(drives=2, cartridges=6)
    home.run("pool", "create", "vault", "--verify-writes")
    home.run("pool", "create", "daily", "--copy-pool", "vault")
    [copied] = home.run("backup", tree, "--name", "t", "--pool", "daily").json["copies"]
    assert copied["segments_in_same_pass"] and copied["verification"]["verified_files"] > 60
    assert copied["verification"]["copies_used"][0]["copy"] == 1

    write = TapeImage.write

    def weak(image: TapeImage, number: int, data: memoryview, **options: bool) -> None:
        changed = bytearray(data)
        if "CAP002L9" in str(image.path) and len(data) == SMALL["record_bytes"]:
            changed[1000] ^= 1
        write(image, number, memoryview(changed), **options)

    with monkeypatch.context() as patch:
        patch.setattr(TapeImage, "write", weak)
        told = home.run("backup", tree, "--name", "t", "--pool", "daily").json
    assert told["state"] == "complete" and told["warning_codes"]["copy-missed"] == 1
    assert home.run("tape", "show", "CAP002L9").json["state"] == "suspect"
    made = home.run("copy", "--missing").json["copied"]
    assert {item["set_id"] for item in made} >= {told["set_id"]} and all(item["verification"] for item in made)
    home.run("verify", told["set_id"], "--copy", "0")
    home.run("verify", told["set_id"], "--copy", made[-1]["copy"])
    assert "0, " in home.run("verify", told["set_id"], "--copy", "9", code=2).json["error"]["message"]
    home.run("verify", "--pool", "vault", "--copy", "1", code=2)
