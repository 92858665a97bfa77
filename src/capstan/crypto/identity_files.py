"""Files with secret keys, as people have them: identities of age, in the open or sealed by a passphrase, exports and
the text of their sheets, SSH private keys. What is in a file is never shown, only what is wrong with it, and where."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyrage

from capstan.crypto.age import AgeError, recipient_kinds
from capstan.crypto.identities import Identity, key_identity, ssh_identity
from capstan.crypto.key_ids import id_and_recipient
from capstan.crypto.keystore import KeyKind, Secret
from capstan.errors import IdentityUnusable, InvalidValue, WrongPassphrase

# Gives the passphrase of a file, in UTF-8; asked only for a file that has one.
AskPassphrase = Callable[[Path], Secret]

_LONGEST = 1 << 20  # bytes of a file
_ARMOR = re.compile(rb"^[ \t]*-----(BEGIN|END) AGE ENCRYPTED FILE-----[ \t]*\r?$", re.MULTILINE)
_DRIVE_KEY = re.compile(r"(?:# drive-key: )?([0-9a-fA-F]{64})")
_SSH = b"PRIVATE KEY-----"


@dataclass(frozen=True, slots=True)
class FileKey:
    """A key that was in a file. `name`: what the file calls it, or "". Its reader erases the secret."""

    kind: KeyKind
    name: str
    retired: bool
    secret: Secret

    @property
    def id(self) -> str:
        """The id that it has in every store."""
        return id_and_recipient(self.kind, self.secret)[0]


def load_identities(files: Sequence[Path], ask_passphrase: AskPassphrase) -> list[Identity]:
    """Everybody who is in the files, in their order. IdentityUnusable says what is wrong with which file;
    WrongPassphrase."""
    found: list[Identity] = []
    for path in files:
        content = _opened(path, ask_passphrase)
        found += [_ssh(path, content, ask_passphrase)] if _SSH in content else _identities(path, content)
    return found


def read_keys(path: Path, ask_passphrase: AskPassphrase) -> list[FileKey]:
    """The keys in a file that a key store can keep: X25519 identities and the keys of drives; at least one.
    IdentityUnusable; WrongPassphrase."""
    content = _opened(path, ask_passphrase)
    if _SSH in content:
        raise IdentityUnusable(path=path, reason="it is an SSH key, which stays where it is: give it with --identity")
    return list(_keys(path, content))


def _ssh(path: Path, content: bytes, ask_passphrase: AskPassphrase) -> Identity:
    try:
        try:
            return ssh_identity(content, path=path)
        except WrongPassphrase:
            with ask_passphrase(path) as passphrase:
                return ssh_identity(content, passphrase.value, path=path)
    except InvalidValue as error:
        raise IdentityUnusable(path=path, reason=error.parameters["reason"]) from None


def _identities(path: Path, content: bytes) -> list[Identity]:
    found: list[Identity] = []
    for key in _keys(path, content):
        with key.secret:
            found.append(key_identity(key.kind, key.id, key.secret))
    return found


def _keys(path: Path, content: bytes) -> Iterator[FileKey]:
    """IdentityUnusable for a line that is no key, and when there is none."""
    name, retired, count = "", False, 0
    for number, line in enumerate(content.decode("utf-8-sig", "replace").splitlines(), 1):
        line = line.strip()
        kind, secret = KeyKind.AGE, line.encode()
        if drive := _DRIVE_KEY.fullmatch(line):
            kind, secret = KeyKind.DRIVE, bytes.fromhex(drive[1])
        elif not line or line.startswith("#"):
            name = line.removeprefix("# name: ") if line.startswith("# name: ") else name
            retired = retired or line == "# state: retired"
            continue
        key = FileKey(kind, name, retired, Secret(secret))
        try:
            id_and_recipient(kind, key.secret)
        except InvalidValue:
            raise IdentityUnusable(path=path, reason=f"line {number} {_what_it_is(line)}") from None
        yield key
        name, retired, count = "", False, count + 1
    if not count:
        raise IdentityUnusable(path=path, reason="there is no identity in it")


def _what_it_is(line: str) -> str:
    """What stands in the place of an identity."""
    if line.upper().startswith("AGE-SECRET-KEY-1"):
        return "is an identity that is cut off or mistyped"
    if line.upper().startswith("AGE-PLUGIN-"):
        return "is an identity of an age plugin: none is supported"
    if line.startswith(("age1", "ssh-")):
        return "is a recipient, which only seals: give the identity that belongs to it"
    return "is no identity"


def _opened(path: Path, ask_passphrase: AskPassphrase) -> bytes:
    """What is in the file, without the seal of a passphrase."""
    content = _content(path)
    if marks := list(_ARMOR.finditer(content)):
        if [mark[1] for mark in marks[:2]] != [b"BEGIN", b"END"]:
            raise IdentityUnusable(path=path, reason="it is cut off: the line BEGIN or END of its armor is missing")
        if len(marks) > 2:
            raise IdentityUnusable(path=path, reason="it holds more than one sealed file: make a file of each")
        try:
            content = b64decode(b"".join(content[marks[0].end() : marks[1].start()].split()), validate=True)
        except ValueError:
            raise IdentityUnusable(path=path, reason="its armor is damaged or mistyped") from None
    elif not content.startswith(b"age-encryption.org/"):
        return content
    try:
        kinds = recipient_kinds(content)
    except AgeError as error:
        raise IdentityUnusable(path=path, reason=f"it is cut off or damaged: {error}") from None
    if kinds != ["scrypt"]:
        raise IdentityUnusable(path=path, reason="it is sealed for a key, not by a passphrase: open it with that first")
    with ask_passphrase(path) as passphrase:
        try:
            return bytes(pyrage.passphrase.decrypt(content, passphrase.value.decode()))
        except pyrage.DecryptError as error:
            if str(error) == "Decryption failed":  # of the file key: everything else comes behind it
                raise WrongPassphrase(path=path) from None
            reason = f"it is cut off or damaged: {str(error).splitlines()[0]}"
            raise IdentityUnusable(path=path, reason=reason) from None


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_LONGEST + 1)
    except OSError as error:
        raise IdentityUnusable(path=path, reason=error.strerror or str(error)) from None
    if len(content) > _LONGEST:
        raise IdentityUnusable(path=path, reason="it is too long to be one of identities")
    return content
