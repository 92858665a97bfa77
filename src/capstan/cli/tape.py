"""`capstan tape`: single cartridges."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from capstan.cli.state import state

if TYPE_CHECKING:
    from capstan.bootstrap import Capstan
    from capstan.core.health import Load
    from capstan.core.media import Cartridge
    from capstan.tape.drive import TapeDrive

tape_app = typer.Typer(help="Cartridges: what is on them, labels, erasing.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(tape_app, name="tape")


@tape_app.command("list")
def list_cartridges(context: typer.Context) -> None:
    """All cartridges that the catalog knows."""
    from capstan.cli.session import with_home
    from capstan.core.sizes import format_size

    async def work(capstan: Capstan) -> list[Cartridge]:
        async with capstan.catalog.snapshot() as catalog:
            return list(await catalog.media.list())

    found = with_home(state(context), work)
    rows = [
        (c.barcode, c.state.value, c.pool, c.library, c.place or "outside", format_size(c.written_bytes),
         format_size(c.capacity_bytes) if c.capacity_bytes else "?")
        for c in found
    ]  # fmt: skip
    columns = ("BARCODE", "STATE", "POOL", "LIBRARY", "PLACE", "WRITTEN", "CAPACITY")
    state(context).output.table([_cartridge(c) for c in found], columns, rows, "no cartridges yet")


@tape_app.command("show")
def show(context: typer.Context, barcode: str) -> None:
    """One cartridge and the sets on it."""
    from capstan.cli.session import with_home

    async def work(capstan: Capstan) -> dict[str, Any]:
        async with capstan.catalog.snapshot() as catalog:
            cartridge = await catalog.media.get(barcode)
            sets = await catalog.backups.sets_on(cartridge.uuid) if cartridge.uuid else []
        return {
            **_cartridge(cartridge),
            "sets": [{"set_id": item.id, "name": item.name, "state": item.state.value} for item in sets],
        }

    found = with_home(state(context), work)
    lines = [f"{key}: {value}" for key, value in found.items() if key != "sets" and value not in ("", None)]
    lines += [f"set {item['set_id']} {item['name']} ({item['state']})" for item in found["sets"]]
    state(context).output.result(found, "\n".join(lines))


@tape_app.command("health")
def health(
    context: typer.Context,
    barcode: str | None = typer.Argument(None, help="One cartridge with its loads; else, what is wrong with any."),
) -> None:
    """What cartridges went through, in which drives, and which of them are not well."""
    from capstan.cli.drive import describe_load, load_line
    from capstan.cli.session import with_home

    async def work(capstan: Capstan) -> list[dict[str, Any]]:
        async with capstan.catalog.snapshot() as catalog:
            known = [await catalog.media.get(barcode)] if barcode else await catalog.media.list()
            loads = await catalog.health.list_loads(barcode=barcode)
        by_barcode: dict[str, list[Load]] = {item.barcode: [] for item in known}
        for load in loads:
            by_barcode.get(load.barcode, []).append(load)
        return [_health(item, by_barcode[item.barcode]) for item in known]

    found = with_home(state(context), work)
    output = state(context).output
    if barcode is None:
        ill = [{key: value for key, value in one.items() if key != "last_loads"} for one in found if _is_ill(one)]
        rows = [(one["barcode"], one["state"], one["loads"], one["failures"], one["reason"]) for one in ill]
        columns = ("BARCODE", "STATE", "LOADS", "FAILURES", "REASON")
        output.table(ill, columns, rows, "nothing is wrong with any cartridge")
        return
    [one] = found
    one["last_loads"] = [describe_load(load) for load in one["last_loads"]]
    lines = [f"{key}: {value}" for key, value in one.items() if key != "last_loads"]
    output.result(one, "\n".join([*lines, *(load_line(load, load["drive"]) for load in one["last_loads"])]))


@tape_app.command("label")
def label(
    context: typer.Context,
    barcode: str,
    pool: str = typer.Option(..., help="The pool that it shall belong to."),
    overwrite: bool = typer.Option(False, "--overwrite", help="Even if something else is on it: that is lost."),
) -> None:
    """Write a label on a blank cartridge."""
    from capstan.cli.session import run_job
    from capstan.core.job import JobKind

    async def work(capstan: Capstan, job: Any) -> dict[str, Any]:
        return _cartridge(await capstan.operations.label(barcode, pool, job, overwrite=overwrite))

    result = run_job(state(context), JobKind.LABEL, work, parameters={"barcode": barcode, "overwrite": overwrite})
    state(context).output.result(result, f"{barcode} belongs to pool {pool}")


@tape_app.command("erase")
def erase(
    context: typer.Context,
    barcode: str,
    long: bool = typer.Option(False, "--long", help="Overwrite the whole medium; takes hours."),
    yes: bool = typer.Option(False, "--yes", help="Really."),
) -> None:
    """Make a cartridge scratch. What is on it is lost."""
    from capstan.cli.session import run_job
    from capstan.core.job import JobKind
    from capstan.errors import Refused

    if not yes:
        raise Refused(reason=f"erasing {barcode} loses what is on it", hint="say so with --yes")

    async def work(capstan: Capstan, job: Any) -> dict[str, Any]:
        async with capstan.catalog.snapshot() as catalog:
            label = (await catalog.media.get(barcode)).uuid
        result = await capstan.operations.erase(barcode, job, long=long)
        capstan.store.forget_cartridge(label)
        for set_id in result["forgotten_sets"]:
            capstan.store.remove(set_id)
        return result

    result = run_job(state(context), JobKind.ERASE, work, parameters={"barcode": barcode, "long": long})
    text = f"{barcode} is scratch"
    words = {"forgotten_sets": "forgotten", "partial_sets": "now partial", "broken_sets": "build on them"}
    for key, word in words.items():
        if result[key]:
            text += f"; {word}: {', '.join(result[key])}"
    state(context).output.result(result, text)


@tape_app.command("dump")
def dump(
    context: typer.Context,
    barcode: str,
    records: bool = typer.Option(False, "--records", help="List each record too (in JSON they always are)."),
) -> None:
    """List every tape file and record: what it is, where it lies, how large it is."""
    from capstan.format.scan import scan_tape

    def scan(drive: TapeDrive) -> list[dict[str, Any]]:
        return [_tape_file(found) for found in scan_tape(drive, barcode)]

    found = _on_drive(context, barcode, scan)
    rows = [
        (item["number"], item["kind"], item["block"], item["records"], item["bytes"], item["set"], item["segment"])
        for item in found
    ]
    if records:
        rows = [row for item, head in zip(found, rows, strict=True) for row in (head, *_record_rows(item))]
    columns = ("FILE", "KIND", "BLOCK", "RECORDS", "BYTES", "SET", "SEGMENT")
    state(context).output.table(found, columns, rows, "the cartridge is blank")


@tape_app.command("extract")
def extract(
    context: typer.Context,
    barcode: str,
    to: str = typer.Option(..., "--to", metavar="DIR", help="The directory to write to; made if it is missing."),
) -> None:
    """Write each tape file as a plain file, header record and payload: what `dd` would give on a drive."""
    from capstan.cli.session import given_path
    from capstan.errors import TargetError
    from capstan.format.scan import extract_tape

    folder = given_path("to", to)

    def copy(drive: TapeDrive) -> list[dict[str, Any]]:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return [{**_tape_file(found), "path": str(path)} for found, path in extract_tape(drive, barcode, folder)]
        except OSError as error:
            raise TargetError(path=folder, reason=error.strerror or str(error)) from None

    found = _on_drive(context, barcode, copy, folder)
    rows = [(Path(item["path"]).name, item["kind"], item["bytes"]) for item in found]
    state(context).output.table(found, ("FILE", "KIND", "BYTES"), rows, "the cartridge is blank")


def _on_drive(context: typer.Context, barcode: str, work: Any, target: Path | None = None) -> list[dict[str, Any]]:
    from capstan.cli.session import run_job
    from capstan.core.job import JobKind

    async def body(capstan: Capstan, job: Any) -> dict[str, Any]:
        if target is not None:
            capstan.check_target(target)
        async with capstan.operations.raw(barcode, job) as lane:
            return {"tape_files": await lane.run(work)}

    found: list[dict[str, Any]] = run_job(state(context), JobKind.INVENTORY, body, parameters={"barcode": barcode})[
        "tape_files"
    ]
    return found


def _tape_file(found: Any) -> dict[str, Any]:
    header = found.header
    return {
        "number": found.number,
        "kind": str(header.kind) if header else "unknown",
        "block": found.block,
        "records": found.records,
        "bytes": found.bytes,
        "set": (header.set or "") if header else "",
        "segment": header.segment if header else None,
        "sequence": header.sequence if header else None,
        "record_sizes": found.sizes,
    }


def _record_rows(item: dict[str, Any]) -> list[tuple[Any, ...]]:
    """A row for each record of a tape file; a size of 0 is a record that cannot be read."""
    return [
        ("", "record" if size else "UNREADABLE", item["block"] + number, "", size, "", "")
        for number, size in enumerate(item["record_sizes"])
    ]


def _health(cartridge: Cartridge, loads: list[Load]) -> dict[str, Any]:
    failed = [load for load in loads if load.failed]
    return {
        "barcode": cartridge.barcode,
        "state": cartridge.state.value,
        "reason": cartridge.reason,
        "loads": cartridge.loads,
        "failures": len(failed),
        "failed_in": sorted({load.drive for load in failed}),
        "written_bytes": sum(load.counters.get("written_bytes", 0) for load in loads),
        "read_bytes": sum(load.counters.get("read_bytes", 0) for load in loads),
        "verified_at": cartridge.verified_at.isoformat() if cartridge.verified_at else None,
        "verify_result": cartridge.verify_result,
        "last_loads": loads[-20:],
    }


def _is_ill(one: dict[str, Any]) -> bool:
    return bool(one["failures"]) or one["state"] in ("suspect", "foreign", "retired")


def _cartridge(cartridge: Cartridge) -> dict[str, Any]:
    """What a program is told of a cartridge; also kept as a job's result, so nothing but what JSON has."""
    facts = asdict(cartridge).items()
    return {key: value.isoformat() if isinstance(value, datetime) else value for key, value in facts}
