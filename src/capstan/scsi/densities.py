"""REPORT DENSITY SUPPORT data (SSC-5, 7.8.3): which formats a drive reads and writes."""

from __future__ import annotations

from dataclasses import dataclass

_DESCRIPTOR_BYTES = 52


@dataclass(frozen=True, slots=True)
class Density:
    """One format. `writable`: the drive writes it too (WRTOK). `capacity_bytes` native."""

    code: int
    writable: bool
    capacity_bytes: int
    name: str
    description: str


def decode_densities(data: bytes) -> list[Density]:
    """All in the data; what is cut off is left out. `code` is the primary density code."""
    end = min(len(data), 2 + int.from_bytes(data[:2], "big"))
    found, at = [], 4
    while at + _DESCRIPTOR_BYTES <= end:
        item = data[at : at + _DESCRIPTOR_BYTES]
        found.append(
            Density(
                code=item[0],
                writable=bool(item[2] & 0x80),
                capacity_bytes=int.from_bytes(item[12:16], "big") * 1_000_000,
                name=_text(item[24:32]),
                description=_text(item[32:52]),
            )
        )
        # DLV: the length of what is behind the first five bytes is said.
        at += 5 + int.from_bytes(item[3:5], "big") if item[2] & 0x10 else _DESCRIPTOR_BYTES
    return found


def _text(data: bytes) -> str:
    return data.decode("ascii", "replace").replace("\0", " ").strip()
