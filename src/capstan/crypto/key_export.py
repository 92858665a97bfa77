"""Exports: keys in an armored age file that a passphrase opens, for a safe. `age -d` opens it without Capstan."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pyrage

from capstan.crypto.keystore import Key, KeyKind, KeyState, KeyStore, Secret
from capstan.durable_files import sync_folder
from capstan.errors import AlreadyExists, StorageFailed


@dataclass(frozen=True, slots=True)
class Export:
    """Which keys were exported, when, and the file that holds them: text, in lines that end with a newline."""

    keys: tuple[Key, ...]
    armored: str
    made_at: datetime


def export_keys(store: KeyStore, keys: Sequence[Key], passphrase: Secret, at: datetime) -> Export:
    """Seal keys of a store by a passphrase of UTF-8. What is sealed is a file of identities, as `age -i` takes it; the
    keys of drives stand in comments of it. Needs the store's passphrase. WrongPassphrase, KeysDamaged."""
    lines: list[str] = []
    for key in keys:
        with store.open(key.id) as secret:
            is_age = key.kind is KeyKind.AGE
            lines += [
                f"# name: {key.name}",
                f"# id: {key.id}",
                f"# created: {key.created_at.isoformat()}",
                *(["# state: retired"] if key.state is KeyState.RETIRED else []),
                secret.value.decode() if is_age else f"# drive-key: {secret.value.hex()}",
            ]
    sealed = pyrage.passphrase.encrypt("".join(f"{line}\n" for line in lines).encode(), passphrase.value.decode(), True)
    # On Windows its lines end with CR and LF: the sheet has a digest of this text, wherever it is made.
    return Export(tuple(keys), sealed.decode().replace("\r\n", "\n"), at)


def write_new(path: Path, content: bytes) -> None:
    """A file for its owner only that was not there before, durably. AlreadyExists; StorageFailed: no file is left."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    made = False
    try:
        with open(os.open(path, flags, 0o600), "wb") as file:  # noqa: PTH123 (a descriptor)
            made = True
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        sync_folder(path.parent)
    except FileExistsError:
        raise _taken(path) from None
    except OSError as error:
        if made:
            with suppress(OSError):
                path.unlink()
        raise StorageFailed(path=path, reason=error.strerror or str(error)) from error


def check_new(path: Path) -> None:
    """What `write_new` would refuse, as far as it can be known before: AlreadyExists, StorageFailed."""
    if os.path.lexists(path):
        raise _taken(path)
    if not os.access(path.parent, os.W_OK | os.X_OK):
        reason = "its folder cannot be written to" if path.parent.is_dir() else "its folder is not there"
        raise StorageFailed(path=path, reason=reason)


def _taken(path: Path) -> AlreadyExists:
    return AlreadyExists(what="file", name=path, hint="an export overwrites nothing: name another file")
