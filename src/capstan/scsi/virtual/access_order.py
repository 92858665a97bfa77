"""Recommended access order of a virtual drive (SSC-5, 4.2.23): a tape of few wraps, and the nearest piece next."""

from __future__ import annotations

from collections.abc import Sequence

from capstan.scsi import access_order
from capstan.scsi.access_order import Segment
from capstan.scsi.virtual.image import TapeImage
from capstan.scsi.virtual.target import INVALID_FIELD, illegal

_ACTION = 0x1D  # service action of both commands (SSC-5, 7.10 and 7.11)
_REORDER = 0x02  # RAO PROCESS: change the order of what was brought
_MOST_SEGMENTS = 2000
_WRAPS = 8  # lengths of a virtual tape: fewer than a real one's, to make small tapes run both ways


class AccessOrder:
    """The list of one drive, from GENERATE to RECEIVE RECOMMENDED ACCESS ORDER."""

    def __init__(self) -> None:
        self._segments: list[Segment] = []

    def take(self, cdb: bytes, data: bytes, tape: TapeImage, position: int) -> int:
        """MAINTENANCE OUT."""
        if cdb[1] & 0x1F != _ACTION or cdb[2] & 0x07 != _REORDER or cdb[3] & 0x07:
            raise illegal(*INVALID_FIELD)
        segments = access_order.decode_segments(data)
        if not segments or len(segments) > _MOST_SEGMENTS or any(item.last >= tape.count for item in segments):
            raise illegal(0x26)
        self._segments = order_of(segments, tape.count, position, _WRAPS)
        return len(data)

    def answer(self, cdb: bytes) -> bytes:
        """To MAINTENANCE IN."""
        if cdb[1] & 0x1F != _ACTION:
            raise illegal(*INVALID_FIELD)
        return (
            access_order.encode_limits(_MOST_SEGMENTS)
            if cdb[1] & 0x80
            else access_order.encode_segments(self._segments)
        )


def order_of(segments: Sequence[Segment], count: int, position: int, wraps: int) -> list[Segment]:
    """A serpentine tape's order: of what has not been read the nearest comes next. The tape is `count` objects in
    `wraps` lengths, each of which runs against the one before it."""
    length = max(count / wraps, 1.0)

    def place(block: int) -> tuple[float, int]:
        wrap, along = divmod(min(block, count), length)
        return (along if int(wrap) % 2 == 0 else length - along), int(wrap)

    left, ordered = list(segments), []
    at = place(position)
    while left:
        # Along the tape the reels must turn; across it only the head moves.
        following = min(
            left, key=lambda item: (abs(place(item.first)[0] - at[0]), abs(place(item.first)[1] - at[1]), item.first)
        )
        left.remove(following)
        ordered.append(following)
        at = place(following.last)
    return ordered
