"""How keys are called: by a digest of what anybody may know of them, so that the same key has one id everywhere."""

from __future__ import annotations

from hashlib import sha256

import pyrage

from capstan.crypto.keystore import KeyKind, Secret
from capstan.errors import InvalidValue

DRIVE_KEY_BYTES = 32  # AES-256


def key_id(recipient: str) -> str:
    """The id of the key that opens what is sealed for a canonical recipient: 16 hexadecimal digits of its SHA-256."""
    return sha256(recipient.encode()).hexdigest()[:16]


def id_and_recipient(kind: KeyKind, secret: Secret) -> tuple[str, str]:
    """The id and the recipient of a secret key. InvalidValue for what is none; it is not shown."""
    if kind is KeyKind.DRIVE:
        if len(secret.value) != DRIVE_KEY_BYTES:
            raise InvalidValue(
                what="key", value="(not shown)", reason=f"the key of a drive has {DRIVE_KEY_BYTES} bytes"
            )
        return sha256(b"capstan drive key\0" + secret.value).hexdigest()[:16], ""
    try:
        recipient = str(pyrage.x25519.Identity.from_str(secret.value.decode("ascii", "replace").strip()).to_public())
    except pyrage.IdentityError:
        raise InvalidValue(what="key", value="(not shown)", reason="write AGE-SECRET-KEY-1…") from None
    return key_id(recipient), recipient
