"""What the writer acknowledges is on the medium; what the ledger enters is whole."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from capstan.catalog.sql_catalog import SqlCatalog
from capstan.clock import SystemClock
from capstan.core.backup import BackupSet, SetState, SetType
from capstan.errors import StorageFailed
from capstan.fileindex.store import FileIndexStore
from capstan.format.frames import Frame, ResumePoint
from capstan.format.label import Label, write_label
from capstan.format.layout import TAR_END, ArchiveParameters
from capstan.format.writer import CommitWritten, SetChain, SetWriter, TapeEnd
from capstan.media.ledger import Ledger
from capstan.tape.drive import Room
from capstan.testing.memory_drive import MemoryTape, MemoryTapeDrive


class WatchedDrive(MemoryTapeDrive):
    """Knows what would survive if the power went now: what lies before the last synchronous filemark."""

    durable = 0

    def write_filemarks(self, count: int = 1, *, immediate: bool = False) -> Room:
        room = super().write_filemarks(count, immediate=immediate)
        if not immediate:
            self.durable = self.position().block
        return room


def a_set() -> BackupSet:
    return BackupSet(
        id="5b0c9f5e-0000-4000-8000-000000000002",
        number=1,
        name="t",
        type=SetType.FULL,
        state=SetState.WRITING,
        created_at=SystemClock().now(),
        codec="none",
    )


def written(folder: Path, drive: MemoryTapeDrive) -> CommitWritten:
    """Label a tape and commit one set of one frame."""
    drive.load()
    label = Label("5b0c9f5e-0000-4000-8000-000000000001", "CAP001L9", "p", SystemClock().now(), record_bytes=65_536)
    end = write_label(drive, label)
    tape = TapeEnd(label.uuid, label.barcode, label.record_bytes, end.end_block, end.tape_files)
    writer = SetWriter(
        drive,
        backup_set=a_set(),
        chain=SetChain(),
        tape=tape,
        parameters=ArchiveParameters(codec="none", segment_bytes=1000),
        spool=folder,
        clock=SystemClock(),
    )
    writer.write(Frame(0, len(TAR_END), TAR_END, [], ResumePoint(len(TAR_END)), last=True))
    found = writer.commit(final=True)
    writer.discard()
    return found


def test_a_commit_is_on_the_medium_when_it_returns(tmp_path: Path) -> None:
    """The filemark behind an INDEX is synchronous, and so is the one behind a label: nothing is left in a buffer."""
    drive = WatchedDrive(MemoryTape())
    drive.load()
    label = Label("5b0c9f5e-0000-4000-8000-000000000001", "CAP001L9", "p", SystemClock().now())
    assert write_label(drive, label).end_block == drive.durable
    drive = WatchedDrive(MemoryTape())
    commit = written(tmp_path, drive).commit
    assert drive.durable == commit.end_block == drive.position().block


def test_the_catalog_is_told_last(tmp_path: Path) -> None:
    """When the file index cannot be kept, the catalog does not speak of the commit point."""
    found = written(tmp_path, MemoryTapeDrive(MemoryTape()))
    (tmp_path / "index").write_text("a file where the folder should be")

    async def body() -> None:
        catalog = SqlCatalog(tmp_path / "catalog.db")
        await catalog.open()
        async with catalog.transaction() as inside:
            await inside.backups.add(a_set())
        ledger = Ledger(catalog, FileIndexStore(tmp_path / "index"))
        part = found.part
        with pytest.raises(StorageFailed):
            await ledger.enter(found.commit, found.manifest, part, writing=True)
        async with catalog.snapshot() as view:
            assert not await view.backups.list_commits()
            assert (await view.backups.list())[0].state is SetState.WRITING
        await catalog.close()

    asyncio.run(body())
