"""Which copy of a segment is read: by place, by health, and by what has come of reading it so far.

Pure rules over what the catalog says of the cartridges; nothing here touches a drive.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from capstan.catalog.copies import is_suspect
from capstan.core.backup import Segment
from capstan.core.media import Cartridge

_GIVEN_UP = 3  # failures in a row of a segment in one place, after which no mount is spent on it while others fail


@dataclass(slots=True)
class Health:
    """What is known of cartridges (by uuid), shared by all sets of a restore. `present`: in a library. `suspect`: there
    is a reason not to read them first. `dead`: they cannot be read at all now, with why. `changes` counts what was
    learnt since."""

    present: set[str] = field(default_factory=set)
    suspect: set[str] = field(default_factory=set)
    dead: dict[str, str] = field(default_factory=dict)
    changes: int = 0

    @classmethod
    def of(cls, cartridges: Iterable[Cartridge]) -> Health:
        """As the catalog says."""
        health = cls()
        for cartridge in cartridges:
            if cartridge.place:
                health.present.add(cartridge.uuid)
            if is_suspect(cartridge):
                health.suspect.add(cartridge.uuid)
        return health

    def doubt(self, cartridge: str) -> bool:
        """Something on a cartridge could not be read; whether that is news."""
        news = cartridge not in self.suspect
        self.suspect.add(cartridge)
        self.changes += news
        return news

    def bury(self, cartridge: str, why: str) -> None:
        """A cartridge is not there, or no drive reads it."""
        self.dead[cartridge] = why
        self.changes += 1


class CopyChoice:
    """The places of the segments of one set, and where each is read next. `used`: what was read from copies, by copy
    and barcode."""

    def __init__(self, places: Mapping[int, Sequence[Segment]], health: Health) -> None:
        self.health = health
        self.used: dict[tuple[int, str], set[int]] = {}
        self._places = places
        self._failed: dict[tuple[int, str], _Failures] = {}  # by segment number and cartridge

    def know(self, places: Mapping[int, Sequence[Segment]]) -> None:
        """More places have come to be; what has come of reading stays."""
        self._places = places

    def segments(self, ordinal: int = -1) -> dict[int, Segment]:
        """The best place of each segment, to read on from the frame with this ordinal."""
        return {number: self.best(number, ordinal) for number in self._places}

    def best(self, number: int, ordinal: int = -1) -> Segment:
        """Where segment `number` is read next, from the frame with this ordinal on."""
        return min(self._places[number], key=lambda segment: self._rank(segment, ordinal))

    def has_other(self, segment: Segment, ordinal: int) -> bool:
        """Whether another place is worth a try for a frame that cannot be read in this one."""
        return any(
            other.cartridge != segment.cartridge and self.is_open(other, ordinal)
            for other in self._places.get(segment.number, ())
        )

    def fail(self, segment: Segment, ordinal: int) -> bool:
        """A frame could not be read in this place; whether its cartridge becomes suspect by it."""
        failures = self._failed.setdefault((segment.number, segment.cartridge), _Failures())
        failures.ordinals.add(ordinal)
        failures.in_a_row += 1
        return self.health.doubt(segment.cartridge)

    def read(self, segment: Segment) -> None:
        """A frame of a segment was read here."""
        failures = self._failed.get((segment.number, segment.cartridge))
        if failures is not None:
            failures.in_a_row = 0
        if segment.copy:
            self.used.setdefault((segment.copy, segment.barcode), set()).add(segment.number)

    def _failures(self, segment: Segment) -> _Failures:
        return self._failed.get((segment.number, segment.cartridge)) or _Failures()

    def is_open(self, segment: Segment, ordinal: int) -> bool:
        """Whether it is worth a try to read a segment in this place from that frame on."""
        failures = self._failures(segment)
        tried = ordinal in failures.ordinals or failures.in_a_row >= _GIVEN_UP
        return not tried and segment.cartridge not in self.health.dead

    def _rank(self, segment: Segment, ordinal: int) -> tuple[object, ...]:
        failures, health = self._failures(segment), self.health
        return (
            segment.cartridge in health.dead,
            ordinal in failures.ordinals,
            failures.in_a_row,
            segment.cartridge not in health.present,
            segment.cartridge in health.suspect,
            segment.copy,
        )


@dataclass(slots=True)
class _Failures:
    """Of one segment in one place: which frames could not be read, and how many without one between that could."""

    ordinals: set[int] = field(default_factory=set)
    in_a_row: int = 0
