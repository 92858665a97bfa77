"""Hard links over several sets: a further name never gets the content of another file that has its first name."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st
from written_set import Member, MemoryTarget, WrittenSet

from capstan.core.files import FileEntry, FileFlag, FileType, scan_key
from capstan.fileindex.chain import ChainSet, state_rows
from capstan.fileindex.store import IndexPart
from capstan.recovery.assemble import Outcomes
from capstan.recovery.report import Problem
from capstan.recovery.select import make_selector
from capstan.recovery.selection import Selection, select_chain

PATHS = [b"a", b"b", b"c", b"d/a", b"d/b"]


@dataclass
class File:
    """One file of the model, with all that its names share."""

    inode: int
    ctime_ns: int
    content: bytes


@dataclass
class History:
    """A file system, and the sets that a backup makes of it."""

    folder: Path
    names: dict[bytes, File] = field(default_factory=dict)
    sets: list[WrittenSet] = field(default_factory=list)
    chain: list[ChainSet] = field(default_factory=list)
    meant: list[dict[bytes, bytes]] = field(default_factory=list)  # of each set: what each path was when it was scanned
    tick: int = 0
    device: int = 1

    def apply(self, change: tuple[str, bytes, bytes]) -> None:
        """One change; some meet nothing to change. Whatever touches a file moves its ctime."""
        kind, path, other = change
        self.tick += 1
        if kind == "new":
            self.take_away(path)
            self.names[path] = File(self.tick, self.tick, b"content %d" % self.tick)
        elif kind == "restart":
            self.device += 1
        elif path not in self.names:
            return
        elif kind == "remove":
            self.take_away(path)
        elif kind == "write":
            self.names[path].content, self.names[path].ctime_ns = b"written %d" % self.tick, self.tick
        elif kind == "link" and other not in self.names:
            self.names[other] = self.names[path]
            self.names[path].ctime_ns = self.tick
        elif kind == "rename" and self.names.get(other) is not self.names[path]:
            self.take_away(other)
            self.names[other] = self.names.pop(path)
            self.names[other].ctime_ns = self.tick

    def take_away(self, path: bytes) -> None:
        file = self.names.pop(path, None)
        if file is not None:
            file.ctime_ns = self.tick

    def back_up(self, unseen: set[bytes], raced: set[bytes]) -> None:
        """A set of what changed. `unseen`: paths that cannot be looked at. `raced`: they are replaced by other files
        between the scan and the reading."""
        number = len(self.sets)
        old = {found.row.entry.path: found.row.entry for found in state_rows(self.chain)}
        scanned = [self.entry(path) for path in sorted(self.names, key=scan_key) if path not in unseen]
        firsts: dict[int, bytes] = {}
        stored: set[bytes] = set()
        members: list[Member] = []
        self.meant.append({path: file.content for path, file in self.names.items()})
        for entry in scanned:
            first = firsts.setdefault(entry.inode, entry.path)
            if first != entry.path:
                entry = replace(entry, type=FileType.HARDLINK, target=first, size=0)
            known = old.get(entry.path)
            if known is not None and replace(known, device=entry.device) == entry and entry.target not in stored:
                continue
            content = b""
            if entry.type is FileType.REGULAR:
                stored.add(entry.path)
                if entry.path in raced:
                    self.apply(("new", entry.path, b""))
                    entry = self.entry(entry.path)
                content = self.names[entry.path].content
                self.meant[number][entry.path] = content
            members.append((entry, content, 0))
        gone = [path for path in old if path not in self.names and path not in unseen]
        place = self.folder / str(number)
        place.mkdir()
        self.sets.append(WrittenSet(place, members))
        deleted = place / "deleted"
        deleted.write_bytes(b"".join(path + b"\0" for path in sorted(gone, key=scan_key)))
        part = self.sets[-1].part
        index = IndexPart(1, "", part.files, part.frames, part.records, deleted if number else None)
        self.chain.append(ChainSet(str(number), 0, (index,)))

    def entry(self, path: bytes) -> FileEntry:
        file = self.names[path]
        links = sum(other is file for other in self.names.values())
        size = len(file.content)
        return FileEntry(path, FileType.REGULAR, 0o644, 1, 1, size, 0, file.ctime_ns, self.device, file.inode, links)

    def restore(self, selected: tuple[bytes, ...]) -> tuple[MemoryTarget, list[Problem]]:
        """Of the state of all sets; with one set, as one that builds on no other is restored."""
        target, outcomes, problems = MemoryTarget(), Outcomes(), []
        tables = [written.table() for written in self.sets]
        if len(tables) == 1:
            selections = [Selection(tables[0], make_selector(selected))]
        else:
            selections = select_chain(tables, self.chain, make_selector(selected))
        for written, selection in zip(self.sets, selections, strict=True):
            problems += written.restore(target=target, selection=selection, outcomes=outcomes).problems
        return target, problems


paths = st.sampled_from(PATHS)
changes = st.tuples(
    st.sampled_from(["new", "new", "link", "link", "link", "write", "remove", "rename", "restart"]), paths, paths
)
steps = st.tuples(st.lists(changes, max_size=6), st.sets(paths, max_size=2), st.sets(paths, max_size=1))
LINKED = [("new", b"a", b"a"), ("link", b"a", b"b")]
REPLACED = ("new", b"a", b"a")


@given(st.lists(steps, min_size=1, max_size=4), st.sets(paths, max_size=3).map(tuple))
@example([(LINKED, set(), set()), ([REPLACED], {b"b"}, set())], ())
@example([(LINKED, set(), {b"a"})], ())
@example([(LINKED, set(), {b"a"})], (b"b",))
@example([(LINKED, set(), set()), ([("write", b"a", b"a")], set(), {b"a"})], ())
@example([(LINKED, {b"b"}, set()), ([("restart", b"a", b"a")], set(), set())], ())
def test_a_further_name_gets_the_content_that_its_set_meant(
    history: list[tuple[list[tuple[str, bytes, bytes]], set[bytes], set[bytes]]], selected: tuple[bytes, ...]
) -> None:
    """First names are replaced, removed, renamed over, not to be looked at, or replaced while they are read, and
    devices get other numbers: each name gets what the set whose row counts saw under it. It is named as lost only where
    no set has stored that."""
    with tempfile.TemporaryDirectory() as folder:
        made = History(Path(folder))
        for happens, unseen, raced in history:
            for change in happens:
                made.apply(change)
            made.back_up(unseen, raced)
        target, problems = made.restore(selected)
        lost = {problem.path for problem in problems}
        chosen = [found for found in state_rows(made.chain) if not selected or found.row.entry.path in selected]
        assert target.files.keys() | lost == {found.row.entry.path for found in chosen}
        assert not target.files.keys() & lost
        for found in chosen:
            entry = found.row.entry
            if entry.path in target.files:
                assert target.files[entry.path] == made.meant[found.place][entry.path]
            else:
                assert entry.type is FileType.HARDLINK
                assert not any(is_stored(made.sets[place], entry) for place in range(found.place + 1))


def is_stored(written: WrittenSet, link: FileEntry) -> bool:
    """Whether a set has what `link` was when it was scanned, under the name that it is linked to."""
    return any(
        (entry.path, entry.inode, entry.ctime_ns) == (link.target, link.inode, link.ctime_ns)
        for entry, _, _ in written.members
    )


def test_a_damaged_first_name_does_not_lend_an_older_file(tmp_path: Path) -> None:
    """The first name could only be stored with damage, so an older good file of that name counts there: the further
    name is not linked to that one."""
    made = History(tmp_path)
    for change in LINKED[:1]:
        made.apply(change)
    made.back_up(set(), set())
    for change in (REPLACED, LINKED[1]):
        made.apply(change)
    made.back_up(set(), set())
    entry, content, _ = made.sets[1].members[0]
    place = tmp_path / "1"
    made.sets[1] = WrittenSet(place, [(entry, content, int(FileFlag.DAMAGED)), *made.sets[1].members[1:]])
    target, problems = made.restore(())
    assert target.files == {b"a": b"content 1"}
    assert [(problem.code, problem.path) for problem in problems] == [("lost", b"b")]
