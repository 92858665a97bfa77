"""The commands, put together. Nothing heavy is imported before a command runs: `--help` answers at once."""

from __future__ import annotations

from collections.abc import Sequence

import typer

from capstan import __version__
from capstan.cli.state import State, state
from capstan.errors import UsageError

_OPTIONS = """\
--json, --home DIR (or CAPSTAN_HOME) and --trace FILE (what goes over the wire to devices) may stand anywhere.

Exit codes: 0 done · 1 failed · 2 usage · 3 not found · 4 in use · 5 the operator must do something · 6 data is damaged
or missing · 7 the device failed · 8 the home cannot be used · 130 cancelled.
"""


def build() -> typer.Typer:
    """The whole command line."""
    from capstan.cli import backup, copy, demo, discover, drive, find, jobs, keys, library, pool, recovery, scsi, tape

    app = typer.Typer(
        name="capstan",
        help="Tape backup that anyone can restore.\n\n" + _OPTIONS,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True)(_root)
    for module in (demo, discover, library, pool, tape, drive, backup, copy, find, recovery, jobs, keys, scsi):
        module.register(app)
    return app


def _root(context: typer.Context, version: bool = typer.Option(False, "--version", help="Say the version.")) -> None:
    if version:
        state(context).output.result({"version": __version__}, f"capstan {__version__}")
        raise typer.Exit


def run(arguments: Sequence[str], current: State) -> int:
    """Run one command; CapstanError goes up to `main`."""
    command = typer.main.get_command(build())
    try:
        result = command.main(args=list(arguments), prog_name="capstan", standalone_mode=False, obj=current)
    except typer.Exit as stop:
        return stop.exit_code
    except typer.Abort:
        raise KeyboardInterrupt from None
    except Exception as error:
        # Typer's usage errors have no public class; they are known by what they can do.
        if not hasattr(error, "format_message"):
            raise
        usage = UsageError(reason=error.format_message(), hint="see --help")
        current.output.error(usage)
        return usage.exit_code
    return result if isinstance(result, int) else 0
