"""A part of what is on tape, drawn at random, that stands for all of it: whole segments, at least one."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass

from capstan.errors import InvalidValue
from capstan.recovery.plan import FramePlace, RestorePlan, plan_restore


@dataclass(frozen=True, slots=True)
class Sample:
    """How many of a plan's segments were drawn, and of how many."""

    plan: RestorePlan
    chosen: int
    segments: int


def parse_percent(text: str) -> float:
    """`5%` or `5` as a number above 0, at most 100. Raises InvalidValue."""
    try:
        value = float(text.removesuffix("%"))
    except ValueError:
        value = 0.0
    if not 0 < value <= 100:
        raise InvalidValue(what="sample", value=text, reason="write how much of it, like 5%: above 0, at most 100")
    return value


def draw(plan: RestorePlan, frames: Iterable[FramePlace], percent: float, chance: random.Random) -> Sample:
    """Of the segments of `plan`, as many as `percent` says, rounded up. `frames`: all of the set, as for the plan."""
    segments = {run.segment.number: run.segment for visit in plan.visits for run in visit.runs}
    count = -(-len(segments) * percent // 100)
    if count >= len(segments):
        return Sample(plan, len(segments), len(segments))
    drawn = {number: segments[number] for number in sorted(chance.sample(sorted(segments), int(count)))}
    extents = [(segment.tar_offset, segment.tar_offset + segment.tar_bytes) for segment in drawn.values()]
    return Sample(plan_restore(extents, frames, drawn), len(drawn), len(segments))
