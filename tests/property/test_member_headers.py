"""The short way to a file's headers and the general one give the same bytes."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from capstan.core.files import FileEntry, FileType
from capstan.format.tar import _any_member, member_headers, parse_member

PARTS = st.lists(st.binary(min_size=1, max_size=60).map(lambda part: part.replace(b"/", b"-").replace(b"\0", b"-")))
ENTRIES = st.builds(
    FileEntry,
    path=PARTS.filter(bool).map(b"/".join).filter(lambda path: not path.endswith(b"/")),
    type=st.sampled_from([FileType.REGULAR, FileType.REGULAR, FileType.FIFO]),
    mode=st.integers(0, 0o7777),
    uid=st.one_of(st.integers(0, 70_000), st.integers(0, 2**32 - 1)),
    gid=st.integers(0, 2**32 - 1),
    size=st.one_of(st.integers(0, 10_000), st.integers(8**11 - 2, 8**11 + 2)),
    mtime_ns=st.one_of(
        st.integers(-(10**18), 10**20),
        st.integers(10**9, 8**11).map(lambda seconds: seconds * 10**9),
        st.sampled_from([10**18 - 1, 10**18, (8**11 - 1) * 10**9 - 1, (8**11 - 1) * 10**9, 8**11 * 10**9]),
    ),
    owner=st.text(max_size=40).filter(lambda name: "\0" not in name),
    group=st.sampled_from(["", "root", "g" * 31, "g" * 32]),
)


@given(ENTRIES)
@example(FileEntry(b"a/" * 60 + b"\xff" * 99, FileType.REGULAR, 0o644, 1, 2, 3, 1_700_000_000_123_456_789))
def test_the_short_way_gives_the_same_bytes(entry: FileEntry) -> None:
    """Whatever the entry, its headers are those of the general way, and read back as the entry."""
    headers = member_headers(entry)
    assert headers == _any_member(entry)
    found, length = parse_member(headers)
    assert length == len(headers)
    assert (found.path, found.mode, found.uid, found.gid, found.mtime_ns) == (
        entry.path,
        entry.mode,
        entry.uid,
        entry.gid,
        entry.mtime_ns,
    )
