"""One walk over a file system from its top, in the order of `core.files.scan_key`."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from capstan import file_system
from capstan.backup.exclude import ExcludeRules
from capstan.backup.hard_links import HardLinks
from capstan.backup.inode_entry import entry_of
from capstan.backup.mount_info import MountInfo
from capstan.backup.reach import LONGEST, open_listed, open_searched
from capstan.backup.roots import RootTree, root_tree
from capstan.backup.sorted_names import SortedNames
from capstan.backup.source import Inode, SourceWarning
from capstan.backup.unread import Unread
from capstan.core.files import FileEntry, FileType, scan_key
from capstan.core.mounts import MountTable
from capstan.errors import SourceError
from capstan.file_system import calls

_ENCODING, _ERRORS = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()
_MARK = b"\0"  # behind the name of a directory: it sorts as the name alone does
_ALL = b"\xff" * 256  # behind every name: they have 255 bytes at most

_REMOUNTED = "a file system was mounted or unmounted here before it could be read: nothing in it is stored"

_Found = FileEntry | SourceWarning


@dataclass(frozen=True, slots=True)
class WalkRules:
    """What a walk takes and leaves. `roots` are stored paths, `skip` directories that are left out, `names_in_memory`
    how many names of a directory are sorted without `spool`."""

    roots: frozenset[bytes]
    excludes: ExcludeRules
    one_file_system: bool
    skip: frozenset[Inode]
    spool: Path | None
    names_in_memory: int


@dataclass(slots=True)
class _Directory:
    """A directory that the walk is in, and what is to be walked below it.

    Its path is not here: the walk has that of the innermost one only, or a deep tree would cost the square of its
    depth. `above`: the names that lead to roots, if it lies above them; then nothing else in it is taken.
    """

    path_bytes: int
    above: RootTree | None
    is_root: bool
    root_bytes: int  # of its root's path, with the slash behind it
    device: int  # of the file system that the walk keeps to
    below: SortedNames
    rest: Iterator[bytes] = field(default_factory=lambda: iter(()))

    @property
    def is_needed(self) -> bool:
        """Whether it is a root or lies above one: without it there is no backup."""
        return self.is_root or self.above is not None


class TreeWalk:
    """Iterate it once. Everything that leads to the roots is walked by the same code as what is in them, so that the
    order is that of one tree, however many roots there are."""

    def __init__(
        self,
        rules: WalkRules,
        after: bytes | None,
        links: HardLinks,
        unread: Unread,
        *,
        mounts: MountTable,
        info: MountInfo,
    ) -> None:
        """`mounts`: what a directory must be when its turn comes. What is mounted later is taken as it is."""
        self._rules = rules
        self._mounts = mounts
        self._info = info
        self._points = frozenset(info.points())
        self._made_up = frozenset(info.made_up())
        self._unread = unread
        self._start = None if after is None else scan_key(after)
        self._links = links

    def __iter__(self) -> Iterator[_Found]:
        """Depth first, with an explicit stack: depth has no limit. Raises SourceError, StorageFailed."""
        path = b""
        above = root_tree(self._rules.roots)
        here = self._inner(0, above, is_root=above is None, root_bytes=0, device=0)
        stack: list[_Directory] = []
        while True:
            yield from self._directory(path, here)
            here.rest = iter(here.below)
            stack.append(here)
            while (name := next(stack[-1].rest, None)) is None:
                stack.pop()
                if not stack:
                    return
            outer = stack[-1]
            path = path[: outer.path_bytes] + b"/" + name if outer.path_bytes else name
            above = outer.above[name] if outer.above is not None else None
            is_root = outer.above is not None and above is None
            here = self._inner(
                len(path),
                above,
                is_root=is_root,
                root_bytes=len(path) + 1 if is_root else outer.root_bytes,
                device=outer.device,
            )

    def _inner(
        self, path_bytes: int, above: RootTree | None, *, is_root: bool, root_bytes: int, device: int
    ) -> _Directory:
        below = SortedNames(self._rules.spool, self._rules.names_in_memory)
        return _Directory(path_bytes, above, is_root, root_bytes, device, below)

    def _directory(self, path: bytes, here: _Directory) -> Iterator[_Found]:
        """The entries of one directory, which is open meanwhile; fills `here.below`."""
        try:
            descriptor = open_listed(path) if here.above is None else open_searched(path)
        except OSError as error:
            yield self._not_listed(path, here, error)
            return
        try:
            try:
                found = calls.fstat(descriptor)
                # It may be another one by now than the one whose entry was made.
                if not here.is_needed and self._is_skipped(found):
                    return
                mount = self._mounts.at(path)
                if mount is not None:
                    as_expected = self._info.locate(descriptor, path) == mount.location
                else:
                    as_expected = here.is_needed or self._may_enter(path, here.device, found)
                if not as_expected:
                    yield self._not_listed(path, here, OSError(0, _REMOUNTED), "unmounted")
                    return
                here.device = found.st_dev
                names = self._listing(descriptor) if here.above is None else sorted(here.above)
            except OSError as error:
                yield self._not_listed(path, here, error)
                return
            yield from self._entries(path, here, descriptor, names)
        finally:
            os.close(descriptor)

    def _listing(self, descriptor: int) -> SortedNames:
        """All names of an open directory, those of directories with `_MARK`: they are listed whole, or not at all."""
        names = SortedNames(self._rules.spool, self._rules.names_in_memory)
        with calls.scandir(descriptor) as found:
            names.extend(_marked_names(found))
        return names

    def _entries(self, path: bytes, here: _Directory, descriptor: int, names: Iterable[bytes]) -> Iterator[_Found]:
        """What is in one directory. This is the inner loop of every scan."""
        inside, root_bytes, excludes = here.above is None, here.root_bytes, self._rules.excludes
        stat_at = calls.stat
        roots, excluding = self._rules.roots, bool(excludes) and inside  # a root in another was named by itself
        prefix = path + b"/" if path else b""
        entered_from, seen_to = self._bounds(path)
        last = b""
        for name in names:
            directory = name[-1] == 0
            if directory:
                name = name[:-1]
            if name == last:
                continue  # a directory that changes while it is listed may give a name twice
            last = name
            old = name <= seen_to
            if old and (name < entered_from or (inside and not directory)):
                continue
            child = prefix + name
            if excluding and child not in roots and excludes.match(child[root_bytes:], directory=directory):
                continue
            try:
                found = stat_at(name, dir_fd=descriptor, follow_symlinks=False)
            except OSError as error:
                if not inside:
                    raise source_error(child, error) from None
                if not old:
                    yield warning_of(child, error)
                continue
            if stat.S_ISDIR(found.st_mode):
                if inside and self._is_skipped(found):
                    continue
                if name >= entered_from and (not inside or self._may_enter(child, here.device, found)):
                    here.below.append(name)
            elif here.above is not None and here.above[name] is not None:
                raise source_error(child, NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)))
            if not old:
                yield self._described(child, found, descriptor, name)

    def _described(self, path: bytes, found: os.stat_result, descriptor: int, name: bytes) -> _Found:
        """The whole entry of `name` in the directory that is open as `descriptor`, or what is wrong with it."""
        entry = entry_of(path, found)
        if entry is None:
            return SourceWarning("socket", path, "sockets are not stored")
        kind = entry.type
        if kind is FileType.SYMLINK:
            try:
                entry.target = calls.readlink(name, dir_fd=descriptor)
            except OSError as error:
                return warning_of(path, error)
        elif entry.links > 1 and kind is not FileType.DIRECTORY:
            self._links.meet(entry)
            kind = entry.type
        if kind is not FileType.REGULAR and kind is not FileType.HARDLINK:
            short = len(path) < LONGEST
            file = b"/" + path if short else file_system.by_descriptor(descriptor, name)
            entry.xattrs = self._unread.xattrs(file, path)
        return entry

    def _is_skipped(self, found: os.stat_result) -> bool:
        return (found.st_dev, found.st_ino) in self._rules.skip

    def _may_enter(self, path: bytes, device: int, found: os.stat_result) -> bool:
        """Whether a directory belongs to the walk. A root does, also where it lies in another one as a mount point."""
        if path in self._rules.roots:
            return True
        if path in self._made_up:
            return False
        return not self._rules.one_file_system or (found.st_dev == device and path not in self._points)

    def _bounds(self, path: bytes) -> tuple[bytes, bytes]:
        """Where the start lies in the directory `path`: the first name that is entered, if it is a directory, and the
        last one whose own entry comes before the start."""
        if self._start is None:
            return b"", b""
        here = path.replace(b"/", b"\0")
        directory, name = self._start
        if here < directory:  # the start lies below it, for nothing else that comes before is entered
            return directory[len(here) + 1 if here else 0 :].split(b"\0", 1)[0], _ALL
        if here == directory:
            return b"", name
        self._start = None  # everything that follows comes behind it
        return b"", b""

    def _not_listed(self, path: bytes, here: _Directory, error: OSError, code: str = "") -> SourceWarning:
        if here.is_needed:
            raise source_error(path, error) from None
        return SourceWarning(code, path, error.strerror or "") if code else warning_of(path, error)


def _marked_names(found: Iterable[os.DirEntry[str]]) -> Iterator[bytes]:
    """By descriptor the names come as text, whose bytes are those of the file system all the same."""
    for item in found:
        name = item.name.encode(_ENCODING, _ERRORS)
        try:
            if item.is_dir(follow_symlinks=False):
                name += _MARK
        except OSError:
            pass  # its own turn will tell what is wrong with it
        yield name


def source_error(path: bytes, error: OSError) -> SourceError:
    """A root, or what leads to it, that cannot be read."""
    return SourceError(path=file_system.shown_path(path), reason=error.strerror or str(error))


def warning_of(path: bytes, error: OSError) -> SourceWarning:
    """`vanished` only for what is certainly not there any more: whoever compares takes all else for still there."""
    code = "vanished" if isinstance(error, FileNotFoundError) else "unreadable"
    return SourceWarning(code, path, error.strerror or "")
