"""What a SCSI tape drive has to say, and what it keeps for hosts beside data: logs, cartridge memory, access order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from capstan.errors import IllegalRequest
from capstan.scsi import access_order, cdb, pages
from capstan.scsi.access_order import Segment
from capstan.scsi.attributes import Attribute, Number, decode_attributes, encode_attributes
from capstan.tape.drive import DriveCounters, MediumCapacity
from capstan.tape.scsi_commands import DriveCommands
from capstan.tape.scsi_counters import read_counters

_MEBIBYTE = 1 << 20
_ALLOCATION = 8192  # bytes: more than any log page, and than all attributes of a cartridge
_REMAINING, _TOTAL = 0x0001, 0x0003  # of the vendors' tape capacity log page (31h), in MiB


class DriveReports(DriveCommands):
    """The part of `tape.drive.TapeDrive` that moves nothing and needs no position."""

    def log_page(self, page: int) -> bytes:
        """The data of a log page; b"" where the drive does not have it."""
        return self.query(cdb.log_sense(page), _ALLOCATION, optional=True)

    def capacity(self) -> MediumCapacity:
        found = pages.decode_log(self.log_page(0x31))
        total, left = found.get(_TOTAL), found.get(_REMAINING)
        if not total or left is None:  # then the cartridge's memory may know it
            memory = self.attributes()
            total = memory[Number.MAXIMUM_CAPACITY].value if Number.MAXIMUM_CAPACITY in memory else b""
            left = memory[Number.REMAINING_CAPACITY].value if Number.REMAINING_CAPACITY in memory else None
        if not total or left is None:
            return MediumCapacity()
        return MediumCapacity(int.from_bytes(total, "big") * _MEBIBYTE, int.from_bytes(left, "big") * _MEBIBYTE)

    def alerts(self) -> tuple[int, ...]:
        return pages.decode_tape_alerts(self.log_page(0x2E))

    def counters(self) -> DriveCounters:
        return read_counters(self.log_page)

    def attributes(self) -> Mapping[int, Attribute]:
        data = self.query(cdb.read_attribute(), _ALLOCATION, optional=True)
        return {item.number: item for item in decode_attributes(data)}

    def write_attributes(self, attributes: Sequence[Attribute]) -> None:
        body = encode_attributes(attributes)
        data = len(body).to_bytes(4, "big") + body
        self.send_parameters("WRITE ATTRIBUTE", cdb.write_attribute(len(data)), memoryview(data))

    def recommended_order(self, pieces: Sequence[tuple[int, int]]) -> tuple[int, ...]:
        if not pieces:
            return ()
        name = "GENERATE RECOMMENDED ACCESS ORDER"
        if len(pieces) > self._most_segments():
            raise IllegalRequest(device=self.address, command=name, sense=f"it does not order {len(pieces)} pieces")
        segments = [Segment(number, first, behind - 1) for number, (first, behind) in enumerate(pieces)]
        data = access_order.encode_segments(segments)
        self.send_parameters(name, cdb.generate_access_order(len(data)), memoryview(data))
        size = len(data) + _ALLOCATION  # some drives answer with longer descriptors
        found = access_order.decode_segments(self.query(cdb.receive_access_order(size), size))
        order = tuple(segment.number for segment in found)
        if sorted(order) != list(range(len(pieces))):
            raise IllegalRequest(device=self.address, command=name, sense="the drive has not ordered what was asked")
        return order

    def _most_segments(self) -> int:
        """How many pieces the drive orders at once; 0 when it does not."""
        return access_order.decode_limits(self.query(cdb.receive_access_order(64, limits=True), 64, optional=True))
