"""What we write into the memory of a cartridge, and what we read there."""

from __future__ import annotations

from pathlib import Path

import pytest

from capstan.scsi.attributes import Attribute, Form, Number, decode_attributes, encode_attributes
from capstan.scsi.virtual.library import LibrarySpec, VirtualLibrary
from capstan.tape.cartridge_memory import CartridgeMemory, cleared_attributes, label_attributes, memory_of
from capstan.tape.changer import DriveAddress, SlotAddress
from capstan.tape.scsi_changer import ScsiMediaChanger
from capstan.tape.scsi_drive import ScsiTapeDrive
from capstan.testing.drive_contract import write

# Number, format, length of SPC-5, table 470.
LENGTHS = {
    0x0800: (1, 8),
    0x0801: (1, 32),
    0x0802: (1, 8),
    0x0803: (2, 160),
    0x0805: (0, 1),
    0x0806: (1, 32),
    0x0808: (2, 160),
}


@pytest.mark.parametrize("text", ["", "weekly", "周" * 60, "x" * 500])
def test_forms_and_lengths_are_the_standards(text: str) -> None:
    """Each as long as the table says, whatever goes in; no character is cut in two."""
    written = label_attributes(barcode="CAP001L9", pool=text, version="1.2.3", label=text)
    assert {item.number: (int(item.form), len(item.value)) for item in written} == LENGTHS
    found = memory_of({item.number: item for item in written})
    assert (
        text.startswith(found.label)
        and found.label == found.pool
        and len(found.label.encode()) > len(text.encode()[:157]) - 1
    )
    assert (found.barcode, found.application, found.version) == ("CAP001L9", "Capstan", "1.2.3")


def test_an_empty_memory() -> None:
    """Nothing is made up."""
    assert memory_of({}) == CartridgeMemory()
    assert memory_of({Number.LOAD_COUNT: Attribute(Number.LOAD_COUNT, Form.BINARY, b"")}).loads is None


def test_there_and_back(tmp_path: Path) -> None:
    """In a drive: ours is kept over unload and restart and can be taken away; the drive's own counts go on."""
    VirtualLibrary.create(tmp_path / "lib", LibrarySpec("lib", cartridges=1, capacity_bytes=16 << 20))
    library = VirtualLibrary.open(tmp_path / "lib")
    ScsiMediaChanger(library.changer_transport()).move(SlotAddress(1001), DriveAddress(101))
    drive = ScsiTapeDrive(library.drive_transport(0))
    assert drive.capabilities.attributes
    drive.load()
    assert memory_of(drive.attributes()).application == ""
    drive.write_attributes(label_attributes(barcode="CAP001L9", pool="week", version="1", label="Woche 31"))
    write(drive, *[1 << 20] * 2, None)
    drive.unload()
    library.close()
    library = VirtualLibrary.open(tmp_path / "lib")
    drive = ScsiTapeDrive(library.drive_transport(0))
    drive.load()
    found = memory_of(drive.attributes())
    assert (found.label, found.pool, found.barcode) == ("Woche 31", "week", "CAP001L9")
    assert (found.serial, found.manufacturer, found.generation) == ("CAP001L9", "CAPSTAN", "LTO-9")
    assert (found.loads, found.written_bytes, found.capacity_bytes) == (2, 2 << 20, 16 << 20)
    drive.write_attributes(cleared_attributes())
    cleared = memory_of(drive.attributes())
    assert (cleared.label, cleared.pool, cleared.barcode, cleared.application) == ("", "", "", "")
    assert cleared.serial == found.serial
    library.close()


def test_what_is_cut_off_is_left_out() -> None:
    """A device's bytes are not trusted."""
    body = encode_attributes(label_attributes(barcode="CAP001L9", pool="", version="1"))
    data = len(body).to_bytes(4, "big") + body
    for end in range(len(data)):
        assert len(decode_attributes(data[:end])) <= len(LENGTHS)
