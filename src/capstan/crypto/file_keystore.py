"""Keys in a folder, one file each, wrapped by a master key that a passphrase or a key file unlocks.

`master.json` holds the master key, sealed by what Argon2id (RFC 9106) makes of the passphrase, or HKDF of the key file;
so another passphrase rewrites that one file. `ID.json` holds what anybody may know of a key and, sealed by the master
key (ChaCha20-Poly1305, RFC 8439), its secret. Whoever changes one of the open facts makes the secret unreadable, but
for state and proof, which change. All files are for their owner only, and written durably; whoever changes one holds
the lock `lock`.
"""

from __future__ import annotations

import json
import os
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pyrage
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from capstan.clock import Clock
from capstan.core.ids import check_name
from capstan.core.suggest import not_found
from capstan.crypto.key_ids import DRIVE_KEY_BYTES, id_and_recipient
from capstan.crypto.keystore import Key, KeyKind, KeyState, Secret
from capstan.durable_files import write_durably
from capstan.errors import AlreadyExists, InvalidValue, KeysDamaged, NotFound, StorageFailed, WrongPassphrase
from capstan.process_lock import ProcessLock

_VERSION = 1
_MASTER = "master.json"
_GONE = "it is gone, and there are keys that it unlocked"
_NONCE = 12
_KEY_FILE_BYTES = 32  # at least: it is taken for random
# RFC 9106, 4: the second recommended choice is 64 MiB in three passes; this is twice its memory.
ARGON2 = {"memory_kib": 128 << 10, "iterations": 3, "lanes": 4}
_MOST = {"memory_kib": 4 << 20, "iterations": 100, "lanes": 64}

# Asked for when a secret is needed, once, and not before.
Unlock = Callable[[], Secret]


class FileKeyStore:
    """Implements `crypto.keystore.KeyStore`. Use `create` or `open_at`. Once unlocked it stays so until `lock`."""

    def __init__(self, folder: Path, clock: Clock, unlock: Unlock) -> None:
        self._folder = folder
        self._clock = clock
        self._unlock = unlock
        self._unlocked: Secret | None = None

    @classmethod
    def create(
        cls, folder: Path, clock: Clock, unlock: Unlock, *, key_file: bool = False, argon2: dict[str, int] = ARGON2
    ) -> FileKeyStore:
        """A new store in a folder that is made for it. `unlock` gives the passphrase, or what is in the key file.
        AlreadyExists; InvalidValue for a key file that is too short to be one; StorageFailed; InUse."""
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.chmod(0o700)
        except OSError as error:
            raise StorageFailed(path=folder, reason=error.strerror or str(error)) from None
        store = cls(folder, clock, unlock)
        with store._changing():
            if (folder / _MASTER).exists():
                raise AlreadyExists(what="key store", name=folder)
            if any(folder.glob("*.json")):
                raise KeysDamaged(path=folder / _MASTER, reason=_GONE)
            master = Secret(os.urandom(32))
            store._write_master(master.value, unlock, key_file=key_file, argon2=argon2)
            store._unlocked = master
        return store

    @classmethod
    def open_at(cls, folder: Path, clock: Clock, unlock: Unlock) -> FileKeyStore:
        """The store in a folder. NotFound; KeysDamaged when there are keys in it, and not what unlocks them."""
        try:
            names = [path.name for path in folder.iterdir()] if folder.exists() else []
        except OSError as error:
            raise StorageFailed(path=folder, reason=error.strerror or str(error)) from None
        if _MASTER not in names:
            if any(name.endswith(".json") for name in names):
                raise KeysDamaged(path=folder / _MASTER, reason=_GONE)
            raise NotFound(what="key store", name=folder, hint="make one with `capstan key create NAME`")
        return cls(folder, clock, unlock)

    @property
    def by_key_file(self) -> bool:
        """Whether a key file unlocks it, and no passphrase. KeysDamaged."""
        return self._wrapping()[1] is None

    def lock(self) -> None:
        """Forget the master key; what needs it asks again."""
        if self._unlocked is not None:
            self._unlocked.erase()
            self._unlocked = None

    def list(self) -> Sequence[Key]:
        keys, damage = self.readable()
        if damage is not None:
            raise damage
        return keys

    def readable(self) -> tuple[Sequence[Key], KeysDamaged | None]:
        """All keys whose file can be read, oldest first; the first that cannot."""
        found: list[Key] = []
        damage: KeysDamaged | None = None
        for path in sorted(self._folder.glob("*.json")):
            try:
                found += [self._read(path)[0]] if path.name != _MASTER else []
            except KeysDamaged as error:
                damage = damage or error
        return sorted(found, key=lambda key: (key.created_at, key.number, key.id)), damage

    def get(self, key_id: str) -> Key:
        keys = self.list()
        found = [key for key in keys if key_id in (key.name, key.id)]
        found = found or [key for key in keys if key_id and key.id.startswith(key_id)]
        if not found:
            names = [key.name for key in keys]
            raise not_found("key", key_id, names, "`capstan key list` lists what there is")
        if len(found) > 1:
            several = ", ".join(f"{key.id} {key.name}" for key in found)
            raise InvalidValue(what="key", value=key_id, reason=f"more than one is meant: {several}")
        return found[0]

    def create_key(self, kind: KeyKind, name: str) -> Key:
        with self._changing():
            return self._make(kind, name)

    @contextmanager
    def open(self, key_id: str) -> Iterator[Secret]:
        path = self._path(self.get(key_id).id)
        key, wrapped = self._read(path)
        with Secret(_unsealed(self._master(), wrapped, _facts(key), path)) as secret:
            yield secret

    def take_in(self, kind: KeyKind, name: str, secret: Secret) -> Key:
        key_id = id_and_recipient(kind, secret)[0]
        with self._changing():
            known = {key.id: key for key in self.list()}
            return known[key_id] if key_id in known else self._keep(kind, name, secret)

    def rotate(self, key_id: str) -> Key:
        with self._changing():
            old = self.get(key_id)
            series = [key for key in self.list() if key.series == old.series]
            if any(key.kind is not old.kind for key in series):
                reason = "keys of both kinds have names of this series; create one with a name of its own"
                raise InvalidValue(what="key", value=key_id, reason=reason)
            new = self._make(old.kind, f"{old.series}.{max(key.number for key in series) + 1}")
            for key in series:
                if key.state is KeyState.ACTIVE:
                    self._change(key.id, state=KeyState.RETIRED)
            return new

    def retire(self, key_id: str) -> Key:
        with self._changing():
            return self._change(key_id, state=KeyState.RETIRED)

    def note_proof(self, key_id: str, at: datetime) -> Key:
        with self._changing():
            return self._change(key_id, proven_at=at)

    def change_unlocking(self, unlock: Unlock, *, key_file: bool = False, argon2: dict[str, int] = ARGON2) -> None:
        """From now on another passphrase, or key file, unlocks the store. Needs the old one. All or nothing."""
        with self._changing():
            self._write_master(self._master(), unlock, key_file=key_file, argon2=argon2)
            self._unlock = unlock

    # ── files ─────────────────────────────────────────────────────────────────────────────────────────

    def _changing(self) -> ProcessLock:
        return ProcessLock(self._folder / "lock", "the key store")

    def _path(self, key_id: str) -> Path:
        return self._folder / f"{key_id}.json"

    def _make(self, kind: KeyKind, name: str) -> Key:
        with Secret(_new_secret(kind)) as secret:
            return self._keep(kind, name, secret)

    def _keep(self, kind: KeyKind, name: str, secret: Secret) -> Key:
        check_name("key name", name)
        if any(key.name == name for key in self.list()):
            raise AlreadyExists(what="key", name=name)
        key_id, recipient = id_and_recipient(kind, secret)
        key = Key(key_id, kind, name, self._clock.now(), recipient=recipient)
        self._write(key, _sealed(self._master(), secret.value, _facts(key)))
        return key

    def _change(self, key_id: str, **changes: Any) -> Key:
        key, wrapped = self._read(self._path(self.get(key_id).id))
        key = replace(key, **changes)
        self._write(key, wrapped)
        return key

    def _write(self, key: Key, wrapped: bytes) -> None:
        proven = key.proven_at.isoformat() if key.proven_at else None
        value = {**_open_facts(key), "state": key.state.value, "proven_at": proven}
        text = json.dumps({"version": _VERSION, **value, "wrapped": b64encode(wrapped).decode()}, indent=1)
        write_durably(self._path(key.id), text.encode(), mode=0o600)

    def _read(self, path: Path) -> tuple[Key, bytes]:
        value = _json(path)
        try:
            proven = value["proven_at"]
            key = Key(
                id=value["id"],
                kind=KeyKind(value["kind"]),
                name=value["name"],
                created_at=datetime.fromisoformat(value["created_at"]),
                state=KeyState(value["state"]),
                recipient=value["recipient"],
                proven_at=datetime.fromisoformat(proven) if proven else None,
            )
            return key, b64decode(value["wrapped"], validate=True)
        except (KeyError, TypeError, ValueError) as error:
            raise KeysDamaged(path=path, reason=f"it lacks or confuses {error}") from None

    def _master(self) -> bytes:
        """The master key. WrongPassphrase."""
        if self._unlocked is None:
            salt, argon2, wrapped = self._wrapping()
            with self._unlock() as given, Secret(_stretched(given.value, salt, argon2)) as wrapping:
                try:
                    master = ChaCha20Poly1305(wrapping.value).decrypt(wrapped[:_NONCE], wrapped[_NONCE:], salt)
                except (InvalidTag, ValueError):
                    raise WrongPassphrase(path=self._folder) from None
            self._unlocked = Secret(master)
        return self._unlocked.value

    def _wrapping(self) -> tuple[bytes, dict[str, int] | None, bytes]:
        """Salt, parameters of Argon2id unless it is a key file that unlocks, and the master key, sealed."""
        path = self._folder / _MASTER
        value = _json(path)
        try:
            salt, wrapped = (b64decode(value[name], validate=True) for name in ("salt", "wrapped"))
            argon2 = value["argon2"]
            if argon2 is not None:
                argon2 = {name: int(argon2[name]) for name in ARGON2}
                if not all(0 < argon2[name] <= most for name, most in _MOST.items()):
                    raise ValueError("argon2: what it asks for is out of all bounds")
            return salt, argon2, wrapped
        except (KeyError, TypeError, ValueError) as error:
            raise KeysDamaged(path=path, reason=f"it lacks or confuses {error}") from None

    def _write_master(self, master: bytes, unlock: Unlock, *, key_file: bool, argon2: dict[str, int]) -> None:
        salt, parameters = os.urandom(16), None if key_file else argon2
        with unlock() as given:
            if key_file and len(given.value) < _KEY_FILE_BYTES:
                reason = f"it has less than {_KEY_FILE_BYTES} bytes: make one with `openssl rand -out FILE 32`"
                raise InvalidValue(what="key file", value="(not shown)", reason=reason)
            with Secret(_stretched(given.value, salt, parameters)) as wrapping:
                wrapped = _sealed(wrapping.value, master, salt)
        value = {
            "version": _VERSION,
            "argon2": parameters,
            "salt": b64encode(salt).decode(),
            "wrapped": b64encode(wrapped).decode(),
        }
        write_durably(self._folder / _MASTER, json.dumps(value, indent=1).encode(), mode=0o600)


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise KeysDamaged(path=path, reason=error.strerror or str(error)) from None
    except ValueError:
        raise KeysDamaged(path=path, reason="it is cut off, or no JSON") from None
    if not isinstance(value, dict) or value.get("version") != _VERSION:
        raise KeysDamaged(path=path, reason="it is of another version of the program, or no key file")
    return value


def _open_facts(key: Key) -> dict[str, str]:
    return {
        "id": key.id,
        "kind": key.kind.value,
        "name": key.name,
        "created_at": key.created_at.isoformat(),
        "recipient": key.recipient,
    }


def _facts(key: Key) -> bytes:
    """What is sealed together with a secret, in the open."""
    return json.dumps(_open_facts(key), sort_keys=True).encode()


def _new_secret(kind: KeyKind) -> bytes:
    return os.urandom(DRIVE_KEY_BYTES) if kind is KeyKind.DRIVE else str(pyrage.x25519.Identity.generate()).encode()


def _stretched(given: bytes, salt: bytes, argon2: dict[str, int] | None) -> bytes:
    if argon2 is None:
        return HKDF(hashes.SHA256(), 32, salt, b"capstan key file").derive(given)
    kdf = Argon2id(
        salt=salt,
        length=32,
        iterations=argon2["iterations"],
        lanes=argon2["lanes"],
        memory_cost=argon2["memory_kib"],
    )
    return kdf.derive(given)


def _sealed(key: bytes, plain: bytes, facts: bytes) -> bytes:
    nonce = os.urandom(_NONCE)
    return nonce + ChaCha20Poly1305(key).encrypt(nonce, plain, facts)


def _unsealed(key: bytes, sealed: bytes, facts: bytes, path: Path) -> bytes:
    try:
        return ChaCha20Poly1305(key).decrypt(sealed[:_NONCE], sealed[_NONCE:], facts)
    except (InvalidTag, ValueError):
        raise KeysDamaged(path=path, reason="it was changed, or belongs to another store") from None
