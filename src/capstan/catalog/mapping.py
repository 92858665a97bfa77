"""Between rows and values: by field names, which are the same on both sides."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from enum import Enum
from typing import Any, TypeVar

from sqlalchemy.orm import DeclarativeBase

V = TypeVar("V")
Convert = Mapping[str, Callable[[Any], Any]]


def to_value(kind: type[V], row: DeclarativeBase, convert: Convert | None = None, **more: Any) -> V:
    """A `kind` made of the row's columns of the same names; `convert` makes enumerations of strings."""
    convert = convert or {}
    values = {
        field.name: convert[field.name](getattr(row, field.name)) if field.name in convert else getattr(row, field.name)
        for field in fields(kind)  # type: ignore[arg-type]
        if field.name not in more
    }
    return kind(**values, **more)


def to_columns(value: Any, row: type[DeclarativeBase], **more: Any) -> dict[str, Any]:
    """The columns of `row` that `value` has fields for."""
    names = row.__table__.columns.keys()
    columns = {field.name: _plain(getattr(value, field.name)) for field in fields(value) if field.name in names}
    return columns | more


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    return list(value) if isinstance(value, tuple | list) else value
