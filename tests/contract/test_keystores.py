"""Key stores: the contract, and what only the files of one promise."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from capstan.clock import SystemClock
from capstan.crypto.file_keystore import FileKeyStore
from capstan.crypto.keystore import KeyKind, Secret
from capstan.errors import AlreadyExists, InUse, InvalidValue, KeysDamaged, NotFound, WrongPassphrase
from capstan.process_lock import ProcessLock
from capstan.testing.keystore_contract import KeyStoreContract

QUICK = {"memory_kib": 64, "iterations": 1, "lanes": 1}


def phrase(text: str = "correct horse") -> Callable[[], Secret]:
    return lambda: Secret(text.encode())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "keys"


@pytest.fixture
def again(folder: Path) -> Callable[[], FileKeyStore]:
    return lambda: FileKeyStore.open_at(folder, SystemClock(), phrase())


@pytest.fixture
def store(folder: Path) -> FileKeyStore:
    return FileKeyStore.create(folder, SystemClock(), phrase(), argon2=QUICK)


class TestFileKeyStore(KeyStoreContract):
    """Files in a folder."""


def test_the_files_are_for_their_owner_only(store: FileKeyStore, folder: Path) -> None:
    """And hold no secret in the open."""
    key = store.create_key(KeyKind.DRIVE, "one")
    assert folder.stat().st_mode & 0o777 == 0o700
    with store.open("one") as secret:
        value = secret.value
    for path in folder.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
        assert value not in path.read_bytes() and value.hex().encode() not in path.read_bytes()
    assert {path.name for path in folder.iterdir()} == {"master.json", "lock", f"{key.id}.json"}


def test_the_wrong_passphrase(store: FileKeyStore, folder: Path) -> None:
    """A clear error, and nothing is made; what is no secret needs none."""
    key = store.create_key(KeyKind.AGE, "one")
    wrong = FileKeyStore.open_at(folder, SystemClock(), phrase("wrong"))
    with pytest.raises(WrongPassphrase), wrong.open("one"):
        pass
    with pytest.raises(WrongPassphrase):
        wrong.create_key(KeyKind.AGE, "two")
    assert list(wrong.list()) == [key]
    with pytest.raises(ValueError), FileKeyStore.open_at(folder, SystemClock(), phrase("")).open("one"):
        pass


def test_another_passphrase(store: FileKeyStore, folder: Path, again: Callable[[], FileKeyStore]) -> None:
    """The old one opens nothing any more, the keys are the same; a key file does as well."""
    store.create_key(KeyKind.DRIVE, "one")
    with store.open("one") as secret:
        before = secret.value
    content = os.urandom(32)
    for unlock, key_file in ((phrase("new"), False), (lambda: Secret(content), True)):
        store.change_unlocking(unlock, key_file=key_file, argon2=QUICK)
        with FileKeyStore.open_at(folder, SystemClock(), unlock).open("one") as secret:
            assert secret.value == before
        with pytest.raises(WrongPassphrase), again().open("one"):
            pass
    with pytest.raises(InvalidValue, match="less than 32"):
        store.change_unlocking(lambda: Secret(content[:31]), key_file=True)
    with (
        pytest.raises(WrongPassphrase),
        FileKeyStore.open_at(folder, SystemClock(), lambda: Secret(content[:31])).open("one"),
    ):
        pass


@pytest.mark.parametrize("name", ["id", "kind", "name", "created_at", "recipient", "wrapped"])
def test_whatever_was_changed_is_noticed(store: FileKeyStore, folder: Path, name: str) -> None:
    """Nobody gets a key for another one's."""
    keys = [store.create_key(KeyKind.DRIVE, text) for text in ("one", "two")]
    mine, other = (folder / f"{key.id}.json" for key in keys)
    value = json.loads(mine.read_bytes())
    value[name] = "age" if name == "kind" else json.loads(other.read_bytes())[name] or "x"
    mine.write_text(json.dumps(value))
    if name == "id":
        other.unlink()
    found = next(key for key in store.list() if key.name == value["name"] or key.id == value["id"])
    with pytest.raises((KeysDamaged, InvalidValue)), store.open(keys[0].id if name != "id" else found.id):
        pass


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"version": 9}', b'{"version": 1}'])
def test_a_broken_file_is_named(
    store: FileKeyStore, folder: Path, again: Callable[[], FileKeyStore], content: bytes
) -> None:
    """A key's, and the store's own."""
    key = store.create_key(KeyKind.AGE, "one")
    path = folder / f"{key.id}.json"
    whole = path.read_bytes()
    path.write_bytes(content)
    with pytest.raises(KeysDamaged, match=key.id):
        store.list()
    path.write_bytes(whole)
    (folder / "master.json").write_bytes(content)
    with pytest.raises(KeysDamaged, match="master"), again().open("one"):
        pass


@pytest.mark.parametrize("change", [{"memory_kib": 1 << 40}, {"iterations": 0}, {"lanes": "x"}, {"lanes": 65}])
def test_senseless_parameters_are_damage(
    store: FileKeyStore, folder: Path, again: Callable[[], FileKeyStore], change: dict[str, object]
) -> None:
    """What the store's file asks of the machine is checked before it is done."""
    store.create_key(KeyKind.AGE, "one")
    value = json.loads((folder / "master.json").read_bytes())
    (folder / "master.json").write_text(json.dumps({**value, "argon2": {**value["argon2"], **change}}))
    with pytest.raises(KeysDamaged, match="lacks or confuses"), again().open("one"):
        pass


def test_it_is_unlocked_once(store: FileKeyStore, folder: Path) -> None:
    """The passphrase is asked for with the first secret, and again only when the store was locked."""
    asked: list[int] = []

    def unlock() -> Secret:
        asked.append(1)
        return phrase()()

    opened = FileKeyStore.open_at(folder, SystemClock(), unlock)
    opened.list()
    assert not asked
    opened.create_key(KeyKind.AGE, "one")
    with opened.open("one"):
        assert len(asked) == 1
    opened.lock()
    with opened.open("one"):
        assert len(asked) == 2


def test_two_processes_do_not_change_it_at_once(store: FileKeyStore, folder: Path) -> None:
    """The second hears of the first, and nothing is made; reading goes on."""
    key = store.create_key(KeyKind.AGE, "one")
    with ProcessLock(folder / "lock", "the key store"):
        for change in (
            lambda: store.create_key(KeyKind.AGE, "two"),
            lambda: store.retire("one"),
            lambda: store.rotate("one"),
            lambda: store.change_unlocking(phrase("new"), argon2=QUICK),
            lambda: FileKeyStore.create(folder, SystemClock(), phrase(), argon2=QUICK),
        ):
            with pytest.raises(InUse):
                change()
        assert list(store.list()) == [key]


def test_keys_without_what_unlocks_them(store: FileKeyStore, folder: Path) -> None:
    """A store whose master.json is gone is damaged; no new one is made over its keys."""
    store.create_key(KeyKind.AGE, "one")
    (folder / "master.json").unlink()
    with pytest.raises(KeysDamaged, match="gone"):
        FileKeyStore.open_at(folder, SystemClock(), phrase())
    with pytest.raises(KeysDamaged, match="gone"):
        FileKeyStore.create(folder, SystemClock(), phrase())


def test_a_store_is_made_once(store: FileKeyStore, folder: Path, tmp_path: Path) -> None:
    """What is there is not made again; what is not there is not found."""
    with pytest.raises(AlreadyExists):
        FileKeyStore.create(folder, SystemClock(), phrase())
    with pytest.raises(NotFound):
        FileKeyStore.open_at(tmp_path / "nowhere", SystemClock(), phrase())
