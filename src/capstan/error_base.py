"""What all errors have in common: a code, an exit code, a remedy, parameters, and templates for their text."""

from __future__ import annotations

from enum import Enum
from typing import Any, ClassVar


class Remedy(Enum):
    """What may be done about an error by the engine that catches it."""

    RETRY = "retry"  # the same again may work
    REPOSITION = "reposition"  # go back to the last known position, compare, go on
    NEW_CARTRIDGE = "new-cartridge"  # go back to the last commit point and go on with another cartridge
    NEW_DRIVE = "new-drive"  # the same, with another drive
    OPERATOR = "operator"  # a person must do something first
    ABORT = "abort"  # nothing can be done by going on


_LONGEST = 1000  # characters of one parameter in a message


class _Lenient(dict[str, Any]):
    def __missing__(self, key: str) -> str:
        return "?"


class CapstanError(Exception):
    """Base of all. Built from keyword parameters, which fill the templates `message` and `hint`.

    `result`: what was done all the same, where an engine went on to the end before it raised; for the caller to show.
    """

    code: ClassVar[str] = "failed"
    exit_code: ClassVar[int] = 1
    remedy: ClassVar[Remedy] = Remedy.ABORT
    message: ClassVar[str] = "{reason}"
    hint: ClassVar[str] = ""
    result: dict[str, Any] | None = None

    def __init__(self, **parameters: Any) -> None:
        super().__init__()
        self.parameters = parameters

    def __str__(self) -> str:
        return self.message.format_map(_Lenient({key: _shown(value) for key, value in self.parameters.items()}))

    @property
    def hint_text(self) -> str:
        """What to do, or an empty string. A parameter named `hint` is the text itself, in the template's place."""
        if "hint" in self.parameters:
            return str(self.parameters["hint"])
        return self.hint.format_map(_Lenient(self.parameters))

    def as_dict(self) -> dict[str, Any]:
        """The form for `--json`, events and the catalog: code, message, hint, parameters (JSON-safe)."""
        return {
            "code": self.code,
            "message": str(self),
            "hint": self.hint_text,
            "parameters": {
                key: value if isinstance(value, int | float | bool | None) else str(value)
                for key, value in self.parameters.items()
                if key != "hint"
            },
        }


def _shown(value: Any) -> Any:
    """A value as a message has it: the end of a very long text is left out."""
    return value[:_LONGEST] + "…" if isinstance(value, str) and len(value) > _LONGEST else value


class Delivery(Enum):
    """Whether a command without an answer can have reached the device."""

    NOT_DELIVERED = "not-delivered"
    UNKNOWN = "unknown"
