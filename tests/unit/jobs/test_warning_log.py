"""The warnings of a job: counted exactly, on disk after a flush, never the job's end."""

from __future__ import annotations

import json
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from capstan.clock import SystemClock
from capstan.errors import HomeDamaged
from capstan.jobs.warning_log import KEPT_WARNINGS, WarningLog, read_warnings


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the warnings go."""
    return tmp_path / "job.warnings.jsonl"


def new_log(path: Path, **earlier: int) -> WarningLog:
    return WarningLog(path, SystemClock(), earlier)


@contextmanager
def disk_full_at(size: int) -> Iterator[None]:
    """Files cannot grow beyond `size` bytes: a write that would go further is cut short, and the next one fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_warning_comes_back_as_it_was(path: Path) -> None:
    """Code, path in the display form, detail and time; any bytes in a path, any text in a detail; private."""
    log = new_log(path)
    log.add("vanished", b"srv/n\xe4me\n\xe2\x82\xac", 'it is "gone" \udce4')
    log.add("drive-failed", None, "")
    log.flush()
    first, second = read_warnings(path)
    assert (first["code"], first["path"], first["detail"]) == (
        "vanished", "/srv/n\\xe4me\n€", 'it is "gone" \udce4',
    )  # fmt: skip
    assert second["code"] == "drive-failed"
    assert "path" not in second
    assert all(item["at"].endswith("+00:00") for item in (first, second))
    assert path.read_text(encoding="utf-8").count("\n") == 2
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(read_warnings(path, "vanished")) == [first]


def test_no_warning_no_file(path: Path) -> None:
    """A job without warnings leaves nothing behind, and is read as one without."""
    new_log(path).flush()
    assert not path.exists()
    assert list(read_warnings(path)) == []


def test_threads_lose_nothing(path: Path) -> None:
    """Warnings of several threads are all counted and all written, each in a line of its own."""
    log = new_log(path)

    def work(code: str) -> None:
        for number in range(3000):
            log.add(code, b"%d" % number, "")

    threads = [threading.Thread(target=work, args=(code,)) for code in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.flush()
    assert log.counts == dict.fromkeys("abcd", 3000)
    assert log.total == 12_000
    assert len(log.first) == KEPT_WARNINGS
    found = [(item["code"], item["path"]) for item in read_warnings(path)]
    for code in "abcd":
        assert [place for name, place in found if name == code] == [f"/{number}" for number in range(3000)]


def test_a_full_disk_is_counted_and_said(path: Path) -> None:
    """What does not fit is counted, whole lines stay, and when there is room again the file goes on."""
    log = new_log(path)
    log.add("before", b"a", "")
    log.flush()
    with disk_full_at(path.stat().st_size + 100):
        for number in range(2000):
            log.add("during", b"%d" % number, "")
        log.flush()
        assert [item["code"] for item in read_warnings(path)] == ["before"]
    assert log.counts == {"before": 1, "during": 2000}
    assert log.unwritten == 2000
    assert log.trouble == "File too large"
    log.add("after", b"b", "")
    log.flush()
    assert [item["code"] for item in read_warnings(path)] == ["before", "after"]
    assert log.unwritten == 2000


def test_a_folder_that_is_gone_costs_only_the_file(tmp_path: Path) -> None:
    """Counts are exact although nothing can be written at all."""
    log = new_log(tmp_path / "gone" / "x.warnings.jsonl")
    log.add("socket", b"a", "")
    log.flush()
    assert (log.counts, log.unwritten, log.trouble) == ({"socket": 1}, 1, "No such file or directory")


def test_a_torn_line_does_not_count_and_is_not_gone_on_in(path: Path) -> None:
    """After a kill in the middle of a write the whole lines are read, and the next run of the job goes on behind them,
    with its counts."""
    log = new_log(path)
    log.add("first", b"a", "x" * 70_000)
    log.flush()
    with path.open("ab") as file:
        file.write(b'{"code": "torn", "path": "/' + b"b" * 200_000)
    assert [item["code"] for item in read_warnings(path)] == ["first"]
    again = new_log(path, first=1)
    again.add("second", b"c", "")
    again.flush()
    assert [item["code"] for item in read_warnings(path)] == ["first", "second"]
    assert again.counts == {"first": 1, "second": 1}


def test_events_are_the_first_of_all_runs(path: Path) -> None:
    """A job that runs again and had its events already gets no more of them."""
    log = new_log(path, old=KEPT_WARNINGS - 1)
    log.add("a", None, "")
    log.add("b", None, "")
    assert [item["code"] for item in log.first] == ["a"]


@pytest.mark.parametrize("line", [b"{", b"[]", b'{"detail": "x"}', b"\xff\xfe", b'{"code": 7}', b""])
def test_a_damaged_file_is_named_with_its_line(path: Path, line: bytes) -> None:
    """What is no warning is an error of the home with the number of the line; those before it are read."""
    path.write_bytes(json.dumps({"code": "good", "at": "2026-01-01T00:00:00+00:00"}).encode() + b"\n" + line + b"\n")
    found = read_warnings(path)
    assert next(found)["code"] == "good"
    with pytest.raises(HomeDamaged, match="line 2"):
        next(found)


def test_a_folder_in_its_place(path: Path) -> None:
    """Not a traceback but an error of the home."""
    path.mkdir()
    with pytest.raises(HomeDamaged, match="Is a directory"):
        next(read_warnings(path))
