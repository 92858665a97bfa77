"""What a restore finds in its target when it goes on: what is its own, and what is somebody else's."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from capstan.core.backup import Conflicts
from capstan.core.files import FileEntry, FileType
from capstan.errors import StorageFailed
from capstan.recovery import earlier
from capstan.recovery.directories import DeferredDirectories
from capstan.recovery.earlier import DirectoryJournal, EarlierRun, Made
from capstan.recovery.filesystem import FilesystemTarget
from capstan.recovery.target import Placement
from capstan.testing.target_contract import TIME, entry, put, refuse

OLD = TIME - 10**9  # when what was there before was changed last
FIRST = entry(b"d/first", size=4, links=2)
AGAIN = entry(b"d/name", FileType.HARDLINK, target=b"d/first")


class Runs:
    """The runs of one restore, each with a target of its own over `out`; `started_ns` as the job has it."""

    def __init__(self, folder: Path, conflicts: Conflicts = Conflicts.SKIP) -> None:
        self.out = folder / "out"
        self.out.mkdir()
        self.journal = folder / "journal"
        self.conflicts = conflicts
        self.started_ns = 0

    def first(self) -> FilesystemTarget:
        """The run that will end early. What it makes is not before `started_ns`, and what is there is."""
        mark = self.out.parent / "mark"
        mark.touch()
        begun = mark.stat().st_ctime_ns
        while (now := mark.stat().st_ctime_ns) == begun:  # a few milliseconds: file systems have a coarse clock
            mark.touch()
        self.started_ns = now
        return self._target(None)

    def next(self, *, trusted: bool = True) -> FilesystemTarget:
        return self._target(EarlierRun(self.started_ns, trusted))

    def _target(self, earlier: EarlierRun | None) -> FilesystemTarget:
        return FilesystemTarget(
            bytes(self.out),
            tell=refuse,
            conflicts=self.conflicts,
            earlier=earlier,
            journal=DirectoryJournal.read(self.journal),
        )

    def names(self, folder: str = ".") -> list[str]:
        return sorted(path.name for path in (self.out / folder).iterdir())


def mine(path: Path, text: str = "mine") -> None:
    """What somebody else has there."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    os.utime(path, ns=(0, OLD))


def again(target: FilesystemTarget, *entries: FileEntry) -> list[Placement]:
    """Give what was not restored, as a run that goes on does."""
    return [put(target, item.path) for item in [item for item in entries if not target.restored(item)]]


@pytest.mark.parametrize("trusted", [True, False])
def test_what_was_kept_stays_kept_when_it_got_a_further_name(tmp_path: Path, trusted: bool) -> None:
    """A link to a file moves its time of change: that makes it no file of the restore."""
    runs = Runs(tmp_path)
    mine(runs.out / "d/first")
    target = runs.first()
    assert target.whole_file(FIRST, memoryview(b"data")) is Placement.SKIPPED
    target.hardlink(AGAIN, b"d/first")
    target.close()
    target = runs.next(trusted=trusted)
    assert not target.restored(FIRST)
    assert target.whole_file(FIRST, memoryview(b"data")) is Placement.SKIPPED
    target.close()
    assert (runs.out / "d/first").read_text() == "mine"


@pytest.mark.parametrize("conflicts", [Conflicts.SKIP, Conflicts.KEEP_NEWER, Conflicts.RENAME])
def test_what_was_changed_since_is_somebodys(tmp_path: Path, conflicts: Conflicts) -> None:
    """While the machine runs on, a file that is not as its entry says is not the restore's any more."""
    runs = Runs(tmp_path, conflicts)
    target = runs.first()
    put(target, b"d/f")
    target.close()
    (runs.out / "d/f").write_text("edited meanwhile")
    target = runs.next()
    again(target, entry(b"d/f", size=4))
    target.finish()
    target.close()
    assert (runs.out / "d/f").read_text() == "edited meanwhile"
    assert runs.names("d") == (["f", "f.restored-1"] if conflicts is Conflicts.RENAME else ["f"])


def test_a_name_beside_one_that_was_taken_is_not_taken_for_another_entry(tmp_path: Path) -> None:
    """An entry that is itself called `NAME.restored-1` does not replace what NAME got instead of its own."""
    runs = Runs(tmp_path, Conflicts.RENAME)
    mine(runs.out / "f")
    entries = entry(b"f", size=4), entry(b"f.restored-1", size=5, mtime_ns=TIME + 10**10)
    target = runs.first()
    put(target, b"f")
    target.whole_file(entries[1], memoryview(b"other"))
    target.close()
    target = runs.next()
    for item, data in zip(entries, (b"data", b"other"), strict=True):
        if not target.restored(item):
            target.whole_file(item, memoryview(data))
    target.finish()
    target.close()
    assert {path.name: path.read_text() for path in runs.out.iterdir()} == {
        "f": "mine",
        "f.restored-1": "data",
        "f.restored-1.restored-1": "other",
    }


def test_times_may_be_coarse(tmp_path: Path) -> None:
    """A file system that keeps whole seconds does not have everything restored twice."""
    runs = Runs(tmp_path, Conflicts.RENAME)
    target = runs.first()
    put(target, b"f")
    target.close()
    os.utime(runs.out / "f", ns=(0, TIME - TIME % 2_000_000_000))
    target = runs.next()
    assert target.restored(entry(b"f", size=4))
    target.close()


def test_after_a_restart_files_are_written_again(tmp_path: Path) -> None:
    """Whatever is there that was made since, under any policy; and nothing that is older."""
    runs = Runs(tmp_path)
    mine(runs.out / "d/old")
    target = runs.first()
    put(target, b"d/f")
    target.close()
    (runs.out / "d/f").write_bytes(b"")
    target = runs.next(trusted=False)
    placements = again(target, entry(b"d/f", size=4), entry(b"d/old", size=4))
    assert placements == [Placement.WRITTEN, Placement.SKIPPED]
    target.close()
    assert ((runs.out / "d/f").read_text(), (runs.out / "d/old").read_text()) == ("data", "mine")


def test_a_link_is_made_again_when_its_first_name_is(tmp_path: Path) -> None:
    """Both are names of one file afterwards."""
    runs = Runs(tmp_path)
    target = runs.first()
    target.whole_file(FIRST, memoryview(b"data"))
    target.hardlink(AGAIN, b"d/first")
    target.close()
    (runs.out / "d/first").unlink()
    target = runs.next()
    assert not target.restored(FIRST)
    assert not target.restored(AGAIN)
    target.whole_file(FIRST, memoryview(b"data"))
    target.hardlink(AGAIN, b"d/first")
    assert target.restored(AGAIN)
    target.close()
    assert (runs.out / "d/first").samefile(runs.out / "d/name")


def test_temporary_files_go_wherever_the_restore_comes_by(tmp_path: Path) -> None:
    """Also in a directory that was there and is not restored itself; those of before the restore stay."""
    runs = Runs(tmp_path)
    mine(runs.out / "d/.capstan-1-1.part")
    target = runs.first()
    sink = target.open_file(entry(b"d/f", size=9_000_000))
    assert sink is not None
    sink.write(memoryview(b"begin"))
    [name] = set(runs.names("d")) - {".capstan-1-1.part"}
    os.link(runs.out / "d" / name, runs.out / "d/.capstan-2-7.part")  # as if the process had died here
    sink.abort()
    target.close()
    target = runs.next()
    assert not target.restored(entry(b"d/f", size=9_000_000))
    target.close()
    assert runs.names("d") == [".capstan-1-1.part"]


class TestDirectories:
    """They get their metadata when the restore made them, and keep theirs when they were there."""

    MADE = entry(b"made", FileType.DIRECTORY, mode=0o750)
    KEPT = entry(b"kept", FileType.DIRECTORY, mode=0o750)

    def died(self, tmp_path: Path) -> Runs:
        runs = Runs(tmp_path)
        mine(runs.out / "kept/old")
        (runs.out / "kept").chmod(0o711)
        target = runs.first()
        for item in (self.MADE, self.KEPT):
            target.directory(item)
        put(target, b"made/f")
        put(target, b"kept/f")
        target.close()
        return runs

    def go_on(self, runs: Runs, *, trusted: bool = True, whole: bool = True) -> None:
        target = runs.next(trusted=trusted)
        for item in (self.MADE, self.KEPT):
            if not target.restored(item):
                target.directory(item)
        again(target, entry(b"made/f", size=4), entry(b"made/late", size=4))
        target.finish(whole=whole)
        target.close()
        status = (runs.out / "made").stat()
        assert (status.st_mode & 0o7777, status.st_mtime_ns) == (0o750, TIME)
        assert (runs.out / "kept").stat().st_mode & 0o7777 == 0o711

    @pytest.mark.parametrize("trusted", [True, False])
    def test_after_a_death(self, tmp_path: Path, trusted: bool) -> None:
        """And the journal goes when the restore is whole."""
        runs = self.died(tmp_path)
        self.go_on(runs, trusted=trusted)
        assert not runs.journal.exists()

    def test_after_an_end_with_errors(self, tmp_path: Path) -> None:
        """The journal stays while something is missing, for what comes later moves their times again."""
        runs = self.died(tmp_path)
        self.go_on(runs, whole=False)
        (runs.out / "made/late").unlink()
        self.go_on(runs)

    def test_after_a_restart_that_lost_the_journal(self, tmp_path: Path) -> None:
        """One that was made or changed since the restore began, and that nothing is known of, is its own."""
        runs = self.died(tmp_path)
        kept = b"k" + self.KEPT.path + b"\0"
        assert kept in runs.journal.read_bytes()
        runs.journal.write_bytes(kept)
        self.go_on(runs, trusted=False)

    def test_after_a_restart_that_lost_its_metadata(self, tmp_path: Path) -> None:
        """The journal may know of a directory whose owner and attributes did not reach the disk."""
        runs = self.died(tmp_path)
        os.chown(runs.out / "made", 1, 1)
        os.setxattr(runs.out / "made", "user.x", b"lost")
        wanted = replace(self.MADE, xattrs=((b"user.x", b"value"),))
        target = runs.next(trusted=False)
        assert not target.restored(wanted)
        target.directory(wanted)
        target.close()
        assert (runs.out / "made").stat().st_uid == os.getuid()
        assert os.getxattr(runs.out / "made", "user.x") == b"value"


class TestJournal:
    """What was noted is known, whatever happened to the end of the file."""

    @pytest.mark.parametrize("end", [b"", b"d", b"dtor", b"\0\0\0\0", b"x\0", b"d\0"])
    def test_a_torn_end(self, tmp_path: Path, end: bytes) -> None:
        """It is dropped, and what is noted behind it is known too."""
        journal = DirectoryJournal.read(tmp_path / "journal")
        journal.note(b"one", Made.DESCRIBED)
        journal.close()
        with (tmp_path / "journal").open("ab") as file:
            file.write(end)
        for _ in range(2):
            journal = DirectoryJournal.read(tmp_path / "journal")
            journal.note(b"two", Made.KEPT)
            journal.close()
        assert DirectoryJournal.read(tmp_path / "journal").known == {b"one": Made.DESCRIBED, b"two": Made.KEPT}

    def test_it_cannot_be_read(self, tmp_path: Path) -> None:
        """That is said, by its path."""
        (tmp_path / "journal").mkdir()
        with pytest.raises(StorageFailed, match="journal"):
            DirectoryJournal.read(tmp_path / "journal")


def test_a_journal_is_the_same_wherever_it_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read in pieces, and a record may lie in several of them."""
    journal = DirectoryJournal(tmp_path / "journal")
    for number in range(5):
        journal.note(b"d/%d" % number, Made.DESCRIBED)
    journal.close()
    whole = DirectoryJournal.read(tmp_path / "journal")
    assert len(whole.known) == 5
    for piece in range(1, 12):
        monkeypatch.setattr(earlier, "_PIECE", piece)
        assert DirectoryJournal.read(tmp_path / "journal") == whole


def test_deferred_directories_come_back_children_first() -> None:
    """With the owner, mode and time that were noted last, and the stored path where the target has another."""
    deferred = DeferredDirectories()
    old = FileEntry(b"srv/a", FileType.DIRECTORY, 0o700, 1, 2, 0, 3)
    new = FileEntry(b"srv/a", FileType.DIRECTORY, 0o7777, 2**32 - 1, 2**32 - 1, 0, -(2**63))
    inner = FileEntry(b"srv/a/b", FileType.DIRECTORY, 0o755, 0, 0, 0, 2**63 - 1)
    for path, found in ((b"a", old), (b"srv/a/b", inner), (b"a", new), (b"a/b", inner)):
        deferred.add(path, found)
    assert b"a/b" in deferred
    assert list(deferred.take()) == [(b"srv/a/b", inner), (b"a/b", inner), (b"a", new)]
    assert list(deferred.take()) == []
