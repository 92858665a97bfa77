"""What a drive is told when a cartridge is loaded, and which cartridges it takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from capstan.errors import EndOfMedium, IncompatibleMedium, PositionLost
from capstan.scsi import cdb, modes, pages
from capstan.scsi.cdb import Op
from capstan.scsi.densities import decode_densities
from capstan.scsi.virtual.faults import Fault, FaultKind, FaultPlan
from capstan.scsi.virtual.library import LibrarySpec, VirtualLibrary
from capstan.tape.changer import DriveAddress, PortAddress
from capstan.tape.drive import DriveSettings, Room
from capstan.tape.scsi_changer import ScsiMediaChanger
from capstan.tape.scsi_drive import ScsiTapeDrive
from capstan.testing.drive_contract import read, write

MEGABYTE = 1_000_000
MODE = frozenset({Op.MODE_SENSE_6})


@contextmanager
def drive_with(
    folder: Path,
    barcode: str,
    *,
    generation: str = "LTO-9",
    settings: DriveSettings = DriveSettings(),  # noqa: B008 - it is frozen
    faults: FaultPlan | None = None,
    capacity_bytes: int = 16 << 20,
) -> Iterator[ScsiTapeDrive]:
    """A drive of that generation with a new cartridge in it, which is not loaded yet."""
    spec = LibrarySpec("lib", cartridges=0, generation=generation, capacity_bytes=capacity_bytes)
    VirtualLibrary.create(folder / "lib", spec)
    library = VirtualLibrary.open(folder / "lib", faults=faults)
    port = library.insert_into_port(barcode)
    ScsiMediaChanger(library.changer_transport()).move(PortAddress(port), DriveAddress(101))
    yield ScsiTapeDrive(library.drive_transport(0), sleep=lambda seconds: None, settings=settings)
    library.close()


def mode_page(drive: ScsiTapeDrive, page: int, subpage: int = 0) -> bytes:
    return pages.decode_mode(drive.query(cdb.mode_sense(page, subpage), 255)).page


@pytest.mark.parametrize(
    ("generation", "reads", "writes"),
    [
        ("LTO-5", "LTO-3 LTO-4 LTO-5", "LTO-4 LTO-5"),
        ("LTO-7", "LTO-5 LTO-6 LTO-7", "LTO-6 LTO-7"),
        ("LTO-8", "LTO-7 LTO-7 type M LTO-8", "LTO-7 LTO-7 type M LTO-8"),
        ("LTO-9", "LTO-8 LTO-9", "LTO-8 LTO-9"),
        ("LTO-10", "LTO-10", "LTO-10"),
    ],
)
def test_a_drive_says_what_it_takes(tmp_path: Path, generation: str, reads: str, writes: str) -> None:
    """By its densities; one that has no such report is known by its name, and says the same."""
    unknown = Fault(FaultKind.UNKNOWN_COMMAND, opcodes=frozenset({Op.REPORT_DENSITY_SUPPORT}), permanent=True)
    for number, faults in enumerate((None, FaultPlan((unknown,)))):
        folder = tmp_path / str(number)
        with drive_with(folder, "CAP001L9", generation=generation, faults=faults) as drive:
            assert " ".join(drive.capabilities.reads) == reads
            assert " ".join(drive.capabilities.writes) == writes


def test_the_generation_before_is_read_and_written(tmp_path: Path) -> None:
    """With the density of the cartridge, not of the drive."""
    with drive_with(tmp_path, "CAP001L8") as drive:
        drive.load()
        assert drive.status().density == 0x5E and not drive.status().write_protected
        [mounted] = decode_densities(drive.query(cdb.report_density_support(mounted=True), 8192))
        assert (mounted.code, mounted.writable, mounted.capacity_bytes) == (0x5E, True, 12_000_000 * MEGABYTE)
        data = write(drive, 1000, None)
        drive.rewind()
        assert read(drive) == data[0]


def test_two_generations_before_are_only_read(tmp_path: Path) -> None:
    """The drive is write-protected with such a cartridge, and a write says why."""
    with drive_with(tmp_path, "CAP001L5", generation="LTO-7") as drive:
        drive.load()
        assert drive.status().write_protected
        with pytest.raises(IncompatibleMedium, match="incompatible format"):
            write(drive, 10)


def test_what_it_cannot_read_is_refused_with_what_it_could(tmp_path: Path) -> None:
    """The error names what the drive takes."""
    with drive_with(tmp_path, "CAP001L7") as drive:
        with pytest.raises(IncompatibleMedium) as caught:
            drive.load()
        assert caught.value.hint_text == "the drive reads LTO-8 and LTO-9: use another drive or cartridge"


def test_type_m_is_for_one_generation_of_drives(tmp_path: Path) -> None:
    """LTO-7 type M: LTO-8 takes it, LTO-7 and LTO-9 do not."""
    with drive_with(tmp_path / "8", "CAP001M8", generation="LTO-8") as drive:
        drive.load()
        write(drive, 10)
        assert drive.status().density == 0x5D
    for generation in ("LTO-7", "LTO-9"):
        with (
            drive_with(tmp_path / generation, "CAP001M8", generation=generation) as drive,
            pytest.raises(IncompatibleMedium),
        ):
            drive.load()


@pytest.mark.parametrize("wanted", [True, False, None])
def test_compression(tmp_path: Path, wanted: bool | None) -> None:
    """On, off, or as it was; data comes back the same, and another cartridge finds it set too."""
    with drive_with(tmp_path, "CAP001L9", settings=DriveSettings(compression=wanted)) as drive:
        assert drive.capabilities.compression
        assert modes.decode_compression(mode_page(drive, modes.COMPRESSION))  # as LTO drives come
        drive.load()
        assert modes.decode_compression(mode_page(drive, modes.COMPRESSION)) is (wanted is not False)
        data = write(drive, 1000)
        drive.rewind()
        assert read(drive) == data[0]


def test_the_programmable_early_warning(tmp_path: Path) -> None:
    """It comes before the drive's own, is never taken back while writing goes on, and leaves the room asked for."""
    block = memoryview(bytes(100_000))
    rooms: dict[int, list[Room]] = {}
    for asked in (0, 20):
        settings = DriveSettings(early_warning_bytes=asked * MEGABYTE)
        with drive_with(tmp_path / str(asked), "CAP001L9", settings=settings, capacity_bytes=64 << 20) as drive:
            assert drive.capabilities.programmable_early_warning
            drive.load()
            rooms[asked] = []
            with pytest.raises(EndOfMedium):
                while True:
                    rooms[asked].append(drive.write_block(block))
            assert rooms[asked] == sorted(rooms[asked], key=lambda room: room is Room.EARLY_WARNING)
    earlier = rooms[20].count(Room.EARLY_WARNING) - rooms[0].count(Room.EARLY_WARNING)
    assert abs(earlier * 100_000 - 20 * MEGABYTE) < MEGABYTE


def test_settings_are_there_again_behind_a_reset(tmp_path: Path) -> None:
    """A reset undoes them; before the next block is written they are set again."""
    plan = FaultPlan((Fault(FaultKind.UNIT_ATTENTION, nth=2, opcodes=frozenset({Op.WRITE_6})),))
    settings = DriveSettings(compression=False, early_warning_bytes=5 * MEGABYTE)
    with drive_with(tmp_path, "CAP001L9", settings=settings, faults=plan) as drive:
        drive.load()
        write(drive, 10)
        with pytest.raises(PositionLost):
            write(drive, 20)
        assert modes.decode_compression(mode_page(drive, modes.COMPRESSION))
        drive.locate(1)
        write(drive, 30)
        assert not modes.decode_compression(mode_page(drive, modes.COMPRESSION))
        assert modes.decode_early_warning(mode_page(drive, *modes.EXTENSION)) == 5


def test_a_drive_that_cannot_be_set_is_used_as_it_is(tmp_path: Path) -> None:
    """One without the pages: its capabilities say so, and nothing fails."""
    plan = FaultPlan((Fault(FaultKind.UNKNOWN_COMMAND, unit="drive0", opcodes=MODE, permanent=True),))
    settings = DriveSettings(compression=False, early_warning_bytes=5 * MEGABYTE)
    with drive_with(tmp_path, "CAP001L9", settings=settings, faults=plan) as drive:
        assert not drive.capabilities.compression and not drive.capabilities.programmable_early_warning
        assert not drive.capabilities.block_protection


def test_what_can_be_changed(tmp_path: Path) -> None:
    """MODE SENSE of changeable values has a bit for each that MODE SELECT takes (SPC-5, 6.14.2); saved ones there are
    not."""
    with drive_with(tmp_path, "CAP001L9") as drive:
        changeable = mode_page(drive, 0x40 | modes.COMPRESSION)
        assert changeable.hex() == "0f0e80" + "00" * 13
        assert mode_page(drive, 0x40 | 0x10, 0x01).hex() == "5001001c0000ffff" + "00" * 24
        assert drive.query(cdb.mode_sense(0xC0 | 0x0F), 255, optional=True) == b""


def test_modes_are_set_all_or_none(tmp_path: Path) -> None:
    """A page that the drive does not know, or one that is cut off: nothing of the others is set; both forms of the
    command do the same."""
    off, unknown = modes.encode_compression(on=False), bytes((0x3E, 2, 0, 0))
    with drive_with(tmp_path, "CAP001L9") as drive:
        drive.load()
        for wrong in (off + unknown, off + off[:5], unknown):
            data = bytes((0, 0, 0x10, 0)) + wrong
            assert not drive.send_parameters("MODE SELECT", cdb.mode_select(len(data)), memoryview(data), optional=True)
            assert modes.decode_compression(mode_page(drive, modes.COMPRESSION))
        long = bytes((0, 0, 0, 0x10, 0, 0, 0, 0)) + off
        command = bytes((Op.MODE_SELECT_10, 0x10, 0, 0, 0, 0, 0)) + len(long).to_bytes(2, "big") + b"\0"
        assert drive.send_parameters("MODE SELECT", command, memoryview(long))
        assert not modes.decode_compression(mode_page(drive, modes.COMPRESSION))
        answer = drive.query(bytes((Op.MODE_SENSE_10, 0x08, 0x0F, 0, 0, 0, 0, 0, 255, 0)), 255)
        assert int.from_bytes(answer[:2], "big") == len(answer) - 2 and answer[8:] == off


def test_counts_of_a_mount_and_of_a_life(tmp_path: Path) -> None:
    """Volume statistics, by the numbers of SSC-5, table 64: 000Eh and 000Fh in MB of this mount, 0010h and 0011h of the
    cartridge's life, 0012h is no amount."""
    with drive_with(tmp_path, "CAP001L9") as drive:
        for _ in range(2):
            drive.load()
            write(drive, *[MEGABYTE] * 3, None)
            drive.rewind()
            read(drive)
            drive.unload()
        drive.load()
        found = {code: int.from_bytes(value, "big") for code, value in pages.decode_log(drive.log_page(0x17)).items()}
        assert (found[0x0000], found[0x0001]) == (1, 3)
        assert (found[0x0010], found[0x0011]) == (6, 2)
        assert 0x0012 not in found
        write(drive, *[MEGABYTE] * 2)
        found = {code: int.from_bytes(value, "big") for code, value in pages.decode_log(drive.log_page(0x17)).items()}
        assert (found[0x0010], found[0x000E], found[0x000F]) == (8, 2, 0)
