"""`capstan discover`."""

from __future__ import annotations

import typer

from capstan.cli.state import state


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(discover)


def discover(context: typer.Context) -> None:
    """Find the tape drives and libraries of this machine, and say what is wrong with any."""
    from capstan.device_discovery import discover as find

    found = find()
    output = state(context).output
    rows = [(item.address, item.kind, item.product, item.serial, item.generation,
             f"{item.changer} drive:{item.element}" if item.changer else "", item.trouble or item.state)
            for item in found]  # fmt: skip
    columns = ("ADDRESS", "KIND", "PRODUCT", "SERIAL", "MEDIUM", "IN", "STATE")
    output.table([item.as_dict() for item in found], columns, rows, _nothing())
    changers = [item for item in found if item.kind == "changer" and not item.trouble]
    for changer in changers if not output.json_mode else ():
        drives = " ".join(f"--drive {item.address}" for item in found if item.changer == changer.address)
        if drives:
            output.note(f"`capstan library add NAME --changer {changer.address} {drives}`")


def _nothing() -> str:
    import sys

    if sys.platform == "win32":
        return "no tape drive or library: is its driver installed?"
    from capstan.scsi.linux_discovery import what_is_missing

    return what_is_missing() or "no tape drive or library: is it switched on, cabled, and its LUN visible to this host?"
