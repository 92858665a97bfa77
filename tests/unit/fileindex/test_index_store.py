"""The store of file indexes keeps what it is given, and nothing outside of it is touched."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from capstan.errors import HomeDamaged, InvalidValue, StorageFailed
from capstan.fileindex import store as store_module
from capstan.fileindex.store import FileIndexStore, IndexPart

SET = "0f0e0d0c-0000-4000-8000-000000000000"


def part_in(spool: Path, sequence: int, text: str = "") -> IndexPart:
    """Three files in the spool."""
    spool.mkdir(exist_ok=True)
    names = [spool / f"{sequence}.{kind}" for kind in ("files", "frames", "records")]
    for name in names:
        name.write_text(f"{name.name}{text}")
    return IndexPart(sequence, digest(sequence), *names)


def digest(sequence: int) -> str:
    """What names an interval."""
    return f"{sequence:x}".rjust(2, "0") * 32


def files(folder: Path) -> list[str]:
    """What the tables of files in a folder hold."""
    return sorted(path.read_text() for path in folder.glob("*.files.parquet"))


def test_parts_come_back_in_the_order_of_their_sequence(tmp_path: Path) -> None:
    """Tenth behind second; the spool is empty afterwards; a part added again replaces the first."""
    store = FileIndexStore(tmp_path / "index")
    for sequence in (10, 2, 1):
        store.add_part(SET, part_in(tmp_path / "spool", sequence))
    store.add_part(SET, part_in(tmp_path / "spool", 2, " again"))
    assert not list((tmp_path / "spool").iterdir())
    assert files(tmp_path / "index" / SET) == ["1.files", "10.files", "2.files again"]
    found = store.parts(SET, {number: digest(number) for number in (10, 2)})
    assert [(part.sequence, part.frames.read_text(), part.records.read_text()) for part in found] == [
        (2, "2.frames again", "2.records again"),
        (10, "10.frames", "10.records"),
    ]


def test_a_part_is_on_the_disk_before_anyone_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file is synced before it gets its name, and every folder on the way to it after."""
    synced: list[str] = []
    really = os.fsync

    def recorded(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        really(descriptor)

    monkeypatch.setattr(os, "fsync", recorded)
    FileIndexStore(tmp_path / "index").add_part(SET, part_in(tmp_path / "spool", 1))
    assert synced == ["1.files", "1.frames", "1.records", SET, "index", tmp_path.name]


def test_a_spool_on_another_file_system(tmp_path: Path) -> None:
    """The part is copied, and only then removed from the spool."""
    elsewhere = Path("/dev/shm")
    if not elsewhere.is_dir() or elsewhere.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs a second file system at /dev/shm")
    spool = elsewhere / f"capstan-test-{os.getpid()}"
    try:
        store = FileIndexStore(tmp_path / "index")
        store.add_part(SET, part_in(spool, 1))
        assert not list(spool.iterdir())
        assert store.parts(SET, {1: digest(1)})[0].frames.read_text() == "1.frames"
        assert {path.suffix for path in (tmp_path / "index" / SET).iterdir()} == {".parquet", ".crc32c"}
    finally:
        spool.rmdir()


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    """A part of which one file is gone is not returned as if it were whole."""
    store = FileIndexStore(tmp_path)
    store.add_part(SET, part_in(tmp_path / "spool", 1))
    (tmp_path / SET / f"1-{digest(1)[:16]}.frames.parquet").unlink()
    with pytest.raises(HomeDamaged, match=r"1-0101010101010101\.frames\.parquet") as caught:
        store.parts(SET, {1: digest(1)})
    assert "rebuild" in caught.value.hint_text
    with pytest.raises(HomeDamaged, match=r"2-0202020202020202\.files\.parquet"):
        store.parts(SET, {2: digest(2)})


def test_storage_that_refuses(tmp_path: Path) -> None:
    """A file in the way of the folder is trouble with the storage; what was in the spool stays there."""
    (tmp_path / "index").write_text("in the way")
    part = part_in(tmp_path / "spool", 1)
    with pytest.raises(StorageFailed, match="index"):
        FileIndexStore(tmp_path / "index").add_part(SET, part)
    assert part.files.exists()


# The absolute path is a folder of the test's own: a store that fails this test really removes what it is given.
@pytest.mark.parametrize("set_id", ["", ".", "..", "../other", "a/b", "ABSOLUTE", "a\0b", "-rf"])
def test_no_set_lies_outside_the_store(tmp_path: Path, set_id: str) -> None:
    """Whatever a tape calls its set: nothing but a folder of the store is ever written or removed."""
    index = tmp_path / "index"
    store = FileIndexStore(index)
    store.add_part(SET, part_in(tmp_path / "spool", 1))
    (tmp_path / "other").mkdir()
    set_id = set_id.replace("ABSOLUTE", str(tmp_path / "other"))
    for call in (
        lambda: store.remove(set_id),
        lambda: store.add_part(set_id, part_in(tmp_path / "spool", 2)),
        lambda: store.announce(set_id, digest(1), b""),
        lambda: store.parts(set_id, {1: digest(1)}),
    ):
        with pytest.raises(InvalidValue):
            call()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index", "other", "spool"]
    assert [path.name for path in index.iterdir()] == [SET]


def test_removing_is_harmless_twice(tmp_path: Path) -> None:
    """A removed set has no files, and other sets keep theirs."""
    store = FileIndexStore(tmp_path / "index")
    for set_id in (SET, "other"):
        store.add_part(set_id, part_in(tmp_path / "spool", 1))
    store.remove(SET)
    store.remove(SET)
    assert not (tmp_path / "index" / SET).exists()
    assert files(tmp_path / "index" / "other") == ["1.files"]


def test_another_history_takes_nobodys_place(tmp_path: Path) -> None:
    """Two INDEXes with one number lie side by side until it is known which one counts; then the other goes."""
    store = FileIndexStore(tmp_path / "index")
    other = {1: digest(1), 2: digest(99)}
    for sequence in (1, 2, 3):
        store.add_part(SET, part_in(tmp_path / "spool", sequence))
    part = replace(part_in(tmp_path / "spool", 2, " of the other"), interval_sha256=digest(99))
    store.add_part(SET, part)
    store.announce(SET, digest(2), b"")
    for history in ({2: digest(2)}, other):
        assert len(store.parts(SET, history)) == len(history)
    store.keep_only(SET, {2: digest(99)})
    assert files(tmp_path / "index" / SET) == ["1.files", "2.files of the other", "3.files"]
    assert store.announced(SET, digest(2)) == b""
    with pytest.raises(HomeDamaged):
        store.parts(SET, {2: digest(2)})
    with pytest.raises(InvalidValue):
        store.parts(SET, {2: "../../elsewhere"})


def test_a_crash_at_any_step_leaves_a_store_that_takes_the_part_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever move was the last one: adding the part from the tape once more makes it whole."""

    class Crash(BaseException):
        """The end of the process."""

    move = store_module._move_durably
    for steps in range(4):
        index = tmp_path / f"index-{steps}"
        moves = iter([move] * steps)

        def crashing(source: Path, target: Path, moves: Iterator[Callable[[Path, Path], None]] = moves) -> None:
            next_move = next(moves, None)
            if next_move is None:
                raise Crash
            next_move(source, target)

        with monkeypatch.context() as patch, pytest.raises(Crash):
            patch.setattr(store_module, "_move_durably", crashing)
            FileIndexStore(index).add_part(SET, part_in(tmp_path / "spool", 1, " first"))
            raise Crash  # behind the last step
        store = FileIndexStore(index)
        store.add_part(SET, part_in(tmp_path / "spool", 1, " again"))
        (part,) = store.parts(SET, {1: digest(1)})
        assert {path.read_text().split()[1] for path in (part.files, part.frames, part.records)} == {"again"}
