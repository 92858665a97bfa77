"""SCSI commands over iSCSI, in user space: `iscsi:HOST[:PORT]/IQN/LUN`, with `?chap=FILE` for a target that asks who we
are. The file has the user's name in its first line and the secret in its second.

A session that is lost stays lost: reconnecting behind the caller's back would send a command again, and a tape would
have moved twice.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import select
import socket
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from capstan.errors import Delivery, InvalidValue, TransportError
from capstan.scsi import libiscsi
from capstan.scsi.buffers import pinned
from capstan.scsi.transport import Command, Completion, Direction, Status, TransportLimits

SCHEME = "iscsi"
DEFAULT_PORT = 3260  # RFC 7143
_CONNECT_SECONDS = 15
_LOGOUT_SECONDS = 5
_POLL_SECONDS = 1.0
_LIMITS = TransportLimits(max_transfer=8 << 20, max_cdb=libiscsi.MAX_CDB, alignment=1)
_DIRECTIONS = {Direction.NONE: 0, Direction.IN: 1, Direction.OUT: 2}
_UNDERFLOW = 1
_numbers = itertools.count(1)
_ended: dict[int, int] = {}  # status by the number of a command; written by the callback, which does nothing else


def _note_end(context: int, status: int, task: int, number: int) -> None:
    _ended[number] = status


_on_done = libiscsi.OnDone(_note_end)  # must outlive every session


@dataclass(frozen=True, slots=True)
class IscsiAddress:
    """Where a logical unit is. `portal` is HOST:PORT as libiscsi takes it; `chap`: the file with name and secret."""

    portal: str
    target: str
    lun: int
    chap: str = ""


def parse_address(text: str) -> IscsiAddress:
    """What stands behind `iscsi:`. InvalidValue."""
    place, _, options = text.partition("?")
    host, _, rest = place.partition("/")
    target, _, lun = rest.rpartition("/")
    example = "write iscsi:HOST[:PORT]/IQN/LUN, a host of IPv6 in brackets"
    chap = options.removeprefix("chap=")
    if not host or not target.startswith(("iqn.", "eui.", "naa.")) or not lun.isdecimal() or int(lun) > 255:
        raise InvalidValue(what="address", value=f"{SCHEME}:{text}", reason=example)
    if options and (chap == options or not chap):
        raise InvalidValue(what="address", value=f"{SCHEME}:{text}", reason="the only option is ?chap=FILE")
    behind = host.rpartition("]")[2] if host.startswith("[") else host
    port = behind.partition(":")[2]
    if ":" in behind and not (port.isdecimal() and 0 < int(port) < 65536):
        raise InvalidValue(what="address", value=f"{SCHEME}:{text}", reason=example)
    return IscsiAddress(host if ":" in behind else f"{host}:{DEFAULT_PORT}", target, int(lun), chap)


class IscsiTransport:
    """A `ScsiTransport` to one logical unit, with a session of its own; owned by one thread."""

    def __init__(self, place: str) -> None:
        """Log in. InvalidValue for the address; TransportError(NOT_DELIVERED), with what the target said."""
        self._where = parse_address(place)
        self.address = f"{SCHEME}:{place}"
        self.limits = _LIMITS
        self._context: int | None = None
        self._library = libiscsi.load()
        self._log_in()

    def execute(self, command: Command) -> Completion:
        size = 0 if command.data is None else command.data.nbytes
        if self._context is None:
            raise self._failed("the session is over", hint="run the command again: it logs in anew")
        if len(command.cdb) > self.limits.max_cdb or size > self.limits.max_transfer:
            raise self._failed(f"it cannot carry {size} bytes with a command of {len(command.cdb)}")
        if size and command.direction is Direction.NONE:
            raise self._failed("data without a direction")
        library = self._library
        direction = command.direction if size else Direction.NONE
        with ExitStack() as stack:
            task = library.scsi_create_task(len(command.cdb), command.cdb, _DIRECTIONS[direction], size)
            stack.callback(library.scsi_free_scsi_task, task)
            if command.data is not None and size:
                inward = direction is Direction.IN
                add = library.scsi_task_add_data_in_buffer if inward else library.scsi_task_add_data_out_buffer
                add(task, size, stack.enter_context(pinned(command.data)))
            number = next(_numbers)
            stack.callback(_ended.pop, number, None)
            sent = library.iscsi_scsi_command_async(self._context, self._where.lun, task, _on_done, None, number)
            if sent:
                raise self._lost("the command could not be sent", Delivery.NOT_DELIVERED)
            status = self._wait(number, time.monotonic() + command.timeout)
            if status >= libiscsi.FAILED:
                raise self._lost("no answer came")
            return self._completion(task.contents, status, size)

    def close(self) -> None:
        context, self._context = self._context, None
        if context is not None:
            self._library.iscsi_set_timeout(context, _LOGOUT_SECONDS)
            self._library.iscsi_logout_sync(context)
            self._library.iscsi_destroy_context(context)

    def _log_in(self) -> None:
        library, where = self._library, self._where
        context = library.iscsi_create_context(initiator_name().encode())
        try:
            library.iscsi_set_targetname(context, where.target.encode())
            library.iscsi_set_session_type(context, libiscsi.NORMAL_SESSION)
            library.iscsi_set_noautoreconnect(context, 1)
            library.iscsi_set_timeout(context, _CONNECT_SECONDS)
            if where.chap:
                name, secret = read_chap(where.chap)
                library.iscsi_set_initiator_username_pwd(context, name, secret)
            if library.iscsi_connect_sync(context, where.portal.encode()) or library.iscsi_login_sync(context):
                reason = _said(library, context) or "the target did not answer"
                hint = "check host, port and target name (`capstan discover` does not look there), and CHAP if it asks"
                raise self._failed(reason, hint=hint)
            library.iscsi_set_timeout(context, 0)  # each command has its own
        except BaseException:
            library.iscsi_destroy_context(context)
            raise
        self._context = context

    def _wait(self, number: int, deadline: float) -> int:
        """The status of a command. TransportError(UNKNOWN), with the session given up, when none comes in time."""
        library, context = self._library, self._context
        while number not in _ended:
            left = deadline - time.monotonic()
            if left <= 0:
                raise self._lost("it did not answer in time")
            poll = select.poll()
            poll.register(library.iscsi_get_fd(context), library.iscsi_which_events(context))
            found = poll.poll(min(left, _POLL_SECONDS) * 1000)
            if library.iscsi_service(context, found[0][1] if found else 0) < 0:
                raise self._lost("the session was lost")
        return _ended[number]

    def _completion(self, task: libiscsi.Task, status: int, size: int) -> Completion:
        try:
            known = Status(status)
        except ValueError:
            raise self._lost(f"it answered with the status {status:02X}h, which no tape device has") from None
        sense = b""
        if known is Status.CHECK_CONDITION and task.data_in.size > 2:
            raw = ctypes.string_at(task.data_in.data, task.data_in.size)
            sense = raw[2 : 2 + int.from_bytes(raw[:2], "big")]  # behind its length (RFC 7143, 11.4.7.2)
        residual = int(task.residual) if task.residual_status == _UNDERFLOW else 0
        return Completion(known, sense, min(residual, size))

    def _lost(self, reason: str, delivery: Delivery = Delivery.UNKNOWN) -> TransportError:
        """Give the session up: what is on its way is abandoned, before its buffers are."""
        context, self._context = self._context, None
        said = _said(self._library, context)
        self._library.iscsi_destroy_context(context)
        hint = "check the network and the target, then run the command again"
        reason = f"{reason}: {said}" if said else reason
        return TransportError(delivery=delivery, address=self.address, reason=reason, hint=hint)

    def _failed(self, reason: str, *, hint: str = "") -> TransportError:
        more = {"hint": hint} if hint else {}
        return TransportError(delivery=Delivery.NOT_DELIVERED, address=self.address, reason=reason, **more)


def initiator_name() -> str:
    """What this machine calls itself to targets; `/etc/iscsi/initiatorname.iscsi` where the system has one."""
    try:
        for line in Path("/etc/iscsi/initiatorname.iscsi").read_text().splitlines():
            key, _, value = line.partition("=")
            if key.strip() == "InitiatorName" and value.strip():
                return value.strip()
    except OSError:
        pass
    name = "".join(letter for letter in socket.gethostname().lower() if letter.isalnum() or letter in ".-")
    return f"iqn.2024-01.org.capstan:{name or 'host'}"


def read_chap(path: str) -> tuple[bytes, bytes]:
    """Name and secret. InvalidValue, without either, for a file that does not have them, or that others may read."""
    try:
        if os.name == "posix" and Path(path).stat().st_mode & 0o077:
            raise InvalidValue(what="CHAP file", value=path, reason="others may read it: chmod 600")
        lines = Path(path).read_bytes().splitlines()
    except OSError as error:
        raise InvalidValue(what="CHAP file", value=path, reason=error.strerror or str(error)) from None
    if len(lines) < 2 or not all(lines[:2]):
        raise InvalidValue(what="CHAP file", value=path, reason="write the name into the first line, the secret below")
    return lines[0], lines[1]


def _said(library: Any, context: int | None) -> str:
    return (library.iscsi_get_error(context) or b"").decode(errors="replace").strip()
