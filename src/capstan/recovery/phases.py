"""The phases of a restore or a verification, told in their order although threads run through them."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from capstan.core.job import RestorePhase
from capstan.jobs.context import JobContext


class Phases:
    """Tells a job's phases in their order, from the event loop and from threads."""

    def __init__(self, context: JobContext) -> None:
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._reached: set[RestorePhase] = set()
        self._queue: asyncio.Queue[RestorePhase] = asyncio.Queue()

    async def enter(self, phase: RestorePhase, **data: Any) -> None:
        """`phase` begins. LOAD and READ come again for each further cartridge; the tape manager tells of LOAD."""
        await self.catch_up()
        self._reached |= {phase, RestorePhase.LOAD} if phase is RestorePhase.READ else {phase}
        await self._context.phase(phase, **data)

    def begin(self, phase: RestorePhase) -> None:
        """From any thread."""
        self._loop.call_soon_threadsafe(self._queue.put_nowait, phase)

    async def catch_up(self) -> None:
        """Tell what threads have begun meanwhile."""
        with suppress(asyncio.QueueEmpty):
            while True:
                phase = self._queue.get_nowait()
                self._reached.add(phase)
                await self._context.phase(phase)

    async def complete(self) -> None:
        """Pass through every phase that had nothing to do, but the last."""
        await self.catch_up()
        for phase in RestorePhase:
            if phase not in self._reached and phase is not RestorePhase.NOTIFY:
                await self.enter(phase)
