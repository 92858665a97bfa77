"""What goes over the wire, kept as JSON lines: for reports of trouble with a device that nobody else has.

No data is kept, and so no key and no content; only commands, what became of them, and how long they took.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from capstan.errors import InvalidValue, StorageFailed, TransportError
from capstan.scsi.describe import fields_of, name_of
from capstan.scsi.sense import decode_sense
from capstan.scsi.transport import Command, Completion, ScsiTransport, Status


@dataclass(frozen=True, slots=True)
class Traced:
    """One command. `at`: seconds since the trace began; `length`: of the data asked for, `moved`: that went over, both
    in bytes; `status` is None, and `error` says why, when no answer came."""

    at: float
    address: str
    cdb: str
    direction: str
    length: int
    moved: int
    status: int | None
    sense: str
    seconds: float
    error: str = ""


class Trace:
    """A file of traced commands, of as many devices as there are. Closed by `close`."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        """A new file. AlreadyExists is StorageFailed here: a trace is never written over."""
        try:
            self._file: IO[str] = path.open("x", encoding="utf-8")
        except OSError as error:
            raise StorageFailed(path=path, reason=error.strerror or str(error), hint="name a new file") from None
        self._path = path
        self._clock = clock
        self._began = clock()
        self._lock = threading.Lock()

    def now(self) -> float:
        """Seconds since it began."""
        return self._clock() - self._began

    def keep(self, traced: Traced) -> None:
        """Add a line; it is in the file when this returns. What the disk says of it costs no job: the trace ends."""
        with self._lock:
            if self._file.closed:
                return
            try:
                self._file.write(json.dumps(asdict(traced)) + "\n")
                self._file.flush()
            except OSError:
                self._file.close()

    def close(self) -> None:
        self._file.close()


class TracingTransport:
    """A `ScsiTransport` that keeps all that goes through another one."""

    def __init__(self, inner: ScsiTransport, trace: Trace) -> None:
        self._inner = inner
        self._trace = trace
        self.address = inner.address
        self.limits = inner.limits

    def execute(self, command: Command) -> Completion:
        began = self._trace.now()
        try:
            completion = self._inner.execute(command)
        except TransportError as error:
            self._keep(command, began, None, f"{error.delivery.value}: {error}")
            raise
        self._keep(command, began, completion, "")
        return completion

    def close(self) -> None:
        self._inner.close()

    def _keep(self, command: Command, began: float, completion: Completion | None, error: str) -> None:
        length = 0 if command.data is None else command.data.nbytes
        self._trace.keep(
            Traced(
                at=round(began, 6),
                address=self.address,
                cdb=command.cdb.hex(),
                direction=command.direction.value,
                length=length,
                moved=0 if completion is None else length - completion.residual,
                status=None if completion is None else int(completion.status),
                sense="" if completion is None else completion.sense.hex(),
                seconds=round(self._trace.now() - began, 6),
                error=error,
            )
        )


def read_trace(lines: Iterable[str]) -> Iterator[Traced]:
    """The commands of a trace. InvalidValue, with the line's number, for what is none; a last line that was cut off
    ends it."""
    pending: tuple[int, str] | None = None
    for number, line in enumerate(lines, 1):
        if pending is not None:
            raise InvalidValue(what=f"line {pending[0]} of the trace", value=pending[1][:80], reason="it is no command")
        try:
            yield Traced(**json.loads(line))
        except (ValueError, TypeError):
            pending = number, line


def describe_traced(traced: Traced) -> dict[str, Any]:
    """A command in words, for `--json` and for people."""
    cdb = bytes.fromhex(traced.cdb)
    told = {**asdict(traced), "name": name_of(cdb), "fields": fields_of(cdb)}
    if traced.status is not None:
        known = traced.status in Status._value2member_map_
        told["status_name"] = Status(traced.status).name if known else f"{traced.status:02X}h"
    if traced.sense:
        told["sense_text"] = str(decode_sense(bytes.fromhex(traced.sense)))
    return told
