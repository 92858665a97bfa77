"""Makes copies of sets: from whatever copies can be read, to the cartridges of a pool.

What a copy lacks is looked up in the catalog before each mount. So a cancelled job, a killed process, a full cartridge
and a lost one are one case: the next run copies what is not there. The original is never changed.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from capstan.catalog.catalog import Catalog
from capstan.catalog.copies import copies_of
from capstan.clock import Clock
from capstan.core.backup import BackupSet, SetState
from capstan.core.pool_rules import check_copyable
from capstan.errors import (
    CapstanError,
    CopyIncomplete,
    IdentityNeeded,
    InvalidValue,
    JobCancelled,
    Refused,
)
from capstan.fileindex.store import FileIndexStore
from capstan.format.spooling import spooling
from capstan.jobs.context import JobContext
from capstan.media.ledger import Ledger
from capstan.media.manager import TapeManager
from capstan.recovery.copy_run import CopyRun
from capstan.recovery.engine import stopwatch
from capstan.recovery.select import resolve_set
from capstan.recovery.verify import VerifyEngine

_UNLOCK = "run `capstan rebuild --library NAME --identity FILE` with an identity that opens it"


_WHOLE_FIRST = "a set is copied when it is whole: `capstan job resume` goes on with one that ended early"


class CopyEngine:
    """One for a process; `run` may be called for several jobs at once. `proven_keys`: as of `backup.register`."""

    def __init__(
        self,
        *,
        verify: VerifyEngine,
        catalog: Catalog,
        manager: TapeManager,
        ledger: Ledger,
        store: FileIndexStore,
        clock: Clock,
        spool: Path,
        proven_keys: Callable[[], set[str]] = set,
    ) -> None:
        self._verify = verify
        self._catalog = catalog
        self._manager = manager
        self._ledger = ledger
        self._store = store
        self._clock = clock
        self._spool = spool
        self._proven_keys = proven_keys

    async def run(
        self, reference: str, context: JobContext, *, library: str, pool: str = "", same_pass: int = 0
    ) -> dict[str, Any]:
        """Copy what the copy of a set in `pool` (by default its pool's copy pool) lacks, to cartridges in `library`.

        What was committed stays, whatever happens, and running it again goes on behind it. Refused for a set that is
        not whole, IdentityNeeded for a locked one. Segments that can be read nowhere are passed over, and
        CopyIncomplete is raised at the end, with the result.

        A copy of which this job has written something (`same_pass`: how many segments beside what is copied here) is
        read again where its pool verifies writes; VerificationFailed.
        """
        elapsed = stopwatch(self._clock)
        await context.phase("search")
        async with self._catalog.snapshot() as catalog:
            backup_set = await resolve_set(catalog, reference)
        pool = await self._check(backup_set, pool)
        await context.set_created(backup_set.id)
        spool = self._spool / f"copy-{context.job_id}"
        run = CopyRun(
            backup_set,
            context,
            catalog=self._catalog,
            manager=self._manager,
            ledger=self._ledger,
            store=self._store,
            clock=self._clock,
            spool=spool,
            library=library,
            pool=pool,
        )
        try:
            with spooling(spool):
                await asyncio.to_thread(spool.mkdir, parents=True, exist_ok=True)
            await run.run()
        finally:
            await run.close()
            await asyncio.to_thread(shutil.rmtree, spool, ignore_errors=True)
        result = {**await self._result(backup_set, run, pool, elapsed()), "segments_in_same_pass": same_pass}
        async with self._catalog.snapshot() as catalog:
            verified = (await catalog.media.get_pool(pool)).verify_writes
        if verified and result["whole"] and (run.segments or same_pass):
            result["verification"] = await self._verify.run_written(
                backup_set.id, result["copy"], context, library=library
            )
        return result

    async def after_backup(self, result: dict[str, Any], context: JobContext, *, library: str) -> dict[str, Any]:
        """Copy what the copy of a set that a backup has made still lacks, if its pool wants one; the result of both.
        What goes wrong with the copy is a warning: the set is whole without it."""
        async with self._catalog.snapshot() as catalog:
            backup_set = await catalog.backups.get(result["set_id"])
            pool = await catalog.media.find_pool(backup_set.pool)
        same_pass = result.pop("segments_in_same_pass", 0)
        if pool is None or not pool.copy_pool or backup_set.state is not SetState.COMPLETE:
            return result
        try:
            copied = await self.run(backup_set.id, context, library=library, pool=pool.copy_pool, same_pass=same_pass)
        except CapstanError as error:
            hint = "`capstan copy --missing` catches up"
            await context.warning("copy-missed", detail=f"the set is whole, but not copied: {error}; {hint}")
            return {**result, "copies": []}
        return {**result, "copies": [copied]}

    async def run_missing(self, context: JobContext, *, library: str, pool: str = "") -> dict[str, Any]:
        """Copy every whole set that lacks the copy that its pool demands; `pool`: only those to be copied to it.

        One that fails does not keep the others from being copied; the first error is raised at the end, with the
        result in `result`.
        """
        copied: list[dict[str, Any]] = []
        failed: list[dict[str, Any]] = []
        first: CapstanError | None = None
        for set_id, wanted in await self.list_missing(pool):
            try:
                copied.append(await self.run(set_id, context, library=library, pool=wanted))
            except JobCancelled:
                raise
            except CapstanError as error:
                first = first or error
                failed.append({"set_id": set_id, "pool": wanted, "error": error.as_dict()})
                await context.warning("copy-missed", detail=f"set {set_id[:8]}: {error}")
        result = {"copied": copied, "failed": failed}
        if first is not None:
            first.result = result
            raise first
        return result

    async def list_missing(self, pool: str = "") -> list[tuple[str, str]]:
        """The sets that lack the copy that their pool demands, each with the pool that it is to be copied to."""
        async with self._catalog.snapshot() as catalog:
            if pool:
                await catalog.media.get_pool(pool)
            wanted = {item.name: item.copy_pool for item in await catalog.media.list_pools() if item.copy_pool}
            found = []
            for backup_set in await catalog.backups.list(states=[SetState.COMPLETE]):
                target = wanted.get(backup_set.pool, "")
                if not target or pool not in ("", target):
                    continue
                copies = await copies_of(catalog, backup_set)
                if not any(copy.whole and copy.is_in(target) for copy in copies):
                    found.append((backup_set.id, target))
        return found

    async def _check(self, backup_set: BackupSet, pool: str) -> str:
        if backup_set.state is SetState.LOCKED:
            raise IdentityNeeded(what=f"set {backup_set.id}", keys=", ".join(backup_set.keys), hint=_UNLOCK)
        if backup_set.state is not SetState.COMPLETE:
            lacks = f", and lacks {', '.join(backup_set.missing)}" if backup_set.missing else ""
            reason = f"set {backup_set.id[:8]} is {backup_set.state.value}{lacks}"
            raise Refused(reason=reason, hint=_WHOLE_FIRST)
        async with self._catalog.snapshot() as catalog:
            if not pool:
                own = await catalog.media.find_pool(backup_set.pool)
                pool = own.copy_pool if own else ""
            if not pool:
                reason = f"pool {backup_set.pool} has no copy pool; say where the copy shall be with --pool"
                raise InvalidValue(what="pool", value="", reason=reason)
            target = await catalog.media.get_pool(pool)
        check_copyable(target, backup_set, self._proven_keys)
        return pool

    async def _result(self, backup_set: BackupSet, run: CopyRun, pool: str, seconds: float) -> dict[str, Any]:
        async with self._catalog.snapshot() as catalog:
            copies = await copies_of(catalog, backup_set)
        made = next((copy for copy in copies if copy.is_in(pool)), None)
        result = {
            "set_id": backup_set.id,
            "name": backup_set.name,
            "pool": pool,
            **(made.as_dict() if made else {"copy": 0, "whole": False, "cartridges": []}),
            "segments_copied": run.segments,
            "bytes_copied": run.bytes,
            "seconds": round(seconds, 3),
        }
        lost: Sequence[str] = list(run.lost.values())
        if lost:
            error = CopyIncomplete(set=backup_set.id, count=len(lost), first=lost[0])
            error.result = result
            raise error
        return result
