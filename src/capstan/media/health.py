"""Keeps what drives and cartridges go through together, and settles which of them is to blame for what fails."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace

from capstan.catalog.catalog import Catalog, Repositories
from capstan.clock import Clock
from capstan.core.health import DAMAGED, Blame, Drive, DriveState, Load, blame, failures_of
from capstan.core.ids import new_uuid
from capstan.core.job import JobReporter
from capstan.core.media import Cartridge, CartridgeState
from capstan.errors import CapstanError, HardwareError, MediumError
from capstan.media.lane import DriveLane
from capstan.tape.alerts import WANTS_CLEANING, Severity, alert_of
from capstan.tape.drive import DriveCounters, TapeDrive

_RECENT = 100  # loads of a drive or a cartridge that are looked at: a bad one fails more often than that
_TOLD = {3, 5, 6, *WANTS_CLEANING}  # flags that say what the failure itself, or the cleaning, has said
_OURS = (CartridgeState.AVAILABLE, CartridgeState.FULL)


@dataclass(frozen=True, slots=True)
class DriveFacts:
    """A drive as it is when it is opened. `reads`, `writes`: names of generations; () where it does not say."""

    serial: str
    library: str
    element: int
    product: str
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()


class Health:
    """One for a process. Every method is one transaction, or none."""

    def __init__(self, catalog: Catalog, clock: Clock) -> None:
        self._catalog = catalog
        self._clock = clock

    async def unusable(self, library: str) -> dict[str, str]:
        """Serial numbers of the drives that no job may use now, with the reason."""
        async with self._catalog.snapshot() as catalog:
            drives = await catalog.health.list_drives(library=library)
        return {
            drive.serial: f"{drive.state.value}: {drive.reason}"
            for drive in drives
            if drive.state is not DriveState.ENABLED
        }

    async def loaded(self, facts: DriveFacts, cartridge: Cartridge, job_id: str) -> Load:
        """A cartridge is in a drive. Both count it; `cartridge` is given its new count."""
        now = self._clock.now()
        load = Load(new_uuid(), facts.serial, cartridge.barcode, job_id, now)
        async with self._catalog.transaction() as catalog:
            drive = await catalog.health.find_drive(facts.serial) or Drive(
                facts.serial, facts.library, facts.element, now
            )
            drive.library, drive.element, drive.product = facts.library, facts.element, facts.product
            drive.loads += 1
            await catalog.health.save_drive(drive)
            await catalog.health.save_load(load)
            known = await catalog.media.get(cartridge.barcode)
            known.loads += 1
            await catalog.media.save(known)
        cartridge.loads = known.loads
        return load

    async def ask(self, load: Load, lane: DriveLane) -> None:
        """The cartridge is about to leave: what the drive has to say. One that does not answer says nothing."""
        with suppress(CapstanError):
            flags, counters = await lane.run(_report)
            load.alerts = sorted({*load.alerts, *flags})
            load.counters = {name: int(value) for name, value in asdict(counters).items() if value is not None}

    async def unloaded(self, load: Load, context: JobReporter) -> bool:
        """The load is over: keep what the drive has said, and tell of its alerts. Whether it wants to be cleaned."""
        load.unloaded_at = self._clock.now()
        asks = bool(WANTS_CLEANING.intersection(load.alerts) or load.counters.get("wants_cleaning"))
        async with self._catalog.transaction() as catalog:
            await catalog.health.save_load(load)
            drive = await catalog.health.find_drive(load.drive)
            if drive is not None and drive.wants_cleaning != asks and "wants_cleaning" in load.counters:
                drive.wants_cleaning = asks
                await catalog.health.save_drive(drive)
        for alert in map(alert_of, load.alerts):
            if alert.flag not in _TOLD and alert.severity is not Severity.INFORMATION:
                detail = f"drive {load.drive}, cartridge {load.barcode}: {alert}"
                await context.warning("tape-alert", detail=detail)
        return asks

    async def failed(self, load: Load, error: CapstanError) -> Blame:
        """Something failed with a cartridge in a drive; who is to blame, as far as is known now.

        A medium error makes the cartridge suspect, unless the drive is to blame: then that is quarantined, and what it
        made suspect is as it was. A hardware error speaks against the drive only, and quarantines it once it has failed
        with two cartridges. Nothing else says anything about either.
        """
        if type(error) not in (MediumError, HardwareError):
            return Blame.UNKNOWN
        load.code, load.error, load.medium = error.code, str(error), type(error) is MediumError
        async with self._catalog.transaction() as catalog:
            await catalog.health.save_load(load)
            found = await catalog.health.list_loads(drive=load.drive, barcode=load.barcode, limit=_RECENT)
            loads = [load if each.id == load.id else each for each in found]
            drive = await catalog.health.get_drive(load.drive)
            known = drive.state is DriveState.QUARANTINED
            verdict = Blame.DRIVE if known else blame(loads, load.drive, load.barcode)
            if verdict is Blame.DRIVE:
                if not known:
                    drive.state = DriveState.QUARANTINED
                    cartridges = ", ".join(failures_of(loads, load.drive))
                    drive.reason = f"it failed with the cartridges {cartridges}; at last: {load.error}"
                    await catalog.health.save_drive(drive)
                for each in loads:
                    if each.drive == load.drive and each.accuses:
                        await self._acquit(catalog, each)
            elif load.medium:
                await self._suspect(catalog, load)
        return verdict

    async def damaged(self, load: Load, place: str) -> None:
        """A place on the cartridge is not what was written: it is suspect, whatever the drive."""
        async with self._catalog.transaction() as catalog:
            load.code, load.error = DAMAGED, place
            await catalog.health.save_load(load)
            cartridge = await catalog.media.get(load.barcode)
            if cartridge.state in _OURS:
                await catalog.media.save(replace(cartridge, state=CartridgeState.SUSPECT, reason=place))

    async def last_load(self, job_id: str, barcode: str) -> Load:
        """The last stay of a cartridge in a drive that a job has seen."""
        async with self._catalog.snapshot() as catalog:
            loads = await catalog.health.list_loads(barcode=barcode, limit=_RECENT)
        return next(load for load in reversed(loads) if load.job_id == job_id)

    async def seen(self, library: str, drives: Iterable[tuple[str, int]]) -> None:
        """Enter the drives of a library, by serial number and element, that are not known yet."""
        async with self._catalog.transaction() as catalog:
            for serial, element in drives:
                if await catalog.health.find_drive(serial) is None:
                    await catalog.health.save_drive(Drive(serial, library, element, self._clock.now()))

    async def set_drive(self, serial: str, state: DriveState, reason: str) -> Drive:
        """What an operator wants of a drive. One that is enabled begins anew: its failures are settled. NotFound."""
        async with self._catalog.transaction() as catalog:
            drive = await catalog.health.get_drive(serial)
            drive.state, drive.reason = state, reason
            await catalog.health.save_drive(drive)
            if state is DriveState.ENABLED:
                for load in await catalog.health.list_loads(drive=serial, failed=True):
                    load.settled = True
                    await catalog.health.save_load(load)
        return drive

    async def _suspect(self, catalog: Repositories, load: Load) -> None:
        cartridge = await catalog.media.get(load.barcode)
        if cartridge.state in (*_OURS, CartridgeState.SCRATCH):
            load.state_before = cartridge.state.value
            await catalog.health.save_load(load)
            await catalog.media.save(replace(cartridge, state=CartridgeState.SUSPECT, reason=load.error))

    async def _acquit(self, catalog: Repositories, load: Load) -> None:
        """It was the drive's fault: the failure counts against the cartridge no more, which is as it was if nothing
        else has become of it since."""
        cartridge = await catalog.media.find(load.barcode)
        was = cartridge is not None and (cartridge.state, cartridge.reason) == (CartridgeState.SUSPECT, load.error)
        if cartridge is not None and was and load.state_before:
            state = CartridgeState(load.state_before)
            await catalog.media.save(replace(cartridge, state=state, reason=""))
        load.state_before, load.settled = "", True
        await catalog.health.save_load(load)


def _report(drive: TapeDrive) -> tuple[tuple[int, ...], DriveCounters]:
    return (drive.alerts(), drive.counters()) if drive.capabilities.log_sense else ((), DriveCounters())
