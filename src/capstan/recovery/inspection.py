"""What a cartridge holds, by its own word: its label and every INDEX, read and checked. Runs on the drive's thread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from capstan.core.backup import Commit
from capstan.core.media import CartridgeState
from capstan.crypto.identities import Identity
from capstan.errors import BlockTooLarge, Damaged, FormatError, MediumError, NotCapstanTape, PositionLost
from capstan.format.header import Kind
from capstan.format.index_reader import LockedIndex, ReadIndex, read_index
from capstan.format.label import Label, read_label
from capstan.format.scan import IndexPlace, find_indexes, scan_tape
from capstan.recovery.report import Trouble
from capstan.tape.drive import TapeDrive


@dataclass(slots=True)
class Inspection:
    """`state` and `reason` say what the cartridge is for us. `label_end` is the block behind the label's filemark;
    `full`: the drive has given its early warning at the end of data. `locked`: INDEXes that are whole and that none of
    the identities opens."""

    barcode: str
    state: CartridgeState
    reason: str = ""
    label: Label | None = None
    label_end: int = 0
    indexes: list[ReadIndex] = field(default_factory=list)
    locked: list[LockedIndex] = field(default_factory=list)
    troubles: list[Trouble] = field(default_factory=list)
    full: bool = False

    def is_damaged(self, commit: Commit) -> bool:
        """Whether the INDEX of `commit` is there and cannot be read."""
        return any(commit.block <= trouble.block < commit.end_block for trouble in self.troubles)

    @property
    def last(self) -> ReadIndex | LockedIndex | None:
        """The INDEX behind which nothing more was committed."""
        found: list[ReadIndex | LockedIndex] = [*self.indexes, *self.locked]
        return max(found, key=lambda index: index.header.block, default=None)


def inspect_cartridge(drive: TapeDrive, barcode: str, spool: Path, identities: Sequence[Identity] = ()) -> Inspection:
    """Read the label and every INDEX; the INDEXes' tables lie in `spool` afterwards.

    Never raises for what is on the tape: a blank cartridge is SCRATCH, another program's is FOREIGN, one whose label
    cannot be read or names another barcode is SUSPECT. Raises what a drive raises that fails itself: that says nothing
    of the cartridge.
    """
    try:
        label = _read_label(drive, barcode)
    except NotCapstanTape as error:
        found = str(error.parameters.get("found"))
        state = CartridgeState.SCRATCH if found == "blank" else CartridgeState.FOREIGN
        return Inspection(barcode, state, found)
    except (FormatError, MediumError, BlockTooLarge) as error:
        return Inspection(barcode, CartridgeState.SUSPECT, str(error))
    if label.barcode != barcode:
        return Inspection(barcode, CartridgeState.SUSPECT, f"its label says that it is {label.barcode}", label)
    inspection = Inspection(barcode, CartridgeState.AVAILABLE, label=label, label_end=drive.position().block)
    read_indexes(drive, inspection, spool, identities)
    inspection.full = drive.seek_end_of_data().early_warning
    return inspection


def _read_label(drive: TapeDrive, barcode: str) -> Label:
    try:
        return read_label(drive, barcode=barcode)
    except PositionLost:  # by something that is only heard of now; it begins with REWIND
        return read_label(drive, barcode=barcode)


def read_indexes(drive: TapeDrive, inspection: Inspection, spool: Path, identities: Sequence[Identity] = ()) -> None:
    """Read every INDEX of a labelled cartridge into `inspection`, and check both chains."""
    label, barcode = inspection.label, inspection.barcode
    assert label is not None
    places: dict[int, IndexPlace] = {}
    unreadable: dict[int, str] = {}
    for by_links in (True, False):
        found = find_indexes(drive, barcode, label.uuid, by_links=by_links)
        unreadable |= found.unreadable
        for place in found.places:
            if place.block not in places:
                places[place.block] = place
                _read_one(drive, place, inspection, spool, identities)
        if not inspection.troubles:
            break  # else its links may lead past others
    inspection.indexes.sort(key=lambda index: index.header.block)
    _check_chain([places[block] for block in sorted(places)], inspection)
    inspection.troubles += [Trouble(barcode, block, what) for block, what in sorted(unreadable.items())]
    inspection.troubles.sort(key=lambda trouble: trouble.block)


def _read_one(
    drive: TapeDrive, place: IndexPlace, inspection: Inspection, spool: Path, identities: Sequence[Identity]
) -> None:
    """Read the INDEX at a place, as it is: whole, locked, or damaged."""
    barcode = inspection.barcode
    try:
        folder = spool / f"{barcode}-{place.block}"
        index = read_index(drive, place.block, barcode=barcode, spool=folder, identities=identities)
    except Damaged as error:
        inspection.troubles.append(_trouble(error))
        return
    if isinstance(index, LockedIndex):
        inspection.locked.append(index)
        return
    commits = index.manifest.commits
    expected = commits[-1].header_sha256 if commits else ""
    if index.header.set_previous_index_sha256 != expected:
        what = "it does not follow the INDEX that its manifest names as the one before"
        inspection.troubles.append(Trouble(barcode, place.block, what))
    inspection.indexes.append(index)


def check_headers(drive: TapeDrive, inspection: Inspection) -> None:
    """Read the header record of every tape file that an INDEX should claim or be; name what is damaged or unclaimed.

    Torn tape files behind the last INDEX were never acknowledged, and are passed over.
    """
    barcode = inspection.barcode
    last = inspection.last.header.block if inspection.last else -1
    locked = {index.header.set for index in inspection.locked}
    claimed = {s.block for i in inspection.indexes for s in i.manifest.segments if s.barcode == barcode}
    torn = {number for index in inspection.indexes for number in index.manifest.torn}
    named = {trouble.block for trouble in inspection.troubles}
    for found in scan_tape(drive, barcode, headers_only=True):
        if found.block > last and inspection.last:
            return
        if found.number == 0 or found.number in torn or found.block in named:
            continue
        kind = found.header.kind if found.header else None
        if kind is None and found.block not in claimed:  # a claimed segment's header is read with its payload
            inspection.troubles.append(Trouble(barcode, found.block, found.trouble or "there is no header record"))
        elif found.header and found.header.set in locked:
            continue  # which segments it claims is sealed
        elif kind is Kind.SEGMENT and found.block not in claimed:
            inspection.troubles.append(Trouble(barcode, found.block, "no INDEX claims this segment"))


def _check_chain(places: list[IndexPlace], inspection: Inspection) -> None:
    """Every INDEX names the one before it on its cartridge; the first names none."""
    before: IndexPlace | None = None
    for place in places:
        expected = (before.block, before.header_sha256) if before else (-1, "")
        found = (place.header.previous_index_block, place.header.previous_index_sha256)
        if found != expected:
            what = f"the INDEX before it should be at block {found[0]} and cannot be read there"
            inspection.troubles.append(Trouble(inspection.barcode, place.block, what))
        before = place


def _trouble(error: Damaged) -> Trouble:
    return Trouble(str(error.parameters["barcode"]), int(error.parameters["block"]), str(error.parameters["what"]))
