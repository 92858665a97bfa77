"""Programs that nobody here wrote use the library: sg3-utils, lsscsi, mtx, mt, tar, dd."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import Served, run


@pytest.fixture
def tape(tidy: Served) -> Iterator[str]:
    """/dev/nst0 with a cartridge in it, at its beginning."""
    run("mtx", "-f", tidy.changer, "load", "2", "0")
    run("mt-st", "-f", tidy.tapes[0], "rewind")
    run("mt-st", "-f", tidy.tapes[0], "setblk", "0")
    yield tidy.tapes[0]
    run("mt-st", "-f", tidy.tapes[0], "offline")
    run("mtx", "-f", tidy.changer, "unload", "2", "0")


def mt(tape: str, *arguments: str, code: int = 0) -> str:
    return run("mt-st", "-f", tape, *arguments, code=code)


def at(tape: str) -> tuple[int, int]:
    """Where `mt status` says that it stands: filemarks and blocks behind the last one."""
    [(file, block)] = re.findall(r"File number=(-?\d+), block number=(-?\d+)", mt(tape, "status"))
    return int(file), int(block)


def files_on(tape: str, *sizes: int, block: str = "64k") -> list[bytes]:
    """Write tape files of random bytes with dd; what they hold."""
    written = []
    for size in sizes:
        written.append(random.Random(size).randbytes(size))
        run("dd", f"of={tape}", f"bs={block}", "iflag=fullblock", input=None, stdin=_pipe(written[-1]))
    return written


def _pipe(data: bytes) -> int:
    path = Path(f"/tmp/input-{len(data)}")
    path.write_bytes(data)
    return os.open(path, os.O_RDONLY)


def read_file(tape: str, block: str = "64k") -> bytes:
    run("dd", f"if={tape}", "of=/tmp/output", f"bs={block}")
    return Path("/tmp/output").read_bytes()


def test_the_devices_are_what_they_are(library: Served) -> None:
    listed = run("lsscsi", "-g")
    assert len(library.drives) == len(library.tapes) == 2
    assert len(re.findall(r"tape +CAPSTAN +Virtual LTO-9", listed)) == 2
    assert "medium changer" in run("sg_inq", library.changer)
    assert "Unit serial number: lib-D0" in run("sg_inq", library.drives[0])
    assert "lib-D1" in run("sg_vpd", "-p", "sn", library.drives[1])
    assert "lib-D1" in run("sg_vpd", "-p", "di", library.drives[1])


def test_log_pages(tape: str, tidy: Served) -> None:
    """As sg_logs decodes them."""
    files_on(tape, 200_000)
    drive = tidy.drives[0]
    assert "Tape alert" in run("sg_logs", drive)  # the pages that there are
    assert re.search(r"Total bytes processed = 2\d{5}", run("sg_logs", "-p", "0x2", drive))
    assert "cleaning" in run("sg_logs", "-p", "0xc", drive).lower()
    assert re.search(r"(?i)read failure: 0", run("sg_logs", "-p", "0x2e", drive))
    assert re.search(r"(?i)main partition maximum capacity[^:]*: 64", run("sg_logs", "-p", "0x31", drive))


def test_attributes(tape: str, tidy: Served) -> None:
    """The medium auxiliary memory, as sg_read_attr decodes it."""
    shown = run("sg_read_attr", "-e", tidy.drives[0])
    assert "Load count" in shown
    shown = run("sg_read_attr", tidy.drives[0])
    assert re.search(r"(?i)medium serial number: +CAP002L9", shown)
    assert re.search(r"(?i)maximum capacity in partition \[MiB\]: 64", shown)
    assert re.search(r"(?i)load count: [1-9]", shown)


def test_mtx(tidy: Served) -> None:
    """Status, load, unload, transfer, import and export."""
    changer = tidy.changer

    def where(barcode: str) -> str:
        [line] = [line for line in run("mtx", "-f", changer, "status").splitlines() if barcode in line]
        return line.split(":")[0].strip()

    assert "2 Drives, 9 Slots ( 1 Import/Export )" in run("mtx", "-f", changer, "status")
    assert where("CAP003L9") == "Storage Element 3"
    run("mtx", "-f", changer, "load", "3", "1")
    assert where("CAP003L9") == "Data Transfer Element 1"
    run("mtx", "-f", changer, "load", "4", "1", code=1)  # it is full
    run("mt-st", "-f", tidy.tapes[1], "offline")
    run("mtx", "-f", changer, "unload", "3", "1")
    run("mtx", "-f", changer, "transfer", "3", "8")
    assert where("CAP003L9") == "Storage Element 8"
    run("mtx", "-f", changer, "transfer", "8", "9")  # the mail slot
    assert where("CAP003L9") == "Storage Element 9 IMPORT/EXPORT"
    run("mtx", "-f", changer, "transfer", "9", "3")
    assert where("CAP003L9") == "Storage Element 3"
    run("mtx", "-f", changer, "inventory")


def test_mt(tape: str) -> None:
    """Every motion ends where mt says that it does."""
    first, second, third = files_on(tape, 300_000, 70_000, 131_072)
    assert at(tape) == (3, 0)
    mt(tape, "rewind")
    assert at(tape) == (0, 0)
    mt(tape, "fsf", "2")
    assert at(tape) == (2, 0) and read_file(tape) == third
    mt(tape, "bsfm", "2")
    assert at(tape) == (2, 0)
    mt(tape, "rewind")
    mt(tape, "fsr", "3")
    assert at(tape) == (0, 3)
    mt(tape, "bsr", "1")
    block = int(re.findall(r"\d+", mt(tape, "tell"))[0])
    assert block == 2
    mt(tape, "asf", "1")
    assert read_file(tape) == second
    mt(tape, "seek", str(block))
    assert read_file(tape) == first[2 * 65_536 :]
    mt(tape, "rewind")
    mt(tape, "eod")
    assert at(tape)[0] == 3
    mt(tape, "fsf", "1", code=2)  # there is nothing more
    mt(tape, "asf", "1")
    mt(tape, "weof")
    mt(tape, "eod")
    assert at(tape)[0] == 2
    mt(tape, "rewind")
    mt(tape, "erase", "0")
    mt(tape, "rewind")
    mt(tape, "fsf", "1", code=2)
    assert "ONLINE" in mt(tape, "status")


@pytest.mark.parametrize("block", ["64k", "256k", "512k", "1M"])
def test_dd(tape: str, block: str) -> None:
    [written] = files_on(tape, 3_000_000, block=block)
    mt(tape, "rewind")
    assert read_file(tape, block) == written


def test_fixed_blocks(tape: str) -> None:
    """One write of many blocks is as many records, and they come back in other numbers at once."""
    mt(tape, "setblk", "32768")
    assert "Tape block size 32768 bytes" in mt(tape, "status")
    [written] = files_on(tape, 20 * 32_768, block="320k")
    assert at(tape) == (1, 0)
    mt(tape, "rewind")
    assert read_file(tape, "160k") == written
    mt(tape, "rewind")
    mt(tape, "fsr", "7")
    assert read_file(tape, "32k") == written[7 * 32_768 :]
    mt(tape, "setblk", "0")
    mt(tape, "rewind")
    assert read_file(tape, "32k") == written


def test_tar(tape: str) -> None:
    """Written, listed, compared, and read back: GNU tar on the tape itself."""
    source = Path("/usr/share/common-licenses")
    run("tar", "-C", source.parent, "-cf", tape, source.name)
    mt(tape, "rewind")
    assert f"{source.name}/GPL-3" in run("tar", "-tf", tape)
    mt(tape, "rewind")
    run("tar", "-C", source.parent, "-df", tape)
    mt(tape, "rewind")
    out = Path("/tmp/untarred")
    out.mkdir(exist_ok=True)
    run("tar", "-C", out, "-xf", tape)
    run("diff", "-r", "--no-dereference", source, out / source.name)


def test_tar_over_several_volumes(tidy: Served) -> None:
    """tar fills a cartridge, asks for the next one, which a script of mtx brings, and reads all back so."""
    source = Path("/tmp/large")
    source.mkdir(exist_ok=True)
    (source / "data").write_bytes(random.Random(1).randbytes(60 << 20))
    changer, tape = tidy.changer, tidy.tapes[0]
    change = Path("/tmp/change")
    change.write_text(
        f"#!/bin/sh\nset -e\nmt-st -f {tape} offline\nmtx -f {changer} unload $((TAR_VOLUME + 3)) 0\n"
        f"mtx -f {changer} load $((TAR_VOLUME + 4)) 0\nmt-st -f {tape} rewind\n"
    )
    change.chmod(0o755)

    def volumes(*arguments: str | Path) -> None:
        run("mtx", "-f", changer, "load", "5", "0")
        run("tar", "-M", "-b", "128", "-F", change, "-f", tape, *arguments)
        mt(tape, "offline")
        run("mtx", "-f", changer, "unload", "6", "0")

    volumes("-C", "/tmp", "-c", "large")
    out = Path("/tmp/joined")
    out.mkdir(exist_ok=True)
    volumes("-C", out, "-x")
    assert (out / "large/data").read_bytes() == (source / "data").read_bytes()
