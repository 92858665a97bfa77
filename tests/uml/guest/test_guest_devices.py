"""What programs that nobody here wrote make of the drive's pages and the robot's commands: sg3-utils, mtx, mt."""

from __future__ import annotations

import re

from conftest import Served, run


def where(changer: str, barcode: str) -> str:
    [line] = [line for line in run("mtx", "-f", changer, "status").splitlines() if barcode in line]
    return line.split(":")[0].strip()


def test_volume_statistics(tidy: Served) -> None:
    """Page 17h as sg_logs decodes it: counts of this mount and of the cartridge's life, and who it is."""
    drive, tape = tidy.drives[0], tidy.tapes[0]
    run("mtx", "-f", tidy.changer, "load", "2", "0")
    run("mt-st", "-f", tape, "rewind")
    run("dd", "if=/dev/zero", f"of={tape}", "bs=256k", "count=12")
    shown = run("sg_logs", "-p", "0x17", drive)
    assert re.search(r"Page valid: 1", shown)
    assert re.search(r"Last mount megabytes written: 3", shown)
    lifetime = re.search(r"Lifetime megabytes written: (\d+)", shown)
    assert lifetime and int(lifetime[1]) >= 3
    assert re.search(r"Volume serial number: CAP002L9", shown)
    assert re.search(r"Total unrecovered write errors: 0", shown)
    assert "0x60" in run("mt-st", "-f", tape, "status")  # the density of LTO-9
    run("mt-st", "-f", tape, "offline")
    run("mtx", "-f", tidy.changer, "unload", "2", "0")


def test_mode_pages(tidy: Served) -> None:
    """As sg_modes lists them, with what can be changed."""
    shown = run("sg_modes", "-a", tidy.drives[0])
    for page in ("Data Compression", "Device configuration", "Medium configuration"):
        assert page.lower() in shown.lower()
    shown = run("sg_modes", "-c", "1", "-p", "0x10,1", tidy.drives[0])
    assert "ff ff" in shown  # PEWS


def test_reservations(tidy: Served) -> None:
    """sg_persist registers a key, reserves, is shown as the holder, and lets go."""
    drive = tidy.drives[1]
    assert "there are NO registered reservation keys" in run("sg_persist", "-k", drive)
    run("sg_persist", "--out", "--register", "--param-sark=0xabc", drive)
    run("sg_persist", "--out", "--reserve", "--param-rk=0xabc", "--prout-type=3", drive)
    assert "0xabc" in run("sg_persist", "-k", drive)
    assert "Exclusive Access" in run("sg_persist", "-r", drive)
    assert "Exclusive Access: 1" in run("sg_persist", "-c", drive)
    run("sg_persist", "--out", "--release", "--param-rk=0xabc", "--prout-type=3", drive)
    run("sg_persist", "--out", "--register", "--param-rk=0xabc", drive)
    assert "there is NO reservation held" in run("sg_persist", "-r", drive)


def test_exchange(tidy: Served) -> None:
    """Two cartridges change places, and back."""
    changer = tidy.changer
    assert (where(changer, "CAP003L9"), where(changer, "CAP004L9")) == ("Storage Element 3", "Storage Element 4")
    run("mtx", "-f", changer, "exchange", "3", "4", "3")
    assert (where(changer, "CAP003L9"), where(changer, "CAP004L9")) == ("Storage Element 4", "Storage Element 3")
    run("mtx", "-f", changer, "exchange", "3", "4", "3")
    assert (where(changer, "CAP003L9"), where(changer, "CAP004L9")) == ("Storage Element 3", "Storage Element 4")
