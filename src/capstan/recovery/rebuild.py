"""Recreates what the catalog knew of a library from its cartridges alone.

Every cartridge is read first, and the catalog changed after, in one transaction: a rebuild that is broken off, at
whatever moment, has changed nothing. What lies on cartridges that are elsewhere, or that cannot be read at all, stays
as the catalog has it.
"""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from capstan.catalog.catalog import Catalog, Repositories
from capstan.clock import Clock
from capstan.core.backup import Commit
from capstan.core.history import history_of
from capstan.core.ids import new_uuid
from capstan.core.media import Cartridge, CartridgeState, Pool
from capstan.crypto.identities import Identity
from capstan.errors import CartridgeMissing, DeviceError, FormatError, TransportError
from capstan.fileindex.store import FileIndexStore
from capstan.format.copy_writer import link_of
from capstan.format.index_reader import LockedIndex
from capstan.format.manifest import CommitLink
from capstan.jobs.context import JobContext
from capstan.media.cartridges import DEFAULT_POOL
from capstan.media.ledger import Ledger, settle
from capstan.media.manager import Purpose, TapeManager
from capstan.recovery.histories import Choice, Found, choose_history
from capstan.recovery.inspection import Inspection, inspect_cartridge
from capstan.recovery.pools_again import PoolAgain, demand_again

_SHOWN = 5  # places named in a warning
_ATTEMPTS = 2  # mounts of one cartridge when the drive fails


@dataclass(slots=True)
class _Affected:
    """Sets that have, or had, something on the cartridges that were read, and every INDEX that is heard of."""

    links: dict[str, dict[tuple[int, int, str], CommitLink]] = field(default_factory=dict)
    pools: list[str] = field(default_factory=list)  # that were made

    def add(self, set_id: str, links: Iterable[CommitLink]) -> None:
        known = self.links.setdefault(set_id, {})
        for link in links:
            known[link.copy, link.sequence, link.cartridge if link.copy else ""] = link


class RebuildEngine:
    """One for a process. `is_virtual` tells of a library's name whether its blank cartridges may be written to: those
    of a real library may be anybody's, and wait for a word of the operator."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        manager: TapeManager,
        ledger: Ledger,
        store: FileIndexStore,
        clock: Clock,
        spool: Path,
        is_virtual: Callable[[str], bool],
    ) -> None:
        self._catalog = catalog
        self._manager = manager
        self._ledger = ledger
        self._store = store
        self._clock = clock
        self._spool = spool
        self._is_virtual = is_virtual

    async def run(self, library: str, context: JobContext, identities: Sequence[Identity] = ()) -> dict[str, Any]:
        """Read every cartridge of `library` and enter what is on it; return the result object of the command line.

        A set that is sealed, and that `identities` do not open, is entered as LOCKED, unless the catalog knows it.
        A cartridge that is blank, not ours, or cannot be read becomes a warning, and the rest goes on.
        """
        began = self._clock.monotonic()
        spool = self._spool / f"rebuild-{new_uuid()}"
        await context.phase("inventory")
        opened = await self._manager.open(library)
        async with opened.robot:
            await opened.inventory(rescan=True)
        async with self._catalog.snapshot() as catalog:
            cartridges = [item for item in await catalog.media.list(library=library) if item.place]
        inspections: list[Inspection] = []
        try:
            for done, cartridge in enumerate(cartridges):
                context.check_cancelled()
                await context.progress(cartridges=done, total_cartridges=len(cartridges), current=cartridge.barcode)
                if cartridge.state is not CartridgeState.CLEANING:
                    inspections.append(await self._inspect(library, cartridge, spool, context, identities))
            await context.phase("record-set")
            sets = await self._record(inspections, context)
        finally:
            await asyncio.to_thread(shutil.rmtree, spool, ignore_errors=True)
        return {
            "library": library,
            "cartridges": len(inspections),
            "sets": sum(sets.values()),
            **{state: sets[state] for state in ("complete", "incomplete", "partial", "locked")},
            "foreign": [item.barcode for item in inspections if item.state is CartridgeState.FOREIGN],
            "suspect": [i.barcode for i in inspections if i.state is CartridgeState.SUSPECT or i.troubles],
            "warnings": context.job.warning_count,
            "seconds": round(self._clock.monotonic() - began, 3),
        }

    async def _inspect(
        self,
        library: str,
        cartridge: Cartridge,
        spool: Path,
        context: JobContext,
        identities: Sequence[Identity],
    ) -> Inspection:
        barcode = cartridge.barcode
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                with self._manager.keys.lend(context.job_id, identities):
                    async with self._manager.mount(
                        library, barcode=barcode, purpose=Purpose.INSPECT, context=context
                    ) as mounted:
                        await context.phase("read", cartridge=barcode)
                        inspection = await mounted.lane.run(inspect_cartridge, barcode, spool, identities)
                break
            except (DeviceError, TransportError) as error:
                inspection = Inspection(barcode, CartridgeState.SUSPECT, str(error))
                if attempt < _ATTEMPTS:  # another mount may get another drive
                    await context.warning(error.code, detail=str(error))
            except (CartridgeMissing, FormatError) as error:
                inspection = Inspection(barcode, CartridgeState.SUSPECT, str(error))
                break
        if inspection.state in (CartridgeState.FOREIGN, CartridgeState.SUSPECT):
            await context.warning(f"cartridge-{inspection.state}", detail=f"{barcode}: {inspection.reason}")
        for trouble in inspection.troubles:
            await context.warning("damaged", detail=f"{barcode}, block {trouble.block}: {trouble.what}")
        return inspection

    async def _record(self, inspections: Sequence[Inspection], context: JobContext) -> Counter[str]:
        """Make the file indexes durable, then tell the catalog everything at once; the sets by their state."""
        by_barcode = {inspection.barcode: inspection for inspection in inspections}
        async with self._catalog.snapshot() as catalog:
            known = await catalog.backups.list_commits()
        choices = _choices(inspections, [item for item in known if _stays(item, by_barcode.get(item.barcode))])
        found = [index for choice in choices for index in choice.indexes]
        for index in found:
            await asyncio.to_thread(self._store.add_part, index.manifest.backup_set.id, index.part())
        async with self._catalog.transaction() as catalog:
            affected = await self._forget(catalog, inspections, known)
            for choice in choices:
                await self._enter(catalog, choice, affected)
            states, gone = await _settle(catalog, affected)
            made = await demand_again(catalog, found, inspections, affected.pools)
        await self._tell(choices, made, context)
        for index in found:
            commit = index.commit()
            await asyncio.to_thread(self._store.entered, commit.set_id, commit.header_sha256)
            await asyncio.to_thread(self._store.keep_only, commit.set_id, history_of([commit]))
        for set_id in gone:
            await asyncio.to_thread(self._store.remove, set_id)
        return states

    async def _enter(self, catalog: Repositories, choice: Choice, affected: _Affected) -> None:
        for commit in choice.dropped:
            await catalog.backups.remove_commit(commit)
        for index in choice.indexes:
            await self._ledger.enter_into(catalog, index.commit(), index.manifest, writing=False)
            affected.add(index.manifest.backup_set.id, index.manifest.commits)
        for locked in choice.locked:
            if not await _is_known(catalog, locked):
                await self._ledger.enter_locked(catalog, locked)
            affected.add(locked.header.set or "", [])

    async def _tell(self, choices: Sequence[Choice], made: Sequence[PoolAgain], context: JobContext) -> None:
        """Warn of what was found and is not as people may think."""
        for choice in choices:
            aside = [index.header for index in choice.aside if not self._has_abandoned(index)]
            if aside:
                places = ", ".join(f"{header.barcode} block {header.block}" for header in aside[:_SHOWN])
                detail = (
                    f"set {aside[0].set} was written twice from some commit point on; what does not count, because the "
                    f"other reaches at least as far: {places}{' and others' if len(aside) > _SHOWN else ''}"
                )
                await context.warning("another-history", detail=detail)
        for made_again in made:
            pool = made_again.pool
            if pool != Pool(DEFAULT_POOL, pool.created_at):  # of which nobody has said anything
                await context.warning("pool-made-again", detail=made_again.text)
            if pool.blocked:
                await context.warning("pool-blocked", detail=f"pool {pool.name}: {pool.blocked}")

    def _has_abandoned(self, index: Found) -> bool:
        """Whether this home knows that it wrote it again elsewhere."""
        return self._store.announced(index.header.set or "", index.header_sha256) is not None

    async def _forget(
        self, catalog: Repositories, inspections: Sequence[Inspection], known: Sequence[Commit]
    ) -> _Affected:
        """Drop what the catalog says of the cartridges that could be read, and write down what they are."""
        affected = _Affected()
        now = self._clock.now()
        for inspection in inspections:
            cartridge = await catalog.media.get(inspection.barcode)
            label = inspection.label if inspection.state is CartridgeState.AVAILABLE else None
            for commit in known:
                if commit.barcode != inspection.barcode or inspection.state is CartridgeState.SUSPECT:
                    continue
                affected.add(commit.set_id, [link_of(commit)])
                if not _stays(commit, inspection):
                    await catalog.backups.remove_commit(commit)
            if label is not None and label.pool and await catalog.media.find_pool(label.pool) is None:
                await catalog.media.add_pool(Pool(label.pool, now))
                affected.pools.append(label.pool)
            blank_is_scratch = self._is_virtual(cartridge.library) or cartridge.state is CartridgeState.SCRATCH
            await catalog.media.save(_described(cartridge, inspection, blank_is_scratch=blank_is_scratch))
        return affected


async def _settle(catalog: Repositories, affected: _Affected) -> tuple[Counter[str], list[str]]:
    """Give every set its state; a set of which nothing is left is forgotten. The states, and the ids of such sets."""
    states: Counter[str] = Counter()
    gone: list[str] = []
    for set_id, links in affected.links.items():
        commits = await catalog.backups.list_commits(set_id=set_id)
        commits = [*commits, *await catalog.backups.list_copies(set_id)]
        if commits:
            backup_set = await catalog.backups.get(set_id)
            settle(backup_set, commits, list(links.values()))
            await catalog.backups.save(backup_set)
            states[backup_set.state.value] += 1
        else:
            await catalog.backups.remove(set_id)
            gone.append(set_id)
    return states, gone


def _choices(inspections: Sequence[Inspection], staying: Sequence[Commit]) -> list[Choice]:
    """What counts of each set, in the order of their numbers. `staying`: what the catalog keeps of all sets."""
    found: dict[str, list[Found]] = {}
    for inspection in inspections:
        both: list[Found] = [*inspection.indexes, *inspection.locked]
        for index in both:
            found.setdefault(index.header.set or "", []).append(index)
    known: dict[str, list[Commit]] = {}
    for commit in staying:
        known.setdefault(commit.set_id, []).append(commit)
    in_order = sorted(found.items(), key=lambda item: item[1][0].header.set_number or 0)
    return [choose_history(indexes, known.get(set_id, [])) for set_id, indexes in in_order]


def _stays(commit: Commit, inspection: Inspection | None) -> bool:
    """Whether the catalog goes on having a commit point: its cartridge was not read, or its INDEX is there and damaged,
    or locked, so that the catalog's copy of it is the only one."""
    if inspection is None or inspection.state is CartridgeState.SUSPECT:
        return True
    if inspection.label is None or inspection.label.uuid != commit.cartridge:
        return False
    locked = {index.header_sha256 for index in inspection.locked}
    return inspection.is_damaged(commit) or commit.header_sha256 in locked


async def _is_known(catalog: Repositories, index: LockedIndex) -> bool:
    set_id = index.header.set or ""
    commits = [*await catalog.backups.list_commits(set_id=set_id), *await catalog.backups.list_copies(set_id)]
    return any(commit.header_sha256 == index.header_sha256 for commit in commits)


def _described(cartridge: Cartridge, inspection: Inspection, *, blank_is_scratch: bool) -> Cartridge:
    """The cartridge's row as the tape says it is. One that cannot be read keeps what was known of it."""
    state, reason = inspection.state, inspection.reason
    if cartridge.state is CartridgeState.RETIRED:
        state, reason = cartridge.state, cartridge.reason
    if inspection.state is CartridgeState.SUSPECT:
        return replace(cartridge, state=state, reason=reason)
    label = inspection.label
    if label is None:
        if state is CartridgeState.SCRATCH:
            state, reason = (CartridgeState.SCRATCH if blank_is_scratch else CartridgeState.UNKNOWN), ""
        fresh = Cartridge(cartridge.barcode, state, cartridge.created_at, reason=reason)
        label_facts: dict[str, Any] = {}
    else:
        if inspection.troubles:
            state, reason = CartridgeState.SUSPECT, inspection.troubles[0].what
        elif inspection.full and state is CartridgeState.AVAILABLE:
            state, reason = CartridgeState.FULL, "the end of the tape was reached"
        elif cartridge.uuid == label.uuid and cartridge.state in (CartridgeState.FULL, CartridgeState.SUSPECT):
            state, reason = cartridge.state, cartridge.reason
        fresh = Cartridge(cartridge.barcode, state, cartridge.created_at, reason=reason)
        label_facts = _facts(inspection)
    return replace(
        fresh,
        library=cartridge.library,
        place=cartridge.place,
        generation=cartridge.generation,
        capacity_bytes=cartridge.capacity_bytes,
        loads=cartridge.loads,
        **label_facts,
    )


def _facts(inspection: Inspection) -> dict[str, Any]:
    """What the label and the last INDEX say: where the committed part ends."""
    label = inspection.label
    assert label is not None
    facts: dict[str, Any] = {
        "uuid": label.uuid,
        "pool": label.pool,
        "record_bytes": label.record_bytes,
        "labelled_at": label.labelled_at,
        "end_block": inspection.label_end,
        "tape_files": 1,
    }
    last = inspection.last
    if last is not None:
        facts |= {
            "end_block": last.end_block,
            "tape_files": last.header.tape_file + 1,
            "index_block": last.header.block,
            "index_sha256": last.header_sha256,
            "written_at": datetime.fromisoformat(last.header.written_at),
            "written_bytes": sum(_written(inspection).values()),
        }
    return facts


def _written(inspection: Inspection) -> dict[int, int]:
    """Payload bytes on a cartridge, by block."""
    found = {index.header.block: index.header.payload_bytes or 0 for index in inspection.locked}
    for index in inspection.indexes:
        found[index.header.block] = index.header.payload_bytes or 0
        found |= {segment.block: segment.payload_bytes for segment in index.manifest.segments}
    return found
