"""What must be read to restore some files: pure arithmetic over rows, frames and segments.

All inputs are streams in the order of the set's tar stream; what is kept is one bit for each frame and a few runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from capstan.core.backup import Segment
from capstan.core.ordinals import OrdinalSet
from capstan.format.layout import HEADER_BYTES
from capstan.format.sealing import sealed_range

# A tape that streams passes this in less time than a stop, a LOCATE and a start take.
DEFAULT_GAP_BYTES = 64 << 20


class FramePlace(NamedTuple):
    """One row of `frames.parquet` (fileindex.schema.FRAMES). The payload is counted as it was before it was sealed."""

    segment: int
    tar_offset: int
    tar_bytes: int
    payload_offset: int
    payload_bytes: int

    @property
    def tar_end(self) -> int:
        return self.tar_offset + self.tar_bytes


@dataclass(slots=True)
class Run:
    """Records of one segment that are read in one go. `first_frame` and `last_frame` are ordinals of needed frames;
    those between that are not needed are read over."""

    segment: Segment
    first_record: int
    last_record: int
    first_frame: int
    last_frame: int

    @property
    def bytes(self) -> int:
        """What comes from the tape for it, the header record included when it is read on the way."""
        size = self.segment.record_bytes
        end = min((self.last_record + 1) * size, self.segment.payload_bytes)
        return end - self.first_record * size + (HEADER_BYTES if self.first_record == 0 else 0)

    def follows(self, before: Run | None) -> bool:
        """Whether the tape stands at it after `before` was read, a filemark apart: then it needs no LOCATE."""
        return (
            before is not None
            and self.first_record == 0
            and before.segment.cartridge == self.segment.cartridge
            and before.last_record == before.segment.records - 1
            and before.segment.block + before.segment.records + 2 == self.segment.block
        )


@dataclass(slots=True)
class CartridgeVisit:
    """What is read while one cartridge is mounted. `cartridge` is its uuid."""

    cartridge: str
    barcode: str
    runs: list[Run] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        return sum(run.bytes for run in self.runs)

    @property
    def locates(self) -> int:
        return sum(not run.follows(before) for before, run in zip([None, *self.runs], self.runs, strict=False))


@dataclass(slots=True)
class RestorePlan:
    """`visits` are in the order of the stream, missing cartridges included. `uncovered`: tar ranges that are needed
    and that no known segment holds."""

    visits: list[CartridgeVisit] = field(default_factory=list)
    frames: OrdinalSet = field(default_factory=OrdinalSet)
    uncovered: list[tuple[int, int]] = field(default_factory=list)

    @property
    def bytes_to_read(self) -> int:
        return sum(visit.bytes for visit in self.visits)

    @property
    def locates(self) -> int:
        return sum(visit.locates for visit in self.visits)


@dataclass(slots=True)
class ChainPlan:
    """The plans of the sets of a chain, one after the other."""

    plans: list[RestorePlan]

    @property
    def visits(self) -> list[CartridgeVisit]:
        return [visit for plan in self.plans for visit in plan.visits]

    @property
    def bytes_to_read(self) -> int:
        return sum(plan.bytes_to_read for plan in self.plans)

    @property
    def barcodes(self) -> list[str]:
        """Each cartridge once, in the order of its first visit."""
        return list(dict.fromkeys(visit.barcode for visit in self.visits))

    def missing(self, present: Iterable[str]) -> list[str]:
        """Barcodes that are needed and not among `present`."""
        there = set(present)
        return [barcode for barcode in self.barcodes if barcode not in there]

    def as_dict(self) -> dict[str, object]:
        """For `--plan`, JSON-safe."""
        return {
            "cartridges": self.barcodes,
            "bytes_to_read": self.bytes_to_read,
            "locates": sum(plan.locates for plan in self.plans),
            "frames": sum(plan.frames.count for plan in self.plans),
            "visits": [
                {"barcode": visit.barcode, "bytes": visit.bytes, "locates": visit.locates} for visit in self.visits
            ],
        }


def plan_restore(
    extents: Iterable[tuple[int, int]],
    frames: Iterable[FramePlace],
    segments: Mapping[int, Segment],
    *,
    gap_bytes: int = DEFAULT_GAP_BYTES,
) -> RestorePlan:
    """Which frames, runs and cartridges are needed for `extents`.

    `extents` are (offset, end) in the tar stream, ascending by offset, and may touch or overlap. `frames` are all
    frames known of the set, ascending. A frame of a segment that `segments` lacks counts as uncovered. Two runs of
    one segment become one when not more than `gap_bytes` of payload lie between them.
    """
    plan = RestorePlan()
    wanted = merge_extents(extents)
    extent = next(wanted, None)
    reached = extent[0] if extent else 0  # up to where the present extent is covered
    for ordinal, frame in enumerate(frames):
        while extent is not None and extent[1] <= frame.tar_offset:
            _uncovered(plan, reached, extent[1])
            extent = next(wanted, None)
            reached = extent[0] if extent else 0
        if extent is None:
            return plan
        if extent[0] >= frame.tar_end:
            continue
        _uncovered(plan, reached, frame.tar_offset)
        segment = segments.get(frame.segment)
        if segment is None:
            _uncovered(plan, max(reached, frame.tar_offset), min(frame.tar_end, extent[1]))
        else:
            plan.frames.add(ordinal)
            _add(plan, segment, frame, ordinal, gap_bytes)
        reached = max(reached, frame.tar_end)
        while extent is not None and extent[1] <= frame.tar_end:
            extent = next(wanted, None)
            if extent is not None:
                reached = max(extent[0], frame.tar_end)
    while extent is not None:
        _uncovered(plan, max(reached, extent[0]), extent[1])
        extent = next(wanted, None)
        reached = 0
    return plan


def plan_again(
    frames: Iterable[tuple[int, FramePlace]], segments: Mapping[int, Segment], *, gap_bytes: int = DEFAULT_GAP_BYTES
) -> list[CartridgeVisit]:
    """The visits that read those needed frames, each with its ordinal and ascending, from the places of `segments`."""
    plan = RestorePlan()
    for ordinal, frame in frames:
        _add(plan, segments[frame.segment], frame, ordinal, gap_bytes)
    return plan.visits


def merge_extents(extents: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Ascending, disjoint and not touching; empty ones dropped."""
    begin = end = -1
    for offset, until in extents:
        if until <= offset:
            continue
        if offset > end:
            if begin >= 0:
                yield begin, end
            begin, end = offset, until
        elif until > end:
            end = until
    if begin >= 0:
        yield begin, end


def _uncovered(plan: RestorePlan, begin: int, end: int) -> None:
    if end > begin:
        plan.uncovered.append((begin, end))


def _add(plan: RestorePlan, segment: Segment, frame: FramePlace, ordinal: int, gap_bytes: int) -> None:
    size = segment.record_bytes
    offset, length = sealed_range(segment, frame.payload_offset, frame.payload_bytes)
    first = offset // size
    last = (offset + max(length, 1) - 1) // size
    if not plan.visits or plan.visits[-1].cartridge != segment.cartridge:
        plan.visits.append(CartridgeVisit(segment.cartridge, segment.barcode))
    runs = plan.visits[-1].runs
    if runs and runs[-1].segment.number == segment.number and (first - runs[-1].last_record - 1) * size <= gap_bytes:
        runs[-1].last_record = max(runs[-1].last_record, last)
        runs[-1].last_frame = ordinal
    else:
        runs.append(Run(segment, first, last, ordinal, ordinal))
