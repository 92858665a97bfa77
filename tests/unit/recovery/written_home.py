"""A home with a catalog, a file index store and cartridges in memory, and sets that the real writer wrote to them."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from written_set import RECORD, Member, MemoryTarget

from capstan.catalog.sql_catalog import SqlCatalog
from capstan.core.backup import BackupSet, Encryption, SetState, SetType
from capstan.core.files import FileType, Row
from capstan.core.health import Load
from capstan.core.ids import new_uuid
from capstan.core.job import Job, JobKind, JobState
from capstan.core.media import Cartridge, CartridgeState, Pool
from capstan.crypto.identities import Identity
from capstan.crypto.key_ids import key_id
from capstan.errors import CartridgeMissing, NoCartridgeAvailable, NoDriveAvailable
from capstan.fileindex.store import FileIndexStore
from capstan.format.append import examine_tail, go_to_end
from capstan.format.codecs import frame_codec
from capstan.format.frames import Frame, OpenMember, ResumePoint, Totals
from capstan.format.label import Label, write_label
from capstan.format.layout import TAR_END, ArchiveParameters
from capstan.format.tar import content_bytes, member_headers, padded
from capstan.format.writer import CommitWritten, SetChain, SetWriter, TapeEnd
from capstan.jobs.context import JobContext
from capstan.jobs.warning_log import WarningLog
from capstan.media.cartridges import Cartridges
from capstan.media.drive_keys import DriveKeys
from capstan.media.health import DriveFacts, Health
from capstan.media.lane import DriveLane
from capstan.media.ledger import Ledger
from capstan.media.selection import choose_for_writing
from capstan.recovery.copying import CopyEngine
from capstan.recovery.engine import RestoreEngine
from capstan.recovery.rebuild import RebuildEngine
from capstan.recovery.select import RestoreRequest
from capstan.recovery.verify import VerifyEngine
from capstan.testing.memory_drive import MemoryTape, MemoryTapeDrive

FRAME = 100_000


class StillClock:
    """A clock that moves a second each time it is asked for the time of day."""

    def __init__(self) -> None:
        self._now = datetime(2025, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        self._now += timedelta(seconds=1)
        return self._now

    def monotonic(self) -> float:
        return 0.0


class HeardEvents:
    """Keeps what a job tells."""

    def __init__(self) -> None:
        self.told: list[tuple[str, dict[str, Any]]] = []

    async def tell(self, kind: str, job_id: str, data: dict[str, Any], *, keep: bool = True) -> None:
        self.told.append((kind, data))

    async def save(self, job: Job, kind: str = "", data: dict[str, Any] | None = None) -> None:
        if kind:
            self.told.append((kind, data or {}))

    def phases(self) -> list[str]:
        return [data["phase"] for kind, data in self.told if kind == "job.phase"]


@dataclass
class Mounted:
    cartridge: Cartridge
    lane: DriveLane
    load: Load


class MemoryManager:
    """The part of a tape manager that recovery needs, over the tapes of a `WrittenHome`."""

    def __init__(self, home: WrittenHome) -> None:
        self._home = home
        self.keys = DriveKeys()
        self.cartridges = Cartridges(home.catalog, home.clock, RECORD)
        self.health = Health(home.catalog, home.clock)
        self.mounts: list[str] = []
        self.drives = 2
        self.busy: set[str] = set()
        self.on_mount: Callable[[], object] = lambda: None

    async def open(self, library: str) -> MemoryManager:
        self.robot = asyncio.Lock()
        return self

    async def inventory(self, *, rescan: bool = False) -> None:
        async with self._home.catalog.transaction() as catalog:
            for barcode in self._home.tapes:
                found = await catalog.media.find(barcode) or Cartridge(
                    barcode, CartridgeState.UNKNOWN, self._home.clock.now()
                )
                await catalog.media.save(replace(found, library="lib", place="slot:1"))

    @asynccontextmanager
    async def mount(
        self,
        library: str,
        *,
        context: JobContext,
        barcode: str | None = None,
        pool: str = "",
        avoid: Collection[str] = (),
        **_: object,
    ) -> AsyncIterator[Mounted]:
        if barcode is None:
            async with self._home.catalog.snapshot() as catalog:
                there = await catalog.media.list()
                chosen = choose_for_writing(there, await catalog.media.get_pool(pool), unavailable={*avoid, *self.busy})
            if chosen is None:
                raise NoCartridgeAvailable(pool=pool, library=library)
            barcode = chosen.barcode
        if barcode not in self._home.tapes:
            raise CartridgeMissing(barcodes=barcode)
        if len(self.busy) >= self.drives:
            raise NoDriveAvailable(library=library)
        self.mounts.append(barcode)
        self.on_mount()
        await context.phase("load", cartridge=barcode)
        async with self._home.catalog.snapshot() as catalog:
            cartridge = await catalog.media.get(barcode)
        lane = DriveLane(MemoryTapeDrive(self._home.tapes[barcode]), barcode)
        self.busy.add(barcode)
        try:
            facts = DriveFacts(f"S-{barcode}", library, 101, "")
            yield Mounted(cartridge, lane, await self.health.loaded(facts, cartridge, context.job_id))
        finally:
            self.busy.remove(barcode)
            await lane.close()

    async def position_for_append(self, mounted: Mounted) -> None:
        tail = await mounted.lane.run(examine_tail, mounted.cartridge)
        assert not tail.ahead
        await mounted.lane.run(go_to_end, mounted.cartridge)


class WrittenHome:
    """Use `open` first and `close` at the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.spool = folder / "spool"
        self.spool.mkdir(parents=True, exist_ok=True)
        self.clock = StillClock()
        self.tapes: dict[str, MemoryTape] = {}
        self.ends: dict[str, TapeEnd] = {}
        self.sets: dict[str, Sequence[Member]] = {}
        self.target = MemoryTarget()
        self._catalogs = 0

    async def open(self) -> None:
        """With an empty catalog and an empty store, each time new ones."""
        self._catalogs += 1
        self.catalog = SqlCatalog(self.folder / f"catalog-{self._catalogs}.db")
        await self.catalog.open()
        self.store = FileIndexStore(self.folder / f"index-{self._catalogs}")
        self.ledger = Ledger(self.catalog, self.store)
        self.manager = MemoryManager(self)

    async def close(self) -> None:
        await self.catalog.close()

    async def label(self, barcode: str, pool: str = "default", record_bytes: int = RECORD) -> None:
        """A new cartridge, or an old one labelled anew."""
        tape = self.tapes.setdefault(barcode, MemoryTape())
        label = Label(new_uuid(), barcode, pool, self.clock.now(), record_bytes=record_bytes)
        end = write_label(MemoryTapeDrive(tape), label)
        self.ends[barcode] = TapeEnd(label.uuid, barcode, record_bytes, end.end_block, 1)
        async with self.catalog.transaction() as catalog:
            if await catalog.media.find_pool(pool) is None:
                await catalog.media.add_pool(Pool(pool, self.clock.now()))
            row = Cartridge(barcode, CartridgeState.AVAILABLE, self.clock.now(), uuid=label.uuid, pool=pool)
            row.library, row.place, row.end_block, row.tape_files = "lib", "slot:1", end.end_block, 1
            row.record_bytes = record_bytes
            await catalog.media.save(row)

    async def write(
        self,
        name: str,
        members: Sequence[Member],
        places: Sequence[str],
        *,
        codec: str = "zstd",
        finish: bool = True,
        recipients: Sequence[str] = (),
        enter: bool = True,
    ) -> str:
        """Write a set; each barcode of `places` gets an equal share of its frames and one INDEX, which is entered."""
        async with self.catalog.transaction() as catalog:
            number = await catalog.backups.next_number()
            facts = BackupSet(
                new_uuid(), number, name, SetType.FULL, SetState.WRITING, self.clock.now(), codec=f"{codec}:1"
            )
            if recipients:
                facts.encryption, facts.recipients = Encryption.AGE, list(recipients)
                facts.keys = [key_id(recipient) for recipient in recipients]
            await catalog.backups.add(facts)
        frames = list(make_frames(members, codec))
        share = -(-len(frames) // len(places))
        chain = SetChain()
        for turn, barcode in enumerate(places):
            mine = frames[turn * share : (turn + 1) * share]
            last = turn == len(places) - 1
            written = self._write_share(facts, barcode, chain, mine, codec, final=last and finish)
            part = written.part
            if enter:
                await self.ledger.enter(written.commit, written.manifest, part, writing=not last)
            chain, self.ends[barcode] = written.chain, written.tape
        self.sets[facts.id] = members
        return facts.id

    def _write_share(
        self, facts: BackupSet, barcode: str, chain: SetChain, frames: Sequence[Frame], codec: str, *, final: bool
    ) -> CommitWritten:
        drive = MemoryTapeDrive(self.tapes[barcode])
        drive.locate(self.ends[barcode].end_block)
        writer = SetWriter(
            drive,
            backup_set=facts,
            chain=chain,
            tape=self.ends[barcode],
            parameters=ArchiveParameters(codec=codec, level=1, segment_bytes=3 * FRAME),
            spool=self.spool,
            clock=self.clock,
            announce=partial(self.store.announce, facts.id),
        )
        for frame in frames:
            writer.write(frame)
        return writer.commit(final=final)

    def context(self) -> JobContext:
        self.events = HeardEvents()
        job = Job("job1", JobKind.RESTORE, JobState.RUNNING, self.clock.now())
        self.running = JobContext(job, self.events, self.clock, WarningLog(self.folder / "warnings.jsonl", self.clock))
        return self.running

    async def restore(self, reference: str, *paths: bytes, identities: Sequence[Identity] = ()) -> dict[str, Any]:
        self.target = MemoryTarget()
        request = RestoreRequest(reference, self.folder / "out", paths=paths)
        return await self.restorer().run(request, self.context(), identities)

    def restorer(self) -> RestoreEngine:
        return RestoreEngine(
            catalog=self.catalog,
            manager=self.manager,  # type: ignore[arg-type]
            store=self.store,
            clock=self.clock,
            spool=self.spool,
            open_target=lambda request, tell, **earlier: self.target,
        )

    async def copy(self, set_id: str, pool: str = "vault") -> dict[str, Any]:
        """Make a copy of a set, or what it lacks."""
        return await self.copier().run(set_id, self.context(), library="lib", pool=pool)

    def copier(self, proven: Callable[[], set[str]] = set) -> CopyEngine:
        return CopyEngine(
            verify=self.verifier(),
            catalog=self.catalog,
            manager=self.manager,  # type: ignore[arg-type]
            ledger=self.ledger,
            store=self.store,
            clock=self.clock,
            spool=self.spool,
            proven_keys=proven,
        )

    def verifier(self) -> VerifyEngine:
        return VerifyEngine(
            catalog=self.catalog,
            manager=self.manager,  # type: ignore[arg-type]
            store=self.store,
            clock=self.clock,
            spool=self.spool,
        )

    async def rebuild(self, *, virtual: bool = True, identities: Sequence[Identity] = ()) -> dict[str, Any]:
        engine = RebuildEngine(
            catalog=self.catalog,
            manager=self.manager,  # type: ignore[arg-type]
            ledger=self.ledger,
            store=self.store,
            clock=self.clock,
            spool=self.spool,
            is_virtual=lambda library: virtual,
        )
        return await engine.run("lib", self.context(), identities)

    def content(self, set_id: str) -> dict[bytes, bytes]:
        """What a whole restore must give."""
        return {entry.path: data for entry, data, _ in self.sets[set_id] if entry.type is FileType.REGULAR}


def make_frames(members: Sequence[Member], codec: str) -> list[Frame]:
    """The stream of a set as the pipeline gives it."""
    tar = bytearray()
    rows: list[tuple[int, Row]] = []
    for entry, content, flags in members:
        begin = len(tar)
        tar += member_headers(entry)
        if content_bytes(entry):
            tar += content.ljust(padded(len(content)), b"\0")
        digest = hashlib.sha256(content).digest() if entry.type is FileType.REGULAR else None
        rows.append((len(tar), Row(entry, begin, len(tar) - begin, digest, flags)))
    tar += TAR_END
    encoder = frame_codec(codec, 1)
    frames = []
    for begin in range(0, len(tar), FRAME):
        end = min(begin + FRAME, len(tar))
        ended = [row for stop, row in rows if begin < stop <= end]
        across = [row for stop, row in rows if row.tar_offset < end < stop]
        totals = Totals(
            files=sum(stop <= end for stop, _ in rows),
            bytes=sum(content_bytes(row.entry) for stop, row in rows if stop <= end),
        )
        member = OpenMember(across[0]._replace(sha256=None), 512) if across else None
        frames.append(
            Frame(
                begin,
                end - begin,
                bytes(encoder.compress(memoryview(bytes(tar[begin:end])))),
                ended,
                ResumePoint(end, None, member, totals),
                last=end == len(tar),
            )
        )
    return frames
