"""What people find in file indexes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from index_rows import NOW_NS, IndexRow, alone, row, write_part

from capstan.core.files import FileFlag, FileType
from capstan.errors import HomeDamaged, InvalidValue, StorageFailed
from capstan.fileindex.comparison import Difference
from capstan.fileindex.schema import ROW_GROUP
from capstan.fileindex.search import FileSearch

NAMES = [
    b"srv",
    b"srv/data",
    b"srv/database.txt",
    b"srv/data/Report.TXT",
    b"srv/data/report[1].txt",
    b"srv/data/100%_sure?.txt",
    b"srv/data/it's.txt",
    b"srv/data/\xff\xfe.bin",
    b"srv/data/\\xff.bin",
    "srv/data/数据.txt".encode(),
    "srv/data/É".encode(),
    b"srv/data/new\nline",
    b"srv/data/deep/report.txt",
]


def part(tmp_path: Path, rows: list[IndexRow], name: str = "1") -> Path:
    """A part of a set."""
    return write_part(tmp_path / f"{name}.files.parquet", rows)


def found(path: Path, pattern: str, **more: bool) -> list[str]:
    """The last components of what `pattern` finds."""
    return [item.path.rpartition("/")[2] for item in FileSearch().find([("s", [path])], pattern, **more)]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("base", ["database.txt"]),
        ("data/rep", ["report[1].txt"]),
        ("/deep/", ["report.txt"]),
        ("/eep", []),
        ("/srv/database", ["database.txt"]),
        ("report[1]", ["report[1].txt"]),
        ("report[[]1].txt", ["report[1].txt"]),
        ("[Rr]eport.*", ["Report.TXT", "report.txt"]),
        ("*.TXT", ["Report.TXT"]),
        ("100%_", ["100%_sure?.txt"]),
        ("%", ["100%_sure?.txt"]),
        ("it's", ["it's.txt"]),
        ("数", ["数据.txt"]),
        ("数?.txt", ["数据.txt"]),
        ("[一-龥]*", ["数据.txt"]),
        ("?", ["É"]),
        ("new*line", ["new\nline"]),
        ("\\xff", ["\\xff\\xfe.bin", "\\xff.bin"]),
        ("\\xff*.bin", ["\\xff\\xfe.bin", "\\xff.bin"]),
        ("\\xff\\xf?.bin", ["\\xff\\xfe.bin"]),
        ("srv/*/report.txt", ["report.txt"]),
        ("/srv/data/[!a-z]*.TXT", ["Report.TXT"]),
        ("report[.", []),
        ("*[1", []),
    ],
)
def test_patterns(tmp_path: Path, pattern: str, names: list[str]) -> None:
    """Substrings and globs find names and paths; nothing else has a special meaning, whatever bytes a name has."""
    assert found(part(tmp_path, [row(name) for name in NAMES]), pattern) == names


def test_case_may_be_ignored(tmp_path: Path) -> None:
    """In substrings, in globs and beyond ASCII."""
    path = part(tmp_path, [row(name) for name in NAMES])
    assert found(path, "REPORT.T", ignore_case=True) == ["Report.TXT", "report.txt"]
    assert found(path, "SRV/*/REPORT.T?T", ignore_case=True) == ["Report.TXT", "report.txt"]
    assert found(path, "é", ignore_case=True) == ["É"]
    assert found(path, "é") == []


def test_a_pattern_that_makes_no_sense(tmp_path: Path) -> None:
    """A range that goes backwards is the person's mistake, not a fault of the program."""
    with pytest.raises(InvalidValue, match="pattern"):
        found(part(tmp_path, []), "[z-a]*")


def test_many_sets_in_the_order_given(tmp_path: Path) -> None:
    """Results say which set they are of; a limit is one over all sets; sets without parts are passed over."""
    sets = [
        ("new", [part(tmp_path, [row(b"a"), row(b"b")], "2")]),
        ("empty", []),
        ("old", [part(tmp_path, [row(b"a"), row(b"c")], "1")]),
    ]
    results = [(item.set_id, item.path) for item in FileSearch().find(sets, "*")]
    assert results == [("new", "a"), ("new", "b"), ("old", "a"), ("old", "c")]
    for limit in range(5):
        limited = FileSearch().find(sets, "*", limit=limit)
        assert [(item.set_id, item.path) for item in limited] == results[:limit]


def test_by_time(tmp_path: Path) -> None:
    """Both ends belong to the span, to the microsecond; times before 1970 are times too."""
    moment = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)
    first = part(tmp_path, [row(b"now"), row(b"past", mtime_ns=-1_500_000_000)])
    search = FileSearch()

    def names(since: datetime | None = None, until: datetime | None = None) -> list[str]:
        return [item.path for item in search.find([("s", [first])], "*", since=since, until=until)]

    assert names(since=moment) == ["now"]
    assert names(since=moment + timedelta(microseconds=1)) == []
    assert names(until=moment + timedelta(microseconds=1)) == ["now", "past"]
    assert names(until=datetime(1970, 1, 1, tzinfo=UTC)) == ["past"]
    now, past = search.find([("s", [first])], "*")
    assert now.mtime_ns == NOW_NS
    assert now.modified_at == moment
    assert past.as_dict()["modified_at"] == "1969-12-31T23:59:58.500000+00:00"


def test_listing_below_a_folder(tmp_path: Path) -> None:
    """The folder itself and all below it, not its neighbours with the same beginning, with or without slashes."""
    path = part(tmp_path, [row(name) for name in NAMES])
    search = FileSearch()
    assert [item.path for item in search.list_files(alone([path]), "/srv/data/deep/")] == ["srv/data/deep/report.txt"]
    below = [item.path for item in search.list_files(alone([path]), "srv/data")]
    assert below[0] == "srv/data"
    assert "srv/database.txt" not in below
    assert len(below) == len(NAMES) - 2
    assert len(list(search.list_files(alone([path])))) == len(NAMES)
    assert [item.path for item in search.list_files(alone([path]), "srv/data/it's.txt")] == ["srv/data/it's.txt"]


def test_order_is_that_of_the_set(tmp_path: Path) -> None:
    """Over row groups and parts, with several threads, and with rows that are left out."""
    rows = [row(b"d/%07d" % number, number, content=None, size=number) for number in range(3 * ROW_GROUP)]
    rows[5] = rows[5]._replace(flags=int(FileFlag.CONTINUES))
    last = [rows[5]._replace(flags=0), row(b"z", 4 * ROW_GROUP, content=None, size=4 * ROW_GROUP)]
    parts = [part(tmp_path, rows, "1"), part(tmp_path, last, "2")]
    sizes = [item.size for item in FileSearch(threads=4).list_files(alone(parts))]
    assert sizes == [*range(5), *range(6, 3 * ROW_GROUP), 5, 4 * ROW_GROUP]


def test_of_each_path_one_row_counts(tmp_path: Path) -> None:
    """A whole copy hides a damaged or provisional one; without it the last such row is shown, once."""
    parts = [
        part(
            tmp_path,
            [
                row(b"whole later", 0, flags=FileFlag.CONTINUES),
                row(b"never whole", 1, flags=FileFlag.CONTINUES),
                row(b"damaged", 2, flags=FileFlag.DAMAGED),
                row(b"damaged for good", 3, flags=FileFlag.DAMAGED),
                row(b"changed", 4, flags=FileFlag.CHANGED),
                row(b"unreadable", 5, flags=FileFlag.UNREADABLE),
                row(b"\xff", 6, flags=FileFlag.DAMAGED),
                row(b"\\xff", 7),
            ],
            "1",
        ),
        part(
            tmp_path,
            [row(b"never whole", 1, flags=FileFlag.CONTINUES), row(b"whole later", 0), row(b"damaged", 9)],
            "2",
        ),
    ]
    counted = [(item.path, item.flags) for item in FileSearch().list_files(alone(parts))]
    assert counted == [
        ("never whole", FileFlag.CONTINUES),
        ("damaged for good", FileFlag.DAMAGED),
        ("changed", FileFlag.CHANGED),
        ("unreadable", FileFlag.UNREADABLE),
        ("\\xff", FileFlag.DAMAGED),
        ("\\xff", FileFlag.NONE),
        ("whole later", FileFlag.NONE),
        ("damaged", FileFlag.NONE),
    ]
    assert list(FileSearch().diff(alone(parts), alone(parts))) == []
    assert [item.path for item in FileSearch().find([("s", parts)], "never")] == ["never whole"]


def test_what_changed_between_two_sets(tmp_path: Path) -> None:
    """Each kind of change under its name, sorted by path; what could not be read is not called changed or removed."""
    before = part(
        tmp_path,
        [
            row(b"same", inode=1),
            row(b"gone", content=b"gone"),
            row(b"grown", content=b"a"),
            row(b"mode"),
            row(b"link", content=None, type=FileType.SYMLINK, target=b"a"),
            row(b"renamed", content=b"r", device=8, inode=7),
            row(b"copied and removed", content=b"c", inode=8),
            row(b"folder", content=None, device=8, inode=9),
            row(b"locked", content=b"x"),
            row(b"\xff", content=b"1"),
        ],
        "1",
    )
    after = part(
        tmp_path,
        [
            row(b"same", inode=99, device=5),
            row(b"grown", content=b"ab"),
            row(b"mode", mode=0o600),
            row(b"link", content=None, type=FileType.SYMLINK, target=b"b"),
            row(b"new name", content=b"r", device=8, inode=7),
            row(b"copy", content=b"c", inode=80, mtime_ns=5),
            row(b"directory", content=None, device=8, inode=9),
            row(b"locked", flags=FileFlag.UNREADABLE),
            row(b"born", content=b"born"),
            row(b"\\xff", content=b"2"),
        ],
        "2",
    )
    assert list(FileSearch().diff(alone([before]), alone([after]))) == [
        Difference("added", "\\xff"),
        Difference("removed", "\\xff"),
        Difference("added", "born"),
        Difference("moved", "copy", "copied and removed"),
        Difference("moved", "directory", "folder"),
        Difference("removed", "gone"),
        Difference("changed", "grown"),
        Difference("changed", "link"),
        Difference("changed", "mode"),
        Difference("moved", "new name", "renamed"),
    ]


def test_each_file_is_moved_once(tmp_path: Path) -> None:
    """Of many copies of the same content as many are moved as there are partners, by name where there is a choice;
    empty files are not taken for each other."""
    before = part(tmp_path, [row(b"old/x", content=b"1"), row(b"old/y", content=b"1"), row(b"old/empty")], "1")
    names = (b"new/y", b"new/x", b"new/z")
    after = part(tmp_path, [*(row(name, content=b"1", mtime_ns=1) for name in names), row(b"new/empty")], "2")
    assert list(FileSearch().diff(alone([before]), alone([after]))) == [
        Difference("added", "new/empty"),
        Difference("moved", "new/x", "old/x"),
        Difference("moved", "new/y", "old/y"),
        Difference("added", "new/z"),
        Difference("removed", "old/empty"),
    ]


def test_a_set_against_nothing(tmp_path: Path) -> None:
    """Everything was added, or removed, or there is nothing at all."""
    files = [part(tmp_path, [row(b"a"), row(b"b")])]
    assert list(FileSearch().diff(alone([]), alone(files))) == [Difference("added", "a"), Difference("added", "b")]
    assert list(FileSearch().diff(alone(files), alone([]))) == [Difference("removed", "a"), Difference("removed", "b")]
    assert list(FileSearch().diff(alone([]), alone([]))) == []
    assert list(FileSearch().list_files(alone([]))) == []


@pytest.mark.parametrize("kind", ["gone", "cut", "bent", "text", "empty"])
def test_a_damaged_index_is_named(tmp_path: Path, kind: str) -> None:
    """The operator hears which file, and that the tapes hold everything; the good parts beside it are not blamed."""
    good = part(tmp_path, [row(b"good")], "1")
    bad = part(tmp_path, [row(b"bad/%d" % number, content=b"%d" % number) for number in range(5000)], "2")
    whole = bad.read_bytes()
    middle = len(whole) // 2
    content = {
        "cut": whole[:middle],
        "bent": whole[:100] + b"\xff" * (middle - 100) + whole[middle:],
        "text": b"this is no table",
        "empty": b"",
    }
    if kind == "gone":
        bad.unlink()
    else:
        bad.write_bytes(content[kind])
    with pytest.raises(HomeDamaged, match=r"2\.files\.parquet") as caught:
        list(FileSearch().list_files(alone([good, bad])))
    assert "rebuild" in caught.value.hint_text
    with pytest.raises(HomeDamaged, match=r"2\.files\.parquet"):
        list(FileSearch().diff(alone([good]), alone([bad])))


def test_no_room_to_search_is_not_damage(tmp_path: Path) -> None:
    """With too little memory and no room in the spool the storage is named, not the index."""
    rows = [row(b"%064d/%0100d" % (number, number), inode=number, size=number) for number in range(20_000)]
    files = [part(tmp_path, rows, "1")]
    other = [part(tmp_path, [item for item in rows if item.entry.size % 2], "2")]
    with pytest.raises(StorageFailed):
        list(FileSearch(memory="1MB", spool=tmp_path).diff(alone(files), alone(other)))


def test_a_path_is_only_a_path(tmp_path: Path) -> None:
    """Quotes, brackets and stars in the name of a home are no patterns, and other homes are not read."""
    for name in ("it's [1] * ?", "it's 1 x y"):
        (tmp_path / name).mkdir()
        part(tmp_path / name, [row(name.encode())])
    for name in ("it's [1] * ?", "it's 1 x y"):
        files = [tmp_path / name / "1.files.parquet"]
        assert [item.path for item in FileSearch().list_files(alone(files))] == [name]


def test_who_stops_early_leaves_nothing_behind(tmp_path: Path) -> None:
    """The spool is empty again when a search ends, is given up, or fails."""
    spool = tmp_path / "spool"
    spool.mkdir()
    files = [part(tmp_path, [row(b"%d" % number) for number in range(10_000)])]
    search = FileSearch(spool=spool)
    stream = search.list_files(alone(files))
    next(stream)
    assert list(spool.iterdir())
    del stream
    assert not list(spool.iterdir())
    assert len(list(search.diff(alone(files), alone([])))) == 10_000
    with pytest.raises(HomeDamaged):
        list(search.list_files(alone([tmp_path / "nothing"])))
    assert not list(spool.iterdir())
