"""Takes in what a backup wrote and did not live to enter: INDEXes behind the end that the catalog knows."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from capstan.catalog.catalog import Catalog
from capstan.catalog.chains import all_commits
from capstan.core.backup import BackupSet, SetState
from capstan.core.history import History, history_of
from capstan.crypto.identities import Identity, KnownFileKey
from capstan.errors import IdentityNeeded
from capstan.fileindex.store import FileIndexStore
from capstan.format.append import FoundIndex
from capstan.format.index_reader import LockedIndex, read_index
from capstan.format.spooling import spooling
from capstan.media.ledger import Ledger
from capstan.media.manager import MountedCartridge, stop_if_ahead

_LOST_KEY = "nothing was written; run `capstan rebuild --library NAME --identity FILE` with an identity that opens it"


class Adoption:
    """The `on_ahead` of the tape manager: a process that was killed between its filemark and its catalog entry left a
    commit point on tape that is as good as any. Only what follows from what the catalog knows of its set is taken in;
    anything else means that the catalog is older than the tape."""

    def __init__(self, *, catalog: Catalog, ledger: Ledger, store: FileIndexStore, spool: Path) -> None:
        self._catalog = catalog
        self._ledger = ledger
        self._store = store
        self._spool = spool

    async def take_in(self, mounted: MountedCartridge, ahead: tuple[FoundIndex, ...]) -> frozenset[str]:
        """Enter of `ahead` what is to be entered, oldest first, or raise TapeAheadOfCatalog and enter nothing.

        Returns the header digests of abandoned INDEXes: the catalog has that commit point of the set elsewhere, because
        its writer, in this home, lost the answer and wrote it again on another cartridge. They were never acknowledged,
        and may be written over.
        """
        wanted, abandoned = [], set()
        expected: dict[str, dict[int, str]] = {}  # history of each set, with what is to be entered
        for found in ahead:
            history = expected.setdefault(found.header.set or "", await self._history(found))
            if await self._set(found) is not None and _follows(found, history):
                wanted.append(found)
                history.setdefault(found.header.sequence or 0, _interval(found))
            elif self._is_announced(found) and not found.header.copy and (found.header.sequence or 0) in history:
                abandoned.add(found.header_sha256)
            else:
                await stop_if_ahead(mounted, ahead)
        for found in wanted:
            with spooling(self._spool), TemporaryDirectory(dir=self._spool) as folder:
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

    def _is_announced(self, found: FoundIndex) -> bool:
        return self._store.announced(found.header.set or "", found.header_sha256) is not None

    def _identities(self, found: FoundIndex) -> list[Identity]:
        """What opens a sealed INDEX that this home has written: its own key, which is kept until it is entered."""
        key = self._store.announced(found.header.set or "", found.header_sha256)
        return [KnownFileKey(key)] if key else []

    async def _history(self, found: FoundIndex) -> dict[int, str]:
        """What the catalog knows of the history of its set."""
        async with self._catalog.snapshot() as catalog:
            return history_of(await all_commits(catalog, found.header.set or ""))

    async def _set(self, found: FoundIndex) -> BackupSet | None:
        async with self._catalog.snapshot() as catalog:
            return await catalog.backups.find(found.header.set or "")


def _interval(found: FoundIndex) -> str:
    return (found.header.original_index_sha256 if found.header.copy else found.header_sha256) or ""


def _follows(found: FoundIndex, history: History) -> bool:
    """Whether it is the next INDEX of the set, or one of a copy of what is known."""
    header = found.header
    sequence = header.sequence or 0
    if header.copy:
        return history.get(sequence) == header.original_index_sha256
    return sequence not in history and history.get(sequence - 1, "") == header.set_previous_index_sha256
