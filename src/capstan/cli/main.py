"""The command `capstan`: one pass over the arguments, one place that turns errors into exit codes."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from capstan.cli.output import Output
from capstan.errors import CapstanError, UsageError

# These may stand before or behind the subcommand. No option takes a value that is spelled like them, so a pass over the
# arguments cannot mistake one for them.
_JSON = "--json"
_HOME = "--home"
_TRACE = "--trace"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code (see `capstan.errors`)."""
    rest, given, json_mode = split_arguments(sys.argv[1:] if arguments is None else arguments)
    home, trace = given.get(_HOME), given.get(_TRACE)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A path that is not UTF-8 is shown with escapes, in JSON with those of JSON: it never ends a command.
            stream.reconfigure(errors="backslashreplace")
    output = Output(json_mode=json_mode)
    from capstan.cli.app import run
    from capstan.cli.state import State

    path = Path(home or os.environ.get("CAPSTAN_HOME") or default_home()).expanduser()
    state = State(home=path, output=output, trace=Path(trace) if trace else None)
    try:
        if "" in given.values():
            raise UsageError(reason=f"{_HOME} needs a directory" if home == "" else f"{_TRACE} needs a file")
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


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], dict[str, str], bool]:
    """The arguments without `--json`, `--home DIR` and `--trace FILE`, wherever they stand before a bare `--`; an empty
    value is one that was asked for, with nothing behind it."""
    rest: list[str] = []
    given: dict[str, str] = {}
    json_mode = False
    pending = iter(arguments)
    for argument in pending:
        option, equals, value = argument.partition("=")
        if argument == "--":
            rest += ["--", *pending]
        elif argument == _JSON:
            json_mode = True
        elif option in (_HOME, _TRACE):
            given[option] = value if equals else next(pending, "")
        else:
            rest.append(argument)
    return rest, given, json_mode


def default_home() -> str:
    """The per-user data directory of this system."""
    if sys.platform == "win32":
        return os.path.join(os.environ.get("LOCALAPPDATA", "~"), "Capstan")  # noqa: PTH118
    return os.path.join(os.environ.get("XDG_DATA_HOME", "~/.local/share"), "capstan")  # noqa: PTH118


if __name__ == "__main__":
    sys.exit(main())
