"""Ground rules of all tests: nothing beyond loopback, what is missing is skipped by name, times against budgets."""

from __future__ import annotations

import ctypes.util
import os
import shutil
import socket
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

TESTS = Path(__file__).parent
# Seconds of test time, added up over all workers, that each suite may take on two cores.
BUDGETS = {
    "unit": 120,
    "contract": 60,
    "property": 180,
    "golden": 90,
    "e2e": 900,
    "anomaly": 240,
    "wine": 150,
    "uml": 180,
    "iscsi": 120,
}
REQUIRE_ALL = os.environ.get("CAPSTAN_TEST_REQUIRE") == "all"

settings.register_profile(
    "ci", max_examples=25, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("soak", max_examples=2000, deadline=None, suppress_health_check=list(HealthCheck))
settings.load_profile(os.environ.get("CAPSTAN_HYPOTHESIS_PROFILE", "ci"))


def missing(name: str) -> bool:
    """Whether this machine lacks a program or a right that a test needs."""
    if name == "root":
        return os.name != "posix" or os.geteuid() != 0
    if name == "libiscsi":
        return ctypes.util.find_library("iscsi") is None
    if name == "loop":  # devices that show a file as a disk
        return not Path("/dev/loop-control").exists()
    if name.startswith("/"):  # what is downloaded
        return not Path(name).exists()
    return shutil.which(name) is None


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("requires"):
        lacking = [name for name in mark.args if missing(name)]
        if lacking:
            reason = f"needs {', '.join(lacking)}"
            if REQUIRE_ALL:
                pytest.fail(f"CAPSTAN_TEST_REQUIRE=all, and the test {reason}")
            pytest.skip(reason)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    outcome: Any = yield
    report = outcome.get_result()
    if REQUIRE_ALL and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"CAPSTAN_TEST_REQUIRE=all, and {item.nodeid} was skipped: {report.longrepr}"


@pytest.fixture(autouse=True)
def loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reaches beyond this machine."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        host = address[0] if isinstance(address, tuple) else ""
        if self.family in (socket.AF_INET, socket.AF_INET6) and host not in ("::1", "localhost"):
            assert str(host).startswith("127."), f"a test wanted to connect to {address}"
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


_spent: dict[str, float] = defaultdict(float)
_began = time.monotonic()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    suite = Path(report.nodeid.split("::")[0]).parts
    name = suite[1] if len(suite) > 2 else "other"
    _spent[name] += report.duration


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if hasattr(terminalreporter.config, "workerinput") or not _spent:
        return
    terminalreporter.section("time of each suite")
    for name, seconds in sorted(_spent.items()):
        budget = BUDGETS.get(name)
        over = "  OVER ITS BUDGET" if budget and seconds > budget else ""
        terminalreporter.write_line(f"{name:10} {seconds:7.1f} s of {budget or '-'} s{over}")
    terminalreporter.write_line(f"{'wall':10} {time.monotonic() - _began:7.1f} s")
