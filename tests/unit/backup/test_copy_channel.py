"""What goes from the drive of a backup to that of its second copy: in order, bounded, no longer than both live."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from capstan.backup.copy_channel import _ROOM, CopyChannel, CopyFellBehind
from capstan.clock import SystemClock
from capstan.core.backup import BackupSet, Segment, SetState, SetType
from capstan.format.copy_writer import CopyWriter
from capstan.format.label import Label, write_label
from capstan.format.written import TapeEnd
from capstan.testing.memory_drive import MemoryTape, MemoryTapeDrive

NOW = datetime(2026, 1, 2, tzinfo=UTC)
SET = BackupSet("5b0c9f5e-0000-4000-8000-000000000003", 1, "t", SetType.FULL, SetState.WRITING, NOW, codec="none:0")
PIECE = bytes(1 << 20)


@pytest.fixture
def drive() -> MemoryTapeDrive:
    return MemoryTapeDrive(MemoryTape())


@pytest.fixture
def writer(drive: MemoryTapeDrive, tmp_path: Path) -> CopyWriter:
    label = Label("5b0c9f5e-0000-4000-8000-000000000001", "CAP001L9", "vault", NOW, record_bytes=65_536)
    end = write_label(drive, label)
    tape = TapeEnd(label.uuid, label.barcode, label.record_bytes, end.end_block, end.tape_files)
    return CopyWriter(drive, backup_set=SET, copy=1, links=(), tape=tape, spool=tmp_path, clock=SystemClock())


@contextmanager
def thread(target: object) -> Iterator[threading.Thread]:
    running = threading.Thread(target=target)  # type: ignore[arg-type]
    running.start()
    yield running
    running.join(30)
    assert not running.is_alive()


def test_the_faster_one_waits_and_a_close_ends_that() -> None:
    """More than there is room for: the one who writes waits, and goes on, for nothing, when nobody takes any more."""
    channel = CopyChannel()
    gone_through = threading.Event()

    def write() -> None:
        for _ in range(2 * (_ROOM // len(PIECE))):
            channel.write(PIECE)
        gone_through.set()

    with thread(write):
        while channel._waiting < _ROOM:
            assert not gone_through.is_set()
        assert not gone_through.wait(0)
        channel.close()
    assert gone_through.is_set()
    channel.write(PIECE)
    channel.finish()
    assert not channel.wait_for_more()


def test_whoever_waits_for_more_hears_of_the_end(drive: MemoryTapeDrive, writer: CopyWriter) -> None:
    """Of `finish` behind what came before, of `close` at once."""
    channel = CopyChannel()
    found: list[object] = []
    with thread(lambda: found.append(channel.write_until_commit(drive, writer))):
        channel.begin(0, 0, 0)
        channel.write(PIECE)
        channel.tear()
        channel.finish()
    assert found == [None]
    channel = CopyChannel()
    with thread(lambda: found.append(channel.wait_for_more())):
        channel.close()
    assert found == [None, False]


def test_what_is_not_the_same_is_never_committed(drive: MemoryTapeDrive, writer: CopyWriter) -> None:
    """A segment whose digest is another one than that of the backup ends the copy of this pass."""
    channel = CopyChannel()
    channel.begin(0, 0, 0)
    channel.write(PIECE)
    channel.end(Segment(SET.id, 0, "u", "B", 1, 3, 16, 65_536, len(PIECE), "0" * 64, 0, len(PIECE)))
    with pytest.raises(CopyFellBehind):
        channel.write_until_commit(drive, writer)
