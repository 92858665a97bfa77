"""Keys in a folder, one file each, wrapped by a master key that a passphrase or a key file unlocks.

`master.json` holds the master key, sealed by what Argon2id (RFC 9106) makes of the passphrase, or HKDF of the key file;
so another passphrase rewrites that one file. `ID.json` holds what anybody may know of a key and, sealed by the master
key (ChaCha20-Poly1305, RFC 8439), its secret. Whoever changes one of the open facts makes the secret unreadable, but
for state and proof, which change. All files are for their owner only, and written durably.
"""

from __future__ import annotations

import json
import os
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from hashlib import sha256
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
from capstan.crypto.keystore import Key, KeyKind, KeyState, Secret
from capstan.durable_files import write_durably
from capstan.errors import AlreadyExists, InvalidValue, KeysDamaged, NotFound, WrongPassphrase

_VERSION = 1
_MASTER = "master.json"
_NONCE = 12
_KEY_FILE_BYTES = 32  # at least: it is taken for random
# RFC 9106, 4: the second recommended choice is 64 MiB in three passes; this is twice its memory.
ARGON2 = {"memory_kib": 128 << 10, "iterations": 3, "lanes": 4}

# Asked for when a secret is needed, and not before.
Unlock = Callable[[], Secret]


class FileKeyStore:
    """Implements `crypto.keystore.KeyStore`. Use `create` or `open_at`."""

    def __init__(self, folder: Path, clock: Clock, unlock: Unlock) -> None:
        self._folder = folder
        self._clock = clock
        self._unlock = unlock

    @classmethod
    def create(
        cls, folder: Path, clock: Clock, unlock: Unlock, *, key_file: bool = False, argon2: dict[str, int] = ARGON2
    ) -> FileKeyStore:
        """A new store in a folder that is made for it. `unlock` gives the passphrase, or what is in the key file.
        AlreadyExists; InvalidValue for an empty passphrase, or a key file that is too short to be one."""
        if (folder / _MASTER).exists():
            raise AlreadyExists(what="key store", name=folder)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        store = cls(folder, clock, unlock)
        store._write_master(os.urandom(32), unlock, key_file=key_file, argon2=argon2)
        return store

    @classmethod
    def open_at(cls, folder: Path, clock: Clock, unlock: Unlock) -> FileKeyStore:
        """The store in a folder. NotFound."""
        if not (folder / _MASTER).exists():
            raise NotFound(what="key store", name=folder, hint="make one with `capstan key create NAME`")
        return cls(folder, clock, unlock)

    def list(self) -> Sequence[Key]:
        found = [self._read(path)[0] for path in self._folder.glob("*.json") if path.name != _MASTER]
        return sorted(found, key=lambda key: (key.created_at, key.id))

    def get(self, key_id: str) -> Key:
        found = [key for key in self.list() if key_id and (key.id.startswith(key_id) or key.name == key_id)]
        if not found:
            raise NotFound(what="key", name=key_id, hint="`capstan key list` lists what there is")
        if len(found) > 1:
            raise InvalidValue(what="key", value=key_id, reason="more than one key begins with it")
        return found[0]

    def create_key(self, kind: KeyKind, name: str) -> Key:
        with Secret(_new_secret(kind)) as secret:
            return self._keep(kind, name, secret)

    @contextmanager
    def open(self, key_id: str) -> Iterator[Secret]:
        path = self._path(self.get(key_id).id)
        key, wrapped = self._read(path)
        with self._master() as master, Secret(_unsealed(master.value, wrapped, _facts(key), path)) as secret:
            yield secret

    def take_in(self, kind: KeyKind, name: str, secret: Secret) -> Key:
        known = {key.id: key for key in self.list()}
        key_id = _identity(kind, secret)[0]
        return known[key_id] if key_id in known else self._keep(kind, name, secret)

    def retire(self, key_id: str) -> Key:
        return self._change(key_id, state=KeyState.RETIRED)

    def note_proof(self, key_id: str, at: datetime) -> Key:
        return self._change(key_id, proven_at=at)

    def change_unlocking(self, unlock: Unlock, *, key_file: bool = False, argon2: dict[str, int] = ARGON2) -> None:
        """From now on another passphrase, or key file, unlocks the store. Needs the old one. All or nothing."""
        with self._master() as master:
            self._write_master(master.value, unlock, key_file=key_file, argon2=argon2)
        self._unlock = unlock

    # ── files ─────────────────────────────────────────────────────────────────────────────────────────

    def _path(self, key_id: str) -> Path:
        return self._folder / f"{key_id}.json"

    def _keep(self, kind: KeyKind, name: str, secret: Secret) -> Key:
        check_name("key name", name)
        if any(key.name == name for key in self.list()):
            raise AlreadyExists(what="key", name=name)
        key_id, recipient = _identity(kind, secret)
        key = Key(key_id, kind, name, self._clock.now(), recipient=recipient)
        with self._master() as master:
            self._write(key, _sealed(master.value, secret.value, _facts(key)))
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

    @contextmanager
    def _master(self) -> Iterator[Secret]:
        """The master key. WrongPassphrase."""
        path = self._folder / _MASTER
        value = _json(path)
        try:
            salt, wrapped = (b64decode(value[name], validate=True) for name in ("salt", "wrapped"))
            argon2 = value["argon2"]
            if argon2 is not None:
                argon2 = {name: int(argon2[name]) for name in ARGON2}
        except (KeyError, TypeError, ValueError) as error:
            raise KeysDamaged(path=path, reason=f"it lacks or confuses {error}") from None
        with self._unlock() as given, Secret(_stretched(given.value, salt, argon2)) as wrapping:
            try:
                master = ChaCha20Poly1305(wrapping.value).decrypt(wrapped[:_NONCE], wrapped[_NONCE:], salt)
            except (InvalidTag, ValueError):
                raise WrongPassphrase(path=self._folder) from None
        with Secret(master) as secret:
            yield secret

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
    return os.urandom(32) if kind is KeyKind.DRIVE else str(pyrage.x25519.Identity.generate()).encode()


def _identity(kind: KeyKind, secret: Secret) -> tuple[str, str]:
    """The id and the recipient of a key. InvalidValue for what is none; it is not shown."""
    if kind is KeyKind.DRIVE:
        if len(secret.value) != 32:
            raise InvalidValue(what="key", value="(not shown)", reason="the key of a drive has 32 bytes")
        return sha256(b"capstan drive key\0" + secret.value).hexdigest()[:16], ""
    try:
        recipient = str(pyrage.x25519.Identity.from_str(secret.value.decode("ascii", "replace").strip()).to_public())
    except pyrage.IdentityError:
        raise InvalidValue(what="key", value="(not shown)", reason="write AGE-SECRET-KEY-1…") from None
    return sha256(recipient.encode()).hexdigest()[:16], recipient


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
