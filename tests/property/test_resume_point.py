"""What is derived from a file index is what a process that was there all the time would know."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent.parent / "unit" / "backup"))

from committed_set import committed
from test_pipeline_resume import FRAME, FRAME_BYTES, TREES, check_rows, grow, picture, picture_of_tar

from capstan.backup.filesystem import FilesystemSource
from capstan.format.frames import ResumePoint
from capstan.format.layout import ArchiveParameters
from capstan.testing.pipeline_run import rows_of, run_pipeline, tar_of


@pytest.fixture(scope="module")
def base():
    folder = tempfile.mkdtemp()
    yield os.fsencode(folder)
    shutil.rmtree(folder)


def known_from_the_tape(point: ResumePoint) -> ResumePoint:
    """Without what no INDEX holds: the state of a digest, extended attributes."""
    member = point.open_member
    if member is None:
        return point
    row = member.row._replace(entry=replace(member.row.entry, xattrs=()))
    return replace(point, open_member=replace(member, row=row, hash=None))


@settings(settings.get_profile("trees"), max_examples=max(60, settings.default.max_examples // 5))
@given(TREES, FRAME_BYTES, st.lists(st.integers(0, 1000), min_size=1, max_size=4))
def test_a_resume_point_is_derived_exactly(base, tree, frame_bytes, cuts) -> None:
    """For any tree and any commit points: the derived point is the pipeline's own, and a new process that goes on there
    makes the same stream, byte for byte, hard links included."""
    root = tempfile.mkdtemp(dir=base)
    grow(root, [*tree, ([b"big"], 3 * FRAME + 77), ([b"sub", b"1"], "hardlink"), ([b"sub", b"2"], "hardlink")])
    parameters = ArchiveParameters(level=1, frame_bytes=frame_bytes)
    whole = run_pipeline(FilesystemSource([root]), parameters)
    ends = sorted({cut % len(whole.frames) for cut in cuts} - {len(whole.frames) - 1})
    if not ends:
        return
    state = committed(Path(os.fsdecode(tempfile.mkdtemp(dir=base))), whole.frames, ends)
    last = whole.frames[ends[-1]]
    assert state.resume == known_from_the_tape(last.resume)
    assert (state.chain.sequence, state.chain.next_segment) == (len(ends), len(ends))
    assert state.chain.tar_end == last.resume.tar_offset
    assert not state.final
    rest = run_pipeline(FilesystemSource([root]), parameters, resume=state.resume, links=state.links)
    frames = whole.frames[: ends[-1] + 1] + rest.frames
    assert tar_of(frames) == tar_of(whole.frames)
    assert rows_of(frames) == whole.rows
    assert frames[-1].resume.totals == whole.frames[-1].resume.totals
    assert picture_of_tar(tar_of(frames), root) == picture(root)
    check_rows(tar_of(frames), rows_of(frames))
