"""The command `capstan`: one pass over the arguments, one place that turns errors into exit codes."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from capstan.cli.output import Output
from capstan.errors import CapstanError, UsageError

# `--json` and `--home` may stand before or behind the subcommand. These words never take a value of their own, so a
# pass over the arguments cannot mistake an option's value for them unless it is spelled like them.
_JSON = "--json"
_HOME = "--home"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code (see `capstan.errors`)."""
    rest, home, json_mode = split_arguments(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A path that is not UTF-8 is shown with escapes, in JSON with those of JSON: it never ends a command.
            stream.reconfigure(errors="backslashreplace")
    output = Output(json_mode=json_mode)
    from capstan.cli.app import run
    from capstan.cli.state import State

    state = State(home=Path(home or os.environ.get("CAPSTAN_HOME") or default_home()).expanduser(), output=output)
    try:
        if home == "":
            raise UsageError(reason=f"{_HOME} needs a directory")
        return run(rest, state)
    except CapstanError as error:
        output.error(error)
        return error.exit_code
    except KeyboardInterrupt:
        output.note("interrupted")
        return 130
    except BrokenPipeError:
        # The reader of our output has gone (`capstan find … | head`): not our failure. Python would complain on exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], str | None, bool]:
    """The arguments without `--json` and `--home DIR`, wherever they stand before a bare `--`; an empty home is one
    that was asked for, with nothing behind it."""
    rest: list[str] = []
    home: str | None = None
    json_mode = False
    pending = iter(arguments)
    for argument in pending:
        if argument == "--":
            rest += ["--", *pending]
        elif argument == _JSON:
            json_mode = True
        elif argument == _HOME:
            home = next(pending, "")
        elif argument.startswith(f"{_HOME}="):
            home = argument.removeprefix(f"{_HOME}=")
        else:
            rest.append(argument)
    return rest, home, json_mode


def default_home() -> str:
    """The per-user data directory of this system."""
    if sys.platform == "win32":
        return os.path.join(os.environ.get("LOCALAPPDATA", "~"), "Capstan")  # noqa: PTH118
    return os.path.join(os.environ.get("XDG_DATA_HOME", "~/.local/share"), "capstan")  # noqa: PTH118


if __name__ == "__main__":
    sys.exit(main())
