"""The file system of this machine as a source of backups."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator, Sequence
from functools import lru_cache

from capstan.backup.exclude import ExcludeRules
from capstan.backup.source import OpenedFile, SourceWarning
from capstan.core.files import FileEntry, FileType, scan_key
from capstan.errors import SourceError

if os.name == "posix":
    import grp
    import pwd

_TYPES = {
    stat.S_IFREG: FileType.REGULAR,
    stat.S_IFDIR: FileType.DIRECTORY,
    stat.S_IFLNK: FileType.SYMLINK,
    stat.S_IFIFO: FileType.FIFO,
    stat.S_IFCHR: FileType.CHARACTER,
    stat.S_IFBLK: FileType.BLOCK,
}
_OPEN = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0)
_OPEN |= getattr(os, "O_BINARY", 0)
_NO_ATIME = getattr(os, "O_NOATIME", 0)
_LONG_PATH = 4000  # bytes: longer ones are reached through their directories (PATH_MAX is 4096)

Inode = tuple[int, int]


class FilesystemSource:
    """Implements `backup.source.BackupSource` over some roots.

    `skip`: (device, inode) of directories to leave out whatever the patterns say (the home, whose database and virtual
    cartridges change while they would be read). `one_file_system`: a mount point is stored as an empty directory.
    """

    def __init__(
        self,
        roots: Sequence[bytes],
        *,
        excludes: Sequence[str] = (),
        one_file_system: bool = False,
        skip: Collection[Inode] = (),
    ) -> None:
        self._named = _absolute(roots)
        self._roots = _distinct(self._named)
        self._rules = ExcludeRules(excludes)
        self._one_file_system = one_file_system
        self._skip = frozenset(skip)
        self._links: dict[Inode, tuple[bytes, int]] = {}  # first name, and how many names are still to come

    def scan(self, after: bytes | None = None) -> Iterator[FileEntry | SourceWarning]:
        start = None if after is None else scan_key(after)
        # A first name that an earlier scan met behind this start may be gone by now: nothing may link to it.
        self._links = {
            key: link for key, link in self._links.items() if start is not None and scan_key(link[0]) <= start
        }
        for root in self._named:
            _root_status(root)  # a root that cannot be read ends the scan before anything was stored
        ancestors: set[bytes] = set()
        for root in self._roots:
            yield from self._parents(root, ancestors, start)
            yield from self._root(root, start)

    def open(self, entry: FileEntry) -> OpenedFile:
        descriptor = self.descriptor(entry)
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise OSError(2, "it is no longer a regular file", entry.path)
            opened = _entry(entry.path, found)
            assert opened is not None
            opened.xattrs = entry.xattrs
        except BaseException:
            os.close(descriptor)
            raise
        return OpenedFile(descriptor, opened)

    def descriptor(self, entry: FileEntry) -> int:
        path = b"/" + entry.path
        descriptor = _open_long(path) if len(path) > _LONG_PATH else _open(path)
        entry.xattrs = _xattrs(descriptor)
        return descriptor

    def entry(self, path: bytes) -> FileEntry:
        full = b"/" + path
        found = _entry(path, os.lstat(full))
        if found is None:
            raise OSError(2, "it is a socket", path)
        if found.type is FileType.SYMLINK:
            found.target = os.readlink(full)  # noqa: PTH115 - a path is bytes
        found.xattrs = _xattrs(full)
        return found

    def _parents(self, root: bytes, seen: set[bytes], start: object) -> Iterator[FileEntry | SourceWarning]:
        """The directories above a root, so that their modes and owners come back too."""
        parts = root.split(b"/")
        for depth in range(1, len(parts)):
            path = b"/".join(parts[:depth])
            if path in seen:
                continue
            seen.add(path)
            if start is None or scan_key(path) > start:  # type: ignore[operator]
                yield self.entry(path)

    def _root(self, root: bytes, start: tuple[bytes, bytes] | None) -> Iterator[FileEntry | SourceWarning]:
        full = b"/" + root
        found = _root_status(root)
        if root and (start is None or scan_key(root) > start):
            yield from self._describe(root, full, found)
        if not stat.S_ISDIR(found.st_mode):
            return
        try:
            names = _listing(full)
        except OSError as error:
            raise SourceError(path=os.fsdecode(full), reason=error.strerror or str(error)) from None
        yield from self._directory(root, root, found.st_dev, start, names)

    def _directory(
        self,
        root: bytes,
        path: bytes,
        device: int,
        start: tuple[bytes, bytes] | None,
        names: list[os.DirEntry[bytes]] | None = None,
    ) -> Iterator[FileEntry | SourceWarning]:
        """The entries of one directory, then each of its subdirectories. An explicit stack: depth has no limit."""
        pending = [path]
        while pending:
            directory = pending.pop()
            if names is None:
                try:
                    names = _listing(b"/" + directory)
                except OSError as error:
                    yield SourceWarning(_reason(error), directory, error.strerror or "")
                    continue
            below: list[bytes] = []
            # What lies before `start` is not described again, but has to be seen to know where to go on.
            for item in names:
                child = directory + b"/" + item.name if directory else item.name
                yield from self._child(root, child, item, device, start, below)
            names = None
            pending.extend(reversed(below))

    def _child(
        self,
        root: bytes,
        path: bytes,
        item: os.DirEntry[bytes],
        device: int,
        start: tuple[bytes, bytes] | None,
        below: list[bytes],
    ) -> Iterator[FileEntry | SourceWarning]:
        directory = item.is_dir(follow_symlinks=False)
        if self._rules and self._rules.match(path[len(root) :].lstrip(b"/"), directory=directory):
            return
        old = start is not None and scan_key(path) <= start
        if old and not directory:
            return
        try:
            found = item.stat(follow_symlinks=False)
        except OSError as error:
            yield SourceWarning(_reason(error), path, error.strerror or "")
            return
        if directory:
            if (found.st_dev, found.st_ino) in self._skip:
                return
            if not (self._one_file_system and found.st_dev != device) and not _all_before(path, start):
                below.append(path)
        if not old:
            yield from self._describe(path, item.path, found)

    def _describe(self, path: bytes, full: bytes, found: os.stat_result) -> Iterator[FileEntry | SourceWarning]:
        entry = _entry(path, found)
        if entry is None:
            yield SourceWarning("socket", path, "sockets are not stored")
            return
        try:
            if entry.type is FileType.SYMLINK:
                entry.target = os.readlink(full)  # noqa: PTH115 (bytes)
                entry.size = 0
            elif entry.links > 1 and entry.type is not FileType.DIRECTORY:
                self._link(entry)
            if entry.type is not FileType.HARDLINK and entry.type is not FileType.REGULAR:
                entry.xattrs = _xattrs(full)
        except OSError as error:
            yield SourceWarning(_reason(error), path, error.strerror or "")
            return
        yield entry

    def _link(self, entry: FileEntry) -> None:
        """Make a further name of an inode that was met before a HARDLINK; forget it after its last name."""
        key = (entry.device, entry.inode)
        first, left = self._links.get(key, (entry.path, entry.links))
        if first != entry.path:
            entry.type, entry.target, entry.size = FileType.HARDLINK, first, 0
        if left > 1:
            self._links[key] = (first, left - 1)
        else:
            self._links.pop(key, None)


def _root_status(root: bytes) -> os.stat_result:
    full = b"/" + root
    try:
        found = os.lstat(full)
    except OSError as error:
        raise SourceError(path=os.fsdecode(full), reason=error.strerror or str(error)) from None
    if stat.S_ISSOCK(found.st_mode):
        raise SourceError(path=os.fsdecode(full), reason="sockets are not stored")
    return found


def _absolute(roots: Sequence[bytes]) -> frozenset[bytes]:
    """Stored paths of what was named."""
    here = os.getcwdb()  # noqa: PTH109 (bytes)
    return frozenset(os.path.normpath(os.path.join(here, root)).lstrip(b"/") for root in roots)  # noqa: PTH118


def _distinct(absolute: frozenset[bytes]) -> list[bytes]:
    """Those that do not lie in another of them, in scan order."""
    kept = [
        root
        for root in absolute
        if not any(other != root and (not other or root.startswith(other + b"/")) for other in absolute)
    ]
    return sorted(kept, key=scan_key)


def _all_before(path: bytes, start: tuple[bytes, bytes] | None) -> bool:
    """Whether everything in the directory `path`, at any depth, lies before or at `start`."""
    if start is None:
        return False
    inside = path.replace(b"/", b"\0")
    return not (start[0] == inside or start[0].startswith(inside + b"\0")) and inside < start[0]


def _listing(path: bytes) -> list[os.DirEntry[bytes]]:
    with os.scandir(path) as found:
        return sorted(found, key=_name)


def _name(item: os.DirEntry[bytes]) -> bytes:
    return item.name


def _entry(path: bytes, found: os.stat_result) -> FileEntry | None:
    """The entry of a stat result; None for what is never stored (sockets)."""
    mode = found.st_mode
    kind = _TYPES.get(stat.S_IFMT(mode))
    if kind is None:
        return None
    device = kind in (FileType.CHARACTER, FileType.BLOCK)
    return FileEntry(
        path,
        kind,
        stat.S_IMODE(mode),
        found.st_uid,
        found.st_gid,
        found.st_size if kind is FileType.REGULAR else 0,
        found.st_mtime_ns,
        found.st_ctime_ns,
        found.st_dev,
        found.st_ino,
        found.st_nlink,
        _owner(found.st_uid),
        _group(found.st_gid),
        b"",
        os.major(found.st_rdev) if device else 0,
        os.minor(found.st_rdev) if device else 0,
    )


def _open(path: bytes) -> int:
    """Open for reading without touching the access time, where we may (it takes the owner or root)."""
    if _NO_ATIME:
        try:
            return os.open(path, _OPEN | _NO_ATIME)
        except PermissionError:
            pass
    return os.open(path, _OPEN)


def _open_long(path: bytes) -> int:
    """Open a path that is too long for one system call, directory by directory."""
    at = os.open(b"/", os.O_RDONLY | os.O_DIRECTORY)
    try:
        parts = path.strip(b"/").split(b"/")
        for part in parts[:-1]:
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
            os.close(at)
            at = inner
        return os.open(parts[-1], _OPEN, dir_fd=at)
    finally:
        os.close(at)


def _xattrs(file: bytes | int) -> tuple[tuple[bytes, bytes], ...]:
    """Extended attributes of a path or descriptor, ACLs and capabilities among them, sorted by name; () where there
    are none. By descriptor it costs a third."""
    if not hasattr(os, "listxattr"):
        return ()
    follow = isinstance(file, int)  # a descriptor is what it is
    try:
        names = os.listxattr(file, follow_symlinks=follow)
        if not names:
            return ()
        return tuple(sorted((os.fsencode(name), os.getxattr(file, name, follow_symlinks=follow)) for name in names))
    except OSError:
        return ()


@lru_cache(maxsize=4096)
def _owner(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, NameError):
        return ""


@lru_cache(maxsize=4096)
def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except (KeyError, NameError):
        return ""


def _reason(error: OSError) -> str:
    return "vanished" if isinstance(error, FileNotFoundError) else "unreadable"
