"""What pools demand, after a rebuild: by the labels of their cartridges, and by what was written to them last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from capstan.catalog.catalog import Repositories
from capstan.core.backup import Encryption
from capstan.core.media import Pool
from capstan.format.index_reader import ReadIndex
from capstan.format.label import Label
from capstan.recovery.inspection import Inspection

_LOCKED_POOL = "its newest set is locked, so that nobody knows whom it encrypts for"


@dataclass(frozen=True, slots=True)
class PoolAgain:
    """A pool of which only its tapes knew, and where what it demands now comes from."""

    pool: Pool
    text: str


async def demand_again(
    catalog: Repositories, found: Sequence[ReadIndex], inspections: Sequence[Inspection], made: Sequence[str]
) -> list[PoolAgain]:
    """Let the pools that were `made` now demand what the newest of their labels says; those, as a part of the caller's
    transaction. A pool that exists keeps what it was told, but for one that is blocked and need not be any more.

    Whom a pool encrypts for is what its newest set says, if that is encrypted, and else its label. It is blocked where
    that set is locked and the label says nothing: nothing goes out in clear by accident.
    """
    labels: dict[str, Label] = {}
    locked: dict[str, int] = {}
    for item in inspections:
        if (label := item.label) is None:
            continue
        if label.pool not in labels or labels[label.pool].labelled_at < label.labelled_at:
            labels[label.pool] = label
        for index in item.locked:
            locked[label.pool] = max(locked.get(label.pool, 0), index.header.set_number or 0)
    newest = {index.manifest.backup_set.pool: index.manifest.backup_set for index in found}  # by ascending numbers
    again = []
    for pool in await catalog.media.list_pools():
        label = labels.get(pool.name) if pool.name in made else None
        if label is None and not pool.blocked:
            continue
        last = newest.get(pool.name)
        if label is not None:
            pool = await _as_labelled(catalog, pool, label)
        by_label = label is not None and label.policy.encrypts
        if pool.name in locked and (last is None or last.number < locked[pool.name]):
            pool = replace(pool, blocked="" if by_label else _LOCKED_POOL)
        elif last is not None and (last.encryption is not Encryption.NONE or not by_label):
            drive_key = last.keys[0] if last.encryption is Encryption.DRIVE else ""
            pool = replace(pool, blocked="", recipients=last.recipients, drive_key=drive_key)
        await catalog.media.save_pool(pool)
        if label is not None:
            again.append(PoolAgain(pool, _text(pool, label)))
    return again


async def _as_labelled(catalog: Repositories, pool: Pool, label: Label) -> Pool:
    policy = label.policy
    known = policy.copy_pool and await catalog.media.find_pool(policy.copy_pool)
    return replace(
        pool,
        recipients=list(policy.recipients),
        drive_key=policy.drive_key,
        require_escrow=policy.require_escrow,
        copy_pool=policy.copy_pool if known else "",
        verify_writes=policy.verify_writes,
    )


def _text(pool: Pool, label: Label) -> str:
    text = f"pool {pool.name} was made again as it was when {label.barcode} was labelled, {label.labelled_at:%Y-%m-%d}"
    if label.policy.copy_pool and not pool.copy_pool:
        text += f"; its copy pool {label.policy.copy_pool} is not known here"
    return f"{text}; what it was told since is on no tape: look at it with `capstan pool show {pool.name}`"
