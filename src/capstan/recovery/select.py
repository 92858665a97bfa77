"""Which set is meant, and which of its files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pathspec import GitIgnoreSpec

from capstan.catalog.catalog import Repositories
from capstan.core.backup import BackupSet, Conflicts
from capstan.core.files import display_path
from capstan.core.plain import plain, unplain
from capstan.core.suggest import did_you_mean
from capstan.errors import InvalidValue, NotFound, Refused


@dataclass(frozen=True, slots=True)
class RestoreRequest:
    """What a restore is asked to do.

    `reference`: a set's id or a unique prefix of it, `latest:NAME`, or `NAME@TIME` (the newest that had ended by then).
    `paths` are absolute or stored paths; each selects an entry and all below it. `patterns` are gitignore patterns
    against stored paths; given both, an entry must satisfy both. Neither: the whole set. `to` is the target directory.
    `conflicts`, `strip`: see `capstan.recovery.target`. `only_this_set`: what an incremental set itself has stored,
    without what it builds on.
    """

    reference: str
    to: Path
    library: str = ""
    paths: tuple[bytes, ...] = ()
    patterns: tuple[str, ...] = ()
    conflicts: Conflicts = Conflicts.SKIP
    strip: int = 0
    only_this_set: bool = False

    def as_parameters(self) -> dict[str, Any]:
        """All of it in a JSON-safe form, for the job's row: whoever resumes the job asks for exactly the same."""
        return {
            "set": self.reference,
            "to": plain(os.fsencode(self.to)),
            "library": self.library,
            "paths": [plain(path) for path in self.paths],
            "patterns": [plain(pattern.encode("utf-8", "surrogateescape")) for pattern in self.patterns],
            "conflicts": self.conflicts.value,
            "strip": self.strip,
            "only_this_set": self.only_this_set,
        }

    @classmethod
    def from_parameters(cls, parameters: dict[str, Any]) -> RestoreRequest:
        """The request that `as_parameters` was made of. Refused if it does not tell all of one."""
        try:
            return cls(
                reference=parameters["set"],
                to=Path(os.fsdecode(unplain(parameters["to"]))),
                library=parameters["library"],
                paths=tuple(map(unplain, parameters["paths"])),
                patterns=tuple(unplain(item).decode("utf-8", "surrogateescape") for item in parameters["patterns"]),
                conflicts=Conflicts(parameters["conflicts"]),
                strip=parameters["strip"],
                only_this_set=parameters["only_this_set"],
            )
        except (KeyError, TypeError, ValueError) as error:
            reason = f"the job does not say all that it was asked to do ({error})"
            raise Refused(reason=reason, hint="run the restore again") from None


@dataclass(frozen=True, slots=True)
class SetReference:
    """A parsed reference: an id prefix, or a name with a time (None: the latest)."""

    id_prefix: str = ""
    name: str = ""
    at: datetime | None = None


def parse_reference(text: str) -> SetReference:
    """`latest:NAME`, `NAME@TIME` (ISO 8601; local zone unless it has an offset), or an id prefix.

    Raises InvalidValue for a time that is none.
    """
    if text.startswith("latest:"):
        return SetReference(name=text.removeprefix("latest:"))
    name, at, time = text.rpartition("@")
    if not at:
        return SetReference(id_prefix=text)
    try:
        # A time without an offset is taken in the local zone; near the ends of the calendar there may be none.
        moment = datetime.fromisoformat(time).astimezone(UTC)
        if moment.microsecond == 0:
            moment = moment.replace(microsecond=999_999)  # as far as times are shown, it is that second
    except (ValueError, OverflowError):
        raise InvalidValue(
            what="time", value=time, reason="write ISO 8601, like 2025-06-30, 2025-06-30T18:00 or 2025-06-30T18:00Z"
        ) from None
    return SetReference(name=name, at=moment)


async def resolve_set(catalog: Repositories, text: str) -> BackupSet:
    """The set that `text` names: for a name, the newest COMPLETE one that had ended by the time. NotFound."""
    reference = parse_reference(text)
    if reference.id_prefix:
        try:
            return await catalog.backups.get(reference.id_prefix)
        except NotFound:
            raise await _unknown(catalog, "set", text, text) from None
    found = await catalog.backups.latest(reference.name, at=reference.at)
    if found is None:
        raise await _unknown(catalog, "complete set", text, reference.name)
    return found


async def _unknown(catalog: Repositories, what: str, text: str, series: str) -> NotFound:
    meant = did_you_mean(series, {found.name for found in await catalog.backups.list()}, prefix="latest:")
    return NotFound(what=what, name=text, hint=" ".join(filter(None, (meant, _LISTING))))


_LISTING = "`capstan sets` lists what there is, with its state; the newest of a series is latest:NAME"


@dataclass(slots=True)
class Selector:
    """Tells whether a stored path is selected. `unmatched`: paths of the request that nothing was found for yet."""

    paths: tuple[bytes, ...] = ()
    patterns: tuple[str, ...] = ()
    unmatched: set[bytes] = field(default_factory=set)
    _exact: frozenset[bytes] = frozenset()
    _spec: GitIgnoreSpec | None = None

    @property
    def everything(self) -> bool:
        """No path or pattern was given."""
        return not self._exact and self._spec is None

    def matches(self, path: bytes) -> bool:
        """Whether the entry at this stored path is selected."""
        if self._exact and not self._is_named(path):
            return False
        return self._spec is None or self._spec.match_file(display_path(path))

    def _is_named(self, path: bytes) -> bool:
        """Whether it is at or below one of the paths, of which there may be thousands."""
        while path not in self._exact:
            path, divided, _ = path.rpartition(b"/")
            if not divided:
                return False
        return True

    def note(self, path: bytes) -> None:
        """Remember that `path`, which matches, is in the set."""
        while path and self.unmatched:
            self.unmatched.discard(path)
            path = path.rpartition(b"/")[0]


def make_selector(paths: Sequence[bytes] = (), patterns: Sequence[str] = ()) -> Selector:
    """A selector for the paths and patterns of a request. Raises InvalidValue for a pattern that is none."""
    if b"" in paths:
        raise InvalidValue(what="path", value="", reason="it is empty; name none, or /, for the whole set")
    stored = tuple(dict.fromkeys(stored_path(path) for path in paths))
    if b"" in stored:
        stored = ()  # "/" is everything
    try:
        spec = GitIgnoreSpec.from_lines(patterns) if patterns else None
    except ValueError as error:
        raise InvalidValue(what="pattern", value=" ".join(patterns), reason=str(error)) from None
    return Selector(stored, tuple(patterns), set(stored), frozenset(stored), spec)


def stored_path(path: bytes) -> bytes:
    """`/srv//data/./x/` as it is stored: `srv/data/x`. `..` is kept: it names nothing in any set."""
    return b"/".join(part for part in path.split(b"/") if part not in (b"", b"."))
