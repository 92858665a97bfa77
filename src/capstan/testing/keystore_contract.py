"""What every key store must do (`crypto.keystore.KeyStore`).

Bind it by giving a fixture `store`, empty, and one `again` that opens the same store anew.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pyrage
import pytest

from capstan.crypto.keystore import KeyKind, KeyState, KeyStore, Secret
from capstan.errors import AlreadyExists, InvalidValue, NotFound


class KeyStoreContract:
    """Promises of the port."""

    def test_what_is_made_is_there(self, store: KeyStore, again: Callable[[], KeyStore]) -> None:
        """Open facts without, secrets with what unlocks it; an identity goes with its recipient."""
        age, drive = store.create_key(KeyKind.AGE, "one"), store.create_key(KeyKind.DRIVE, "two")
        assert [age, drive] == list(again().list())
        assert (age.state, drive.recipient, age.recipient[:4]) == (KeyState.ACTIVE, "", "age1")
        with again().open("one") as secret:
            identity = pyrage.x25519.Identity.from_str(secret.value.decode())
            assert str(identity.to_public()) == age.recipient
        with again().open(drive.id[:6]) as secret:
            assert len(secret.value) == 32

    def test_a_secret_is_erased(self, store: KeyStore) -> None:
        """When its `with` is left, and it is shown nowhere."""
        store.create_key(KeyKind.AGE, "one")
        with store.open("one") as secret:
            text = secret.value.decode()
            assert text not in repr(secret) + str(secret) + repr(store) + repr(store.list())
        with pytest.raises(ValueError):
            _ = secret.value

    def test_export_and_back(self, store: KeyStore, again: Callable[[], KeyStore]) -> None:
        """A key that was exported has the same id wherever it is taken in; what is there already stays."""
        key = store.create_key(KeyKind.AGE, "one")
        with store.open("one") as secret:
            assert store.take_in(KeyKind.AGE, "another name", secret) == key
        fresh = pyrage.x25519.Identity.generate()
        taken = store.take_in(KeyKind.AGE, "two", Secret(str(fresh).encode()))
        assert taken.recipient == str(fresh.to_public())
        assert [found.name for found in again().list()] == ["one", "two"]
        for kind, value in ((KeyKind.AGE, b"AGE-SECRET-KEY-1QQ"), (KeyKind.DRIVE, b"short")):
            with pytest.raises(InvalidValue) as caught:
                store.take_in(kind, "three", Secret(value))
            assert value.decode() not in str(caught.value)

    def test_retired_and_proven(self, store: KeyStore, again: Callable[[], KeyStore]) -> None:
        """Both are kept; a retired key still opens."""
        key = store.create_key(KeyKind.DRIVE, "one")
        at = datetime(2026, 1, 2, tzinfo=UTC)
        store.note_proof(key.id, at)
        assert store.retire("one") == store.retire("one") == again().get("one")
        assert (again().get("one").state, again().get("one").proven_at) == (KeyState.RETIRED, at)
        with again().open("one") as secret:
            assert secret.value

    def test_names(self, store: KeyStore) -> None:
        """One key for each; unknown ones, and such as several begin with, are errors."""
        store.create_key(KeyKind.AGE, "one")
        with pytest.raises(AlreadyExists):
            store.create_key(KeyKind.DRIVE, "one")
        for name in ("two", ""):
            with pytest.raises(NotFound):
                store.get(name)
        with pytest.raises(InvalidValue):
            store.create_key(KeyKind.AGE, "../one")

    def test_which_key_is_meant(self, store: KeyStore) -> None:
        """A name goes before the beginning of an id; a beginning that several ids have names them."""
        keys = [store.create_key(KeyKind.DRIVE, f"k{number}") for number in range(17)]
        digits = [key.id[0] for key in keys]
        twice = next(digit for digit in digits if digits.count(digit) > 1)
        with pytest.raises(InvalidValue) as caught:
            store.get(twice)
        assert all(key.id in str(caught.value) for key in keys if key.id[0] == twice)
        named = store.create_key(KeyKind.AGE, twice)
        assert store.get(twice) == named
        assert store.get(keys[3].id) == keys[3]

    def test_rotation(self, store: KeyStore, again: Callable[[], KeyStore]) -> None:
        """The new key has the next number of the series, is of the same kind, and the only one that is not retired; all
        open what they have sealed."""
        for kind, name in ((KeyKind.AGE, "a"), (KeyKind.DRIVE, "d")):
            first, *others = (
                store.create_key(kind, name),
                store.rotate(name),
                store.rotate(name),
                store.rotate(f"{name}.2"),
            )
            assert [key.name for key in others] == [f"{name}.2", f"{name}.3", f"{name}.4"]
            assert {key.kind for key in others} == {kind} and len({key.id for key in (first, *others)}) == 4
            series = [key for key in again().list() if key.series == name]
            assert [key.name for key in series if key.state is KeyState.ACTIVE] == [f"{name}.4"]
            for key in series:
                with again().open(key.id) as secret:
                    assert secret.value
        store.create_key(KeyKind.DRIVE, "a.9")
        with pytest.raises(InvalidValue, match="both kinds"):
            store.rotate("a")
        with pytest.raises(NotFound):
            store.rotate("nothing")
