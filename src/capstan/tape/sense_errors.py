"""What sense data of drives and changers means for us: an error with its remedy, and what a person should do.

One table. The most exact row counts: key and both codes, then key and additional sense code, then the codes alone, then
the key alone. Codes: SPC-5, annex F; what tape drives give them for: SSC-5, table 17; changers: SMC-3, 4.5.
"""

from __future__ import annotations

from dataclasses import dataclass

from capstan.errors import (
    BlankMedium,
    BlockChanged,
    CommandAborted,
    DeviceError,
    EndOfMedium,
    HardwareError,
    IllegalRequest,
    IncompatibleMedium,
    MediumError,
    NoCartridgeLoaded,
    NotReady,
    OperatorNeeded,
    PositionLost,
    WriteProtected,
)
from capstan.scsi.sense import Key, Sense


@dataclass(frozen=True, slots=True)
class Meaning:
    """`hint`: what to do, "" where the error's own says it. `keeps_position`: the tape is where it was."""

    error: type[DeviceError]
    hint: str = ""
    keeps_position: bool = True


_WAIT = "wait until it is ready, then run the command again"
_DOOR = "close the door of the library; it looks at all cartridges then"
_ONLINE = "set it online at the device's own panel"
_POWER = "switch the device off and on; if it comes again, have it repaired"
_LINK = "look at cable, adapter and switches between here and the device"
_EXPIRED = "put a new cleaning cartridge into the library"
_OTHER_DRIVE = "verify the cartridge in another drive; if it fails there too, copy what is on it and retire it"
_SERVICE = "have the cartridge taken out by service: pulling at it tears the tape"
_WORM = "it is a WORM cartridge: only what is behind its end can be written"
_BROKEN = "the cartridge is broken: copy what can be read, and retire it"
_CLEANING = "try another cleaning cartridge; then have the drive repaired"
_NO_END = "the end of the data cannot be found; what is before it can be read"
_ADDRESS = "the address is that of no device: `capstan discover` lists what there is"
_MOVED = "run `capstan library inventory NAME`: somebody has moved a cartridge"
_MAGAZINE = "put the magazine in"
_SOFTWARE = "another program has protected it: end it, and load the cartridge again"

_NOT_READY, _MEDIUM, _HARDWARE = Key.NOT_READY, Key.MEDIUM_ERROR, Key.HARDWARE_ERROR
_ILLEGAL, _PROTECT, _BLANK = Key.ILLEGAL_REQUEST, Key.DATA_PROTECT, Key.BLANK_CHECK
_ABORTED = Key.ABORTED_COMMAND

_Code = tuple[Key | None, int | None, int | None]
_TABLE: dict[_Code, Meaning] = {
    # What a key alone says.
    (Key.NO_SENSE, None, None): Meaning(DeviceError),
    (Key.RECOVERED_ERROR, None, None): Meaning(DeviceError),
    (_NOT_READY, None, None): Meaning(NotReady, _WAIT),
    (_MEDIUM, None, None): Meaning(MediumError, keeps_position=False),
    (_HARDWARE, None, None): Meaning(HardwareError, keeps_position=False),
    (_ILLEGAL, None, None): Meaning(IllegalRequest),
    (Key.UNIT_ATTENTION, None, None): Meaning(PositionLost, keeps_position=False),
    (_PROTECT, None, None): Meaning(WriteProtected),
    (_BLANK, None, None): Meaning(BlankMedium),
    (Key.VENDOR_SPECIFIC, None, None): Meaning(DeviceError, keeps_position=False),
    (Key.COPY_ABORTED, None, None): Meaning(CommandAborted, keeps_position=False),
    (_ABORTED, None, None): Meaning(CommandAborted, keeps_position=False),
    (Key.VOLUME_OVERFLOW, None, None): Meaning(EndOfMedium),
    (Key.MISCOMPARE, None, None): Meaning(MediumError, keeps_position=False),
    # Not ready: by waiting, or not.
    (_NOT_READY, 0x04, 0x02): Meaning(NotReady, "load the cartridge again"),
    (_NOT_READY, 0x04, 0x03): Meaning(OperatorNeeded),
    (_NOT_READY, 0x04, 0x0C): Meaning(OperatorNeeded, _LINK),
    (_NOT_READY, 0x04, 0x12): Meaning(OperatorNeeded, _ONLINE),
    (_NOT_READY, 0x04, 0x15): Meaning(OperatorNeeded, _ONLINE),
    (_NOT_READY, 0x04, 0x16): Meaning(OperatorNeeded, "configure the library at its own panel"),
    (_NOT_READY, 0x04, 0x17): Meaning(OperatorNeeded, "calibrate the library at its own panel"),
    (_NOT_READY, 0x04, 0x18): Meaning(OperatorNeeded, _DOOR),
    (_NOT_READY, 0x04, 0x1E): Meaning(OperatorNeeded, _POWER),
    (_NOT_READY, 0x04, 0x1F): Meaning(OperatorNeeded, "load the firmware of the device again"),
    (_NOT_READY, 0x04, 0x20): Meaning(OperatorNeeded, _POWER),
    (_NOT_READY, 0x04, 0x21): Meaning(OperatorNeeded, _POWER),
    (_NOT_READY, 0x04, 0x22): Meaning(OperatorNeeded, _POWER),
    (_NOT_READY, 0x3A, None): Meaning(NoCartridgeLoaded),
    (_NOT_READY, 0x3B, 0x11): Meaning(OperatorNeeded, _MAGAZINE),
    (_NOT_READY, 0x3B, 0x12): Meaning(OperatorNeeded, _MAGAZINE),
    (_NOT_READY, 0x3E, None): Meaning(OperatorNeeded, _POWER),
    (_NOT_READY, 0x52, None): Meaning(MediumError, _OTHER_DRIVE),
    (_NOT_READY, 0x53, None): Meaning(HardwareError, _SERVICE, keeps_position=False),
    (_NOT_READY, 0x5A, None): Meaning(OperatorNeeded),
    # The cartridge is none for this drive, or none for data.
    (None, 0x30, None): Meaning(IncompatibleMedium),
    (None, 0x30, 0x03): Meaning(IncompatibleMedium, "it is a cleaning cartridge: `capstan drive clean SERIAL` uses it"),
    (None, 0x30, 0x07): Meaning(HardwareError, _CLEANING),
    (None, 0x30, 0x13): Meaning(IncompatibleMedium, _EXPIRED),
    (_PROTECT, 0x30, 0x0C): Meaning(WriteProtected, _WORM),
    (None, 0x30, 0x0D): Meaning(MediumError, "somebody may have tampered with the WORM cartridge: copy and retire it"),
    # Protected, by a tab or by a program.
    (_PROTECT, 0x27, 0x02): Meaning(WriteProtected, _SOFTWARE),
    (_PROTECT, 0x27, 0x03): Meaning(WriteProtected, _SOFTWARE),
    (_PROTECT, 0x27, 0x04): Meaning(WriteProtected, _SOFTWARE),
    (_PROTECT, 0x27, 0x05): Meaning(WriteProtected, "use another cartridge"),
    (_PROTECT, 0x2A, 0x13): Meaning(DeviceError, "another program uses the key of the drive: let one only have it"),
    (_PROTECT, 0x5A, 0x02): Meaning(WriteProtected, "permit writing at the device's own panel"),
    (_PROTECT, 0x74, None): Meaning(DeviceError),
    (_PROTECT, 0x26, None): Meaning(DeviceError, "set the key of the drive again"),
    # The medium, or the machine around it.
    (None, 0x10, 0x01): Meaning(BlockChanged, keeps_position=False),
    (None, 0x10, 0x04): Meaning(BlockChanged, keeps_position=False),
    (_MEDIUM, 0x52, None): Meaning(MediumError, _BROKEN, False),
    (_HARDWARE, 0x52, None): Meaning(MediumError, _BROKEN, False),
    (_MEDIUM, 0x53, None): Meaning(MediumError, _OTHER_DRIVE, False),
    (_HARDWARE, 0x53, None): Meaning(HardwareError, _SERVICE, False),
    (_HARDWARE, 0x08, None): Meaning(HardwareError, _LINK, False),
    (_HARDWARE, 0x47, None): Meaning(HardwareError, _LINK, False),
    (_HARDWARE, 0x4B, None): Meaning(HardwareError, _LINK, False),
    (_HARDWARE, 0x40, None): Meaning(HardwareError, _POWER, False),
    (_HARDWARE, 0x44, None): Meaning(HardwareError, _POWER, False),
    (_HARDWARE, 0x4C, None): Meaning(HardwareError, _POWER, False),
    (_HARDWARE, 0x30, 0x07): Meaning(HardwareError, _CLEANING, False),
    (_BLANK, 0x14, 0x03): Meaning(MediumError, _NO_END, False),
    # Asked for what cannot be.
    (_ILLEGAL, 0x25, None): Meaning(IllegalRequest, _ADDRESS),
    (_ILLEGAL, 0x26, 0x04): Meaning(IllegalRequest, "another host has reserved the device"),
    (_ILLEGAL, 0x2C, None): Meaning(IllegalRequest, "another host uses the device: let one only have it"),
    (_ILLEGAL, 0x30, None): Meaning(IncompatibleMedium),
    (_ILLEGAL, 0x3A, None): Meaning(NoCartridgeLoaded),
    (_ILLEGAL, 0x3B, 0x0D): Meaning(IllegalRequest, _MOVED),
    (_ILLEGAL, 0x3B, 0x0E): Meaning(IllegalRequest, _MOVED),
    (_ILLEGAL, 0x3B, 0x11): Meaning(IllegalRequest, _MAGAZINE),
    (_ILLEGAL, 0x3B, 0x12): Meaning(IllegalRequest, _MAGAZINE),
    (_ILLEGAL, 0x3B, 0x18): Meaning(IllegalRequest, "enable the element at the library's own panel"),
    (_ILLEGAL, 0x53, 0x02): Meaning(IllegalRequest, "unload the cartridge first, or let the program that locks it end"),
    (_ILLEGAL, 0x53, 0x03): Meaning(IllegalRequest, "unload the cartridge first: the drive holds it"),
}


def meaning_of(sense: Sense) -> Meaning:
    """The row for sense data with which a command has failed. A deferred error speaks of an earlier command: this one
    was not carried out, and the position is lost whatever it is (SPC-5, 4.4.7)."""
    key, asc, ascq = sense.key, sense.asc, sense.ascq
    tries: tuple[_Code, ...] = (
        (key, asc, ascq),
        (key, asc, None),
        (None, asc, ascq),
        (None, asc, None),
        (key, None, None),
    )
    found = next((_TABLE[code] for code in tries if code in _TABLE), Meaning(DeviceError, keeps_position=False))
    if not sense.deferred:
        return found
    if key in (Key.NO_SENSE, Key.RECOVERED_ERROR):
        return Meaning(CommandAborted, keeps_position=False)
    return Meaning(found.error, found.hint, keeps_position=False)


def error_of(sense: Sense, *, device: str, command: str, **parameters: object) -> DeviceError:
    """The error to raise for a command that has failed."""
    meaning = meaning_of(sense)
    hint = {"hint": meaning.hint} if meaning.hint else {}
    return meaning.error(device=device, command=command, sense=str(sense), reason=str(sense), **hint, **parameters)
