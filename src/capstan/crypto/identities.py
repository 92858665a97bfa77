"""Identities that open age files: X25519, and SSH private keys (https://c2sp.org/age). No `repr` shows a secret."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from base64 import b64decode, b64encode
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import pyrage
from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_ssh_private_key,
)

from capstan.crypto.key_ids import key_id
from capstan.crypto.keystore import KeyKind, KeyStore, Secret
from capstan.errors import InvalidValue, WrongPassphrase

_BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_PRIME = 2**255 - 19


class Stanza(NamedTuple):
    """One recipient's part of a header: a file key that only they can unwrap."""

    kind: str
    arguments: tuple[bytes, ...]
    body: bytes


class Identity(ABC):
    """Whoever can open files. `recipient`: what is sealed for them, in its canonical text."""

    recipient: str

    @property
    def key_id(self) -> str:
        """The id of the key, as it stands in the headers of what it opens."""
        return key_id(self.recipient)

    @abstractmethod
    def unwrap(self, stanza: Stanza) -> bytes | None:
        """The file key in a stanza; None if it is for somebody else."""


class KnownFileKey(Identity):
    """Whoever has the key of one file, and needs no stanza. That it is the right one, the header's MAC says."""

    def __init__(self, file_key: bytes) -> None:
        self._file_key = file_key

    def unwrap(self, stanza: Stanza) -> bytes | None:
        return self._file_key


class DriveKey(Identity):
    """The key of a drive: it opens what that has encrypted, and no age file."""

    def __init__(self, secret: bytes, key_id: str) -> None:
        self.secret = secret
        self.recipient = ""
        self._key_id = key_id

    @property
    def key_id(self) -> str:
        return self._key_id

    def unwrap(self, stanza: Stanza) -> bytes | None:
        return None


class X25519Identity(Identity):
    """`AGE-SECRET-KEY-1…`"""

    def __init__(self, secret: bytes, recipient: str) -> None:
        self.recipient = recipient
        self._key = X25519PrivateKey.from_private_bytes(secret)
        self._public = self._key.public_key().public_bytes_raw()

    @classmethod
    def from_text(cls, text: str) -> X25519Identity:
        """InvalidValue for what is none; the text is not repeated in it."""
        try:
            public = pyrage.x25519.Identity.from_str(text.strip()).to_public()  # it checks the checksum
        except pyrage.IdentityError:
            raise InvalidValue(what="identity", value="(not shown)", reason="write AGE-SECRET-KEY-1…") from None
        return cls(_bech32_bytes(text.strip()), str(public))

    def unwrap(self, stanza: Stanza) -> bytes | None:
        if stanza.kind != "X25519" or len(stanza.arguments) != 1:
            return None
        share = _unpadded(stanza.arguments[0])
        return _open_key(self._key, share, share + self._public, b"age-encryption.org/v1/X25519", stanza.body)


class SshEd25519Identity(Identity):
    """An SSH key, used as the Curve25519 key that it corresponds to."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self.recipient = _public_line(key)
        self._wire = b64decode(self.recipient.split()[1])
        self._tag = _tag(self._wire)
        seed = hashlib.sha512(key.private_bytes_raw()).digest()[:32]
        self._key = X25519PrivateKey.from_private_bytes(seed)
        self._public = _montgomery(key.public_key().public_bytes_raw())

    def unwrap(self, stanza: Stanza) -> bytes | None:
        if stanza.kind != "ssh-ed25519" or len(stanza.arguments) != 2 or stanza.arguments[0] != self._tag:
            return None
        share = _unpadded(stanza.arguments[1])
        info = b"age-encryption.org/v1/ssh-ed25519"
        tweak = X25519PrivateKey.from_private_bytes(HKDF(hashes.SHA256(), 32, self._wire, info).derive(b""))
        return _open_key(self._key, share, share + self._public, info, stanza.body, tweak)


class SshRsaIdentity(Identity):
    """An SSH key of RSA."""

    def __init__(self, key: RSAPrivateKey) -> None:
        self.recipient = _public_line(key)
        self._tag = _tag(b64decode(self.recipient.split()[1]))
        self._key = key

    def unwrap(self, stanza: Stanza) -> bytes | None:
        if stanza.kind != "ssh-rsa" or stanza.arguments != (self._tag,):
            return None
        mask, label = padding.MGF1(hashes.SHA256()), b"age-encryption.org/v1/ssh-rsa"
        try:
            return self._key.decrypt(stanza.body, padding.OAEP(mask, hashes.SHA256(), label))
        except ValueError:
            return None


def ssh_identity(pem: bytes, password: bytes | None = None, *, path: Path | str = "the SSH key") -> Identity:
    """The identity in an SSH private key file. InvalidValue for what is none; WrongPassphrase, which names `path`, for
    one that needs a password, or another one."""
    load = load_ssh_private_key if b"BEGIN OPENSSH " in pem[:100] else load_pem_private_key
    try:
        key = load(pem, password)
    except TypeError:  # it has a password, and none was given
        raise WrongPassphrase(path=path) from None
    except (ValueError, UnsupportedAlgorithm) as error:
        if password is not None and isinstance(error, ValueError):
            raise WrongPassphrase(path=path) from None
        reason = f"the SSH key is cut off or damaged: {error}"
        raise InvalidValue(what="identity", value="(not shown)", reason=reason) from None
    if isinstance(key, Ed25519PrivateKey):
        return SshEd25519Identity(key)
    if isinstance(key, RSAPrivateKey):
        return SshRsaIdentity(key)
    raise InvalidValue(what="identity", value="(not shown)", reason="use an SSH key of type ed25519 or RSA")


def stored_identities(store: KeyStore, wanted: Collection[str]) -> list[Identity]:
    """Those that a store has of the keys with the ids `wanted`; it is not unlocked when it has none of them.
    WrongPassphrase, KeysDamaged."""
    found: list[Identity] = []
    for key in store.list():
        if key.id in wanted:
            with store.open(key.id) as secret:
                found.append(key_identity(key.kind, key.id, secret))
    return found


def key_identity(kind: KeyKind, key_id: str, secret: Secret) -> Identity:
    """Who has a key of that kind."""
    if kind is KeyKind.DRIVE:
        return DriveKey(secret.value, key_id)
    return X25519Identity.from_text(secret.value.decode())


def _public_line(key: Ed25519PrivateKey | RSAPrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def _open_key(
    key: X25519PrivateKey, share: bytes, salt: bytes, info: bytes, body: bytes, tweak: X25519PrivateKey | None = None
) -> bytes | None:
    """Unwrap a file key by the shared secret of `key` and the ephemeral `share`."""
    try:
        secret = key.exchange(X25519PublicKey.from_public_bytes(share))
        if tweak is not None:
            secret = tweak.exchange(X25519PublicKey.from_public_bytes(secret))
        wrap = ChaCha20Poly1305(HKDF(hashes.SHA256(), 32, salt, info).derive(secret))
        return wrap.decrypt(bytes(12), body, None)
    except (InvalidTag, ValueError):
        return None


def _montgomery(public: bytes) -> bytes:
    """The Curve25519 point of an Ed25519 one (RFC 7748, 4.1): u = (1 + y) / (1 - y)."""
    y = int.from_bytes(public, "little") & ((1 << 255) - 1)
    return ((1 + y) * pow(1 - y, -1, _PRIME) % _PRIME).to_bytes(32, "little")


def _tag(wire: bytes) -> bytes:
    return b64encode(hashlib.sha256(wire).digest()[:4]).rstrip(b"=")


def _unpadded(text: bytes) -> bytes:
    return b64decode(text + b"=" * (-len(text) % 4))


def _bech32_bytes(text: str) -> bytes:
    """The data of a Bech32 text whose checksum is right (BIP 173)."""
    digits = [_BECH32.index(letter) for letter in text.lower()[text.rindex("1") + 1 :]][:-6]
    value = 0
    for digit in digits:
        value = value << 5 | digit
    spare = len(digits) * 5 % 8
    return (value >> spare).to_bytes(len(digits) * 5 // 8, "big")
