"""`capstan jobs` and `job`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

import typer

from capstan.cli.identities import (
    GivenIdentities,
    IdentityFiles,
    IdentityPassphraseFd,
    IdentityPassphraseFile,
    KeyFile,
    PassphraseFd,
    PassphraseFile,
)
from capstan.cli.state import state

if TYPE_CHECKING:
    from capstan.bootstrap import Capstan
    from capstan.core.job import Job

job_app = typer.Typer(help="One job: what it does, how to stop it, how to go on with it.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("jobs")(list_jobs)
    app.add_typer(job_app, name="job")


def list_jobs(context: typer.Context, limit: int = typer.Option(20, min=1, max=10**9, help="How many.")) -> None:
    """The newest jobs first."""
    from capstan.cli.session import with_home

    async def work(capstan: Capstan) -> list[Job]:
        async with capstan.catalog.snapshot() as catalog:
            found = list(await catalog.jobs.list(limit=limit))
        return [_as_it_is(capstan, job) for job in found]

    found = with_home(state(context), work)
    rows = [
        (job.id, job.kind.value, job.name, job.state.value, job.phase, _local(job), job.warning_count) for job in found
    ]
    columns = ("JOB", "KIND", "NAME", "STATE", "PHASE", "CREATED", "WARNINGS")
    output = state(context).output
    output.table([_job(job) for job in found], columns, rows, "no jobs yet")
    if not output.json_mode and any(job.resumable for job in found):
        output.note("what ended early goes on with `capstan job resume JOB`")


@job_app.command("show")
def show(context: typer.Context, job_id: str) -> None:
    """Everything about one job, with its events."""
    from capstan.cli.session import with_home

    async def work(capstan: Capstan) -> dict[str, Any]:
        async with capstan.catalog.snapshot() as catalog:
            job = _as_it_is(capstan, await catalog.jobs.get(job_id))
            events = await catalog.events.list(job_id=job.id)
        told = [{"at": event.at, "kind": event.kind, **event.data} for event in events]
        return {**_job(job), "events": told}

    found = with_home(state(context), work)
    lines = [f"{key.replace('_', ' ')}: {value}" for key, value in found.items() if value not in ("", {}, None, [])]
    lines = [line for line in lines if not line.startswith("events:")]
    for event in found["events"]:
        rest = " ".join(f"{key}={value}" for key, value in event.items() if key not in ("at", "kind"))
        lines.append(f"  {event['at'].astimezone():%H:%M:%S} {event['kind']} {rest}")
    state(context).output.result(found, "\n".join(lines))


@job_app.command("warnings")
def warnings(
    context: typer.Context,
    job_id: str,
    code: str = typer.Option("", help="Only those with this code."),
    limit: int = typer.Option(0, min=0, max=10**9, help="Stop after so many; 0: all."),
) -> None:
    """The warnings of one job, in the order told; of a running job those that are written down."""
    from itertools import islice

    from capstan.cli.session import with_home

    async def work(capstan: Capstan) -> tuple[Job, Iterator[dict[str, Any]]]:
        async with capstan.catalog.snapshot() as catalog:
            job = await catalog.jobs.get(job_id)
        return job, capstan.jobs.warnings(job.id, code or None)

    output = state(context).output
    job, every = with_home(state(context), work)
    found = islice(every, limit or None)
    if output.json_mode:
        output.array(found)
        return
    none = True
    for item in found:
        none = False
        at = datetime.fromisoformat(item["at"]).astimezone()
        parts = (f"{at:%Y-%m-%d %H:%M:%S}", f"{item['code']:12}", item.get("path"), item.get("detail"))
        print("  ".join(filter(None, parts)))
    if none:
        codes = ", ".join((job.result or job.progress).get("warning_codes", {})) or "none"
        print(f"no warnings; codes of this job: {codes}")


@job_app.command("cancel")
def cancel(context: typer.Context, job_id: str) -> None:
    """Ask a running job to stop: what it has committed to tape stays."""
    from capstan.cli.session import with_home

    async def work(capstan: Capstan) -> Job:
        await capstan.jobs.reap()
        async with capstan.catalog.transaction() as catalog:
            return await catalog.jobs.request_cancel(job_id)

    job = with_home(state(context), work)
    state(context).output.result(_job(job), f"job {job.id} was asked to stop")


@job_app.command("resume")
def resume(
    context: typer.Context,
    job_id: str,
    identity: IdentityFiles = None,
    identity_passphrase_file: IdentityPassphraseFile = None,
    identity_passphrase_fd: IdentityPassphraseFd = None,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    key_file: KeyFile = None,
) -> None:
    """Go on with a backup or a restore that was cancelled, failed or interrupted, where it ended."""
    from capstan.backup.request import BackupRequest
    from capstan.cli.backup import summary
    from capstan.cli.recovery import restored, shown
    from capstan.cli.session import with_home
    from capstan.core.job import JobKind
    from capstan.core.sizes import format_duration
    from capstan.errors import Refused
    from capstan.recovery.select import RestoreRequest

    current = state(context)
    kinds: list[JobKind] = []
    given = GivenIdentities(
        identity, identity_passphrase_file, identity_passphrase_fd, passphrase_file, passphrase_fd, key_file
    )

    async def body(capstan: Capstan) -> dict[str, Any]:
        async with capstan.catalog.snapshot() as catalog:
            job = await catalog.jobs.get(job_id)
        kinds.append(job.kind)
        if job.kind is JobKind.BACKUP:
            wanted = BackupRequest.from_parameters(job.parameters)
            needed = await capstan.keys_to_write(wanted.pool)
            opening = given.load(current, needed) if needed and not wanted.recipients else []
            _, result = await capstan.jobs.resume(
                job.id, lambda running: capstan.back_up(wanted, running, opening, resume=True)
            )
        elif job.kind is JobKind.RESTORE:
            request = RestoreRequest.from_parameters(job.parameters)
            parents = not request.only_this_set
            opening = given.load(current, await capstan.keys_of(job.set_id or request.reference, with_parents=parents))
            _, result = await capstan.jobs.resume(
                job.id, lambda running: capstan.restore.resume(request, running, opening)
            )
        else:
            reason = f"job {job.id} is neither a backup nor a restore: it is a {job.kind.value}"
            raise Refused(reason=reason, hint="run its command again")
        return result

    result = shown(current, lambda: with_home(current, body, writing=True))
    if kinds == [JobKind.BACKUP]:
        text = f"{summary(result)}; its rest in {format_duration(result['seconds'])}"
    else:
        text = restored(result)
    current.output.result(result, text)


def _as_it_is(capstan: Capstan, job: Job) -> Job:
    """A job whose process is gone is shown as interrupted, also before anyone has written that down."""
    from capstan.core.job import JobState

    if not job.ended and not capstan.jobs.is_alive(job):
        job.state = JobState.INTERRUPTED
    return job


def _job(job: Job) -> dict[str, Any]:
    value = asdict(job)
    value["job_id"] = value.pop("id")
    value["hint"] = f"`capstan job resume {job.id}` goes on where it ended" if job.resumable else ""
    return value


def _local(job: Job) -> str:
    return f"{job.created_at.astimezone():%Y-%m-%d %H:%M:%S}"
