"""A media changer over any SCSI transport (SMC-3)."""

from __future__ import annotations

from dataclasses import replace

from capstan.errors import ChangerError, DeviceError, HardwareError, IllegalRequest, NotReady
from capstan.scsi import cdb, pages
from capstan.scsi.pages import ElementDescriptor, ElementType
from capstan.scsi.sense import Key, decode_sense
from capstan.scsi.transport import Command, Completion, Direction, ScsiTransport, Status
from capstan.tape import timeouts
from capstan.tape.changer import DriveAddress, Element, Inventory, Place, PortAddress, SlotAddress

_DESCRIPTOR_BYTES = 128  # more than one element descriptor with its tags and identifiers takes
_ATTENTIONS = 8  # as many in a row as a device may have queued


class ScsiMediaChanger:
    """Implements `tape.changer.MediaChanger`. Element addresses come from mode page 1Dh."""

    def __init__(self, transport: ScsiTransport) -> None:
        self.address = transport.address
        self._transport = transport
        self._layout = pages.decode_element_address_assignment(
            pages.decode_mode(self._ask("MODE SENSE", cdb.mode_sense(0x1D, block_descriptor=False), 255)).page
        )

    def inventory(self) -> Inventory:
        drives, slots, ports = (
            self._elements(kind) for kind in (ElementType.DRIVE, ElementType.STORAGE, ElementType.IMPORT_EXPORT)
        )
        if not any(
            element.accessible for element in slots
        ):  # a robot that reaches nothing does not say what it reaches
            slots = [replace(element, accessible=True) for element in slots]
        return Inventory(drives=tuple(drives), slots=tuple(slots), ports=tuple(ports))

    def rescan(self) -> Inventory:
        self._tell("INITIALIZE ELEMENT STATUS", cdb.initialize_element_status(), timeouts.INVENTORY)
        return self.inventory()

    def move(self, source: Place, destination: Place) -> None:
        robot = self._layout[ElementType.TRANSPORT][0]
        command = cdb.move_medium(robot, source.element, destination.element)
        try:
            self._tell("MOVE MEDIUM", command, timeouts.MOVE)
        except IllegalRequest as error:
            reason = f"cannot move from {source} to {destination}: {error.parameters['sense']}"
            raise ChangerError(device=self.address, reason=reason) from None
        except HardwareError as error:
            reason = f"the robot failed between {source} and {destination}: {error.parameters['sense']}"
            raise ChangerError(
                device=self.address, reason=reason, hint="look at the library's display, then run an inventory"
            ) from None

    def lock_door(self, *, locked: bool) -> None:
        self._tell("PREVENT ALLOW MEDIUM REMOVAL", cdb.prevent_removal(prevent=locked), timeouts.QUERY)

    def close(self) -> None:
        self._transport.close()

    def _elements(self, kind: ElementType) -> list[Element]:
        """Ask per type: the answer to "all types" is malformed in some emulators."""
        first, count = self._layout[kind]
        if not count:
            return []
        size = min(16 + count * _DESCRIPTOR_BYTES, self._transport.limits.max_transfer)
        identify = kind is ElementType.DRIVE
        try:
            data = self._status(kind, first, count, size, identify=identify)
        except IllegalRequest:
            if not identify:
                raise
            data = self._status(kind, first, count, size, identify=False)  # a changer without DVCID
        found = [self._element(item) for item in pages.decode_element_status(data) if item.type == kind]
        return sorted(found, key=lambda element: element.place.element)

    def _status(self, kind: ElementType, first: int, count: int, size: int, *, identify: bool) -> bytes:
        command = cdb.read_element_status(kind, first=first, count=count, length=size, device_ids=identify)
        return self._ask("READ ELEMENT STATUS", command, size)

    def _element(self, item: ElementDescriptor) -> Element:
        place = self._place(item.address)
        assert place is not None
        return Element(
            place=place,
            full=item.full,
            barcode=item.barcode if item.full else "",
            accessible=item.accessible,
            exception=f"{item.code[0]:02X}/{item.code[1]:02X}" if item.exception else "",
            source=self._place(item.source) if item.source is not None else None,
            drive_serial=item.identifier,
        )

    def _place(self, address: int) -> Place | None:
        for kind, place in (
            (ElementType.STORAGE, SlotAddress),
            (ElementType.IMPORT_EXPORT, PortAddress),
            (ElementType.DRIVE, DriveAddress),
        ):
            first, count = self._layout[kind]
            if first <= address < first + count:
                return place(address)
        return None

    def _ask(self, name: str, command: bytes, size: int) -> bytes:
        buffer = memoryview(bytearray(size))
        completion = self._send(name, command, timeouts.LOG, buffer, Direction.IN)
        return bytes(buffer[: size - completion.residual])

    def _tell(self, name: str, command: bytes, timeout: float) -> None:
        self._send(name, command, timeout, None, Direction.NONE)

    def _send(
        self, name: str, command: bytes, timeout: float, data: memoryview | None, direction: Direction
    ) -> Completion:
        """Deliver one command. A unit attention means that it was not carried out (SAM-5, 5.14): it is sent again."""
        for _ in range(_ATTENTIONS):
            completion = self._transport.execute(Command(command, direction, data, timeout))
            if completion.status is Status.GOOD:
                return completion
            sense = decode_sense(completion.sense)
            if completion.status is Status.CHECK_CONDITION and sense.key is not Key.UNIT_ATTENTION:
                error = {
                    Key.ILLEGAL_REQUEST: IllegalRequest,
                    Key.HARDWARE_ERROR: HardwareError,
                    Key.NOT_READY: NotReady,
                }.get(sense.key, DeviceError)
                raise error(device=self.address, command=name, sense=str(sense))
        raise NotReady(device=self.address, command=name, sense=completion.status.name.lower())
