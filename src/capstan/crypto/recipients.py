"""Recipients as people write them, and as they are kept: one canonical text for each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from capstan.crypto.age import check_recipient
from capstan.crypto.keystore import Key, KeyKind, KeyState
from capstan.errors import InvalidValue

MOST_RECIPIENTS = 32  # of one set: the ids of their keys stand in each header record
_LONGEST = 1 << 20  # bytes of a file of recipients


def recipients_of(text: str) -> list[str]:
    """The recipients that a value names, each once: `age1…`, the line of an SSH public key, or `@FILE` with one in each
    line (empty lines and `#` comments are left out). Canonical: X25519 in small letters, SSH without a comment.
    InvalidValue for what is none; of a file it names the line, and never shows it: it may be a secret."""
    if not text.startswith("@"):
        return [_canonical(text)]
    path = Path(text[1:])
    found = dict.fromkeys(_in_file(path))
    if not found:
        raise InvalidValue(what="recipient", value=text, reason="the file names none")
    return list(found)


def current_recipients(recipients: Sequence[str], keys: Sequence[Key]) -> list[str]:
    """What to seal for after a rotation: of `recipients`, those of retired `keys` are replaced by the newest active key
    of their series, and stay where there is none. For the caller to keep, in the pool that they came from."""
    newest = {
        key.series: key.recipient
        for key in sorted(keys, key=lambda key: key.number)
        if key.kind is KeyKind.AGE and key.state is KeyState.ACTIVE
    }
    retired = {key.recipient: key.series for key in keys if key.state is KeyState.RETIRED}
    return list(dict.fromkeys(newest.get(retired.get(item, ""), item) for item in recipients))


def _in_file(path: Path) -> Iterator[str]:
    try:
        with path.open("rb") as file:
            content = file.read(_LONGEST + 1)
    except OSError as error:
        raise InvalidValue(what="recipient", value=f"@{path}", reason=error.strerror or str(error)) from None
    if len(content) > _LONGEST:
        raise InvalidValue(what="recipient", value=f"@{path}", reason="the file is too long to be one of recipients")
    for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            try:
                yield _canonical(line)
            except InvalidValue as error:
                reason = f"line {number}: {error.parameters['reason']}"
                raise InvalidValue(what="recipient", value=f"@{path}", reason=reason) from None


def _canonical(text: str) -> str:
    recipient = check_recipient(text)
    words = text.split()
    return " ".join(words[:2]) if words[0].startswith("ssh-") else str(recipient)
