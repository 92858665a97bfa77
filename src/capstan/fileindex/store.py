"""Where the file indexes of all sets lie: one folder for each set, with the tables of each of its INDEXes.

    SET/1.files.parquet  SET/1.frames.parquet  SET/1.records.crc32c  SET/1.deleted  SET/2.files.parquet …
    SET/1.CARTRIDGE.records.crc32c  (the records of a copy on that cartridge, which may be cut otherwise)
    SET/DIGEST.index-key  (while an INDEX is being written)

Parts are immutable. They are the same bytes as in the INDEX on tape, so a rebuild brings the same files back.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from capstan.durable_files import sync_folder, write_durably
from capstan.errors import HomeDamaged, InvalidValue, StorageFailed

_KEY = ".index-key"
_SET_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z-]{0,63}")


@dataclass(frozen=True, slots=True)
class IndexPart:
    """What one INDEX of a set holds besides its manifest. `cartridge`: the uuid of that on which `records` lie, where
    the INDEX is one of a copy; "" in what the backup wrote."""

    sequence: int
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

        Durable when it returns. Adding a sequence again replaces it. StorageFailed: nothing of it counts, because no
        commit names it; what was half moved is replaced by the next attempt.
        """
        folder = self._folder(set_id)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            target = self._part(set_id, part.sequence)
            _move_durably(part.files, target.files)
            _move_durably(part.frames, target.frames)
            _move_durably(part.records, self.records(set_id, part.sequence, part.cartridge))
            if part.deleted is not None and target.deleted is not None:
                _move_durably(part.deleted, target.deleted)
            sync_folder(folder)
            sync_folder(self._directory)
            sync_folder(self._directory.parent)
        except OSError as error:
            raise StorageFailed(path=folder, reason=error.strerror or str(error)) from error

    def add_records(self, set_id: str, sequence: int, cartridge: str, records: Path) -> None:
        """Take over the CRCs of a copy's records, where the tables of the interval are there already. As `add_part`."""
        folder = self._folder(set_id)
        try:
            _move_durably(records, self.records(set_id, sequence, cartridge))
            sync_folder(folder)
        except OSError as error:
            raise StorageFailed(path=folder, reason=error.strerror or str(error)) from error

    def forget_cartridge(self, cartridge: str) -> None:
        """A cartridge (uuid) was erased: no copy is on it any more."""
        if _SET_ID.fullmatch(cartridge):
            for path in self._directory.glob(f"*/*.{cartridge}.records.crc32c"):
                path.unlink(missing_ok=True)

    def parts(self, set_id: str, sequences: list[int]) -> list[IndexPart]:
        """The parts of those INDEXes of a set, which the catalog names. HomeDamaged if a table of one is not there,
        StorageFailed if that cannot be seen. `records` are looked at by whoever reads tapes."""
        found = [self._part(set_id, sequence) for sequence in sorted(sequences)]
        for part in found:
            for path in (part.files, part.frames):
                try:
                    path.stat()
                except FileNotFoundError:
                    raise HomeDamaged(path=path, reason="the file is gone") from None
                except OSError as error:
                    raise StorageFailed(path=path, reason=error.strerror or str(error)) from None
        return [part if part.deleted and part.deleted.exists() else replace(part, deleted=None) for part in found]

    def records(self, set_id: str, sequence: int, cartridge: str = "") -> Path:
        """Where the CRCs of the records are that an INDEX names; of a copy, those on a cartridge (uuid)."""
        if cartridge and not _SET_ID.fullmatch(cartridge):
            raise InvalidValue(what="cartridge", value=cartridge, reason="it is not an identifier of a cartridge")
        holder = f".{cartridge}" if cartridge else ""
        return self._folder(set_id) / f"{sequence}{holder}.records.crc32c"

    def files(self, set_id: str) -> list[Path]:
        """The files.parquet of all parts of a set, in order; empty when there are none."""
        found = {path.name.partition(".")[0]: path for path in self._folder(set_id).glob("*.files.parquet")}
        return [found[sequence] for sequence in sorted(filter(str.isdecimal, found), key=int)]

    def keep_key(self, set_id: str, payload_sha256: str, file_key: bytes) -> None:
        """Keep the key of a sealed INDEX that is about to be written, until `forget_key`. Durable; StorageFailed.

        It opens what this store will have in the open, and nothing else.
        """
        folder = self._folder(set_id)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageFailed(path=folder, reason=error.strerror or str(error)) from error
        write_durably(folder / f"{payload_sha256}{_KEY}", file_key, mode=0o600)

    def find_key(self, set_id: str, payload_sha256: str) -> bytes | None:
        """The key of an INDEX that may have been written and was never entered."""
        try:
            return (self._folder(set_id) / f"{payload_sha256}{_KEY}").read_bytes()
        except OSError:
            return None

    def forget_key(self, set_id: str, payload_sha256: str, *, last: bool = False) -> None:
        """An INDEX is entered. `last`: the set is whole, and what else was begun of it never counted."""
        for path in self._folder(set_id).glob(f"{'*' if last else payload_sha256}{_KEY}"):
            path.unlink(missing_ok=True)

    def remove(self, set_id: str) -> None:
        """Forget a set. Harmless when it is not there."""
        shutil.rmtree(self._folder(set_id), ignore_errors=True)

    def _folder(self, set_id: str) -> Path:
        if not _SET_ID.fullmatch(set_id):
            raise InvalidValue(what="set", value=set_id, reason="it is not an identifier of a set")
        return self._directory / set_id

    def _part(self, set_id: str, sequence: int) -> IndexPart:
        folder = self._folder(set_id)
        return IndexPart(
            sequence,
            folder / f"{sequence}.files.parquet",
            folder / f"{sequence}.frames.parquet",
            folder / f"{sequence}.records.crc32c",
            folder / f"{sequence}.deleted",
        )


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
