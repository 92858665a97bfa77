"""What a name that is not there was probably meant to be."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from capstan.errors import NotFound

_LONGEST = 100  # characters of a name that is compared: the comparison is quadratic
_MOST = 3


def not_found(what: str, name: str, known: Iterable[str], listing: str = "") -> NotFound:
    """The error for a `name` that is none of `known`, with those that are like it, whatever their case; `listing` says
    how to see all."""
    return NotFound(what=what, name=name, hint=" ".join(filter(None, (did_you_mean(name, known), listing))))


def did_you_mean(name: str, known: Iterable[str], prefix: str = "") -> str:
    """The question with those of `known` that are like `name`, each behind `prefix`; an empty text when none is."""
    spelled = {item.casefold(): item for item in known}
    near = [prefix + spelled[item] for item in get_close_matches(name.casefold()[:_LONGEST], spelled, n=_MOST)]
    return f"did you mean {' or '.join(near)}?" if near else ""
