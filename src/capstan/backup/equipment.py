"""What the parts of a backup work with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from capstan.backup.register import SetRegister
from capstan.backup.request import BackupRequest
from capstan.backup.source import BackupSource
from capstan.catalog.catalog import Catalog
from capstan.clock import Clock
from capstan.fileindex.store import FileIndexStore
from capstan.media.ledger import Ledger
from capstan.media.manager import TapeManager

SourceFactory = Callable[[BackupRequest], BackupSource]


@dataclass(frozen=True, slots=True)
class Equipment:
    """What all backups of a process share. `workers`: threads that compress, for each job. `proven_keys`: ids of the
    keys an export of which has opened something."""

    catalog: Catalog
    manager: TapeManager
    ledger: Ledger
    store: FileIndexStore
    sets: SetRegister
    clock: Clock
    spool: Path
    workers: int
    open_source: SourceFactory
    proven_keys: Callable[[], set[str]]
