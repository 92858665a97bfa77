"""Whether a source is still the one that a set was begun with, before the set goes on in its middle."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pyarrow.dataset as ds

from capstan.backup.file_systems import FileSystems, is_elsewhere
from capstan.backup.source import BackupSource
from capstan.core.files import FileEntry, FileType, display_path, scan_key
from capstan.errors import SourceError
from capstan.fileindex.chain import ChainSet, state_rows

_DIRECTORIES = ds.field("type") == FileType.DIRECTORY.value
_OTHER = "another file system is there than when this backup began"
_GONE = "the file system that was there when this backup began is not mounted"


def check_same_source(
    source: BackupSource, state: Sequence[ChainSet], after: bytes, *, known: Collection[bytes] = ()
) -> None:
    """Look again at what the scan of an earlier process has passed by, and one that begins behind `after` will enter:
    the directories around that path, and mount points. `state`: all that is stored, the set itself last; `known`:
    directories that were not what they should be already then.

    Raises SourceError when another file system is in one of them, or none any more: the set would be called whole, and
    what it should hold of that directory would be missing.
    """
    file_systems = FileSystems()
    end = scan_key(after)
    for key, row, *_ in state_rows(state, _DIRECTORIES):
        if key > end:
            break
        entry = row.entry
        file_systems.note(entry)
        inside = entry.path.replace(b"/", b"\0")
        around = end[0] == inside or end[0].startswith(inside + b"\0")
        to_come = inside > end[0]
        if entry.path not in known and (around or (to_come and file_systems.is_top(entry.path))):
            _check(source, entry, is_top=file_systems.is_top(entry.path))


def _check(source: BackupSource, entry: FileEntry, *, is_top: bool) -> None:
    reason = _OTHER
    try:
        if not is_elsewhere(source.entry(entry.path), entry):
            return
    except OSError:
        if not is_top:
            return  # a directory may go; and what cannot be read, the scan will tell
        reason = _GONE
    raise SourceError(path="/" + display_path(entry.path), reason=reason)
