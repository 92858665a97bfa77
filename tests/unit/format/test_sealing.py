"""A sealed payload is an age file, every part of which can be opened alone."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pyrage
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capstan.core.backup import Segment
from capstan.crypto.age import CHUNK, TAG, AgeError, NoIdentity
from capstan.crypto.identities import X25519Identity
from capstan.format.sealing import PayloadSealer, SealedFile, SegmentOpener, encode_beginning, sealed_range

SECRET = pyrage.x25519.Identity.generate()
IDENTITY = X25519Identity.from_text(str(SECRET))
RECIPIENT = str(SECRET.to_public())


def sealed(pieces: list[bytes]) -> tuple[bytes, Segment]:
    """What lies on tape, and what the catalog has of it."""
    payload = bytearray()
    sealer = PayloadSealer([RECIPIENT], payload.extend)
    for piece in pieces:
        sealer.write(piece)
    sealer.finish()
    assert sealer.plain_bytes == sum(map(len, pieces))
    segment = Segment("s", 0, "c", "B", 1, 1, 1, 65_536, len(payload), "", 0, 0)
    return bytes(payload), replace(segment, age_beginning=encode_beginning(sealer.beginning))


def plain_of(sizes: list[int]) -> list[bytes]:
    return [bytes((number + at) & 0xFF for at in range(251)) * (size // 251) + b"x" * (size % 251)
            for number, size in enumerate(sizes)]  # fmt: skip


# Around the sizes of a chunk, and of what is handed on at once.
SIZES = st.lists(
    st.one_of(st.integers(0, 3000), st.integers(CHUNK - 2, CHUNK + 2), st.integers(16 * CHUNK - 2, 17 * CHUNK + 2)),
    min_size=1,
    max_size=4,
)


@given(sizes=SIZES, data=st.data())
def test_any_part_is_opened_alone(sizes: list[int], data: st.DataObject) -> None:
    """However a payload was written, any range of its plain text comes back from the chunks that hold it."""
    pieces = plain_of(sizes)
    plain = b"".join(pieces)
    payload, segment = sealed(pieces)
    begin = data.draw(st.integers(0, len(plain)))
    length = data.draw(st.integers(0, len(plain) - begin))
    offset, size = sealed_range(segment, begin, length)
    if length:
        assert size <= length + 2 * (CHUNK + TAG) + TAG * (length // CHUNK + 1)
        part = memoryview(payload)[offset : offset + size]
        assert bytes(SegmentOpener(segment, [IDENTITY]).open(part, begin, length)) == plain[begin : begin + length]
    assert pyrage.decrypt(payload, [SECRET]) == plain


@pytest.mark.requires("age")
def test_stock_age_opens_it(tmp_path: Path) -> None:
    """A payload is what the stock program calls an age file."""
    pieces = plain_of([70_000, 16 * CHUNK, 1])
    (tmp_path / "payload").write_bytes(sealed(pieces)[0])
    (tmp_path / "key").write_text(str(SECRET))
    done = subprocess.run(["age", "-d", "-i", tmp_path / "key", tmp_path / "payload"], capture_output=True, check=True)
    assert done.stdout == b"".join(pieces)


@pytest.mark.parametrize("size", [0, 1, CHUNK, CHUNK + 1, 3 * CHUNK])
def test_it_is_read_as_a_file(tmp_path: Path, size: int) -> None:
    """From beginning to end, whatever its size; and a cut one is never taken for whole."""
    payload, _ = sealed([b"p" * size])
    path = tmp_path / "payload"
    path.write_bytes(payload)
    with path.open("rb") as file:
        assert SealedFile(file, len(payload), [IDENTITY]).read() == b"p" * size
    for lost in (1, TAG, min(size, CHUNK) + TAG):
        path.write_bytes(payload[:-lost])
        with path.open("rb") as file, pytest.raises(AgeError):
            SealedFile(file, len(payload) - lost, [IDENTITY]).read()


def test_nothing_false_is_opened() -> None:
    """A bit that was changed, chunks of another place or another payload, an end that is missing: never plain text."""
    payload, segment = sealed([b"a" * (3 * CHUNK)])
    other, _ = sealed([b"a" * (3 * CHUNK)])
    opener = SegmentOpener(segment, [IDENTITY])
    offset, size = sealed_range(segment, 0, 2 * CHUNK)
    good = bytearray(payload[offset : offset + size])
    assert bytes(opener.open(memoryview(good), 0, 2 * CHUNK)) == b"a" * 2 * CHUNK
    swapped = good[CHUNK + TAG :] + good[: CHUNK + TAG]
    changed = bytearray(good)
    changed[70_000] ^= 1
    for wrong in (swapped, changed, bytearray(other[offset : offset + size]), good[:-20]):
        with pytest.raises(AgeError):
            opener.open(memoryview(wrong), 0, 2 * CHUNK)
    begin = sealed_range(segment, 2 * CHUNK, CHUNK)[0]
    cut = replace(segment, payload_bytes=begin)  # as if the second chunk were the last one
    with pytest.raises(AgeError):
        SegmentOpener(cut, [IDENTITY]).open(memoryview(good), 0, 2 * CHUNK)


def test_others_open_nothing() -> None:
    """An identity that it was not sealed for says so; that is told from damage."""
    _, segment = sealed([b"a"])
    stranger = X25519Identity.from_text(str(pyrage.x25519.Identity.generate()))
    for identities in ([], [stranger]):
        with pytest.raises(NoIdentity):
            SegmentOpener(segment, identities)
