"""How much there is to back up, counted beside the backup: only long ones need to know, and only they pay for it."""

from __future__ import annotations

import threading

from capstan.backup.source import BackupSource
from capstan.core.files import FileEntry
from capstan.errors import CapstanError


class SizeEstimate:
    """Walks a source on a thread of its own. `total_bytes` is None until the walk has ended."""

    def __init__(self, source: BackupSource) -> None:
        self.total_bytes: int | None = None
        self._source = source
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._walk, name="estimate", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the walk. Harmless when it never began, and twice."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _walk(self) -> None:
        total = 0
        try:
            for item in self._source.scan():
                if self._stop.is_set():
                    return
                if isinstance(item, FileEntry):
                    total += item.size
        except (CapstanError, OSError):
            return  # the backup itself says what is wrong with the source
        self.total_bytes = total
