"""Persistent reservations of a virtual drive (SPC-5, 5.14), and the hosts that it tells apart.

Nothing is kept when the power goes off: there is no APTPL. The types for all registrants are not there.
"""

from __future__ import annotations

from collections import defaultdict

from capstan.scsi import reservations as codes
from capstan.scsi.cdb import Op
from capstan.scsi.reservations import HeldReservation, InAction, Kind, OutAction, ReserveParameters
from capstan.scsi.sense import Key, Sense
from capstan.scsi.virtual.target import INVALID_FIELD, Conflict, DeviceServer, illegal, put

_EXCLUSIVE = (Kind.EXCLUSIVE_ACCESS, Kind.EXCLUSIVE_ACCESS_REGISTRANTS)
_OF_REGISTRANTS = (Kind.WRITE_EXCLUSIVE_REGISTRANTS, Kind.EXCLUSIVE_ACCESS_REGISTRANTS)
# What every host may do, whoever has the drive (SPC-5, table 73; SSC-5, table 13).
_ALWAYS = frozenset(
    (
        Op.TEST_UNIT_READY,
        Op.INQUIRY,
        Op.REQUEST_SENSE,
        Op.READ_BLOCK_LIMITS,
        Op.REPORT_DENSITY_SUPPORT,
        Op.LOG_SENSE,
        Op.PERSISTENT_RESERVE_IN,
        Op.PERSISTENT_RESERVE_OUT,
    )
)
# What else it may do while another may only write alone.
_READING = frozenset((Op.MODE_SENSE_6, Op.READ_ATTRIBUTE, Op.READ_POSITION, Op.SECURITY_PROTOCOL_IN))
_PREEMPTED, _RELEASED, _REGISTRATION_PREEMPTED = (0x2A, 0x03), (0x2A, 0x04), (0x2A, 0x05)


class DriveReservations:
    """The registrations and the reservation of one drive, which all its hosts share."""

    def __init__(self) -> None:
        self.attentions: dict[str, list[Sense]] = defaultdict(list)
        self.forget()

    def forget(self) -> None:
        """The power was off."""
        self._keys: dict[str, int] = {}
        self._holder: str | None = None
        self._kind = 0
        self._generation = 0

    def conflicts(self, host: str, opcode: int) -> bool:
        """Whether a host may not send this command now."""
        if self._holder is None or host == self._holder or opcode in _ALWAYS:
            return False
        if self._kind in _OF_REGISTRANTS and host in self._keys:
            return False
        return self._kind in _EXCLUSIVE or opcode not in _READING

    def answer(self, cdb: bytes) -> bytes:
        """To PERSISTENT RESERVE IN."""
        held = HeldReservation(self._keys[self._holder], self._kind) if self._holder is not None else None
        match cdb[1] & 0x1F:
            case InAction.READ_KEYS:
                return codes.encode_keys(self._generation, list(self._keys.values()))
            case InAction.READ_RESERVATION:
                return codes.encode_reservation(self._generation, held)
            case InAction.REPORT_CAPABILITIES:
                return codes.encode_capabilities()
        raise illegal(*INVALID_FIELD)

    def take(self, host: str, cdb: bytes, data: bytes) -> int:
        """PERSISTENT RESERVE OUT. ILLEGAL REQUEST, or RESERVATION CONFLICT: nothing has changed."""
        asked = ReserveParameters.decode(data)
        if asked is None or int.from_bytes(cdb[5:9], "big") != codes.PARAMETER_BYTES:
            raise illegal(0x1A)
        action, kind = cdb[1] & 0x1F, cdb[2] & 0x0F
        if action == OutAction.REGISTER_AND_IGNORE_EXISTING_KEY:
            self._register(host, asked.action_key)
        elif action == OutAction.REGISTER:
            if asked.key != self._keys.get(host, 0):
                raise Conflict
            self._register(host, asked.action_key)
        elif host not in self._keys or asked.key != self._keys[host]:
            raise Conflict
        elif action == OutAction.RESERVE:
            self._reserve(host, cdb[2])
        elif action == OutAction.RELEASE:
            self._release(host, cdb[2])
        elif action == OutAction.CLEAR:
            self._tell([other for other in self._keys if other != host], _PREEMPTED)
            self.forget_registrations()
        elif action in (OutAction.PREEMPT, OutAction.PREEMPT_AND_ABORT):
            self._preempt(host, asked.action_key, kind)
        else:
            raise illegal(*INVALID_FIELD)
        return len(data)

    def forget_registrations(self) -> None:
        """CLEAR: nobody is registered, and nothing is reserved."""
        self._keys, self._holder, self._kind = {}, None, 0
        self._generation += 1

    def _register(self, host: str, key: int) -> None:
        self._generation += 1
        if key:
            self._keys[host] = key
        elif self._keys.pop(host, None) is not None and host == self._holder:
            self._free(host)

    def _reserve(self, host: str, scope_and_kind: int) -> None:
        if scope_and_kind not in tuple(Kind):
            raise illegal(*INVALID_FIELD)
        if self._holder is not None and (host, scope_and_kind) != (self._holder, self._kind):
            raise Conflict
        self._holder, self._kind = host, scope_and_kind

    def _release(self, host: str, scope_and_kind: int) -> None:
        if host != self._holder:
            return
        if scope_and_kind != self._kind:
            raise illegal(0x26, 0x04)  # INVALID RELEASE OF PERSISTENT RESERVATION
        self._free(host)

    def _free(self, host: str) -> None:
        if self._kind in _OF_REGISTRANTS:
            self._tell([other for other in self._keys if other != host], _RELEASED)
        self._holder, self._kind = None, 0

    def _preempt(self, host: str, key: int, kind: int) -> None:
        victims = [other for other, theirs in self._keys.items() if theirs == key]
        if not key or not victims:
            raise Conflict if key else illegal(0x26)
        self._generation += 1
        if self._holder is not None and self._keys[self._holder] == key:
            if kind not in tuple(Kind):
                raise illegal(*INVALID_FIELD)
            self._holder, self._kind = host, kind
        for other in victims:
            if other != host:
                del self._keys[other]
                self._tell([other], _REGISTRATION_PREEMPTED)

    def _tell(self, hosts: list[str], code: tuple[int, int]) -> None:
        for host in hosts:
            self.attentions[host].append(Sense(Key.UNIT_ATTENTION, *code))


class HostView:
    """The drive as one host has it: a `DeviceServer` in front of the drive's own."""

    def __init__(self, device: DeviceServer, shared: DriveReservations, host: str) -> None:
        self._device = device
        self._shared = shared
        self._host = host

    def attention(self, opcode: int) -> Sense | None:
        if opcode not in (Op.INQUIRY, Op.REQUEST_SENSE) and self._shared.attentions[self._host]:
            return self._shared.attentions[self._host].pop(0)
        return self._device.attention(opcode)

    def perform(self, cdb: bytes, data: memoryview | None) -> int:
        if self._shared.conflicts(self._host, cdb[0]):
            raise Conflict
        if cdb[0] == Op.PERSISTENT_RESERVE_IN:
            return put(data, self._shared.answer(cdb), int.from_bytes(cdb[7:9], "big"))
        if cdb[0] == Op.PERSISTENT_RESERVE_OUT:
            return self._shared.take(self._host, cdb, bytes(data or b""))
        return self._device.perform(cdb, data)

    def reset(self) -> None:
        """A bus reset leaves reservations alone (SPC-5, 5.14.6)."""
        self._device.reset()
