"""`capstan drive`: single drives, their health, cleaning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from capstan.cli.state import state

if TYPE_CHECKING:
    from capstan.bootstrap import Capstan
    from capstan.core.health import Drive, DriveState, Load

drive_app = typer.Typer(help="Drives: their health, cleaning, and whether jobs may use them.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(drive_app, name="drive")


@drive_app.command("list")
def list_drives(context: typer.Context, library: str = typer.Option(None, help="Only those of this library.")) -> None:
    """All drives that were ever seen."""
    from capstan.cli.session import with_home

    async def work(capstan: Capstan) -> list[dict[str, Any]]:
        if library is not None:
            capstan.library(library)
        async with capstan.catalog.snapshot() as catalog:
            return [_drive(drive) for drive in await catalog.health.list_drives(library=library)]

    found = with_home(state(context), work)
    rows = [(d["serial"], d["library"], d["element"], d["state"], d["loads"], _cleaned(d), d["product"]) for d in found]
    columns = ("SERIAL", "LIBRARY", "ELEMENT", "STATE", "LOADS", "CLEANED", "PRODUCT")
    state(context).output.table(found, columns, rows, "no drives yet: `capstan library inventory NAME` finds them")


@drive_app.command("show")
def show(
    context: typer.Context, serial: str, limit: int = typer.Option(20, min=1, help="How many loads, the newest.")
) -> None:
    """One drive, the cartridges that failed in it, and its last loads."""
    from capstan.cli.session import with_home

    async def work(capstan: Capstan) -> dict[str, Any]:
        async with capstan.catalog.snapshot() as catalog:
            drive = await catalog.health.get_drive(serial)
            loads = await catalog.health.list_loads(drive=serial)
        failed = [load for load in loads if load.failed]
        return {
            **_drive(drive),
            "failures": {barcode: sum(load.barcode == barcode for load in failed) for barcode in _barcodes(failed)},
            "last_loads": [describe_load(load) for load in loads[-limit:]],
        }

    found = with_home(state(context), work)
    lines = [f"{key}: {value}" for key, value in found.items() if key not in ("failures", "last_loads")]
    lines += [f"failed with {barcode}: {count}" for barcode, count in found["failures"].items()]
    lines += [load_line(load, load["barcode"]) for load in found["last_loads"]]
    state(context).output.result(found, "\n".join(lines))


@drive_app.command("clean")
def clean(context: typer.Context, serial: str) -> None:
    """Clean a drive now, with a cleaning cartridge of its library."""
    from capstan.cli.session import run_job
    from capstan.core.job import JobKind

    async def work(capstan: Capstan, job: Any) -> dict[str, Any]:
        async with capstan.catalog.snapshot() as catalog:
            drive = await catalog.health.get_drive(serial)
        return await capstan.manager.clean_drive(drive.library, serial, job)

    done = run_job(state(context), JobKind.CLEAN, work, parameters={"drive": serial})
    text = f"drive {serial} was cleaned; {done['cartridge']} can clean {done['uses_left']} times more"
    state(context).output.result(done, text)


@drive_app.command("drain")
def drain(
    context: typer.Context,
    serial: str,
    reason: str = typer.Option("an operator wants it left alone", help="Why; shown wherever the drive is."),
) -> None:
    """Let no further job use a drive; what runs in it goes on."""
    from capstan.core.health import DriveState

    drive = _change(context, serial, DriveState.DRAINED, reason)
    state(context).output.result(drive, f"drive {serial} is drained: {reason}")


@drive_app.command("enable")
def enable(context: typer.Context, serial: str) -> None:
    """Let jobs use a drive again. What failed in it counts no more against it."""
    from capstan.core.health import DriveState

    state(context).output.result(_change(context, serial, DriveState.ENABLED, ""), f"drive {serial} is enabled")


def _change(context: typer.Context, serial: str, wanted: DriveState, reason: str) -> dict[str, Any]:
    from capstan.cli.session import with_home

    async def work(capstan: Capstan) -> dict[str, Any]:
        return _drive(await capstan.manager.health.set_drive(serial, wanted, reason))

    return with_home(state(context), work)


def _drive(drive: Drive) -> dict[str, Any]:
    return {
        "serial": drive.serial,
        "library": drive.library,
        "element": drive.element,
        "product": drive.product,
        "state": drive.state.value,
        "reason": drive.reason,
        "loads": drive.loads,
        "wants_cleaning": drive.wants_cleaning,
        "cleaned_at": drive.cleaned_at.isoformat() if drive.cleaned_at else None,
    }


def _cleaned(drive: dict[str, Any]) -> str:
    return "wanted" if drive["wants_cleaning"] else (drive["cleaned_at"] or "-")[:10]


def _barcodes(loads: list[Load]) -> list[str]:
    return sorted({load.barcode for load in loads})


def describe_load(load: Load) -> dict[str, Any]:
    """A load as `--json` has it; alerts in words too."""
    from capstan.tape.alerts import alert_of

    return {
        "drive": load.drive,
        "barcode": load.barcode,
        "job_id": load.job_id,
        "loaded_at": load.loaded_at.isoformat(),
        "unloaded_at": load.unloaded_at.isoformat() if load.unloaded_at else None,
        "code": load.code,
        "error": load.error,
        "settled": load.settled,
        "alerts": [
            {"flag": alert.flag, "name": alert.name, "severity": alert.severity.value, "remedy": alert.remedy}
            for alert in map(alert_of, load.alerts)
        ],
        "counters": load.counters,
    }


def load_line(load: dict[str, Any], other: str) -> str:
    """A load as a line for people; `other`: what the drive, or cartridge, was together with."""
    parts = [load["loaded_at"][:16].replace("T", " "), other, load["job_id"]]
    parts += [load["error"] + (" (settled)" if load["settled"] else "")] if load["error"] else []
    parts += [f"TapeAlert {alert['flag']} {alert['name']}" for alert in load["alerts"]]
    return "  ".join(parts)
