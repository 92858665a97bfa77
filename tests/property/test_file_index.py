"""Laws of the file index, over random sets."""

from __future__ import annotations

import hashlib
import re
import tempfile
from pathlib import Path

import pyarrow.parquet as pq
from hypothesis import given, settings
from hypothesis import strategies as st

from capstan.core.files import FileEntry, FileFlag, FileType, display_path
from capstan.fileindex.builder import FileIndexBuilder
from capstan.fileindex.chain import ChainSet
from capstan.fileindex.search import FileSearch
from capstan.fileindex.store import IndexPart


def alone(files: list[Path]) -> list[ChainSet]:
    """A set that builds on no other."""
    return [ChainSet("s", 0, tuple(IndexPart(n, "", path, path, path) for n, path in enumerate(files, 1)))]


# Few letters, so that names meet: a byte that is not UTF-8, what it looks like, all that is special to SQL and globs.
LETTERS = [b"a", b"B", "é".encode(), "中".encode(), b"\xff", b"\\", b"xff", b"[", b"]", b"%", b"_", b"'", b"*", b"\n"]
components = st.lists(st.sampled_from(LETTERS), min_size=1, max_size=3).map(b"".join)
paths = st.lists(components, min_size=1, max_size=3).map(b"/".join)
flags = st.sampled_from([0, 0, 0, 1, 2, 3, 4, 8])
entries = st.builds(
    FileEntry,
    path=paths,
    type=st.sampled_from(FileType),
    mode=st.integers(0, 0o7777),
    uid=st.integers(0, (1 << 32) - 1),
    gid=st.integers(0, (1 << 32) - 1),
    size=st.integers(0, (1 << 63) - 1),
    mtime_ns=st.integers(-(1 << 63), (1 << 63) - 1),
    ctime_ns=st.integers(-(1 << 63), (1 << 63) - 1),
    device=st.integers(0, (1 << 64) - 1),
    inode=st.integers(0, (1 << 64) - 1),
    owner=st.text(max_size=3),
    group=st.text(max_size=3),
    target=st.binary(max_size=8),
)
digests = st.none() | st.binary(min_size=32, max_size=32)
rows = st.lists(st.tuples(entries, digests, flags), max_size=12)
few = settings(max_examples=max(60, settings.default.max_examples // 5), deadline=None)


def write(folder: str, name: str, content: list[tuple[FileEntry, bytes | None, int]], begin: int = 0) -> Path:
    """A part whose rows stand one kilobyte apart in the stream, from the row number `begin`."""
    path = Path(folder) / f"{name}.files.parquet"
    builder = FileIndexBuilder(path)
    for number, (entry, digest, flag) in enumerate(content, begin):
        builder.add(entry, number << 10, 1024, digest, flag)
    builder.finish()
    return path


@few
@given(rows)
def test_every_column_comes_back(content: list[tuple[FileEntry, bytes | None, int]]) -> None:
    """Whatever was entered is what another Parquet reader sees, to the byte."""
    with tempfile.TemporaryDirectory() as folder:
        table = pq.read_table(write(folder, "1", content)).to_pylist()
    assert len(table) == len(content)
    for number, ((entry, digest, flag), row) in enumerate(zip(content, table, strict=True)):
        text = f"{row['directory']}/{row['name']}" if b"/" in entry.path else row["name"]
        assert text == display_path(entry.path)
        assert (text.encode() if row["raw"] is None else row["raw"]) == entry.path
        for column in ("type", "mode", "uid", "gid", "owner", "group", "size", "mtime_ns", "ctime_ns"):
            assert row[column] == getattr(entry, column)
        assert (row["device"], row["inode"], row["target"]) == (entry.device, entry.inode, entry.target or None)
        assert (row["tar_offset"], row["tar_bytes"], row["sha256"], row["flags"]) == (number << 10, 1024, digest, flag)


# A pattern beside the regular expression that says the same.
literals = st.sampled_from(["a", "B", "é", "中", "\\", "\\xff", "xff", "]", "%", "_", "'", "\n", "/", ".", "^", "-"])
pieces = st.one_of(
    literals.map(lambda text: (text, re.escape(text))),
    st.sampled_from(
        [
            ("*", ".*"),
            ("?", "."),
            ("[aé]", "[aé]"),
            ("[!a]", "[^a]"),
            ("[^é]", "[^é]"),
            ("[一-龥]", "[一-龥]"),
            ("[[]", r"\["),
            ("[]a]", r"[\]a]"),
            ("[\\x]", r"[\\x]"),
            ("[a-]", "[a-]"),
            ("[a&&é]", "[a&é]"),
        ]
    ),
)


@few
@given(st.sets(paths, max_size=12), st.lists(pieces, min_size=1, max_size=4))
def test_find_is_what_a_plain_filter_finds(names: set[bytes], pattern: list[tuple[str, str]]) -> None:
    """The same paths in the same order as by Python's own regular expressions and substrings."""
    ordered = sorted(names)
    text = "".join(piece for piece, _ in pattern)
    regex = re.compile("".join(piece for _, piece in pattern), re.DOTALL)
    content = [(FileEntry(name, FileType.FIFO, 0, 0, 0, 0, 0), None, 0) for name in ordered]
    shown = ["/" + display_path(name) for name in ordered]
    if not re.search(r"[*?]|\[[^\]]+\]", text):
        expected = [path for path in shown if text in path]
    elif "/" in text:
        whole = re.compile("/" + regex.pattern.removeprefix("/"), re.DOTALL)
        expected = [path for path in shown if whole.fullmatch(path)]
    else:
        expected = [path for path in shown if regex.fullmatch(path.rpartition("/")[2])]
    if "*" not in text and "?" not in text:
        expected = [path for path in shown if path in expected or text in path]
    with tempfile.TemporaryDirectory() as folder:
        found = FileSearch(threads=1).find([("s", [write(folder, "1", content)])], text)
        assert ["/" + item.path for item in found] == expected


@few
@given(rows, rows)
def test_each_path_is_listed_once_unless_it_is_good_twice(
    first: list[tuple[FileEntry, bytes | None, int]], second: list[tuple[FileEntry, bytes | None, int]]
) -> None:
    """Good and unreadable rows are all there; a bad one only where its path has no good one, and only the last."""
    hidden, bad = FileFlag.DAMAGED | FileFlag.CONTINUES, FileFlag.DAMAGED | FileFlag.CONTINUES | FileFlag.UNREADABLE
    both = [*first, *second]
    good = {entry.path for entry, _, flag in both if not flag & bad}
    plain = sorted(display_path(entry.path) for entry, _, flag in both if not flag & hidden)
    resorts = {entry.path for entry, _, flag in both if flag & hidden} - good
    with tempfile.TemporaryDirectory() as folder:
        parts = [write(folder, "1", first), write(folder, "2", second, len(first))]
        listed = list(FileSearch(threads=1).list_files(alone(parts)))
    assert sorted(item.path for item in listed if not item.flags & hidden) == plain
    assert sorted(item.path for item in listed if item.flags & hidden) == sorted(map(display_path, resorts))


states = st.dictionaries(paths, st.tuples(st.binary(max_size=1), st.integers(0, 3), st.integers(0, 2)), max_size=8)


@few
@given(states, states)
def test_differences_explain_the_second_set(
    before: dict[bytes, tuple[bytes, int, int]], after: dict[bytes, tuple[bytes, int, int]]
) -> None:
    """Every path that is only in one set is in exactly one difference, every path that is not the same in both is
    changed, and nothing else is told."""

    def content(state: dict[bytes, tuple[bytes, int, int]]) -> list[tuple[FileEntry, bytes | None, int]]:
        return [
            (
                FileEntry(path, FileType.REGULAR, 0, 0, 0, len(data), mtime_ns, inode=inode),
                hashlib.sha256(data).digest(),
                0,
            )
            for path, (data, inode, mtime_ns) in sorted(state.items())
        ]

    with tempfile.TemporaryDirectory() as folder:
        old, new = write(folder, "1", content(before)), write(folder, "2", content(after))
        told = list(FileSearch(threads=1).diff(alone([old]), alone([new])))
    assert told == sorted(told, key=lambda item: (item.path, item.change, item.moved_from))
    moved = [(item.path, item.moved_from) for item in told if item.change == "moved"]
    added = sorted([item.path for item in told if item.change == "added"] + [path for path, _ in moved])
    removed = sorted([item.path for item in told if item.change == "removed"] + [origin for _, origin in moved])
    assert added == sorted(display_path(path) for path in after.keys() - before.keys())
    assert removed == sorted(display_path(path) for path in before.keys() - after.keys())
    changed = [path for path in before.keys() & after.keys() if before[path][::2] != after[path][::2]]
    assert sorted(item.path for item in told if item.change == "changed") == sorted(map(display_path, changed))
    gone, come = before.keys() - after.keys(), after.keys() - before.keys()
    for path, origin in moved:
        old_states = [before[name] for name in gone if display_path(name) == origin]
        new_states = [after[name] for name in come if display_path(name) == path]
        assert any(
            (len(one[0]), one[1:]) == (len(two[0]), two[1:]) or (one[0] == two[0] and one[0])
            for one in old_states
            for two in new_states
        )
