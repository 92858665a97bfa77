"""The port to secret keys."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

_NUMBERED = re.compile(r"\.([0-9]{1,9})$")


class KeyKind(StrEnum):
    """AGE: an X25519 identity, which opens what was sealed for its recipient. DRIVE: 32 bytes for AES-256 by a
    drive."""

    AGE = "age"
    DRIVE = "drive"


class KeyState(StrEnum):
    """A RETIRED key opens what it has sealed, and nothing new is sealed with it."""

    ACTIVE = "active"
    RETIRED = "retired"


@dataclass(frozen=True, slots=True)
class Key:
    """What anybody may know of a key. `id`: of its public half, or a digest of a drive's key; the same in every store.
    `recipient`: what is sealed for it; "" for a drive's. `proven_at`: when an export of it last opened something."""

    id: str
    kind: KeyKind
    name: str
    created_at: datetime
    state: KeyState = KeyState.ACTIVE
    recipient: str = ""
    proven_at: datetime | None = None

    @property
    def series(self) -> str:
        """What its name has in common with those of the keys that it replaced: `NAME`, `NAME.2`, `NAME.3` …"""
        return _NUMBERED.sub("", self.name)

    @property
    def number(self) -> int:
        """Its place in the series, from 1."""
        found = _NUMBERED.search(self.name)
        return int(found[1]) if found else 1


class Secret:
    """A secret in memory, which is erased when its `with` is left. No `repr` shows it."""

    def __init__(self, value: bytes | bytearray) -> None:
        self._value = bytearray(value)

    def __enter__(self) -> Secret:
        return self

    def __exit__(self, *_: object) -> None:
        self.erase()

    def __repr__(self) -> str:
        return "Secret(…)"

    @property
    def value(self) -> bytes:
        """A copy. ValueError when it was erased."""
        if not self._value:
            raise ValueError("the secret was erased")
        return bytes(self._value)

    def erase(self) -> None:
        """Overwrite it. Copies that were taken are their takers' business; Python gives no more than that."""
        self._value[:] = bytes(len(self._value))
        self._value.clear()


class KeyStore(Protocol):
    """Keeps keys. What is listed is known without its passphrase; what is secret is not."""

    def list(self) -> Sequence[Key]:
        """All keys, oldest first. KeysDamaged."""
        ...

    def get(self, key_id: str) -> Key:
        """The key of this name, or else the one whose id begins so. NotFound; InvalidValue when there are several."""
        ...

    def create_key(self, kind: KeyKind, name: str) -> Key:
        """A new key, durable before this returns. AlreadyExists for a name that is taken. Needs the passphrase."""
        ...

    def open(self, key_id: str) -> AbstractContextManager[Secret]:
        """The secret of a key: of AGE the text `AGE-SECRET-KEY-1…`, of DRIVE its 32 bytes. Needs the passphrase."""
        ...

    def take_in(self, kind: KeyKind, name: str, secret: Secret) -> Key:
        """Keep a key that was exported. The key that is there already, if it is; InvalidValue for what is no key."""
        ...

    def rotate(self, key_id: str) -> Key:
        """A new key of the series of that key, with the next number; the others of the series are retired behind it. On
        failure either nothing has changed, or the new key is there and not all others are retired: rotate again. Needs
        the passphrase."""
        ...

    def retire(self, key_id: str) -> Key:
        """Seal nothing new with it. Harmless twice."""
        ...

    def note_proof(self, key_id: str, at: datetime) -> Key:
        """An export of it has opened something."""
        ...
