"""Packs the entries of a source into the frames of the tar stream (docs/design/tape-format.md, 3).

The inner loop is `_store_small`: nothing is allocated, locked or looked up there that need not be.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice

from capstan import positional_io
from capstan.backup.content import ZEROS, FileContent, content_of, fill_zeros, same_file
from capstan.backup.conveyor import Conveyor, ConveyorStopped
from capstan.backup.holes import find_map, has_holes, map_again
from capstan.backup.source import BackupSource, Deletion, DirectoryAgain, FirstName, OpenedFile, SourceWarning
from capstan.core.files import FileEntry, FileFlag, FileType, Row, scan_key
from capstan.file_system import calls
from capstan.format.frames import Frame, OpenMember, ResumePoint
from capstan.format.layout import TAR_BLOCK, TAR_END
from capstan.format.tar import content_bytes, member_headers, padded

_REGULAR = FileType.REGULAR
_FRAME_ROWS = 16_384  # and deletions: more than a full frame has of any member, so only those without bytes add up
_StoredPath = bytes


@dataclass(slots=True)
class PackCounters:
    """How far the packing has come; written by one thread, read by any. `current` is a stored path."""

    files: int = 0
    bytes: int = 0
    current: _StoredPath = b""


class Packer:
    """Runs in one thread, once: `run` puts every frame of the source onto the conveyor."""

    def __init__(
        self,
        source: BackupSource,
        conveyor: Conveyor,
        *,
        frame_bytes: int,
        resume: ResumePoint,
        links: Sequence[FirstName] | None,
        on_warning: Callable[[SourceWarning], None],
        counters: PackCounters,
    ) -> None:
        self._source = source
        self._conveyor = conveyor
        self._frame_bytes = frame_bytes
        self._resume = resume
        self._links = links
        self._on_warning = on_warning
        self._counters = counters
        self._totals = replace(resume.totals)
        self._after = resume.after
        self._tar_offset = resume.tar_offset  # of the frame in hand
        self._view = memoryview(b"")
        self._at = 0  # bytes of the frame in hand that are packed
        self._room = 0
        self._rows: list[Row] = []
        self._deleted: list[bytes] = []
        self._unsettled: OpenMember | None = None  # was given up, and its file is not stored again yet
        self._lost_links = dict(resume.lost_links)
        self._lost_links_kept = resume.lost_links  # as resume points have it; changed in place it never is

    def run(self) -> None:
        """Pack everything. Raises ConveyorStopped, and SourceError when a root cannot be read."""
        self._counters.files, self._counters.bytes = self._totals.files, self._totals.bytes
        self._take_buffer()
        scan = self._source.scan(self._resume.after, self._links)
        first = list(islice(scan, 1))  # a source that is gone ends it here, before its open member is given up
        if self._resume.open_member is not None:
            self._go_on_with(self._resume.open_member)
        conveyor, counters = self._conveyor, self._counters
        for item in chain(first, scan):
            if isinstance(item, SourceWarning):
                self._pass_on(item)
            elif isinstance(item, Deletion):
                self._deleted.append(item.path)
                self._after = item.path
            elif isinstance(item, DirectoryAgain):
                self._put_undivided(member_headers(item.entry))
            elif item.type is _REGULAR:
                counters.current = item.path
                self._store_regular(item)
            else:
                self._store_other(item)
            if len(self._rows) + len(self._deleted) >= _FRAME_ROWS:
                self._seal()
            if conveyor.stopped:
                raise ConveyorStopped
        if len(TAR_END) > self._room:
            self._seal()
        self._put(TAR_END)
        self._seal(last=True)

    # ── members ───────────────────────────────────────────────────────────────────────────────────────

    def _store_other(self, entry: FileEntry) -> None:
        """A member that is headers only."""
        if entry.type is FileType.HARDLINK and entry.target in self._lost_links:
            first = self._lost_links[entry.target]
            if first is None:
                self._store_first_again(entry)
                return
            entry = replace(entry, target=first)
        headers = member_headers(entry)
        at = self._put_undivided(headers)
        self._rows.append(Row(entry, at, len(headers), None))
        self._after = entry.path
        if entry.type is not FileType.DIRECTORY:
            self._totals.files += 1

    def _store_first_again(self, entry: FileEntry) -> None:
        """The first name of this file did not get onto the tape: this name carries the content instead."""
        if self._store_regular(replace(entry, type=_REGULAR, target=b"")):
            self._lost_links[entry.target] = entry.path

    def _store_regular(self, entry: FileEntry) -> bool:
        """Store a file with its content; False when it could not be opened."""
        tar_bytes = 3 * TAR_BLOCK + entry.size  # with the usual headers
        if tar_bytes <= self._frame_bytes and self._store_small(entry):
            return True
        return self._store_checked(entry)

    def _store_small(self, entry: FileEntry) -> bool:
        """Store a file that fits into a frame, if it is what the scan saw from its first byte to its last.

        One fstat behind the read proves that. Otherwise False, and nothing was stored: `_store_checked` knows how to
        deal with whatever happened.
        """
        try:
            descriptor = self._source.descriptor(entry)
        except OSError:
            return False
        try:
            headers = member_headers(entry)
            size = entry.size
            tar_bytes = len(headers) + (size + (TAR_BLOCK - 1) & -TAR_BLOCK)
            if tar_bytes > self._room:
                self._make_room(len(headers), tar_bytes)
                if tar_bytes > self._room:
                    return False
            view, at = self._view, self._at
            start = at + len(headers)
            end = start + size
            view[at:start] = headers
            piece = view[start:end]
            count = positional_io.preadv(descriptor, (piece,), 0)
            now = calls.fstat(descriptor)
            if now.st_blocks * 512 < size and has_holes(descriptor, size):
                return False
        except OSError:
            return False
        finally:
            os.close(descriptor)
        if (
            count != size
            or now.st_size != size
            or now.st_mtime_ns != entry.mtime_ns
            or now.st_ctime_ns != entry.ctime_ns
            or now.st_ino != entry.inode
            or now.st_dev != entry.device
        ):
            return False
        padded_end = at + tar_bytes
        view[end:padded_end] = ZEROS[: padded_end - end]
        self._rows.append(Row(entry, self._tar_offset + at, tar_bytes, hashlib.sha256(piece).digest()))
        self._at = padded_end
        self._room -= tar_bytes
        self._after = entry.path
        self._totals.files += 1
        self._totals.bytes += size
        return True

    def _store_checked(self, entry: FileEntry) -> bool:
        """Store a file that may change or fail while it is read, or go across frames."""
        try:
            opened = self._source.open(entry)
        except OSError as error:
            self._not_opened(entry, error)
            return False
        try:
            if entry.links > 1 and (entry.device, entry.inode) != (opened.entry.device, opened.entry.inode):
                self._lost_links[entry.path] = None  # another file has come to this name
            entry = opened.entry
            sparse = find_map(opened.descriptor, entry.size)
            content = content_of(opened.descriptor, sparse)
            if sparse is not None:
                entry = replace(entry, stored_bytes=sparse.stored_bytes)
            headers = member_headers(entry)
            tar_bytes = len(headers) + padded(content_bytes(entry))
            if tar_bytes > self._room:
                # A map is not divided either: cut off in the middle, and its file gone, it would lead stock tar astray.
                undivided = len(headers) + (len(sparse.text) if sparse else 0)
                self._make_room(undivided, tar_bytes)
            row = Row(entry, self._tar_offset + self._at, tar_bytes, None, int(content.flags))
            self._put(headers)
            self._after = entry.path
            self._finish(OpenMember(row, len(headers), hashlib.sha256(), sparse), content, len(headers))
        finally:
            os.close(opened.descriptor)
        return True

    def _finish(self, member: OpenMember, content: FileContent, done: int) -> None:
        """Pack the rest of `member` from its file, tell what was wrong with it, and append its row."""
        entry = member.row.entry
        digest = self._stream(member, content, done)
        flags = content.flags
        if content.changed_since(entry):
            flags |= FileFlag.CHANGED
        if content.trouble:
            self._warn("unreadable", entry.path, f"the rest is stored as zeros: {content.trouble}")
        elif flags & FileFlag.CHANGED:
            self._warn("changed", entry.path, "it changed while it was read")
        self._rows.append(member.row._replace(sha256=digest, flags=int(flags)))
        self._totals.files += 1
        self._totals.bytes += entry.size

    def _stream(self, member: OpenMember, content: FileContent, done: int) -> bytes | None:
        """Pack the rest of `member`, of which `done` bytes (headers included) are packed; returns its digest."""
        row, digest = member.row, member.hash
        # A sparse member whose map is not known any more is zeros to its end.
        content_end = min(member.header_bytes + content_bytes(row.entry), row.tar_bytes)
        while done < row.tar_bytes:
            if not self._room:
                self._seal(replace(member, row=row._replace(flags=int(content.flags)), hash=digest and digest.copy()))
            end = content_end if done < content_end else row.tar_bytes
            piece = self._view[self._at : self._at + min(self._room, end - done)]
            if done < content_end:
                content.fill(piece, done - member.header_bytes)
                if digest is not None:
                    digest.update(piece)
            else:
                fill_zeros(piece)
            done += len(piece)
            self._at += len(piece)
            self._room -= len(piece)
            self._counters.bytes = self._totals.bytes + min(done, content_end) - member.header_bytes
        return None if digest is None else bytes(digest.digest())

    # ── resuming inside a member ──────────────────────────────────────────────────────────────────────

    def _go_on_with(self, member: OpenMember) -> None:
        """Finish the member that was open at the resume point; if its file is another one now, store it once more."""
        entry = member.row.entry
        self._counters.current = entry.path
        done = self._resume.tar_offset - member.row.tar_offset
        try:
            opened = self._source.open(entry)
        except OSError:
            opened = None
        if opened is not None:
            try:
                known = self._as_it_was(member, opened, done)
                if known is not None:
                    flags = member.row.flags & ~FileFlag.CONTINUES
                    self._finish(known, content_of(opened.descriptor, known.sparse, flags), done)
                    return
            finally:
                os.close(opened.descriptor)
        self._give_up(member, done)

    def _as_it_was(self, member: OpenMember, opened: OpenedFile, done: int) -> OpenMember | None:
        """`member` with the hash over its content that is on tape already; None if the file no longer goes with it."""
        flags = member.row.flags
        if flags & FileFlag.DAMAGED or not same_file(opened.entry, member.row.entry):
            return None
        if member.hash is not None:
            return replace(member, hash=member.hash.copy())
        if flags & FileFlag.CHANGED:
            return None
        if flags & FileFlag.SPARSE and member.sparse is None:
            found = map_again(member, opened)
            if found is None:
                return None
            member = found
        digest, content, at = hashlib.sha256(), content_of(opened.descriptor, member.sparse), 0
        stored = min(done - member.header_bytes, content_bytes(member.row.entry))
        while at < stored:
            piece = self._view[: min(stored - at, len(self._view))]
            content.fill(piece, at)
            digest.update(piece)
            at += len(piece)
        return None if content.flags & ~FileFlag.SPARSE else replace(member, hash=digest)

    def _give_up(self, member: OpenMember, done: int) -> None:
        """Fill the member with zeros to its end, and store what is under its path now directly behind it.

        It counts as damaged from now on, whatever its file will be when a later pipeline goes on inside it.
        """
        flags = int(member.row.flags & ~FileFlag.CONTINUES | FileFlag.DAMAGED)
        member = replace(member, row=member.row._replace(flags=flags), hash=member.hash and member.hash.copy())
        if done < member.row.tar_bytes:
            digest = self._stream(member, content_of(-1, member.sparse, flags), done)
            self._rows.append(member.row._replace(sha256=digest))
        path = member.row.entry.path
        self._warn("changed", path, "it changed between two attempts to store it, and is stored again")
        try:
            entry = self._source.entry(path)
        except OSError as error:
            self._not_opened(member.row.entry, error)
        else:
            self._unsettled = member
            if entry.type is _REGULAR:
                self._store_regular(entry)
            else:
                self._store_other(entry)
            self._unsettled = None

    # ── trouble ───────────────────────────────────────────────────────────────────────────────────────

    def _not_opened(self, entry: FileEntry, error: OSError) -> None:
        if entry.links > 1:
            self._lost_links[entry.path] = None
        if isinstance(error, FileNotFoundError):
            self._warn("vanished", entry.path)
        else:
            self._warn("unreadable", entry.path, error.strerror or str(error))
            self._add_unreadable(entry)
        self._after = entry.path

    def _pass_on(self, warning: SourceWarning) -> None:
        self._totals.warnings += 1
        self._on_warning(warning)
        if self._after is None or scan_key(warning.path) > scan_key(self._after):
            self._after = warning.path
        if warning.entry is not None:
            self._add_unreadable(warning.entry)
        elif warning.code == "unreadable":
            try:
                self._add_unreadable(self._source.entry(warning.path))
            except OSError:
                pass  # nothing but its name is known

    def _add_unreadable(self, entry: FileEntry) -> None:
        self._rows.append(Row(entry, self._tar_offset + self._at, 0, None, int(FileFlag.UNREADABLE)))

    def _warn(self, code: str, path: bytes, detail: str = "") -> None:
        self._totals.warnings += 1
        self._on_warning(SourceWarning(code, path, detail))

    # ── frames ────────────────────────────────────────────────────────────────────────────────────────

    def _put(self, data: bytes) -> None:
        end = self._at + len(data)
        self._view[self._at : end] = data
        self._at = end
        self._room -= len(data)

    def _put_undivided(self, headers: bytes) -> int:
        """Pack a member that is headers only; returns where it begins in the stream."""
        if len(headers) > self._room:
            self._make_room(len(headers), len(headers))
        at = self._tar_offset + self._at
        self._put(headers)
        return at

    def _make_room(self, header_bytes: int, tar_bytes: int) -> None:
        """Begin a new frame if a member that does not fit must not begin in this one. `header_bytes` stay together."""
        if self._at and (tar_bytes <= self._frame_bytes or header_bytes > self._room):
            self._seal(self._unsettled)
        if header_bytes > self._room:  # attributes larger than a frame: it gets a frame of its own measure
            self._conveyor.give_back(self._view)
            self._view = memoryview(bytearray(header_bytes))
            self._room = header_bytes

    def _seal(self, open_member: OpenMember | None = None, *, last: bool = False) -> None:
        """Hand the frame in hand over, and begin the next."""
        totals = replace(self._totals)
        if self._lost_links != self._lost_links_kept:
            self._lost_links_kept = dict(self._lost_links)
        resume = ResumePoint(self._tar_offset + self._at, self._after, open_member, totals, self._lost_links_kept)
        frame = Frame(self._tar_offset, self._at, b"", self._rows, resume, last, self._deleted)
        self._conveyor.submit(frame, self._view)
        self._counters.files = totals.files
        if open_member is None:
            self._counters.bytes = totals.bytes
        if not last:
            self._tar_offset += self._at
            self._rows, self._deleted = [], []
            self._take_buffer()

    def _take_buffer(self) -> None:
        self._view = self._conveyor.take_buffer()
        self._at = 0
        self._room = len(self._view)
