"""What a command is given to open sealed sets with: files with identities, and the key store of the home."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from capstan.cli.state import State

if TYPE_CHECKING:
    from capstan.bootstrap import Capstan
    from capstan.crypto.identities import Identity

IdentityFiles = Annotated[
    list[str] | None,
    typer.Option("--identity", metavar="FILE", help="Opens sealed sets: an age identity, an SSH key, an exported key."),
]
IdentityPassphraseFile = Annotated[
    str | None, typer.Option("--identity-passphrase-file", metavar="FILE", help="The passphrase of these files.")
]
IdentityPassphraseFd = Annotated[
    int | None, typer.Option("--identity-passphrase-fd", metavar="N", help="… is read from this file descriptor.")
]
PassphraseFile = Annotated[
    str | None, typer.Option("--passphrase-file", metavar="FILE", help="The key store's passphrase is in this file.")
]
PassphraseFd = Annotated[
    int | None, typer.Option("--passphrase-fd", metavar="N", help="… is read from this file descriptor.")
]
KeyFile = Annotated[
    str | None, typer.Option("--key-file", metavar="FILE", help="The key store is unlocked by this file.")
]


@dataclass(frozen=True, slots=True)
class GivenIdentities:
    """The options above, as a command got them."""

    files: list[str] | None
    identity_passphrase_file: str | None
    identity_passphrase_fd: int | None
    passphrase_file: str | None
    passphrase_fd: int | None
    key_file: str | None

    def load(self, current: State, wanted: Collection[str] | None = None) -> list[Identity]:
        """Whoever is in the files, and in the key store, if what unlocks it was given.

        `wanted`: ids of keys that are needed: without any file, the store is asked for one that it has of them, and
        asks for its passphrase. IdentityUnusable, WrongPassphrase, PassphraseMissing, NotFound.
        """
        from capstan.cli.secrets import identities_from

        found = identities_from(self.files or (), self.identity_passphrase_file, self.identity_passphrase_fd)
        unlocked = any(given is not None for given in (self.passphrase_file, self.passphrase_fd, self.key_file))
        if unlocked or (wanted and not found):
            found += self._stored(current, wanted, must=unlocked)
        return found

    def explicit(self, current: State) -> Callable[[Capstan], Awaitable[Sequence[Identity]]]:
        """`load`, for those who can do something without any identity: nobody is asked for a passphrase."""

        async def load(capstan: Capstan) -> Sequence[Identity]:
            return self.load(current)

        return load

    def _stored(self, current: State, wanted: Collection[str] | None, *, must: bool) -> list[Identity]:
        from capstan.cli.secrets import home_keys, unlock_from
        from capstan.crypto.identities import stored_identities
        from capstan.errors import NotFound

        try:
            store = home_keys(current, unlock_from(self.passphrase_file, self.passphrase_fd, self.key_file))
        except NotFound:
            if must:
                raise
            return []
        return stored_identities(store, {key.id for key in store.list()} if wanted is None else wanted)
