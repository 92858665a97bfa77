"""The key store of a home: its own adapter, and what the names of its keys mean. Needs neither catalog nor settings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from capstan.clock import SystemClock
from capstan.config.home import Home
from capstan.crypto.file_keystore import FileKeyStore, Unlock
from capstan.crypto.keystore import Key, KeyKind, KeyState, Secret
from capstan.crypto.recipients import MOST_RECIPIENTS, recipients_of
from capstan.errors import InvalidValue, KeysError, NotFound


def open_keys(path: Path, unlock: Unlock) -> FileKeyStore:
    """The key store of a home: it needs neither catalog nor settings. `unlock` is asked when a secret is. NotFound."""
    return FileKeyStore.open_at(Home(path).keys, SystemClock(), unlock)


def create_keys(path: Path, unlock: Unlock, *, key_file: bool) -> FileKeyStore:
    """A key store for a home, which is made if it is not there. AlreadyExists; InvalidValue for a short key file."""
    home = Home(path)
    home.prepare()
    return FileKeyStore.create(home.keys, SystemClock(), unlock, key_file=key_file)


def stored_keys(home: Home) -> Sequence[Key]:
    """What anybody may know of the keys of a home; none where there is no key store. KeysDamaged."""
    try:
        return FileKeyStore.open_at(home.keys, SystemClock(), _locked).list()
    except NotFound:
        return []


def _locked() -> Secret:
    raise AssertionError("what anybody may know of a key needs no passphrase")


def proven_keys(home: Home) -> set[str]:
    """Ids of the keys that are not retired, and of which an export has opened something."""
    return {key.id for key in stored_keys(home) if key.proven_at and key.state is KeyState.ACTIVE}


def retired_keys(home: Home) -> set[str]:
    """Ids of the keys that nothing new should be written for."""
    return {key.id for key in stored_keys(home) if key.state is KeyState.RETIRED}


def named_recipients(home: Home, texts: Sequence[str]) -> list[str]:
    """The recipients that texts name, each once, in canonical form: `age1…`, an SSH public key, `@FILE`, or a key
    of this home that is not retired. InvalidValue."""
    known = _names_of_recipients(home, texts) if texts else {}
    found: dict[str, None] = {}
    for text in texts:
        found |= dict.fromkeys([known[text]] if text in known else recipients_of(text))
    if len(found) > MOST_RECIPIENTS:
        reason = f"a set is sealed for at most {MOST_RECIPIENTS}"
        raise InvalidValue(what="recipients", value=len(found), reason=reason)
    return list(found)


def _names_of_recipients(home: Home, texts: Sequence[str]) -> dict[str, str]:
    """Recipients by the names and ids of keys. A store that cannot be read matters only for what must be a name."""
    try:
        usable = [key for key in stored_keys(home) if key.recipient and key.state is KeyState.ACTIVE]
    except KeysError:
        if all(text.startswith(("age1", "ssh-", "@")) for text in texts):
            return {}
        raise
    return {name: key.recipient for key in usable for name in (key.name, key.id)}


def named_drive_key(home: Home, name: str) -> str:
    """The id of a drive's key of this home that is not retired, by its name or id. NotFound; InvalidValue."""
    found = FileKeyStore.open_at(home.keys, SystemClock(), _locked).get(name)
    if found.kind is not KeyKind.DRIVE or found.state is not KeyState.ACTIVE:
        reason = "it is no key for drives, or is retired: make one with `capstan key create NAME --drive`"
        raise InvalidValue(what="key", value=name, reason=reason)
    return found.id
