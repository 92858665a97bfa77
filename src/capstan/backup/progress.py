"""What a backup tells while its threads work: how far it is, what was wrong, how full the cartridge is."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from capstan.backup.estimate import SizeEstimate
from capstan.backup.pipeline import PackCounters
from capstan.backup.session import StoredBytes
from capstan.clock import Clock
from capstan.core.files import display_path
from capstan.core.media import Cartridge
from capstan.jobs.context import JobContext

_LONG = 5.0  # seconds after which a backup is worth an estimate
_TICK = 0.5  # seconds between two looks at the counters


class BackupProgress:
    """One for a run. `counters` and `stored` are for the threads; all else is for the event loop's thread."""

    def __init__(self, context: JobContext, clock: Clock, estimate: SizeEstimate | None) -> None:
        self.counters = PackCounters()
        self.stored = StoredBytes()
        self._context = context
        self._clock = clock
        self._estimate = estimate
        self._expected: int | None = None
        self._bytes_before = 0
        self._cartridge: Cartridge | None = None
        self._stored_before = 0
        self._ticker: asyncio.Task[None] | None = None

    def start(self, *, expected: int | None, bytes_before: int) -> None:
        """Begin to tell. `expected`: bytes of content, until they are counted; `bytes_before`: of an earlier run."""
        self._expected, self._bytes_before = expected, bytes_before
        self._ticker = asyncio.create_task(self._tick())

    def mounted(self, cartridge: Cartridge, stored_bytes: int) -> None:
        """`cartridge` is written to from now on; `stored_bytes` of the set are committed."""
        self._cartridge, self._stored_before = cartridge, stored_bytes

    def unmounted(self) -> None:
        """None is written to."""
        self._cartridge = None

    async def close(self) -> None:
        """Tell no more; harmless twice."""
        if self._ticker is not None:
            self._ticker.cancel()
            with suppress(asyncio.CancelledError):
                await self._ticker
        if self._estimate is not None:
            await asyncio.to_thread(self._estimate.stop)

    async def _tick(self) -> None:
        began, estimating = self._clock.monotonic(), False
        while True:
            await asyncio.sleep(_TICK)
            seconds = max(self._clock.monotonic() - began, 1e-6)
            if self._estimate is not None and seconds >= _LONG and not estimating:
                estimating = True
                self._estimate.start()
            counters, total = self.counters, self._total_bytes()
            rate = max(counters.bytes - self._bytes_before, 0) / seconds
            await self._context.progress(
                files=counters.files,
                bytes=counters.bytes,
                stored_bytes=self.stored.value,
                rate=round(rate),
                current=display_path(counters.current),
                total_bytes=total,
                seconds_left=round(max(total - counters.bytes, 0) / rate) if total and rate else None,
                cartridge=self._cartridge.barcode if self._cartridge else None,
                tape_fill=self._fill(),
            )

    def _total_bytes(self) -> int | None:
        """What was counted, or until then what was expected."""
        if self._estimate is None or self._estimate.total_bytes is None:
            return self._expected
        return self._estimate.total_bytes

    def _fill(self) -> float | None:
        """How full the cartridge is, from 0 to 1."""
        if self._cartridge is None or not self._cartridge.capacity_bytes:
            return None
        written = self._cartridge.written_bytes + max(self.stored.value - self._stored_before, 0)
        return round(min(written / self._cartridge.capacity_bytes, 1.0), 3)
