"""What every SCSI transport must do (`scsi.transport.ScsiTransport`).

Bind it by giving a fixture `transport`: a path to a drive without a cartridge.
"""

from __future__ import annotations

import pytest

from capstan.errors import Delivery, TransportError
from capstan.scsi import cdb
from capstan.scsi.sense import Key, decode_sense
from capstan.scsi.transport import Command, Completion, Direction, ScsiTransport, Status


def send(transport: ScsiTransport, command: bytes, size: int = 0) -> tuple[Completion, bytes]:
    """Deliver a command that reads `size` bytes; pass over unit attentions."""
    for _ in range(8):
        data = memoryview(bytearray(size)) if size else None
        direction = Direction.IN if size else Direction.NONE
        completion = transport.execute(Command(command, direction, data, 60.0))
        if not completion.sense or decode_sense(completion.sense).key is not Key.UNIT_ATTENTION:
            break
    return completion, bytes(data or b"")


class TransportContract:
    """Promises of the port."""

    def test_data_and_residual(self, transport: ScsiTransport) -> None:
        """What the device sends is in the buffer; the residual is what was asked for and did not come."""
        completion, data = send(transport, cdb.inquiry(36), 36)
        assert (completion.status, completion.residual) == (Status.GOOD, 0)
        assert data[0] & 0x1F == 0x01
        completion, longer = send(transport, cdb.inquiry(255), 4096)
        assert completion.status is Status.GOOD
        assert longer[:36] == data
        assert 4096 - completion.residual <= 255

    def test_any_status_is_an_answer(self, transport: ScsiTransport) -> None:
        """CHECK CONDITION is returned with its sense data, not raised."""
        completion, _ = send(transport, cdb.test_unit_ready())
        assert completion.status is Status.CHECK_CONDITION
        assert decode_sense(completion.sense).key is Key.NOT_READY

    def test_an_unknown_command_is_an_answer(self, transport: ScsiTransport) -> None:
        """ILLEGAL REQUEST, invalid operation code."""
        completion, _ = send(transport, bytes((0xFF, 0, 0, 0, 0, 0)))
        assert completion.status is Status.CHECK_CONDITION
        assert decode_sense(completion.sense).key is Key.ILLEGAL_REQUEST

    def test_what_it_cannot_carry_is_not_delivered(self, transport: ScsiTransport) -> None:
        """More than its limit: an error that says that the device has not seen the command."""
        size = transport.limits.max_transfer + transport.limits.alignment
        with pytest.raises(TransportError) as caught:
            transport.execute(Command(cdb.write(size & 0xFFFFFF), Direction.OUT, memoryview(bytearray(size)), 60.0))
        assert caught.value.delivery is Delivery.NOT_DELIVERED

    def test_closed_is_closed(self, transport: ScsiTransport) -> None:
        """Closing twice is harmless; after it nothing is delivered."""
        transport.close()
        transport.close()
        with pytest.raises(TransportError) as caught:
            transport.execute(Command(cdb.test_unit_ready(), Direction.NONE, None, 60.0))
        assert caught.value.delivery is Delivery.NOT_DELIVERED
