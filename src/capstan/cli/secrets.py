"""Asks for passphrases, and reads identities. A passphrase comes from a file, a file descriptor or, without an echo,
the terminal: never from an argument or the environment, which others can see."""

from __future__ import annotations

import getpass
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from capstan.cli.session import given_path
from capstan.crypto.keystore import Secret
from capstan.errors import InvalidValue, PassphraseMissing, UsageError

if TYPE_CHECKING:
    from capstan.cli.state import State
    from capstan.crypto.file_keystore import FileKeyStore
    from capstan.crypto.identities import Identity

_LONGEST = 4096  # bytes of a passphrase
_LONGEST_KEY_FILE = 1 << 20


@dataclass(frozen=True, slots=True)
class PassphraseFrom:
    """Where a passphrase comes from. `what` it opens, for people; `file` and `fd`: what the options `--OPTION-file` and
    `--OPTION-fd` were given."""

    what: str
    option: str
    file: str | None
    fd: int | None

    def read(self, *, new: bool = False) -> Secret:
        """The passphrase: a `new` one is asked for twice. InvalidValue for what is none; PassphraseMissing when there
        is nobody to ask."""
        if self.file is not None and self.fd is not None:
            raise UsageError(reason=f"give --{self.option}-file or --{self.option}-fd, not both")
        if self.file is not None:
            path = given_path(f"{self.option}-file", self.file)
            return _checked(_content(f"{self.option}-file", str(path), lambda: os.open(path, os.O_RDONLY), _LONGEST))
        if self.fd is not None:
            number = self.fd
            return _checked(_content(f"{self.option}-fd", str(number), lambda: os.dup(number), _LONGEST))
        found = self._ask(f"{'New passphrase' if new else 'Passphrase'} of {self.what}: ")
        if new:
            with self._ask("The same again: ") as again:
                if again.value != found.value:
                    raise InvalidValue(what="passphrase", value="(not shown)", reason="the second is not the first")
        return found

    def _ask(self, prompt: str) -> Secret:
        hint = f"give --{self.option}-file FILE or --{self.option}-fd N"
        with warnings.catch_warnings():
            warnings.simplefilter("error", getpass.GetPassWarning)  # it would read with an echo, from anywhere
            try:
                text = getpass.getpass(prompt)
            except (getpass.GetPassWarning, EOFError, OSError):
                raise PassphraseMissing(what=self.what, hint=hint) from None
        return _checked(text.encode("utf-8", "surrogateescape"))


@dataclass(frozen=True, slots=True)
class UnlockFrom:
    """Where what unlocks the key store comes from: a passphrase, or `--OPTION` with the path of a key file."""

    passphrase: PassphraseFrom
    option: str
    key_file: str | None

    def read(self, *, by_key_file: bool, new: bool = False) -> Secret:
        """What unlocks a store that is unlocked so. UsageError when the other was given; as `PassphraseFrom.read`."""
        if by_key_file and self.key_file is None:
            raise UsageError(reason=f"the key store is unlocked by a key file: give --{self.option} FILE")
        if not by_key_file and self.key_file is not None:
            raise UsageError(reason=f"the key store is unlocked by a passphrase: leave out --{self.option}")
        if self.key_file is None:
            return self.passphrase.read(new=new)
        if self.passphrase.file is not None or self.passphrase.fd is not None:
            raise UsageError(reason=f"give --{self.option}, or a passphrase, not both")
        path = given_path(self.option, self.key_file)
        content = _content(self.option, str(path), lambda: os.open(path, os.O_RDONLY), _LONGEST_KEY_FILE)
        if not content:
            raise InvalidValue(what=self.option, value=str(path), reason="it is empty")
        return Secret(content)


def unlock_from(passphrase_file: str | None, passphrase_fd: int | None, key_file: str | None) -> UnlockFrom:
    """What a command was given for the key store of the home."""
    passphrase = PassphraseFrom("the key store", "passphrase", passphrase_file, passphrase_fd)
    return UnlockFrom(passphrase, "key-file", key_file)


def home_keys(current: State, unlock: UnlockFrom | None = None) -> FileKeyStore:
    """The home's key store. What only reads open facts gives no `unlock`. NotFound."""
    from capstan.home_keys import open_keys

    given = unlock or unlock_from(None, None, None)
    store: FileKeyStore = open_keys(current.home.absolute(), lambda: given.read(by_key_file=store.by_key_file))
    return store


def for_files(passphrase: PassphraseFrom) -> Callable[[Path], Secret]:
    """Gives the passphrases of identity files: the one that was given for all of them, read once, or one that is asked
    for each."""
    given: Secret | None = None

    def ask(path: Path) -> Secret:
        nonlocal given
        if passphrase.file is None and passphrase.fd is None:
            return replace(passphrase, what=str(path)).read()
        given = given or passphrase.read()
        return Secret(given.value)

    return ask


def identities_from(files: Sequence[str], passphrase_file: str | None, passphrase_fd: int | None) -> list[Identity]:
    """Who is in the files of `--identity`, with the options `--identity-passphrase-file` and `-fd`. IdentityUnusable,
    WrongPassphrase."""
    from capstan.crypto.identity_files import load_identities

    source = PassphraseFrom("the identity", "identity-passphrase", passphrase_file, passphrase_fd)
    return load_identities([given_path("identity", file) for file in files], for_files(source))


def _content(option: str, shown: str, opened: Callable[[], int], longest: int) -> bytes:
    """Everything that a descriptor gives, which is closed. InvalidValue."""
    content = b""
    try:
        with open(opened(), "rb", buffering=0) as file:  # noqa: PTH123 (a descriptor)
            while len(content) <= longest and (piece := file.read(longest + 1)):
                content += piece
    except (OSError, OverflowError) as error:
        raise InvalidValue(what=option, value=shown, reason=getattr(error, "strerror", "") or str(error)) from None
    if len(content) > longest:
        raise InvalidValue(what=option, value=shown, reason=f"it has more than {longest} bytes")
    return content


def _checked(content: bytes) -> Secret:
    """A passphrase without the end of its line. InvalidValue."""
    content = content.removesuffix(b"\n").removesuffix(b"\r")
    reason = ""
    if not content:
        reason = "it is empty"
    elif b"\n" in content or b"\0" in content:
        reason = "it has more than one line, or is binary"
    else:
        try:
            content.decode()
        except UnicodeDecodeError:
            reason = "it is not written in UTF-8"
    if reason:
        raise InvalidValue(what="passphrase", value="(not shown)", reason=reason)
    return Secret(content)
