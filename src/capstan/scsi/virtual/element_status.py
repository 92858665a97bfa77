"""Element status pages of a virtual changer (SMC-3, 6.11, tables 24 to 39)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from capstan.scsi.pages import ElementType

_TAG_BYTES = 36  # PRIMARY VOLUME TAG: the volume identifier in 32, and a sequence number
_DATA, _CLEANING, _WORM = 1, 2, 4  # MEDIUM TYPE of the descriptor


@dataclass(slots=True)
class ElementView:
    """What the robot knows of one element. `tag`: the barcode as it reads it, "" when it has none or cannot; `code`:
    additional sense code and qualifier of an exception, (0, 0) for none; `serial`: of a drive."""

    element: int
    full: bool = False
    tag: str = ""
    accessible: bool = True
    code: tuple[int, int] = (0, 0)
    source: int | None = None
    serial: str = ""
    put_in: bool = False
    cleaning: bool = False
    worm: bool = False


def status_page(kind: ElementType, views: Sequence[ElementView], *, tags: bool, identify: bool) -> bytes:
    """The page of one element type: a header, and descriptors of one length."""
    descriptors = [_descriptor(kind, view, tags=tags, identify=identify) for view in views]
    size = max(len(descriptor) for descriptor in descriptors)
    body = b"".join(descriptor.ljust(size, b"\0") for descriptor in descriptors)
    head = bytes((kind, 0x80 if tags else 0)) + size.to_bytes(2, "big") + b"\0" + len(body).to_bytes(3, "big")
    return head + body


def _descriptor(kind: ElementType, view: ElementView, *, tags: bool, identify: bool) -> bytes:
    flags = (0x01 if view.full else 0) | (0x08 if view.accessible else 0) | (0x04 if any(view.code) else 0)
    if kind is ElementType.IMPORT_EXPORT:
        flags |= 0x30 | (0x02 if view.put_in else 0)  # this port can both import and export
    medium = (_CLEANING if view.cleaning else _WORM if view.worm else _DATA) if view.full else 0
    data = view.element.to_bytes(2, "big") + bytes((flags, 0, *view.code, 0, 0, 0))
    data += bytes(((0x80 if view.source is not None else 0) | medium,)) + (view.source or 0).to_bytes(2, "big")
    if tags:
        data += (view.tag.encode().ljust(32) if view.tag else bytes(32)).ljust(_TAG_BYTES, b"\0")
    if identify:
        serial = view.serial.encode()
        return data + bytes((0x02, 0x00, 0, len(serial))) + serial
    return data + bytes(4)
