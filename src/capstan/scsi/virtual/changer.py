"""The device server of a virtual media changer: answers SMC commands and moves cartridges between elements."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Protocol

from capstan.scsi.cdb import Op
from capstan.scsi.pages import ChangerAbilities, ElementType, encode_changer_abilities
from capstan.scsi.sense import Key, Sense
from capstan.scsi.virtual.element_status import ElementView, status_page
from capstan.scsi.virtual.target import INVALID_FIELD, INVALID_OPCODE, CheckCondition, illegal, inquiry_answer, put
from capstan.scsi.virtual.timing import Timing

ROBOT = 1
FIRST_DRIVE = 101
FIRST_PORT = 201
FIRST_SLOT = 1001
_NEVER_ATTENTION = frozenset({Op.INQUIRY, Op.REQUEST_SENSE})
_NEVER_NOT_READY = _NEVER_ATTENTION | {Op.MODE_SENSE_6, Op.PREVENT_ALLOW}
_ORDER = (ElementType.TRANSPORT, ElementType.STORAGE, ElementType.IMPORT_EXPORT, ElementType.DRIVE)
_PLACES = _ORDER[1:]
_ABILITIES = ChangerAbilities(
    moves=frozenset((source, destination) for source in _PLACES for destination in _PLACES),
    exchanges=frozenset((source, destination) for source in _PLACES for destination in _PLACES),
)
_LOOKS_BEHIND_DOOR = 3  # how often it says that it is becoming ready once the door is closed
_DOOR_OPEN = Sense(Key.NOT_READY, 0x04, 0x18)
_BECOMING_READY = Sense(Key.NOT_READY, 0x04, 0x01)


class Places(Protocol):
    """Where cartridges are; the library owns it and makes every change durable."""

    def elements(self, kind: ElementType) -> range: ...
    def occupied(self, element: int) -> bool: ...
    def view(self, kind: ElementType, element: int) -> ElementView: ...
    def threaded(self, element: int) -> bool: ...
    def move(self, source: int, destination: int) -> None: ...


class VirtualChanger:
    """One robot. What it says is true unless a person has opened its door, or used a mail slot: it reports both, and
    looks at its elements again."""

    def __init__(self, *, serial: str, places: Places, timing: Timing) -> None:
        self.serial = serial
        self._places = places
        self._timing = timing
        self._attentions: list[Sense] = [Sense(Key.UNIT_ATTENTION, 0x29, 0x00)]
        self._locked = False
        self._looks = 0
        self.door_open = False
        self.blocked: dict[int, tuple[int, int]] = {}  # elements that the robot cannot reach, and why

    @property
    def locked(self) -> bool:
        """Whether a person is kept from the mail slots and the door."""
        return self._locked

    def mail_slot_used(self) -> None:
        """A person put something into a mail slot, or took it."""
        self._attentions.append(Sense(Key.UNIT_ATTENTION, 0x28, 0x01))

    def door_used(self, *, opened: bool) -> None:
        """A person has opened the door, or closed it."""
        self.door_open = opened
        if not opened:
            self._attentions.append(Sense(Key.UNIT_ATTENTION, 0x28, 0x00))
            self._looks = _LOOKS_BEHIND_DOOR

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
        if cdb[0] not in _NEVER_NOT_READY:
            if self.door_open:
                raise CheckCondition(_DOOR_OPEN)
            if self._looks:
                self._looks -= 1
                raise CheckCondition(_BECOMING_READY)
        return command(self, cdb, data)

    def _nothing(self, cdb: bytes, data: memoryview | None) -> int:
        return 0

    def _inquiry(self, cdb: bytes, data: memoryview | None) -> int:
        answer = inquiry_answer(0x08, "Virtual Library", self.serial, cdb)
        return put(data, answer, int.from_bytes(cdb[3:5], "big"))

    def _request_sense(self, cdb: bytes, data: memoryview | None) -> int:
        return put(data, bytes((0x70, 0, 0, 0, 0, 0, 0, 10)) + bytes(10), cdb[4])

    def _mode_sense(self, cdb: bytes, data: memoryview | None) -> int:
        assignment = bytes((0x1D, 18))
        for kind in _ORDER:
            elements = self._places.elements(kind)
            assignment += elements.start.to_bytes(2, "big") + len(elements).to_bytes(2, "big")
        pages = {
            0x1D: assignment + bytes(2),
            0x1E: bytes((0x1E, 2, 0, 0)),  # transport geometry: the robot does not turn cartridges (SMC-3, 7.3.5)
            0x1F: encode_changer_abilities(_ABILITIES),
        }
        asked = cdb[2] & 0x3F
        if asked != 0x3F and asked not in pages:
            raise illegal(*INVALID_FIELD)
        page = b"".join(pages.values()) if asked == 0x3F else pages[asked]
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
                views = [self._view(kind, element) for element in chosen]
                pages += status_page(kind, views, tags=tags, identify=identify and kind is ElementType.DRIVE)
        head = (min(reported, default=0)).to_bytes(2, "big") + len(reported).to_bytes(2, "big")
        answer = head + b"\0" + len(pages).to_bytes(3, "big") + pages
        return put(data, answer, int.from_bytes(cdb[7:10], "big"))

    def _view(self, kind: ElementType, element: int) -> ElementView:
        view = self._places.view(kind, element)
        if element in self.blocked:
            view.accessible, view.code = False, self.blocked[element]
        return view

    def _initialize_range(self, cdb: bytes, data: memoryview | None) -> int:
        first, count = int.from_bytes(cdb[2:4], "big"), int.from_bytes(cdb[6:8], "big")
        if cdb[1] & 0x01 and count and not any(first in self._places.elements(kind) for kind in _ORDER):
            raise illegal(0x21, 0x01)
        return 0

    def _position_to_element(self, cdb: bytes, data: memoryview | None) -> int:
        if not any(int.from_bytes(cdb[4:6], "big") in self._places.elements(kind) for kind in _ORDER):
            raise illegal(0x21, 0x01)
        return 0

    def _move_medium(self, cdb: bytes, data: memoryview | None) -> int:
        source, destination = int.from_bytes(cdb[4:6], "big"), int.from_bytes(cdb[6:8], "big")
        self._check(cdb, source, destination)
        if source != destination and self._places.occupied(destination):
            raise illegal(0x3B, 0x0D)
        self._carry((source, destination))
        return 0

    def _exchange_medium(self, cdb: bytes, data: memoryview | None) -> int:
        source, first, second = (int.from_bytes(cdb[at : at + 2], "big") for at in (4, 6, 8))
        self._check(cdb, source, first)
        self._check(cdb, first, second)
        if second != source and self._places.occupied(second):
            raise illegal(0x3B, 0x0D)
        if second != source:
            self._carry((first, second), (source, first))
            return 0
        spare = next(
            (slot for slot in self._places.elements(ElementType.STORAGE) if not self._places.occupied(slot)), 0
        )
        if not spare:  # a real robot has two hands; this one needs a place to put one down
            raise illegal(0x3B, 0x0D)
        self._carry((first, spare), (source, first), (spare, second))
        return 0

    def _check(self, cdb: bytes, source: int, destination: int) -> None:
        """Raise what keeps the robot from taking a cartridge there, or from reaching the other place."""
        known = {element for kind in _PLACES for element in self._places.elements(kind)}
        if int.from_bytes(cdb[2:4], "big") not in (0, ROBOT) or source not in known or destination not in known:
            raise illegal(0x21, 0x01)
        if source in self.blocked or destination in self.blocked:
            raise illegal(0x3B, 0x18)
        if not self._places.occupied(source):
            raise illegal(0x3B, 0x0E)
        if self._places.threaded(source):
            raise illegal(0x53, 0x03)

    def _carry(self, *ways: tuple[int, int]) -> None:
        self._timing.move()
        try:
            for source, destination in ways:
                self._places.move(source, destination)
        except OSError:
            raise CheckCondition(Sense(Key.HARDWARE_ERROR, 0x15, 0x01)) from None

    _COMMANDS: ClassVar[dict[int, Callable[[VirtualChanger, bytes, memoryview | None], int]]] = {
        Op.TEST_UNIT_READY: _nothing,
        Op.REQUEST_SENSE: _request_sense,
        Op.INITIALIZE_ELEMENT_STATUS: _nothing,
        Op.INITIALIZE_ELEMENT_STATUS_WITH_RANGE: _initialize_range,
        Op.INQUIRY: _inquiry,
        Op.MODE_SENSE_6: _mode_sense,
        Op.PREVENT_ALLOW: _prevent_allow,
        Op.LOCATE_10: _position_to_element,
        Op.MOVE_MEDIUM: _move_medium,
        Op.EXCHANGE_MEDIUM: _exchange_medium,
        Op.READ_ELEMENT_STATUS: _read_element_status,
    }
