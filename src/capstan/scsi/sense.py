"""Sense data: what a device says about a command it did not simply do (SPC-5, 4.4)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from capstan.scsi.sense_codes import TEXTS


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
        text = text_of(*self.code) or self.key.name.lower().replace("_", " ")
        return f"{text} ({self.key:X}/{self.asc:02X}/{self.ascq:02X}{', deferred' if self.deferred else ''})"


def text_of(asc: int, ascq: int) -> str:
    """An additional sense code in words; "" for one that is not known. From 80h on they are the vendor's own."""
    if asc == 0x40 and ascq >= 0x80:
        return f"diagnostic failure of component {ascq:02X}h"
    return TEXTS.get((asc, ascq), "")


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
