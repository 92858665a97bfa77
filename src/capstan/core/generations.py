"""LTO generations: what a cartridge holds, and which drive reads and writes it. Pure rules.

Native capacities and speeds are the vendors' figures for full-height drives. Density codes are those that drives give
in REPORT DENSITY SUPPORT and MODE SENSE (SSC-5 leaves them to the vendors). Which drive takes what is said in the LTO
program's generation rules: LTO-5 to 7 read two generations back and write one; LTO-8 reads and writes LTO-7, also as
type M; LTO-9 reads and writes LTO-8; LTO-10 takes only its own. The two characters that end a barcode are those of
IBM's LTO Ultrium Cartridge Label Specification; that of LTO-10 WORM cartridges is not in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from capstan.errors import InvalidValue

_TAGGED = 8  # characters of the shortest barcode that ends with what the cartridge is


@dataclass(frozen=True, slots=True)
class Generation:
    """`capacity_bytes` and `bytes_per_second` native; `suffix`, `worm_suffix`: the two characters that end a barcode,
    "" where there are none. `type_m`: an LTO-7 cartridge that an LTO-8 drive has formatted for more."""

    number: int
    capacity_bytes: int
    bytes_per_second: int
    density: int
    suffix: str
    worm_suffix: str = ""
    type_m: bool = False

    @property
    def name(self) -> str:
        return f"LTO-{self.number} type M" if self.type_m else f"LTO-{self.number}"


TYPE_M = Generation(7, 9_000_000_000_000, 300_000_000, 0x5D, "M8", type_m=True)
_ALL = (
    Generation(1, 100_000_000_000, 20_000_000, 0x40, "L1"),
    Generation(2, 200_000_000_000, 40_000_000, 0x42, "L2"),
    Generation(3, 400_000_000_000, 80_000_000, 0x44, "L3", "LT"),
    Generation(4, 800_000_000_000, 120_000_000, 0x46, "L4", "LU"),
    Generation(5, 1_500_000_000_000, 140_000_000, 0x58, "L5", "LV"),
    Generation(6, 2_500_000_000_000, 160_000_000, 0x5A, "L6", "LW"),
    Generation(7, 6_000_000_000_000, 300_000_000, 0x5C, "L7", "LX"),
    TYPE_M,
    Generation(8, 12_000_000_000_000, 360_000_000, 0x5E, "L8", "LY"),
    Generation(9, 18_000_000_000_000, 400_000_000, 0x60, "L9", "LZ"),
    Generation(10, 30_000_000_000_000, 400_000_000, 0x62, "LA"),
)
MEDIA = {generation.name: generation for generation in _ALL}  # every cartridge there is, by its name
# Those that Capstan knows as drives, by number.
GENERATIONS = {item.number: item for item in _ALL if item.number >= 5 and not item.type_m}

# How many generations back a drive reads, and writes.
_BACK = {5: (2, 1), 6: (2, 1), 7: (2, 1), 8: (1, 1), 9: (1, 1), 10: (0, 0)}


def parse_generation(text: str) -> Generation:
    """`LTO-9`, `lto9` or `9`. Raises InvalidValue."""
    digits = text.upper().removeprefix("LTO").removeprefix("-")
    for generation in GENERATIONS.values():
        if digits == str(generation.number):
            return generation
    raise InvalidValue(what="generation", value=text, reason="use LTO-5 to LTO-10")


def can_read(drive: Generation, cartridge: Generation) -> bool:
    """Whether a drive of one generation reads a cartridge of another."""
    return _takes(drive, cartridge, _BACK[drive.number][0])


def can_write(drive: Generation, cartridge: Generation) -> bool:
    """Whether a drive of one generation writes a cartridge of another."""
    return _takes(drive, cartridge, _BACK[drive.number][1])


def _takes(drive: Generation, cartridge: Generation, back: int) -> bool:
    if cartridge.type_m:
        return drive.number == 8
    return 0 <= drive.number - cartridge.number <= back


def generation_of_barcode(barcode: str) -> Generation | None:
    """What the last two characters of a barcode say; None for one without them, and for a cleaning cartridge."""
    if len(barcode) < _TAGGED or barcode.startswith("CLN"):
        return None
    end = barcode[-2:]
    return next((item for item in _ALL if end in (item.suffix, item.worm_suffix)), None)


def is_worm_barcode(barcode: str) -> bool:
    """Whether the last two characters of a barcode say that it is written once."""
    generation = generation_of_barcode(barcode)
    return generation is not None and barcode[-2:] == generation.worm_suffix


def same_barcode(first: str, second: str) -> bool:
    """Whether two barcodes can be of the same cartridge: libraries show them with or without their last two characters,
    as they are set."""
    return first == second or _stem(first) == second or first == _stem(second)


def _stem(barcode: str) -> str:
    tagged = generation_of_barcode(barcode) is not None or (barcode.startswith("CLN") and len(barcode) == _TAGGED)
    return barcode[:-2] if tagged else barcode


def generation_of_density(code: int) -> Generation | None:
    """The generation whose cartridges have this density code."""
    return next((item for item in _ALL if item.density == code), None)


def drives_for(cartridge: Generation, *, writing: bool) -> tuple[Generation, ...]:
    """The drives, from LTO-5, that read a cartridge, or write it."""
    takes = can_write if writing else can_read
    return tuple(drive for drive in GENERATIONS.values() if takes(drive, cartridge))


def refusal(cartridge: Generation, takes: Sequence[str], *, writing: bool) -> str:
    """Why a drive that reads, or writes, the generations named `takes` cannot use a cartridge, and which one could; ""
    when it can, or when it does not say what it takes."""
    if not takes or cartridge.name in takes:
        return ""
    verb = "writes" if writing else "reads"
    able = [drive.name for drive in drives_for(cartridge, writing=writing)]
    does = f"{_listed(able, 'or')} does" if able else "no drive from LTO-5 does"
    return f"the drive {verb} {_listed(takes, 'and')}, and not {cartridge.name}; {does}"


def _listed(names: Sequence[str], word: str) -> str:
    return f" {word} ".join((", ".join(names[:-1]), names[-1])) if len(names) > 1 else names[0]
