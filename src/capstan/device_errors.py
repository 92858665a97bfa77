"""Errors of devices: no answer, or the answer no. To be imported from `capstan.errors`, where the whole tree stands."""

from __future__ import annotations

from typing import Any

from capstan.error_base import CapstanError, Delivery, Remedy


class TransportError(CapstanError):
    """No answer came. Parameters: address, reason; attribute `delivery`."""

    code = "transport"
    exit_code = 7
    remedy = Remedy.REPOSITION
    message = "no answer from {address}: {reason}"
    hint = "check cable, power and adapter; the position of the tape is unknown until it is located again"

    def __init__(self, *, delivery: Delivery, **parameters: Any) -> None:
        super().__init__(**parameters)
        self.delivery = delivery


class DeviceError(CapstanError):
    """The device answered that it did not do it. Parameters: device, command, sense (text), maybe block."""

    code = "device"
    exit_code = 7
    message = "{device}: {command} failed: {sense}"
    hint = "look at what the device shows, then run the command again"


class PositionLost(DeviceError):
    """Only position, rewind, locate and unload may follow. Parameters: device, reason."""

    code = "position-lost"
    remedy = Remedy.REPOSITION
    message = "{device}: the position of the tape is unknown ({reason})"


class NotReady(DeviceError):
    code = "not-ready"
    remedy = Remedy.RETRY


class NoCartridgeLoaded(DeviceError):
    """Parameters: device."""

    code = "no-cartridge-loaded"
    remedy = Remedy.OPERATOR
    message = "{device}: no cartridge is loaded"


class WriteProtected(DeviceError):
    code = "write-protected"
    remedy = Remedy.NEW_CARTRIDGE
    message = "{device}: the cartridge is write-protected"
    hint = "slide the write-protect tab, or use another cartridge"


class DriveKeyNeeded(DeviceError):
    """The next record is encrypted by the drive, and the drive has not its key. Parameters: device, block, key (id),
    sense."""

    code = "drive-key-needed"
    exit_code = 5
    remedy = Remedy.OPERATOR
    message = "{device}: block {block} is encrypted by the drive, with key {key}: {sense}"
    hint = "unlock the key store that has this key (`capstan key list` says whether yours has), or import its export"


class BlockChanged(DeviceError):
    """A record was changed between host and drive: its protection says so. What was to be written was not."""

    code = "block-changed"
    remedy = Remedy.REPOSITION
    message = "{device}: {command}: block {block} was changed on its way between host and drive"
    hint = "check cable and adapter; nothing false was stored or taken for good"


class MediumError(DeviceError):
    """The medium cannot be read or written here. The tape stands behind the bad block after a read."""

    code = "medium-error"
    exit_code = 6
    remedy = Remedy.NEW_CARTRIDGE
    message = "{device}: {command} failed at block {block}: {sense}"
    hint = "clean the drive if it asks; verify the cartridge in another drive; do not write to it again"


class HardwareError(DeviceError):
    code = "hardware-error"
    remedy = Remedy.OPERATOR
    hint = "look at the drive's display and TapeAlerts; use another drive"


class EndOfMedium(DeviceError):
    """VOLUME OVERFLOW: what was buffered since the last synchronous filemark may be lost."""

    code = "end-of-medium"
    remedy = Remedy.NEW_CARTRIDGE
    message = "{device}: the cartridge is full"


class BlankMedium(DeviceError):
    code = "blank-medium"
    message = "{device}: nothing was ever written here"


class IncompatibleMedium(DeviceError):
    code = "incompatible-medium"
    remedy = Remedy.NEW_CARTRIDGE
    message = "{device}: the drive cannot use this cartridge: {sense}"


class BlockTooLarge(DeviceError):
    """A record on the tape is larger than the buffer. Parameters: device, length, limit."""

    code = "block-too-large"
    message = "{device}: a record of {length} bytes does not fit into {limit} bytes"


class IllegalRequest(DeviceError):
    code = "illegal-request"


class ReservationConflict(DeviceError):
    code = "reservation-conflict"
    remedy = Remedy.OPERATOR
    message = "{device}: another host has reserved the drive"


class ChangerError(DeviceError):
    """A move that was not made: nothing changed place. Parameters: device, reason."""

    code = "changer"
    remedy = Remedy.OPERATOR
    message = "{device}: {reason}"
