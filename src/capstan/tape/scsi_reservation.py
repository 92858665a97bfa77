"""A SCSI tape drive kept from other hosts by a persistent reservation: exclusive access, the key is the host's."""

from __future__ import annotations

from capstan.errors import IllegalRequest, InvalidValue
from capstan.scsi import cdb, reservations
from capstan.scsi.reservations import InAction, Kind, OutAction, ReserveParameters
from capstan.tape.drive import Reservations
from capstan.tape.scsi_commands import DriveCommands

_ALLOCATION = 8192
_MOST_KEY = (1 << 64) - 1


class ScsiReservation:
    """The reservation of one drive. `key`: under which this host has it, 0 when it does not."""

    def __init__(self, commands: DriveCommands) -> None:
        self._commands = commands
        self.key = 0

    def supported(self) -> bool:
        """Ask the drive."""
        command = cdb.reserve_in(InAction.REPORT_CAPABILITIES)
        return reservations.decode_capabilities(self._commands.query(command, _ALLOCATION, optional=True))

    def reserve(self, key: int, preempt: int | None) -> None:
        """As `TapeDrive.reserve`. What failed half-way is undone by `release`."""
        if not 0 < key <= _MOST_KEY:
            raise InvalidValue(what="reservation key", value=key, reason="use 1 to 2**64 - 1")
        self._out(OutAction.REGISTER_AND_IGNORE_EXISTING_KEY, action_key=key)
        self.key = key
        if preempt is not None and preempt in self.state().keys:
            self._out(OutAction.PREEMPT_AND_ABORT, key=key, action_key=preempt)
        self._out(OutAction.RESERVE, key=key)

    def renew(self) -> None:
        """Have it as before: a reset may have undone it. ReservationConflict when another host was faster."""
        if self.key:
            self.reserve(self.key, None)

    def release(self) -> None:
        """As `TapeDrive.release`."""
        key, self.key = self.key, 0
        if key and key in self.state().keys:
            self._out(OutAction.RELEASE, key=key)
            self._out(OutAction.REGISTER, key=key)

    def state(self) -> Reservations:
        """As `TapeDrive.reservations`."""
        held = reservations.decode_reservation(self._in(InAction.READ_RESERVATION))
        keys = reservations.decode_keys(self._in(InAction.READ_KEYS))
        return Reservations(keys, None if held is None else held.key)

    def _in(self, action: InAction) -> bytes:
        data = self._commands.query(cdb.reserve_in(action), _ALLOCATION, optional=True)
        if not data:
            sense = "the drive cannot be reserved"
            raise IllegalRequest(device=self._commands.address, command="PERSISTENT RESERVE IN", sense=sense)
        return data

    def _out(self, action: OutAction, *, key: int = 0, action_key: int = 0) -> None:
        kind = (
            0 if action in (OutAction.REGISTER, OutAction.REGISTER_AND_IGNORE_EXISTING_KEY) else Kind.EXCLUSIVE_ACCESS
        )
        data = ReserveParameters(key, action_key).encode()
        self._commands.send_parameters("PERSISTENT RESERVE OUT", cdb.reserve_out(action, kind), memoryview(data))
