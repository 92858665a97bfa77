r"""A library whose changer and drive are `\\.\Changer0` and `\\.\Tape0`: found, added, backed up to, restored from."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from scsi_pipe import ServedDevice

from capstan.cli.main import main
from capstan.scsi.virtual.library import LibrarySpec, VirtualLibrary

SPEC = LibrarySpec("lib", drives=2, slots=4, cartridges=2, cleaning_cartridges=0, capacity_bytes=32 << 20)


@pytest.fixture
def library(tmp_path: Path) -> Iterator[VirtualLibrary]:
    VirtualLibrary.create(tmp_path / "lib", SPEC)
    library = VirtualLibrary.open(tmp_path / "lib")
    tape, changer = (
        ServedDevice("Tape0", library.drive_transport(0)),
        ServedDevice("Changer0", library.changer_transport()),
    )
    yield library
    tape.close()
    changer.close()
    library.close()


def told(home: Path, *arguments: str | Path) -> Any:
    """The result of a command."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main(["--json", "--home", str(home), *map(str, arguments)])
    assert code == 0, f"{arguments}: {out.getvalue()[-2000:]}{err.getvalue()[-2000:]}"
    return json.loads(out.getvalue())


def test_backup_and_restore(registered: None, library: VirtualLibrary, tmp_path: Path) -> None:
    """The other drive of the changer is not ours, and is left alone."""
    home, source = tmp_path / "home", tmp_path / "source"
    source.mkdir()
    for number in range(10):
        (source / f"file {number}").write_bytes(bytes([number]) * (number * 20_000))
    found = {item["address"]: item for item in told(home, "discover")}
    assert found["spti:\\\\.\\Tape0"]["element"] == 101 and found["spti:\\\\.\\Changer0"]["kind"] == "changer"
    changer, drive = "spti:\\\\.\\Changer0", "spti:\\\\.\\Tape0"
    told(home, "library", "add", "real", "--changer", changer, "--drive", drive)
    told(home, "tape", "label", "CAP001L9", "--pool", "default")
    made = told(home, "backup", source, "--name", "t")
    told(home, "verify", made["set_id"])
    told(home, "restore", made["set_id"], "--to", tmp_path / "out")
    restored = {path.name: path.read_bytes() for path in (tmp_path / "out").rglob("file *")}
    assert restored == {path.name: path.read_bytes() for path in source.iterdir()}
