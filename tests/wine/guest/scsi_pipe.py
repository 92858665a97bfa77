"""The other end of the driver `native/passthrough.c`: carries out on any transport what arrives at a device."""

from __future__ import annotations

import struct
import threading
from multiprocessing.connection import Listener

from capstan.errors import Delivery, TransportError
from capstan.scsi.transport import Command, Direction, ScsiTransport

_REQUEST = struct.Struct("<BBII16s")
_ANSWER = struct.Struct("<IBBI")
_DIRECTIONS = {0: Direction.OUT, 1: Direction.IN, 2: Direction.NONE}
IO_TIMEOUT, INVALID_PARAMETER = 0xC00000B5, 0xC000000D  # NTSTATUS


class ServedDevice:
    r"""`transport` behind `\\.\NAME`, until `close`. `failures`: the NTSTATUS of the next commands, in the device's
    place; 0 lets one through."""

    def __init__(self, name: str, transport: ScsiTransport) -> None:
        self.path = rf"\\.\{name}"
        self.transport = transport
        self.failures: list[int] = []
        self.timeouts: list[int] = []  # what Windows was told, in seconds
        self._listener = Listener(rf"\\.\pipe\capstan-{name}", "AF_PIPE")
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while not self._closed:
            try:
                with self._listener.accept() as connection:
                    while not self._closed:
                        connection.send_bytes(self._carry_out(connection.recv_bytes()))
            except (EOFError, OSError):
                continue  # whoever had the device open has closed it

    def _carry_out(self, message: bytes) -> bytes:
        length, way, size, timeout, cdb = _REQUEST.unpack_from(message)
        self.timeouts.append(timeout)
        failure = self.failures.pop(0) if self.failures else 0
        if failure:
            return _ANSWER.pack(failure, 0, 0, 0)
        direction = _DIRECTIONS[way]
        data = bytearray(message[_REQUEST.size :]) if direction is Direction.OUT else bytearray(size)
        try:
            done = self.transport.execute(
                Command(cdb[:length], direction, memoryview(data) if size else None, float(timeout))
            )
        except TransportError as error:
            failure = IO_TIMEOUT if error.delivery is Delivery.UNKNOWN else INVALID_PARAMETER
            return _ANSWER.pack(failure, 0, 0, 0)
        moved = size - done.residual
        came = bytes(data[:moved]) if direction is Direction.IN else b""
        return _ANSWER.pack(0, done.status, len(done.sense), moved) + done.sense + came

    def close(self) -> None:
        """End serving. The device must not be open any more."""
        self._closed = True
        try:
            from multiprocessing.connection import Client

            Client(self._listener.address, "AF_PIPE").close()  # so that `accept` returns
        except OSError:
            pass
        self._thread.join(10)
        self._listener.close()
