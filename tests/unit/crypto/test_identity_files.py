"""Files with secret keys: what is read, and what is said of those that cannot be."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pyrage
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from capstan.crypto.age import AgeHeader, ChunkCipher, new_header, read_header, sealed_bytes
from capstan.crypto.identities import DriveKey, Identity
from capstan.crypto.identity_files import load_identities, read_keys
from capstan.crypto.key_ids import key_id
from capstan.crypto.keystore import KeyKind, Secret
from capstan.errors import IdentityUnusable, WrongPassphrase

X25519 = [pyrage.x25519.Identity.generate() for _ in range(2)]
TEXT = f"# created by hand\r\n\n{X25519[0]}\n  {X25519[1]}  \n"


def quickly_sealed(plain: bytes, passphrase: bytes) -> bytes:
    """As `pyrage.passphrase` does it, with less work than it takes a second for."""
    file_key, salt = os.urandom(16), os.urandom(16)
    wrapping = hashlib.scrypt(passphrase, salt=b"age-encryption.org/v1/scrypt" + salt, n=1 << 8, r=8, p=1, dklen=32)
    body = ChaCha20Poly1305(wrapping).encrypt(bytes(12), file_key, None)
    text = b"age-encryption.org/v1\n-> scrypt %b 8\n%b\n---" % (unpadded(salt), unpadded(body))
    mac = hmac.digest(HKDF(hashes.SHA256(), 32, b"", b"header").derive(file_key), text, "sha256")
    header = AgeHeader(text + b" " + unpadded(mac) + b"\n", file_key)
    cipher, sealed = ChunkCipher(header), bytearray(sealed_bytes(len(plain)))
    cipher.seal_into(0, memoryview(plain), memoryview(sealed), last=True)
    return header.text + cipher.nonce + bytes(sealed)


def unpadded(data: bytes) -> bytes:
    return base64.b64encode(data).rstrip(b"=")


SEALED = quickly_sealed(TEXT.encode(), b"pass phrase")
ARMORED = (
    "-----BEGIN AGE ENCRYPTED FILE-----\n"
    + base64.encodebytes(SEALED).decode()
    + "-----END AGE ENCRYPTED FILE-----\n"
)  # fmt: skip


def never(path: Path) -> Secret:
    raise AssertionError("nothing of this needs a passphrase")


def given(text: str) -> Callable[[Path], Secret]:
    return lambda path: Secret(text.encode())


def changed(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def opens(identity: Identity, recipient: str) -> bool:
    return bool(read_header(new_header([recipient]).text, [identity]).file_key)


@pytest.mark.parametrize(
    ("content", "passphrase"),
    [
        (TEXT.encode(), ""),
        (b"\xef\xbb\xbf" + TEXT.encode(), ""),
        (SEALED, "pass phrase"),
        (ARMORED.encode(), "pass phrase"),
        (ARMORED.replace("\n", "\r\n").encode(), "pass phrase"),
        (f"Some words\nbefore and behind.\n  {ARMORED}  \nSHA-256 …\n".encode(), "pass phrase"),
        (ARMORED.replace("\n", "\n\t").encode(), "pass phrase"),
    ],
    ids=["plain", "byte-order-mark", "sealed", "armored", "crlf", "sheet", "indented"],
)
def test_identities_of_age(tmp_path: Path, content: bytes, passphrase: str) -> None:
    """Several in a file, comments between them, sealed by a passphrase or not, in a text with other words."""
    path = tmp_path / "file"
    path.write_bytes(content)
    found = load_identities([path], given(passphrase) if passphrase else never)
    recipients = [str(identity.to_public()) for identity in X25519]
    assert [identity.recipient for identity in found] == recipients
    assert [identity.key_id for identity in found] == [key_id(recipient) for recipient in recipients]
    assert all(opens(identity, recipient) for identity, recipient in zip(found, recipients, strict=True))


@pytest.mark.requires("ssh-keygen")
@pytest.mark.parametrize("kind", ["ed25519", "rsa", "rsa-pem"])
@pytest.mark.parametrize("passphrase", ["", "pass phrase"])
def test_ssh_keys(tmp_path: Path, kind: str, passphrase: str) -> None:
    """With a passphrase it is asked for, and a wrong one told; several files give everybody in them."""
    path, other = tmp_path / "key", tmp_path / "other"
    form = ["-m", "PEM"] if kind == "rsa-pem" else []
    subprocess.run(
        ["ssh-keygen", "-q", "-t", kind[:7].removesuffix("-pem"), *form, "-N", passphrase, "-f", str(path)], check=True
    )
    other.write_text(TEXT)
    found = load_identities([other, path], given(passphrase) if passphrase else never)
    assert len(found) == 3
    public = path.with_suffix(".pub").read_text()
    assert opens(found[2], public) and found[2].recipient == " ".join(public.split()[:2])
    if passphrase:
        with pytest.raises(WrongPassphrase, match=str(path)):
            load_identities([path], given("wrong"))
    with pytest.raises(IdentityUnusable, match="SSH"):
        read_keys(path, never)
    path.write_bytes(path.read_bytes()[:-150])
    with pytest.raises(IdentityUnusable, match="cut off"):
        load_identities([path], given("pass phrase"))


BAD: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "there is no identity in it"),
    "comments": (b"# AGE-SECRET-KEY-1\n\n", "there is no identity in it"),
    "cut-off": (TEXT.encode()[:-20], "line 4 is an identity that is cut off or mistyped"),
    "mistyped": (str(X25519[0]).replace("AGE-SECRET-KEY-1", "AGE-SECRET-KEY-1Q").encode(), "line 1 .*mistyped"),
    "recipient": (f"{X25519[0].to_public()}\n".encode(), "line 1 is a recipient"),
    "ssh-recipient": (b"ssh-ed25519 AAAAC3Nza me@here\n", "line 1 is a recipient"),
    "plugin": (b"AGE-PLUGIN-YUBIKEY-1QQQQ\n", "line 1 .*plugin"),
    "binary": (bytes(range(256)), "line 1 is no identity"),
    "words": (f"{X25519[0]}\nhunter2 hunter2\n".encode(), "line 2 is no identity"),
    "huge": (bytes((1 << 20) + 1), "too long"),
    "sealed-header": (SEALED[:60], "cut off or damaged: .*header"),
    "sealed-payload": (SEALED[:-40], "cut off or damaged: decryption error"),
    "sealed-end": (SEALED[:-1], "cut off or damaged"),
    "sealed-changed": (changed(SEALED, len(SEALED) - 3), "cut off or damaged"),
    "sealed-mac": (changed(SEALED, SEALED.index(b"\n---") + 10), "cut off or damaged"),
    "armor-cut-off": (ARMORED.encode()[:-40], "BEGIN or END"),
    "armor-without-begin": (ARMORED.encode()[40:], "BEGIN or END"),
    "armor-changed": (ARMORED.replace("YWdl", "*Wdl", 1).encode(), "armor is damaged"),
    "armor-twice": (ARMORED.encode() * 2, "more than one"),
    "for-a-key": (bytes(pyrage.encrypt(b"x", [X25519[0].to_public()])), "sealed for a key"),
    "work": (SEALED.replace(b" 8\n", b" 40\n", 1), "cut off or damaged: Exc"),
    "pem": (
        b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n",
        "the SSH key is cut off",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_none(tmp_path: Path, name: str) -> None:
    """Each has an error of its own that names the file, and shows nothing of what is in it."""
    content, reason = BAD[name]
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(IdentityUnusable, match=reason) as caught:
        load_identities([path], given("pass phrase"))
    shown = str(caught.value.as_dict())
    assert str(path) in shown
    assert not any(secret in shown for secret in (str(X25519[0])[20:40], str(X25519[1])[20:40], "hunter2", "5a5a"))


def test_the_key_of_a_drive_is_an_identity_too(tmp_path: Path) -> None:
    """It opens what the drive has encrypted, is known by the id that its store calls it, and is not shown."""
    path = tmp_path / "file"
    path.write_text(f"# drive-key: {'5a' * 32}\n{X25519[0]}\n")
    key, _ = load_identities([path], given("pass phrase"))
    assert isinstance(key, DriveKey) and key.secret == b"\x5a" * 32
    assert key.key_id == hashlib.sha256(b"capstan drive key\0" + key.secret).hexdigest()[:16]
    assert "5a5a" not in repr(key) and repr(key.secret) not in repr(key)


def test_the_wrong_passphrase(tmp_path: Path) -> None:
    """Is not damage, and names the file."""
    path = tmp_path / "file"
    path.write_bytes(SEALED)
    with pytest.raises(WrongPassphrase, match=str(path)) as caught:
        load_identities([path], given("hunter2"))
    assert "hunter2" not in str(caught.value.as_dict())


def test_files_that_are_not_there(tmp_path: Path) -> None:
    """The system's words, with the path."""
    for path, reason in ((tmp_path / "nowhere", "No such file"), (tmp_path, "directory")):
        with pytest.raises(IdentityUnusable, match=reason):
            load_identities([path], never)


def test_permission_denied(tmp_path: Path) -> None:
    """Said as such."""
    path = tmp_path / "file"
    path.write_text(TEXT)
    path.chmod(0)
    user = os.geteuid()
    if user == 0:  # who may read everything
        os.seteuid(65534)
    try:
        with pytest.raises(IdentityUnusable, match="Permission denied"):
            load_identities([path], never)
    finally:
        os.seteuid(user)


def test_what_a_store_can_keep(tmp_path: Path) -> None:
    """Names, kinds and states as an export has them; each for the key below it only."""
    path = tmp_path / "file"
    drive = bytes(range(32))
    lines = [
        "# name: one",
        "# state: retired",
        str(X25519[0]),
        str(X25519[1]),
        "# name: two",
        f"# drive-key: {drive.hex()}",
    ]
    path.write_text("\n".join([*lines, drive.hex().upper()]))
    found = read_keys(path, never)
    assert [(key.kind, key.name, key.retired) for key in found] == [
        (KeyKind.AGE, "one", True),
        (KeyKind.AGE, "", False),
        (KeyKind.DRIVE, "two", False),
        (KeyKind.DRIVE, "", False),
    ]
    assert [key.secret.value for key in found] == [str(X25519[0]).encode(), str(X25519[1]).encode(), drive, drive]
    assert found[0].id == key_id(str(X25519[0].to_public()))
    assert str(X25519[0]) not in repr(found) and drive.hex() not in repr(found)
