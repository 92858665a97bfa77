"""age v1 files, in both directions with the stock program."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pyrage
import pytest

from capstan.crypto.age import (
    CHUNK,
    NONCE,
    TAG,
    AgeError,
    ChunkCipher,
    chunk_at,
    header_bytes,
    new_header,
    read_header,
    sealed_bytes,
)
from capstan.crypto.identities import Identity, X25519Identity, ssh_identity
from capstan.errors import InvalidValue

SIZES = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 3 * CHUNK + 17]


def seal(recipients: Sequence[str], plain: bytes) -> bytes:
    """A whole file."""
    header = new_header(recipients)
    cipher = ChunkCipher(header)
    count = max(1, -(-len(plain) // CHUNK))
    sealed = bytearray(sealed_bytes(len(plain)))
    for number in range(count):
        piece = memoryview(plain)[number * CHUNK : (number + 1) * CHUNK]
        start = number * (CHUNK + TAG)
        last = number == count - 1
        cipher.seal_into(number, piece, memoryview(sealed)[start : start + len(piece) + TAG], last=last)
    return header.text + cipher.nonce + bytes(sealed)


def unseal(data: bytes, identities: Sequence[Identity], at: int = 0) -> bytes:
    """Everything from the chunk that holds byte `at` on."""
    header = read_header(data, identities)
    start = len(header.text) + NONCE
    cipher = ChunkCipher(header, data[len(header.text) : start])
    number, offset = chunk_at(at)
    plain = b""
    for begin in range(start + offset, len(data), CHUNK + TAG):
        sealed = memoryview(data)[begin : begin + CHUNK + TAG]
        piece = bytearray(len(sealed) - TAG)
        cipher.open_into(number, sealed, memoryview(piece), last=begin + len(sealed) == len(data))
        plain, number = plain + bytes(piece), number + 1
    return plain


@pytest.fixture
def key(tmp_path: Path) -> tuple[str, X25519Identity]:
    """A recipient and its identity, which is in the file `key` too."""
    identity = pyrage.x25519.Identity.generate()
    (tmp_path / "key").write_text(f"{identity}\n")
    return str(identity.to_public()), X25519Identity.from_text(str(identity))


def stock(*arguments: str | Path, data: bytes) -> bytes:
    """What the program makes of `data`."""
    return subprocess.run(["age", *map(str, arguments)], input=data, check=True, capture_output=True).stdout


@pytest.mark.requires("age")
@pytest.mark.parametrize("size", SIZES)
def test_both_directions(tmp_path: Path, key: tuple[str, X25519Identity], size: int) -> None:
    """The program opens what is sealed here, and what it seals opens here."""
    recipient, identity = key
    plain = os.urandom(size)
    assert stock("-d", "-i", tmp_path / "key", data=seal([recipient], plain)) == plain
    assert unseal(stock("-r", recipient, data=plain), [identity]) == plain


@pytest.mark.requires("age", "ssh-keygen")
@pytest.mark.parametrize("kind", ["ed25519", "rsa"])
def test_ssh_keys(tmp_path: Path, key: tuple[str, X25519Identity], kind: str) -> None:
    """Beside another recipient; each can open the file alone."""
    recipient, identity = key
    path = tmp_path / kind
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(path)], check=True)
    public, plain = path.with_suffix(".pub").read_text(), os.urandom(CHUNK + 5)
    sealed = seal([public, recipient], plain)
    assert stock("-d", "-i", path, data=sealed) == stock("-d", "-i", tmp_path / "key", data=sealed) == plain
    theirs = stock("-R", path.with_suffix(".pub"), data=plain)
    for data, opens in ((sealed, identity), (sealed, ssh_identity(path.read_bytes()))):
        assert unseal(data, [opens]) == plain
    assert unseal(theirs, [identity, ssh_identity(path.read_bytes())]) == plain


def test_any_chunk_opens_alone(key: tuple[str, X25519Identity]) -> None:
    """Its place follows from the offset of the byte that is wanted."""
    recipient, identity = key
    plain = os.urandom(4 * CHUNK + 3)
    sealed = seal([recipient], plain)
    for at in (0, CHUNK - 1, CHUNK, 3 * CHUNK + 9, 4 * CHUNK + 2):
        assert unseal(sealed, [identity], at) == plain[at // CHUNK * CHUNK :]


def test_whatever_was_changed_is_noticed(key: tuple[str, X25519Identity]) -> None:
    """A bit of the header, of the nonce or of any chunk; chunks that changed places, or are missing at the end."""
    recipient, identity = key
    sealed = seal([recipient], bytes(3 * CHUNK))
    payload = header_bytes(sealed) + NONCE
    for at in (30, header_bytes(sealed) - 5, payload - 1, payload, payload + CHUNK + TAG, len(sealed) - 1):
        changed = bytearray(sealed)
        changed[at] ^= 1
        with pytest.raises(AgeError):
            unseal(bytes(changed), [identity])
    one, two = (sealed[payload + n * (CHUNK + TAG) : payload + (n + 1) * (CHUNK + TAG)] for n in (0, 1))
    for payload_bytes in (two + one + sealed[payload + 2 * (CHUNK + TAG) :], one + two):
        with pytest.raises(AgeError, match="chunk"):
            unseal(sealed[:payload] + payload_bytes, [identity])


def test_for_others(key: tuple[str, X25519Identity]) -> None:
    """It says that none of the identities opens it; what is no file at all is another error."""
    other = X25519Identity.from_text(str(pyrage.x25519.Identity.generate()))
    with pytest.raises(AgeError, match="none of the identities"):
        unseal(seal([key[0]], b"x"), [other])
    for data in (b"", b"age-encryption.org/v1\n-> X25519", bytes(5000)):
        with pytest.raises(AgeError, match="begin"):
            unseal(data, [other])


@pytest.mark.parametrize("text", ["", "age1", "age1qqqq", "ssh-ed25519 AAAA", "AGE-SECRET-KEY-1QQ"])
def test_what_is_no_recipient(text: str) -> None:
    """A clear error, before anything is sealed."""
    with pytest.raises(InvalidValue, match="recipient"):
        new_header([text])


def test_secrets_are_not_shown() -> None:
    """Neither in errors nor by `repr`."""
    identity = pyrage.x25519.Identity.generate()
    secret = str(identity)
    header = new_header([str(identity.to_public())])
    for shown in (repr(header), repr(X25519Identity.from_text(secret))):
        assert header.file_key.hex() not in shown and repr(header.file_key) not in shown and secret not in shown
    with pytest.raises(InvalidValue) as caught:
        X25519Identity.from_text(secret[:-1] + ("P" if secret.endswith("Q") else "Q"))
    assert secret[:-1] not in str(caught.value)
