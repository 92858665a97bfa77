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
from capstan.core.backup import Encryption
from capstan.core.ids import new_uuid
from capstan.core.media import Cartridge, CartridgeState, Pool
from capstan.crypto.identities import Identity
from capstan.errors import CartridgeMissing, DeviceError, FormatError, TransportError
from capstan.fileindex.store import FileIndexStore
from capstan.format.copy_writer import link_of
from capstan.format.index_reader import LockedIndex, ReadIndex
from capstan.format.manifest import CommitLink
from capstan.jobs.context import JobContext
from capstan.media.ledger import Ledger, settle
from capstan.media.manager import DEFAULT_POOL, Purpose, TapeManager
from capstan.recovery.inspection import Inspection, inspect_cartridge

_LOCKED_POOL = "its newest set is locked, so that nobody knows whom it encrypts for"
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
        found = _chosen(inspections)
        for index in found:
            await asyncio.to_thread(self._store.add_part, index.manifest.backup_set.id, index.part())
        async with self._catalog.transaction() as catalog:
            affected = await self._forget(catalog, inspections)
            for index in found:
                await self._ledger.enter_into(catalog, index.commit(), index.manifest, writing=False)
                affected.add(index.manifest.backup_set.id, index.manifest.commits)
            for inspection in inspections:
                for locked in inspection.locked:
                    if not await _is_known(catalog, locked):
                        await self._ledger.enter_locked(catalog, locked)
                    affected.add(locked.header.set or "", [])
            states, gone = await _settle(catalog, affected)
            made = await _encrypt_pools(catalog, found, inspections, affected.pools)
        for pool in made:
            detail = (
                f"pool {pool.name} was made again: what it demanded of copies, escrow and verification is on no tape"
            )
            if pool != Pool(DEFAULT_POOL, pool.created_at):  # of which nobody has said anything
                await context.warning("pool-made-again", detail=detail)
            if pool.blocked:
                await context.warning("pool-blocked", detail=f"pool {pool.name}: {pool.blocked}")
        for index in found:
            commit = index.commit()
            await asyncio.to_thread(self._store.forget_key, commit.set_id, commit.payload_sha256)
        for set_id in gone:
            await asyncio.to_thread(self._store.remove, set_id)
        return states

    async def _forget(self, catalog: Repositories, inspections: Sequence[Inspection]) -> _Affected:
        """Drop what the catalog says of the cartridges that could be read, and write down what they are."""
        affected = _Affected()
        now = self._clock.now()
        uuids: dict[str, set[str]] = {}  # all labels that each barcode ever had
        for commit in await catalog.backups.list_commits():
            uuids.setdefault(commit.barcode, set()).add(commit.cartridge)
        for inspection in inspections:
            cartridge = await catalog.media.get(inspection.barcode)
            label = inspection.label if inspection.state is CartridgeState.AVAILABLE else None
            if inspection.state is not CartridgeState.SUSPECT:
                for uuid in sorted(uuids.get(inspection.barcode, ())):
                    await _forget_commits(catalog, uuid, inspection, affected)
            if label is not None and await catalog.media.find_pool(label.pool) is None:
                await catalog.media.add_pool(Pool(label.pool, now))
                affected.pools.append(label.pool)
            blank_is_scratch = self._is_virtual(cartridge.library) or cartridge.state is CartridgeState.SCRATCH
            await catalog.media.save(_described(cartridge, inspection, blank_is_scratch=blank_is_scratch))
        return affected


async def _encrypt_pools(
    catalog: Repositories, found: Sequence[ReadIndex], inspections: Sequence[Inspection], made: Sequence[str]
) -> list[Pool]:
    """Let pools encrypt as their newest set does: those that were `made` now, of which only the tapes know, and those
    that were blocked because that set was locked, as they are then. A pool that exists keeps what it was told."""
    newest = {index.manifest.backup_set.pool: index.manifest.backup_set for index in found}  # by ascending numbers
    locked: dict[str, int] = {}
    for item in inspections:
        for index in item.locked:
            if item.label is not None:
                locked[item.label.pool] = max(locked.get(item.label.pool, 0), index.header.set_number or 0)
    pools = []
    for pool in await catalog.media.list_pools():
        if pool.name not in made and not pool.blocked:
            continue
        last = newest.get(pool.name)
        if pool.name in locked and (last is None or last.number < locked[pool.name]):
            pool = replace(pool, blocked=_LOCKED_POOL)
        elif last is not None:
            drive_key = last.keys[0] if last.encryption is Encryption.DRIVE else ""
            pool = replace(pool, blocked="", recipients=last.recipients, drive_key=drive_key)
        await catalog.media.save_pool(pool)
        pools += [pool] if pool.name in made else []
    return pools


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


def _chosen(inspections: Sequence[Inspection]) -> list[ReadIndex]:
    """The INDEXes that count, set after set in the order of their numbers, the originals before the copies."""
    found: dict[str, list[ReadIndex]] = {}
    for inspection in inspections:
        for index in inspection.indexes:
            found.setdefault(index.manifest.backup_set.id, []).append(index)
    in_order = sorted(found.values(), key=lambda indexes: indexes[0].manifest.backup_set.number)
    return [index for indexes in in_order for index in choose_indexes(indexes)]


def choose_indexes(indexes: Sequence[ReadIndex]) -> list[ReadIndex]:
    """One INDEX for each sequence of a set, in order; of copies, one for each sequence, copy and cartridge, the last.

    Of the original there are two only where a drive said that the filemark of the first had failed and it was on the
    medium all the same; the backup then went on with another cartridge. The newest INDEX names the one that counts.
    """
    originals = [index for index in indexes if not index.manifest.copy]
    copies = {
        (index.manifest.copy, index.manifest.sequence, index.manifest.cartridge): index
        for index in sorted(indexes, key=lambda index: index.header.block)
        if index.manifest.copy
    }
    in_order = [copies[key] for key in sorted(copies)]
    return [*_chosen_originals(originals), *in_order] if originals else in_order


def _chosen_originals(indexes: Sequence[ReadIndex]) -> list[ReadIndex]:
    newest = max(indexes, key=lambda index: (index.manifest.sequence, index.manifest.final, index.manifest.tar_end))
    named = {link.sequence: link.header_sha256 for link in newest.manifest.commits}
    named[newest.manifest.sequence] = newest.header_sha256
    chosen = {
        index.manifest.sequence: index for index in indexes if named.get(index.manifest.sequence) == index.header_sha256
    }
    return [chosen[sequence] for sequence in sorted(chosen)]


async def _forget_commits(catalog: Repositories, uuid: str, inspection: Inspection, affected: _Affected) -> None:
    """Drop the commit points on one cartridge, but those whose INDEX is there and damaged, or locked: the catalog's
    copy of it is then the only one."""
    label = inspection.label
    locked = {index.header_sha256 for index in inspection.locked}
    commits = await catalog.backups.list_commits(cartridge=uuid)
    await catalog.backups.remove_commits(uuid)
    for commit in commits:
        affected.add(commit.set_id, [link_of(commit)])
        kept = inspection.is_damaged(commit) or commit.header_sha256 in locked
        if label is not None and label.uuid == uuid and kept:
            await catalog.backups.add_commit(commit)


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
