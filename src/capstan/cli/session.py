"""Runs asynchronous work for a command: an open home, a job, signals, and progress on the terminal."""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from capstan.bootstrap import Capstan, open_home
from capstan.cli.output import Output
from capstan.cli.state import State
from capstan.core.job import Event, JobKind
from capstan.core.sizes import format_duration, format_size
from capstan.jobs.context import JobContext

T = TypeVar("T")


def with_home(state: State, work: Callable[[Capstan], Awaitable[T]], *, writing: bool = False) -> T:
    """`work` in the open home. `writing`: first tidy up behind processes that died."""
    progress = ProgressView(state.output)

    async def body() -> T:
        async with open_home(state.home.absolute(), listener=progress.hear, trace=state.trace) as capstan:
            if writing:
                await capstan.tidy()
            _on_signals(capstan.jobs.cancel_all)
            return await work(capstan)

    try:
        return asyncio.run(body())
    finally:
        progress.close()


def run_job(
    state: State,
    kind: JobKind,
    work: Callable[[Capstan, JobContext], Awaitable[dict[str, Any]]],
    *,
    name: str = "",
    library: str = "",
    parameters: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """One job in an open home; returns its result. A signal cancels it at the next good place."""

    async def body(capstan: Capstan) -> dict[str, Any]:
        _, result = await capstan.jobs.run(
            kind, lambda context: work(capstan, context), name=name, library=library, parameters=parameters
        )
        return result

    return with_home(state, body, writing=True)


async def only_library(capstan: Capstan, name: str | None) -> str:
    """The library to use: the one that was named, or the only one there is."""
    from capstan.errors import InvalidValue, NotFound

    libraries = sorted(capstan.settings.libraries)
    if name is not None:
        capstan.library(name)
        return name
    if not libraries:
        raise NotFound(what="library", name="any", hint="make one: `capstan library create NAME --virtual`")
    if len(libraries) > 1:
        raise InvalidValue(what="library", value="", reason=f"say which with --library: {', '.join(libraries)}")
    return libraries[0]


def given_path(what: str, text: str) -> Path:
    """A path of the command line, absolute. InvalidValue for an empty one: in a script it is a variable that was not
    set, and it would mean the current directory."""
    from capstan.errors import InvalidValue

    if not text or "\0" in text:
        raise InvalidValue(what=what, value=text, reason="it names nothing; write . for the current directory")
    path = Path(text)
    # Where there are drives, `\\` alone is above all of them: the drive of the current directory has a letter.
    return path if path.root and not path.parts[1:] and not path.drive else path.absolute()


def given_text(what: str, text: str | None, default: str) -> str:
    """An option's value, or `default` when it was not given. InvalidValue for an empty one, as above."""
    from capstan.errors import InvalidValue

    if text == "":
        raise InvalidValue(what=what, value="", reason="it is empty; leave the option out for the default")
    return default if text is None else text


def _on_signals(cancel: Callable[[], None]) -> None:
    """SIGINT and SIGTERM cancel in good order; a second SIGINT ends at once."""
    if sys.platform == "win32" or threading.current_thread() is not threading.main_thread():
        return  # no handlers there: Ctrl-C ends the program, and what was committed stays
    loop = asyncio.get_running_loop()

    def first() -> None:
        print("stopping at the next commit point; press again to end at once", file=sys.stderr)
        cancel()
        loop.remove_signal_handler(signal.SIGINT)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, first)


class ProgressView:
    """Shows what a job tells: a live bar on a terminal, plain lines elsewhere, JSON lines in `--json` mode."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._bar: Any = None
        self._task: Any = None
        self._warnings = 0  # that were shown

    def hear(self, event: Event) -> None:
        """Take one event."""
        if self._output.json_mode:
            self._output.event(event.kind, {"job": event.job_id, **event.data})
        elif event.kind == "job.progress":
            if self._output.terminal:
                self._show(event.data)
        elif event.kind == "job.warning":
            self._warnings += 1
            path = f"{event.data['path']}: " if "path" in event.data else ""
            self._line(f"warning: {path}{event.data.get('detail') or event.data['code']} [{event.data['code']}]")
        elif event.kind == "job.phase":
            cartridge = f" {event.data['cartridge']}" if "cartridge" in event.data else ""
            self._line(f"· {event.data['phase']}{cartridge}")
        elif event.kind == "cartridge.wanted":
            found = "" if event.data["found"] == "nothing" else f"{event.data['found']} is another one: "
            self._line(f"{found}put cartridge {event.data['barcode']} into {event.data['device']}")
        elif event.kind == "backup.resumed":
            self._line(describe_resumed(event.data))
        elif event.kind == "job.ended" and event.data.get("resumable") and event.data["state"] == "failed":
            self._line(f"`capstan job resume {event.job_id}` goes on where it ended")

        elif event.kind == "job.ended":
            if event.data["warnings"] > self._warnings:
                more = event.data["warnings"] - self._warnings
                self._line(f"{more} more warnings: `capstan job warnings {event.job_id}`")
            if lost := event.data.get("warnings_not_kept"):
                self._line(f"{lost['count']} warnings could not be written down: {lost['reason']}")

    def close(self) -> None:
        """Take the bar from the terminal."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _line(self, text: str) -> None:
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)

    def _show(self, data: dict[str, Any]) -> None:
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

            self._bar = Progress(
                SpinnerColumn(),
                BarColumn(bar_width=24),
                TextColumn("{task.description}", markup=False),
                console=Console(stderr=True),
                transient=True,
            )
            self._task = self._bar.add_task("", total=None)
            self._bar.start()
        total = data.get("total_bytes")
        self._bar.update(self._task, description=describe(data), total=total, completed=data.get("bytes", 0))


def describe_resumed(data: dict[str, Any]) -> str:
    """From where a backup goes on."""
    if data["whole"]:
        return "the set is whole already: only its job had not lived to say so"
    if not data["stored_bytes"]:
        return "nothing of the set was committed: it starts over"
    return f"{data['files']} files, {format_size(data['stored_bytes'])} on tape, are committed; the rest follows"


def describe(data: dict[str, Any]) -> str:
    """One line of progress."""
    what = f"{data['segments']} segments" if "segments" in data else f"{data.get('files', 0)} files"
    parts = [what, format_size(data.get("bytes", 0))]
    if data.get("rate"):
        parts.append(f"{format_size(data['rate'])}/s")
    if data.get("seconds_left"):
        parts.append(f"{format_duration(data['seconds_left'])} left")
    if data.get("tape_fill") is not None:
        parts.append(f"{data.get('cartridge')} {data['tape_fill']:.0%} full")
    if data.get("current"):
        parts.append("…" + data["current"][-40:])
    return " · ".join(parts)
