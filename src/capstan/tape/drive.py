"""The port to a tape drive: positional, blocking, one owner.

Answers are values: a filemark, the end of data and the early warning are returned. Surprises are raised.

After a unit attention or a transport error the position is unknown: everything but `position`, `rewind`, `locate`,
`seek_end_of_data`, `status`, `load`, `unload` and `close` raises PositionLost until one of the positioning calls
succeeds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol


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
    what the transport carries."""

    max_block: int
    locate: bool = True  # LOCATE; without it the drive spaces from the beginning
    long_position: bool = True  # READ POSITION long form
    reverse_filemarks: bool = True  # SPACE backwards over filemarks
    early_warning: bool = True
    programmable_early_warning: bool = False  # mode page 10h/01h
    log_sense: bool = False
    attributes: bool = False  # MAM: READ ATTRIBUTE
    block_protection: bool = False  # a CRC-32C guards each record on its way (SSC-5, 4.2.29); callers never see it


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


class BlockEncryption(Protocol):
    """What a drive can do that encrypts records by itself, by AES-256-GCM (SSC-5, 4.2.27).

    Records in clear and encrypted ones may stand beside one another on a tape. Reading one that the drive has no key
    for, or another one, raises DriveKeyNeeded, which names the key that it wants; the tape stands before it then.
    The drive forgets the key when the cartridge is unloaded.
    """

    def set_key(self, key: bytes, key_id: str, *, encrypt: bool) -> None:
        """From now on read encrypted records with `key` (32 bytes), and clear ones as they are; with `encrypt`, write
        encrypted ones, else clear ones. `key_id`: at most 12 bytes in hexadecimal, kept in clear with each record."""
        ...

    def clear_key(self) -> None:
        """Forget the key: write in clear, and read only what is in clear."""
        ...

    def key_wanted(self) -> str | None:
        """The id of the key that the next record is encrypted with; None if it is in clear, or no record."""
        ...


class TapeDrive(Protocol):
    """One drive. Not thread-safe: `media.lane.DriveLane` owns it on a thread of its own. `encryption`: None if it
    cannot."""

    address: str
    identity: DriveIdentity
    capabilities: DriveCapabilities
    encryption: BlockEncryption | None

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
        BlockTooLarge: the record is longer than the buffer; the position is behind it.
        """
        ...

    def write_block(self, block: memoryview) -> Room:
        """Write one record. It is buffered: on the medium only after a synchronous filemark or `flush`.

        EndOfMedium and MediumError void everything since the last synchronous filemark.
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

    def close(self) -> None:
        """Release the transport. Twice is harmless. The cartridge stays where it is."""
        ...
