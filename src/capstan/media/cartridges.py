"""What a cartridge is to the catalog: its state, its pool, its label."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from capstan import __version__
from capstan.catalog.catalog import Catalog
from capstan.clock import Clock
from capstan.core.ids import new_uuid
from capstan.core.job import JobReporter
from capstan.core.media import Cartridge, CartridgeState, Pool, PoolPolicy
from capstan.errors import Damaged, DeviceError, NotCapstanTape, TapeAheadOfCatalog
from capstan.format.label import Label, read_label, write_label
from capstan.media.lane import DriveLane
from capstan.tape.cartridge_memory import label_attributes
from capstan.tape.drive import TapeDrive

DEFAULT_POOL = "default"
LABELLING = "its label is being written"


@dataclass(frozen=True, slots=True)
class Cartridges:
    """The cartridges and pools of a catalog. What concerns a medium is given the lane of the drive that it is in."""

    catalog: Catalog
    clock: Clock
    record_bytes: int

    async def pool(self, name: str) -> Pool:
        """The pool of that name; `default` is made when it is first asked for."""
        async with self.catalog.transaction() as catalog:
            found = await catalog.media.find_pool(name)
            if found is None and name == DEFAULT_POOL:
                found = Pool(name, self.clock.now(), description="what has no other pool")
                await catalog.media.add_pool(found)
            return found or await catalog.media.get_pool(name)

    async def mark(
        self, barcode: str, state: CartridgeState, reason: str, *, was: Sequence[CartridgeState] = tuple(CartridgeState)
    ) -> None:
        """Note what became of a cartridge, if it is in one of the states `was`."""
        async with self.catalog.transaction() as catalog:
            cartridge = await catalog.media.get(barcode)
            if cartridge.state in was:
                await catalog.media.save(replace(cartridge, state=state, reason=reason))

    async def mark_full(self, barcode: str) -> None:
        """The drive has said that the tape ends, or will soon."""
        await self.mark(barcode, CartridgeState.FULL, "the end of the tape was reached")

    async def relabel(self, lane: DriveLane, cartridge: Cartridge, pool: str) -> Cartridge:
        """Write a new label: everything that was on the cartridge is gone. Returns its new row.

        The new UUID is in the catalog before it is on the tape, so that a label is known for ours whenever we die.
        """
        policy = (await self.pool(pool)).policy if pool else PoolPolicy()
        size, now = self.record_bytes, self.clock.now()
        label = Label(new_uuid(), cartridge.barcode, pool, now, record_bytes=size, policy=policy)
        async with self.catalog.transaction() as catalog:
            known = await catalog.media.get(cartridge.barcode)  # its place may have changed since
            before = replace(known, uuid=label.uuid, state=CartridgeState.SCRATCH, reason=LABELLING)
            before.loads = cartridge.loads
            if cartridge.uuid:
                await catalog.backups.remove_commits(cartridge.uuid)
            await catalog.media.save(before)
        written = await lane.run(write_label, label)
        await lane.run(_remember, label)
        after = replace(
            before,
            state=CartridgeState.AVAILABLE if pool else CartridgeState.SCRATCH,
            reason="",
            pool=pool,
            record_bytes=label.record_bytes,
            end_block=written.end_block,
            tape_files=written.tape_files,
            index_block=-1,
            index_sha256="",
            written_bytes=0,
            labelled_at=label.labelled_at,
        )
        async with self.catalog.transaction() as catalog:
            await catalog.media.save(after)
        return after

    async def is_scratch(self, lane: DriveLane, cartridge: Cartridge, context: JobReporter) -> bool:
        """Whether a cartridge that the catalog calls scratch may be written over: it is blank, or holds the very label
        that the catalog knows. Somebody else's is marked foreign; one of ours that is unknown stops everything: this
        catalog is older than the tape."""
        try:
            label = await lane.run(read_label, barcode=cartridge.barcode)
        except NotCapstanTape as error:
            if error.parameters["found"] == "blank" or cartridge.reason == LABELLING:
                return True
            await self.mark(cartridge.barcode, CartridgeState.FOREIGN, str(error))
            await context.warning("foreign-cartridge", detail=str(error))
            return False
        except Damaged:
            if cartridge.reason == LABELLING:
                return True
            raise
        if label.uuid == cartridge.uuid:
            return True
        raise TapeAheadOfCatalog(barcode=cartridge.barcode, block=0)


def _remember(drive: TapeDrive, label: Label) -> None:
    """Say in the cartridge's own memory whose it is, where it has one. The label is what counts: without this it is as
    good, and what the drive is losing, it says at the next command."""
    if drive.capabilities.attributes:
        with suppress(DeviceError):
            drive.write_attributes(label_attributes(barcode=label.barcode, pool=label.pool, version=__version__))
