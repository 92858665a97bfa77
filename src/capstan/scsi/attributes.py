"""Attributes of the medium auxiliary memory, as READ ATTRIBUTE gives and WRITE ATTRIBUTE takes them (SPC-5, 7.4)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum, IntFlag


class Number(IntEnum):
    """Those that Capstan reads or writes (SPC-5, tables 462, 468 and 470; capacities in MiB). Those below 0800h are the
    device's and the medium's own."""

    REMAINING_CAPACITY = 0x0000
    MAXIMUM_CAPACITY = 0x0001
    LOAD_COUNT = 0x0003
    DENSITY = 0x0006
    TOTAL_WRITTEN = 0x0220  # in the cartridge's life, as the next one, in MiB
    TOTAL_READ = 0x0221
    MEDIUM_MANUFACTURER = 0x0400
    MEDIUM_SERIAL = 0x0401
    APPLICATION_VENDOR = 0x0800
    APPLICATION_NAME = 0x0801
    APPLICATION_VERSION = 0x0802
    USER_TEXT_LABEL = 0x0803
    TEXT_LOCALIZATION = 0x0805
    BARCODE = 0x0806
    MEDIA_POOL = 0x0808


class Form(IntFlag):
    """How a value is to be read (SPC-5, table 460)."""

    BINARY = 0
    ASCII = 1
    TEXT = 2
    READ_ONLY = 0x80


@dataclass(frozen=True, slots=True)
class Attribute:
    """One. `value` as it stands in the memory: numbers big-endian, texts padded with spaces."""

    number: int
    form: Form
    value: bytes

    @classmethod
    def number_of(cls, number: int, value: int, length: int) -> Attribute:
        """One of the device's own that counts."""
        return cls(number, Form.BINARY | Form.READ_ONLY, value.to_bytes(length, "big"))

    @classmethod
    def text(cls, number: int, value: str, length: int) -> Attribute:
        """One of the device's own that names."""
        return cls(number, Form.ASCII | Form.READ_ONLY, value.encode("ascii", "replace")[:length].ljust(length))

    def __int__(self) -> int:
        return int.from_bytes(self.value, "big")

    def __str__(self) -> str:
        return self.value.decode("utf-8", "replace").rstrip("\0 ")


def encode_attributes(attributes: Iterable[Attribute]) -> bytes:
    """One behind the other."""
    return b"".join(
        item.number.to_bytes(2, "big") + bytes((item.form,)) + len(item.value).to_bytes(2, "big") + item.value
        for item in attributes
    )


def decode_attributes(data: bytes) -> list[Attribute]:
    """Those in the data of either command, whose first four bytes say how long it is; what is cut off is left out."""
    end = min(len(data), 4 + int.from_bytes(data[:4], "big"))
    found, at = [], 4
    while at + 5 <= end:
        length = int.from_bytes(data[at + 3 : at + 5], "big")
        if at + 5 + length > end:
            break
        value = data[at + 5 : at + 5 + length]
        found.append(Attribute(int.from_bytes(data[at : at + 2], "big"), Form(data[at + 2] & 0x83), value))
        at += 5 + length
    return found
