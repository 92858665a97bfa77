"""Recipients as people write them, ids of keys, and what a rotation makes of a pool's recipients."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import pyrage
import pytest

from capstan.crypto.identities import X25519Identity, ssh_identity
from capstan.crypto.key_ids import id_and_recipient, key_id
from capstan.crypto.keystore import Key, KeyKind, KeyState, Secret
from capstan.crypto.recipients import current_recipients, recipients_of
from capstan.errors import InvalidValue


@pytest.fixture
def identity() -> pyrage.x25519.Identity:
    return pyrage.x25519.Identity.generate()


def ssh_key(folder: Path, kind: str, *, passphrase: str = "", comment: str = "me@somewhere") -> Path:
    """A private key; the public one lies beside it."""
    path = folder / kind
    arguments = ["-q", "-t", kind, "-N", passphrase, "-C", comment, "-f", str(path)]
    subprocess.run(["ssh-keygen", *arguments], check=True)
    return path


@pytest.mark.requires("ssh-keygen")
def test_one_text_for_each(tmp_path: Path, identity: pyrage.x25519.Identity) -> None:
    """Capitals, spaces and comments make no other recipient; a file gives each of its lines once."""
    x25519 = str(identity.to_public())
    lines = [ssh_key(tmp_path, kind).with_suffix(".pub").read_text() for kind in ("ed25519", "rsa")]
    canonical = [" ".join(line.split()[:2]) for line in lines]
    assert recipients_of(f" {x25519.upper()}\n") == [x25519]
    assert [recipients_of(line) for line in lines] == [[text] for text in canonical]
    file = tmp_path / "recipients"
    file.write_text("\n".join(["# ours", x25519, "", *lines, x25519.upper(), canonical[0] + " other comment"]))
    assert recipients_of(f"@{file}") == [x25519, *canonical]


@pytest.mark.requires("ssh-keygen")
def test_ids(tmp_path: Path, identity: pyrage.x25519.Identity) -> None:
    """16 digits of the digest of the canonical recipient: an identity knows it, and a key in any store has it."""
    x25519 = str(identity.to_public())
    expected = sha256(x25519.encode()).hexdigest()[:16]
    assert key_id(x25519) == X25519Identity.from_text(str(identity)).key_id == expected
    assert id_and_recipient(KeyKind.AGE, Secret(str(identity).encode())) == (expected, x25519)
    for kind in ("ed25519", "rsa"):
        path = ssh_key(tmp_path, kind)
        [recipient] = recipients_of(path.with_suffix(".pub").read_text())
        assert ssh_identity(path.read_bytes()).recipient == recipient
        assert ssh_identity(path.read_bytes()).key_id == key_id(recipient)


def test_what_is_none(tmp_path: Path, identity: pyrage.x25519.Identity) -> None:
    """The line of a file is named and not shown, and no secret ever is: it is easily given for the recipient."""
    secret = str(identity)
    file = tmp_path / "file"
    wrong: list[tuple[str, bytes, str]] = [
        (secret, b"", "identity"),
        (secret.lower(), b"", "identity"),
        (f"@{file}", f"# \n{secret}\n".encode(), "line 2: .*identity"),
        (f"@{file}", b"age1qqq\n", "line 1"),
        (f"@{file}", b"5ec7e7" * 9, "line 1"),
        (f"@{file}", b"# nothing\n", "names none"),
        (f"@{file}", bytes(2 << 20), "too long"),
        (f"@{file}", b"\xff\xfe\n", "line 1"),
        (f"@{tmp_path}", b"", "directory"),
        (f"@{tmp_path / 'nowhere'}", b"", "No such file"),
        ("", b"", "age1"),
    ]
    for text, content, reason in wrong:
        file.write_bytes(content)
        with pytest.raises(InvalidValue, match=reason) as caught:
            recipients_of(text)
        shown = str(caught.value.as_dict())
        assert secret not in shown and secret.lower() not in shown and "5ec7e7" not in shown


def test_after_a_rotation() -> None:
    """The newest active key of the series comes in the place of those that are retired, once; others stay, and
    so does a retired one without a follower."""
    at = datetime(2026, 1, 2, tzinfo=UTC)

    def key(name: str, *, active: bool, kind: KeyKind = KeyKind.AGE) -> Key:
        state = KeyState.ACTIVE if active else KeyState.RETIRED
        return Key(f"id-{name}", kind, name, at, state, recipient=f"age1{name}" if kind is KeyKind.AGE else "")

    keys = [
        key("a.10", active=True),
        key("a", active=False),
        key("a.9", active=True),
        key("b", active=False),
        key("a.11", active=True, kind=KeyKind.DRIVE),
        key("c", active=False, kind=KeyKind.DRIVE),
    ]
    recipients = ["age1other", "age1a", "age1b", "age1a.10", "age1a.9"]
    assert current_recipients(recipients, keys) == ["age1other", "age1a.10", "age1b", "age1a.9"]
    assert current_recipients(["age1a.10"], keys[1:]) == ["age1a.10"]
    assert current_recipients([], keys) == []
