"""What a restore or a verification found: counts, and everything that went wrong, by cartridge, block and path."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from capstan.catalog.chains import Shortfall
from capstan.core.files import display_path
from capstan.errors import CapstanError, CartridgeMissing, DamageFound, SetPartial, VerificationFailed

_KEPT = 10_000  # problems that are kept one by one; all are counted

TOLD = 1000  # problems that a result has one by one; the counts are exact, and the job's warnings have all

_RECENT = 64  # of the damaged places; a drive that reads again meets these


@dataclass(frozen=True, slots=True)
class Trouble:
    """A place on a cartridge that is not what was written, or (`missing`) cannot be reached."""

    barcode: str
    block: int
    what: str
    missing: bool = False

    def as_dict(self) -> dict[str, Any]:
        return {"cartridge": self.barcode, "block": self.block, "what": self.what}


@dataclass(frozen=True, slots=True)
class Problem:
    """One entry that could not be restored or verified. `trouble` is the cause on tape, None when it lies elsewhere
    (the target)."""

    code: str
    path: bytes
    what: str
    trouble: Trouble | None = None

    def as_dict(self) -> dict[str, Any]:
        place = self.trouble.as_dict() if self.trouble else {"cartridge": "", "block": -1}
        return {**place, "path": "/" + display_path(self.path), "code": self.code, "what": self.what}


@dataclass(slots=True)
class RecoveryReport:
    """Counted by the threads of one restore, each field by one of them, and read by the engine for progress.

    `entries` counts what was handled, `files` all of them but directories, `content_bytes` what was written of them,
    `verified_files` those whose digest agreed.
    `warnings` are the first of them, `warning_codes` counts all by code.
    `partial`: parts of the set are gone, so that nobody knows what else should be there.
    `damage`: places on tape, whether or not a selected file lies there. `origins`: how many files came from each
    cartridge, those that lie on two counted in both; `from_copies`: the first files that came from copies, and where
    from. `hear` is told of every problem and warning, by
    the thread that met it; only the first are kept here.
    """

    hear: Callable[[Problem], None] = lambda problem: None
    entries: int = 0
    files: int = 0
    content_bytes: int = 0
    verified_files: int = 0
    skipped: int = 0
    unchecked: int = 0
    locates: int = 0
    bytes_read: int = 0
    error_count: int = 0
    warning_count: int = 0
    current: bytes = b""
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    warning_codes: dict[str, int] = field(default_factory=dict)
    damage: list[Trouble] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    partial: Shortfall | None = None
    origins: dict[str, int] = field(default_factory=dict)
    from_copies: list[tuple[bytes, list[str]]] = field(default_factory=list)
    from_copies_count: int = 0

    def came_from(self, path: bytes, origins: Mapping[str, int]) -> None:
        """A file is there, whole, from these cartridges (barcodes), each with the number of the copy on it."""
        for barcode in origins:
            self.origins[barcode] = self.origins.get(barcode, 0) + 1
        if any(origins.values()):
            self.from_copies_count += 1
            if len(self.from_copies) < TOLD:
                self.from_copies.append((path, sorted(origins)))

    def error(self, code: str, path: bytes, what: str, trouble: Trouble | None = None) -> None:
        """An entry that was asked for and is not there as it was stored."""
        self.error_count += 1
        self._keep(self.problems, Problem(code, path, what, trouble))

    def warn(self, code: str, path: bytes, what: str) -> None:
        """Something a person should know; every byte that was stored is there."""
        self.warning_count += 1
        self.warning_codes[code] = self.warning_codes.get(code, 0) + 1
        self._keep(self.warnings, Problem(code, path, what))

    def spoil(self, trouble: Trouble) -> None:
        """A place on tape that is damaged; naming it again changes nothing."""
        if len(self.damage) < _KEPT and trouble not in self.damage[-_RECENT:]:
            self.damage.append(trouble)

    def fall_short(self, shortfall: Shortfall) -> None:
        """The set is not all of its time: a warning, and where parts of it are gone, never sound."""
        self.warn(shortfall.code, shortfall.path, shortfall.what)
        if shortfall.code == "partial-set":
            self.partial = shortfall

    def _keep(self, kept: list[Problem], problem: Problem) -> None:
        if len(kept) < _KEPT:
            kept.append(problem)
        self.hear(problem)

    @property
    def sound(self) -> bool:
        """Nothing is damaged or missing."""
        return not (self.error_count or self.damage or self.missing or self.partial)

    def first(self) -> str:
        """The first thing that is wrong, for a message."""
        if self.problems:
            problem = self.problems[0]
            where = f" ({problem.trouble.barcode}, block {problem.trouble.block})" if problem.trouble else ""
            return f"/{display_path(problem.path)}{where}"
        if self.damage:
            return f"{self.damage[0].barcode}, block {self.damage[0].block}: {self.damage[0].what}"
        return ", ".join(self.missing)


def counts(report: RecoveryReport) -> dict[str, Any]:
    """The part of a result that says what was done and what is wrong."""
    return {
        "files": report.files,
        "bytes": report.content_bytes,
        "verified_files": report.verified_files,
        "skipped": report.skipped,
        "bytes_read_from_tape": report.bytes_read,
        "locates": report.locates,
        "errors": report.error_count,
        "warnings": report.warning_count,
        "warning_codes": dict(report.warning_codes),
        "missing_cartridges": list(report.missing),
        "problems": [problem.as_dict() for problem in report.problems[:TOLD]],
        "damage": [trouble.as_dict() for trouble in report.damage[:TOLD]],
        "files_by_cartridge": dict(sorted(report.origins.items())),
        "files_from_copies": report.from_copies_count,
        "from_copies": [
            {"path": "/" + display_path(path), "cartridges": barcodes} for path, barcodes in report.from_copies
        ],
    }


def raise_if_unsound(report: RecoveryReport, result: dict[str, Any]) -> None:
    """Raise what a result that is not whole ends with; `result` goes along."""
    if report.sound:
        return
    error: CapstanError
    absent = not report.damage and all(problem.code in ("missing", "lost") for problem in report.problems)
    if absent and report.partial is not None:
        error = SetPartial(set=report.partial.set_id, reason=report.partial.what)
    elif absent and report.missing:
        error = CartridgeMissing(barcodes=", ".join(report.missing), files=report.error_count)
    else:
        kind = VerificationFailed if report.error_count else DamageFound
        error = kind(count=report.error_count or len(report.damage), first=report.first())
    error.result = result
    raise error
