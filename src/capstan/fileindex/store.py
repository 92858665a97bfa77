"""Where the file indexes of all sets lie: one folder for each set, with the tables of each of its INDEXes.

    SET/1-NAME.files.parquet  SET/1-NAME.frames.parquet  SET/1-NAME.records.crc32c  SET/1-NAME.deleted  SET/2-NAME…
    SET/1-NAME.CARTRIDGE.records.crc32c  (the records of a copy on that cartridge, which may be cut otherwise)
    SET/DIGEST.announced  (an INDEX that is about to be written, or was written and is in no catalog)

NAME is the beginning of the digest that names the interval (`core.history`). So parts are immutable, and what another
history of the set has under the same number never takes their place. They are the same bytes as in the INDEX on tape: a
rebuild brings the same files back.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from capstan.core.backup import Commit
from capstan.core.history import History
from capstan.durable_files import sync_folder, write_durably
from capstan.errors import HomeDamaged, InvalidValue, StorageFailed

_ANNOUNCED = ".announced"
_SET_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z-]{0,63}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_SHOWN = 16  # digits of a digest in names


@dataclass(frozen=True, slots=True)
class IndexPart:
    """What one INDEX of a set holds besides its manifest. `interval_sha256` names the interval. `cartridge`: the uuid
    of that on which `records` lie, where the INDEX is one of a copy; "" in what the backup wrote."""

    sequence: int
    interval_sha256: str
    files: Path
    frames: Path
    records: Path
    deleted: Path | None = None  # of an incremental set: stored paths, each ended by a NUL
    cartridge: str = ""


class FileIndexStore:
    """Keeps parts; whoever reads them finds them by set and sequence. Safe to use from several processes.

    The id of a set may come from a tape that anybody wrote. One that is no identifier raises InvalidValue, so that
    nothing outside the store is ever written or removed.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def add_part(self, set_id: str, part: IndexPart) -> None:
        """Take over the files of `part` (they are moved, or copied from another file system and removed).

        Durable when it returns. Adding an interval again replaces it. StorageFailed: nothing of it counts, because no
        commit names it; what was half moved is replaced by the next attempt.
        """
        folder = self._folder(set_id)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            target = self._part(set_id, part.sequence, part.interval_sha256)
            _move_durably(part.files, target.files)
            _move_durably(part.frames, target.frames)
            _move_durably(part.records, self._records(set_id, part.sequence, part.interval_sha256, part.cartridge))
            if part.deleted is not None and target.deleted is not None:
                _move_durably(part.deleted, target.deleted)
            sync_folder(folder)
            sync_folder(self._directory)
            sync_folder(self._directory.parent)
        except OSError as error:
            raise StorageFailed(path=folder, reason=error.strerror or str(error)) from error

    def add_records(self, commit: Commit, records: Path) -> None:
        """Take over the CRCs of a copy's records, where the tables of the interval are there already. As `add_part`."""
        folder = self._folder(commit.set_id)
        try:
            _move_durably(records, self.records(commit))
            sync_folder(folder)
        except OSError as error:
            raise StorageFailed(path=folder, reason=error.strerror or str(error)) from error

    def forget_cartridge(self, cartridge: str) -> None:
        """A cartridge (uuid) was erased: no copy is on it any more."""
        if _SET_ID.fullmatch(cartridge):
            for path in self._directory.glob(f"*/*.{cartridge}.records.crc32c"):
                path.unlink(missing_ok=True)

    def parts(self, set_id: str, history: History) -> list[IndexPart]:
        """The parts of those intervals of a set, which the catalog names. HomeDamaged if a table of one is not there,
        StorageFailed if that cannot be seen. `records` are looked at by whoever reads tapes."""
        found = [self._part(set_id, sequence, digest) for sequence, digest in sorted(history.items())]
        for part in found:
            for path in (part.files, part.frames):
                try:
                    path.stat()
                except FileNotFoundError:
                    raise HomeDamaged(path=path, reason="the file is gone") from None
                except OSError as error:
                    raise StorageFailed(path=path, reason=error.strerror or str(error)) from None
        return [part if part.deleted and part.deleted.exists() else replace(part, deleted=None) for part in found]

    def records(self, commit: Commit) -> Path:
        """Where the CRCs of the records are that an INDEX names."""
        cartridge = commit.cartridge if commit.copy else ""
        return self._records(commit.set_id, commit.sequence, commit.interval_sha256, cartridge)

    def keep_only(self, set_id: str, history: History) -> None:
        """Remove what there is of those sequences in another history: nobody wrote it down, or nobody does any more."""
        kept = {self._stem(sequence, digest) for sequence, digest in history.items()}
        for path in self._all_parts(set_id):
            stem = path.name.partition(".")[0]
            if stem not in kept and int(stem.partition("-")[0]) in history:
                with suppress(OSError):  # it is only in the way
                    path.unlink()

    def announce(self, set_id: str, header_sha256: str, file_key: bytes) -> None:
        """Take note, until `entered`, of an INDEX that is about to be written, and of what opens it.

        Durable when it returns; StorageFailed.
        The key opens what this store will have in the open, and nothing else.
        """
        folder = self._folder(set_id)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageFailed(path=folder, reason=error.strerror or str(error)) from error
        write_durably(folder / f"{header_sha256}{_ANNOUNCED}", file_key, mode=0o600)

    def announced(self, set_id: str, header_sha256: str) -> bytes | None:
        """What opens an INDEX that this home has announced and not entered, b"" where nothing is sealed; None for any
        other."""
        try:
            return (self._folder(set_id) / f"{header_sha256}{_ANNOUNCED}").read_bytes()
        except OSError:
            return None

    def entered(self, set_id: str, header_sha256: str) -> None:
        """The catalog has an INDEX: it need not be announced any more."""
        with suppress(OSError):  # what is entered is not looked for
            (self._folder(set_id) / f"{header_sha256}{_ANNOUNCED}").unlink()

    def remove(self, set_id: str) -> None:
        """Forget a set. Harmless when it is not there."""
        shutil.rmtree(self._folder(set_id), ignore_errors=True)

    def _folder(self, set_id: str) -> Path:
        if not _SET_ID.fullmatch(set_id):
            raise InvalidValue(what="set", value=set_id, reason="it is not an identifier of a set")
        return self._directory / set_id

    def _part(self, set_id: str, sequence: int, digest: str) -> IndexPart:
        folder, stem = self._folder(set_id), self._stem(sequence, digest)
        return IndexPart(
            sequence,
            digest,
            folder / f"{stem}.files.parquet",
            folder / f"{stem}.frames.parquet",
            folder / f"{stem}.records.crc32c",
            folder / f"{stem}.deleted",
        )

    def _records(self, set_id: str, sequence: int, digest: str, cartridge: str) -> Path:
        if cartridge and not _SET_ID.fullmatch(cartridge):
            raise InvalidValue(what="cartridge", value=cartridge, reason="it is not an identifier of a cartridge")
        holder = f".{cartridge}" if cartridge else ""
        return self._folder(set_id) / f"{self._stem(sequence, digest)}{holder}.records.crc32c"

    def _stem(self, sequence: int, digest: str) -> str:
        if not _DIGEST.fullmatch(digest):
            raise InvalidValue(what="INDEX", value=digest, reason="it is not the digest of a header record")
        return f"{sequence}-{digest[:_SHOWN]}"

    def _all_parts(self, set_id: str) -> Iterator[Path]:
        for path in self._folder(set_id).glob("[0-9]*-*.*"):
            if not path.name.endswith(_ANNOUNCED) and path.name.partition("-")[0].isdecimal():
                yield path


def _move_durably(source: Path, target: Path) -> None:
    with source.open("rb+") as file:
        os.fsync(file.fileno())
    try:
        source.replace(target)
    except OSError as error:
        if error.errno != errno.EXDEV:  # the spool is on another file system
            raise
        temporary = target.with_name(target.name + ".new")
        shutil.copyfile(source, temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
        source.unlink()
