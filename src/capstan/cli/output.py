"""What a command prints: tables and lines for people, one JSON document for programs.

Results go to standard output; progress, warnings and notes to standard error, as JSON lines in `--json` mode.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from capstan.errors import CapstanError


class Output:
    """One for each run of the command line."""

    def __init__(self, *, json_mode: bool) -> None:
        self.json_mode = json_mode
        self._in_array = False
        self.terminal = sys.stderr.isatty() and not json_mode

    def result(self, value: Any, text: str | None = None) -> None:
        """Print the command's result: `value` as JSON, or `text` for people."""
        if self.json_mode:
            print(json.dumps(value, default=_plain, ensure_ascii=False), flush=True)
        elif text:
            print(text, flush=True)

    def table(self, value: Sequence[Any], columns: Sequence[str], rows: Iterable[Sequence[Any]], empty: str) -> None:
        """Print `value` as a JSON array, or `rows` as a table; `empty` is said when there are none."""
        if self.json_mode:
            self.result(value)
            return
        cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
        if not cells:
            print(empty)
            return
        if sys.stdout.isatty():
            self._rich_table(columns, cells)
            return
        widths = [max(len(row[i]) for row in [list(columns), *cells]) for i in range(len(columns))]
        for row in [list(columns), *cells]:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())

    def array(self, values: Iterable[Any]) -> None:
        """Print one JSON array, piece by piece: there may be millions."""
        for value in values:  # an error before the first value leaves standard output to it
            print(
                "," if self._in_array else "[", json.dumps(value, default=_plain, ensure_ascii=False), sep="\n", end=""
            )
            self._in_array = True
        print("\n]" if self._in_array else "[]", flush=True)
        self._in_array = False

    def event(self, kind: str, data: dict[str, Any], text: str = "") -> None:
        """Tell what is going on, on standard error."""
        if self.json_mode:
            print(json.dumps({"event": kind, **data}, default=_plain, ensure_ascii=False), file=sys.stderr, flush=True)
        elif text:
            print(text, file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        """A word to the person at the terminal."""
        self.event("note", {"text": text}, text)

    def error(self, error: CapstanError) -> None:
        """What happened and what to do. In `--json` mode as an object on standard output, in a result's place; behind
        the first values of an array, which is closed, as an event on standard error."""
        if self._in_array:
            print("\n]", flush=True)
            self.event("error", {"error": error.as_dict()})
            return
        if self.json_mode:
            print(json.dumps({"error": error.as_dict()}, default=_plain, ensure_ascii=False), flush=True)
            return
        print(f"capstan: {error}", file=sys.stderr)
        if error.hint_text:
            print(f"hint: {error.hint_text}", file=sys.stderr)

    @staticmethod
    def _rich_table(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> None:
        from rich.console import Console
        from rich.markup import escape
        from rich.table import Table

        table = Table(box=None, header_style="bold", pad_edge=False)
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in cells:
            table.add_row(*(escape(cell) for cell in row))
        Console().print(table)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, bytes):
        return value.hex()
    return str(value)
