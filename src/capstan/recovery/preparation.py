"""What a restore or a verification of a set will do: looked up in the catalog and planned; no drive is touched."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from capstan.catalog.catalog import Catalog
from capstan.catalog.chains import Shortfall, all_commits, chain_of, find_shortfall, index_chain
from capstan.core.backup import BackupSet, Commit, Encryption, Segment, SetState
from capstan.core.coverage import is_whole
from capstan.core.files import display_path
from capstan.crypto.age import NoIdentity
from capstan.crypto.identities import DriveKey, Identity
from capstan.errors import IdentityNeeded, InvalidValue, NotFound, Refused
from capstan.fileindex.store import FileIndexStore
from capstan.format.sealing import SegmentOpener
from capstan.recovery.assemble import Outcome, Outcomes
from capstan.recovery.copies import CopyChoice, Health
from capstan.recovery.plan import ChainPlan, RestorePlan
from capstan.recovery.reading import SetReading
from capstan.recovery.report import RecoveryReport
from capstan.recovery.rows import SetTable, kept_parts
from capstan.recovery.select import Selector, resolve_set
from capstan.recovery.selection import RestoredBefore, Selection, select_chain
from capstan.recovery.target import Placement, RecoveryTarget

_UNLOCK = "run `capstan rebuild --library NAME --identity FILE` with an identity that opens it"


@dataclass(slots=True)
class Piece:
    """What is read of one set."""

    backup_set: BackupSet
    table: SetTable
    selection: Selection
    plan: RestorePlan
    choice: CopyChoice


@dataclass(slots=True)
class Prepared:
    """A request, looked up and planned. `libraries`: where each cartridge was seen last; `present`:
    barcodes that are there, as far as the catalog knows; `shortfall`: what the set lacks of its time."""

    backup_set: BackupSet
    selector: Selector
    pieces: list[Piece]
    plan: ChainPlan
    libraries: dict[str, str]
    present: set[str]
    shortfall: Shortfall | None = None
    before: RestoredBefore | None = None

    @property
    def files(self) -> int:
        return self.backup_set.files if self._whole_set else sum(piece.selection.files for piece in self.pieces)

    @property
    def content_bytes(self) -> int:
        if self._whole_set:
            return self.backup_set.bytes
        return sum(piece.selection.content_bytes for piece in self.pieces)

    def copies_used(self) -> list[dict[str, Any]]:
        """Which segments were read from copies, by set, copy and cartridge."""
        return [
            {"set_id": piece.backup_set.id, "copy": copy, "cartridge": barcode, "segments": sorted(numbers)}
            for piece in self.pieces
            for (copy, barcode), numbers in sorted(piece.choice.used.items())
        ]

    @property
    def _whole_set(self) -> bool:
        return self.selector.everything and len(self.pieces) == 1 and self.before is None

    def readings(self, target: RecoveryTarget | None, report: RecoveryReport, **more: Any) -> list[SetReading]:
        """A reading for each set of the chain."""
        linkable = self.before.linkable if self.before else {}
        outcomes: Outcomes = {path: Outcome(Placement.WRITTEN, file) for path, file in linkable.items()}
        return [
            SetReading(
                piece.table,
                piece.selection,
                piece.plan,
                choice=piece.choice,
                codec=piece.backup_set.codec.partition(":")[0],
                container=piece.backup_set.container,
                target=target,
                report=report,
                outcomes=outcomes,
                **more,
            )
            for piece in self.pieces
        ]


async def prepare(
    catalog: Catalog,
    store: FileIndexStore,
    reference: str,
    selector: Selector,
    library: str = "",
    *,
    with_parents: bool = True,
    before: RestoredBefore | None = None,
    identities: Sequence[Identity] | None = None,
    copy: int | None = None,
) -> Prepared:
    """Find the set and what it builds on, read their tables, and plan what was not restored `before`. NotFound when
    nothing is selected; ParentMissing; IdentityNeeded when it is locked, or `identities` do not open it (None: it need
    not be opened). `copy`: read that one only; InvalidValue when it is not there, Refused when it is not whole."""
    async with catalog.snapshot() as repositories:
        backup_set = await resolve_set(repositories, reference)
        if backup_set.state is SetState.LOCKED:
            raise IdentityNeeded(what=f"set {backup_set.id}", keys=", ".join(backup_set.keys), hint=_UNLOCK)
        chain = await chain_of(repositories, backup_set) if with_parents else [backup_set]
        indexes = await index_chain(repositories, store, chain)
        commits = [await all_commits(repositories, item.id) for item in chain]
        if copy is not None:
            commits = [_of_copy(of, copy) for of in commits]
        barcodes = dict.fromkeys(barcode for item in chain for barcode in item.cartridges)
        barcodes |= dict.fromkeys(commit.barcode for of in commits for commit in of)
        found = [await repositories.media.find(barcode) for barcode in barcodes]
    cartridges = [cartridge for cartridge in found if cartridge]
    libraries = {item.barcode: item.library or library for item in cartridges if item.library or library}
    present = {item.barcode for item in cartridges if item.place}
    health = Health.of(cartridges)

    def plan() -> list[Piece]:
        tables = [SetTable(kept_parts(store, item.id, of)) for item, of in zip(chain, commits, strict=True)]
        if len(chain) == 1 and before is None:
            selections = [Selection(tables[0], selector)]
        else:
            selections = select_chain(tables, indexes, selector, before)
        choices = [CopyChoice(table.places, health) for table in tables]
        return [
            Piece(item, table, selection, selection.plan(segments=choice.segments()), choice)
            for item, table, selection, choice in zip(chain, tables, selections, choices, strict=True)
        ]

    pieces = await asyncio.to_thread(plan)
    if identities is not None:
        for piece in pieces:
            _check_openable(piece, identities)
    planned = ChainPlan([piece.plan for piece in pieces])
    shortfall = await asyncio.to_thread(find_shortfall, chain, indexes)
    prepared = Prepared(backup_set, selector, pieces, planned, libraries, present, shortfall, before)
    nothing = not selector.everything and before is None
    if nothing and not prepared.files and not any(piece.plan.frames.count for piece in pieces):
        wanted = " ".join(display_path(path) for path in selector.paths) or " ".join(selector.patterns)
        hint = f"`capstan set files {backup_set.id[:8]}` lists what there is, `capstan find` looks in all sets"
        raise NotFound(what=f"file in set {backup_set.id}", name=wanted, hint=hint)
    return prepared


def _of_copy(commits: Sequence[Commit], copy: int) -> list[Commit]:
    found = [commit for commit in commits if commit.copy == copy]
    if not found:
        known = ", ".join(str(number) for number in sorted({commit.copy for commit in commits}))
        raise InvalidValue(what="copy", value=str(copy), reason=f"there are {known} (0 is the original)")
    if not is_whole(found):
        raise Refused(reason=f"copy {copy} is not whole", hint="verify its cartridges, or `capstan copy` it again")
    return found


def opens(segment: Segment, identities: Sequence[Identity]) -> bool:
    """Whether a segment is not sealed, or one of the identities opens it."""
    try:
        return not segment.age_beginning or bool(SegmentOpener(segment, identities))
    except NoIdentity:
        return False


def check_drive_key(backup_set: BackupSet, identities: Sequence[Identity]) -> None:
    """IdentityNeeded for a set that its drive has encrypted, with a key that is not among `identities`."""
    held = {identity.key_id for identity in identities if isinstance(identity, DriveKey)}
    if backup_set.encryption is Encryption.DRIVE and not held.intersection(backup_set.keys):
        raise IdentityNeeded(what=f"set {backup_set.id}", keys=", ".join(backup_set.keys))


def _check_openable(piece: Piece, identities: Sequence[Identity]) -> None:
    """All segments of a set are sealed for the same recipients: one tells of all. IdentityNeeded."""
    check_drive_key(piece.backup_set, identities)
    segment = next((run.segment for visit in piece.plan.visits for run in visit.runs), None)
    if segment is not None and not opens(segment, identities):
        raise IdentityNeeded(what=f"set {piece.backup_set.id}", keys=", ".join(piece.backup_set.keys))
