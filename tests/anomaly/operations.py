"""The operations that the loops go through. One line in `OPERATIONS` brings another one into all of them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from harness import AheadClock
from repeatable import StillClock, repeatable, use_databases_in_line
from scene import Scene

from capstan.backup.request import BackupRequest
from capstan.bootstrap import Capstan, open_home
from capstan.core.backup import Conflicts, SetType
from capstan.core.job import JobKind, JobState
from capstan.core.media import Pool
from capstan.crypto.identities import X25519Identity
from capstan.errors import CapstanError
from capstan.jobs.context import JobContext
from capstan.recovery.select import RestoreRequest
from capstan.scsi.virtual.faults import FaultPlan

use_databases_in_line()

Work = Callable[[Capstan, Scene, JobContext], Awaitable[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Operation:
    """`work` is what a command of that name does. `prepare` changes the copied scene before it.

    `writes`: which cartridges it may write to, by a word for the promises: "tapes" all but the committed part, "new"
    only such as hold no set, "other" the one that is erased too, "" none. `restores`: the field of the scene that names
    the set it restores. `resumes`: it goes on with the job of the scene.
    """

    name: str
    kind: JobKind
    work: Work
    writes: str = ""
    restores: str = ""
    resumes: bool = False
    prepare: Callable[[Scene], None] = lambda scene: None


@dataclass(frozen=True, slots=True)
class Failure:
    """An error, as the command line tells it."""

    code: str
    message: str
    hint: str
    exit_code: int

    def __str__(self) -> str:
        return f"{self.message} [{self.code}]"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended. `told` is its result, also where it ended with an error."""

    told: dict[str, Any]
    error: Failure | None = None


def perform(
    operation: Operation, scene: Scene, faults: FaultPlan | None = None, *, repeatably: bool = False
) -> Outcome:
    """Run it as a command does: open the home, tidy up, run the job. What is no CapstanError goes up.

    `repeatably`: the same each time (see `repeatable`), and only once in a home: the same identifiers are drawn again.
    """
    clock = StillClock(scene.made_at + timedelta(hours=1)) if repeatably else AheadClock()

    async def body() -> dict[str, Any]:
        async with open_home(scene.home, clock=clock, faults=faults, sleep=lambda seconds: None) as capstan:
            await capstan.tidy()
            if operation.resumes:
                return await _resume(capstan, scene, operation)
            _, result = await capstan.jobs.run(
                operation.kind, lambda job: operation.work(capstan, scene, job), name="t", library="lib"
            )
            return result

    try:
        with repeatable() if repeatably else nullcontext():
            return Outcome(asyncio.run(body()))
    except CapstanError as error:
        return Outcome(error.result or {}, Failure(error.code, str(error), error.hint_text, error.exit_code))


# ── what the commands do ──────────────────────────────────────────────────────────────────────────────


# Whom sets are sealed for that are; always the same, so that runs can be repeated.
_SECRET = "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX"
IDENTITIES = [X25519Identity.from_text(_SECRET)]


def _back_up(name: str, kind: SetType, *, sealed: bool = False, packing: tuple[str, str] | None = None) -> Work:
    async def work(capstan: Capstan, scene: Scene, job: JobContext) -> dict[str, Any]:
        request = BackupRequest(
            (os.fsencode(scene.tree),),
            name=name,
            library="lib",
            type=kind,
            recipients=tuple(identity.recipient for identity in IDENTITIES) if sealed else (),
            parameters=capstan.parameters(*(packing or ())),
        )
        return await capstan.backup.run(request, job)

    return work


async def _back_up_twice(capstan: Capstan, scene: Scene, job: JobContext) -> dict[str, Any]:
    """To two pools in one pass; what the second one lacks then is caught up."""
    async with capstan.catalog.transaction() as catalog:
        await catalog.media.save_pool(Pool("vault", scene.made_at))
        await catalog.media.save_pool(replace(await catalog.media.get_pool("default"), copy_pool="vault"))
    request = BackupRequest((os.fsencode(scene.tree),), name="t", library="lib", parameters=capstan.parameters())
    return await capstan.back_up(request, job)


async def _go_on(capstan: Capstan, scene: Scene, job: JobContext) -> dict[str, Any]:
    return await capstan.backup.resume(BackupRequest.from_parameters(job.job.parameters), job)


async def _resume(capstan: Capstan, scene: Scene, operation: Operation) -> dict[str, Any]:
    """Go on with the job of the scene; one that is done has nothing to go on with."""
    async with capstan.catalog.snapshot() as catalog:
        job = await catalog.jobs.get(scene.job)
    if job.state is JobState.DONE:
        return dict(job.result)
    _, result = await capstan.jobs.resume(job.id, lambda running: operation.work(capstan, scene, running))
    return result


async def _restore(capstan: Capstan, scene: Scene, job: JobContext) -> dict[str, Any]:
    return await _restore_set(capstan, scene, scene.before, job)


async def _restore_chain(capstan: Capstan, scene: Scene, job: JobContext) -> dict[str, Any]:
    return await _restore_set(capstan, scene, scene.chained, job)


async def _restore_set(capstan: Capstan, scene: Scene, set_id: str, job: JobContext) -> dict[str, Any]:
    # Again over what an earlier run has left: with "skip" the directories that are there would keep their times.
    conflicts = Conflicts.OVERWRITE if scene.target.exists() else Conflicts.SKIP
    request = RestoreRequest(reference=set_id, to=scene.target, conflicts=conflicts)
    return await capstan.restore.run(request, job, IDENTITIES)


async def _copy(capstan: Capstan, scene: Scene, job: JobContext) -> dict[str, Any]:
    async with capstan.catalog.transaction() as catalog:
        await catalog.media.save_pool(Pool("vault", scene.made_at))
    return await capstan.copying.run(scene.before, job, library="lib", pool="vault")


async def _verify_set(capstan: Capstan, scene: Scene, job: JobContext) -> dict[str, Any]:
    return await capstan.verify.run_set(scene.before, job)


async def _verify_cartridge(capstan: Capstan, scene: Scene, job: JobContext) -> dict[str, Any]:
    return await capstan.verify.run_cartridge("CAP001L9", job)


async def _rebuild(capstan: Capstan, scene: Scene, job: JobContext) -> dict[str, Any]:
    return await capstan.rebuild.run("lib", job, IDENTITIES)


async def _label(capstan: Capstan, scene: Scene, job: JobContext) -> dict[str, Any]:
    cartridge = await capstan.operations.label("CAP009L9", "aside", job, overwrite=False)
    return {"barcode": cartridge.barcode}


async def _erase(capstan: Capstan, scene: Scene, job: JobContext) -> dict[str, Any]:
    result = await capstan.operations.erase("CAP003L9", job, long=False)
    for set_id in result["forgotten_sets"]:
        capstan.store.remove(set_id)
    return result


async def _import(capstan: Capstan, scene: Scene, job: JobContext) -> dict[str, Any]:
    return {"imported": await capstan.operations.import_all("lib", job)}


def _damage(scene: Scene) -> None:
    """Flip one byte of a record in the middle of the first cartridge."""
    path = scene.cartridges / "CAP001L9.tap"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def _shelve(scene: Scene) -> None:
    scene.take_out_blank()


def _without_catalog(scene: Scene) -> None:
    scene.take_out_blank()
    scene.lose_catalog()


OPERATIONS = {
    operation.name: operation
    for operation in (
        Operation("backup", JobKind.BACKUP, _back_up("t", SetType.FULL), writes="tapes"),
        Operation("archives", JobKind.BACKUP, _back_up("t", SetType.FULL, packing=("copy", "7z")), writes="tapes"),
        Operation("sealed", JobKind.BACKUP, _back_up("t", SetType.FULL, sealed=True), writes="tapes"),
        Operation("twice", JobKind.BACKUP, _back_up_twice, writes="tapes"),
        Operation("incremental", JobKind.BACKUP, _back_up("before", SetType.INCREMENTAL), writes="tapes"),
        Operation("resume", JobKind.BACKUP, _go_on, writes="tapes", resumes=True),
        Operation("restore", JobKind.RESTORE, _restore, restores="before"),
        Operation("restore-chain", JobKind.RESTORE, _restore_chain, restores="chained"),
        Operation("copy", JobKind.COPY, _copy, writes="tapes"),
        Operation("verify-set", JobKind.VERIFY, _verify_set),
        Operation("verify-cartridge", JobKind.VERIFY, _verify_cartridge),
        Operation("verify-damaged", JobKind.VERIFY, _verify_cartridge, prepare=_damage),
        Operation("rebuild", JobKind.REBUILD, _rebuild, prepare=_shelve),
        Operation("rebuild-all", JobKind.REBUILD, _rebuild, prepare=_without_catalog),
        Operation("label", JobKind.LABEL, _label, writes="new"),
        Operation("erase", JobKind.ERASE, _erase, writes="other"),
        Operation("import", JobKind.MOVE, _import),
    )
}
