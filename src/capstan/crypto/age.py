"""age v1 files (age-encryption.org/v1, https://c2sp.org/age): what the payload of an encrypted segment is.

The recipients' part of a file is made by `pyrage`: nothing is encrypted to them and to one ephemeral X25519 recipient,
whose identity unwraps the file key and is forgotten. So a writer needs public keys only. The payload is sealed here,
chunk by chunk, without a copy and without holding the interpreter: any chunk can be opened alone.
"""

from __future__ import annotations

import hmac
import os
from base64 import b64decode
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import pyrage
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from capstan.crypto.identities import Identity, Stanza, X25519Identity
from capstan.errors import InvalidValue

CHUNK = 65_536  # bytes of plain text in every chunk but the last
TAG = 16  # bytes behind each chunk
NONCE = 16  # bytes between header and payload

_INTRO = b"age-encryption.org/v1\n"
_MAC = b"\n---"
_LONGEST_HEADER = 1 << 20  # bytes; some recipients take 200


class AgeError(ValueError):
    """What is read is no age file, was changed, or is for others. The message says which."""


class NoIdentity(AgeError):
    """It is for others."""


@dataclass(frozen=True, slots=True)
class AgeHeader:
    """The part of a file before its payload: `text` as it stands there, up to the line of its MAC, and the key of the
    file, which `repr` does not show."""

    text: bytes
    file_key: bytes = field(repr=False)


def check_recipient(text: str) -> Any:
    """The recipient that a text names: `age1…`, or the line of an SSH public key. InvalidValue if it is none; a secret
    that was given in its place is not shown."""
    text = text.strip()
    if text.upper().startswith(("AGE-SECRET-KEY-", "-----BEGIN")):
        reason = "this is an identity, which is secret: write its recipient, age1…; `capstan key show` says which"
        raise InvalidValue(what="recipient", value="(not shown)", reason=reason)
    try:
        if text.startswith("ssh-"):
            return pyrage.ssh.Recipient.from_str(text)
        return pyrage.x25519.Recipient.from_str(text)
    except pyrage.RecipientError as error:
        reason = f"write age1…, or the line of an SSH public key (ed25519 or RSA): {error}"
        raise InvalidValue(what="recipient", value=text, reason=reason) from None


def new_header(recipients: Sequence[str]) -> AgeHeader:
    """A header for a new file that any of `recipients` can open. InvalidValue for one that is none."""
    ephemeral = pyrage.x25519.Identity.generate()
    sealed = pyrage.encrypt(b"", [*map(check_recipient, recipients), ephemeral.to_public()])
    return read_header(sealed, [X25519Identity.from_text(str(ephemeral))])


def header_bytes(data: bytes) -> int:
    """How long the header at the beginning of `data` is. AgeError if none ends there."""
    at = data.find(_MAC + b" ", 0, _LONGEST_HEADER)
    end = data.find(b"\n", at + 1) + 1 if at >= 0 else 0
    if not data.startswith(_INTRO) or not end:
        raise AgeError("it does not begin with the header of an age v1 file")
    return end


def recipient_kinds(data: bytes) -> list[str]:
    """The kinds of recipients in the header at the beginning of `data`: X25519, scrypt (a passphrase) … AgeError."""
    return [stanza.kind for stanza in _stanzas(data[: header_bytes(data)])]


def read_header(data: bytes, identities: Sequence[Identity]) -> AgeHeader:
    """The header at the beginning of `data`, opened by the first of `identities` that can. AgeError: it is damaged, or
    for none of them."""
    text = bytes(data[: header_bytes(data)])
    stanzas = _stanzas(text)
    for identity in identities:
        for stanza in stanzas:
            file_key = identity.unwrap(stanza)
            if file_key is None:
                continue
            body, _, mac = text.rpartition(b" ")
            wanted = hmac.digest(_derive(file_key, b"", b"header"), body, sha256)
            if not hmac.compare_digest(wanted, _decoded(mac.strip())):
                raise AgeError("the header was changed")
            return AgeHeader(text, file_key)
    raise NoIdentity("none of the identities can open it")


class ChunkCipher:
    """Seals and opens the chunks of one file. For any threads: no call changes anything. `nonce`: the 16 bytes behind
    the header; new ones for a new file."""

    def __init__(self, header: AgeHeader, nonce: bytes | None = None) -> None:
        self.nonce = os.urandom(NONCE) if nonce is None else nonce
        self._cipher = ChaCha20Poly1305(_derive(header.file_key, self.nonce, b"payload"))

    def seal_into(self, number: int, plain: memoryview, sealed: memoryview, *, last: bool) -> None:
        """Seal chunk `number`, from 0. `sealed` has TAG bytes more than `plain`, which has CHUNK, unless it is the
        last."""
        self._cipher.encrypt_into(_chunk_nonce(number, last=last), plain, None, sealed)

    def open_into(self, number: int, sealed: memoryview, plain: memoryview, *, last: bool) -> None:
        """Open a chunk. AgeError if it is not the one of that number, or was changed; `plain` is worthless then."""
        try:
            self._cipher.decrypt_into(_chunk_nonce(number, last=last), sealed, None, plain)
        except InvalidTag:
            raise AgeError(f"chunk {number} was changed, or is not of this file") from None


def sealed_bytes(plain: int) -> int:
    """How long the chunks of a payload with `plain` bytes are, which may be none: then there is one empty chunk."""
    return plain + TAG * max(1, -(-plain // CHUNK))


def chunk_at(plain_offset: int) -> tuple[int, int]:
    """In which chunk a byte of the plain text lies, and where that chunk begins behind the nonce."""
    number = plain_offset // CHUNK
    return number, number * (CHUNK + TAG)


def _chunk_nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([last])


def _derive(key: bytes, salt: bytes, info: bytes) -> bytes:
    return HKDF(hashes.SHA256(), 32, salt, info).derive(key)


def _stanzas(text: bytes) -> list[Stanza]:
    found: list[Stanza] = []
    body: list[bytes] = []
    for line in text[len(_INTRO) :].splitlines():
        if line.startswith((b"-> ", b"---")):
            if found:
                found[-1] = found[-1]._replace(body=_decoded(b"".join(body)))
            body = []
            if line.startswith(b"-> "):
                kind, *arguments = line[3:].split(b" ")
                found.append(Stanza(kind.decode("ascii", "replace"), tuple(arguments), b""))
        else:
            body.append(line)
    return found


def _decoded(text: bytes) -> bytes:
    try:
        return b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except ValueError:
        raise AgeError("the header is damaged") from None
