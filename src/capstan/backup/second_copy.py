"""The copy of a set that is written in the same pass: while the backup writes one cartridge, a second drive writes
another one from the same bytes.

A backup never fails or loses anything by it. Whatever goes wrong here ends the copy for this run with a warning; what
it lacks then is copied afterwards, like any other copy that was missed. Its commit points follow those of the original:
an INDEX of the copy is written when that of the original is in the catalog.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from capstan.backup.copy_channel import CopyChannel
from capstan.backup.equipment import Equipment
from capstan.catalog.copies import copies_of
from capstan.core.backup import BackupSet
from capstan.core.pool_rules import check_copyable
from capstan.errors import CapstanError
from capstan.fileindex.store import IndexPart
from capstan.format.copy_writer import CopyWriter, Interval, link_of
from capstan.format.writer import CommitWritten, TapeEnd
from capstan.jobs.context import JobContext
from capstan.media.manager import MountedCartridge, Purpose
from capstan.tape.drive import TapeDrive


class _Quiet:
    """What the copy tells of itself: warnings and events, but not the phases, which are the backup's."""

    def __init__(self, context: JobContext) -> None:
        self._context = context
        self.job_id = context.job_id
        self.warning = context.warning
        self.tell = context.tell

    async def phase(self, phase: str, **data: Any) -> None:
        """Not told, and no place to stop at: the backup says when."""


class SecondCopy:
    """One for a run of a backup. `start` it when the backup has its drive; then it listens to `mirror` until `finish`
    or `abandon`. `segments` counts what was committed."""

    def __init__(self, equipment: Equipment, backup_set: BackupSet, context: JobContext, library: str) -> None:
        self.mirror = CopyChannel()
        self.segments = 0
        self._equipment = equipment
        self._set = backup_set
        self._context = context
        self._reporter = _Quiet(context)
        self._library = library
        self._pool = ""
        self._task: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()
        self._started = False

    async def start(self) -> None:
        """Mount a cartridge for the copy, if the set's pool wants one and there is a drive for it. Twice is harmless.

        Returns when it is mounted, or when it is known that nothing comes of it; then `mirror` is closed.
        """
        if self._started:
            return
        self._started = True
        async with self._equipment.catalog.snapshot() as catalog:
            pool = await catalog.media.find_pool(self._set.pool)
            target = await catalog.media.find_pool(pool.copy_pool) if pool and pool.copy_pool else None
        if target is None:
            self.mirror.close()
            return
        self._pool = target.name
        try:
            check_copyable(target, self._set, self._equipment.proven_keys)
        except CapstanError:
            self.mirror.close()  # whoever copies it afterwards says why not
            return
        self._task = asyncio.create_task(self._run())
        await self._ready.wait()

    def committed(self, written: CommitWritten, part: IndexPart) -> None:
        """A commit point of the original is in the catalog, and `part` in the store: the copy has one to write."""
        self.mirror.commit(
            Interval(
                commit=written.commit,
                originals=(*(link.header_sha256 for link in written.manifest.commits), written.commit.header_sha256),
                stored_bytes=written.chain.stored_bytes,
                warnings=written.manifest.backup_set.warning_count,
                files=part.files,
                frames=part.frames,
                deleted=part.deleted,
            )
        )

    async def finish(self) -> None:
        """Wait until the copy has written all that it was given, and its cartridge is home. Raises nothing."""
        self.mirror.finish()
        if self._task is not None:
            await self._task

    async def abandon(self) -> None:
        """The backup has ended early: what is not committed never counts. Harmless behind `finish`. Raises nothing."""
        self.mirror.close()
        if self._task is not None:
            await self._task

    async def _run(self) -> None:
        """From cartridge to cartridge. Raises nothing."""
        try:
            while await self._use_one_cartridge():
                pass
        except Exception as error:  # noqa: BLE001 (whatever it is, it is not the backup's)
            if not self._ready.is_set():  # nothing was begun: whoever copies it afterwards tells what still fails
                await self._context.tell("copy.later", pool=self._pool, reason=str(error))
                return
            detail = f"the copy in pool {self._pool} is not written any further in this pass: {error}"
            await self._context.warning("copy-behind", detail=f"{detail}; what it lacks is copied afterwards")
        finally:
            self.mirror.close()
            self._ready.set()

    async def _use_one_cartridge(self) -> bool:
        """Mount one and write to it until it is full; False when there is nothing more to write."""
        manager = self._equipment.manager
        copy, links, avoid = await self._look()
        async with manager.mount(
            self._library, pool=self._pool, purpose=Purpose.WRITE, context=self._reporter, avoid=avoid
        ) as mounted:
            await manager.position_for_append(mounted)
            copy, links, _ = await self._look()  # the append rule may have taken in what a killed process wrote
            writer = await mounted.lane.run(self._open_writer, TapeEnd.of(mounted.cartridge), copy, links)
            self._ready.set()
            try:
                return await self._write(mounted, writer)
            finally:
                writer.discard()

    async def _write(self, mounted: MountedCartridge, writer: CopyWriter) -> bool:
        while True:
            writing = asyncio.ensure_future(mounted.lane.run(self.mirror.write_until_commit, writer))
            try:
                written = await asyncio.shield(writing)
            except asyncio.CancelledError:
                self.mirror.close()  # the drive's thread waits for what comes, and nothing will
                await asyncio.wait([writing])
                raise
            if written is None:
                return False
            await self._equipment.ledger.enter_copy(written)
            self.segments += len(written.manifest.segments)
            if writer.early_warning:
                barcode = mounted.cartridge.barcode
                await self._equipment.manager.cartridges.mark_full(barcode)
                self.mirror.wants_commit = False
                return await asyncio.to_thread(self.mirror.wait_for_more)

    async def _look(self) -> tuple[int, list[Any], set[str]]:
        """The copy's number, the INDEXes that it has, and the barcodes of the other copies."""
        async with self._equipment.catalog.snapshot() as catalog:
            copies = await copies_of(catalog, self._set)
        mine = next((copy for copy in copies if copy.is_in(self._pool)), None)
        number = mine.copy if mine else max((copy.copy for copy in copies), default=0) + 1
        commits = sorted(mine.commits, key=lambda commit: (commit.committed_at, commit.sequence)) if mine else []
        avoid = {item.barcode for copy in copies if copy.copy != number for item in copy.cartridges}
        return number, [link_of(commit) for commit in commits], avoid

    def _open_writer(self, drive: TapeDrive, tape: TapeEnd, copy: int, links: list[Any]) -> CopyWriter:
        return CopyWriter(
            drive,
            backup_set=self._set,
            copy=copy,
            links=links,
            tape=tape,
            spool=self._equipment.spool,
            clock=self._equipment.clock,
            announce=partial(self._equipment.store.announce, self._set.id),
        )
