"""A device's bytes are not trusted: whatever comes is read as far as it makes sense, and nothing is raised."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capstan.scsi import access_order, densities, modes, pages, reservations
from capstan.scsi.access_order import Segment
from capstan.scsi.attributes import decode_attributes
from capstan.scsi.pages import ChangerAbilities, ElementType
from capstan.scsi.reservations import HeldReservation, Kind, ReserveParameters

DECODERS = (
    access_order.decode_segments,
    access_order.decode_limits,
    densities.decode_densities,
    modes.decode_compression,
    modes.decode_early_warning,
    modes.can_compress,
    modes.has_early_warning,
    pages.decode_changer_abilities,
    pages.decode_element_status,
    pages.is_cut_off,
    reservations.decode_keys,
    reservations.decode_reservation,
    reservations.decode_capabilities,
    decode_attributes,
)


@given(data=st.binary(max_size=300))
def test_anything(data: bytes) -> None:
    for decode in DECODERS:
        decode(data)
        decode(b"\xff" * 8 + data)


@given(
    pieces=st.lists(st.tuples(st.integers(0, (1 << 64) - 1), st.integers(0, (1 << 64) - 1)), max_size=20),
    cut=st.integers(0, 700),
)
def test_segments(pieces: list[tuple[int, int]], cut: int) -> None:
    """They come back as they were, and only whole ones of what was cut off."""
    segments = [Segment(number, first, last) for number, (first, last) in enumerate(pieces)]
    data = access_order.encode_segments(segments)
    assert access_order.decode_segments(data) == segments
    found = access_order.decode_segments(data[:cut])
    assert found == segments[: len(found)]


def test_a_segment_byte_by_byte() -> None:
    """SSC-5, table 100: 32 bytes, a name of ten, the partition, the first and the last logical object."""
    [descriptor] = [access_order.encode_segments([Segment(7, 258, 772)])[8:]]
    assert descriptor.hex() == "001e" + "000000" + b"0000000007".hex() + "00" + f"{258:016x}" + f"{772:016x}"


def test_reservations_there_and_back() -> None:
    keys = (1, (1 << 64) - 1)
    assert reservations.decode_keys(reservations.encode_keys(7, keys)) == keys
    held = HeldReservation(5, Kind.EXCLUSIVE_ACCESS)
    assert reservations.decode_reservation(reservations.encode_reservation(7, held)) == held
    assert reservations.decode_reservation(reservations.encode_reservation(7, None)) is None
    assert reservations.decode_capabilities(reservations.encode_capabilities())
    asked = ReserveParameters(3, 4)
    assert ReserveParameters.decode(asked.encode()) == asked
    assert ReserveParameters.decode(asked.encode()[1:]) is None


def test_abilities_there_and_back() -> None:
    """From a slot to a drive is bit 3 of the second row (SMC-3, 7.3.2)."""
    pair = (ElementType.STORAGE, ElementType.DRIVE)
    page = pages.encode_changer_abilities(ChangerAbilities(frozenset((pair,)), frozenset()))
    assert page[5] == 0x08
    assert pages.decode_changer_abilities(page) == ChangerAbilities(frozenset((pair,)), frozenset())
    assert pages.decode_changer_abilities(b"\x1d\x12" + page[2:]) is None


@pytest.mark.parametrize("saved", [0x00, 0x80])
def test_pages_go_back_without_ps(saved: int) -> None:
    """What MODE SENSE gave is sent back with PS 0, and one field changed (SPC-5, 7.5.7)."""
    page = bytes((saved | 0x0F, 14, 0xC0, 0x83)) + bytes(range(12))
    assert modes.with_compression(page, on=False) == bytes((0x0F, 14, 0x40, 0x83)) + bytes(range(12))
    extension = bytes((saved | 0x50, 1, 0, 28, 9, 8, 0, 0)) + bytes(range(24))
    assert modes.with_early_warning(extension, 0x1234) == bytes((0x50, 1, 0, 28, 9, 8, 0x12, 0x34)) + bytes(range(24))


def test_densities_of_other_lengths() -> None:
    """A descriptor that says how long it is (DLV) is stepped over by that."""

    def one(code: int, more: int) -> bytes:
        length = 47 + more
        head = (
            bytes((code, code, 0xB0))
            + length.to_bytes(2, "big")
            + bytes(3)
            + b"\0\x7f"
            + bytes(2)
            + bytes((0, 0, 0, 9))
        )
        return head + b"LTO-CVE " + b"U-9     " + b"an LTO-9".ljust(20) + bytes(more)

    body = one(0x5E, 6) + one(0x60, 0)
    found = densities.decode_densities((len(body) + 2).to_bytes(2, "big") + bytes(2) + body)
    assert [item.code for item in found] == [0x5E, 0x60]
    assert (found[1].writable, found[1].capacity_bytes, found[1].description) == (True, 9_000_000, "an LTO-9")
