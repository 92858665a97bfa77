"""From decompressed frames to files: cuts members out of the tar stream, checks each digest, hands them on.

The file's digest decides whether a file is good. What failed is never left under its own name: a small file is given
to the target only after its digest agreed, and a large one is committed only then.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

from capstan.core.files import FileEntry, FileFlag, FileType, Row, display_path
from capstan.core.job import RestorePhase
from capstan.errors import TargetError
from capstan.format.tar import content_bytes, has_extras, padded, parse_member
from capstan.recovery.hard_links import FileId, LinkPlan
from capstan.recovery.report import Problem, RecoveryReport, Trouble
from capstan.recovery.sparse import SparseSink
from capstan.recovery.stream import FrameData, FrameStream
from capstan.recovery.target import FileSink, Placement, RecoveryTarget

_STEPS = (RestorePhase.DECOMPRESS, RestorePhase.VERIFY, RestorePhase.WRITE)
_LOST = "its data is on no cartridge that is known"
_NO_FIRST = "the file that it is a further name of is not stored here"
_REPLACED = "the name that it is linked to is that of another file, and its own is not stored"
_IN_MEMORY = 8 << 20  # a file up to this size that lies in several frames is gathered in memory


class Outcome(NamedTuple):
    """What became of a name that others are linked to (None: it failed), and of which file it is a name."""

    placement: Placement | None
    file: FileId


Outcomes = dict[bytes, Outcome]


class MemberAssembler:
    """Takes frames in order, and rows in the same order; runs on a thread of its own.

    `target` None: digests are checked and nothing is written. `partial`: rows without data are not errors but
    `unchecked` (their data lies on another cartridge). `outcomes`: shared by the sets of a chain, whose links may lead
    to earlier ones. `on_step` hears once of each phase that begins here.
    """

    def __init__(
        self,
        rows: Iterator[Row],
        target: RecoveryTarget | None,
        report: RecoveryReport,
        *,
        links: LinkPlan | None = None,
        partial: bool = False,
        outcomes: Outcomes | None = None,
        on_step: Callable[[RestorePhase], None] = lambda step: None,
    ) -> None:
        self._rows = rows
        self._row = next(rows, None)
        self._target = target
        self._report = report
        self._links = links or LinkPlan()
        self._partial = partial
        self._on_step = on_step
        self._steps: set[RestorePhase] = set()
        self._member: _Member | None = None
        self._outcomes: Outcomes = {} if outcomes is None else outcomes

    def run(self, stream: FrameStream) -> None:
        """Handle every frame of `stream`, then whatever rows are left; closes the stream when it fails."""
        try:
            for frame in stream:
                self.frame(frame)
            if not stream.closed:
                self.finish()
        finally:
            if self._member is not None:
                self._member.abort()
            stream.close()

    def frame(self, frame: FrameData) -> None:
        """Handle one frame. The frames in between that were not needed are simply not there."""
        begin, end = frame.place.tar_offset, frame.place.tar_end
        data = None if frame.data is None else memoryview(frame.data)
        self._step(RestorePhase.DECOMPRESS)
        while self._row is not None and self._row.tar_offset < end:
            row = self._row
            stop = row.tar_offset + row.tar_bytes
            if stop <= begin or row.tar_bytes == 0 or (row.flags and row.flags & FileFlag.CONTINUES):
                self._leave(row)
                continue
            if self._member is None:
                self._member = _Member(row, frame, self._target)
            self._member.add(begin, data, frame)
            if stop > end:
                return
            member, self._member = self._member, None
            self._row = next(self._rows, None)
            self._end(member)

    def finish(self) -> None:
        """No more frames come: the rows that are left have no data."""
        while self._row is not None:
            self._leave(self._row)

    def _leave(self, row: Row) -> None:
        """Go on to the next row; this one has no data, or not all of it."""
        member, self._member = self._member, None
        if member is not None:
            member.abort()
        self._row = next(self._rows, None)
        path = row.entry.path
        if row.flags & FileFlag.CONTINUES and self._row is not None and self._row.tar_offset == row.tar_offset:
            return  # the next commit point within the same file says it again
        if row.flags & FileFlag.UNREADABLE:
            self._report.warn("unreadable", path, "it could not be read when it was backed up: nothing is stored")
        elif self._partial:
            self._report.unchecked += 1
        elif row.flags & FileFlag.CONTINUES:
            self._report.warn("unfinished", path, "the backup ended before the end of this file")
        elif member is not None and member.problem is not None:
            self._report.error(member.problem.code, path, member.problem.what, member.problem.trouble)
        else:
            self._report.error("lost", path, _LOST)
        self._remember(row.entry, None)

    def _end(self, member: _Member) -> None:
        row, entry, report = member.row, member.row.entry, self._report
        report.current = entry.path
        if entry.type is FileType.HARDLINK:
            first = self._first_of(entry)
            outcome = self._outcomes.get(first)
            if first == entry.path and outcome is not None:
                return  # its data came at the place of the first name, and was reported there
            missing = outcome is None and self._target is not None
            if missing or (outcome is not None and not outcome.file.is_same(FileId.of(entry))):
                what = f"{_NO_FIRST if missing else _REPLACED}: {display_path(entry.target)}"
                member.problem = member.problem or Problem("lost", entry.path, what)
        placement: Placement | None = None
        if member.problem is None and entry.type is FileType.REGULAR:
            self._step(RestorePhase.VERIFY)
            if member.digest() != row.sha256:
                member.spoil("damaged", "the content does not match its SHA-256", member.place)
        if member.problem is None:
            try:
                placement = self._place(member)
            except TargetError as error:
                member.spoil(error.code, str(error))
            except ValueError as error:
                member.spoil("damaged", f"its headers cannot be read ({error})", member.place)
        if placement is not None:
            self._count(row, placement)
            if placement is not Placement.SKIPPED and entry.type is not FileType.DIRECTORY:
                report.came_from(entry.path, member.origins)
        elif member.problem is not None:
            member.abort()
            if self._partial and member.problem.code == "lost":
                report.unchecked += 1
            else:
                report.error(member.problem.code, entry.path, member.problem.what, member.problem.trouble)
        self._remember(entry, placement)

    def _count(self, row: Row, placement: Placement) -> None:
        report = self._report
        report.entries += 1
        if row.entry.type is FileType.REGULAR:
            report.verified_files += 1
        if placement is Placement.SKIPPED:
            report.skipped += 1
            return
        if row.entry.type is not FileType.DIRECTORY:
            report.files += 1
        report.content_bytes += content_bytes(row.entry)
        if row.flags and row.flags & FileFlag.DAMAGED:
            report.warn("damaged-at-backup", row.entry.path, "its source failed while it was read: zeros fill the rest")

    def _place(self, member: _Member) -> Placement:
        target = self._target
        if target is None:
            return Placement.WRITTEN
        self._step(RestorePhase.WRITE)
        entry = member.entry()
        match entry.type:
            case FileType.REGULAR:
                return member.commit(target, entry)
            case FileType.DIRECTORY:
                return target.directory(entry)
            case FileType.SYMLINK:
                return target.symlink(entry)
            case FileType.HARDLINK:
                return self._link(target, entry)
            case _:
                return target.special(entry)

    def _link(self, target: RecoveryTarget, entry: FileEntry) -> Placement:
        first = self._first_of(entry)
        outcome = self._outcomes[first]
        if outcome.placement is None:
            reason = f"the file it is a further name of was not restored: {display_path(first)}"
            raise TargetError(path=display_path(entry.path), reason=reason)
        placement = target.hardlink(replace(entry, target=first), first)
        if placement is Placement.WRITTEN and outcome.placement is Placement.SKIPPED:
            what = f"it is linked to a file that was kept, and whose content may differ: {display_path(first)}"
            self._report.warn("linked-to-kept", entry.path, what)
        return placement

    def _first_of(self, entry: FileEntry) -> bytes:
        """Under which stored path the data of a hard link is restored."""
        loan = self._links.borrowed.get(entry.target)
        return loan.names[0] if loan else entry.target

    def _remember(self, entry: FileEntry, placement: Placement | None) -> None:
        if entry.path in self._links.firsts:
            self._outcomes[entry.path] = Outcome(placement, FileId.of(entry))

    def _step(self, step: RestorePhase) -> None:
        """Tell of `step` once, and of the steps before it first: a directory is written before a digest is checked."""
        while step not in self._steps:
            reached = _STEPS[len(self._steps)]
            self._steps.add(reached)
            self._on_step(reached)


class _Member:
    """One member while its bytes come. `place` is where it begins; `problem` is set once it cannot be whole."""

    def __init__(self, row: Row, frame: FrameData, target: RecoveryTarget | None) -> None:
        self.row = row
        self.place = Trouble(frame.barcode, frame.block, "it begins here")
        self.origins: dict[str, int] = {}  # the copy on each cartridge that it came from
        self.problem: Problem | None = None
        self._want = row.tar_offset
        self._sparse = bool(row.flags & FileFlag.SPARSE)
        self._content_at = -1  # not known yet
        if not self._sparse:
            self._begin(content_bytes(row.entry))
        self._headers = b""
        self._whole: memoryview | None = None  # the content, when it lies in one frame
        self._gathered = bytearray()
        self._sha256 = hashlib.sha256()
        self._target = target
        self._sink: FileSink | None = None
        self._skipped = False

    def add(self, begin: int, data: memoryview | None, frame: FrameData) -> None:
        """Take what of the frame at `begin` belongs to it."""
        if self.problem is not None:
            return
        if frame.trouble is not None:
            self.spoil("missing" if frame.trouble.missing else "damaged", frame.trouble.what, frame.trouble)
        elif data is None or begin > self._want:
            self.spoil("lost", _LOST)
        else:
            self.origins[frame.barcode] = frame.copy
            end = min(begin + len(data), self.row.tar_offset + self.row.tar_bytes)
            if self._content_at < 0 and not self._find_content(data[self._want - begin :]):
                return
            if self._want < self._content_at:
                self._headers += bytes(data[self._want - begin : min(end, self._content_at) - begin])
            low, high = max(self._want, self._content_at), min(end, self._content_end)
            if high > low:
                whole = (low, high) == (self._content_at, self._content_end)
                self._take(data[low - begin : high - begin], whole=whole)
            self._want = end

    def digest(self) -> bytes:
        """SHA-256 of the content that came."""
        return self._sha256.digest()

    def entry(self) -> FileEntry:
        """The row's entry, with what only the headers on tape hold. Raises ValueError when they cannot be read."""
        entry = self.row.entry
        if not has_extras(self._headers) and entry.type not in (FileType.CHARACTER, FileType.BLOCK):
            return entry
        parsed, _ = parse_member(self._headers)
        return replace(entry, xattrs=parsed.xattrs, rdev_major=parsed.rdev_major, rdev_minor=parsed.rdev_minor)

    def commit(self, target: RecoveryTarget, entry: FileEntry) -> Placement:
        """Give the verified content to the target. On TargetError nothing is left under the file's name."""
        content = self._whole if self._whole is not None else memoryview(self._gathered)
        if self._sparse and self._sink is None and not self._skipped:
            self._write(target, content)
        if self._skipped:
            return Placement.SKIPPED
        if self._sink is not None:
            self._sink.commit()
            self._sink = None
            return Placement.WRITTEN
        return target.whole_file(entry, content)

    def spoil(self, code: str, what: str, trouble: Trouble | None = None) -> None:
        """It cannot be restored; leave nothing of it."""
        self.problem = Problem(code, self.row.entry.path, what, trouble)
        self.abort()
        self._gathered = bytearray()
        self._whole = None

    def abort(self) -> None:
        """Leave nothing behind; harmless twice."""
        if self._sink is not None:
            self._sink.abort()
            self._sink = None

    def _begin(self, stored_bytes: int) -> None:
        """Its content has `stored_bytes`, and is padded to where the row ends."""
        self._stored_bytes = stored_bytes
        self._content_at = self.row.tar_offset + self.row.tar_bytes - padded(stored_bytes)
        self._content_end = self._content_at + stored_bytes
        self._large = stored_bytes > _IN_MEMORY

    def _find_content(self, member: memoryview) -> bool:
        """How much is stored of a sparse file is said by its headers only, which are never divided. False: spoilt."""
        try:
            parsed, length = parse_member(member)
            self._begin(content_bytes(parsed))
            if (parsed.size, self._content_at) != (self.row.entry.size, self.row.tar_offset + length):
                raise ValueError("they do not go with the file index")
        except ValueError as error:
            self.spoil("damaged", f"its headers cannot be read ({error})", self.place)
            return False
        return True

    def _take(self, content: memoryview, *, whole: bool) -> None:
        self._sha256.update(content)
        if whole:
            self._whole = content
        elif self._target is None or self._skipped:
            return
        elif not self._large:
            self._gathered += content
        else:
            try:
                self._write(self._target, content)
            except TargetError as error:
                self.spoil(error.code, str(error))
            except ValueError as error:
                self.spoil("damaged", f"its headers cannot be read ({error})", self.place)

    def _write(self, target: RecoveryTarget, content: memoryview) -> None:
        if self._sink is None:
            self._sink = target.open_file(self.entry())
            self._skipped = self._sink is None
            if self._sink is not None and self._sparse:
                size = self.row.entry.size
                self._sink = SparseSink(self._sink, size=size, stored_bytes=self._stored_bytes)
        if self._sink is not None:
            self._sink.write(content)
