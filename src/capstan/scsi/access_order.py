"""Recommended access order (SSC-5, 4.2.23, 7.10 and 7.11): in which order a drive would read pieces of its tape.

GENERATE brings user data segments, RECEIVE returns them in the drive's order. Parameters for both ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_DESCRIPTOR_BYTES = 32
_HEADER_BYTES = 8
_NAME_BYTES = 10


@dataclass(frozen=True, slots=True)
class Segment:
    """Logical objects `first` to `last`, of partition 0. `number` comes back with it, as its name."""

    number: int
    first: int
    last: int

    def encode(self) -> bytes:
        """A user data segment descriptor without geometry (SSC-5, table 100)."""
        head = (_DESCRIPTOR_BYTES - 2).to_bytes(2, "big") + bytes(3)
        name = str(self.number).encode().rjust(_NAME_BYTES, b"0")
        return head + name + b"\0" + self.first.to_bytes(8, "big") + self.last.to_bytes(8, "big")


def encode_segments(segments: Sequence[Segment]) -> bytes:
    """The parameters of GENERATE, and with a status of 0 the data of RECEIVE, which look alike."""
    body = b"".join(segment.encode() for segment in segments)
    return bytes(4) + len(body).to_bytes(4, "big") + body


def decode_segments(data: bytes) -> list[Segment]:
    """The segments in either, in order; what is cut off, or has a name that is no number, is left out."""
    end = min(len(data), _HEADER_BYTES + int.from_bytes(data[4:8], "big"))
    found, at = [], _HEADER_BYTES
    while at + _DESCRIPTOR_BYTES <= end:
        item = data[at : at + _DESCRIPTOR_BYTES]
        name = item[5 : 5 + _NAME_BYTES].strip(b"\0 ")
        if name.isdigit():
            found.append(
                Segment(int(name), int.from_bytes(item[16:24], "big"), int.from_bytes(item[24:32], "big")),
            )
        at += max(2 + int.from_bytes(item[:2], "big"), _DESCRIPTOR_BYTES)
    return found


def encode_limits(segments: int) -> bytes:
    """RECEIVE with UDS_LIMITS: how many segments, and how long a descriptor may be."""
    return segments.to_bytes(2, "big") + _DESCRIPTOR_BYTES.to_bytes(2, "big")


def decode_limits(data: bytes) -> int:
    """How many segments the drive takes; 0 for one that says nothing."""
    return int.from_bytes(data[:2], "big") if len(data) >= 4 else 0
