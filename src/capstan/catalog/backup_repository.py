"""Sets, commit points and segments in SQL."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import delete, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from capstan.catalog.mapping import to_columns, to_value
from capstan.catalog.repositories import get_setting, put_setting
from capstan.core.backup import BackupSet, Commit, Encryption, Segment, SetState, SetType
from capstan.errors import AlreadyExists, InvalidValue, NotFound
from capstan.models.rows import CommitRow, SegmentRow, SetRow

_MIN_PREFIX = 4
_UUID_LENGTH = 36
_LAST_NUMBER = "last-set-number"


class SqlBackupRepository:
    """Implements `catalog.BackupRepository`."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def next_number(self) -> int:
        highest = await self._session.scalar(select(func.max(SetRow.number))) or 0
        number = max(highest, await self._last_number()) + 1
        await put_setting(self._session, _LAST_NUMBER, str(number))
        return number

    async def remember_numbers(self) -> None:
        """Take note of the highest number before sets are removed: it may have come from a tape of another home."""
        highest = await self._session.scalar(select(func.max(SetRow.number))) or 0
        if highest > await self._last_number():
            await put_setting(self._session, _LAST_NUMBER, str(highest))

    async def _last_number(self) -> int:
        return int(await get_setting(self._session, _LAST_NUMBER) or 0)

    async def add(self, backup_set: BackupSet) -> None:
        if await self._session.get(SetRow, backup_set.id) is not None:
            raise AlreadyExists(what="set", name=backup_set.id)
        self._session.add(SetRow(**to_columns(backup_set, SetRow)))
        await self._session.flush()

    async def get(self, set_id: str) -> BackupSet:
        found = await self.find(set_id)
        if found is not None:
            return found
        if not _MIN_PREFIX <= len(set_id) <= _UUID_LENGTH:
            raise NotFound(what="set", name=set_id)
        query = select(SetRow).where(SetRow.id.startswith(set_id.lower(), autoescape=True)).limit(2)
        rows = (await self._session.scalars(query)).all()
        if not rows:
            raise NotFound(what="set", name=set_id)
        if len(rows) > 1:
            raise InvalidValue(what="set", value=set_id, reason="more than one set begins with it")
        return _set(rows[0])

    async def find(self, set_id: str) -> BackupSet | None:
        row = await self._session.get(SetRow, set_id)
        return None if row is None else _set(row)

    async def list(
        self, *, name: str | None = None, states: Sequence[SetState] = (), limit: int | None = None
    ) -> Sequence[BackupSet]:
        query = select(SetRow).order_by(SetRow.number.desc(), SetRow.id)
        if name is not None:
            query = query.where(SetRow.name == name)
        if states:
            query = query.where(SetRow.state.in_([state.value for state in states]))
        if limit is not None:
            query = query.limit(limit)
        return [_set(row) for row in await self._session.scalars(query)][::-1]

    async def latest(self, name: str, *, at: datetime | None = None) -> BackupSet | None:
        query = select(SetRow).where(SetRow.name == name, SetRow.state == SetState.COMPLETE.value)
        if at is not None:
            query = query.where(func.coalesce(SetRow.finished_at, SetRow.created_at) <= at)
        row = await self._session.scalar(query.order_by(SetRow.number.desc()).limit(1))
        return None if row is None else _set(row)

    async def save(self, backup_set: BackupSet) -> None:
        await self._session.merge(SetRow(**to_columns(backup_set, SetRow)))
        await self._session.flush()

    async def remove(self, set_id: str) -> None:
        await self.remember_numbers()
        await self._session.execute(delete(SegmentRow).where(SegmentRow.set_id == set_id))
        await self._session.execute(delete(CommitRow).where(CommitRow.set_id == set_id))
        await self._session.execute(delete(SetRow).where(SetRow.id == set_id))

    async def add_commit(self, commit: Commit) -> None:
        await self._session.merge(CommitRow(**to_columns(commit, CommitRow)))
        of_this_commit = (
            SegmentRow.set_id == commit.set_id,
            SegmentRow.sequence == commit.sequence,
            SegmentRow.cartridge == commit.cartridge,
        )
        await self._session.execute(delete(SegmentRow).where(*of_this_commit))
        for segment in commit.segments:
            columns = to_columns(segment, SegmentRow, sequence=commit.sequence)
            await self._session.merge(SegmentRow(**columns))
        await self._session.flush()

    async def remove_commits(self, cartridge: str) -> None:
        for table in (SegmentRow, CommitRow):
            await self._session.execute(delete(table).where(table.cartridge == cartridge))

    async def remove_commit(self, commit: Commit) -> None:
        for table in (SegmentRow, CommitRow):
            of_it = (
                table.set_id == commit.set_id,
                table.sequence == commit.sequence,
                table.cartridge == commit.cartridge,
            )
            await self._session.execute(delete(table).where(*of_it))

    async def list_commits(self, *, set_id: str | None = None, cartridge: str | None = None) -> Sequence[Commit]:
        originals = set_id is not None and cartridge is None
        return await self._commits(set_id, cartridge, originals=originals)

    async def list_copies(self, set_id: str) -> Sequence[Commit]:
        return [commit for commit in await self._commits(set_id, None, originals=False) if commit.copy]

    async def _commits(self, set_id: str | None, cartridge: str | None, *, originals: bool) -> Sequence[Commit]:
        query = (
            select(CommitRow)
            .join(SetRow, SetRow.id == CommitRow.set_id)
            .order_by(
                *(SetRow.number, CommitRow.set_id, CommitRow.copy, CommitRow.sequence),
                *(CommitRow.committed_at, CommitRow.cartridge),
            )
        )
        # As their INDEX names them: in a copy that may be another order than that of the stream.
        pieces = select(SegmentRow).order_by(SegmentRow.stream, SegmentRow.block)
        if set_id is not None:
            query, pieces = query.where(CommitRow.set_id == set_id), pieces.where(SegmentRow.set_id == set_id)
        if cartridge is not None:
            query = query.where(CommitRow.cartridge == cartridge)
            pieces = pieces.where(SegmentRow.cartridge == cartridge)
        if originals:
            query, pieces = query.where(CommitRow.copy == 0), pieces.where(SegmentRow.copy == 0)
        segments = defaultdict(list)
        for row in await self._session.scalars(pieces):
            segments[row.set_id, row.sequence, row.cartridge].append(to_value(Segment, row))
        return [
            to_value(Commit, row, segments=tuple(segments[row.set_id, row.sequence, row.cartridge]))
            for row in await self._session.scalars(query)
        ]

    async def list_segments(self, set_id: str) -> Sequence[Segment]:
        of_the_set = select(SegmentRow).where(SegmentRow.set_id == set_id, SegmentRow.copy == 0)
        query = of_the_set.order_by(SegmentRow.stream, SegmentRow.number)
        return [to_value(Segment, row) for row in await self._session.scalars(query)]

    async def sets_on(self, cartridge: str) -> Sequence[BackupSet]:
        here = select(CommitRow.set_id).where(CommitRow.cartridge == cartridge)
        pieces = select(SegmentRow.set_id).where(SegmentRow.cartridge == cartridge)
        query = select(SetRow).where(or_(SetRow.id.in_(here), SetRow.id.in_(pieces))).order_by(SetRow.number)
        return [_set(row) for row in await self._session.scalars(query)]


def _set(row: SetRow) -> BackupSet:
    return to_value(BackupSet, row, {"type": SetType, "state": SetState, "encryption": Encryption})
