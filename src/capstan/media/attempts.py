"""Whether work that failed on one cartridge goes on with another."""

from __future__ import annotations

from capstan.core.job import JobReporter
from capstan.errors import CapstanError, DeviceError, NoDriveAvailable, Remedy, TransportError

_ELSEWHERE = (Remedy.NEW_CARTRIDGE, Remedy.REPOSITION, Remedy.NEW_DRIVE)
_FRUITLESS = 3  # attempts that committed nothing, one after another


class Attempts:
    """One for a run over many cartridges."""

    def __init__(self, context: JobReporter) -> None:
        self._context = context
        self._fruitless = 0
        self._failure: CapstanError | None = None

    async def go_on(self, error: CapstanError, *, fruitful: bool) -> None:
        """Return if another attempt may do what this one did not, and raise if not: `error`, or what was wrong with the
        only drive. `fruitful`: this attempt has committed something."""
        if isinstance(error, NoDriveAvailable) and self._failure and self._failure.remedy is Remedy.NEW_DRIVE:
            raise self._failure from None
        if not isinstance(error, DeviceError | TransportError) or error.remedy not in _ELSEWHERE:
            raise error
        self._failure = error
        self._fruitless = 0 if fruitful else self._fruitless + 1
        if self._fruitless >= _FRUITLESS:
            raise error
        await self._context.warning("cartridge-failed", detail=str(error))
