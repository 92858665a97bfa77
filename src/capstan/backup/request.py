"""What a backup is asked to do."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from capstan.core.backup import SetType
from capstan.core.plain import plain, unplain
from capstan.errors import Refused
from capstan.format.layout import ArchiveParameters


@dataclass(frozen=True, slots=True)
class BackupRequest:
    """`sources` are absolute paths, as bytes. `excludes` are gitignore patterns, relative to each source. `recipients`:
    whom the set is sealed for, in their canonical text."""

    sources: tuple[bytes, ...]
    name: str
    library: str
    pool: str = "default"
    type: SetType = SetType.FULL
    excludes: tuple[str, ...] = ()
    one_file_system: bool = False
    recipients: tuple[str, ...] = ()
    parameters: ArchiveParameters = field(default_factory=ArchiveParameters)

    @property
    def plain_excludes(self) -> list[Any]:
        """The patterns in a JSON-safe form."""
        return [plain(pattern.encode("utf-8", "surrogateescape")) for pattern in self.excludes]

    def as_parameters(self) -> dict[str, Any]:
        """All of it in a JSON-safe form, for the job's row: whoever resumes the job asks for exactly the same."""
        return {
            "sources": [plain(path) for path in self.sources],
            "name": self.name,
            "library": self.library,
            "pool": self.pool,
            "type": self.type.value,
            "excludes": self.plain_excludes,
            "one_file_system": self.one_file_system,
            "recipients": list(self.recipients),
            "archive": asdict(self.parameters),
        }

    @classmethod
    def from_parameters(cls, parameters: dict[str, Any]) -> BackupRequest:
        """The request that `as_parameters` was made of. Refused if it does not tell all of one."""
        try:
            return cls(
                sources=tuple(map(unplain, parameters["sources"])),
                name=parameters["name"],
                library=parameters["library"],
                pool=parameters["pool"],
                type=SetType(parameters["type"]),
                excludes=tuple(unplain(item).decode("utf-8", "surrogateescape") for item in parameters["excludes"]),
                one_file_system=parameters["one_file_system"],
                recipients=tuple(parameters.get("recipients", ())),
                parameters=ArchiveParameters(**parameters["archive"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            reason = f"the job does not say all that it was asked to do ({error})"
            raise Refused(reason=reason, hint="run the backup again") from None
