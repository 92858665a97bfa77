"""Drills: does what was exported open what is sealed for its keys? Neither key store nor its passphrase takes part."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import datetime

import pyrage

from capstan.crypto.age import NONCE, AgeError, ChunkCipher, check_recipient, read_header
from capstan.crypto.identities import Identity, X25519Identity
from capstan.crypto.identity_files import FileKey
from capstan.crypto.keystore import Key, KeyKind, KeyStore

_TEST_BYTES = 4096


def can_open(identities: Sequence[Identity], recipient: str) -> bool:
    """Whether a fresh random file that is sealed for `recipient`, with its public half alone, comes back whole."""
    plain, opened = os.urandom(_TEST_BYTES), bytearray(_TEST_BYTES)
    sealed = pyrage.encrypt(plain, [check_recipient(recipient)])
    try:
        header = read_header(sealed, identities)
        payload = memoryview(sealed)[len(header.text) :]
        ChunkCipher(header, bytes(payload[:NONCE])).open_into(0, payload[NONCE:], memoryview(opened), last=True)
    except AgeError:
        return False
    return bytes(opened) == plain


def prove_export(store: KeyStore, exported: Sequence[FileKey], at: datetime) -> list[Key]:
    """The keys of a store that the exported ones can stand in for; the store notes it. A key of a drive is proven when
    its digest is the store's; any other by `can_open` with the recipient that the store has."""
    proven = []
    for key in store.list():
        twins = [found for found in exported if found.kind is key.kind and found.id == key.id]
        if twins and (key.kind is KeyKind.DRIVE or can_open([_identity(twins[0])], key.recipient)):
            proven.append(store.note_proof(key.id, at))
    return proven


def _identity(key: FileKey) -> Identity:
    return X25519Identity.from_text(key.secret.value.decode())
