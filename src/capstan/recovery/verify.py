"""Proves that what is on tape can be restored: a whole set, or everything on one cartridge.

A set is read like a restore into nothing. A cartridge is verified by its own INDEXes, so that it needs no catalog;
where an INDEX cannot be read, what the catalog kept of it takes its place.
"""

from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from capstan.catalog.catalog import Catalog
from capstan.clock import Clock
from capstan.core.backup import BackupSet, Commit, Encryption
from capstan.core.ids import new_uuid
from capstan.core.job import RestorePhase
from capstan.core.media import CartridgeState
from capstan.crypto.identities import Identity
from capstan.errors import CapstanError, JobCancelled, NotCapstanTape, WrongCartridge
from capstan.fileindex.store import FileIndexStore
from capstan.jobs.context import JobContext
from capstan.media.checks import check_erasable
from capstan.media.manager import MountedCartridge, Purpose, TapeManager
from capstan.recovery.engine import new_report, progress, read_prepared, stopwatch, tell_damage, ticking
from capstan.recovery.inspection import Inspection, check_headers, inspect_cartridge
from capstan.recovery.phases import Phases
from capstan.recovery.plan import ChainPlan
from capstan.recovery.preparation import Piece, check_drive_key, opens, prepare
from capstan.recovery.reading import SetReading
from capstan.recovery.report import RecoveryReport, Trouble, counts, raise_if_unsound
from capstan.recovery.rows import Part, SetTable, kept_parts
from capstan.recovery.sampling import Sample, draw
from capstan.recovery.select import make_selector
from capstan.recovery.selection import Selection
from capstan.tape.drive import TapeDrive

_SUMMED = ("verified_files", "unchecked_files", "errors", "segments_verified", "segments", "bytes_read_from_tape")


@dataclass(frozen=True, slots=True)
class _Part:
    """What of one set lies on a cartridge, and is read of it."""

    backup_set: BackupSet
    table: SetTable
    selection: Selection
    sample: Sample


class VerifyEngine:
    """One for a process; both ways may run for several jobs at once."""

    def __init__(
        self, *, catalog: Catalog, manager: TapeManager, store: FileIndexStore, clock: Clock, spool: Path
    ) -> None:
        self._catalog = catalog
        self._manager = manager
        self._store = store
        self._clock = clock
        self._spool = spool
        self._chance = random.Random()

    async def run_set(
        self,
        reference: str,
        context: JobContext,
        *,
        library: str = "",
        identities: Sequence[Identity] = (),
        percent: float = 100,
        copy: int | None = None,
    ) -> dict[str, Any]:
        """Read every byte of a set, or of one `copy` of it, and compare every file's digest, every record's CRC and
        every segment's SHA-256.

        Of a set that `identities` do not open, records and segments are compared, and the files are `unchecked`; so are
        those beyond a sample of less than 100 `percent` of the segments.
        Raises VerificationFailed or CartridgeMissing at the end, with the result in `result`.
        """
        elapsed = stopwatch(self._clock)
        phases = Phases(context)
        await phases.enter(RestorePhase.SEARCH)
        prepared = await prepare(
            self._catalog, self._store, reference, make_selector(), library, with_parents=False, copy=copy
        )
        segments = [segment for piece in prepared.pieces for segment in piece.table.segments.values()]
        sealed = not all(opens(segment, identities) for segment in segments)
        check_drive_key(prepared.backup_set, identities)
        sample = await asyncio.to_thread(self._sampled, prepared.pieces, percent)
        prepared.plan = ChainPlan([piece.plan for piece in prepared.pieces])
        await phases.enter(RestorePhase.SELECT, files=prepared.files, bytes=prepared.content_bytes)
        report = new_report(context)
        with self._manager.keys.lend(context.job_id, identities):
            await read_prepared(
                prepared,
                None,
                report,
                phases,
                context,
                manager=self._manager,
                elapsed=elapsed,
                spool=self._spool,
                digests=True,
                identities=identities,
                sealed=sealed,
                partial=sealed or percent < 100,
            )
        await phases.catch_up()
        for barcode in sorted({trouble.barcode for trouble in report.damage}):
            await self._record(barcode, [trouble for trouble in report.damage if trouble.barcode == barcode])
        result = {
            "set_id": prepared.backup_set.id,
            "name": prepared.backup_set.name,
            "cartridges": prepared.plan.barcodes,
            "copies_used": prepared.copies_used(),
            "unchecked_files": report.unchecked,
            **sample,
        }
        return await self._finish(report, result, context, elapsed)

    async def run_written(
        self,
        set_id: str,
        copy: int,
        context: JobContext,
        *,
        library: str,
        identities: Sequence[Identity] = (),
    ) -> dict[str, Any]:
        """`run_set` of a copy that the same job has written. Where it is damaged its cartridge becomes suspect."""
        try:
            return await self.run_set(set_id, context, library=library, identities=identities, copy=copy)
        except CapstanError as error:
            for item in (error.result or {}).get("damage", ()):
                reason = f"block {item['block']}: {item['what']}"
                load = await self._manager.health.last_load(context.job_id, item["cartridge"])
                await self._manager.health.damaged(load, reason)
            raise

    def _sampled(self, pieces: Sequence[Piece], percent: float) -> dict[str, int]:
        """Leave in the plan of each piece what was drawn; how much that is."""
        samples = [draw(piece.plan, piece.table.frames(), percent, self._chance) for piece in pieces]
        for piece, sample in zip(pieces, samples, strict=True):
            piece.plan = sample.plan
        return _told(samples)

    async def run_pool(
        self,
        name: str,
        context: JobContext,
        *,
        library: str = "",
        identities: Sequence[Identity] = (),
        percent: float = 100,
    ) -> dict[str, Any]:
        """`run_cartridge` for each cartridge of a pool that is here and holds sets, in barcode order.

        What is wrong with one does not keep the others from being verified; the first error is raised at the end, with
        the whole result. JobCancelled ends it at once.
        """
        async with self._catalog.snapshot() as catalog:
            await catalog.media.get_pool(name)
            found = [item for item in await catalog.media.list(pool=name) if item.uuid and item.index_block >= 0]
        cartridges: list[dict[str, Any]] = []
        first: CapstanError | None = None
        for item in found:
            if not item.place:
                cartridges.append({"barcode": item.barcode, "absent": True})
                continue
            try:
                cartridges.append(
                    await self.run_cartridge(
                        item.barcode, context, library=library, identities=identities, percent=percent
                    )
                )
            except JobCancelled:
                raise
            except CapstanError as error:
                first = first or error
                told = error.result or {"barcode": item.barcode}
                cartridges.append({**told, "error": error.as_dict()})
        result = {
            "pool": name,
            "cartridges": cartridges,
            **{key: sum(item.get(key, 0) for item in cartridges) for key in _SUMMED},
        }
        if first is not None:
            first.result = result
            raise first
        return result

    async def run_cartridge(
        self,
        barcode: str,
        context: JobContext,
        *,
        library: str = "",
        identities: Sequence[Identity] = (),
        percent: float = 100,
    ) -> dict[str, Any]:
        """Verify label, headers, INDEXes and their chains, every record, every segment, and every file that lies
        wholly on this cartridge; the outcome is kept with the cartridge. Where `identities` do not open an INDEX, what
        the catalog kept of it is used; a set that is sealed, or locked, has its files `unchecked`, as have those beyond
        a sample of less than 100 `percent` of each set's segments.

        Raises VerificationFailed at the end, with the result in `result`; NotCapstanTape; WrongCartridge.
        """
        elapsed = stopwatch(self._clock)
        async with self._catalog.snapshot() as catalog:
            known = await catalog.media.get(barcode)
            check_erasable(known)
            commits = await catalog.backups.list_commits(cartridge=known.uuid) if known.uuid else []
        report = new_report(context)
        spool = self._spool / f"verify-{new_uuid()}"
        sets: list[dict[str, Any]] = []
        samples: list[Sample] = []
        try:
            with self._manager.keys.lend(context.job_id, identities):
                async with self._manager.mount(
                    known.library or library, barcode=barcode, purpose=Purpose.INSPECT, context=context
                ) as mounted:
                    await context.phase(RestorePhase.READ, cartridge=barcode)
                    inspection = await mounted.lane.run(_inspect, barcode, spool, identities)
                    report.damage += inspection.troubles
                    _compare(inspection, known.uuid, commits, report)
                    for backup_set, parts in self._sets(inspection, commits):
                        part = await self._part(backup_set, parts, percent)
                        samples.append(part.sample)
                        sets.append(await self._verify_part(mounted, part, report, context, identities))
                    sets += [{"set_id": set_id, "locked": True} for set_id in _locked(inspection, sets)]
        finally:
            await asyncio.to_thread(shutil.rmtree, spool, ignore_errors=True)
        told = _told(samples)
        await self._record(barcode, report.damage, told)
        result = {"barcode": barcode, "sets": sets, "unchecked_files": report.unchecked, **told}
        return await self._finish(report, result, context, elapsed)

    def _sets(self, inspection: Inspection, commits: Sequence[Commit]) -> list[tuple[BackupSet, list[Part]]]:
        """Set by set in the order of the tape: its facts, and the parts that lie on this cartridge."""
        sets: dict[str, BackupSet] = {}
        # Of a copy, a later INDEX of an interval names all that an earlier one does.
        latest: dict[tuple[str, int, int], Part] = {}
        for index in inspection.indexes:
            manifest, set_id = index.manifest, index.manifest.backup_set.id
            sets[set_id] = manifest.backup_set
            part = Part(manifest.sequence, index.files, index.frames, index.records, manifest.segments)
            latest[set_id, manifest.copy, manifest.sequence] = part
        parts: dict[str, list[Part]] = {}
        for (set_id, _, _), part in latest.items():
            parts.setdefault(set_id, []).append(part)
        for locked in inspection.locked:
            if locked.header.encryption == Encryption.DRIVE:
                continue  # without the key the drive does not even read the records
            sets.setdefault(locked.header.set or "", locked.backup_set())
        read = {index.header_sha256 for index in inspection.indexes}
        for commit in commits:
            if commit.header_sha256 not in read and commit.set_id in sets and not commit.locked:
                parts.setdefault(commit.set_id, []).extend(kept_parts(self._store, commit.set_id, [commit]))
        return [(sets[set_id], found) for set_id, found in parts.items()]

    async def _part(self, backup_set: BackupSet, parts: list[Part], percent: float) -> _Part:
        table = await asyncio.to_thread(SetTable, parts)
        selection = Selection(table, make_selector())
        plan = await asyncio.to_thread(selection.plan)
        sample = await asyncio.to_thread(draw, plan, table.frames(), percent, self._chance)
        return _Part(backup_set, table, selection, sample)

    async def _verify_part(
        self,
        mounted: MountedCartridge,
        part: _Part,
        report: RecoveryReport,
        context: JobContext,
        identities: Sequence[Identity],
    ) -> dict[str, Any]:
        before = replace(report)
        backup_set, table, plan = part.backup_set, part.table, part.sample.plan
        reading = SetReading(
            table,
            part.selection,
            plan,
            codec=backup_set.codec.partition(":")[0],
            container=backup_set.container,
            spool=self._spool,
            target=None,
            report=report,
            context=context,
            digests=True,
            partial=True,
            identities=identities,
            sealed=not all(opens(segment, identities) for segment in table.segments.values()),
        )
        elapsed = stopwatch(self._clock)

        async def tick() -> None:
            await context.progress(**progress(report, plan.bytes_to_read, max(elapsed(), 1e-6)))

        reading.start()
        try:
            async with ticking(tick):
                while (visit := await reading.next_visit()) is not None:
                    await reading.read(mounted, visit)
                await reading.finish()
        finally:
            await reading.close()
        return {
            "set_id": backup_set.id,
            "verified_files": report.verified_files - before.verified_files,
            "unchecked_files": report.unchecked - before.unchecked,
            "errors": report.error_count - before.error_count,
        }

    async def _record(self, barcode: str, damage: Sequence[Trouble], sample: Mapping[str, int] | None = None) -> None:
        async with self._catalog.transaction() as catalog:
            cartridge = await catalog.media.find(barcode)
            if cartridge is not None:
                result = f"damaged: block {damage[0].block}: {damage[0].what}" if damage else "good"
                if not damage and sample and sample["segments_verified"] < sample["segments"]:
                    result = f"good, {sample['segments_verified']} of {sample['segments']} segments"
                await catalog.media.save(replace(cartridge, verified_at=self._clock.now(), verify_result=result))

    async def _finish(
        self, report: RecoveryReport, result: dict[str, Any], context: JobContext, elapsed: Callable[[], float]
    ) -> dict[str, Any]:
        await tell_damage(report, context)
        result = {**result, **counts(report), "seconds": round(elapsed(), 3)}
        raise_if_unsound(report, result)
        return result


def _told(samples: Sequence[Sample]) -> dict[str, int]:
    """How much was verified, for a result."""
    return {
        "segments_verified": sum(sample.chosen for sample in samples),
        "segments": sum(sample.segments for sample in samples),
    }


def _locked(inspection: Inspection, verified: Sequence[dict[str, Any]]) -> list[str]:
    """Sets on a cartridge of which nothing but the header records can be read."""
    known = {item["set_id"] for item in verified}
    return list(dict.fromkeys(set_id for item in inspection.locked if (set_id := item.header.set or "") not in known))


def _inspect(drive: TapeDrive, barcode: str, spool: Path, identities: Sequence[Identity]) -> Inspection:
    inspection = inspect_cartridge(drive, barcode, spool, identities)
    if inspection.label is not None and inspection.label.barcode == barcode:
        check_headers(drive, inspection)
    return inspection


def _compare(inspection: Inspection, uuid: str, commits: Sequence[Commit], report: RecoveryReport) -> None:
    """Report where the tape is not what the catalog says.

    Raises WrongCartridge for another label, and NotCapstanTape for a cartridge that nobody took for ours.
    """
    barcode, label = inspection.barcode, inspection.label
    if label is None and not uuid and inspection.state is not CartridgeState.SUSPECT:
        raise NotCapstanTape(barcode=barcode, found=inspection.reason)
    if label is None or label.barcode != barcode:
        report.spoil(Trouble(barcode, 0, inspection.reason))
        return
    if uuid and label.uuid != uuid:
        raise WrongCartridge(barcode=barcode, label=label.uuid, expected=uuid)
    read = {index.header_sha256 for index in inspection.indexes}
    read |= {index.header_sha256 for index in inspection.locked}
    for commit in commits:
        if commit.header_sha256 not in read and not inspection.is_damaged(commit):
            report.spoil(Trouble(barcode, commit.block, "the INDEX that the catalog knows is not there"))
