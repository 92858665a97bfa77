"""The warnings of one job, in a file of their own beside its lock: `jobs/ID.warnings.jsonl`, a JSON object a line.

A job may warn a million times, so they are neither rows of the catalog nor kept in memory: they are counted by code,
and go to the file. `docs/decisions/0010-warnings-as-json-lines.md` says why it is text.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from threading import Lock
from typing import Any

from capstan.clock import Clock
from capstan.core.files import display_path
from capstan.errors import HomeDamaged

KEPT_WARNINGS = 100  # of each job: so many become events, too
_BUFFER_BYTES = 64 << 10


def warnings_path(folder: Path, job_id: str) -> Path:
    """Where the warnings of a job lie; the file is made by the first one."""
    return folder / f"{job_id}.warnings.jsonl"


class WarningLog:
    """Counts and writes down the warnings of one run of a job. Safe to use from several threads.

    `first` grows to KEPT_WARNINGS, those that become events; `total` counts all, those of earlier runs among them.
    What was added since the last `flush` is lost with the process. A file that cannot be written costs no job: what
    did not get into it is counted in `unwritten`, and `trouble` says why.
    """

    def __init__(self, path: Path, clock: Clock, earlier: Mapping[str, int] | None = None) -> None:
        """No file is made before there is a warning. `earlier`: the counts of a job that runs again; it goes on in its
        file."""
        self.first: list[dict[str, Any]] = []
        self.unwritten = 0
        self.trouble = ""
        self._path = path
        self._clock = clock
        self._lock = Lock()
        self._counts: Counter[str] = Counter(earlier)
        self.total = self._counts.total()
        self._buffer = bytearray()
        self._buffered = 0  # warnings in the buffer
        self._size: int | None = None  # of the file, up to its last whole line; None before it was looked at

    def add(self, code: str, path: bytes | None, detail: str) -> None:
        """Count one warning and write it down, sooner or later. `path` is a stored path."""
        found = {"code": code, "detail": detail}
        if path is not None:
            found["path"] = "/" + display_path(path)
        line = json.dumps({**found, "at": self._clock.now().isoformat()}, ensure_ascii=False)
        with self._lock:
            self._counts[code] += 1
            self.total += 1
            if self.total <= KEPT_WARNINGS:
                self.first.append(found)
            # A lone surrogate becomes its JSON escape, so that the line stays UTF-8 and JSON.
            self._buffer += line.encode("utf-8", "backslashreplace") + b"\n"
            self._buffered += 1
            if len(self._buffer) >= _BUFFER_BYTES:
                self._write()

    def flush(self) -> None:
        """What was added is in the operating system's hands when it returns: it survives the death of this process."""
        with self._lock:
            if self._buffer:
                self._write()

    @property
    def counts(self) -> dict[str, int]:
        """How many there were of each code, exactly."""
        with self._lock:
            return dict(sorted(self._counts.items()))

    def _write(self) -> None:
        """Append the buffer, all of it or nothing."""
        try:
            # Opened each time: a file that is closed between two writes needs nobody to close it at the end.
            with open(self._path, "ab", buffering=0, opener=_private) as file:
                if self._size is None:
                    self._size = _whole_lines(self._path)
                    file.truncate(self._size)
                try:
                    _write_all(file.fileno(), self._buffer)
                except OSError:
                    file.truncate(self._size)
                    raise
            self._size += len(self._buffer)
        except OSError as error:
            self._size = None
            self.unwritten += self._buffered
            self.trouble = error.strerror or str(error)
        self._buffer.clear()
        self._buffered = 0


def read_warnings(path: Path, code: str | None = None) -> Iterator[dict[str, Any]]:
    """The warnings in a file, of `code` only if it is given, in the order told; none when there is no file.

    A last line without its end was torn when its process was killed, and does not count. HomeDamaged for a line that
    is no warning, or a file that cannot be read.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    return
                found = _parse(path, number, line)
                if code is None or found["code"] == code:
                    yield found
    except FileNotFoundError:
        return
    except OSError as error:
        raise HomeDamaged(path=path, reason=error.strerror or str(error), hint=_HINT) from None


_HINT = "set the file aside; `capstan job show` has the counts and the first warnings"


def _parse(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(line)
        datetime.fromisoformat(found["at"])
        if isinstance(found["code"], str):
            return found
    except (ValueError, KeyError, TypeError):
        pass
    raise HomeDamaged(path=path, reason=f"line {number} is not a warning", hint=_HINT)


def _whole_lines(path: Path) -> int:
    """Bytes of the file up to the end of its last whole line."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        while end:
            start = max(end - _BUFFER_BYTES, 0)
            file.seek(start)
            at = file.read(end - start).rfind(b"\n")
            if at >= 0:
                return start + at + 1
            end = start
    return 0


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _write_all(descriptor: int, data: bytearray) -> None:
    with memoryview(data) as view:
        done = 0
        while done < len(view):
            done += os.write(descriptor, view[done:])
