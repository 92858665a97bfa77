"""Names below a target, reached from descriptor to descriptor: no link and no `..` can lead out of it."""

from __future__ import annotations

import errno
import os
from collections import OrderedDict
from collections.abc import Callable

from capstan import file_system
from capstan.core.files import display_path
from capstan.errors import TargetError
from capstan.file_system import calls
from capstan.recovery.write_back import FileSystems

_KEPT = 64  # directories kept open: a restore goes from one to the next
_DIRECTORY = os.O_RDONLY | getattr(calls, "O_DIRECTORY", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)


class Places:
    """Turns stored paths into (directory descriptor, name). `strip` leading components are dropped.

    Directories that are missing on the way are made, with the mode that the process gives to new directories; `made`
    has their stripped paths, until whoever describes them takes them out; `on_made` hears of each. `file_systems` has
    that of the root, and each that a directory on the way lies in.
    """

    def __init__(self, root: bytes, *, strip: int = 0, on_made: Callable[[bytes], None] = lambda path: None) -> None:
        """Open or make the root; links are followed to it, as whoever named it meant. TargetError."""
        self.root = root
        self._strip = strip
        self._on_made = on_made
        try:
            calls.makedirs(root, exist_ok=True)
            self._root = calls.open(root, os.O_RDONLY | getattr(calls, "O_DIRECTORY", 0))
        except OSError as error:
            raise TargetError(path=os.fsdecode(root), reason=error.strerror or str(error)) from None
        self.file_systems = FileSystems()
        self.file_systems.add(self._root)
        self.made: set[bytes] = set()
        self._open: OrderedDict[bytes, int] = OrderedDict()

    def stripped(self, path: bytes) -> bytes:
        """What is left of a stored path; b"" when nothing is. TargetError for a path that no honest writer makes."""
        parts = path.split(b"/")
        if not all(parts) or b".." in parts or b"." in parts or b"\0" in path:
            raise TargetError(path=display_path(path), reason="the path is not one that Capstan writes; refused")
        return b"/".join(map(file_system.fit_name, parts[self._strip :]))

    def find(self, path: bytes) -> tuple[int, bytes]:
        """The open directory of a stripped path, and the name in it. The descriptor is lent, until the next call."""
        directory, _, name = path.rpartition(b"/")
        return self._directory(directory), name

    def look(self, path: bytes) -> os.stat_result | None:
        """What is at a stripped path, not followed; None when nothing is, or when it cannot be reached."""
        directory, _, name = path.rpartition(b"/")
        try:
            at = self._directory(directory, make=False)
            return calls.stat(name, dir_fd=at, follow_symlinks=False)
        except (OSError, TargetError):
            return None

    def close(self) -> None:
        """Close all descriptors. Twice is harmless."""
        self.file_systems.close()
        while self._open:
            os.close(self._open.popitem()[1])
        if self._root >= 0:
            os.close(self._root)
            self._root = -1

    def forget(self, path: bytes) -> None:
        """Close what is kept of a directory that was removed or replaced."""
        for known in [known for known in self._open if known == path or known.startswith(path + b"/")]:
            os.close(self._open.pop(known))

    def _directory(self, path: bytes, *, make: bool = True) -> int:
        """From the nearest directory above that is open; as deep as it may be."""
        known, missing = path, []
        while known and known not in self._open:
            known, _, name = known.rpartition(b"/")
            missing.append(name)
        descriptor = self._root
        if known:
            descriptor = self._open[known]
            self._open.move_to_end(known)
        while missing:
            name = missing.pop()
            known = known + b"/" + name if known else name
            try:
                descriptor, made = _enter(descriptor, name, make=make)
            except OSError as error:
                reason = error.strerror or str(error)
                if error.errno in (errno.ELOOP, errno.ENOTDIR):
                    reason = "something that is not a directory, maybe a link, is on the way; refused"
                raise TargetError(path=display_path(known), reason=reason) from None
            if made:
                self.made.add(known)
                self._on_made(known)
            self._open[known] = descriptor
            self.file_systems.add(descriptor)
            if len(self._open) > _KEPT:
                os.close(self._open.popitem(last=False)[1])
        return descriptor


def _enter(parent: int, name: bytes, *, make: bool) -> tuple[int, bool]:
    """Open a directory, and whether it had to be made."""
    try:
        return calls.open(name, _DIRECTORY, dir_fd=parent), False
    except FileNotFoundError:
        if not make:
            raise
        calls.mkdir(name, 0o777, dir_fd=parent)
        return calls.open(name, _DIRECTORY, dir_fd=parent), True
