"""Which of a drive and a cartridge is to blame for what failed."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from capstan.core.health import DAMAGED, Blame, Load, blame

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def failures(*pairs: str, **changes: bool) -> list[Load]:
    """`D1`: cartridge 1 failed in drive D."""
    facts = {"medium": True, **changes}
    return [
        Load(str(n), drive, barcode, "j", NOW, code="medium-error", **facts) for n, (drive, barcode) in enumerate(pairs)
    ]


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        (["A1"], Blame.UNKNOWN),
        (["A1", "A1", "A1"], Blame.UNKNOWN),
        (["A1", "B1"], Blame.CARTRIDGE),
        (["A1", "A2"], Blame.DRIVE),
        (["A1", "B2"], Blame.UNKNOWN),  # they have nothing in common
        (["A1", "A2", "B1"], Blame.UNKNOWN),  # either may be, or both
        (["A1", "B2", "B3"], Blame.UNKNOWN),
        (["A1", "B1", "B2"], Blame.CARTRIDGE),  # of this drive; B may be bad as well
    ],
)
def test_of_cartridge_1_in_drive_A(pairs: list[str], expected: Blame) -> None:
    assert blame(failures(*pairs), "A", "1") is expected


def test_what_is_settled_does_not_count() -> None:
    assert blame([*failures("A1"), *failures("A2", settled=True)], "A", "1") is Blame.UNKNOWN
    assert blame([Load("0", "A", "2", "j", NOW), *failures("A1")], "A", "1") is Blame.UNKNOWN


def test_what_was_not_the_medium_speaks_against_the_drive_alone() -> None:
    assert blame([*failures("A1"), *failures("B1", medium=False)], "A", "1") is Blame.UNKNOWN
    assert blame([*failures("A1"), *failures("A2", medium=False)], "A", "1") is Blame.DRIVE


def test_records_that_are_not_what_was_written_accuse_no_drive() -> None:
    damaged = [Load(str(number), "A", barcode, "j", NOW, code=DAMAGED) for number, barcode in enumerate("12")]
    assert blame([*damaged, *failures("A3")], "A", "3") is Blame.UNKNOWN
