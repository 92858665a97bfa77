"""What sense data of a drive means for whoever asked: the error to raise. Pure."""

from __future__ import annotations

from capstan.errors import (
    BlankMedium,
    BlockChanged,
    DeviceError,
    DriveKeyNeeded,
    EndOfMedium,
    HardwareError,
    IllegalRequest,
    IncompatibleMedium,
    MediumError,
    NoCartridgeLoaded,
    NotReady,
    WriteProtected,
)
from capstan.scsi.block_protection import GUARD_CHECK_FAILED
from capstan.scsi.sense import Key, Sense

MEDIUM_ABSENT = (0x3A, 0x00)
_INCOMPATIBLE = 0x30  # ASC (SPC-5, annex F), but for the write-once medium that is told to be overwritten
_WORM = (0x30, 0x0C)
_DECRYPTION = 0x74  # ASC of all that may be wrong with an encrypted record
_ERRORS: dict[Key, type[DeviceError]] = {
    Key.MEDIUM_ERROR: MediumError,
    Key.HARDWARE_ERROR: HardwareError,
    Key.ILLEGAL_REQUEST: IllegalRequest,
    Key.DATA_PROTECT: WriteProtected,
    Key.BLANK_CHECK: BlankMedium,
    Key.VOLUME_OVERFLOW: EndOfMedium,
    Key.NOT_READY: NotReady,
}
_POSITION_LOST = (Key.MEDIUM_ERROR, Key.HARDWARE_ERROR, Key.ABORTED_COMMAND)


def loses_position(sense: Sense) -> bool:
    """Whether nobody knows any more where the tape stands."""
    return sense.key in _POSITION_LOST or sense.deferred


def needs_key(sense: Sense) -> bool:
    """Whether the drive did not read a record because it is encrypted."""
    return sense.key is Key.DATA_PROTECT and sense.asc == _DECRYPTION


def device_error(sense: Sense, *, device: str, command: str, block: str, key: str = "") -> DeviceError:
    """The error that CHECK CONDITION with `sense` is. `key`: the id of the key that an encrypted record wants."""
    if sense.code == GUARD_CHECK_FAILED:
        return BlockChanged(device=device, command=command, block=block)
    if needs_key(sense):
        return DriveKeyNeeded(device=device, block=block, key=key or "of another program", sense=str(sense))
    if sense.key is Key.NOT_READY and sense.asc == MEDIUM_ABSENT[0]:
        return NoCartridgeLoaded(device=device)
    if sense.asc == _INCOMPATIBLE and sense.code != _WORM:
        return IncompatibleMedium(device=device, command=command, sense=str(sense))
    return _ERRORS.get(sense.key, DeviceError)(device=device, command=command, sense=str(sense), block=block)


def block_name(block: int) -> str:
    """How errors name a block that is counted along; negative where the count was lost."""
    return str(block) if block >= 0 else "unknown"
