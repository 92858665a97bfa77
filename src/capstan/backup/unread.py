"""Attributes that could not be read: the entry is stored without them, and the scan tells of it."""

from __future__ import annotations

from capstan.backup.inode_entry import Xattrs, read_xattrs
from capstan.backup.source import SourceWarning


class Unread:
    """One for a source; used by the thread that scans, which is the one that opens files too."""

    def __init__(self) -> None:
        self._warnings: list[SourceWarning] = []

    def xattrs(self, file: bytes | int, path: bytes) -> Xattrs:
        """The attributes of an entry, as far as they can be read."""
        unread: list[str] = []
        found = read_xattrs(file, unread)
        # A file may be opened twice, because it changed in between: one warning is enough.
        if unread and not any(warning.path == path for warning in self._warnings):
            self._warnings.append(SourceWarning("xattr", path, f"not stored: {', '.join(unread)}"))
        return found

    def take(self) -> list[SourceWarning]:
        """The warnings since the last call."""
        warnings, self._warnings = self._warnings, []
        return warnings

    def __bool__(self) -> bool:
        return bool(self._warnings)
