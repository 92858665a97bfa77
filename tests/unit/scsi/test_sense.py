"""Sense data of any kind is understood, and of no kind is fatal."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from capstan.scsi.pages import decode_element_status, decode_inquiry, decode_log, decode_mode, decode_position_long
from capstan.scsi.sense import Key, Sense, decode_sense, encode_sense


@given(st.binary(max_size=300))
def test_any_bytes_are_eaten(data: bytes) -> None:
    """A device's bytes never raise, whatever they are."""
    assert str(decode_sense(data))
    for decode in (decode_element_status, decode_inquiry, decode_log, decode_mode, decode_position_long):
        decode(data)


@given(
    st.builds(
        Sense,
        key=st.sampled_from(Key),
        asc=st.integers(0, 255),
        ascq=st.integers(0, 255),
        filemark=st.booleans(),
        end_of_medium=st.booleans(),
        incorrect_length=st.booleans(),
        information=st.none() | st.integers(-(1 << 31), (1 << 31) - 1),
        deferred=st.booleans(),
    )
)
def test_fixed_format_comes_back(sense: Sense) -> None:
    """What a target encodes, an initiator decodes."""
    assert decode_sense(encode_sense(sense)) == sense


def test_descriptor_format() -> None:
    """Information and stream descriptors (SPC-5, 4.4.2) say the same as the fixed format."""
    data = bytes.fromhex("72 00 00 01 00 00 00 10  00 0a 80 00 ff ff ff ff ff ff ff fe  04 02 00 80".replace(" ", ""))
    assert decode_sense(data) == Sense(Key.NO_SENSE, 0x00, 0x01, filemark=True, information=-2)
