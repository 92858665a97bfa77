"""A tape drive whose tape is a list: the smallest implementation of the drive port, for tests of what lies above it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from capstan.errors import (
    BlankMedium,
    BlockTooLarge,
    DriveKeyNeeded,
    EndOfMedium,
    IllegalRequest,
    MediumError,
    NoCartridgeLoaded,
    PositionLost,
    WriteProtected,
)
from capstan.scsi.attributes import Attribute
from capstan.tape.drive import (
    BlockKey,
    BlockRead,
    DriveCapabilities,
    DriveCounters,
    DriveIdentity,
    DriveStatus,
    MediumCapacity,
    Position,
    Read,
    Reservations,
    Room,
    SpaceUnit,
    check_drive_key,
)


@dataclass(slots=True)
class MemoryTape:
    """One cartridge. `blocks` is what is on it: a record, or None for a filemark; its index is the logical block
    number. `unreadable`: numbers of blocks that raise MediumError when read. `encrypted`: of those that the drive has
    encrypted, the key's id; in `blocks` they are a nonce of 12 bytes and what AES-256-GCM made of them. Sizes in bytes.
    """

    blocks: list[bytes | None] = field(default_factory=list)
    capacity_bytes: int = 1 << 40
    early_warning_bytes: int = 1 << 39
    write_protected: bool = False
    unreadable: set[int] = field(default_factory=set)
    encrypted: dict[int, str] = field(default_factory=dict)


class MemoryTapeDrive:
    """An `EncryptingDrive` over a `MemoryTape`. `tape` may be exchanged while it is unloaded; None: no cartridge.

    `calls` counts how often each motion was asked for, so that a test can tell what a reader does to a drive.
    """

    def __init__(
        self,
        tape: MemoryTape | None = None,
        *,
        max_block: int = 1 << 20,
        reverse: bool = True,
        encrypts: bool = True,
    ) -> None:
        self.address = "memory:"
        self.identity = DriveIdentity(vendor="CAPSTAN", product="MEMORY", revision="1", serial="MEMORY")
        self.capabilities = DriveCapabilities(max_block=max_block, reverse_filemarks=reverse, encryption=encrypts)
        self.tape = tape
        self.calls: dict[str, int] = {}
        self._loaded = tape is not None
        self._at = 0
        self._lost = False
        self._used = sum(len(block or b"") for block in tape.blocks) if tape else 0
        self._cipher: AESGCM | None = None
        self._key_id = ""  # by which records are encrypted now
        self._key_lost = False

    def lose_position(self) -> None:
        """As after a unit attention, which was a reset: until it is located again, the drive refuses what depends on
        the position, and its key is gone."""
        self._lost, self._cipher, self._key_lost = True, None, bool(self._key_id)

    def status(self) -> DriveStatus:
        protected = self.tape.write_protected if self.tape else False
        return DriveStatus(ready=self._loaded, loaded=self._loaded, write_protected=protected)

    def load(self) -> None:
        if self.tape is None:
            raise NoCartridgeLoaded(device=self.address)
        self._loaded, self._at, self._lost = True, 0, False
        self._used = sum(len(block or b"") for block in self.tape.blocks)

    def unload(self) -> None:
        self._loaded, self._at, self._lost = False, 0, False
        self.clear_key()

    def position(self) -> Position:
        blocks = self._medium(positioned=False).blocks
        self._lost = False
        passed = sum(1 for block in blocks[: self._at] if block is None)
        return Position(block=self._at, file=passed, at_beginning=self._at == 0, early_warning=self._early(self._used))

    def rewind(self) -> None:
        self._medium(positioned=False)
        self._count("rewind")
        self._at, self._lost = 0, False

    def locate(self, block: int) -> None:
        end = len(self._medium(positioned=False).blocks)
        self._count("locate")
        self._at, self._lost = min(block, end), False
        if block > end:
            raise BlankMedium(device=self.address, command="LOCATE")

    def space(self, count: int, over: SpaceUnit) -> int:
        blocks = self._medium().blocks
        self._count("space")
        if count < 0 and over is SpaceUnit.FILEMARKS and not self.capabilities.reverse_filemarks:
            raise IllegalRequest(device=self.address, command="SPACE", sense="it cannot space backwards")
        passed, step = 0, 1 if count > 0 else -1
        while passed < abs(count):
            met = self._at if count > 0 else self._at - 1
            if not 0 <= met < len(blocks):
                break
            self._at += step
            if blocks[met] is None and over is SpaceUnit.BLOCKS:
                break
            passed += over is SpaceUnit.BLOCKS or blocks[met] is None
        return passed

    def seek_end_of_data(self) -> Position:
        self._at = len(self._medium(positioned=False).blocks)
        self._count("seek")
        return self.position()

    def read_block(self, into: memoryview) -> BlockRead:
        tape = self._medium()
        if self._at >= len(tape.blocks):
            return BlockRead(Read.END_OF_DATA)
        block, at = tape.blocks[self._at], self._at
        if block is not None and at in tape.encrypted:
            block = self._decrypted(block, tape.encrypted[at])
        self._at += 1
        if at in tape.unreadable:
            raise MediumError(device=self.address, command="READ", block=at, sense="unrecovered read error")
        if block is None:
            return BlockRead(Read.FILEMARK)
        if len(block) > len(into):
            raise BlockTooLarge(device=self.address, length=len(block), limit=len(into))
        self._count("read")
        into[: len(block)] = block
        return BlockRead(Read.DATA, len(block))

    def write_block(self, block: memoryview) -> Room:
        if len(block) > self.capabilities.max_block:
            raise BlockTooLarge(device=self.address, length=len(block), limit=self.capabilities.max_block)
        if self._key_lost:
            self._medium()
            raise DriveKeyNeeded(device=self.address, command="WRITE", block=self._at, key=self._key_id, sense="lost")
        at, key_id, cipher = self._at, self._key_id, self._cipher
        if not key_id or cipher is None:
            return self._append(bytes(block))
        nonce = os.urandom(12)
        room = self._append(nonce + cipher.encrypt(nonce, bytes(block), key_id.encode()))
        self._medium().encrypted[at] = key_id
        return room

    def write_filemarks(self, count: int = 1, *, immediate: bool = False) -> Room:
        del immediate
        room = self._room()
        for _ in range(count):
            room = self._append(None)
        return room

    def flush(self) -> None:
        self._medium()

    def erase(self, *, quick: bool = True) -> None:
        del quick
        self._cut()

    def set_key(self, key: bytes, key_id: str, *, encrypt: bool) -> None:
        check_drive_key(key, key_id)
        if not self.capabilities.encryption:
            raise IllegalRequest(device=self.address, command="SET DATA ENCRYPTION", sense="it does not encrypt")
        self._medium(positioned=False)
        self._cipher, self._key_id, self._key_lost = AESGCM(key), key_id if encrypt else "", False

    def clear_key(self) -> None:
        self._cipher, self._key_id, self._key_lost = None, "", False

    def next_block_key(self) -> BlockKey:
        tape = self._medium()
        if self._at >= len(tape.blocks) or tape.blocks[self._at] is None:
            return BlockKey(encrypted=None)
        return BlockKey(encrypted=self._at in tape.encrypted, key_id=tape.encrypted.get(self._at, ""))

    def _decrypted(self, block: bytes, key_id: str) -> bytes:
        sense = "no key"
        if self._cipher is not None:
            try:
                return self._cipher.decrypt(block[:12], block[12:], key_id.encode())
            except InvalidTag:
                sense = "incorrect key"
        raise DriveKeyNeeded(device=self.address, command="READ", block=self._at, key=key_id, sense=sense)

    def capacity(self) -> MediumCapacity:
        tape = self._medium(positioned=False)
        return MediumCapacity(total_bytes=tape.capacity_bytes, remaining_bytes=tape.capacity_bytes - self._used)

    def alerts(self) -> tuple[int, ...]:
        return ()

    def counters(self) -> DriveCounters:
        return DriveCounters()

    def attributes(self) -> Mapping[int, Attribute]:
        return {}

    def write_attributes(self, attributes: Sequence[Attribute]) -> None:
        raise IllegalRequest(device=self.address, command="WRITE ATTRIBUTE", sense="there is no memory")

    def reserve(self, key: int, *, preempt: int | None = None) -> None:
        raise IllegalRequest(device=self.address, command="RESERVE", sense="there are no other hosts")

    def release(self) -> None:
        """There is nothing to release."""

    def reservations(self) -> Reservations:
        raise IllegalRequest(device=self.address, command="RESERVE", sense="there are no other hosts")

    def recommended_order(self, pieces: Sequence[tuple[int, int]]) -> tuple[int, ...]:
        raise IllegalRequest(device=self.address, command="ACCESS ORDER", sense="it has no opinion")

    def clean(self) -> bool:
        return True

    def close(self) -> None:
        self._lost = True

    def _medium(self, *, positioned: bool = True) -> MemoryTape:
        if self.tape is None or not self._loaded:
            raise NoCartridgeLoaded(device=self.address)
        if positioned and self._lost:
            raise PositionLost(device=self.address, reason="unit attention")
        return self.tape

    def _append(self, block: bytes | None) -> Room:
        tape = self._cut()
        if self._used + len(block or b"") > tape.capacity_bytes:
            raise EndOfMedium(device=self.address)
        tape.blocks.append(block)
        self._used += len(block or b"")
        self._at += 1
        return self._room()

    def _cut(self) -> MemoryTape:
        tape = self._medium()
        if tape.write_protected:
            raise WriteProtected(device=self.address)
        if self._at < len(tape.blocks):
            del tape.blocks[self._at :]
            tape.unreadable = {block for block in tape.unreadable if block < self._at}
            tape.encrypted = {block: key for block, key in tape.encrypted.items() if block < self._at}
            self._used = sum(len(block or b"") for block in tape.blocks)
        return tape

    def _early(self, used: int) -> bool:
        return self.tape is not None and used >= self.tape.early_warning_bytes

    def _room(self) -> Room:
        return Room.EARLY_WARNING if self._early(self._used) else Room.AMPLE

    def _count(self, call: str) -> None:
        self.calls[call] = self.calls.get(call, 0) + 1
