"""Bytes in JSON: text where they are text, else base64, so that none are mistaken for others."""

from __future__ import annotations

from base64 import b64decode, b64encode

Plain = str | dict[str, str]


def plain(value: bytes) -> Plain:
    """The JSON-safe form of `value`."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": b64encode(value).decode()}


def unplain(value: Plain) -> bytes:
    """The bytes that `plain` was given. ValueError, KeyError or TypeError for what is no such form."""
    return value.encode() if isinstance(value, str) else b64decode(value["base64"], validate=True)
