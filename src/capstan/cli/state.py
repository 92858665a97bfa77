"""What every command is given: the home to work on, and where to print."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import typer

from capstan.cli.output import Output


@dataclass(frozen=True, slots=True)
class State:
    """What every command has: `context.obj`. `trace`: where to keep what goes over the wire."""

    home: Path
    output: Output
    trace: Path | None = None


def state(context: typer.Context) -> State:
    """The state of this run."""
    found = context.obj
    assert isinstance(found, State)
    return found
