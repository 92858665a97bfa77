"""Discovery of tape devices."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from scsi_pipe import ServedDevice

from capstan.scsi.virtual.library import LibrarySpec, VirtualLibrary
from capstan.scsi.windows_discovery import find_devices


@pytest.fixture
def served(tmp_path: Path) -> Iterator[None]:
    VirtualLibrary.create(tmp_path / "lib", LibrarySpec("lib", slots=3, cartridges=2))
    library = VirtualLibrary.open(tmp_path / "lib")
    units = [
        ServedDevice("Tape0", library.drive_transport(0)),
        ServedDevice("Tape1", library.drive_transport(1)),
        ServedDevice("Changer0", library.changer_transport()),
    ]
    yield
    for unit in units:
        unit.close()
    library.close()


def test_what_is_there_is_found(registered: None, served: None) -> None:
    """Drives and changers, by number, with what they say of themselves."""
    found = find_devices()
    assert [(item.address, item.serial, item.trouble) for item in found] == [
        (r"spti:\\.\Tape0", "lib-D0", ""),
        (r"spti:\\.\Tape1", "lib-D1", ""),
        (r"spti:\\.\Changer0", "lib-R", ""),
    ]
    assert [item.inquiry and (item.inquiry.vendor, item.inquiry.device_type) for item in found] == [
        ("CAPSTAN", 1),
        ("CAPSTAN", 1),
        ("CAPSTAN", 8),
    ]


def test_a_device_that_cannot_be_asked_is_listed(registered: None) -> None:
    """With what is wrong with it, and what to do."""
    found = find_devices()
    assert len(found) == 3
    assert all(item.inquiry is None and item.trouble for item in found)
