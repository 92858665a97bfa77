"""The file system of this machine as a target of restores.

Everything is written under a temporary name first and gets its own name when it is whole, so that a restore that dies
leaves no torn file under a name that somebody trusts. Nothing is synced file by file; `finish` syncs all at once.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable

from capstan import file_system
from capstan.core.backup import Conflicts
from capstan.core.files import FileEntry, FileType, display_path
from capstan.errors import TargetError
from capstan.file_system import calls
from capstan.recovery.directories import DeferredDirectories
from capstan.recovery.earlier import DirectoryJournal, EarlierRun, Made
from capstan.recovery.metadata import (
    apply_mode_and_times,
    apply_owner_and_attributes,
    apply_to_descriptor,
    apply_to_name,
)
from capstan.recovery.places import Places
from capstan.recovery.target import FileSink, Placement, Tell

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)


_TEMPORARY = re.compile(rb"\.capstan-\d+-\d+\.part")


class FilesystemTarget:
    """Implements `recovery.target.RecoveryTarget` below one directory. `tell` hears of each warning, on the thread
    that makes it. `earlier`: this restore goes on where that run ended, whose directories are in `journal`."""

    def __init__(
        self,
        root: bytes,
        *,
        tell: Tell,
        conflicts: Conflicts = Conflicts.SKIP,
        strip: int = 0,
        earlier: EarlierRun | None = None,
        journal: DirectoryJournal | None = None,
    ) -> None:
        self._journal = journal or DirectoryJournal()
        self._places = Places(root, strip=strip, on_made=lambda path: self._journal.note(path, Made.ON_THE_WAY))
        self._earlier = earlier
        self._conflicts = conflicts
        self._tell = tell
        self._directories = DeferredDirectories()
        self._renamed: dict[bytes, bytes] = {}  # stripped path: the path it got instead
        self._count = 0
        self._swept: bytes | None = None  # the directory that was looked through last
        if earlier is not None:
            # After a restart, those that were described may have lost it again.
            again = {Made.ON_THE_WAY} if earlier.trusted else {Made.ON_THE_WAY, Made.DESCRIBED}
            self._places.made |= {path for path, made in self._journal.known.items() if made in again}

    def restored(self, entry: FileEntry) -> bool:
        if self._earlier is None:
            return False
        try:
            path = self._places.stripped(entry.path)
            self._sweep(path.rpartition(b"/")[0], self._earlier)
            if entry.type is FileType.DIRECTORY:
                return self._restored_directory(path, entry, self._earlier)
            return bool(path) and self._is_restored(path, entry, self._earlier)
        except (OSError, TargetError):
            return False  # whoever puts it there again hears why

    def directory(self, entry: FileEntry) -> Placement:
        path = self._path(entry)
        if not path:
            return Placement.SKIPPED
        with _Translated(entry):
            at, name = self._places.find(path)
            found = _stat(at, name)
            if found is not None and not stat.S_ISDIR(found.st_mode):
                if self._conflicts is not Conflicts.OVERWRITE:
                    raise TargetError(path=display_path(path), reason="something that is not a directory is there")
                calls.unlink(name, dir_fd=at)
                found = None
            if found is None:
                calls.mkdir(name, 0o700, dir_fd=at)
            elif self._made(path, found):
                self._places.made.discard(path)
            elif not self._prefers(found, entry) and path not in self._directories:
                self._journal.note(path, Made.KEPT)
                return Placement.SKIPPED
            self._directories.add(path, entry)
            at, _ = self._places.find(path + b"/.")
            apply_owner_and_attributes(at, entry, self._tell)
            self._journal.note(path, Made.DESCRIBED)
            return Placement.WRITTEN

    def symlink(self, entry: FileEntry) -> Placement:
        def make(at: int, name: bytes) -> None:
            calls.symlink(entry.target, name, dir_fd=at)
            apply_to_name(at, name, entry, self._tell, link=True)

        return self._make(entry, make)

    def special(self, entry: FileEntry) -> Placement:
        if not file_system.has_nodes:
            self._tell("device", entry.path, "this system has no FIFOs and device nodes")
            return Placement.SKIPPED
        kinds = {FileType.FIFO: stat.S_IFIFO, FileType.CHARACTER: stat.S_IFCHR, FileType.BLOCK: stat.S_IFBLK}

        def make(at: int, name: bytes) -> None:
            device = os.makedev(entry.rdev_major, entry.rdev_minor)
            calls.mknod(name, kinds[entry.type] | 0o600, device, dir_fd=at)
            apply_to_name(at, name, entry, self._tell, link=False)

        try:
            return self._make(entry, make)
        except TargetError:
            if entry.type is FileType.FIFO or os.geteuid() == 0:
                raise
            self._tell("device", entry.path, "device nodes can only be made by root")
            return Placement.SKIPPED

    def hardlink(self, entry: FileEntry, first: bytes) -> Placement:
        source = self._places.stripped(first)
        source = self._renamed.get(source, source)

        def make(at: int, name: bytes) -> None:
            kept = calls.dup(at)  # finding the partner may close the descriptor that was lent
            try:
                other, partner = self._places.find(source)
                calls.link(partner, name, src_dir_fd=other, dst_dir_fd=kept, follow_symlinks=False)
            finally:
                os.close(kept)

        return self._make(entry, make)

    def whole_file(self, entry: FileEntry, data: memoryview) -> Placement:
        path = self._path(entry)
        if not path:
            return Placement.SKIPPED
        with _Translated(entry):
            at, name = self._places.find(path)
            chosen = self._choose(path, at, name, entry)
            if chosen is None:
                return Placement.SKIPPED
            temporary = self._temporary_name()
            descriptor = calls.open(temporary, _CREATE, 0o600, dir_fd=at)
            try:
                try:
                    _write_all(descriptor, data)
                    apply_to_descriptor(descriptor, entry, self._tell)
                finally:
                    os.close(descriptor)
                calls.rename(temporary, chosen, src_dir_fd=at, dst_dir_fd=at)
            except BaseException:
                _discard(at, temporary)
                raise
            return Placement.WRITTEN

    def open_file(self, entry: FileEntry) -> FileSink | None:
        path = self._path(entry)
        if not path:
            return None
        with _Translated(entry):
            at, name = self._places.find(path)
            chosen = self._choose(path, at, name, entry)
            if chosen is None:
                return None
            return FilesystemSink(self, entry, calls.dup(at), chosen, self._temporary_name())

    def finish(self, *, whole: bool = True) -> None:
        """Directories get their metadata, each behind those in it: what is made in a directory changes its time."""
        for path, entry in self._directories.take():
            try:
                at, _ = self._places.find(path + b"/.")
                apply_mode_and_times(at, entry, self._tell)
            except (OSError, TargetError) as error:
                self._tell("directory", entry.path, str(error))
        try:
            self._places.file_systems.sync()
        except OSError as error:
            reason = f"what was written did not reach the disk: {error.strerror}"
            hint = "see to the disk, or restore elsewhere; `capstan job resume` writes all of it again"
            raise TargetError(path=os.fsdecode(self._places.root), reason=reason, hint=hint) from error
        if whole:
            self._journal.remove()

    def close(self) -> None:
        self._journal.close()
        self._places.close()

    # ── how ───────────────────────────────────────────────────────────────────────────────────────────

    def _path(self, entry: FileEntry) -> bytes:
        """The stripped path; told where this system cannot hold the entry's own name."""
        path = self._places.stripped(entry.path)
        if path and not entry.path.endswith(path):
            self._tell("name", entry.path, f"restored as {display_path(path)}: this system cannot hold its name")
        return path

    def _make(self, entry: FileEntry, make: Callable[[int, bytes], None]) -> Placement:
        """Make something without content under a temporary name, then give it its own."""
        path = self._path(entry)
        if not path:
            return Placement.SKIPPED
        with _Translated(entry):
            at, name = self._places.find(path)
            chosen = self._choose(path, at, name, entry)
            if chosen is None:
                return Placement.SKIPPED
            temporary = self._temporary_name()
            try:
                make(at, temporary)
                at, _ = self._places.find(path)
                calls.rename(temporary, chosen, src_dir_fd=at, dst_dir_fd=at)
                # Two names of one file are left as they are by rename(2): then the temporary one is still there.
                _discard(at, temporary)
            except BaseException:
                _discard(self._places.find(path)[0], temporary)
                raise
            return Placement.WRITTEN

    def _choose(self, path: bytes, at: int, name: bytes, entry: FileEntry) -> bytes | None:
        """The name to write under; None when what is there stays."""
        found = _stat(at, name)
        if found is None or self._owns(path, found, entry):
            return name
        if self._conflicts is Conflicts.RENAME:
            chosen = self._free_name(at, name, entry)
            self._renamed[path] = path[: len(path) - len(name)] + chosen
            return chosen
        if not file_system.is_spelled(name, at):
            raise TargetError(path=display_path(path), reason="something whose name differs only in case is there")
        if not self._prefers(found, entry):
            if entry.links > 1:
                self._journal.note(path, Made.KEPT)
            return None
        if stat.S_ISDIR(found.st_mode):
            self._places.forget(path)
            calls.rmdir(name, dir_fd=at)  # only an empty one gives way
        return name

    def _prefers(self, found: os.stat_result, entry: FileEntry) -> bool:
        """Whether the conflicts policy wants the entry instead of what is there."""
        if self._conflicts is Conflicts.OVERWRITE:
            return True
        return self._conflicts is Conflicts.KEEP_NEWER and found.st_mtime_ns < entry.mtime_ns

    def _owns(self, path: bytes, found: os.stat_result, entry: FileEntry) -> bool:
        """Whether an earlier run has put what is found in the place of an entry: then no policy speaks for it."""
        if self._earlier is None or self._journal.known.get(path) is Made.KEPT:
            return False
        return self._earlier.wrote(found, entry)

    def _free_name(self, at: int, name: bytes, entry: FileEntry) -> bytes:
        """A name beside one that is taken; one that an earlier run chose is chosen again."""
        number = 1
        while (found := _stat(at, candidate := b"%s.restored-%d" % (name, number))) is not None:
            if self._earlier is not None and self._earlier.wrote(found, entry):
                break
            number += 1
        return candidate

    def _made(self, path: bytes, found: os.stat_result) -> bool:
        """Whether this restore has made a directory. A restart may have cost the end of the journal: then it counts
        that it was changed since, as one that was made must be."""
        lost = self._earlier is not None and not self._earlier.trusted and path not in self._journal.known
        return path in self._places.made or (lost and self._earlier is not None and self._earlier.made(found))

    def _restored_directory(self, path: bytes, entry: FileEntry, earlier: EarlierRun) -> bool:
        """Whether an earlier run has described or kept it; one that it described gets its mode and times again."""
        made = self._journal.known.get(path)
        if not earlier.trusted or made is None or self._places.look(path) is None:
            return False  # or somebody has removed it meanwhile
        if made is Made.DESCRIBED:
            self._directories.add(path, entry)
        return made is not Made.ON_THE_WAY

    def _is_restored(self, path: bytes, entry: FileEntry, earlier: EarlierRun) -> bool:
        found = self._places.look(path)
        if not earlier.trusted or found is None:
            return False
        if self._conflicts is Conflicts.RENAME and not self._owns(path, found, entry):
            at, name = self._places.find(path)
            self._renamed[path] = path[: len(path) - len(name)] + self._free_name(at, name, entry)
            found = self._places.look(self._renamed[path])
        if found is None or not self._owns(self._renamed.get(path, path), found, entry):
            return False
        if entry.type is not FileType.HARDLINK:
            return True
        first = self._places.stripped(entry.target)
        partner = self._places.look(self._renamed.get(first, first))
        return partner is not None and (partner.st_dev, partner.st_ino) == (found.st_dev, found.st_ino)

    def _sweep(self, directory: bytes, earlier: EarlierRun) -> None:
        """Remove what an earlier run was writing in a directory when it died. Entries come directory by directory."""
        if directory == self._swept:
            return
        self._swept = directory
        if directory and self._places.look(directory) is None:
            return
        at, _ = self._places.find(directory + b"/.")
        with calls.scandir(at) as names:
            left = [name for name in (os.fsencode(item.name) for item in names) if _TEMPORARY.fullmatch(name)]
        for name in left:
            found = _stat(at, name)
            if found is not None and earlier.made(found):
                _discard(at, name)

    def _temporary_name(self) -> bytes:
        self._count += 1
        return b".capstan-%d-%d.part" % (os.getpid(), self._count)


class FilesystemSink:
    """Implements `recovery.target.FileSink`. Owns its directory descriptor."""

    def __init__(self, target: FilesystemTarget, entry: FileEntry, at: int, name: bytes, temporary: bytes) -> None:
        self._target = target
        self._entry = entry
        self._at = at
        self._name = name
        self._temporary = temporary
        self._size = 0
        try:
            self._descriptor = calls.open(temporary, _CREATE, 0o600, dir_fd=at)
        except BaseException:
            os.close(at)
            raise

    def write(self, data: memoryview) -> None:
        with _Translated(self._entry):
            _write_all(self._descriptor, data)
        self._size += len(data)

    def hole(self, length: int) -> None:
        self._size += length
        with _Translated(self._entry):
            os.lseek(self._descriptor, self._size, os.SEEK_SET)

    def commit(self) -> None:
        with _Translated(self._entry):
            try:
                os.ftruncate(self._descriptor, self._size)
                apply_to_descriptor(self._descriptor, self._entry, self._target._tell)
                calls.rename(self._temporary, self._name, src_dir_fd=self._at, dst_dir_fd=self._at)
            except BaseException:
                self.abort()
                raise
        self._close()

    def abort(self) -> None:
        if self._at >= 0:
            _discard(self._at, self._temporary)
        self._close()

    def _close(self) -> None:
        if self._at >= 0:
            os.close(self._descriptor)
            os.close(self._at)
            self._at = -1


class _Translated:
    """Makes what the operating system says about one entry a TargetError."""

    def __init__(self, entry: FileEntry) -> None:
        self._entry = entry

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            path = "/" + display_path(self._entry.path)
            raise TargetError(path=path, reason=error.strerror or str(error)) from error


def _stat(at: int, name: bytes) -> os.stat_result | None:
    try:
        return calls.stat(name, dir_fd=at, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _write_all(descriptor: int, data: memoryview) -> None:
    while len(data):
        data = data[os.write(descriptor, data) :]


def _discard(at: int, name: bytes) -> None:
    try:
        calls.unlink(name, dir_fd=at)
    except FileNotFoundError:
        pass
