"""Sense data: what a device says about a command it did not simply do (SPC-5, 4.4)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Key(IntEnum):
    """Sense keys (SPC-5, table 49)."""

    NO_SENSE = 0x0
    RECOVERED_ERROR = 0x1
    NOT_READY = 0x2
    MEDIUM_ERROR = 0x3
    HARDWARE_ERROR = 0x4
    ILLEGAL_REQUEST = 0x5
    UNIT_ATTENTION = 0x6
    DATA_PROTECT = 0x7
    BLANK_CHECK = 0x8
    VENDOR_SPECIFIC = 0x9
    COPY_ABORTED = 0xA
    ABORTED_COMMAND = 0xB
    RESERVED = 0xC
    VOLUME_OVERFLOW = 0xD
    MISCOMPARE = 0xE
    COMPLETED = 0xF


_TEXT = {
    (0x00, 0x01): "filemark detected",
    (0x00, 0x02): "end of partition or medium detected",
    (0x00, 0x04): "beginning of partition or medium detected",
    (0x00, 0x05): "end of data detected",
    (0x00, 0x07): "programmable early warning detected",
    (0x04, 0x00): "not ready",
    (0x04, 0x01): "becoming ready",
    (0x0C, 0x00): "write error",
    (0x10, 0x01): "logical block guard check failed",
    (0x10, 0x05): "logical block protection method error",
    (0x11, 0x00): "unrecovered read error",
    (0x15, 0x01): "mechanical positioning error",
    (0x1A, 0x00): "parameter list length error",
    (0x20, 0x00): "invalid operation code",
    (0x21, 0x01): "invalid element address",
    (0x24, 0x00): "invalid field in the command",
    (0x26, 0x00): "invalid field in the parameter list",
    (0x27, 0x00): "write protected",
    (0x28, 0x00): "not ready to ready: the medium may have changed",
    (0x28, 0x01): "a mail slot was accessed",
    (0x29, 0x00): "power on or reset occurred",
    (0x2A, 0x11): "another host has changed the encryption",
    (0x30, 0x00): "incompatible medium installed",
    (0x30, 0x03): "cleaning cartridge installed",
    (0x30, 0x0C): "WORM medium: overwrite attempted",
    (0x3A, 0x00): "medium not present",
    (0x3B, 0x0D): "medium destination element full",
    (0x3B, 0x0E): "medium source element empty",
    (0x3B, 0x12): "medium magazine removed",
    (0x44, 0x00): "internal target failure",
    (0x53, 0x00): "medium load or eject failed",
    (0x53, 0x02): "medium removal prevented",
    (0x74, 0x00): "security error",
    (0x74, 0x01): "unable to decrypt: no key",
    (0x74, 0x02): "data in clear encountered while decrypting",
    (0x74, 0x03): "incorrect key",
    (0x74, 0x04): "cryptographic integrity validation failed",
}


@dataclass(frozen=True, slots=True)
class Sense:
    """Decoded sense data. `information` is signed as SSC uses it (bytes or blocks asked for less moved)."""

    key: Key
    asc: int = 0
    ascq: int = 0
    filemark: bool = False
    end_of_medium: bool = False
    incorrect_length: bool = False
    information: int | None = None
    deferred: bool = False

    @property
    def code(self) -> tuple[int, int]:
        """Additional sense code and its qualifier."""
        return self.asc, self.ascq

    def __str__(self) -> str:
        text = _TEXT.get(self.code) or self.key.name.lower().replace("_", " ")
        return f"{text} ({self.key:X}/{self.asc:02X}/{self.ascq:02X}{', deferred' if self.deferred else ''})"


def decode_sense(data: bytes) -> Sense:
    """Decode fixed (70h, 71h) or descriptor (72h, 73h) format; whatever else comes becomes NO SENSE or what can be
    made of it. Never raises: a device's bytes are not trusted to be well formed."""
    response = data[0] & 0x7F if data else 0
    if response in (0x72, 0x73):
        return _descriptor(data, deferred=response == 0x73)
    if response not in (0x70, 0x71) or len(data) < 3:
        return Sense(Key.NO_SENSE)
    flags = data[2]
    information = None
    if data[0] & 0x80 and len(data) >= 7:
        information = int.from_bytes(data[3:7], "big", signed=True)
    return Sense(
        key=Key(flags & 0x0F),
        asc=data[12] if len(data) > 12 else 0,
        ascq=data[13] if len(data) > 13 else 0,
        filemark=bool(flags & 0x80),
        end_of_medium=bool(flags & 0x40),
        incorrect_length=bool(flags & 0x20),
        information=information,
        deferred=response == 0x71,
    )


def _descriptor(data: bytes, *, deferred: bool) -> Sense:
    padded = data.ljust(8, b"\0")
    information = None
    flags = 0
    at = 8
    while at + 2 <= len(data):
        kind, length = data[at], data[at + 1]
        body = data[at + 2 : at + 2 + length]
        if kind == 0x00 and len(body) >= 10 and body[0] & 0x80:  # information (SPC-5, 4.4.2.2)
            information = int.from_bytes(body[2:10], "big", signed=True)
        elif kind == 0x04 and len(body) >= 2:  # stream commands (SPC-5, 4.4.2.6)
            flags = body[1]
        at += 2 + length
    return Sense(
        key=Key(padded[1] & 0x0F),
        asc=padded[2],
        ascq=padded[3],
        filemark=bool(flags & 0x80),
        end_of_medium=bool(flags & 0x40),
        incorrect_length=bool(flags & 0x20),
        information=information,
        deferred=deferred,
    )


def encode_sense(sense: Sense) -> bytes:
    """Fixed format, current or deferred: what a target answers."""
    data = bytearray(18)
    data[0] = (0x71 if sense.deferred else 0x70) | (0x80 if sense.information is not None else 0)
    data[2] = (
        sense.key
        | (0x80 if sense.filemark else 0)
        | (0x40 if sense.end_of_medium else 0)
        | (0x20 if sense.incorrect_length else 0)
    )
    if sense.information is not None:
        low, high = -(1 << 31), (1 << 31) - 1
        data[3:7] = min(max(sense.information, low), high).to_bytes(4, "big", signed=True)
    data[7] = 10
    data[12:14] = bytes((sense.asc, sense.ascq))
    return bytes(data)
