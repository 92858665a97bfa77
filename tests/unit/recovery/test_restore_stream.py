"""From tapes to files: everything that is whole comes back, and nothing that is not."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from written_set import RECORD, MemoryTarget, WrittenSet, member

from capstan.core.files import FileFlag, FileType
from capstan.format.layout import CODECS
from capstan.recovery import assemble
from capstan.recovery.select import make_selector


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def tree(count: int, seed: int = 1) -> list[tuple[bytes, bytes]]:
    """Files of all sizes around the frame size, some empty."""
    draw = random.Random(seed)
    sizes = [draw.choice([0, 1, 511, 512, 513, 5_000, 60_000, 99_000, 250_000]) for _ in range(count)]
    return [(b"srv/d%d/f%d" % (n % 3, n), noise(size, n)) for n, size in enumerate(sizes)]


@pytest.mark.parametrize("codec", CODECS)
def test_a_whole_set_comes_back(tmp_path: Path, codec: str) -> None:
    """Every file of every size, in one frame or several, on one cartridge or several, comes back byte for byte."""
    files = tree(40)
    written = WrittenSet(tmp_path, [member(path, content) for path, content in files], codec=codec)
    target = MemoryTarget()
    report = written.restore(target=target)
    assert target.files == dict(files)
    assert (report.sound, report.verified_files, report.files) == (True, 40, 40)
    assert report.content_bytes == sum(len(content) for _, content in files)
    assert report.locates == len(written.tapes) > 1


def test_large_files_are_never_whole_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file larger than what is kept in memory goes through a sink, and comes back whole."""
    monkeypatch.setattr(assemble, "_IN_MEMORY", 50_000)
    files = tree(20)
    target = MemoryTarget()
    report = WrittenSet(tmp_path, [member(path, content) for path, content in files]).restore(target=target)
    assert target.files == dict(files) and not target.open and report.sound


def test_one_file_costs_one_locate_and_little_reading(tmp_path: Path) -> None:
    """One small file out of many: one LOCATE, one cartridge, and no more than the records of its frame."""
    files = tree(200)
    written = WrittenSet(tmp_path, [member(path, content) for path, content in files])
    path, content = next((p, c) for p, c in files[150:] if 0 < len(c) < 10_000)
    target = MemoryTarget()
    report = written.restore(make_selector([b"/" + path]), target)
    assert target.files == {path: content}
    assert report.locates == 1 and report.bytes_read <= 4 * RECORD + 4096


def test_everything_but_content_comes_back_too(tmp_path: Path) -> None:
    """Directories, links, devices, extended attributes and names that are not UTF-8 reach the target as they were."""
    members = [
        member(b"d", type=FileType.DIRECTORY),
        member(b"d/l", type=FileType.SYMLINK, target=b"../else\xff"),
        member(b"d/\xff\xfe", b"bytes"),
        member(b"d/node", type=FileType.CHARACTER, rdev_major=5, rdev_minor=1),
        member(b"d/x", b"with", xattrs=((b"user.k", b"v\0w"),)),
        member(b"d/p", type=FileType.FIFO),
    ]
    target = MemoryTarget()
    report = WrittenSet(tmp_path, members).restore(target=target)
    assert report.sound
    assert target.entries == {entry.path: entry for entry, _, _ in members}


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_damage_anywhere_costs_exactly_the_files_it_touches(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Whatever records are damaged, unreadable or gone: the files whose frames lie there are named with cartridge and
    block and not written; all others are restored; a damaged place that spoils no file is still reported."""
    files = tree(data.draw(st.integers(5, 40)), data.draw(st.integers(0, 3)))
    members = [member(path, content) for path, content in files]
    written = WrittenSet(tmp_path_factory.mktemp("set"), members, codec=data.draw(st.sampled_from(CODECS)))
    places = [(segment, record) for segment in written.segments for record in range(-1, segment.records)]
    hurt = data.draw(st.sets(st.sampled_from(places), max_size=4))
    for segment, record in hurt:
        tape, at = written.tapes[segment.barcode], segment.block + 1 + record
        block = tape.blocks[at]
        assert block is not None
        if data.draw(st.booleans()):
            tape.unreadable.add(at)
        else:
            place = data.draw(st.integers(0, min(len(block), 300) - 1))
            tape.blocks[at] = block[:place] + bytes([block[place] ^ 1]) + block[place + 1 :]
    lost_frames = [
        (tar, tar + length)
        for number, tar, length, payload, size in written.frame_rows
        if any(
            segment.number == number and payload < (record + 1) * RECORD and record * RECORD < payload + size
            for segment, record in hurt
        )
    ]
    expected = {
        str(row["directory"]).encode() + b"/" + str(row["name"]).encode()
        for row in written.rows
        if any(int(row["tar_offset"]) < end and begin < int(row["tar_offset"]) + int(row["tar_bytes"])  # type: ignore[call-overload]
               for begin, end in lost_frames)
    }  # fmt: skip
    target = MemoryTarget()
    report = written.restore(target=target, digests=True)
    assert {problem.path for problem in report.problems} == expected
    assert target.files == {path: content for path, content in files if path not in expected}
    where = {(segment.barcode, segment.block + 1 + record) for segment, record in hurt}
    assert {(trouble.barcode, trouble.block) for trouble in report.damage} == where
    for problem in report.problems:
        assert problem.trouble is not None and (problem.trouble.barcode, problem.trouble.block) in where
    assert report.sound == (not hurt)


def test_a_file_that_fails_its_digest_is_not_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data that came whole and is not what its row says, is named and not written, small or large."""
    monkeypatch.setattr(assemble, "_IN_MEMORY", 50_000)
    members = [member(b"a", b"small"), member(b"b", noise(300_000)), member(b"c", b"good")]
    written = WrittenSet(tmp_path, members)
    for row in written.rows[:2]:
        row["sha256"] = bytes(32)
    written._part(tmp_path)
    target = MemoryTarget()
    report = written.restore(target=target)
    assert target.files == {b"c": b"good"} and not target.open
    assert [problem.path for problem in report.problems] == [b"a", b"b"]
    assert report.problems[0].trouble is not None and report.problems[0].trouble.block == written.segments[0].block + 1


def test_a_missing_cartridge_costs_only_its_files(tmp_path: Path) -> None:
    """Files on another cartridge are restored; those that lie there, wholly or in part, are named with it."""
    files = tree(60)
    written = WrittenSet(tmp_path, [member(path, content) for path, content in files])
    assert len(written.tapes) > 2
    del written.tapes["C1"]
    inside = [segment for segment in written.segments if segment.barcode == "C1"]
    begin, end = inside[0].tar_offset, inside[-1].tar_offset + inside[-1].tar_bytes
    lost = {
        files[n][0]
        for n, row in enumerate(written.rows)
        if int(row["tar_offset"]) < end and begin < int(row["tar_offset"]) + int(row["tar_bytes"])  # type: ignore[call-overload]
    }
    target = MemoryTarget()
    report = written.restore(target=target)
    assert target.files == {path: content for path, content in files if path not in lost}
    assert {problem.path for problem in report.problems} == lost
    assert {problem.code for problem in report.problems} == {"missing"}
    assert {problem.trouble.barcode for problem in report.problems if problem.trouble} == {"C1"}
    assert report.missing == ["C1"]


def test_hard_links_keep_their_data_whatever_is_selected(tmp_path: Path) -> None:
    """With the first name selected, further names are links to it. Without it, the first further name gets the data
    and the others are linked to that one."""
    members = [
        member(b"a/first", noise(120_000)),
        member(b"b/other", b"other"),
        member(b"c/second", type=FileType.HARDLINK, target=b"a/first"),
        member(b"c/third", type=FileType.HARDLINK, target=b"a/first"),
    ]
    written = WrittenSet(tmp_path, members)
    whole = MemoryTarget()
    assert written.restore(target=whole).files == 4
    assert whole.entries[b"c/second"].target == b"a/first"
    part = MemoryTarget()
    report = written.restore(make_selector([b"c"]), part)
    assert part.files == {b"c/second": noise(120_000), b"c/third": noise(120_000)}
    assert part.entries[b"c/second"].type is FileType.REGULAR
    assert part.entries[b"c/third"].target == b"c/second"
    assert report.sound and report.files == 2


def test_thousands_of_further_names_whose_first_ones_are_not_selected(tmp_path: Path) -> None:
    """As many as there are get their data; so does whoever names thousands of paths."""
    count = 5000
    members = [member(b"a/%d" % n, b"%d" % n) for n in range(count)]
    members += [member(b"b/%d" % n, type=FileType.HARDLINK, target=b"a/%d" % n) for n in range(count)]
    written = WrittenSet(tmp_path, members)
    target = MemoryTarget()
    assert written.restore(make_selector([b"b"]), target).sound
    assert target.files == {b"b/%d" % n: b"%d" % n for n in range(count)}
    named = MemoryTarget()
    assert written.restore(make_selector([b"a/%d" % n for n in range(count)]), named).sound
    assert len(named.files) == count


def test_links_to_a_file_that_failed_are_errors_too(tmp_path: Path) -> None:
    """A further name of a file that could not be restored is named as lost, not linked to something else."""
    members = [
        member(b"a", noise(90_000)),
        member(b"b", noise(90_000, 2)),
        member(b"c", type=FileType.HARDLINK, target=b"a"),
    ]
    written = WrittenSet(tmp_path, members, codec="none", frame_bytes=70_000)
    written.tapes["C0"].unreadable.add(written.segments[0].block + 1)
    target = MemoryTarget()
    report = written.restore(target=target)
    assert [problem.path for problem in report.problems] == [b"a", b"c"] and set(target.files) == {b"b"}


def test_a_link_to_a_file_that_was_kept_is_said(tmp_path: Path) -> None:
    """Where the conflicts policy kept the first name, a further name is linked to what is there, with a warning."""
    members = [member(b"a", b"new"), member(b"b", type=FileType.HARDLINK, target=b"a")]
    target = MemoryTarget(kept=frozenset({b"a"}))
    target.files[b"a"] = b"old"
    report = WrittenSet(tmp_path, members).restore(target=target)
    assert [(warning.code, warning.path) for warning in report.warnings] == [("linked-to-kept", b"b")]


def test_a_refused_entry_does_not_stop_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the target refuses is named; what it skips is counted; all else is written."""
    monkeypatch.setattr(assemble, "_IN_MEMORY", 50_000)
    members = [member(b"%c" % n, noise(60_000 * (n % 2), n)) for n in range(97, 103)]
    target = MemoryTarget(refused=frozenset({b"a", b"b"}), kept=frozenset({b"c", b"d"}))
    report = WrittenSet(tmp_path, members).restore(target=target)
    assert set(target.files) == {b"e", b"f"} and not target.open
    assert [problem.path for problem in report.problems] == [b"a", b"b"]
    assert (report.skipped, report.files) == (2, 2)


def test_the_last_good_row_of_a_path_counts(tmp_path: Path) -> None:
    """A damaged member is not restored when a whole copy follows; alone it is, with a warning. What never ended and
    what was never readable are warnings."""
    members = [
        member(b"a", b"half\0\0\0\0", FileFlag.DAMAGED),
        member(b"b", b"zeros\0", FileFlag.DAMAGED),
        member(b"c", b"?", FileFlag.UNREADABLE),
        member(b"a", b"whole"),
        member(b"z", noise(1000), FileFlag.CONTINUES),
    ]
    target = MemoryTarget()
    report = WrittenSet(tmp_path, members).restore(target=target)
    assert target.files == {b"a": b"whole", b"b": b"zeros\0"}
    assert {(warning.code, warning.path) for warning in report.warnings} == {
        ("damaged-at-backup", b"b"),
        ("unreadable", b"c"),
        ("unfinished", b"z"),
    }
    assert report.sound


def test_patterns_and_paths_select(tmp_path: Path) -> None:
    """A path selects itself and what is below it, never a sibling with the same beginning; patterns narrow it down."""
    names = [b"srv/a", b"srv/a/x.txt", b"srv/a/y.bin", b"srv/ab", b"srv/a-b/x.txt", b"srv/\xff/x.txt"]
    written = WrittenSet(tmp_path, [member(name, name) for name in names])

    def restored(paths: list[bytes], patterns: list[str]) -> set[bytes]:
        target = MemoryTarget()
        written.restore(make_selector(paths, patterns), target)
        return set(target.files)

    assert restored([b"/srv//a/"], []) == {b"srv/a", b"srv/a/x.txt", b"srv/a/y.bin"}
    assert restored([b"srv"], ["*.txt"]) == {b"srv/a/x.txt", b"srv/a-b/x.txt", b"srv/\xff/x.txt"}
    assert restored([b"/srv/\xff"], []) == {b"srv/\xff/x.txt"}
    assert restored([], ["y.*"]) == {b"srv/a/y.bin"}
    assert restored([b"/"], []) == set(names)
    selector = make_selector([b"srv/ab", b"srv/none"])
    written.restore(selector, MemoryTarget())
    assert selector.unmatched == {b"srv/none"}
