"""What a backup is asked to do."""

from __future__ import annotations

from dataclasses import dataclass, field

from capstan.core.backup import SetType
from capstan.format.layout import ArchiveParameters


@dataclass(frozen=True, slots=True)
class BackupRequest:
    """`sources` are absolute paths, as bytes. `excludes` are gitignore patterns, relative to each source."""

    sources: tuple[bytes, ...]
    name: str
    library: str
    pool: str = "default"
    type: SetType = SetType.FULL
    excludes: tuple[str, ...] = ()
    one_file_system: bool = False
    parameters: ArchiveParameters = field(default_factory=ArchiveParameters)
