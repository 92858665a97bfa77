"""Keys for drives that encrypt: which job may use which, and a drive that finds the one that a record wants."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

from capstan.crypto.identities import DriveKey, Identity
from capstan.errors import DriveKeyNeeded
from capstan.tape.drive import BlockRead, TapeDrive, find_encrypting


class DriveKeys:
    """What jobs were given, by the ids of the jobs, while they run."""

    def __init__(self) -> None:
        self._lent: dict[str, dict[str, bytes]] = {}

    def __repr__(self) -> str:
        return "DriveKeys(…)"

    @contextmanager
    def lend(self, job_id: str, identities: Iterable[Identity]) -> Iterator[None]:
        """The keys among `identities`, for the drives that this job uses within the block."""
        self._lent[job_id] = {key.key_id: key.secret for key in identities if isinstance(key, DriveKey)}
        try:
            yield
        finally:
            del self._lent[job_id]

    def of(self, job_id: str) -> Mapping[str, bytes]:
        """Secrets by the ids of their keys."""
        return self._lent.get(job_id, {})


class _KeyedDrive:
    """A drive that is given the key that a record wants, where there is one, when that is read. It forgets the key when
    the cartridge leaves it, so this is done again after each mount, and where sets of several keys lie on a tape."""

    def __init__(self, drive: TapeDrive) -> None:
        self._drive = drive
        self.keys: Mapping[str, bytes] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._drive, name)

    def read_block(self, into: memoryview) -> BlockRead:
        try:
            return self._drive.read_block(into)
        except DriveKeyNeeded as error:
            key_id = str(error.parameters["key"])
            encrypting = find_encrypting(self._drive)
            if key_id not in self.keys or encrypting is None:
                raise
            encrypting.set_key(self.keys[key_id], key_id, encrypt=False)
            return self._drive.read_block(into)


def with_keys(drive: TapeDrive) -> TapeDrive:
    """The same drive, which `give_keys` may be told of keys."""
    return drive if find_encrypting(drive) is None else cast("TapeDrive", _KeyedDrive(drive))


def give_keys(drive: TapeDrive, keys: Mapping[str, bytes]) -> None:
    """From now on the drive has these keys; none: those that it had are forgotten here."""
    if isinstance(drive, _KeyedDrive):
        drive.keys = keys
