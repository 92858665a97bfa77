"""Which set an incremental or differential backup builds on."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from capstan.backup.request import BackupRequest
from capstan.catalog.catalog import Catalog, Repositories
from capstan.catalog.chains import chain_of, index_chain
from capstan.catalog.copies import copies_of
from capstan.core.backup import BackupSet, SetState, SetType
from capstan.core.files import display_path
from capstan.core.mounts import MountTable
from capstan.errors import HomeDamaged, ParentMissing
from capstan.fileindex.chain import ChainSet
from capstan.fileindex.store import FileIndexStore


async def find_parent(
    catalog: Catalog, store: FileIndexStore, request: BackupRequest, roots: Sequence[bytes], host: str
) -> tuple[BackupSet | None, int, str]:
    """The newest whole set of the series that can be built on, by its number; a full one for a differential backup.

    `roots`: where the sources lead now. With the set, how many sets a restore will need then. None, and why, when there
    is none: then a full backup has to be made.
    """
    why = f"series {request.name} has no complete {'full ' if request.type is SetType.DIFFERENTIAL else ''}set"
    async with catalog.snapshot() as repositories:
        candidates = await repositories.backups.list(name=request.name, states=[SetState.COMPLETE])
        first = True
        for candidate in reversed(candidates):
            if request.type is SetType.DIFFERENTIAL and candidate.type is not SetType.FULL:
                continue
            try:
                reason = _unlike(candidate, request, roots, host)
                if not reason:
                    chain = await chain_of(repositories, candidate)
                    await _check_media(repositories, chain)
                    indexes = await index_chain(repositories, store, chain)
                    await asyncio.to_thread(_check, indexes)
                    return candidate, len(chain) + 1, ""
            except (ParentMissing, HomeDamaged) as error:
                reason = str(error)
            if first:
                why, first = f"set {candidate.id[:8]} cannot be built on: {reason}", False
    return None, 1, why


async def _check_media(repositories: Repositories, chain: Sequence[BackupSet]) -> None:
    """ParentMissing when no copy of a set of the chain lies whole on cartridges that there is no doubt of."""
    for item in chain:
        if not any(copy.whole for copy in await copies_of(repositories, item)):
            reason = "a cartridge of it is suspect, and no other copy is whole"
            raise ParentMissing(set=chain[-1].id, parent=item.id, reason=reason)


def _unlike(candidate: BackupSet, request: BackupRequest, roots: Sequence[bytes], host: str) -> str:
    """Why a set is not about the same as the request; empty when it is."""
    if candidate.host != host:
        return f"it was made on {candidate.host}"
    if sorted(candidate.sources) != sorted(display_path(path) for path in request.sources):
        return f"its sources were others: {' '.join(candidate.sources)}"
    if candidate.excludes != request.plain_excludes:
        # What only one of the two leaves out would look like something that is gone, or new.
        return f"it was made with other patterns: {' '.join(map(str, candidate.excludes)) or 'none'}"
    if candidate.one_file_system != request.one_file_system:
        return f"it was made {'with' if candidate.one_file_system else 'without'} --one-file-system"
    before = MountTable.from_plain(candidate.mounts).roots
    if before != frozenset(roots):
        led = " ".join("/" + display_path(path) for path in sorted(before))
        return f"its sources led to {led or 'nobody knows where'}"
    return ""


def _check(chain: Sequence[ChainSet]) -> None:
    """Look at each table's footer: a torn file is found here, before anything depends on it."""
    for item in chain:
        for part in item.parts:
            try:
                pq.read_metadata(part.files)
            except (OSError, pa.ArrowException) as error:
                raise HomeDamaged(path=part.files, reason=str(error).splitlines()[0]) from error
