"""Members written by hand are what every tar reads."""

from __future__ import annotations

import io
import os
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capstan.core.files import FileEntry, FileType
from capstan.format.tar import member_headers, parse_member

COMPONENT = st.binary(min_size=1, max_size=120).filter(
    lambda b: b"/" not in b and b"\0" not in b and b not in (b".", b"..")
)
PATHS = st.lists(COMPONENT, min_size=1, max_size=4).map(b"/".join)
NAMES = st.text(st.characters(codec="ascii", categories=("L", "N")), max_size=40)


@st.composite
def entries(draw: st.DrawFn) -> FileEntry:
    kind = draw(st.sampled_from(FileType))
    linked = kind in (FileType.SYMLINK, FileType.HARDLINK)
    device = kind in (FileType.CHARACTER, FileType.BLOCK)
    return FileEntry(
        path=draw(PATHS),
        type=kind,
        mode=draw(st.integers(0, 0o7777)),
        uid=draw(st.integers(0, 2**32 - 1)),
        gid=draw(st.integers(0, 2**32 - 1)),
        size=draw(st.integers(0, 2**40)) if kind is FileType.REGULAR else 0,
        mtime_ns=draw(st.integers(-(2**60), 2**62)),
        owner=draw(NAMES),
        group=draw(NAMES),
        target=draw(PATHS) if linked else b"",
        rdev_major=draw(st.integers(0, 4095)) if device else 0,
        rdev_minor=draw(st.integers(0, 2**20 - 1)) if device else 0,
        xattrs=tuple(
            draw(st.dictionaries(st.sampled_from([b"user.a", b"security.capability"]), st.binary(max_size=700))).items()
        ),
    )


@given(entries())
def test_headers_come_back(entry: FileEntry) -> None:
    """What is written into the headers is read from them, whatever the name, time and owner."""
    headers = member_headers(entry)
    assert len(headers) % 512 == 0
    assert parse_member(headers + b"\0" * 512) == (entry, len(headers))


@given(entries())
def test_the_standard_library_reads_the_same(entry: FileEntry) -> None:
    """An independent reader agrees on name, type, size, times and links."""
    stream = io.BytesIO(member_headers(entry) + bytes(1024))
    with tarfile.open(fileobj=stream, encoding="utf-8", errors="surrogateescape") as archive:
        member = archive.next()
    assert member is not None
    assert os.fsencode(member.name) == entry.path
    assert member.mode == entry.mode
    assert (member.uid, member.gid) == (entry.uid, entry.gid)
    assert os.fsencode(member.linkname) == entry.target
    assert member.size == entry.size
    assert abs(member.mtime - entry.mtime_ns / 1e9) < 1e-3


@given(st.integers(0, 511), st.integers(1, 255))
def test_a_broken_header_is_noticed(at: int, change: int) -> None:
    """A changed byte fails the checksum (or, in the checksum itself, differs from the sum)."""
    entry = FileEntry(path=b"a", type=FileType.REGULAR, mode=0o644, uid=0, gid=0, size=3, mtime_ns=0)
    headers = bytearray(member_headers(entry))
    headers[at] ^= change
    try:
        parsed, _ = parse_member(headers)
    except ValueError:
        return
    assert parsed == entry  # only the padding of the checksum field does not count


def test_a_cut_off_header_is_an_error() -> None:
    """Bytes that end inside a header never give an entry."""
    entry = FileEntry(path=b"a", type=FileType.REGULAR, mode=0, uid=0, gid=0, size=0, mtime_ns=1)
    headers = member_headers(entry)
    for length in range(0, len(headers), 100):
        with pytest.raises(ValueError):
            parse_member(headers[:length])
