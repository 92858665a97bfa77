"""The port to a tape drive: positional, blocking, one owner.

Answers are values: a filemark, the end of data and the early warning are returned. Surprises are raised.

After a unit attention or a transport error the position is unknown: everything but `position`, `rewind`, `locate`,
`seek_end_of_data`, `status`, `load`, `unload` and `close` raises PositionLost until one of the positioning calls
succeeds.

Some drives encrypt: `find_encrypting` gives the port for that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol, cast

from capstan.errors import InvalidValue
from capstan.scsi.attributes import Attribute

DRIVE_KEY_BYTES = 32  # AES-256
_KEY_ID_DIGITS = 16


@dataclass(frozen=True, slots=True)
class DriveIdentity:
    """INQUIRY standard data and unit serial number (VPD 80h)."""

    vendor: str
    product: str
    revision: str
    serial: str


@dataclass(frozen=True, slots=True)
class DriveCapabilities:
    """Discovered when the drive is opened, never assumed. `max_block` in bytes: the least of READ BLOCK LIMITS and
    what the transport carries, less what block protection takes of it."""

    max_block: int
    locate: bool = True  # LOCATE; without it the drive spaces from the beginning
    long_position: bool = True  # READ POSITION long form
    reports_position: bool = True  # READ POSITION says where it stands; else everything is counted, and slow
    reverse_filemarks: bool = True  # SPACE backwards over filemarks
    early_warning: bool = True
    programmable_early_warning: bool = False  # mode page 10h/01h
    compression: bool = False  # it can compress: mode page 0Fh
    log_sense: bool = False
    attributes: bool = False  # MAM: READ ATTRIBUTE, of cartridges that have one
    reservations: bool = False  # PERSISTENT RESERVE with a key
    access_order: bool = False  # `recommended_order`
    reads: tuple[str, ...] = ()  # names of `core.generations`; () where the drive does not say
    writes: tuple[str, ...] = ()
    encryption: bool = False  # `EncryptingDrive`: SECURITY PROTOCOL 20h with a key of 32 bytes and room for its id
    block_protection: bool = False  # CRC-32C of each block between host and drive; callers see nothing of it


@dataclass(frozen=True, slots=True)
class DriveSettings:
    """What a drive is told whenever a cartridge is loaded, if it can. `compression`: None leaves it as it is.
    `early_warning_bytes`: that much before its own early warning the drive warns for the first time; 0 leaves it."""

    compression: bool | None = None
    early_warning_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Reservations:
    """Who may use a drive. `keys` of the hosts that are registered; `holder`: the key of the one that has it for
    itself, None when all may use it."""

    keys: tuple[int, ...] = ()
    holder: int | None = None


@dataclass(frozen=True, slots=True)
class DriveStatus:
    """What TEST UNIT READY and MODE SENSE say now. `density` is the density code, 0 when nothing is loaded."""

    ready: bool
    loaded: bool
    write_protected: bool = False
    worm: bool = False
    density: int = 0
    cleaning_requested: bool = False
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Position:
    """A place on the tape. `block` is the logical block number: records *and filemarks* each count one from the
    beginning of the partition (SSC-5, 4.2.8.2). `file` counts filemarks passed, where the drive says."""

    block: int
    file: int | None = None
    partition: int = 0
    at_beginning: bool = False
    early_warning: bool = False  # behind the early-warning point


class SpaceUnit(Enum):
    """What SPACE counts."""

    BLOCKS = "blocks"
    FILEMARKS = "filemarks"


class Read(Enum):
    """What `read_block` met."""

    DATA = "data"
    FILEMARK = "filemark"
    END_OF_DATA = "end-of-data"


@dataclass(frozen=True, slots=True)
class BlockRead:
    """`length` bytes of the buffer were filled; 0 unless kind is DATA."""

    kind: Read
    length: int = 0


@dataclass(frozen=True, slots=True)
class BlockKey:
    """What the drive knows of the block that the next read would meet. `encrypted` is None when it cannot say or when
    it is no record; `key_id` is empty when it is not encrypted or does not name its key."""

    encrypted: bool | None
    key_id: str = ""


class Room(Enum):
    """What the drive says about the room left after a write that succeeded."""

    AMPLE = "ample"
    EARLY_WARNING = "early-warning"


@dataclass(frozen=True, slots=True)
class MediumCapacity:
    """Native bytes, from LOG SENSE 17h/31h; None where the drive cannot say."""

    total_bytes: int | None = None
    remaining_bytes: int | None = None
    details: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DriveCounters:
    """What a drive has counted since the cartridge in it was loaded, from the log pages that it has; None for what it
    does not say. Bytes and errors: pages 02h and 03h; `wants_cleaning`: page 0Ch; `volume_…`: over the cartridge's
    life, page 17h."""

    written_bytes: int | None = None
    read_bytes: int | None = None
    write_corrected: int | None = None
    write_uncorrected: int | None = None
    read_corrected: int | None = None
    read_uncorrected: int | None = None
    volume_loads: int | None = None
    volume_written_bytes: int | None = None
    volume_read_bytes: int | None = None
    volume_write_uncorrected: int | None = None
    volume_read_uncorrected: int | None = None
    wants_cleaning: bool | None = None


class TapeDrive(Protocol):
    """One drive. Not thread-safe: `media.lane.DriveLane` owns it on a thread of its own."""

    address: str
    identity: DriveIdentity
    capabilities: DriveCapabilities

    def status(self) -> DriveStatus:
        """Ask, without motion. Consumes pending unit attentions (and marks the position unknown if there was one)."""
        ...

    def load(self) -> None:
        """Thread the cartridge in the drive and go to its beginning. NoCartridgeLoaded if there is none."""
        ...

    def unload(self) -> None:
        """Flush, rewind and eject to the robot's reach. Harmless when nothing is loaded."""
        ...

    def position(self) -> Position:
        """READ POSITION. Makes a lost position known again. A reset that is only heard of now raises PositionLost."""
        ...

    def rewind(self) -> None: ...

    def locate(self, block: int) -> None:
        """Go to just before logical block `block`. Beyond the end of data: BlankMedium, position = end of data."""
        ...

    def space(self, count: int, over: SpaceUnit) -> int:
        """Move over `count` (negative: backwards) and return how many were passed; fewer at BOT, EOD, a filemark.

        Spacing blocks stops behind (forwards) or before (backwards) a filemark, as SSC-5 7.5 says.
        """
        ...

    def seek_end_of_data(self) -> Position: ...

    def read_block(self, into: memoryview) -> BlockRead:
        """Read one record of any length up to `len(into)`.

        MediumError: the record cannot be read; the position is behind it when the drive can say so, else lost.
        BlockChanged, one of them: it was changed on its way here; the position is behind it, and it may be read again.
        BlockTooLarge: the record is longer than the buffer; the position is behind it.
        """
        ...

    def write_block(self, block: memoryview) -> Room:
        """Write one record. It is buffered: on the medium only after a synchronous filemark or `flush`.

        EndOfMedium and MediumError void everything since the last synchronous filemark. BlockChanged: it was changed
        on its way to the drive, and the drive has not written it; the position is lost.
        """
        ...

    def write_filemarks(self, count: int = 1, *, immediate: bool = False) -> Room:
        """Not immediate: returns only when everything before is on the medium (a commit)."""
        ...

    def flush(self) -> None:
        """WRITE FILEMARKS with count 0: everything buffered is on the medium when it returns."""
        ...

    def erase(self, *, quick: bool = True) -> None:
        """Make the position the end of data. Long: overwrite the medium from here to its end (hours)."""
        ...

    def capacity(self) -> MediumCapacity: ...

    def alerts(self) -> tuple[int, ...]:
        """TapeAlert flags that are set (LOG SENSE 2Eh); reading them clears them in the drive. () if unsupported."""
        ...

    def counters(self) -> DriveCounters:
        """Ask, without motion."""
        ...

    def attributes(self) -> Mapping[int, Attribute]:
        """What the cartridge's own memory holds, by number (`scsi.attributes.Number` has some); empty where the drive
        cannot say."""
        ...

    def write_attributes(self, attributes: Sequence[Attribute]) -> None:
        """Keep these in the cartridge's memory: all or none. IllegalRequest where the drive or the cartridge cannot."""
        ...

    def reserve(self, key: int, *, preempt: int | None = None) -> None:
        """Keep all other hosts from using the drive, until `release`, or the drive is reset: then it is reserved again
        before anything is read or written. `key`: this host's, 1 to 2**64 - 1. Twice is harmless.

        `preempt`: the key of a host that has it reserved and is dead for sure: what it does in the drive is ended.
        ReservationConflict when another host has it; IllegalRequest where the drive cannot be reserved.
        """
        ...

    def release(self) -> None:
        """Let others use it. Harmless when it is not reserved."""
        ...

    def reservations(self) -> Reservations:
        """Ask, without motion. IllegalRequest where the drive cannot be reserved."""
        ...

    def recommended_order(self, pieces: Sequence[tuple[int, int]]) -> tuple[int, ...]:
        """In which order the drive would read these pieces of the tape, each from a block to one behind it: indices of
        `pieces`. Moves nothing. IllegalRequest where the drive has no opinion (`DriveCapabilities.access_order`)."""
        ...

    def clean(self) -> bool:
        """A cleaning cartridge was put in: wait until the drive is done with it, and lets go of it. False when it is
        not after the longest time that cleaning takes."""
        ...

    def close(self) -> None:
        """Release the transport. Twice is harmless. The cartridge stays where it is."""
        ...


class EncryptingDrive(TapeDrive, Protocol):
    """A drive that encrypts by itself (SSC-5, 8.5). Records in clear and encrypted ones may lie side by side;
    spacing, locating and filemarks need no key.

    A drive has one key at a time, and forgets it when the cartridge is unloaded: it is set again after each mount.
    Where a record is met that needs another key, or any, `read_block` raises DriveKeyNeeded, with the key's id, and the
    tape stands before the record: set the key and read again.

    When the position is lost while records were being encrypted, the drive may have lost its key with it: `write_block`
    then raises DriveKeyNeeded until `set_key` or `clear_key` has succeeded, so that nothing is in clear by accident.
    """

    def set_key(self, key: bytes, key_id: str, *, encrypt: bool) -> None:
        """Read with this key from here on, records in clear too. `encrypt`: each record that is written is encrypted,
        and bears `key_id`; else it is written in clear. Buffered records are not concerned, the position stays.

        `key` has 32 bytes and stays the caller's: nothing here keeps it. `key_id` is 16 hexadecimal digits, for all to
        read. InvalidValue; IllegalRequest for a drive that does not encrypt; DeviceError when the drive does not do it:
        then nothing can be written until this or `clear_key` succeeds.
        """
        ...

    def clear_key(self) -> None:
        """Forget the key: records are written in clear, and encrypted ones raise DriveKeyNeeded. Twice is harmless."""
        ...

    def next_block_key(self) -> BlockKey:
        """What the next `read_block` would need. Moves nothing. NoCartridgeLoaded; PositionLost."""
        ...


def find_encrypting(drive: TapeDrive) -> EncryptingDrive | None:
    """The drive as one that encrypts, or None when it does not."""
    return cast("EncryptingDrive", drive) if drive.capabilities.encryption else None


def check_drive_key(key: bytes, key_id: str) -> None:
    """InvalidValue, which does not show the key, unless both are as `EncryptingDrive.set_key` wants them."""
    if len(key) != DRIVE_KEY_BYTES:
        raise InvalidValue(what="key", value="(not shown)", reason=f"the key of a drive has {DRIVE_KEY_BYTES} bytes")
    if len(key_id) != _KEY_ID_DIGITS or not set(key_id) <= set("0123456789abcdef"):
        raise InvalidValue(what="key id", value=key_id, reason=f"it has {_KEY_ID_DIGITS} hexadecimal digits")
