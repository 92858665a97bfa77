"""Takes in what a backup wrote and did not live to enter: INDEXes behind the end that the catalog knows."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from capstan.catalog.catalog import Catalog
from capstan.core.backup import SetState
from capstan.fileindex.store import IndexPart
from capstan.format.append import FoundIndex
from capstan.format.index_reader import read_index
from capstan.media.ledger import Ledger
from capstan.media.manager import MountedCartridge, stop_if_ahead


class Adoption:
    """The `on_ahead` of the tape manager: a process that was killed between its filemark and its catalog entry left a
    commit point on tape that is as good as any. Only sets that this catalog began itself are taken in; anything else
    means that the catalog is older than the tape."""

    def __init__(self, *, catalog: Catalog, ledger: Ledger, spool: Path) -> None:
        self._catalog = catalog
        self._ledger = ledger
        self._spool = spool

    async def take_in(self, mounted: MountedCartridge, ahead: tuple[FoundIndex, ...]) -> None:
        """Enter all of `ahead`, oldest first, or raise TapeAheadOfCatalog and enter none."""
        async with self._catalog.snapshot() as catalog:
            for found in ahead:
                known = await catalog.backups.find(found.header.set or "")
                if known is None or known.state not in (SetState.WRITING, SetState.INCOMPLETE):
                    await stop_if_ahead(mounted, ahead)
        for found in ahead:
            with TemporaryDirectory(dir=self._spool) as folder:
                index = await mounted.lane.run(
                    read_index, found.header.block, barcode=mounted.cartridge.barcode, spool=Path(folder)
                )
                part = IndexPart(index.manifest.sequence, index.files, index.frames, index.records)
                await self._ledger.enter(index.commit(), index.manifest, part, writing=False)
