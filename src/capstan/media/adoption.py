"""Takes in what a backup wrote and did not live to enter: INDEXes behind the end that the catalog knows."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from capstan.catalog.catalog import Catalog
from capstan.core.backup import BackupSet, SetState
from capstan.crypto.identities import Identity, KnownFileKey
from capstan.errors import IdentityNeeded
from capstan.fileindex.store import FileIndexStore
from capstan.format.append import FoundIndex
from capstan.format.index_reader import LockedIndex, read_index
from capstan.media.ledger import Ledger
from capstan.media.manager import MountedCartridge, stop_if_ahead

_LOST_KEY = "nothing was written; run `capstan rebuild --library NAME --identity FILE` with an identity that opens it"


class Adoption:
    """The `on_ahead` of the tape manager: a process that was killed between its filemark and its catalog entry left a
    commit point on tape that is as good as any. Only sets that this catalog began itself are taken in, and copies of
    those that it knows; anything else means that the catalog is older than the tape."""

    def __init__(self, *, catalog: Catalog, ledger: Ledger, store: FileIndexStore, spool: Path) -> None:
        self._catalog = catalog
        self._ledger = ledger
        self._store = store
        self._spool = spool

    async def take_in(self, mounted: MountedCartridge, ahead: tuple[FoundIndex, ...]) -> frozenset[str]:
        """Enter of `ahead` what is to be entered, oldest first, or raise TapeAheadOfCatalog and enter nothing.

        Returns the header digests of abandoned INDEXes: the catalog has that commit point of the set elsewhere, because
        its writer lost the answer and wrote it again on another cartridge. They were never acknowledged, and may be
        written over.
        """
        wanted, abandoned = [], set()
        for found in ahead:
            if await self._is_abandoned(found):
                abandoned.add(found.header_sha256)
            elif await self._is_ours(found):
                wanted.append(found)
            else:
                await stop_if_ahead(mounted, ahead)
        for found in wanted:
            with TemporaryDirectory(dir=self._spool) as folder:
                index = await mounted.lane.run(
                    read_index,
                    found.header.block,
                    barcode=mounted.cartridge.barcode,
                    spool=Path(folder),
                    identities=self._identities(found),
                )
                if isinstance(index, LockedIndex):
                    what = f"the commit point of set {found.header.set} at block {found.header.block}"
                    raise IdentityNeeded(what=what, keys=found.header.keys or "", hint=_LOST_KEY)
                known = await self._set(found)
                writing = known is not None and known.state is SetState.WRITING
                await self._ledger.enter(index.commit(), index.manifest, index.part(), writing=writing)
        return frozenset(abandoned)

    def _identities(self, found: FoundIndex) -> list[Identity]:
        """What opens a sealed INDEX that this home has written: its own key, which is kept until it is entered."""
        header = found.header
        key = self._store.find_key(header.set or "", header.payload_sha256 or "")
        return [] if key is None else [KnownFileKey(key)]

    async def _is_ours(self, found: FoundIndex) -> bool:
        known = await self._set(found)
        if known is None or not found.header.copy:
            return known is not None and known.state in (SetState.WRITING, SetState.INCOMPLETE)
        return known.state is not SetState.LOCKED

    async def _is_abandoned(self, found: FoundIndex) -> bool:
        if found.header.copy:
            return False  # the same segments on a further cartridge harm nobody
        async with self._catalog.snapshot() as catalog:
            commits = await catalog.backups.list_commits(set_id=found.header.set or "")
        return any(
            commit.sequence == found.header.sequence and commit.header_sha256 != found.header_sha256
            for commit in commits
        )

    async def _set(self, found: FoundIndex) -> BackupSet | None:
        async with self._catalog.snapshot() as catalog:
            return await catalog.backups.find(found.header.set or "")
