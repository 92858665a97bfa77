"""Exports of keys, their sheets, and drills with them."""

from __future__ import annotations

import os
import re
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pyrage
import pytest

from capstan.clock import SystemClock
from capstan.crypto.drill import can_open, prove_export
from capstan.crypto.file_keystore import FileKeyStore
from capstan.crypto.identities import DriveKey, X25519Identity, stored_identities
from capstan.crypto.identity_files import FileKey, load_identities, read_keys
from capstan.crypto.key_export import Export, check_new, export_keys, write_new
from capstan.crypto.key_sheet import as_pdf, as_text, code_texts
from capstan.crypto.keystore import Key, KeyKind, KeyState, Secret
from capstan.errors import AlreadyExists, StorageFailed

AT = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
PASSPHRASE = "pass phrase, 口令"


def given(_: object = None) -> Secret:
    return Secret(PASSPHRASE.encode())


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FileKeyStore:
    """With two identities of a series, and the key of a drive."""
    quick = {"memory_kib": 64, "iterations": 1, "lanes": 1}
    made = FileKeyStore.create(tmp_path_factory.mktemp("home") / "keys", SystemClock(), given, argon2=quick)
    made.create_key(KeyKind.AGE, "escrow")
    made.create_key(KeyKind.DRIVE, "drive")
    made.rotate("escrow")
    return made


@pytest.fixture(scope="module")
def export(store: FileKeyStore) -> Export:
    return export_keys(store, store.list(), given(), AT)


def secrets_of(store: FileKeyStore) -> dict[str, bytes]:
    found = {}
    for key in store.list():
        with store.open(key.id) as secret:
            found[key.name] = secret.value
    return found


@pytest.mark.slow
def test_it_holds_the_keys(store: FileKeyStore, export: Export, tmp_path: Path) -> None:
    """Sealed by the passphrase alone, as a file of identities; read again, each key is the store's, with its name and
    state; and no secret is in the open."""
    secrets = secrets_of(store)
    content = pyrage.passphrase.decrypt(export.armored.encode(), PASSPHRASE).decode()
    assert all(line.startswith(("#", "AGE-SECRET-KEY-1")) for line in content.splitlines())
    path = tmp_path / "export"
    for text in (export.armored, as_text(export)):
        path.write_text(text)
        found = read_keys(path, given)
        assert {key.name: key.secret.value for key in found} == secrets
        assert [(key.id, key.name, key.retired) for key in found] == [
            (key.id, key.name, key.state is KeyState.RETIRED) for key in store.list()
        ]
        assert not any(secret.decode("latin-1") in text or secret.hex() in text for secret in secrets.values())
    assert [identity.key_id for identity in load_identities([path], given)] == [key.id for key in store.list()]


def test_the_sheet_says_what_it_is(store: FileKeyStore, export: Export) -> None:
    """Name, id, state, day and recipient of each key, in both languages, with the commands that use it; and only one
    line of the text can be taken for the beginning of the file."""
    text = as_text(export)
    for key in store.list():
        assert all(part in text for part in (key.name, key.id, key.state.value, key.recipient))
    for part in ("Passphrase", "口令", "age -d keys.age", "capstan key import", "2026-01-02 03:04 UTC", "____"):
        assert part in text
    assert len(re.findall("^.*BEGIN AGE.*$", text, re.MULTILINE)) == 1


@pytest.mark.parametrize("count", [1, 2, 8, 9, 15, 16, 17, 40])
def test_codes_make_the_file(count: int) -> None:
    """However many it takes: their texts, each on lines of its own, are the sealed file."""
    armored = "".join(f"{number:064}\n" for number in range(count))
    texts = code_texts(Export((), armored, AT))
    assert "\n".join(texts) + "\n" == armored
    assert all(0 < len(text) <= 520 for text in texts)


@pytest.mark.slow
@pytest.mark.requires("pdftoppm", "zbarimg", "pdftotext")
def test_the_sheet_on_paper(store: FileKeyStore, export: Export, tmp_path: Path) -> None:
    """The codes on the pages, read from their picture in their order, are the sealed file; so are its
    letters; and the pages say which keys there are."""
    pdf = tmp_path / "sheet.pdf"
    pdf.write_bytes(as_pdf(export))
    read = b""
    for page in ("1", "2", "3"):  # A4 at 150 dots an inch is 1240 wide
        for left in ("0", "620"):
            half = [
                "-r",
                "150",
                "-f",
                page,
                "-l",
                page,
                "-x",
                left,
                "-y",
                "0",
                "-W",
                "620",
                "-H",
                "1754",
                "-singlefile",
            ]
            subprocess.run(["pdftoppm", *half, "-png", pdf, tmp_path / "half"], check=True, capture_output=True)
            scan = ["zbarimg", "-q", "--nodbus", "--raw", tmp_path / "half.png"]
            read += subprocess.run(scan, check=False, capture_output=True).stdout
    assert read.decode() == export.armored
    letters = subprocess.run(["pdftotext", "-layout", pdf, "-"], check=True, capture_output=True, text=True).stdout
    path = tmp_path / "typed"
    path.write_text(letters)
    assert [key.id for key in read_keys(path, given)] == [key.id for key in store.list()]
    assert all(key.id in letters and key.recipient in letters for key in store.list())


@pytest.mark.slow
def test_many_keys_have_room(export: Export) -> None:
    """A sheet of hundreds of keys is drawn all the same, over as many pages as it takes."""
    pdf = as_pdf(Export(export.keys * 200, export.armored * 40, AT))
    assert len(re.findall(rb"/Type /Page\b", pdf)) > 10


def test_an_export_overwrites_nothing(tmp_path: Path) -> None:
    """For its owner only; what has the name keeps it, also a link that leads nowhere; where no file can be made none is
    left."""
    path = tmp_path / "export"
    write_new(path, b"one")
    assert path.stat().st_mode & 0o777 == 0o600
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    for taken in (path, tmp_path / "link", tmp_path):
        for refuses in (check_new, lambda path: write_new(path, b"two")):
            with pytest.raises(AlreadyExists):
                refuses(taken)
    check_new(tmp_path / "free")
    assert path.read_bytes() == b"one" and not (tmp_path / "nothing").exists()
    for nowhere in (tmp_path / "no" / "folder", path / "file", Path("/proc/capstan")):
        with pytest.raises(StorageFailed):
            write_new(nowhere, b"two")
    for nowhere in (tmp_path / "no" / "folder", path / "file"):
        with pytest.raises(StorageFailed, match="folder is not there"):
            check_new(nowhere)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["export", "link"]


def as_file_key(key: Key, secret: bytes) -> FileKey:
    return FileKey(key.kind, key.name, False, Secret(secret))


def test_a_drill(store: FileKeyStore) -> None:
    """What the exported keys open is noted in the store, without its passphrase; what they do not is not."""
    secrets, keys = secrets_of(store), {key.name: key for key in store.list()}

    def never() -> Secret:
        raise AssertionError("a drill does not unlock the store")

    locked = FileKeyStore.open_at(store._folder, SystemClock(), never)
    stranger = FileKey(KeyKind.AGE, "escrow", False, Secret(str(pyrage.x25519.Identity.generate()).encode()))
    other = FileKey(KeyKind.DRIVE, "drive", False, Secret(os.urandom(32)))
    assert prove_export(locked, [stranger, other], AT) == []
    assert all(key.proven_at is None for key in store.list())
    exported = [as_file_key(keys[name], secrets[name]) for name in ("escrow.2", "drive")]
    proven = prove_export(locked, [stranger, *exported], AT)
    assert {(key.name, key.proven_at) for key in proven} == {("escrow.2", AT), ("drive", AT)}
    assert {key.name: key.proven_at for key in store.list()} == {"escrow": None, "escrow.2": AT, "drive": AT}


def test_a_drill_seals_for_what_the_store_says(
    store: FileKeyStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key whose recipient in the store is another's is not proven: what was sealed for it would not open."""
    secrets, key = secrets_of(store), store.get("escrow")
    stranger = str(pyrage.x25519.Identity.generate().to_public())
    path = store._folder / f"{key.id}.json"
    whole = path.read_text()
    path.write_text(whole.replace(key.recipient, stranger))
    try:
        assert prove_export(store, [as_file_key(key, secrets["escrow"])], AT) == []
    finally:
        path.write_text(whole)


def test_who_can_open(store: FileKeyStore) -> None:
    """Any of several identities, and nobody else."""
    mine, other = (pyrage.x25519.Identity.generate() for _ in range(2))
    identities = [X25519Identity.from_text(str(identity)) for identity in (other, mine)]
    assert can_open(identities, str(mine.to_public()))
    assert not can_open(identities[:1], str(mine.to_public()))
    assert not can_open([], str(mine.to_public()))


def test_identities_of_a_store(store: FileKeyStore) -> None:
    """Those that are wanted, of both kinds; for what it does not have it is not unlocked."""
    asked: list[int] = []

    def unlock() -> Secret:
        asked.append(1)
        return given()

    opened = FileKeyStore.open_at(store._folder, SystemClock(), unlock)
    key, drive = store.get("escrow"), store.get("drive")
    assert stored_identities(opened, {"0" * 16}) == [] and not asked
    found = {identity.key_id: identity for identity in stored_identities(opened, {key.id, drive.id})}
    assert can_open([found[key.id]], key.recipient) and len(asked) == 1
    with store.open(drive.id) as secret:
        assert isinstance(found[drive.id], DriveKey) and found[drive.id].secret == secret.value
