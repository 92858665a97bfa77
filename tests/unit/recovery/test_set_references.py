"""How a set is named on the command line."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from capstan.errors import InvalidValue
from capstan.recovery.select import SetReference, parse_reference, stored_path


def test_references_are_ids_names_or_names_with_a_time() -> None:
    """An id prefix, `latest:NAME`, and `NAME@TIME` with an offset, a Z, or in the local zone. A time without a
    fraction is all of its second: times are shown like that."""
    assert parse_reference("3f2a") == SetReference(id_prefix="3f2a")
    assert parse_reference("latest:docs") == SetReference(name="docs")
    zone = timezone(timedelta(hours=8))
    end = {"microsecond": 999_999}
    assert parse_reference("docs@2025-06-30T18:00+08:00").at == datetime(2025, 6, 30, 18, **end, tzinfo=zone)
    assert parse_reference("docs@2025-06-30T18:00Z").at == datetime(2025, 6, 30, 18, **end, tzinfo=UTC)
    assert parse_reference("docs@2025-06-30T18:00:00.5Z").at == datetime(2025, 6, 30, 18, 0, 0, 500_000, tzinfo=UTC)
    local = parse_reference("docs@2025-06-30").at
    assert local is not None and local.tzinfo is not None
    assert local.replace(tzinfo=None) == datetime(2025, 6, 30, **end)  # noqa: DTZ001
    with pytest.raises(InvalidValue):
        parse_reference("docs@yesterday")


def test_paths_are_taken_as_people_write_them() -> None:
    """Leading, doubled and trailing slashes and single dots do not matter; `..` never means a parent."""
    assert stored_path(b"/srv//data/./x/") == b"srv/data/x"
    assert stored_path(b"/") == b""
    assert stored_path(b"/srv/../etc") == b"srv/../etc"
