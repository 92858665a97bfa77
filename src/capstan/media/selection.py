"""Which cartridge a set is written to next: a pure rule."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from capstan.core.media import Cartridge, CartridgeState, Pool


def choose_for_writing(
    cartridges: Sequence[Cartridge], pool: Pool, *, unavailable: Collection[str] = ()
) -> Cartridge | None:
    """The cartridge to write to, of those that are in the library; None when there is none.

    First those of the pool that have room, the fullest first, so that few are begun at a time; then scratch, if
    the pool takes it. `unavailable`: barcodes in use by someone else, or that failed in this job.
    """
    usable = [item for item in cartridges if item.place and item.barcode not in unavailable]
    own = [item for item in usable if item.pool == pool.name and item.state is CartridgeState.AVAILABLE]
    if own:
        return min(own, key=lambda item: (-item.written_bytes, item.barcode))
    scratch = [item for item in usable if item.state is CartridgeState.SCRATCH and item.pool in ("", pool.name)]
    if pool.scratch and scratch:
        return min(scratch, key=lambda item: item.barcode)
    return None
