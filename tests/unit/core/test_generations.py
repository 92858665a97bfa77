"""LTO generations: the rules as the LTO program has them, and what is said when they are broken."""

from __future__ import annotations

import pytest

from capstan.core.generations import (
    GENERATIONS,
    MEDIA,
    TYPE_M,
    can_read,
    can_write,
    drives_for,
    generation_of_barcode,
    generation_of_density,
    is_worm_barcode,
    parse_generation,
    refusal,
)
from capstan.errors import InvalidValue

# drive: what it writes, what it only reads
RULES = {
    5: ("4 5", "3"),
    6: ("5 6", "4"),
    7: ("6 7", "5"),
    8: ("7 M8 8", ""),
    9: ("8 9", ""),
    10: ("10", ""),
}


def media(names: str) -> set[str]:
    return {TYPE_M.name if name == "M8" else f"LTO-{name}" for name in names.split()}


@pytest.mark.parametrize("number", RULES)
def test_the_rules(number: int) -> None:
    """Each drive against every cartridge there is."""
    drive = GENERATIONS[number]
    writes, reads = map(media, RULES[number])
    assert {name for name, medium in MEDIA.items() if can_write(drive, medium)} == writes
    assert {name for name, medium in MEDIA.items() if can_read(drive, medium)} == writes | reads


def test_barcodes() -> None:
    """The last two characters say it, if the barcode is long enough to have them; cleaning cartridges hold nothing."""
    assert generation_of_barcode("CAP001L9") == MEDIA["LTO-9"]
    assert generation_of_barcode("CAP001LA") == MEDIA["LTO-10"]
    assert generation_of_barcode("CAP001M8") == TYPE_M
    assert generation_of_barcode("CAP001LW") == MEDIA["LTO-6"]
    assert is_worm_barcode("CAP001LW") and not is_worm_barcode("CAP001L6") and not is_worm_barcode("CAP001LA")
    for barcode in ("CAPXL9", "CLN001L9", "CLNU01CU", "CAP00100", "", "CAP001JF"):
        assert generation_of_barcode(barcode) is None and not is_worm_barcode(barcode)


def test_names_and_densities_are_of_one_generation_each() -> None:
    for medium in MEDIA.values():
        assert generation_of_density(medium.density) == medium
    assert generation_of_density(0x00) is None
    assert parse_generation("lto9") == parse_generation("9") == parse_generation("LTO-9") == GENERATIONS[9]
    for wrong in ("LTO-4", "LTO-11", "M8", ""):
        with pytest.raises(InvalidValue):
            parse_generation(wrong)


def test_who_else_would_do() -> None:
    """The error says what the drive takes, and which drive takes the cartridge."""
    assert [drive.name for drive in drives_for(MEDIA["LTO-7"], writing=False)] == ["LTO-7", "LTO-8"]
    assert refusal(MEDIA["LTO-9"], ["LTO-8", "LTO-9"], writing=True) == ""
    assert refusal(MEDIA["LTO-9"], [], writing=True) == ""  # a drive that does not say
    told = refusal(MEDIA["LTO-7"], ["LTO-8", "LTO-9"], writing=False)
    assert told == "the drive reads LTO-8 and LTO-9, and not LTO-7; LTO-7 or LTO-8 does"
    assert refusal(MEDIA["LTO-2"], ["LTO-10"], writing=True).endswith("not LTO-2; no drive from LTO-5 does")
