"""The header record says what it is, to people and to programs, and nothing else can pass for it."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capstan.errors import Damaged, NotCapstanTape, UnsupportedVersion
from capstan.format.header import Header, Kind, decode_header
from capstan.format.layout import HEADER_BYTES
from capstan.format.restore_text import restore_line

INDEX = Header(
    kind=Kind.INDEX,
    tape_file=3,
    block=77,
    cartridge="5b0c9f5e-0000-4000-8000-000000000001",
    barcode="CAP001L9",
    record_bytes=524288,
    written_at="2026-01-02T03:04:05+00:00",
    written_by="capstan 0",
    restore=restore_line("index", "zstd"),
    previous_index_block=12,
    previous_index_sha256="a" * 64,
    set="5b0c9f5e-0000-4000-8000-000000000002",
    container="tar",
    codec="zstd",
    encryption="none",
    sequence=2,
    final=True,
    set_previous_index_sha256="",
    payload_bytes=1000,
    payload_sha256="b" * 64,
)


def test_a_header_is_4096_bytes_of_text_and_comes_back() -> None:
    """`dd count=1` shows 4096 bytes of lines; decoding gives the same header and digest."""
    record, digest = INDEX.encode()
    assert len(record) == HEADER_BYTES
    assert record.startswith(b"capstan-tape: 1.0\nkind: index\n")
    assert decode_header(record, barcode="CAP001L9", block=77) == (INDEX, digest)


def test_what_is_unset_is_not_written_and_what_is_absent_is_a_dash() -> None:
    """A label has no set; the first INDEX of a cartridge has no previous one."""
    label = dataclasses.replace(
        INDEX,
        **dict.fromkeys(("set", "container", "codec", "encryption", "sequence", "final", "set_previous_index_sha256")),
        kind=Kind.LABEL,
        previous_index_block=-1,
        previous_index_sha256="",
    )
    record, _ = label.encode()
    assert b"\nset:" not in record
    assert b"previous-index-block: -\nprevious-index-sha256: -\n" in record
    assert decode_header(record, barcode="", block=77)[0] == label


@given(st.integers(0, HEADER_BYTES - 1), st.integers(1, 255))
def test_any_changed_byte_is_noticed(at: int, change: int) -> None:
    """No flipped bit passes, unless it lies in the padding behind the digest's line."""
    record, _ = INDEX.encode()
    broken = bytearray(record)
    broken[at] ^= change
    with pytest.raises((Damaged, NotCapstanTape, UnsupportedVersion)):
        decode_header(broken, barcode="CAP001L9", block=77)


def test_a_header_from_another_place_is_refused() -> None:
    """A header copied to another block does not pass for that block's."""
    record, _ = INDEX.encode()
    with pytest.raises(Damaged, match="says it is block 77"):
        decode_header(record, barcode="CAP001L9", block=78)


def test_unknown_keys_are_ignored_and_a_newer_major_is_refused() -> None:
    """Minor additions do not break old readers; another major is a clear error."""
    record, _ = INDEX.encode()
    with pytest.raises(UnsupportedVersion, match=r"2\.0"):
        decode_header(record.replace(b"capstan-tape: 1.0", b"capstan-tape: 2.0"), barcode="X", block=77)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"VOL1CAP001".ljust(80), "ANSI"),
        (b"x".ljust(257, b"\0") + b"ustar".ljust(255, b"\0"), "tar"),
        (b"\0" * 512, "512 bytes"),
    ],
)
def test_foreign_records_are_described(data: bytes, words: str) -> None:
    """The operator hears what was found instead."""
    with pytest.raises(NotCapstanTape, match=words):
        decode_header(data, barcode="X", block=0)
