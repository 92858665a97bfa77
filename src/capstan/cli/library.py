"""`capstan library`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from capstan.cli.state import state

if TYPE_CHECKING:
    from capstan.bootstrap import Capstan
    from capstan.tape.changer import Inventory

library_app = typer.Typer(help="Tape libraries: what is in them, and what moves.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(library_app, name="library")


@library_app.command("create")
def create(
    context: typer.Context,
    name: str,
    virtual: bool = typer.Option(False, "--virtual", help="An embedded virtual library."),
    drives: int = typer.Option(2, help="Drives."),
    slots: int = typer.Option(24, help="Slots."),
    ports: int = typer.Option(2, help="Mail slots."),
    cartridges: int = typer.Option(12, help="Cartridges to begin with."),
    generation: str = typer.Option("LTO-9", help="LTO-5 to LTO-10."),
    capacity: str = typer.Option(None, help="Capacity of a cartridge, if not the generation's: 1GiB, 18TB."),
    barcode_prefix: str = typer.Option("CAP", help="What barcodes begin with."),
    clean_every: int = typer.Option(0, min=0, help="Loads after which a drive asks to be cleaned; 0 for never."),
) -> None:
    """Build a virtual library. Its cartridges are scratch: backups may use them at once."""
    from capstan.cli.session import with_home
    from capstan.core.sizes import parse_size
    from capstan.errors import InvalidValue
    from capstan.scsi.virtual.library import LibrarySpec

    if not virtual:
        raise InvalidValue(
            what="library", value=name, reason="only virtual libraries can be created so far; add --virtual"
        )
    spec = LibrarySpec(
        name=name,
        drives=drives,
        slots=slots,
        ports=ports,
        cartridges=cartridges,
        generation=generation,
        capacity_bytes=None if capacity is None else parse_size(capacity, "capacity"),
        barcode_prefix=barcode_prefix,
        cleaning_cartridges=1 if slots > cartridges else 0,
        clean_every=clean_every,
    )

    async def work(capstan: Capstan) -> list[str]:
        return await capstan.create_virtual_library(spec)

    barcodes = with_home(state(context), work, writing=True)
    text = f"library {name}: {drives} drives, {slots} slots, {len(barcodes)} scratch cartridges"
    if barcodes:
        text += f" {barcodes[0]} … {barcodes[-1]}"
    state(context).output.result({"name": name, "kind": "virtual", "drives": drives, "cartridges": barcodes}, text)


@library_app.command("add")
def add(
    context: typer.Context,
    name: str,
    changer: str = typer.Option(
        "",
        help="The robot's address: sg:/dev/sg3 (`capstan discover` lists what there is). Left out for a single drive,"
        " whose cartridges people put in.",
    ),
    drive: list[str] = typer.Option(..., help="A drive's address; once for each."),
    reserve: bool = typer.Option(True, help="Keep other hosts from a drive while it is used, if it can be reserved."),
    compression: bool = typer.Option(None, help="Compression by the drives on or off, instead of as they are set."),
    early_warning: str = typer.Option("", help="Be warned that much before the drives' own early warning: 10GiB."),
    elements: list[str] = typer.Option(
        [], help="Element addresses that are ours, of a library that others use too: 1000-1019; once for each range."
    ),
) -> None:
    """Define a real library. Its drives are found in it by their serial numbers."""
    from capstan.cli.session import with_home
    from capstan.config.settings import parse_elements
    from capstan.core.sizes import parse_size

    options = {"reserve": reserve, "compression": compression, "elements": elements}
    options["early_warning"] = parse_size(early_warning) if early_warning else 0
    for part in elements:
        parse_elements(part)

    async def work(capstan: Capstan) -> dict[str, Any]:
        inventory = await capstan.add_library(name, changer, drive, **options)
        full = [element.barcode for element in inventory if element.full]
        return {"name": name, "kind": "devices", "drives": len(inventory.drives), "cartridges": full}

    added = with_home(state(context), work, writing=True)
    text = f"library {name}: {added['drives']} drives, {len(added['cartridges'])} cartridges that are not known yet"
    hint = "`capstan rebuild` reads what they hold; `capstan tape label BARCODE --pool POOL` makes them new"
    state(context).output.result(added, f"{text}\n{hint}")


@library_app.command("remove")
def remove(context: typer.Context, name: str) -> None:
    """Forget where a real library is. Sets and cartridges stay known."""
    from capstan.cli.session import with_home

    with_home(state(context), lambda capstan: capstan.remove_library(name), writing=True)
    state(context).output.result({"name": name}, f"library {name} is not defined any more")


@library_app.command("serve")
def serve(
    context: typer.Context,
    name: str,
    tcmu: bool = typer.Option(False, "--tcmu", help="To the Linux kernel of this machine, as /dev/sgN, /dev/nstN."),
    timeout: int = typer.Option(30, min=0, help="Seconds after which the kernel gives up a command; 0 for never."),
) -> None:
    """Let other programs use a virtual library, until this one is ended."""
    from capstan.cli.serving import serve_to_kernel
    from capstan.errors import InvalidValue

    if not tcmu:
        raise InvalidValue(what="how", value="", reason="say to whom: --tcmu")
    serve_to_kernel(state(context), name, seconds=timeout)


@library_app.command("list")
def list_libraries(context: typer.Context) -> None:
    """All libraries that are defined."""
    from capstan.cli.session import with_home

    async def work(capstan: Capstan) -> list[dict[str, Any]]:
        found = []
        async with capstan.catalog.snapshot() as catalog:
            for name, definition in sorted(capstan.settings.libraries.items()):
                cartridges = [item for item in await catalog.media.list(library=name) if item.place]
                found.append({**definition.model_dump(), "name": name, "cartridges": len(cartridges)})
        return found

    found = with_home(state(context), work)
    rows = [
        (item["name"], item["kind"], item["cartridges"], item.get("path") or item["changer"] or item["drives"][0])
        for item in found
    ]
    state(context).output.table(found, ("NAME", "KIND", "CARTRIDGES", "WHERE"), rows, "no libraries yet")


@library_app.command("show")
def show(context: typer.Context, name: str) -> None:
    """Every drive, slot and mail slot, as the catalog last saw it."""
    from capstan.cli.session import with_home

    async def work(capstan: Capstan) -> list[dict[str, Any]]:
        capstan.library(name)
        async with capstan.catalog.snapshot() as catalog:
            found = [item for item in await catalog.media.list(library=name) if item.place]
        return [
            {"place": item.place, "barcode": item.barcode, "state": item.state.value, "pool": item.pool}
            for item in sorted(found, key=lambda item: item.place)
        ]

    found = with_home(state(context), work)
    rows = [tuple(item.values()) for item in found]
    state(context).output.table(found, ("PLACE", "BARCODE", "STATE", "POOL"), rows, "the library is empty")


@library_app.command("inventory")
def inventory(context: typer.Context, name: str) -> None:
    """Let the robot look at every place, and bring the catalog up to date."""
    from capstan.cli.session import with_home

    async def work(capstan: Capstan) -> Inventory:
        return await capstan.operations.inventory(name, rescan=True)

    found = with_home(state(context), work, writing=True)
    value = [{"place": str(item.place), "full": item.full, "barcode": item.barcode} for item in found]
    rows = [(item["place"], item["barcode"] or ("?" if item["full"] else "-")) for item in value]
    state(context).output.table(value, ("PLACE", "BARCODE"), rows, "the library has no elements")


@library_app.command("move")
def move(context: typer.Context, name: str, source: str, destination: str) -> None:
    """Move a cartridge: FROM and TO are places (slot:1001, drive:101, port:201); FROM may be a barcode."""
    from capstan.cli.session import with_home

    async def work(capstan: Capstan) -> dict[str, str]:
        return await capstan.operations.move(name, source, destination)

    moved = with_home(state(context), work, writing=True)
    state(context).output.result(moved, f"{moved['barcode']}: {moved['from']} → {moved['to']}")


@library_app.command("import")
def import_all(
    context: typer.Context,
    name: str,
    cartridge: list[str] = typer.Option([], help="A barcode, for a drive without a robot; once for each cartridge."),
) -> None:
    """Take in what lies in the mail slots; or say which cartridges there are for a drive without a robot."""
    from capstan.cli.session import run_job
    from capstan.core.job import JobKind

    async def work(capstan: Capstan, job: Any) -> dict[str, Any]:
        if cartridge:
            return {"imported": await capstan.operations.shelve(name, cartridge, job)}
        return {"imported": await capstan.operations.import_all(name, job)}

    result = run_job(state(context), JobKind.MOVE, work, library=name)
    lines = [f"{item['barcode']}: {item['from'] or 'new'} → {item['to']}" for item in result["imported"]]
    state(context).output.result(result, "\n".join(lines) or "there is nothing new")


@library_app.command("export")
def export(context: typer.Context, name: str, barcode: str) -> None:
    """Move a cartridge to a mail slot, to be taken out; or take it off the shelf of a drive without a robot."""
    from capstan.cli.session import run_job
    from capstan.core.job import JobKind

    async def work(capstan: Capstan, job: Any) -> dict[str, Any]:
        return await capstan.operations.export(name, barcode, job)

    moved = run_job(state(context), JobKind.MOVE, work, library=name)
    state(context).output.result(moved, f"{moved['barcode']}: {moved['from']} → {moved['to'] or 'taken away'}")
