"""Sizes as people write and read them. Tape vendors count in decimal units; binary ones are accepted too."""

from __future__ import annotations

import re

from capstan.errors import InvalidValue

_FACTORS = {
    "": 1,
    "B": 1,
    **{f"{p}{s}": 1000 ** (i + 1) for i, p in enumerate("KMGTP") for s in ("", "B")},
    **{f"{p}I{s}": 1024 ** (i + 1) for i, p in enumerate("KMGTP") for s in ("", "B")},
}
_SIZE = re.compile(r"\s*([0-9]{1,20}(?:\.[0-9]{1,20})?)\s*([A-Za-z]*)\s*")


def parse_size(text: str, what: str = "size") -> int:
    """Bytes of `1.5TB`, `18T` (decimal), `512KiB` (binary) or `4096`. Raises InvalidValue."""
    match = _SIZE.fullmatch(text)
    factor = _FACTORS.get(match[2].upper()) if match else None
    if match is None or factor is None:
        raise InvalidValue(what=what, value=text, reason="write a number and a unit, like 18TB, 512KiB or 4096")
    return int(float(match[1]) * factor) if "." in match[1] else int(match[1]) * factor


def format_size(size: float) -> str:
    """`18.0 TB`: decimal, three significant digits, as on a cartridge's box."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(size) < 999.5:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 99.95 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} PB"


def format_duration(seconds: float) -> str:
    """`2 h 05 min`, `3 min 20 s`, `4.2 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
