"""The copies of a set: which there are, on which cartridges, and which are whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from capstan.catalog.catalog import Repositories
from capstan.core.backup import BackupSet, Commit
from capstan.core.coverage import is_whole
from capstan.core.media import Cartridge, CartridgeState


@dataclass(frozen=True, slots=True)
class CopyFacts:
    """One copy of a set; `copy` 0 is what the backup wrote. `commits` are all of it, `good` those on cartridges that
    there is no doubt of. `cartridges` are in the order of the stream."""

    copy: int
    commits: tuple[Commit, ...]
    good: tuple[Commit, ...]
    cartridges: tuple[Cartridge, ...]

    @property
    def whole(self) -> bool:
        """Whether all of the set is there, on cartridges that there is no doubt of."""
        return is_whole(self.good)

    def is_in(self, pool: str) -> bool:
        """Whether it is a copy that was made to that pool."""
        return self.copy > 0 and any(cartridge.pool == pool for cartridge in self.cartridges)

    def as_dict(self) -> dict[str, object]:
        """For `sets` and `set show`, JSON-safe."""
        return {
            "copy": self.copy,
            "whole": self.whole,
            "cartridges": [
                {"barcode": item.barcode, "library": item.library, "place": item.place, "state": item.state.value}
                for item in self.cartridges
            ],
        }


def is_suspect(cartridge: Cartridge) -> bool:
    """Whether there is a reason to doubt what is on a cartridge."""
    return cartridge.state is CartridgeState.SUSPECT or cartridge.verify_result.startswith("damaged")


async def copies_of(catalog: Repositories, backup_set: BackupSet) -> list[CopyFacts]:
    """Every copy of a set that is known, the original first if anything is left of it."""
    commits = [
        *await catalog.backups.list_commits(set_id=backup_set.id),
        *await catalog.backups.list_copies(backup_set.id),
    ]
    known: dict[str, Cartridge | None] = {}
    for commit in commits:
        if commit.cartridge not in known:
            known[commit.cartridge] = await catalog.media.find_by_uuid(commit.cartridge)
    return [
        _facts(copy, [commit for commit in commits if commit.copy == copy], known)
        for copy in sorted({commit.copy for commit in commits})
    ]


def _facts(copy: int, commits: Sequence[Commit], known: dict[str, Cartridge | None]) -> CopyFacts:
    there = {uuid: found for uuid in dict.fromkeys(commit.cartridge for commit in commits) if (found := known[uuid])}
    good = [commit for commit in commits if commit.cartridge in there and not is_suspect(there[commit.cartridge])]
    return CopyFacts(copy, tuple(commits), tuple(good), tuple(there.values()))
