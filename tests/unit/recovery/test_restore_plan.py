"""The plan of a restore: what is read is enough, and little more."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from capstan.core.backup import Segment
from capstan.format.layout import HEADER_BYTES
from capstan.recovery.plan import ChainPlan, FramePlace, merge_extents, plan_restore

RECORD = 65_536


def stream(shape: list[list[tuple[int, int]]], cartridges: list[int]) -> tuple[list[FramePlace], dict[int, Segment]]:
    """Frames and segments of a stream: for each segment its frames as (tar bytes, payload bytes)."""
    frames, segments = [], {}
    tar = 0
    blocks = dict.fromkeys(cartridges, 10)
    for number, (pieces, cartridge) in enumerate(zip(shape, cartridges, strict=True)):
        begin, payload = tar, 0
        for tar_bytes, payload_bytes in pieces:
            frames.append(FramePlace(number, tar, tar_bytes, payload, payload_bytes))
            tar, payload = tar + tar_bytes, payload + payload_bytes
        records = -(-payload // RECORD)
        segments[number] = Segment(
            "set", number, f"uuid-{cartridge}", f"C{cartridge}", 1, blocks[cartridge], records, RECORD, payload, "",
            begin, tar - begin,
        )  # fmt: skip
        blocks[cartridge] += records + 2
    return frames, segments


pieces = st.lists(st.tuples(st.integers(1, 5_000_000), st.integers(1, 400_000)), min_size=1, max_size=6)
shapes = st.lists(pieces, min_size=1, max_size=5)


@given(data=st.data(), shape=shapes, gap=st.integers(0, 1 << 20))
def test_every_needed_frame_is_in_one_run_and_no_other_is_marked(
    data: st.DataObject, shape: list[list[tuple[int, int]]], gap: int
) -> None:
    """A frame is marked exactly when an extent touches it, and its records lie in exactly one run, in stream order."""
    frames, segments = stream(shape, sorted(data.draw(st.integers(1, 3)) for _ in shape))
    end = frames[-1].tar_end
    extents = sorted(
        (begin, min(begin + size, end))
        for begin, size in data.draw(st.lists(st.tuples(st.integers(0, end - 1), st.integers(1, end)), max_size=6))
    )
    plan = plan_restore(extents, frames, segments, gap_bytes=gap)
    needed = {n for n, f in enumerate(frames) if any(b < f.tar_end and f.tar_offset < e for b, e in extents)}
    assert {n for n in range(len(frames)) if n in plan.frames} == needed
    assert plan.frames.count == len(needed)
    runs = [run for visit in plan.visits for run in visit.runs]
    for n in needed:
        frame = frames[n]
        first, last = frame.payload_offset // RECORD, (frame.payload_offset + frame.payload_bytes - 1) // RECORD
        holding = [
            run for run in runs if run.segment.number == frame.segment and run.first_frame <= n <= run.last_frame
        ]
        assert len(holding) == 1
        assert holding[0].first_record <= first and last <= holding[0].last_record < holding[0].segment.records
    assert [run.first_frame for run in runs] == sorted(run.first_frame for run in runs)
    assert not plan.uncovered
    for before, run in pairwise(runs):
        if before.segment == run.segment:
            assert (run.first_record - before.last_record - 1) * RECORD > gap


@given(data=st.data(), shape=st.lists(pieces, min_size=2, max_size=5))
def test_what_no_known_segment_holds_is_said(data: st.DataObject, shape: list[list[tuple[int, int]]]) -> None:
    """Frames or segments that are not known are exactly the uncovered part of the extents."""
    frames, segments = stream(shape, [1] * len(shape))
    lost_segment = data.draw(st.integers(0, len(shape) - 1))
    lost_frames = data.draw(st.sets(st.integers(0, len(frames) - 1)))
    known = [frame for n, frame in enumerate(frames) if n not in lost_frames]
    del segments[lost_segment]
    end = frames[-1].tar_end
    cut = data.draw(st.integers(0, end))
    extents = [(cut // 2, cut), (cut, end)]
    plan = plan_restore(extents, known, segments)
    expected = [
        (max(frame.tar_offset, cut // 2), frame.tar_end)
        for n, frame in enumerate(frames)
        if (n in lost_frames or frame.segment == lost_segment) and frame.tar_end > cut // 2
    ]
    assert list(merge_extents(plan.uncovered)) == list(merge_extents(expected))


def test_one_small_file_costs_one_locate_and_one_frame() -> None:
    """A file inside one frame is read with one LOCATE, and no more than that frame's records come from the tape."""
    frames, segments = stream([[(4_000_000, 1_000_000)] * 50] * 3, [1, 1, 2])
    offset = frames[70].tar_offset + 100
    plan = plan_restore([(offset, offset + 1024)], frames, segments)
    assert (plan.locates, ChainPlan([plan]).barcodes, plan.frames.count) == (1, ["C1"], 1)
    assert plan.bytes_to_read <= 1_000_000 + 2 * RECORD


def test_a_whole_set_streams() -> None:
    """Reading all needs one LOCATE for each cartridge where segments follow each other, and each payload byte once."""
    frames, segments = stream([[(4_000_000, 1_000_000)] * 10] * 4, [1, 1, 1, 2])
    plan = plan_restore([(0, frames[-1].tar_end)], frames, segments)
    assert [(visit.barcode, visit.locates) for visit in plan.visits] == [("C1", 1), ("C2", 1)]
    assert plan.bytes_to_read == 4 * 10_000_000 + 4 * HEADER_BYTES
    assert ChainPlan([plan]).missing(["C2"]) == ["C1"]


def test_neighbours_are_read_in_one_go_and_distant_files_are_not() -> None:
    """Between two files of a segment the tape reads on over a small gap and locates over a large one."""
    frames, segments = stream([[(4_000_000, 1_000_000)] * 100], [1])
    extents = [(frames[n].tar_offset, frames[n].tar_offset + 10) for n in (0, 5, 99)]
    plan = plan_restore(extents, frames, segments, gap_bytes=10_000_000)
    assert [(run.first_frame, run.last_frame) for run in plan.visits[0].runs] == [(0, 5), (99, 99)]
    assert plan.locates == 2
    assert 4 not in plan.frames and 5 in plan.frames
