"""Encryption by a SCSI drive when things go wrong: nothing is in clear by accident, and the errors are clear."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from capstan.errors import (
    DeviceError,
    DriveKeyNeeded,
    IllegalRequest,
    MediumError,
    PositionLost,
    TransportError,
    WriteProtected,
)
from capstan.scsi import cdb, encryption
from capstan.scsi.cdb import Op
from capstan.scsi.encryption import PROTOCOL, DecryptionMode, EncryptionMode, KeyData, OutPage, SetDataEncryption
from capstan.scsi.sense import Key, Sense, encode_sense
from capstan.scsi.transport import Command, Completion, Direction, Status
from capstan.scsi.virtual.faults import Fault, FaultKind, FaultPlan
from capstan.scsi.virtual.library import LibrarySpec, VirtualLibrary
from capstan.tape.changer import DriveAddress, SlotAddress
from capstan.tape.drive import BlockKey, Read, find_encrypting
from capstan.tape.scsi_changer import ScsiMediaChanger
from capstan.tape.scsi_drive import ScsiTapeDrive
from capstan.testing.drive_contract import read
from capstan.testing.encrypting_drive_contract import HEADER, KEY, KEY_ID, PAYLOAD, write_mixed
from capstan.testing.memory_drive import MemoryTape, MemoryTapeDrive
from capstan.testing.watched_transport import WatchedTransport

ILLEGAL = Completion(Status.CHECK_CONDITION, encode_sense(Sense(Key.ILLEGAL_REQUEST, 0x20, 0x00)))
IMAGE = Path("lib") / "cartridges" / "CAP001L9.tap"


@contextmanager
def drive_of(folder: Path, faults: FaultPlan | None = None) -> Iterator[tuple[ScsiTapeDrive, WatchedTransport]]:
    """A drive with a blank cartridge, and the line to it."""
    VirtualLibrary.create(folder / "lib", LibrarySpec("lib", cartridges=1, capacity_bytes=16 << 20))
    library = VirtualLibrary.open(folder / "lib", faults=faults)
    ScsiMediaChanger(library.changer_transport()).move(SlotAddress(1001), DriveAddress(101))
    line = WatchedTransport(library.drive_transport(0))
    drive = ScsiTapeDrive(line, sleep=lambda seconds: None)
    drive.load()
    yield drive, line
    drive.close()
    library.close()


def raw_set(line: WatchedTransport, parameters: SetDataEncryption) -> None:
    """As another program does it."""
    page = memoryview(encryption.encode_set(parameters))
    command = cdb.security_protocol_out(PROTOCOL, OutPage.SET_DATA_ENCRYPTION, length=len(page))
    assert line.execute(Command(command, Direction.OUT, page, 60.0)).status is Status.GOOD


@pytest.mark.parametrize("kind", [FaultKind.UNIT_ATTENTION, FaultKind.ANSWER_LOST])
def test_nothing_is_in_clear_by_accident(tmp_path: Path, kind: FaultKind) -> None:
    """A drive that was reset has lost its key, and would write in clear what was to be encrypted. When the position is
    lost, writing is refused until somebody says anew how to write."""
    plan = FaultPlan((Fault(kind, nth=2, opcodes=frozenset({Op.WRITE_6})),))
    with drive_of(tmp_path, plan) as (drive, _):
        drive.set_key(KEY, KEY_ID, encrypt=True)
        drive.write_block(memoryview(PAYLOAD))
        with pytest.raises((PositionLost, TransportError)):
            drive.write_block(memoryview(PAYLOAD))
        with pytest.raises(PositionLost):
            drive.write_block(memoryview(PAYLOAD))
        drive.locate(1)
        for _ in range(2):
            with pytest.raises(DriveKeyNeeded, match=f"WRITE of block 1.*{KEY_ID}"):
                drive.write_block(memoryview(PAYLOAD))
        drive.set_key(KEY, KEY_ID, encrypt=True)
        drive.write_block(memoryview(PAYLOAD))
        assert PAYLOAD not in (tmp_path / IMAGE).read_bytes()
        drive.rewind()
        assert [read(drive) for _ in range(3)] == [PAYLOAD, PAYLOAD, Read.END_OF_DATA]


def test_the_memory_drive_does_the_same() -> None:
    """The double refuses what a drive refuses."""
    drive = MemoryTapeDrive(MemoryTape())
    drive.set_key(KEY, KEY_ID, encrypt=True)
    drive.lose_position()
    drive.locate(0)
    with pytest.raises(DriveKeyNeeded):
        drive.write_block(memoryview(PAYLOAD))
    drive.set_key(KEY, KEY_ID, encrypt=False)
    drive.write_block(memoryview(HEADER))


def test_a_drive_that_does_not_do_what_it_says(tmp_path: Path) -> None:
    """It is asked behind each setting. Where it is in another mode, or does not answer, nothing is written."""
    with drive_of(tmp_path) as (drive, line):
        line.before = lambda command: Completion(Status.GOOD) if command.cdb[0] == Op.SECURITY_PROTOCOL_OUT else None
        with pytest.raises(DeviceError, match="modes 0 and 0"):
            drive.set_key(KEY, KEY_ID, encrypt=True)
        with pytest.raises(DriveKeyNeeded):
            drive.write_block(memoryview(PAYLOAD))
        line.before = lambda command: None
        drive.clear_key()
        drive.write_block(memoryview(HEADER))
        line.before = lambda command: ILLEGAL if command.cdb[0] == Op.SECURITY_PROTOCOL_OUT else None
        with pytest.raises(IllegalRequest):
            drive.set_key(KEY, KEY_ID, encrypt=True)
        with pytest.raises(DriveKeyNeeded):
            drive.write_block(memoryview(PAYLOAD))


def test_the_key_does_not_stay_in_the_buffer(tmp_path: Path) -> None:
    """What was sent to the drive is wiped, also when the drive refuses it."""
    sent: list[memoryview] = []

    def keep(command: Command, completion: Completion) -> None:
        if command.cdb[0] == Op.SECURITY_PROTOCOL_OUT:
            assert command.data is not None
            sent.append(command.data)

    with drive_of(tmp_path) as (drive, line):
        line.after = keep
        drive.set_key(KEY, KEY_ID, encrypt=True)
        line.before = lambda command: ILLEGAL if command.cdb[0] == Op.SECURITY_PROTOCOL_OUT else None
        with pytest.raises(IllegalRequest):
            drive.set_key(KEY, KEY_ID, encrypt=True)
    assert [bytes(data) for data in sent] == [bytes(64)] * 2


def test_the_parameters_byte_by_byte(tmp_path: Path) -> None:
    """For all nexuses, to be forgotten when the cartridge goes (CKOD), ENCRYPT or not, MIXED, the key, and its id."""
    sent: list[str] = []

    def before(command: Command) -> None:
        if command.cdb[0] == Op.SECURITY_PROTOCOL_OUT:
            assert command.data is not None
            sent.append(command.data.hex(" "))

    with drive_of(tmp_path) as (drive, line):
        line.before = before
        drive.set_key(KEY, KEY_ID, encrypt=True)
        drive.set_key(KEY, KEY_ID, encrypt=False)
        drive.clear_key()
    key = "00 20 " + KEY.hex(" ") + " 01 00 00 08 01 23 45 67 89 ab cd ef"
    assert sent == [
        f"00 10 00 3c 40 04 02 03 01 00 00 00 00 00 00 00 00 00 {key}",
        f"00 10 00 3c 40 04 00 03 01 00 00 00 00 00 00 00 00 00 {key}",
        "00 10 00 10 40 00 00 00 01 00 00 00 00 00 00 00 00 00 00 00",
    ]


def test_a_unit_attention_before_the_key(tmp_path: Path) -> None:
    """It is told by the next thing that needs the position, and the key is set all the same."""
    plan = FaultPlan((Fault(FaultKind.UNIT_ATTENTION, opcodes=frozenset({Op.SECURITY_PROTOCOL_OUT})),))
    with drive_of(tmp_path, plan) as (drive, _):
        drive.set_key(KEY, KEY_ID, encrypt=True)
        with pytest.raises(PositionLost):
            drive.write_block(memoryview(PAYLOAD))
        drive.rewind()
        drive.write_block(memoryview(PAYLOAD))
        assert PAYLOAD not in (tmp_path / IMAGE).read_bytes()


def test_damage_is_not_a_missing_key(tmp_path: Path) -> None:
    """A block whose integrity check fails with the right key is a medium error that names it, as any bad block is."""
    with drive_of(tmp_path) as (drive, _):
        write_mixed(drive)
        path = tmp_path / IMAGE
        data = bytearray(path.read_bytes())
        data[len(HEADER) + 9 + 60] ^= 1  # within block 1
        path.write_bytes(data)
        assert read(drive) == HEADER
        with pytest.raises(MediumError, match=r"block 1.*integrity"):
            read(drive)
        with pytest.raises(PositionLost):
            read(drive)
        drive.locate(2)
        assert read(drive) == PAYLOAD


def test_what_other_programs_have_written(tmp_path: Path) -> None:
    """Their key's id is shown as they have written it, as text or in hexadecimal digits; a drive that they have left in
    the mode that refuses blocks in clear is not taken for a write-protected cartridge."""
    foreign = (
        (KeyData(b"backup key 1"), "backup key 1"),
        (KeyData(b"ABCDEFGH"), "4142434445464748"),  # 8 bytes are an id as ours are
        (KeyData(b"\x00\xff\x00"), "00ff00"),
        (KeyData(b"", b"from 2019\0\0"), "from 2019"),
        (KeyData(), ""),
    )
    with drive_of(tmp_path) as (drive, line):
        for block, (kads, shown) in enumerate(foreign):
            raw_set(line, SetDataEncryption(EncryptionMode.ENCRYPT, DecryptionMode.MIXED, KEY, kads, algorithm=1))
            drive.write_block(memoryview(PAYLOAD))
            drive.locate(block)
            assert drive.next_block_key() == BlockKey(encrypted=True, key_id=shown)
            drive.clear_key()
            with pytest.raises(DriveKeyNeeded, match=shown or "unknown"):
                read(drive)
            drive.seek_end_of_data()
        drive.write_block(memoryview(HEADER))
        drive.locate(len(foreign))
        raw_set(line, SetDataEncryption(EncryptionMode.DISABLE, DecryptionMode.DECRYPT, KEY, algorithm=1))
        with pytest.raises(DeviceError, match="in clear") as caught:
            read(drive)
        assert not isinstance(caught.value, WriteProtected | DriveKeyNeeded)


@pytest.mark.parametrize("loaded", [True, False])
def test_the_key_of_a_run_that_was_killed(tmp_path: Path, loaded: bool) -> None:
    """It is still in the drive, with the cartridge. Whoever opens the drive next and sets no key writes in clear."""
    with drive_of(tmp_path) as (drive, line):
        drive.set_key(KEY, KEY_ID, encrypt=True)
        drive.write_block(memoryview(PAYLOAD))
        next_one = ScsiTapeDrive(line)
        if loaded:
            next_one.load()
        next_one.locate(1)
        next_one.write_block(memoryview(HEADER))
        assert HEADER in (tmp_path / IMAGE).read_bytes()
        next_one.rewind()
        with pytest.raises(DriveKeyNeeded):
            read(next_one)


def test_the_key_that_another_program_has_set(tmp_path: Path) -> None:
    """Somebody may want all that is written in this drive to be encrypted: that is left as it is."""
    with drive_of(tmp_path) as (_, line):
        kads = KeyData(b"backup key 1")
        raw_set(line, SetDataEncryption(EncryptionMode.ENCRYPT, DecryptionMode.MIXED, KEY, kads, algorithm=1))
        drive = ScsiTapeDrive(line)
        drive.load()
        drive.write_block(memoryview(PAYLOAD))
        assert PAYLOAD not in (tmp_path / IMAGE).read_bytes()
        drive.rewind()
        assert read(drive) == PAYLOAD


def test_a_key_that_is_set_before_anything_else(tmp_path: Path) -> None:
    """It is not taken for one that was left over."""
    with drive_of(tmp_path) as (_, line):
        drive = ScsiTapeDrive(line)
        drive.rewind()
        drive.set_key(KEY, KEY_ID, encrypt=True)
        drive.write_block(memoryview(PAYLOAD))
        assert PAYLOAD not in (tmp_path / IMAGE).read_bytes()


@pytest.mark.parametrize("missing", ["command", "page", "setting", "algorithm"])
def test_a_drive_that_does_not_encrypt(tmp_path: Path, missing: str) -> None:
    """It is found out by asking: a drive without the commands, without a page that is needed, or whose only algorithm
    has no room for the key's id, does not encrypt; asked to, it refuses, and all else works."""
    with drive_of(tmp_path) as (_, line):

        def before(command: Command) -> Completion | None:
            known = command.cdb[0] not in (Op.SECURITY_PROTOCOL_IN, Op.SECURITY_PROTOCOL_OUT)
            return ILLEGAL if missing == "command" and not known else None

        def after(command: Command, completion: Completion) -> None:
            if command.cdb[0] == Op.SECURITY_PROTOCOL_IN and command.data is not None:
                if missing == "page" and command.cdb[3] == 0x00:
                    command.data[2:4] = bytes((0, 8))  # all but the last, the next block's
                if missing == "setting" and command.cdb[3] == 0x01:
                    command.data[2:4] = bytes(2)
                if missing == "algorithm" and command.cdb[3] == 0x10:
                    command.data[20 + 9] = 7

        line.before, line.after = before, after
        drive = ScsiTapeDrive(line)
        assert not drive.capabilities.encryption
        assert find_encrypting(drive) is None
        with pytest.raises(IllegalRequest):
            drive.set_key(KEY, KEY_ID, encrypt=True)
        drive.clear_key()
        assert drive.next_block_key() == BlockKey(encrypted=None)
        drive.write_block(memoryview(HEADER))
        drive.rewind()
        assert read(drive) == HEADER


def test_a_drive_that_encrypts_is_found(tmp_path: Path) -> None:
    """With all that is needed, the drive says so."""
    with drive_of(tmp_path) as (drive, _):
        assert drive.capabilities.encryption
        assert find_encrypting(drive) is drive
        assert find_encrypting(MemoryTapeDrive(encrypts=False)) is None
