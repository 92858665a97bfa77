"""Persistent reservations (SPC-5, 5.14, 6.18 and 6.19): parameters for both ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

PARAMETER_BYTES = 24


class InAction(IntEnum):
    """Service actions of PERSISTENT RESERVE IN (SPC-5, table 227)."""

    READ_KEYS = 0x00
    READ_RESERVATION = 0x01
    REPORT_CAPABILITIES = 0x02


class OutAction(IntEnum):
    """Service actions of PERSISTENT RESERVE OUT (SPC-5, table 238)."""

    REGISTER = 0x00
    RESERVE = 0x01
    RELEASE = 0x02
    CLEAR = 0x03
    PREEMPT = 0x04
    PREEMPT_AND_ABORT = 0x05
    REGISTER_AND_IGNORE_EXISTING_KEY = 0x06


class Kind(IntEnum):
    """Types of a reservation (SPC-5, table 231); the scope is the logical unit."""

    WRITE_EXCLUSIVE = 0x01
    EXCLUSIVE_ACCESS = 0x03
    WRITE_EXCLUSIVE_REGISTRANTS = 0x05
    EXCLUSIVE_ACCESS_REGISTRANTS = 0x06


@dataclass(frozen=True, slots=True)
class HeldReservation:
    """The reservation that there is."""

    key: int
    kind: int


@dataclass(frozen=True, slots=True)
class ReserveParameters:
    """Of PERSISTENT RESERVE OUT: the key of who asks, and the service action's own."""

    key: int = 0
    action_key: int = 0

    def encode(self) -> bytes:
        """The 24 bytes (SPC-5, 6.19.3); APTPL and all else are 0."""
        return self.key.to_bytes(8, "big") + self.action_key.to_bytes(8, "big") + bytes(8)

    @classmethod
    def decode(cls, data: bytes) -> ReserveParameters | None:
        """None for data of another length."""
        if len(data) != PARAMETER_BYTES:
            return None
        return cls(int.from_bytes(data[:8], "big"), int.from_bytes(data[8:16], "big"))


def encode_keys(generation: int, keys: Sequence[int]) -> bytes:
    """READ KEYS data (SPC-5, 6.18.2)."""
    body = b"".join(key.to_bytes(8, "big") for key in keys)
    return generation.to_bytes(4, "big") + len(body).to_bytes(4, "big") + body


def decode_keys(data: bytes) -> tuple[int, ...]:
    """The keys in READ KEYS data, as far as they came."""
    end = min(len(data), 8 + int.from_bytes(data[4:8], "big"))
    return tuple(int.from_bytes(data[at : at + 8], "big") for at in range(8, end - 7, 8))


def encode_reservation(generation: int, held: HeldReservation | None) -> bytes:
    """READ RESERVATION data (SPC-5, 6.18.3)."""
    if held is None:
        return generation.to_bytes(4, "big") + bytes(4)
    body = held.key.to_bytes(8, "big") + bytes(5) + bytes((held.kind,)) + bytes(2)
    return generation.to_bytes(4, "big") + len(body).to_bytes(4, "big") + body


def decode_reservation(data: bytes) -> HeldReservation | None:
    """The reservation in READ RESERVATION data; None when there is none."""
    if int.from_bytes(data[4:8], "big") < 16 or len(data) < 24:
        return None
    return HeldReservation(int.from_bytes(data[8:16], "big"), data[21] & 0x0F)


def encode_capabilities() -> bytes:
    """REPORT CAPABILITIES data (SPC-5, 6.18.4): the types that there are (TMV)."""
    mask = sum(1 << kind for kind in Kind)  # bit n of the first byte is type n
    return (8).to_bytes(2, "big") + bytes((0x00, 0x80, mask, 0x00, 0, 0))


def decode_capabilities(data: bytes) -> bool:
    """Whether EXCLUSIVE ACCESS can be reserved; drives that do not say which types they have can (TMV 0)."""
    if len(data) < 8:
        return False
    return not data[3] & 0x80 or bool(data[4] & (1 << Kind.EXCLUSIVE_ACCESS))
