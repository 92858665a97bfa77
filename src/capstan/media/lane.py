"""The one crossing between the asynchronous world and a drive: a thread that owns it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Concatenate, ParamSpec, TypeVar

from capstan.media.drive_keys import with_keys
from capstan.tape.drive import TapeDrive

P = ParamSpec("P")
R = TypeVar("R")


class DriveLane:
    """Owns one drive. Everything that touches it goes through `run`, one call after another, on one thread."""

    def __init__(self, drive: TapeDrive, name: str) -> None:
        self._drive = with_keys(drive)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"lane-{name}")
        self.name = name

    async def run(
        self, function: Callable[Concatenate[TapeDrive, P], R], *arguments: P.args, **keywords: P.kwargs
    ) -> R:
        """`function(drive, …)` on the drive's thread.

        If the waiting task is cancelled, the call is waited for all the same before the cancel goes on: a command that
        has been sent to a drive cannot be taken back, and nothing else may use the drive until it has ended.
        """
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._thread, lambda: function(self._drive, *arguments, **keywords))
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait([future])
            raise

    async def close(self) -> None:
        """Release the drive and end the thread. Twice is harmless."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self.close_now)

    def close_now(self) -> None:
        """`close` for those who have no event loop."""
        self._thread.shutdown(wait=True)
        self._drive.close()
