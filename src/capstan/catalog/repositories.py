"""Jobs, events and settings in SQL."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, cast

from sqlalchemy import CursorResult, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from capstan.catalog.mapping import to_columns, to_value
from capstan.core.job import Event, Job, JobKind, JobState, may_follow
from capstan.errors import AlreadyExists, Conflict, InvalidValue, NotFound, Refused
from capstan.models.rows import EventRow, JobRow, SettingRow

_MIN_JOB_PREFIX = 2
_JOB_ID_LENGTH = 16
_LIVE = (JobState.CREATED, JobState.RUNNING)


class SqlJobRepository:
    """Implements `catalog.JobRepository`."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def add(self, job: Job) -> None:
        if await self._session.get(JobRow, job.id) is not None:
            raise AlreadyExists(what="job", name=job.id)
        self._session.add(JobRow(**to_columns(job, JobRow)))
        await self._session.flush()

    async def get(self, job_id: str) -> Job:
        row = await self._session.get(JobRow, job_id)
        if row is not None:
            return _job(row)
        if not _MIN_JOB_PREFIX <= len(job_id) <= _JOB_ID_LENGTH:
            raise NotFound(what="job", name=job_id, hint="`capstan jobs` lists the newest")
        query = select(JobRow).where(JobRow.id.startswith(job_id.lower(), autoescape=True)).limit(2)
        found = (await self._session.scalars(query)).all()
        if not found:
            raise NotFound(what="job", name=job_id, hint="`capstan jobs` lists the newest")
        if len(found) > 1:
            raise InvalidValue(what="job", value=job_id, reason="more than one job begins with it")
        return _job(found[0])

    async def list(
        self, *, states: Sequence[JobState] = (), limit: int = 100, before: datetime | None = None
    ) -> Sequence[Job]:
        query = select(JobRow).order_by(JobRow.created_at.desc(), JobRow.id.desc()).limit(limit)
        if states:
            query = query.where(JobRow.state.in_([state.value for state in states]))
        if before is not None:
            query = query.where(JobRow.created_at < before)
        return [_job(row) for row in await self._session.scalars(query)]

    async def replace(self, job: Job, *, was: JobState) -> None:
        if job.state is not was and not may_follow(was, job.state):
            raise Conflict(what="job", name=job.id, reason=f"from {was.value} it cannot become {job.state.value}")
        columns = to_columns(job, JobRow)
        del columns["id"], columns["cancel_requested"]
        if was not in _LIVE and job.state in _LIVE:
            columns["cancel_requested"] = False
        statement = update(JobRow).where(JobRow.id == job.id, JobRow.state == was.value).values(**columns)
        result = cast(CursorResult[Any], await self._session.execute(statement))
        if result.rowcount != 1:
            raise Conflict(what="job", name=job.id, reason=f"it is no longer {was.value}")

    async def request_cancel(self, job_id: str) -> Job:
        job = await self.get(job_id)
        if job.ended:
            raise Refused(reason=f"job {job.id} has ended: it is {job.state.value}", hint="there is nothing to stop")
        live = JobRow.state.in_([state.value for state in _LIVE])
        statement = update(JobRow).where(JobRow.id == job.id, live).values(cancel_requested=True)
        result = cast(CursorResult[Any], await self._session.execute(statement))
        if result.rowcount != 1:
            raise Refused(reason=f"job {job.id} has ended")
        job.cancel_requested = True
        return job

    async def cancel_requested(self, job_id: str) -> bool:
        query = select(JobRow.cancel_requested).where(JobRow.id == job_id)
        return bool(await self._session.scalar(query))


class SqlEventRepository:
    """Implements `catalog.EventRepository`."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def append(self, event: Event) -> int:
        row = EventRow(kind=event.kind, at=event.at, job_id=event.job_id, data=event.data)
        self._session.add(row)
        await self._session.flush()
        return row.sequence

    async def list(self, *, after: int = 0, job_id: str | None = None, limit: int = 1000) -> Sequence[Event]:
        query = select(EventRow).where(EventRow.sequence > after).order_by(EventRow.sequence).limit(limit)
        if job_id is not None:
            query = query.where(EventRow.job_id == job_id)
        return [to_value(Event, row) for row in await self._session.scalars(query)]


async def get_setting(session: AsyncSession, key: str) -> str | None:
    """The value of one setting, None when it is unset."""
    row = await session.get(SettingRow, key)
    return None if row is None else row.value


async def put_setting(session: AsyncSession, key: str, value: str) -> None:
    """Set it."""
    await session.merge(SettingRow(key=key, value=value))
    await session.flush()


def _job(row: JobRow) -> Job:
    return to_value(Job, row, {"kind": JobKind, "state": JobState})
