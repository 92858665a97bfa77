"""`capstan scsi`: what devices were told, and what they said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from capstan.cli.state import state

scsi_app = typer.Typer(help="What goes over the wire to devices.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(scsi_app, name="scsi")


@scsi_app.command("replay")
def replay(
    context: typer.Context,
    file: Path = typer.Argument(..., help="What `--trace FILE` has written, with any command."),
    failed: bool = typer.Option(False, "--failed", help="Only commands that did not end well."),
) -> None:
    """Show a trace, decoded: every command, what it moved, how long it took, what the device said."""
    from capstan.errors import NotFound
    from capstan.scsi.tracing import describe_traced, read_trace

    try:
        with file.open(encoding="utf-8", errors="replace") as lines:
            told = [describe_traced(traced) for traced in read_trace(lines)]
    except OSError as error:
        raise NotFound(what="trace", name=str(file), hint=error.strerror) from None
    told = [item for item in told if not failed or item["status"] != 0]
    rows = [
        (f"{item['at']:.3f}", f"{item['seconds'] * 1000:.1f} ms", item["address"], f"{item['name']} {item['fields']}",
         item["moved"] or "-", _answer(item))
        for item in told
    ]  # fmt: skip
    columns = ("AT", "TOOK", "DEVICE", "COMMAND", "BYTES", "ANSWER")
    state(context).output.table(told, columns, rows, "no commands")


def _answer(item: dict[str, Any]) -> str:
    return str(item["error"] or item.get("sense_text") or item["status_name"].lower().replace("_", " "))
