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


class OperatorNeeded(NotReady):
    """It will not become ready by waiting: a door is open, it is offline, it must be switched off and on."""

    code = "operator-needed"
    remedy = Remedy.OPERATOR
    hint = "look at what the device shows, and do what it asks for; then run the command again"


class CartridgeWanted(OperatorNeeded):
    """Parameters: device, barcode, found."""

    code = "cartridge-wanted"
    message = "cartridge {barcode} is wanted in {device}, and {found} is in it"
    hint = "put it in"


class CommandAborted(DeviceError):
    """The command was ended on its way, by another host, a reset or an error of the link. Nothing is known of what it
    has done; the position is lost."""

    code = "command-aborted"
    remedy = Remedy.REPOSITION
    hint = "look at cable, adapter and other hosts that use the device; then run the command again"


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


class MediumError(DeviceError):
    """The medium cannot be read or written here. The tape stands behind the bad block after a read."""

    code = "medium-error"
    exit_code = 6
    remedy = Remedy.NEW_CARTRIDGE
    message = "{device}: {command} failed at block {block}: {sense}"
    hint = "clean the drive if it asks; verify the cartridge in another drive; do not write to it again"


class BlockChanged(MediumError):
    """A block was not the same at both ends of the way between host and drive, by its guard. On WRITE nothing was
    written; on READ the tape stands behind the block. Parameters: device, command, block, sense."""

    code = "block-changed"
    exit_code = 7
    remedy = Remedy.REPOSITION
    message = "{device}: {command}: block {block} was changed on its way between host and drive: {sense}"
    hint = "look at cable, adapter and memory: the cartridge is not concerned; then run the command again"


class DriveKeyNeeded(DeviceError):
    """The block was encrypted by a drive, and this one has not got its key; the tape stands before it. Or: blocks are
    to be encrypted, and the drive may have lost the key; nothing was written. Parameters: device, command, block, key
    (the id, `unknown` where the drive cannot say), sense."""

    code = "drive-key-needed"
    exit_code = 5
    remedy = Remedy.OPERATOR
    message = "{device}: {command} of block {block} needs the drive key {key}: {sense}"
    hint = "unlock the key store that has it (`capstan key list`), or take its export in with `capstan key import`"


class HardwareError(DeviceError):
    code = "hardware-error"
    remedy = Remedy.NEW_DRIVE
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
    """A move that failed. Parameters: device, reason; `moved`: whether it was made all the same, None when the changer
    does not know."""

    code = "changer"
    remedy = Remedy.OPERATOR
    message = "{device}: {reason}"
