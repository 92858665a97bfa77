"""Capstan on Windows, as far as Wine is Windows: the checks in `guest` run by Windows' own CPython."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from windows_python import cache_folder
from wine_machine import COMPILER, WineMachine, windows_path

GUEST = Path(__file__).parent / "guest"
# Of the other suites: what stands on files, locks and devices.
SUITES = (
    *("tests/unit/scsi", "tests/unit/test_process_lock.py", "tests/unit/test_windows_paths.py"),
    *("tests/unit/format/test_header.py", "tests/unit/format/test_writer.py"),
    *("tests/contract/test_drives.py", "tests/contract/test_encrypting_drives.py"),
    "tests/contract/test_sql_catalog.py::TestSqlCatalog",
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.requires("wine", COMPILER, str(cache_folder() / "python" / "python.exe")),
]


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[WineMachine]:
    machine = WineMachine(tmp_path)
    try:
        machine.start()
        yield machine
    finally:
        machine.stop()


def test_everything_in_guest(machine: WineMachine) -> None:
    """One boot for all of it. What fails there is told here, with all that pytest said there."""
    checks = sorted(windows_path(path) for path in GUEST.glob("check_*.py"))
    done = machine.python(
        ["-m", "pytest", "-v", "-p", "no:cacheprovider", "--basetemp", r"C:\tests", "--durations=10", *checks, *SUITES],
        timeout=540,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout[-20_000:]
    assert " passed" in done.stdout
