"""LTO generations: what a cartridge holds and which drive takes it.

Native capacities and speeds are the vendors' figures for full-height drives; density codes are those that
REPORT DENSITY SUPPORT gives (LTO-5 … LTO-9: 58h, 5Ah, 5Ch, 5Eh, 60h; SSC-5 leaves them to the vendors).
"""

from __future__ import annotations

from dataclasses import dataclass

from capstan.errors import InvalidValue


@dataclass(frozen=True, slots=True)
class Generation:
    """`capacity_bytes` native, `bytes_per_second` native, `early_warning_bytes` before the end."""

    number: int
    capacity_bytes: int
    bytes_per_second: int
    density: int

    @property
    def name(self) -> str:
        return f"LTO-{self.number}"

    @property
    def suffix(self) -> str:
        """The two characters that end a barcode."""
        return "LA" if self.number == 10 else f"L{self.number}"


GENERATIONS = {
    generation.number: generation
    for generation in (
        Generation(5, 1_500_000_000_000, 140_000_000, 0x58),
        Generation(6, 2_500_000_000_000, 160_000_000, 0x5A),
        Generation(7, 6_000_000_000_000, 300_000_000, 0x5C),
        Generation(8, 12_000_000_000_000, 360_000_000, 0x5E),
        Generation(9, 18_000_000_000_000, 400_000_000, 0x60),
        Generation(10, 30_000_000_000_000, 400_000_000, 0x62),
    )
}


def parse_generation(text: str) -> Generation:
    """`LTO-9`, `lto9` or `9`. Raises InvalidValue."""
    digits = text.upper().removeprefix("LTO").removeprefix("-")
    for generation in GENERATIONS.values():
        if digits == str(generation.number):
            return generation
    raise InvalidValue(what="generation", value=text, reason="use LTO-5 to LTO-10")


def can_read(drive: Generation, cartridge: Generation) -> bool:
    """LTO-5 to 7 read two generations back, LTO-8 and 9 one, LTO-10 only its own."""
    back = {5: 2, 6: 2, 7: 2, 8: 1, 9: 1, 10: 0}[drive.number]
    return 0 <= drive.number - cartridge.number <= back


def can_write(drive: Generation, cartridge: Generation) -> bool:
    """One generation back; LTO-10 only its own."""
    return 0 <= drive.number - cartridge.number <= (0 if drive.number == 10 else 1)


def early_warning_zone(capacity_bytes: int) -> int:
    """How many bytes before the end the early warning is given.

    Real drives leave some gigabytes. A small cartridge leaves a sixteenth of itself, but at least 24 MiB where that is
    not more than half of it: room for the frames in hand, the close of a segment and an INDEX.
    """
    return min(8 << 30, max(capacity_bytes // 16, min(24 << 20, capacity_bytes // 2)))
