"""Runs that can be repeated: the same fault at the same place leaves the same bytes behind, in whatever process.

Identifiers, times and temporary names are drawn anew for each run, and whatever ticks by the wall clock does so once,
as soon as it can. What threads do beside one another stays as it is.
"""

from __future__ import annotations

import asyncio
import hmac
import random
import sqlite3
import tempfile
import uuid
import weakref
from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import pytest
from aiosqlite import core as aiosqlite
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from capstan.crypto import age
from capstan.format import sealing

_RETRIES = 10_000  # of a database that another has locked; a millisecond lies between two


class StillClock:
    """It is always `moment`: what a run writes down does not depend on how long it took."""

    def __init__(self, moment: datetime) -> None:
        self._moment = moment

    def now(self) -> datetime:
        return self._moment

    def monotonic(self) -> float:
        return 0.0


@contextmanager
def repeatable() -> Iterator[None]:
    """What is done in here draws the same identifiers and temporary names each time."""
    chance, wait = random.Random(0), asyncio.sleep
    ticked = weakref.WeakSet[asyncio.Task[Any]]()

    async def sleep(delay: float) -> None:
        task = asyncio.current_task()
        assert task is not None
        if delay > 0 and task in ticked:
            await asyncio.get_running_loop().create_future()  # until it is cancelled
        ticked.add(task)
        await wait(0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(uuid, "uuid4", lambda: uuid.UUID(int=chance.getrandbits(128), version=4))
        patch.setattr(tempfile, "_name_sequence", (f"{number:08}" for number in range(1_000_000)))
        patch.setattr(asyncio, "sleep", sleep)
        patch.setattr(sealing, "new_header", lambda recipients: _header(recipients, chance))
        patch.setattr(age, "os", SimpleNamespace(urandom=chance.randbytes))
        yield


def _header(recipients: Sequence[str], chance: random.Random) -> age.AgeHeader:
    """The header of an age file for X25519 recipients, as the library makes it, of keys that are drawn here
    (https://c2sp.org/age, "The X25519 recipient type")."""
    file_key, text = chance.randbytes(16), b"age-encryption.org/v1\n"
    for recipient in recipients:
        ephemeral = X25519PrivateKey.from_private_bytes(chance.randbytes(32))
        share, public = ephemeral.public_key().public_bytes_raw(), _public(recipient)
        shared = ephemeral.exchange(X25519PublicKey.from_public_bytes(public))
        wrap = HKDF(hashes.SHA256(), 32, share + public, b"age-encryption.org/v1/X25519").derive(shared)
        body = ChaCha20Poly1305(wrap).encrypt(bytes(12), file_key, None)
        text += b"-> X25519 %s\n%s\n" % (_base64(share), _base64(body))
    text += b"---"
    mac = hmac.digest(HKDF(hashes.SHA256(), 32, b"", b"header").derive(file_key), text, "sha256")
    return age.AgeHeader(text + b" %s\n" % _base64(mac), file_key)


def _public(recipient: str) -> bytes:
    """The 32 bytes of `age1…` (bech32, without looking at the checksum)."""
    number = 0
    for letter in recipient[len("age1") : -6]:
        number = number << 5 | "qpzry9x8gf2tvdw0s3jn54khce6mua7l".index(letter)
    return (number >> 4).to_bytes(32, "big")


def _base64(data: bytes) -> bytes:
    return b64encode(data).rstrip(b"=")


class _AtOnce:
    """Stands for the queue to the thread of a database: what is put in is done, here and now."""

    def put_nowait(self, item: tuple[asyncio.Future[Any] | None, Any], retries: int = _RETRIES) -> None:
        future, function = item
        try:
            result = function()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_BUSY and retries:
                # A connection of this very thread may have it: let that one go on.
                asyncio.get_running_loop().call_later(0.001, self.put_nowait, item, retries - 1)
            else:
                _fail(future, error)
        except BaseException as error:  # noqa: BLE001 (whoever waits gets it)
            _fail(future, error)
        else:
            if isinstance(result, sqlite3.Connection):
                result.execute("PRAGMA busy_timeout = 0")  # whoever waits, waits in the event loop
            if future is not None and not future.done():
                future.set_result(result)


class _NoThread:
    """Stands for the thread."""

    daemon = True

    def __init__(self, **_: Any) -> None:
        pass

    def start(self) -> None:
        pass


def _fail(future: asyncio.Future[Any] | None, error: BaseException) -> None:
    if future is not None and not future.done():
        future.set_exception(error)


def use_databases_in_line() -> None:
    """From now on no database has a thread of its own in this process.

    A third of a run's time goes to handing statements over and back. Nothing else runs meanwhile on behalf of whoever
    waits for a statement, so the order of what is done stays the same; and it is the same each time.
    """
    aiosqlite.SimpleQueue, aiosqlite.Thread = _AtOnce, _NoThread  # type: ignore[misc,assignment]
