"""What a report keeps is bounded; what it counts is exact."""

from __future__ import annotations

from capstan.recovery.report import RecoveryReport


def test_warnings_are_counted_by_code_and_the_first_are_kept() -> None:
    """However many come, memory holds 10,000 of them, and every one is counted under its code."""
    report = RecoveryReport()
    for number in range(30_000):
        report.warn("owner" if number % 3 else "xattr", b"%d" % number, "not restored")
    assert len(report.warnings) == 10_000
    assert report.warning_count == 30_000
    assert report.warning_codes == {"owner": 20_000, "xattr": 10_000}
    assert report.sound
