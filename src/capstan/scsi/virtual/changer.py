"""The device server of a virtual media changer: answers SMC commands and moves cartridges between elements."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Protocol

from capstan.scsi.cdb import Op
from capstan.scsi.pages import ElementType
from capstan.scsi.sense import Key, Sense
from capstan.scsi.virtual.target import INVALID_FIELD, INVALID_OPCODE, CheckCondition, illegal, inquiry_answer, put
from capstan.scsi.virtual.timing import Timing

ROBOT = 1
FIRST_DRIVE = 101
FIRST_PORT = 201
FIRST_SLOT = 1001
_NEVER_ATTENTION = frozenset({Op.INQUIRY, Op.REQUEST_SENSE})
_TAG_BYTES = 36
_ORDER = (ElementType.TRANSPORT, ElementType.STORAGE, ElementType.IMPORT_EXPORT, ElementType.DRIVE)


class Places(Protocol):
    """Where cartridges are; the library owns it and makes every change durable."""

    def elements(self, kind: ElementType) -> range: ...
    def barcode_at(self, element: int) -> str: ...
    def source_of(self, element: int) -> int | None: ...
    def drive_serial(self, element: int) -> str: ...
    def threaded(self, element: int) -> bool: ...
    def move(self, source: int, destination: int) -> None: ...


class VirtualChanger:
    """One robot. What it says is always true: there are no drawers that a person can open behind its back, only mail
    slots, and `mail_slot_used` reports them."""

    def __init__(self, *, serial: str, places: Places, timing: Timing) -> None:
        self.serial = serial
        self._places = places
        self._timing = timing
        self._attentions: list[Sense] = [Sense(Key.UNIT_ATTENTION, 0x29, 0x00)]
        self._locked = False

    @property
    def locked(self) -> bool:
        """Whether a person is kept from the mail slots."""
        return self._locked

    def mail_slot_used(self) -> None:
        """A person put something into a mail slot, or took it."""
        self._attentions.append(Sense(Key.UNIT_ATTENTION, 0x28, 0x01))

    def attention(self, opcode: int) -> Sense | None:
        if opcode in _NEVER_ATTENTION or not self._attentions:
            return None
        return self._attentions.pop(0)

    def reset(self) -> None:
        """Nothing is lost: the robot knows its elements."""

    def perform(self, cdb: bytes, data: memoryview | None) -> int:
        command = self._COMMANDS.get(cdb[0])
        if command is None:
            raise illegal(*INVALID_OPCODE)
        return command(self, cdb, data)

    def _nothing(self, cdb: bytes, data: memoryview | None) -> int:
        return 0

    def _inquiry(self, cdb: bytes, data: memoryview | None) -> int:
        answer = inquiry_answer(0x08, "Virtual Library", self.serial, cdb)
        return put(data, answer, int.from_bytes(cdb[3:5], "big"))

    def _request_sense(self, cdb: bytes, data: memoryview | None) -> int:
        return put(data, bytes((0x70, 0, 0, 0, 0, 0, 0, 10)) + bytes(10), cdb[4])

    def _mode_sense(self, cdb: bytes, data: memoryview | None) -> int:
        if cdb[2] & 0x3F != 0x1D:
            raise illegal(*INVALID_FIELD)
        page = bytes((0x1D, 18))
        for kind in _ORDER:
            elements = self._places.elements(kind)
            page += elements.start.to_bytes(2, "big") + len(elements).to_bytes(2, "big")
        page += bytes(2)
        return put(data, bytes((3 + len(page), 0, 0, 0)) + page, cdb[4])

    def _prevent_allow(self, cdb: bytes, data: memoryview | None) -> int:
        self._locked = bool(cdb[4] & 1)
        return 0

    def _read_element_status(self, cdb: bytes, data: memoryview | None) -> int:
        wanted = cdb[1] & 0x0F
        if wanted > ElementType.DRIVE:
            raise illegal(*INVALID_FIELD)
        first, limit = int.from_bytes(cdb[2:4], "big"), int.from_bytes(cdb[4:6], "big")
        tags, identify = bool(cdb[1] & 0x10), bool(cdb[6] & 0x01)
        pages = b""
        reported: list[int] = []
        for kind in _ORDER if wanted == ElementType.ALL else (ElementType(wanted),):
            chosen = [element for element in self._places.elements(kind) if element >= first]
            chosen = chosen[: max(limit - len(reported), 0)]
            if chosen:
                reported += chosen
                pages += self._page(kind, chosen, tags=tags, identify=identify and kind is ElementType.DRIVE)
        head = (min(reported, default=0)).to_bytes(2, "big") + len(reported).to_bytes(2, "big")
        answer = head + b"\0" + len(pages).to_bytes(3, "big") + pages
        return put(data, answer, int.from_bytes(cdb[7:10], "big"))

    def _page(self, kind: ElementType, elements: list[int], *, tags: bool, identify: bool) -> bytes:
        descriptors = [self._descriptor(kind, element, tags=tags, identify=identify) for element in elements]
        size = max(len(descriptor) for descriptor in descriptors)
        body = b"".join(descriptor.ljust(size, b"\0") for descriptor in descriptors)
        return (
            bytes((kind, 0x80 if tags else 0)) + size.to_bytes(2, "big") + b"\0" + len(body).to_bytes(3, "big") + body
        )

    def _descriptor(self, kind: ElementType, element: int, *, tags: bool, identify: bool) -> bytes:
        """One element descriptor (SMC-3, tables 28 to 39)."""
        barcode = self._places.barcode_at(element)
        accessible = kind is not ElementType.DRIVE or not self._places.threaded(element)
        flags = (0x01 if barcode else 0) | (0x08 if accessible else 0)
        if kind is ElementType.IMPORT_EXPORT:
            flags |= 0x30  # this port can both import and export
        source = self._places.source_of(element)
        data = element.to_bytes(2, "big") + bytes((flags, 0, 0, 0, 0, 0, 0))
        data += bytes((0x80 if source is not None else 0,)) + (source or 0).to_bytes(2, "big")
        if tags:
            data += (barcode.encode().ljust(32) if barcode else bytes(32)).ljust(_TAG_BYTES, b"\0")
        if identify:
            serial = self._places.drive_serial(element).encode()
            return data + bytes((0x02, 0x00, 0, len(serial))) + serial
        return data + bytes(4)

    def _move_medium(self, cdb: bytes, data: memoryview | None) -> int:
        source, destination = int.from_bytes(cdb[4:6], "big"), int.from_bytes(cdb[6:8], "big")
        known = {element for kind in _ORDER[1:] for element in self._places.elements(kind)}
        if source not in known or destination not in known:
            raise illegal(0x21, 0x01)
        if not self._places.barcode_at(source):
            raise illegal(0x3B, 0x0E)
        if source != destination and self._places.barcode_at(destination):
            raise illegal(0x3B, 0x0D)
        if self._places.threaded(source):
            raise illegal(0x53, 0x02)
        self._timing.move()
        try:
            self._places.move(source, destination)
        except OSError:
            raise CheckCondition(Sense(Key.HARDWARE_ERROR, 0x15, 0x01)) from None
        return 0

    _COMMANDS: ClassVar[dict[int, Callable[[VirtualChanger, bytes, memoryview | None], int]]] = {
        Op.TEST_UNIT_READY: _nothing,
        Op.REQUEST_SENSE: _request_sense,
        Op.INITIALIZE_ELEMENT_STATUS: _nothing,
        Op.INQUIRY: _inquiry,
        Op.MODE_SENSE_6: _mode_sense,
        Op.PREVENT_ALLOW: _prevent_allow,
        Op.MOVE_MEDIUM: _move_medium,
        Op.READ_ELEMENT_STATUS: _read_element_status,
    }
