"""TapeAlert flags: every one has a meaning, and what it says can be acted on."""

from __future__ import annotations

import pytest

from capstan.tape.alerts import ALERTS, WANTS_CLEANING, Concerns, Severity, alert_of

# SSC-5, table A.2, by severity.
CRITICAL = {4, 5, 6, 9, 13, 14, 16, 20, 22, 23, 30, 31, 33, 38, 52, 53, 54, 55, 56, 57}
INFORMATION = {10, 11, 12, 19}
WITHOUT_MEANING = {*range(40, 50), 62, 63, 64}  # obsolete or reserved


@pytest.mark.parametrize("flag", range(1, 65))
def test_every_flag(flag: int) -> None:
    """Its number, severity and what to do; those without a meaning are told by their number."""
    alert = alert_of(flag)
    assert alert.flag == flag and str(flag) in str(alert) and alert.remedy
    expected = (
        Severity.CRITICAL if flag in CRITICAL else Severity.INFORMATION if flag in INFORMATION else Severity.WARNING
    )
    assert alert.severity is expected
    assert (flag not in ALERTS) == (flag in WITHOUT_MEANING)


def test_only_two_ask_for_cleaning() -> None:
    assert {20, 21} == WANTS_CLEANING
    assert all(alert_of(flag).concerns is Concerns.CLEANING for flag in WANTS_CLEANING)
