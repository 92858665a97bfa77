"""The promises of transports, drives and changers, through the kernel's `sg` driver."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from capstan.scsi.linux_sg import LinuxSgTransport
from capstan.scsi.transport import ScsiTransport
from capstan.tape.changer import DriveAddress, MediaChanger, SlotAddress
from capstan.tape.drive import TapeDrive
from capstan.tape.scsi_drive import ScsiTapeDrive
from capstan.testing.changer_contract import ChangerContract
from capstan.testing.drive_contract import DriveContract
from capstan.testing.transport_contract import TransportContract
from conftest import Served


class TestSgTransport(TransportContract):
    @pytest.fixture
    def transport(self, library: Served) -> Iterator[ScsiTransport]:
        transport = LinuxSgTransport(library.drives[1])
        yield transport
        transport.close()


class TestSgChanger(ChangerContract):
    @pytest.fixture
    def changer(self, tidy: Served) -> Iterator[MediaChanger]:
        changer = tidy.robot()
        yield changer
        changer.close()


class TestSgDrive(DriveContract):
    @pytest.fixture
    def drive(self, tidy: Served) -> Iterator[TapeDrive]:
        changer = tidy.robot()
        changer.move(SlotAddress(1001), DriveAddress(101))
        changer.close()
        drive = ScsiTapeDrive(LinuxSgTransport(tidy.drives[0]))
        drive.load()
        drive.rewind()
        drive.erase()
        drive.rewind()
        yield drive
        drive.close()
