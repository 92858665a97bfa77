"""Where the segments of a copy come from: the best copy there is of each, from drive to drive or through the spool."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from capstan.core.backup import Segment
from capstan.errors import CapstanError, CartridgeMissing, DeviceError, FormatError, StorageFailed, TransportError
from capstan.format.copy_writer import Copied, CopyWriter
from capstan.format.reader import SegmentReader
from capstan.jobs.context import JobContext
from capstan.media.lane import DriveLane
from capstan.media.manager import MountedCartridge, TapeManager
from capstan.recovery.copies import CopyChoice, Health
from capstan.recovery.copy_work import CopyWork
from capstan.recovery.plan import CartridgeVisit
from capstan.recovery.reading import Mounts
from capstan.recovery.report import Trouble
from capstan.recovery.rows import SetTable
from capstan.recovery.segment_pipe import SegmentPipe, spool_segment, spooled
from capstan.recovery.stream import Spoilt
from capstan.tape.drive import TapeDrive

_ATTEMPTS = 2  # mounts of one cartridge when the drive fails


class CopySource:
    """`spooling`: there is no drive for the source while the target is mounted. `lost`: segments that no copy gives, by
    number, with why. Use `know` before anything else, and again whenever the catalog has changed."""

    def __init__(self, manager: TapeManager, context: JobContext, spool: Path, library: str) -> None:
        self.spooling = False
        self.lost: dict[int, str] = {}
        self._context = context
        self._spool = spool
        self._library = library
        self._libraries: dict[str, str] = {}
        self._mounts = Mounts(manager, self._libraries, context)
        self._health = Health()
        self._choice: CopyChoice | None = None
        self._table = SetTable(())
        self._failures: dict[str, int] = {}  # of drives, by the uuid of the cartridge in them
        self._spooled: dict[int, Path] = {}
        self._reader: tuple[MountedCartridge, SegmentReader] | None = None

    async def know(self, work: CopyWork) -> None:
        """Take in where the segments lie. What has come of reading them so far stays."""
        for cartridge in work.cartridges:
            if cartridge.library or self._library:
                self._libraries[cartridge.barcode] = cartridge.library or self._library
        fresh = Health.of(work.cartridges)
        self._health.present = fresh.present
        self._health.suspect |= fresh.suspect
        self._table = await asyncio.to_thread(SetTable, work.parts)
        if self._choice is None:
            self._choice = CopyChoice(self._table.places, self._health)
        else:
            self._choice.know(self._table.places)

    def without_lost(self, work: CopyWork) -> CopyWork:
        """`work` without what cannot be read anywhere, and was tried."""
        intervals = (
            replace(item, segments=tuple(segment for segment in item.segments if segment.number not in self.lost))
            for item in work.intervals
        )
        return replace(work, intervals=tuple(item for item in intervals if item.segments or item.without_index))

    async def open_first(self, lacking: Sequence[Segment]) -> None:
        """Mount what the first segment is read from. NoDriveAvailable."""
        if lacking:
            await self._open(lacking[0])

    async def fill_spool(self, lacking: Sequence[Segment]) -> None:
        """Read segments into the spool, in their order, as far as half of what is free holds; then free the drive.
        StorageFailed when not even one finds room."""
        for segment in lacking:
            if segment.number in self._spooled:
                continue
            free = shutil.disk_usage(self._spool).free
            if segment.payload_bytes > (free // 2 if self._spooled else free):
                if self._spooled:
                    break
                reason = f"there is no second drive, and no room for a segment of {segment.payload_bytes} bytes"
                raise StorageFailed(path=self._spool, reason=reason)
            path = self._spool / f"segment-{segment.number}"
            if await self._transfer(segment, None, path) is Copied.WHOLE:
                self._spooled[segment.number] = path
            else:
                path.unlink(missing_ok=True)
            self._context.check_cancelled()
        await self.leave()

    async def copy(self, segment: Segment, lane: DriveLane, writer: CopyWriter) -> Copied | None:
        """Give a segment to `writer`, which belongs to `lane`. None: it is not in the spool now. BROKEN: it is among
        the `lost` now, or the job is cancelled. Raises what the writer's drive raises."""
        if not self.spooling:
            return await self._transfer(segment, lane, writer)
        path = self._spooled.get(segment.number)
        if path is None:
            return None
        copied = await lane.run(_write_spooled, writer, segment, path)
        if copied is Copied.BROKEN:
            raise StorageFailed(path=path, reason="what was written there is not what is read back")
        if copied is Copied.WHOLE:
            del self._spooled[segment.number]
            path.unlink(missing_ok=True)
        return copied

    async def leave(self) -> None:
        """Bring the cartridge home, if one is mounted."""
        self._reader = None
        await self._mounts.leave(None)

    async def _transfer(self, segment: Segment, lane: DriveLane | None, into: CopyWriter | Path) -> Copied:
        """Move a segment, from each of its places in turn until one gives it whole."""
        while (opened := await self._open(segment)) is not None:
            place, mounted = opened
            await self._context.phase("read", cartridge=place.barcode) if lane is None else None
            reader = await self._reader_of(mounted)
            crcs = await asyncio.to_thread(self._table.crcs, place)
            cancelled = self._context.cancelled
            trouble: Trouble | None = None
            if isinstance(into, Path):
                try:
                    trouble = await mounted.lane.run(spool_segment, reader, place, crcs, cancelled, into)
                    copied = Copied.BROKEN if trouble or cancelled.is_set() else Copied.WHOLE
                except (DeviceError, TransportError) as error:
                    await self._drive_failed(place, error)
                    continue
            else:
                assert lane is not None
                pipe = SegmentPipe(place)
                reading = asyncio.ensure_future(mounted.lane.run(pipe.fill, reader, crcs, cancelled))
                try:
                    copied = await lane.run(_write_piped, into, place, pipe)
                finally:
                    pipe.close()
                    await asyncio.wait([reading])
                if pipe.error is not None:
                    await self._drive_failed(place, pipe.error)
                    continue
                trouble = pipe.trouble
            if copied is not Copied.BROKEN or cancelled.is_set():
                return copied
            spoilt = trouble or Trouble(place.barcode, place.block, "the segment does not match its digest")
            await self._spoilt(place, spoilt)
        return Copied.BROKEN

    async def _open(self, segment: Segment) -> tuple[Segment, MountedCartridge] | None:
        """The best place of a segment that was not tried in vain, mounted; None when there is none, and it is lost."""
        assert self._choice is not None
        while True:
            place = self._choice.best(segment.number, 0)
            if not self._choice.is_open(place, 0):
                self.lost.setdefault(segment.number, f"segment {segment.number} ({place.barcode}, block {place.block})")
                return None
            visit = CartridgeVisit(place.cartridge, place.barcode)
            try:
                return place, await self._mounts.mount(visit)
            except (CartridgeMissing, FormatError) as error:
                await self._mounts.leave(error)
                await self._context.warning(error.code, detail=str(error))
                await self._bury(place, error)
            except (DeviceError, TransportError) as error:
                await self._drive_failed(place, error)

    async def _drive_failed(self, place: Segment, error: CapstanError) -> None:
        """Another mount may get another drive; after the second failure the cartridge is not tried again."""
        assert self._choice is not None
        self._reader = None
        await self._mounts.leave(error)
        await self._context.warning(error.code, detail=str(error))
        self._failures[place.cartridge] = self._failures.get(place.cartridge, 0) + 1
        if self._failures[place.cartridge] >= _ATTEMPTS:
            await self._bury(place, error)

    async def _bury(self, place: Segment, error: CapstanError) -> None:
        """A cartridge is tried no more in this run. Where there is no other copy, it is not called suspect for that."""
        assert self._choice is not None
        if self._choice.has_other(place, 0):
            await self._mounts.bury(self._choice, CartridgeVisit(place.cartridge, place.barcode), error)
        else:
            self._choice.health.bury(place.cartridge, str(error))

    async def _spoilt(self, place: Segment, trouble: Trouble) -> None:
        assert self._choice is not None
        if self._choice.has_other(place, 0):
            await self._mounts.doubt(self._choice, Spoilt(place, 0, trouble))
            return
        self._choice.fail(place, 0)
        detail = f"{trouble.barcode}, block {trouble.block}: {trouble.what}; segment {place.number} is not copied"
        await self._context.warning("damage", detail=detail)

    async def _reader_of(self, mounted: MountedCartridge) -> SegmentReader:
        """One for each mount: so that it goes from segment to segment without a LOCATE."""
        if self._reader is None or self._reader[0] is not mounted:
            reader = await mounted.lane.run(_new_reader, mounted.cartridge.barcode)
            self._reader = (mounted, reader)
        return self._reader[1]


def _new_reader(drive: TapeDrive, barcode: str) -> SegmentReader:
    return SegmentReader(drive, barcode=barcode)


def _write_piped(drive: TapeDrive, writer: CopyWriter, segment: Segment, pipe: SegmentPipe) -> Copied:
    del drive
    return writer.write_segment(segment, pipe)


def _write_spooled(drive: TapeDrive, writer: CopyWriter, segment: Segment, path: Path) -> Copied:
    del drive
    return writer.write_segment(segment, spooled(path))
