"""A stream that was cut at any frame and taken up again is the whole stream."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
import tempfile
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from capstan.backup.filesystem import FilesystemSource
from capstan.core.files import FileFlag
from capstan.format.frames import Frame, ResumePoint
from capstan.format.layout import ArchiveParameters
from capstan.testing.pipeline_run import check_rows, rows_of, run_pipeline, tar_of

FRAME = 64 << 10
NAMES = st.sampled_from([b"a", b"b", b"c", b"\xff\xfe", b"x" * 120, "ü".encode(), b"z z"])
SIZES = st.one_of(
    st.integers(0, 3000),
    st.sampled_from([0, 511, 512, 513, FRAME - 1024, FRAME - 512, FRAME, FRAME + 1, 2 * FRAME]),
    st.integers(FRAME, 5 * FRAME),
)
KINDS = st.one_of(SIZES, SIZES, st.sampled_from(["directory", "symlink", "hardlink"]))
TREES = st.lists(st.tuples(st.lists(NAMES, min_size=1, max_size=3), KINDS), max_size=25)
FRAME_BYTES = st.sampled_from([FRAME, FRAME + 100, FRAME + 512, 3 * FRAME])


def content(seed: int, size: int) -> bytes:
    return (b"%d of the tree; " % seed * (size // 8 + 1))[:size]


def grow(root: bytes, tree: list[tuple[list[bytes], object]]) -> None:
    """Make the tree; what cannot be where something else is already is left out."""
    first = b""
    for seed, (parts, kind) in enumerate(tree):
        path = os.path.join(root, *parts)
        try:
            os.makedirs(path if kind == "directory" else os.path.dirname(path), exist_ok=True)
            if kind == "symlink":
                os.symlink(b"somewhere/else", path)
            elif kind == "hardlink" and first:
                os.link(first, path)
            elif isinstance(kind, int):
                with open(path, "xb") as file:
                    file.write(content(seed, kind))
                first = first or path
        except OSError:
            continue


def picture(root: bytes) -> dict[bytes, object]:
    """What is in the tree, by stored path."""
    found: dict[bytes, object] = {}
    for folder, directories, files in os.walk(root):
        for name in directories + files:
            path = os.path.join(folder, name)
            if os.path.islink(path):
                found[path[1:]] = os.readlink(path)
            elif os.path.isdir(path):
                found[path[1:]] = "directory"
            else:
                with open(path, "rb") as file:
                    found[path[1:]] = file.read()
    return found


def picture_of_tar(tar: bytes, root: bytes) -> dict[bytes, object]:
    """What Python's tarfile finds below `root`, hard links resolved, the last member of a name counting."""
    found: dict[bytes, object] = {}
    with tarfile.open(fileobj=io.BytesIO(tar), mode="r:", encoding="utf-8", errors="surrogateescape") as archive:
        for member in archive:
            path = os.fsencode(member.name)
            if not path.startswith(root[1:] + b"/"):
                continue
            if member.issym():
                found[path] = os.fsencode(member.linkname)
            elif member.isdir():
                found[path] = "directory"
            elif member.islnk():
                found[path] = found[os.fsencode(member.linkname)]
            else:
                file = archive.extractfile(member)
                assert file is not None
                found[path] = file.read()
    return found


@pytest.fixture(scope="module")
def base():
    folder = tempfile.mkdtemp()
    yield os.fsencode(folder)
    shutil.rmtree(folder)


def fresh(base: bytes) -> bytes:
    return tempfile.mkdtemp(dir=base)


def resume_of(frame: Frame, *, keep_hash: bool) -> ResumePoint:
    """The resume point, as a process would have it that was there all the time, or one that knows only the tape."""
    point = frame.resume
    if point.open_member is not None and not keep_hash:
        return replace(point, open_member=replace(point.open_member, hash=None))
    return point


settings.register_profile("trees", deadline=None, suppress_health_check=list(HealthCheck))


@settings(settings.get_profile("trees"), max_examples=max(60, settings.default.max_examples // 5))
@given(TREES, FRAME_BYTES, st.integers(0, 1000), st.booleans(), st.booleans())
def test_a_cut_stream_goes_on_as_if_it_had_not_been_cut(base, tree, frame_bytes, cut, keep_hash, same_source) -> None:
    """For any tree, frame size and cut frame, the frames up to the cut and those of a pipeline resumed there are one
    stream that tarfile reads as the tree, with rows that point at their members and the same totals."""
    root = fresh(base)
    grow(root, tree)
    source = FilesystemSource([root])
    parameters = ArchiveParameters(level=1, frame_bytes=frame_bytes)
    whole = run_pipeline(source, parameters)
    assert picture_of_tar(tar_of(whole.frames), root) == picture(root)
    check_rows(tar_of(whole.frames), whole.rows)
    assert all(frame.tar_bytes <= frame_bytes for frame in whole.frames)
    k = cut % len(whole.frames)
    if whole.frames[k].last:
        return
    rest = run_pipeline(
        source if same_source else FilesystemSource([root]),
        parameters,
        resume=resume_of(whole.frames[k], keep_hash=keep_hash),
    )
    frames = whole.frames[: k + 1] + rest.frames
    tar = tar_of(frames)
    assert picture_of_tar(tar, root) == picture(root)
    check_rows(tar, rows_of(frames))
    assert not rest.warnings
    assert frames[-1].resume.totals.files == whole.frames[-1].resume.totals.files


@settings(settings.get_profile("trees"), max_examples=max(60, settings.default.max_examples // 5))
@given(TREES, st.integers(0, 1000), st.integers(0, 1000), st.booleans(), st.sampled_from(["write", "delete", "link"]))
def test_a_file_that_changed_before_its_rest_was_stored_is_stored_again(
    base, tree, cut, second_cut, keep_hash, meddle
) -> None:
    """When the file that was open at the cut is another one at the resume, its damaged member is marked so and a whole
    copy of what is there now follows, even if the stream is cut and resumed once more anywhere behind."""
    root = fresh(base)
    grow(root, [*tree, ([b"big"], 5 * FRAME + 77)])
    parameters = ArchiveParameters(level=1, frame_bytes=FRAME)
    whole = run_pipeline(FilesystemSource([root]), parameters)
    cuts = [number for number, frame in enumerate(whole.frames) if frame.resume.open_member]
    k = cuts[cut % len(cuts)]
    member = whole.frames[k].resume.open_member
    path = b"/" + member.row.entry.path
    os.unlink(path)
    if meddle == "write":
        with open(path, "wb") as file:
            file.write(content(99, member.row.entry.size - 50))
    elif meddle == "link":
        os.symlink(b"now a link", path)
    rest = run_pipeline(FilesystemSource([root]), parameters, resume=resume_of(whole.frames[k], keep_hash=keep_hash))
    frames = whole.frames[: k + 1] + rest.frames
    for again in (False, True):
        if again and len(rest.frames) > 1:
            j = second_cut % (len(rest.frames) - 1)
            last = run_pipeline(
                FilesystemSource([root]), parameters, resume=resume_of(rest.frames[j], keep_hash=keep_hash)
            )
            frames = whole.frames[: k + 1] + rest.frames[: j + 1] + last.frames
        tar = tar_of(frames)
        good = check_rows(tar, rows_of(frames))
        stored = [row for row in rows_of(frames) if row.entry.path == path[1:]]
        assert stored[0].flags & FileFlag.DAMAGED
        if meddle == "delete":
            assert len(stored) == 1
            continue
        now = picture(root)
        assert picture_of_tar(tar, root) == now
        assert stored[-1].flags == 0
        if meddle == "write":
            assert good[path[1:]][1] == now[path[1:]]
