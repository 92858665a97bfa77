"""The file system of this machine as a source of backups."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from capstan import file_system
from capstan.backup.exclude import ExcludeRules
from capstan.backup.hard_links import HardLinks
from capstan.backup.inode_entry import entry_of
from capstan.backup.mount_info import MountInfo
from capstan.backup.reach import innermost_directory, open_file, open_listed, open_searched, within_reach
from capstan.backup.roots import stored_roots
from capstan.backup.source import Absence, FirstName, Inode, OpenedFile, SourceWarning
from capstan.backup.tree_walk import TreeWalk, WalkRules, source_error
from capstan.backup.unread import Unread
from capstan.core.files import FileEntry, FileType, is_below
from capstan.core.mounts import Location, Mounted, MountTable
from capstan.errors import SourceError
from capstan.file_system import calls


class FilesystemSource:
    """Implements `backup.source.BackupSource` over some roots.

    `skip`: directories to leave out whatever the patterns say (the home, whose database and virtual cartridges change
    while they would be read). `one_file_system`: a mount point is stored as an empty directory, unless it is a root.
    So are /proc, /sys and what else the kernel makes up, in any case. `spool`: where the names of a directory that has
    more than `names_in_memory` are sorted; by default where the system keeps temporary files. A scan then raises
    StorageFailed when there is no room.
    """

    def __init__(
        self,
        roots: Sequence[bytes],
        *,
        excludes: Sequence[str] = (),
        one_file_system: bool = False,
        skip: Collection[Inode] = (),
        spool: Path | None = None,
        names_in_memory: int = 500_000,
    ) -> None:
        file_system.take_privileges()
        self._rules = WalkRules(
            roots=stored_roots(roots),
            excludes=ExcludeRules(excludes),
            one_file_system=one_file_system,
            skip=frozenset(skip),
            spool=spool,
            names_in_memory=names_in_memory,
        )
        self._links = HardLinks()
        self._unread = Unread()
        self._info = MountInfo()

    @property
    def roots(self) -> Sequence[bytes]:
        return sorted(self._rules.roots)

    def scan(
        self, after: bytes | None = None, links: Iterable[FirstName] | None = None
    ) -> Iterator[FileEntry | SourceWarning]:
        if links is None:
            self._links.forget_behind(after)
        else:
            self._links = HardLinks(links)
        for root in sorted(self._rules.roots):
            _check_root(root)  # a root that cannot be read ends the scan before anything was stored
        if self._rules.roots:
            walk = TreeWalk(self._rules, after, self._links, self._unread, mounts=self.mounts(), info=self._info)
            for item in walk:
                yield item
                if self._unread:
                    yield from self._unread.take()

    def open(self, entry: FileEntry) -> OpenedFile:
        descriptor = self.descriptor(entry)
        try:
            found = calls.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise OSError(2, "it is no longer a regular file", entry.path)
            opened = entry_of(entry.path, found)
            assert opened is not None
            opened.xattrs = entry.xattrs
        except BaseException:
            os.close(descriptor)
            raise
        return OpenedFile(descriptor, opened)

    def descriptor(self, entry: FileEntry) -> int:
        descriptor = open_file(entry.path)
        entry.xattrs = self._unread.xattrs(descriptor, entry.path)
        return descriptor

    def entry(self, path: bytes) -> FileEntry:
        with within_reach(path) as (at, name):
            found = entry_of(path, calls.stat(name, dir_fd=at, follow_symlinks=False))
            if found is None:
                raise OSError(2, "it is a socket", path)
            if found.type is FileType.SYMLINK:
                found.target = calls.readlink(name, dir_fd=at)
            found.xattrs = self._unread.xattrs(file_system.by_descriptor(at, name), path)
        return found

    def find_absence(self, path: bytes) -> Absence | None:
        with innermost_directory(path) as (at, above, gone, replaced):
            return Absence(above, self._info.locate(at, above), replaced) if gone else None

    def locate(self, path: bytes) -> Location | None:
        try:
            descriptor = open_searched(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            return self._info.locate(descriptor, path)
        finally:
            os.close(descriptor)

    def mounts(self) -> MountTable:
        found = []
        for root in self.roots:
            try:
                location = self.locate(root)
                if location is None:  # it is a file: where a directory of that name would be
                    above, _, name = root.rpartition(b"/")
                    around = self.locate(above)
                    location = around and around.below(name)
            except OSError as error:
                raise source_error(root, error) from error
            if location is not None:
                found.append(Mounted(root, location, is_root=True))
        for point in sorted(set(self._info.points()) - self._rules.roots - set(self._info.made_up())):
            if not self._rules.one_file_system and self._takes(point):
                with suppress(OSError):  # a mount point that nobody can reach any more: another one lies over it
                    location = self.locate(point)
                    if location is not None:
                        found.append(Mounted(point, location))
        return MountTable(found)

    def _takes(self, point: bytes) -> bool:
        """Whether a scan enters a mount point: it lies in a root, and no pattern leaves it out."""
        root = max((root for root in self._rules.roots if is_below(point, root)), key=len, default=None)
        if root is None:
            return False
        names = point[len(root) :].lstrip(b"/").split(b"/")
        above = (b"/".join(names[:depth]) for depth in range(1, len(names) + 1))
        return not any(self._rules.excludes.match(path, directory=True) for path in above)

    def is_bare(self, path: bytes) -> bool:
        try:
            descriptor = open_listed(path)
        except NotADirectoryError:
            return False
        try:
            with calls.scandir(descriptor) as names:
                return next(names, None) is None
        finally:
            os.close(descriptor)


def _check_root(root: bytes) -> None:
    """SourceError when a root is not there, or is a directory that cannot be listed."""
    try:
        with within_reach(root) as (at, name):
            found = calls.stat(name, dir_fd=at, follow_symlinks=False)
        if stat.S_ISSOCK(found.st_mode):
            raise SourceError(path=file_system.shown_path(root), reason="sockets are not stored")
        if stat.S_ISDIR(found.st_mode):
            descriptor = open_listed(root)
            try:
                with calls.scandir(descriptor) as names:
                    next(names, None)
            finally:
                os.close(descriptor)
    except OSError as error:
        raise source_error(root, error) from None
