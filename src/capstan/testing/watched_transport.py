"""A transport with somebody on the line: sees each command, may change its data, or answer in the drive's place."""

from __future__ import annotations

from collections.abc import Callable

from capstan.scsi.transport import Command, Completion, ScsiTransport


class WatchedTransport:
    """A `ScsiTransport` over another one.

    `before` sees each command on its way out, and may answer it: then the drive never gets it. `after` sees it with its
    answer, and the data that came in; what it changes there, the host gets. `inner` is the line without anybody on it.
    """

    def __init__(
        self,
        transport: ScsiTransport,
        *,
        before: Callable[[Command], Completion | None] = lambda command: None,
        after: Callable[[Command, Completion], None] = lambda command, completion: None,
    ) -> None:
        self.address = transport.address
        self.limits = transport.limits
        self.before = before
        self.after = after
        self.inner = transport

    def execute(self, command: Command) -> Completion:
        completion = self.before(command) or self.inner.execute(command)
        self.after(command, completion)
        return completion

    def close(self) -> None:
        self.inner.close()
