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
