"""Capstan uses the library through the kernel, as a real one; its tapes restore with stock programs on `/dev/nst0`."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import subprocess
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from capstan.cli.main import main
from conftest import Served, command, run


def told(home: Path, *arguments: str | Path, code: int = 0) -> Any:
    """The result of a command, of `--json`. In this process: an interpreter takes long to start here."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        ended = main(["--json", "--home", str(home), *map(str, arguments)])
    assert ended == code, f"{arguments}: {ended}\n{out.getvalue()[-2000:]}{err.getvalue()[-2000:]}"
    return json.loads(out.getvalue())


def tree_at(path: Path) -> Path:
    path.mkdir(parents=True)
    for number in range(40):
        (path / f"file {number}").write_bytes(bytes([number]) * (number * 3000))
    (path / "large").write_bytes(bytes(range(256)) * 40_000)
    (path / "link").symlink_to("large")
    return path


def add(home: Path, library: Served) -> None:
    drives = [part for drive in library.drives for part in ("--drive", f"sg:{drive}")]
    added = told(home, "library", "add", "real", "--changer", f"sg:{library.changer}", *drives)
    assert added["drives"] == 2 and "CAP001L9" in added["cartridges"]


def test_discover(tidy: Served, tmp_path: Path) -> None:
    """Drives and changer, which belongs where; who has a drive open is named, and nothing is asked of it then."""
    changer, first, second = (
        next(item for item in told(tmp_path, "discover") if item["serial"] == serial)
        for serial in ("lib-R", "lib-D0", "lib-D1")
    )
    assert (changer["address"], changer["kind"]) == (f"sg:{tidy.changer}", "changer")
    assert "2 drives, 8 slots, 1 mail slots" in changer["state"]
    assert [(item["changer"], item["element"]) for item in (first, second)] == [
        (changer["address"], 101),
        (changer["address"], 102),
    ]
    assert first["address"] == f"sg:{tidy.drives[0]}" and tidy.tapes[0] in first["names"] and first["state"] == "empty"
    run("mtx", "-f", tidy.changer, "load", "1", "0")
    holder = subprocess.Popen(["sh", "-c", f"exec 3<{tidy.tapes[0]}; echo open; read line"], stdin=-1, stdout=-1)
    assert holder.stdout is not None and holder.stdout.readline() == b"open\n"
    found = {item["serial"]: item for item in told(tmp_path, "discover")}
    holder.kill()
    holder.wait()
    assert f"sh (pid {holder.pid})" in found["lib-D0"]["trouble"] and not found["lib-D1"]["trouble"]
    loaded = {item["serial"]: item for item in told(tmp_path, "discover")}["lib-D0"]
    assert (loaded["state"], loaded["generation"]) == ("loaded: LTO-9", "LTO-9")


def test_backup_and_restore(tidy: Served, tmp_path: Path) -> None:
    """A library of devices: added, labelled, backed up to, verified, restored from, rebuilt."""
    home, source = tmp_path / "home", tree_at(tmp_path / "source")
    add(home, tidy)
    assert {drive["serial"] for drive in told(home, "drive", "list")} == {"lib-D0", "lib-D1"}
    told(home, "pool", "create", "default")
    for barcode in ("CAP001L9", "CAP002L9"):
        told(home, "tape", "label", barcode, "--pool", "default", "--overwrite")
    made = told(home, "backup", source, "--name", "t")
    assert made["state"] == "complete"
    told(home, "verify", made["set_id"])
    told(home, "restore", made["set_id"], "--to", tmp_path / "out")
    run("diff", "-r", "--no-dereference", source, tmp_path / "out" / str(source)[1:])
    (home / "catalog.db").unlink()
    told(home, "rebuild", "--library", "real")
    told(home, "restore", "latest:t", "--to", tmp_path / "again")
    run("diff", "-r", "--no-dereference", source, tmp_path / "again" / str(source)[1:])
    told(home, "library", "remove", "real")
    assert told(home, "library", "list") == []


@pytest.mark.parametrize("sealed", [False, True])
def test_restore_with_stock_programs(tidy: Served, tmp_path: Path, sealed: bool) -> None:
    """mt, dd, age, zstd and tar on the tape device, as RESTORE.txt says."""
    home, source = tmp_path / "home", tree_at(tmp_path / "source")
    add(home, tidy)
    told(home, "pool", "create", "default")
    told(home, "tape", "label", "CAP003L9", "--pool", "default", "--overwrite")
    key = tmp_path / "key"
    run("age-keygen", "-o", key)
    recipient = ("--recipient", run("age-keygen", "-y", key).strip()) if sealed else ()
    told(home, "backup", source, "--name", "t", *recipient)
    tape = tidy.tapes[0]
    run("mtx", "-f", tidy.changer, "load", "3", "0")
    run("mt-st", "-f", tape, "setblk", "0")
    run("mt-st", "-f", tape, "rewind")
    run("mt-st", "-f", tape, "fsf", "1")
    (tmp_path / "out").mkdir()
    unseal = f"age -d -i {key} |" if sealed else ""
    unpack = f"dd if={tape} bs=512k | tail -c +4097 | {unseal} zstd -dc | tar -C {tmp_path}/out -xpf -"
    run("bash", "-c", f"set -o pipefail; {unpack}")
    run("mt-st", "-f", tape, "offline")
    run("mtx", "-f", tidy.changer, "unload", "3", "0")
    run("diff", "-r", "--no-dereference", source, tmp_path / "out" / str(source)[1:])


def test_the_one_that_serves_is_killed(tidy: Served, tmp_path: Path) -> None:
    """SIGKILL in the middle of a backup: an error that says what to do; nothing that was committed is lost, no
    cartridge is damaged, and once the library is served again the job goes on."""
    home, source = tmp_path / "home", tree_at(tmp_path / "source")
    (source / "larger").write_bytes(random.Random(7).randbytes(24 << 20))
    tidy.stop()
    tidy.again("--timeout", "2")
    add(home, tidy)
    told(home, "pool", "create", "default")
    told(home, "tape", "label", "CAP004L9", "--pool", "default", "--overwrite")
    before = told(home, "backup", tree_at(tmp_path / "small"), "--name", "before")
    size = tidy.image("CAP004L9").stat().st_size
    running = subprocess.Popen(
        command(home, "--json", "backup", source, "--name", "t"), stdout=subprocess.PIPE, text=True
    )
    while tidy.image("CAP004L9").stat().st_size < size + (4 << 20) and running.poll() is None:
        os.sched_yield()
    tidy.stop(signal.SIGKILL)
    output, _ = running.communicate(timeout=300)
    error = json.loads(output)["error"]
    assert running.returncode in (5, 7) and error["hint"], error
    tidy.again()
    told(home, "library", "remove", "real")
    add(home, tidy)
    resumed = told(home, "job", "resume", told(home, "jobs")[0]["job_id"])
    told(home, "verify", "CAP004L9")
    for set_id, tree in ((before["set_id"], tmp_path / "small"), (resumed["set_id"], source)):
        out = tmp_path / f"out-{tree.name}"
        told(home, "restore", set_id, "--to", out)
        run("diff", "-r", "--no-dereference", tree, out / str(tree)[1:])
