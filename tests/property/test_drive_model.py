"""The drive on the virtual library does what a list does, whatever is asked of it in whatever order."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from capstan.errors import BlankMedium, DriveKeyNeeded
from capstan.scsi.virtual.library import LibrarySpec, VirtualLibrary
from capstan.tape.changer import DriveAddress, SlotAddress
from capstan.tape.drive import BlockKey, Read, SpaceUnit
from capstan.tape.scsi_changer import ScsiMediaChanger
from capstan.tape.scsi_drive import ScsiTapeDrive
from capstan.testing.drive_contract import read

KEYS = {"0" * 16: b"0" * 32, "1" * 16: b"1" * 32}


class DriveModel(RuleBasedStateMachine):
    """`tape` is the model: records, and None for filemarks; `at` is the logical block number. `locked_by` has the key's
    id of each block that is encrypted; `key` is the id of the drive's key, and `encrypts` whether it writes by it."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="capstan-model-"))
        VirtualLibrary.create(self.folder / "lib", LibrarySpec("lib", cartridges=1, capacity_bytes=64 << 20))
        self.library = VirtualLibrary.open(self.folder / "lib")
        ScsiMediaChanger(self.library.changer_transport()).move(SlotAddress(1001), DriveAddress(101))
        self.drive = ScsiTapeDrive(self.library.drive_transport(0))
        self.drive.load()
        self.tape: list[bytes | None] = []
        self.at = 0
        self.locked_by: dict[int, str] = {}
        self.key, self.encrypts = "", False

    def teardown(self) -> None:
        self.library.close()
        shutil.rmtree(self.folder)

    @rule(data=st.binary(min_size=1, max_size=300))
    def write(self, data: bytes) -> None:
        self.drive.write_block(memoryview(data))
        self.cut()
        if self.encrypts:
            self.locked_by[self.at] = self.key
        self.tape.append(data)
        self.at += 1

    def cut(self) -> None:
        """Whatever is written ends the data there."""
        del self.tape[self.at :]
        self.locked_by = {block: key for block, key in self.locked_by.items() if block < self.at}

    @rule(key=st.sampled_from(sorted(KEYS)), encrypt=st.booleans())
    def set_key(self, key: str, encrypt: bool) -> None:
        self.drive.set_key(KEYS[key], key, encrypt=encrypt)
        self.key, self.encrypts = key, encrypt

    @rule()
    def clear_key(self) -> None:
        self.drive.clear_key()
        self.key, self.encrypts = "", False

    @rule(count=st.integers(1, 3), immediate=st.booleans())
    def filemarks(self, count: int, immediate: bool) -> None:
        self.drive.write_filemarks(count, immediate=immediate)
        self.cut()
        self.tape += [None] * count
        self.at += count

    @rule()
    def read(self) -> None:
        needed = self.locked_by.get(self.at, "")
        if needed not in ("", self.key):
            with pytest.raises(DriveKeyNeeded, match=needed):
                read(self.drive, 512)
            return
        found = read(self.drive, 512)
        if self.at == len(self.tape):
            assert found is Read.END_OF_DATA
            return
        expected = self.tape[self.at]
        assert found == (Read.FILEMARK if expected is None else expected)
        self.at += 1

    @rule(block=st.integers(0, 40))
    def locate(self, block: int) -> None:
        try:
            self.drive.locate(block)
            assert block <= len(self.tape)
        except BlankMedium:
            assert block > len(self.tape)
        self.at = min(block, len(self.tape))

    @rule(count=st.integers(1, 6))
    def space_blocks(self, count: int) -> None:
        passed = 0
        while passed < count and self.at < len(self.tape) and self.tape[self.at] is not None:
            self.at, passed = self.at + 1, passed + 1
        assert self.drive.space(count, SpaceUnit.BLOCKS) == passed
        if passed < count and self.at < len(self.tape):
            self.at += 1  # it stops behind the filemark

    @rule(count=st.integers(-4, 4).filter(bool))
    def space_filemarks(self, count: int) -> None:
        step, passed = (1 if count > 0 else -1), 0
        while passed < abs(count) and (self.at < len(self.tape) if step > 0 else self.at > 0):
            met = self.tape[self.at if step > 0 else self.at - 1]
            self.at += step
            passed += met is None
        assert self.drive.space(count, SpaceUnit.FILEMARKS) == passed

    @rule()
    def rewind(self) -> None:
        self.drive.rewind()
        self.at = 0

    @rule()
    def end_of_data(self) -> None:
        assert self.drive.seek_end_of_data().block == len(self.tape)
        self.at = len(self.tape)

    @rule()
    def unload_and_load(self) -> None:
        self.drive.unload()
        self.drive.load()
        self.at = 0
        self.key, self.encrypts = "", False

    @invariant()
    def the_position_is_known(self) -> None:
        found = self.drive.position()
        assert found.block == self.at
        assert found.file == sum(1 for item in self.tape[: self.at] if item is None)
        assert found.at_beginning == (self.at == 0)

    @invariant()
    def the_next_block_names_its_key(self) -> None:
        record = self.at < len(self.tape) and self.tape[self.at] is not None
        needed = self.locked_by.get(self.at, "")
        assert self.drive.next_block_key() == BlockKey(encrypted=bool(needed) if record else None, key_id=needed)


TestDriveModel = DriveModel.TestCase
TestDriveModel.settings = settings(stateful_step_count=40)
