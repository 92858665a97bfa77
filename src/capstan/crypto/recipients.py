"""Recipients: who can open what is sealed. Public, and all that a writer needs."""

from __future__ import annotations

from hashlib import sha256

from capstan.crypto.age import check_recipient
from capstan.errors import InvalidValue

MOST = 32  # recipients of one set: their key ids stand in each header record


def canonical_recipient(text: str) -> str:
    """The one text of a recipient: `age1…`, or type and key of an SSH public key, without its comment. InvalidValue."""
    check_recipient(text)
    return " ".join(text.split()[:2]) if text.strip().startswith("ssh-") else text.strip()


def canonical_recipients(texts: list[str]) -> list[str]:
    """Each recipient once, in the order given. InvalidValue for what is none, or too many."""
    found = list(dict.fromkeys(map(canonical_recipient, texts)))
    if len(found) > MOST:
        raise InvalidValue(what="recipients", value=len(found), reason=f"at most {MOST} can open one set")
    return found


def key_id(recipient: str) -> str:
    """What the key of a recipient is called: the first 16 hexadecimal digits of the SHA-256 of its canonical text."""
    return sha256(canonical_recipient(recipient).encode()).hexdigest()[:16]
