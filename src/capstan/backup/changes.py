"""What of a source is new since a parent set: the scan and the parent's state, merged in their common order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace

from capstan.backup.source import (
    Absence,
    BackupSource,
    Deletion,
    DirectoryAgain,
    FirstName,
    OpenedFile,
    ScanItem,
    SourceWarning,
)
from capstan.core.files import FileEntry, FileType, display_path, is_below, scan_key
from capstan.core.mounts import Location, MountTable
from capstan.errors import SourceError
from capstan.fileindex.chain import ChainSet, Key, StateRow, state_rows

# A time this close to the scan of the set that holds the file proves nothing: file systems tick in steps of up to two
# seconds (FAT), and the file may have changed in the same tick, behind the read.
_RACE_NS = 2_000_000_000

_UNMOUNTED = "another file system is here than in the parent set: what is not in this one is kept, not deleted"
_GONE = "the file system that this lay in is not there: what is not in this one is kept, not deleted"
_EMPTY = "nothing is in it, and much was in the parent set: all of it is kept, not deleted"


class ChangedSource:
    """Implements `backup.source.BackupSource`: another source without what the parent holds unchanged, and with the
    deletions.

    `parent` is the chain that the new set builds on, oldest first, `before` the mounts of its last set, `started_ns`
    when the new one began. That the scan did not meet something proves nothing: it is called deleted when the source
    has looked for it, in the directory where it was, in the file system where it was. Below a directory that cannot be
    read, where another file system is (un)mounted, and in a root that is suddenly empty, all stays as the parent has
    it. `kept`: such directories that an earlier process met before the point where this one begins; `stored_firsts`:
    names of files with further names that it has stored.
    """

    def __init__(
        self,
        source: BackupSource,
        parent: Sequence[ChainSet],
        *,
        before: MountTable,
        started_ns: int,
        kept: Iterable[bytes] = (),
        stored_firsts: Iterable[bytes] = (),
    ) -> None:
        self._source = source
        self._parent = parent
        self._before = before
        self._started_ns = started_ns
        # Both are kept from scan to scan: one that begins in the middle must know what was met before it.
        self._kept = set(kept)
        self._stored_firsts = set(stored_firsts)

    @property
    def roots(self) -> Sequence[bytes]:
        return self._source.roots

    def scan(self, after: bytes | None = None, links: Iterable[FirstName] | None = None) -> Iterator[ScanItem]:
        start = None if after is None else scan_key(after)
        self._kept = {path for path in self._kept if start is not None and scan_key(path) <= start}
        merge = _Merge(
            self._source, self._parent, self._before, start, self._started_ns, self._kept, self._stored_firsts
        )
        return merge.run(self._source.scan(after, links))

    def open(self, entry: FileEntry) -> OpenedFile:
        return self._source.open(entry)

    def descriptor(self, entry: FileEntry) -> int:
        return self._source.descriptor(entry)

    def entry(self, path: bytes) -> FileEntry:
        return self._source.entry(path)

    def find_absence(self, path: bytes) -> Absence | None:
        return self._source.find_absence(path)

    def mounts(self) -> MountTable:
        return self._source.mounts()

    def locate(self, path: bytes) -> Location | None:
        return self._source.locate(path)

    def is_bare(self, path: bytes) -> bool:
        return self._source.is_bare(path)


class _Merge:
    """One scan. `kept` and `stored_firsts` are added to."""

    def __init__(
        self,
        source: BackupSource,
        parent: Sequence[ChainSet],
        before: MountTable,
        start: Key | None,
        now_ns: int,
        kept: set[bytes],
        stored_firsts: set[bytes],
    ) -> None:
        self._source = source
        self._started_ns = [item.started_ns for item in parent]
        self._now_ns = now_ns
        self._kept = kept
        self._stored_firsts = stored_firsts
        self._last = start or (b"", b"")  # key of the last item
        self._bare: dict[bytes, bool] = {}  # of roots that something is missing in
        self._looked_at: tuple[bytes | None, bool] = (None, False)  # a directory, and whether it can be one
        self._before = before
        self._state = state_rows(parent)
        self._old: StateRow | None = next(self._state, None)
        while start is not None and self._old is not None and self._old.key <= start:
            self._old = next(self._state, None)

    def run(self, scan: Iterator[ScanItem]) -> Iterator[ScanItem]:
        """The items of `scan` that are to be stored, its warnings, what is gone, and directories that come again."""
        stored_in = self._last[0].replace(b"\0", b"/")  # by an earlier process, perhaps
        for item in self._changes(scan):
            if stored_in and item.path.rpartition(b"/")[0] != stored_in:
                yield from self._again(stored_in)
                stored_in = b""
            if isinstance(item, FileEntry):
                stored_in = item.path.rpartition(b"/")[0]
            yield item
        if stored_in:
            yield from self._again(stored_in)

    def _again(self, directory: bytes) -> Iterator[ScanItem]:
        """A directory that something was stored in, unless it has changed itself and so is stored."""
        with suppress(OSError):
            entry = self._source.entry(directory)
            if entry.type is FileType.DIRECTORY and entry.ctime_ns < self._started_ns[-1] - _RACE_NS:
                yield DirectoryAgain(entry)

    def _changes(self, scan: Iterator[ScanItem]) -> Iterator[ScanItem]:
        for item in scan:
            if isinstance(item, SourceWarning) and item.code == "xattr":
                yield item  # it is about an entry that was met
                continue
            key = scan_key(item.path)
            if key <= self._last:  # the names in a directory could not be listed: the one thing that is out of order
                if not isinstance(item, SourceWarning):
                    raise SourceError(path=display_path(item.path), reason="the source gives it out of order")
                yield from self._gone_before((_inside(item.path), b""))
                self._kept.add(item.path)
                yield item
                continue
            yield from self._gone_before(key)
            self._last = key
            old = self._old if self._old is not None and self._old.key == key else None
            if old is not None:
                self._old = next(self._state, None)
            if isinstance(item, FileEntry):
                yield from self._compare(item, old)
            elif isinstance(item, SourceWarning):
                yield from self._warned(item, old)
        yield from self._gone_before(None)

    def _compare(self, entry: FileEntry, old: StateRow | None) -> Iterator[ScanItem]:
        if old is not None and entry.type is FileType.DIRECTORY and self._is_elsewhere(entry.path):
            # The old row stays, so that the next set sees the same as this one.
            self._kept.add(entry.path)
            yield SourceWarning("unmounted", entry.path, _UNMOUNTED, old.row.entry)
        elif old is None or self._differs(entry, old):
            if entry.links > 1 and entry.type is FileType.REGULAR:
                self._stored_firsts.add(entry.path)
            yield entry

    def _differs(self, entry: FileEntry, row: StateRow) -> bool:
        old = row.row.entry
        return (
            row.again
            or entry.mtime_ns != old.mtime_ns
            or entry.ctime_ns != old.ctime_ns
            or entry.inode != old.inode
            or entry.size != old.size
            or entry.type is not old.type
            or entry.mode != old.mode
            or entry.uid != old.uid
            or entry.gid != old.gid
            or entry.target != old.target
            or self._last_change(old) >= self._started_ns[row.place] - _RACE_NS
            # The names of one file go together: whoever restores this set alone finds all of them or none.
            or (entry.type is FileType.HARDLINK and entry.target in self._stored_firsts)
        )

    def _last_change(self, old: FileEntry) -> int:
        """When a file was last touched. A modification time that is still to come was set by somebody."""
        return old.ctime_ns if old.mtime_ns > self._now_ns + _RACE_NS else max(old.mtime_ns, old.ctime_ns)

    def _warned(self, warning: SourceWarning, old: StateRow | None) -> Iterator[ScanItem]:
        """Trouble with one name: what the parent has under it stays, but for what is another kind of thing now."""
        if old is not None and warning.code == "socket":
            yield Deletion(warning.path)
        elif old is not None and old.row.entry.type is FileType.DIRECTORY:
            self._kept.add(warning.path)
            warning = replace(warning, entry=old.row.entry)
        yield warning

    def _gone_before(self, key: Key | None) -> Iterator[ScanItem]:
        """The parent's entries before `key`, the next item's, that the scan did not meet."""
        while self._old is not None and (key is None or self._old.key < key):
            old = self._old.row.entry
            if not self._is_kept(old.path):
                yield from self._look_for(old)
            elif self._is_replaced(old.path):
                yield Deletion(old.path)
            self._old = next(self._state, None)

    def _is_elsewhere(self, path: bytes) -> bool:
        """Whether another file system is at a mount point, or root, of the parent."""
        mount = self._before.at(path)
        with suppress(OSError):
            return mount is not None and self._source.locate(path) != mount.location
        return False

    def _is_replaced(self, path: bytes) -> bool:
        """Whether something that is no directory has a name on the way: a tree cannot hold both, whatever is kept."""
        directory = path.rpartition(b"/")[0]
        if directory != self._looked_at[0]:
            replaced = False
            with suppress(OSError):
                absence = self._source.find_absence(path)
                replaced = absence is not None and absence.replaced
            self._looked_at = directory, replaced
        return self._looked_at[1]

    def _look_for(self, old: FileEntry) -> Iterator[ScanItem]:
        """Call something deleted if that can be proven. What is there again will be met by the next backup."""
        path = old.path
        around = path if old.type is FileType.DIRECTORY else path.rpartition(b"/")[0]
        try:
            root = self._root_of(path)
            if root is not None and self._is_bare(root):
                self._kept.add(root)
                yield SourceWarning("empty", root, _EMPTY)
                return
            absence = self._source.find_absence(path)
        except OSError as error:
            self._kept.add(around)
            yield SourceWarning("unreadable", around, error.strerror or str(error))
            return
        if absence is None:
            return
        # It is gone if that is the very directory, in the very file system, where it was.
        place = path if self._before.at(path) else path.rpartition(b"/")[0]
        now = absence.location.below(place[len(absence.above) :].lstrip(b"/"))
        if absence.replaced or now == self._before.locate(place):
            yield Deletion(path)
        else:
            # What was mounted around it is not there; or what is mounted there now lies over it.
            mounts = self._before.around(path), self._source.mounts().around(path)
            top = max((mount.path for mount in mounts if mount), key=len, default=around)
            self._kept.add(top)
            yield SourceWarning("unmounted", top, _GONE)

    def _root_of(self, path: bytes) -> bytes | None:
        """The innermost root that a path lies in, or is."""
        around = (root for root in self._source.roots if path == root or is_below(path, root))
        return max(around, key=len, default=None)

    def _is_bare(self, root: bytes) -> bool:
        if root not in self._bare:
            self._bare[root] = self._source.is_bare(root)
        return self._bare[root]

    def _is_kept(self, path: bytes) -> bool:
        if not self._kept:
            return False
        while path:
            path = path.rpartition(b"/")[0]
            if path in self._kept:
                return True
        return False


def _inside(directory: bytes) -> bytes:
    """The first part of the keys of what lies in `directory`."""
    return directory.replace(b"/", b"\0")
