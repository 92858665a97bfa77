"""A media changer over any SCSI transport (SMC-3)."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

from capstan.errors import (
    ChangerError,
    CommandAborted,
    DeviceError,
    HardwareError,
    IllegalRequest,
    NotReady,
    ReservationConflict,
    TransportError,
)
from capstan.scsi import cdb, pages
from capstan.scsi.pages import ElementDescriptor, ElementType
from capstan.scsi.sense import Key, Sense, decode_sense, text_of
from capstan.scsi.transport import Command, Completion, Direction, ScsiTransport, Status
from capstan.tape import timeouts
from capstan.tape.changer import (
    ChangerCapabilities,
    DriveAddress,
    Element,
    Inventory,
    Place,
    PortAddress,
    SlotAddress,
)
from capstan.tape.scsi_commands import ATTENTIONS, POLL_SECONDS, is_done
from capstan.tape.sense_errors import error_of

_DESCRIPTOR_BYTES = 128  # more than one element descriptor with its tags and identifiers takes
_HEADER_BYTES = 16  # of the data and of its first page
_LARGEST = (1 << 24) - 1  # bytes that READ ELEMENT STATUS can ask for
_READINGS = 5  # how often an inventory is read again because something happened meanwhile
_BECOMING_READY = ((0x04, 0x01), (0x04, 0x07), (0x04, 0x1D))  # all of them end by themselves
_PLACES: dict[ElementType, type[SlotAddress] | type[PortAddress] | type[DriveAddress]] = {
    ElementType.STORAGE: SlotAddress,
    ElementType.IMPORT_EXPORT: PortAddress,
    ElementType.DRIVE: DriveAddress,
}
# A type, its first element and how many there are.
_Layout = dict[ElementType, tuple[int, int]]


class ScsiMediaChanger:
    """Implements `tape.changer.MediaChanger`. Element addresses come from mode page 1Dh.

    `sleep` waits between two looks at a changer that is becoming ready. `only`: the element addresses that are ours, of
    a library that others use too; empty for all.
    """

    def __init__(
        self,
        transport: ScsiTransport,
        *,
        sleep: Callable[[float], None] = time.sleep,
        only: Sequence[range] = (),
    ) -> None:
        self.address = transport.address
        self._transport = transport
        self._sleep = sleep
        self._only = tuple(only)
        self._attentions = 0  # unit attentions heard so far
        self._tags = self._identifiers = True  # until the changer refuses them
        self._layout = self._find_layout()
        self.capabilities = self._find_capabilities()

    def inventory(self) -> Inventory:
        for _ in range(_READINGS):
            heard = self._attentions
            drives, slots, ports = (
                self._elements(kind) for kind in (ElementType.DRIVE, ElementType.STORAGE, ElementType.IMPORT_EXPORT)
            )
            if not any(slot.accessible for slot in slots):  # a robot that reaches nothing does not say what it reaches
                slots = [replace(slot, accessible=True) for slot in slots]
            found = Inventory(drives=tuple(drives), slots=tuple(slots), ports=tuple(ports))
            if heard == self._attentions:
                return found
            self._layout = self._find_layout()  # a door, a mail slot or a reset: what was read may be old
        raise NotReady(device=self.address, command="READ ELEMENT STATUS", sense="it does not come to rest")

    def rescan(self, first: Place | None = None, count: int = 1) -> Inventory:
        if first is not None and self.capabilities.range_scan:
            try:
                command = cdb.initialize_element_range(first.element, count)
                self._tell("INITIALIZE ELEMENT STATUS WITH RANGE", command, timeouts.INVENTORY)
                return self.inventory()
            except IllegalRequest:
                self.capabilities = self.capabilities.without_range_scan()
        self._tell("INITIALIZE ELEMENT STATUS", cdb.initialize_element_status(), timeouts.INVENTORY)
        return self.inventory()

    def move(self, source: Place, destination: Place) -> None:
        self._check_ours(source, destination)
        command = cdb.move_medium(self._robot, source.element, destination.element)
        self._carry("MOVE MEDIUM", command, source, destination)

    def exchange(self, source: Place, destination: Place, displaced: Place) -> None:
        self._check_ours(source, destination, displaced)
        command = cdb.exchange_medium(self._robot, source.element, destination.element, displaced.element)
        self._carry("EXCHANGE MEDIUM", command, source, destination)

    def lock_door(self, *, locked: bool) -> None:
        self._tell("PREVENT ALLOW MEDIUM REMOVAL", cdb.prevent_removal(prevent=locked), timeouts.QUERY)

    def close(self) -> None:
        self._transport.close()

    # ── moves ─────────────────────────────────────────────────────────────────────────────────────────

    @property
    def _robot(self) -> int:
        return self._layout[ElementType.TRANSPORT][0]

    def _check_ours(self, *places: Place) -> None:
        for place in places:
            if not self._is_ours(place.element):
                reason = f"{place} is in a part of the library that is not ours"
                raise ChangerError(device=self.address, reason=reason, hint="capstan.toml says which elements are")

    def _carry(self, name: str, command: bytes, source: Place, destination: Place) -> None:
        try:
            self._tell(name, command, timeouts.MOVE)
        except (ReservationConflict, NotReady):
            raise
        except IllegalRequest as error:
            reason = f"cannot move from {source} to {destination}: {error.parameters['sense']}"
            raise ChangerError(device=self.address, reason=reason, moved=False, hint=error.hint_text) from None
        except DeviceError as error:
            moved = self._has_moved(source, destination)
            reason = f"the robot failed between {source} and {destination}: {error.parameters['sense']}"
            raise ChangerError(
                device=self.address,
                reason=reason,
                moved=moved,
                hint="look at the library's display, then run an inventory",
            ) from None

    def _has_moved(self, source: Place, destination: Place) -> bool | None:
        """Whether a move that failed was made all the same, as far as the changer knows; None when it does not."""
        with suppress(DeviceError, TransportError):
            found = self.inventory()
            at_source, at_destination = found.at(source), found.at(destination)
            if at_source is not None and at_destination is not None and at_source.full != at_destination.full:
                return at_destination.full
        return None

    # ── elements ──────────────────────────────────────────────────────────────────────────────────────

    def _find_layout(self) -> _Layout:
        """Mode page 1Dh; for a changer without it, what it reports of itself."""
        with suppress(IllegalRequest):
            return pages.decode_element_address_assignment(self._mode_page(0x1D))
        layout: _Layout = {}
        for kind in (ElementType.TRANSPORT, *_PLACES):
            addresses = [item.address for item in self._report(kind, 0, 1 << 16) if item.type == kind]
            layout[kind] = (min(addresses), max(addresses) - min(addresses) + 1) if addresses else (0, 0)
        return layout

    def _find_capabilities(self) -> ChangerCapabilities:
        try:
            able = pages.decode_changer_abilities(self._mode_page(0x1F))
        except IllegalRequest:
            able = None
        exchanges = able is not None and (ElementType.STORAGE, ElementType.DRIVE) in able.exchanges
        return ChangerCapabilities(exchange=exchanges, mail_slots=bool(self._layout[ElementType.IMPORT_EXPORT][1]))

    def _mode_page(self, page: int) -> bytes:
        data = self._ask("MODE SENSE", cdb.mode_sense(page, block_descriptor=False), 255)
        return pages.decode_mode(data).page

    def _elements(self, kind: ElementType) -> list[Element]:
        """Ask per type: the answer to "all types" is malformed in some emulators."""
        first, count = self._layout[kind]
        found = [item for item in self._report(kind, first, count) if item.type == kind and self._is_ours(item.address)]
        return sorted((self._element(item) for item in found), key=lambda element: element.place.element)

    def _report(self, kind: ElementType, first: int, count: int) -> list[ElementDescriptor]:
        """Elements of one type, by as many commands as the transport needs for them."""
        largest = min(self._transport.limits.max_transfer, _LARGEST)
        each = max((largest - _HEADER_BYTES) // _DESCRIPTOR_BYTES, 1)
        found: dict[int, ElementDescriptor] = {}
        at, end = first, first + count
        while at < end:
            asked = min(end - at, each, 0xFFFF)
            size = min(4 * _HEADER_BYTES + asked * _DESCRIPTOR_BYTES, largest)
            data = self._element_status(kind, at, asked, size)
            came = [item for item in pages.decode_element_status(data) if at <= item.address < end]
            found |= {item.address: item for item in came}
            if not came:
                if pages.is_cut_off(data):
                    sense = f"not even one element fits into {size} bytes"
                    raise DeviceError(device=self.address, command="READ ELEMENT STATUS", sense=sense)
                break
            if len(came) < asked and not pages.is_cut_off(data):
                break
            at = max(item.address for item in came) + 1
        return list(found.values())

    def _element_status(self, kind: ElementType, first: int, count: int, size: int) -> bytes:
        """READ ELEMENT STATUS with tags and the drives' identifiers, or with as much of it as the changer knows."""
        while True:
            tags, identify = self._tags, self._identifiers and kind is ElementType.DRIVE
            command = cdb.read_element_status(
                kind, first=first, count=count, length=size, tags=tags, device_ids=identify
            )
            try:
                return self._ask("READ ELEMENT STATUS", command, size)
            except IllegalRequest:
                if identify:
                    self._identifiers = False
                elif tags:
                    self._tags = False
                else:
                    raise

    def _is_ours(self, element: int) -> bool:
        return not self._only or any(element in part for part in self._only)

    def _element(self, item: ElementDescriptor) -> Element:
        place = self._place(item.address)
        assert place is not None
        return Element(
            place=place,
            full=item.full,
            barcode=item.barcode if item.full else "",
            accessible=item.accessible and not item.disabled,
            exception=_exception(item),
            source=self._place(item.source) if item.source is not None else None,
            drive_serial=item.identifier,
            put_in=item.put_in,
            imports=item.imports,
            exports=item.exports,
        )

    def _place(self, address: int) -> Place | None:
        for kind, place in _PLACES.items():
            first, count = self._layout[kind]
            if first <= address < first + count:
                return place(address)
        return None

    # ── commands ──────────────────────────────────────────────────────────────────────────────────────

    def _ask(self, name: str, command: bytes, size: int) -> bytes:
        buffer = memoryview(bytearray(size))
        completion = self._send(name, command, timeouts.LOG, buffer, Direction.IN)
        return bytes(buffer[: size - completion.residual])

    def _tell(self, name: str, command: bytes, timeout: float) -> None:
        self._send(name, command, timeout, None, Direction.NONE)

    def _send(
        self, name: str, command: bytes, timeout: float, data: memoryview | None, direction: Direction
    ) -> Completion:
        """Deliver one command. Behind a unit attention, and to a changer that is busy or becoming ready, it was not
        carried out (SAM-5, 5.14): it is sent again."""
        attentions = 0
        for _ in range(int(timeouts.INVENTORY / POLL_SECONDS)):
            completion = self._transport.execute(Command(command, direction, data, timeout))
            if is_done(completion):
                return completion
            sense = decode_sense(completion.sense)
            if completion.status is Status.RESERVATION_CONFLICT:
                raise ReservationConflict(device=self.address, command=name)
            if completion.status is Status.CHECK_CONDITION and sense.key is Key.UNIT_ATTENTION:
                attentions += 1
                self._attentions += 1
                if attentions > ATTENTIONS:
                    break
                continue
            waits = sense.key is Key.NOT_READY and sense.code in _BECOMING_READY
            if completion.status is Status.CHECK_CONDITION and not waits:
                raise self._error(name, sense)
            self._attentions += waits  # it has looked at its elements anew
            self._sleep(POLL_SECONDS)
        text = str(sense) if completion.status is Status.CHECK_CONDITION else completion.status.name.lower()
        raise NotReady(device=self.address, command=name, sense=text)

    def _error(self, name: str, sense: Sense) -> DeviceError:
        """What a robot says of a medium, nobody should hold against the cartridge: it has not read it."""
        error = error_of(sense, device=self.address, command=name)
        if isinstance(error, NotReady | HardwareError | IllegalRequest | CommandAborted):
            return error
        hint = {"hint": error.hint_text} if error.hint_text else {}
        return DeviceError(device=self.address, command=name, sense=str(sense), **hint)


def _exception(item: ElementDescriptor) -> str:
    """What is wrong with an element, in words; "" when nothing is."""
    if not item.exception:
        return ""
    asc, ascq = item.code
    return f"{text_of(asc, ascq) or 'exception'} ({asc:02X}/{ascq:02X})"
