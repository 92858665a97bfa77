"""What a cartridge's own memory says of it, and what we write there, so that any program can tell whose it is.

The memory is a help, and never the truth: the label on the tape is. Each LTO cartridge has it in a chip. Lengths and
forms: SPC-5, tables 462, 468 and 470.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from capstan.core.generations import generation_of_density
from capstan.scsi.attributes import Attribute, Form, Number

VENDOR, APPLICATION = "CAPSTAN", "Capstan"
_MEBIBYTE = 1 << 20
_UTF_8 = 0x81  # text localization identifier (SPC-5, table 475)
_TEXT_BYTES = 160  # of the user medium text label, and of a media pool's name


@dataclass(frozen=True, slots=True)
class CartridgeMemory:
    """What is in it; "" and None for what is not. `label`, `pool`, `barcode`, `application` and `version` were written
    by the last program that cared; all else is the drive's and the manufacturer's."""

    serial: str = ""
    manufacturer: str = ""
    generation: str = ""
    loads: int | None = None
    written_bytes: int | None = None
    read_bytes: int | None = None
    capacity_bytes: int | None = None
    remaining_bytes: int | None = None
    label: str = ""
    pool: str = ""
    barcode: str = ""
    application: str = ""
    version: str = ""


def memory_of(attributes: Mapping[int, Attribute]) -> CartridgeMemory:
    """The content of `TapeDrive.attributes`."""

    def text(number: Number) -> str:
        return str(attributes[number]) if number in attributes else ""

    def number(which: Number, unit: int = 1) -> int | None:
        return int(attributes[which]) * unit if which in attributes and attributes[which].value else None

    density = number(Number.DENSITY)
    generation = None if density is None else generation_of_density(density)
    return CartridgeMemory(
        serial=text(Number.MEDIUM_SERIAL),
        manufacturer=text(Number.MEDIUM_MANUFACTURER),
        generation=generation.name if generation else "",
        loads=number(Number.LOAD_COUNT),
        written_bytes=number(Number.TOTAL_WRITTEN, _MEBIBYTE),
        read_bytes=number(Number.TOTAL_READ, _MEBIBYTE),
        capacity_bytes=number(Number.MAXIMUM_CAPACITY, _MEBIBYTE),
        remaining_bytes=number(Number.REMAINING_CAPACITY, _MEBIBYTE),
        label=text(Number.USER_TEXT_LABEL),
        pool=text(Number.MEDIA_POOL),
        barcode=text(Number.BARCODE),
        application=text(Number.APPLICATION_NAME),
        version=text(Number.APPLICATION_VERSION),
    )


def label_attributes(*, barcode: str, pool: str, version: str, label: str = "") -> Sequence[Attribute]:
    """What to write when a cartridge is labelled. `label`: words for people, cut off after 160 bytes of UTF-8."""
    return (
        _ascii(Number.APPLICATION_VENDOR, VENDOR, 8),
        _ascii(Number.APPLICATION_NAME, APPLICATION, 32),
        _ascii(Number.APPLICATION_VERSION, version, 8),
        _text(Number.USER_TEXT_LABEL, label),
        Attribute(Number.TEXT_LOCALIZATION, Form.BINARY, bytes((_UTF_8,))),
        _ascii(Number.BARCODE, barcode, 32),
        _text(Number.MEDIA_POOL, pool),
    )


def cleared_attributes() -> Sequence[Attribute]:
    """What to write when a cartridge is ours no more: an empty value takes each away."""
    return tuple(Attribute(item.number, item.form, b"") for item in label_attributes(barcode="", pool="", version=""))


def _ascii(number: Number, value: str, length: int) -> Attribute:
    return Attribute(number, Form.ASCII, value.encode("ascii", "replace")[:length].ljust(length))


def _text(number: Number, value: str) -> Attribute:
    whole = value.encode()[:_TEXT_BYTES].decode("utf-8", "ignore").encode()  # no character is cut in two
    return Attribute(number, Form.TEXT, whole.ljust(_TEXT_BYTES, b"\0"))
