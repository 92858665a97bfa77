"""Identifiers. A set and a cartridge have a UUID that is written on tape; a job has a short one of this home."""

from __future__ import annotations

import re
import uuid

from capstan.errors import InvalidValue

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_BARCODE = re.compile(r"[A-Z0-9]{1,14}")


def new_uuid() -> str:
    """A random UUID (RFC 9562 version 4) in its text form."""
    return str(uuid.uuid4())


def new_job_id() -> str:
    """Eight hexadecimal digits: short enough to type, unique enough within one home (the catalog refuses twins)."""
    return uuid.uuid4().hex[:8]


def check_name(what: str, name: str) -> str:
    """Return `name` if it can name a library, pool or set series; else raise InvalidValue.

    Such names appear in paths, in TOML keys and on the command line (`latest:NAME`, `NAME@TIME`).
    """
    if not _NAME.fullmatch(name):
        raise InvalidValue(
            what=what,
            value=name,
            reason="use 1 to 64 letters, digits, dots, dashes and underscores, first a letter or digit",
        )
    return name


def check_barcode(barcode: str) -> str:
    """Return `barcode` if a changer can carry it as a volume tag in capitals and digits; else raise InvalidValue."""
    if not _BARCODE.fullmatch(barcode):
        raise InvalidValue(what="barcode", value=barcode, reason="use 1 to 14 capital letters and digits")
    return barcode
