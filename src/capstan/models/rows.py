"""The tables of the catalog. Private to `catalog`: everybody else sees the values of `core`.

Types are those that SQLite, PostgreSQL and openGauss share. Times are kept in UTC and come back aware.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, DateTime, ForeignKey, Index, Integer, MetaData, String, Text, TypeDecorator
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class UtcDateTime(TypeDecorator[datetime]):
    """An aware datetime, kept as naive UTC: SQLite has no time zones, and one rule for all is enough."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value} has no time zone: the catalog would have to guess which moment it is")
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC)


class Row(DeclarativeBase):
    """Base of all tables. Constraint names are fixed, so that migrations can name them in every dialect."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_name)s",
            "uq": "uq_%(table_name)s_%(column_0_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {
        datetime: UtcDateTime,
        dict[str, Any]: JSON,
        list[str]: JSON,
        list[Any]: JSON,
        list[int]: JSON,
        dict[str, int]: JSON,
        list[dict[str, Any]]: JSON,
        int: BigInteger,
        str: String,
    }


class SettingRow(Row):
    __tablename__ = "settings"
    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[str] = mapped_column(Text)


class JobRow(Row):
    __tablename__ = "jobs"
    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    state: Mapped[str] = mapped_column(String(16), index=True)
    created_at: Mapped[datetime] = mapped_column(index=True)
    name: Mapped[str] = mapped_column(String(64))
    phase: Mapped[str] = mapped_column(String(32))
    library: Mapped[str] = mapped_column(String(64))
    set_id: Mapped[str] = mapped_column(String(36))
    pid: Mapped[int]
    host: Mapped[str] = mapped_column(String(255))
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    cancel_requested: Mapped[bool]
    warning_count: Mapped[int]
    parameters: Mapped[dict[str, Any]]
    progress: Mapped[dict[str, Any]]
    result: Mapped[dict[str, Any]]
    error: Mapped[dict[str, Any]]


class EventRow(Row):
    __tablename__ = "events"
    # SQLite counts an INTEGER PRIMARY KEY by itself, and only that.
    sequence: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True
    )
    kind: Mapped[str] = mapped_column(String(64))
    at: Mapped[datetime]
    job_id: Mapped[str] = mapped_column(String(16), index=True)
    data: Mapped[dict[str, Any]]
    __table_args__ = ({"sqlite_autoincrement": True},)


class PoolRow(Row):
    __tablename__ = "pools"
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    created_at: Mapped[datetime]
    scratch: Mapped[bool]
    recipients: Mapped[list[str]]
    drive_key: Mapped[str] = mapped_column(String(16))
    require_escrow: Mapped[bool]
    verify_writes: Mapped[bool]
    blocked: Mapped[str] = mapped_column(Text)
    description: Mapped[str] = mapped_column(Text)
    copy_pool: Mapped[str] = mapped_column(String(64))


class CartridgeRow(Row):
    __tablename__ = "cartridges"
    barcode: Mapped[str] = mapped_column(String(32), primary_key=True)
    state: Mapped[str] = mapped_column(String(16))
    created_at: Mapped[datetime]
    reason: Mapped[str] = mapped_column(Text)
    uuid: Mapped[str] = mapped_column(String(36), index=True)
    pool: Mapped[str] = mapped_column(String(64))
    library: Mapped[str] = mapped_column(String(64), index=True)
    place: Mapped[str] = mapped_column(String(32))
    generation: Mapped[str] = mapped_column(String(16))
    capacity_bytes: Mapped[int]
    written_bytes: Mapped[int]
    record_bytes: Mapped[int]
    end_block: Mapped[int]
    tape_files: Mapped[int]
    index_block: Mapped[int]
    index_sha256: Mapped[str] = mapped_column(String(64))
    loads: Mapped[int]
    labelled_at: Mapped[datetime | None]
    written_at: Mapped[datetime | None]
    verified_at: Mapped[datetime | None]
    verify_result: Mapped[str] = mapped_column(Text)


class DriveRow(Row):
    __tablename__ = "drives"
    serial: Mapped[str] = mapped_column(String(64), primary_key=True)
    library: Mapped[str] = mapped_column(String(64))
    element: Mapped[int]
    created_at: Mapped[datetime]
    product: Mapped[str] = mapped_column(String(64))
    state: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str] = mapped_column(Text)
    loads: Mapped[int]
    wants_cleaning: Mapped[bool]
    cleaned_at: Mapped[datetime | None]


class LoadRow(Row):
    __tablename__ = "loads"
    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    drive: Mapped[str] = mapped_column(String(64), index=True)
    barcode: Mapped[str] = mapped_column(String(32), index=True)
    job_id: Mapped[str] = mapped_column(String(16))
    loaded_at: Mapped[datetime]
    unloaded_at: Mapped[datetime | None]
    code: Mapped[str] = mapped_column(String(64))
    error: Mapped[str] = mapped_column(Text)
    medium: Mapped[bool]
    state_before: Mapped[str] = mapped_column(String(16))
    settled: Mapped[bool]
    alerts: Mapped[list[int]]
    counters: Mapped[dict[str, int]]


class SetRow(Row):
    __tablename__ = "sets"
    id: Mapped[str] = mapped_column(String(36), primary_key=True)
    number: Mapped[int] = mapped_column(index=True)
    name: Mapped[str] = mapped_column(String(64), index=True)
    type: Mapped[str] = mapped_column(String(16))
    state: Mapped[str] = mapped_column(String(16))
    created_at: Mapped[datetime]
    sources: Mapped[list[str]]
    excludes: Mapped[list[Any]]
    one_file_system: Mapped[bool]
    mounts: Mapped[list[dict[str, Any]]]
    parent_id: Mapped[str] = mapped_column(String(36))
    job_id: Mapped[str] = mapped_column(String(16))
    host: Mapped[str] = mapped_column(String(255))
    pool: Mapped[str] = mapped_column(String(64))
    codec: Mapped[str] = mapped_column(String(16))
    container: Mapped[str] = mapped_column(String(16))
    encryption: Mapped[str] = mapped_column(String(16))
    recipients: Mapped[list[str]]
    keys: Mapped[list[str]]
    finished_at: Mapped[datetime | None]
    files: Mapped[int]
    bytes: Mapped[int]
    stored_bytes: Mapped[int]
    warning_count: Mapped[int]
    cartridges: Mapped[list[str]]
    missing: Mapped[list[str]]


class CommitRow(Row):
    __tablename__ = "commits"
    set_id: Mapped[str] = mapped_column(ForeignKey("sets.id", ondelete="CASCADE"), primary_key=True)
    sequence: Mapped[int] = mapped_column(primary_key=True)
    cartridge: Mapped[str] = mapped_column(String(36), primary_key=True)
    barcode: Mapped[str] = mapped_column(String(32))
    tape_file: Mapped[int]
    block: Mapped[int]
    end_block: Mapped[int]
    header_sha256: Mapped[str] = mapped_column(String(64))
    payload_bytes: Mapped[int]
    payload_sha256: Mapped[str] = mapped_column(String(64))
    final: Mapped[bool]
    files: Mapped[int]
    bytes: Mapped[int]
    tar_end: Mapped[int]
    committed_at: Mapped[datetime]
    locked: Mapped[bool]
    copy: Mapped[int]
    original_sha256: Mapped[str] = mapped_column(String(64))
    __table_args__ = (Index("ix_commits_cartridge", "cartridge"),)


class SegmentRow(Row):
    __tablename__ = "segments"
    set_id: Mapped[str] = mapped_column(ForeignKey("sets.id", ondelete="CASCADE"), primary_key=True)
    stream: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    cartridge: Mapped[str] = mapped_column(String(36), primary_key=True)
    sequence: Mapped[int]  # of the commit it belongs to
    barcode: Mapped[str] = mapped_column(String(32))
    tape_file: Mapped[int]
    block: Mapped[int]
    records: Mapped[int]
    record_bytes: Mapped[int]
    payload_bytes: Mapped[int]
    payload_sha256: Mapped[str] = mapped_column(String(64))
    tar_offset: Mapped[int]
    tar_bytes: Mapped[int]
    age_beginning: Mapped[str] = mapped_column(Text)
    copy: Mapped[int]
