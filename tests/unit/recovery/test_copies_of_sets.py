"""Copies over a catalog and cartridges in memory: what is read from where, and what a copy costs nobody."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pytest import MonkeyPatch
from test_recovery_engines import raised, tree, with_home
from test_sealed_sets import ESCROW, MINE, RECIPIENTS
from written_home import WrittenHome

from capstan.catalog.copies import copies_of
from capstan.core.backup import BackupSet, SetState
from capstan.core.media import Cartridge, CartridgeState, Pool
from capstan.errors import (
    CartridgeMissing,
    CopyIncomplete,
    EscrowUnproven,
    HardwareError,
    IdentityNeeded,
    InvalidValue,
    Refused,
    StorageFailed,
    VerificationFailed,
)
from capstan.format.append import examine_tail
from capstan.media.adoption import Adoption
from capstan.media.operations import TapeOperations
from capstan.recovery import copy_source
from capstan.tape.drive import BlockRead
from capstan.testing.memory_drive import MemoryTapeDrive


async def labelled(home: WrittenHome, *barcodes: str, record_bytes: int = 131_072, pool: str = "vault") -> None:
    """Cartridges for copies, with records of another size than the originals'."""
    for barcode in barcodes:
        await home.label(barcode, pool, record_bytes)


async def the_set(home: WrittenHome, set_id: str) -> BackupSet:
    async with home.catalog.snapshot() as catalog:
        return await catalog.backups.get(set_id)


async def the_cartridge(home: WrittenHome, barcode: str) -> Cartridge:
    async with home.catalog.snapshot() as catalog:
        return await catalog.media.get(barcode)


async def change(home: WrittenHome, barcode: str, **facts: Any) -> None:
    async with home.catalog.transaction() as catalog:
        await catalog.media.save(replace(await catalog.media.get(barcode), **facts))


async def payload_blocks(home: WrittenHome, set_id: str, copy: int, number: int) -> list[int]:
    """Where the payload records of a segment lie in one copy."""
    async with home.catalog.snapshot() as catalog:
        commits = [*await catalog.backups.list_commits(set_id=set_id), *await catalog.backups.list_copies(set_id)]
    (segment,) = [s for c in commits if c.copy == copy for s in c.segments if s.number == number]
    return list(range(segment.block + 1, segment.block + 1 + segment.records))


async def erase(home: WrittenHome, barcode: str) -> dict[str, list[str]]:
    """What the catalog does when a cartridge is erased."""
    operations = TapeOperations(catalog=home.catalog, manager=home.manager)  # type: ignore[arg-type]
    return await operations._forget(await the_cartridge(home, barcode))


def copies_read(result: dict[str, Any]) -> list[tuple[int, str, list[int]]]:
    return [(item["copy"], item["cartridge"], item["segments"]) for item in result["copies_used"]]


@pytest.mark.parametrize("drives", [1, 2])
def test_a_copy_needs_no_key_and_no_second_drive(drives: int, tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """A sealed set is copied without any identity, with records of another size, and restores from the copy alone; its
    original is not touched."""

    @with_home
    async def body(home: WrittenHome) -> None:
        await labelled(home, "V1L9")
        set_id = await home.write("docs", tree(30), ["A1L9", "B2L9"], recipients=RECIPIENTS)
        tapes = {barcode: list(home.tapes[barcode].blocks) for barcode in ("A1L9", "B2L9")}
        home.manager.drives = drives
        spool = sorted(home.spool.iterdir())
        result = await home.copy(set_id)
        assert result["whole"] and {barcode: home.tapes[barcode].blocks for barcode in tapes} == tapes
        assert sorted(home.spool.iterdir()) == spool
        on_tape = b"".join(record for record in home.tapes["V1L9"].blocks if record)
        begin = on_tape.index(b"kind: segment")  # behind the label, which is nobody's secret
        assert all(text not in on_tape[begin:] for text in (b"srv/0/", b"/f001", b"files.parquet"))
        for barcode in ("A1L9", "B2L9"):
            await erase(home, barcode)
            del home.tapes[barcode]
        assert (await the_set(home, set_id)).state is SetState.COMPLETE
        result = await home.restore(set_id, identities=[MINE])
        assert home.target.files == home.content(set_id)
        assert [item[:2] for item in copies_read(result)] == [(1, "V1L9")]
        for identities in ([], [ESCROW]):
            await home.close()
            await home.open()
            result = await home.rebuild(identities=identities)
            assert (result["locked"], result["complete"]) == ((0, 1) if identities else (1, 0))
        await home.restore(set_id, identities=[ESCROW])
        assert home.target.files == home.content(set_id)
        result = await home.rebuild()  # without the key, which must not make it forget
        assert (result["locked"], result["complete"]) == (0, 1)

    body(tmp_path, monkeypatch)


@with_home
async def test_a_rebuild_from_a_copy_gives_the_same_set(home: WrittenHome) -> None:
    """All that is known of the set is the same as when it was written, but for where it lies; also its times."""
    await labelled(home, "V1L9", "V2L9")
    set_id = await home.write("docs", tree(30), ["A1L9", "B2L9"])
    before = await the_set(home, set_id)
    await home.copy(set_id)
    both = dict(home.tapes)
    for barcode in ("A1L9", "B2L9"):
        del home.tapes[barcode]
    await home.close()
    await home.open()
    await home.rebuild()
    assert replace(await the_set(home, set_id), cartridges=before.cartridges) == before
    home.tapes.update(both)
    await home.rebuild()
    assert await the_set(home, set_id) == before
    async with home.catalog.snapshot() as catalog:
        assert [(copy.copy, copy.whole) for copy in await copies_of(catalog, before)] == [(0, True), (1, True)]


@with_home
async def test_the_best_copy_is_read(home: WrittenHome) -> None:
    """The original, while it is there and nothing is wrong with it; else what is in the library; suspect ones last."""
    await labelled(home, "V1L9")
    set_id = await home.write("docs", tree(10), ["A1L9"])
    await home.copy(set_id)
    for facts, expected in (
        ({}, "A1L9"),
        ({"place": ""}, "V1L9"),
        ({"place": "slot:1", "state": CartridgeState.SUSPECT}, "V1L9"),
        ({"state": CartridgeState.AVAILABLE, "verify_result": "damaged: block 7"}, "V1L9"),
        ({"verify_result": "good"}, "A1L9"),
    ):
        await change(home, "A1L9", **facts)
        for work in (home.restore(set_id), home.verifier().run_set(set_id, home.context())):
            mounts = len(home.manager.mounts)
            await work
            assert home.manager.mounts[mounts:] == [expected], facts
    await change(home, "A1L9", place="")
    await change(home, "V1L9", state=CartridgeState.SUSPECT)
    await home.restore(set_id)
    assert home.manager.mounts[-1] == "V1L9"


@with_home
async def test_a_bad_record_in_the_middle(home: WrittenHome) -> None:
    """The restore goes on with the copy from that frame, reads nothing twice, and marks the cartridge and says why."""
    await labelled(home, "V1L9")
    set_id = await home.write("docs", tree(30), ["A1L9"])
    await home.copy(set_id)
    bad = (await payload_blocks(home, set_id, 0, 2))[1]
    home.tapes["A1L9"].unreadable.add(bad)
    mounts = len(home.manager.mounts)
    result = await home.restore(set_id)
    assert home.target.files == home.content(set_id) and home.manager.mounts[mounts:] == ["A1L9", "V1L9"]
    ((copy, barcode, segments),) = copies_read(result)
    assert (copy, barcode, segments[0]) == (1, "V1L9", 2) and (result["errors"], result["damage"]) == (0, [])
    row = await the_cartridge(home, "A1L9")
    assert row.state is CartridgeState.SUSPECT and f"block {bad}" in row.reason
    said = [data["detail"] for kind, data in home.events.told if kind == "job.warning" and data["code"] == "other-copy"]
    assert len(said) == 1 and f"A1L9, block {bad}" in said[0] and "V1L9" in said[0]


@with_home
async def test_a_bad_header_is_not_trusted(home: WrittenHome) -> None:
    """Where the header record of a segment is another's, the copy is read, and nothing is lost."""
    await labelled(home, "V1L9")
    set_id = await home.write("docs", tree(30), ["A1L9"])
    await home.copy(set_id)
    block = (await payload_blocks(home, set_id, 0, 1))[0] - 1
    home.tapes["A1L9"].blocks[block] = home.tapes["A1L9"].blocks[(await payload_blocks(home, set_id, 0, 2))[0] - 1]
    result = await home.restore(set_id)
    assert home.target.files == home.content(set_id) and copies_read(result)[0][2][0] == 1


@with_home
async def test_scattered_damage_in_both(home: WrittenHome) -> None:
    """Two copies that are bad in different records of the same segments are one that is whole."""
    await labelled(home, "V1L9", record_bytes=65_536)
    set_id = await home.write("docs", tree(40), ["A1L9"], codec="none")
    await home.copy(set_id)
    for number in range(0, 6, 2):
        home.tapes["A1L9"].unreadable.add((await payload_blocks(home, set_id, 0, number))[1])
        home.tapes["V1L9"].unreadable.add((await payload_blocks(home, set_id, 1, number))[-1])
    result = await home.restore(set_id)
    assert home.target.files == home.content(set_id) and result["damage"] == []


@with_home
async def test_what_neither_has_is_lost_and_nothing_else(home: WrittenHome) -> None:
    """A segment destroyed in one copy and bad in one record in the other: only what lies in that record is lost."""
    await labelled(home, "V1L9", record_bytes=65_536)
    members = tree(30)
    set_id = await home.write("docs", members, ["A1L9"], codec="none")
    await home.copy(set_id)
    home.tapes["V1L9"].unreadable.add((await payload_blocks(home, set_id, 1, 1))[2])
    alone = WrittenHome.content(home, set_id)
    home.tapes["A1L9"].unreadable.update(await payload_blocks(home, set_id, 0, 1))
    error = await raised(home.restore(set_id))
    assert isinstance(error, VerificationFailed) and error.result is not None
    lost = {item["path"].encode()[1:] for item in error.result["problems"]}
    assert 0 < len(lost) <= 6 and home.target.files == {p: d for p, d in alone.items() if p not in lost}


@with_home
async def test_a_cartridge_that_is_not_there(home: WrittenHome) -> None:
    """One that has gone since the catalog saw it is no loss, and not suspect; without a copy of its segments, it is
    named as missing, and the other cartridges restore."""
    await labelled(home, "V1L9")
    set_id = await home.write("docs", tree(30), ["A1L9", "B2L9"])
    await home.copy(set_id)
    b2 = home.tapes.pop("B2L9")
    result = await home.restore(set_id)
    assert home.target.files == home.content(set_id) and result["missing_cartridges"] == []
    assert (await the_cartridge(home, "B2L9")).state is CartridgeState.AVAILABLE
    v1 = home.tapes.pop("V1L9")
    error = await raised(home.restore(set_id))
    assert isinstance(error, CartridgeMissing) and len(home.target.files) > 10
    home.tapes |= {"V1L9": v1, "B2L9": b2}
    await home.restore(set_id)
    assert home.target.files == home.content(set_id)


@with_home
async def test_a_drive_that_fails_twice(home: WrittenHome, monkeypatch: MonkeyPatch) -> None:
    """What cannot be read in two mounts comes from the copy; that says nothing about the cartridge."""
    await labelled(home, "V1L9")
    set_id = await home.write("docs", tree(30), ["A1L9"])
    await home.copy(set_id)
    read = MemoryTapeDrive.read_block

    def failing(self: MemoryTapeDrive, into: memoryview) -> BlockRead:
        if self.tape is home.tapes["A1L9"] and self.position().block > 12:
            raise HardwareError(device="memory:", command="READ", sense="4/44/00")
        return read(self, into)

    monkeypatch.setattr(MemoryTapeDrive, "read_block", failing)
    mounts = len(home.manager.mounts)
    await home.restore(set_id)
    assert home.target.files == home.content(set_id)
    assert home.manager.mounts[mounts:] == ["A1L9", "A1L9", "V1L9"]
    assert (await the_cartridge(home, "A1L9")).state is not CartridgeState.SUSPECT


@with_home
async def test_the_copy_of_a_suspect_cartridge_is_made_again(home: WrittenHome) -> None:
    """Segments on a suspect cartridge do not count: the copy gets them once more, on another one, from what is best."""
    await labelled(home, "V1L9", "V2L9")
    set_id = await home.write("docs", tree(30), ["A1L9"])
    assert [item["barcode"] for item in (await home.copy(set_id))["cartridges"]] == ["V1L9"]
    await change(home, "V1L9", state=CartridgeState.SUSPECT)
    async with home.catalog.snapshot() as catalog:
        facts = await copies_of(catalog, await catalog.backups.get(set_id))
    assert [(copy.copy, copy.whole) for copy in facts] == [(0, True), (1, False)]
    result = await home.copy(set_id)
    assert (result["copy"], result["whole"]) == (1, True) and result["segments_copied"] > 3
    await erase(home, "A1L9")
    await home.restore(set_id)
    assert home.target.files == home.content(set_id) and home.manager.mounts[-1] == "V2L9"


@with_home
async def test_a_copy_reads_from_copies(home: WrittenHome) -> None:
    """With a bad original the next copy is made of the first one, segment by segment; only what is bad in both is
    passed over, named, and done later when it can be."""
    await labelled(home, "V1L9")
    await labelled(home, "W1L9", pool="second")
    set_id = await home.write("docs", tree(60), ["A1L9"])
    await home.copy(set_id)
    home.tapes["A1L9"].unreadable.update(await payload_blocks(home, set_id, 0, 1))
    home.tapes["V1L9"].unreadable.update(await payload_blocks(home, set_id, 1, 3))
    home.tapes["A1L9"].unreadable.update(await payload_blocks(home, set_id, 0, 4))
    home.tapes["V1L9"].unreadable.update(await payload_blocks(home, set_id, 1, 4))
    error = await raised(home.copy(set_id, "second"))
    assert isinstance(error, CopyIncomplete) and error.result is not None
    assert (error.parameters["count"], error.result["whole"], error.result["copy"]) == (1, False, 2)
    home.tapes["A1L9"].unreadable.clear()
    result = await home.copy(set_id, "second")
    assert (result["whole"], result["segments_copied"]) == (True, 1)
    result = await home.verifier().run_cartridge("W1L9", home.context())
    assert result["errors"] == 0
    await erase(home, "A1L9")
    await erase(home, "V1L9")
    await home.restore(set_id)
    assert home.target.files == home.content(set_id)


@with_home
async def test_erasing_says_what_is_lost(home: WrittenHome) -> None:
    """A cartridge whose segments are elsewhere too costs nothing; the last one makes the set partial, or forgotten."""
    await labelled(home, "V1L9")
    set_id = await home.write("docs", tree(30), ["A1L9", "B2L9"])
    await home.copy(set_id)
    for barcode in ("B2L9", "A1L9"):
        assert await erase(home, barcode) == {"partial_sets": [], "forgotten_sets": [], "broken_sets": []}
        assert ((await the_set(home, set_id)).state, (await the_set(home, set_id)).missing) == (SetState.COMPLETE, [])
        await home.restore(set_id)
        assert home.target.files == home.content(set_id)
    assert (await erase(home, "V1L9"))["forgotten_sets"] == [set_id]
    set_id = await home.write("docs", tree(30), ["A1L9", "B2L9"])
    await home.label("V1L9", "vault")
    await home.copy(set_id)
    await erase(home, "B2L9")
    assert (await erase(home, "V1L9"))["partial_sets"] == [set_id]
    assert (await the_set(home, set_id)).missing == ["V1L9"]


@with_home
async def test_who_must_not_be_copied_to_or_from(home: WrittenHome) -> None:
    """A locked set, a partial one, no pool, and a pool whose escrow is not proven are refused before a tape moves."""
    await labelled(home, "V1L9")
    sealed = await home.write("docs", tree(5), ["A1L9"], recipients=RECIPIENTS)
    partial = await home.write("docs", tree(20), ["A1L9", "B2L9"])
    home.manager.mounts.clear()
    error = await raised(home.copy(partial, ""))
    assert isinstance(error, InvalidValue) and "--pool" in str(error)
    async with home.catalog.transaction() as catalog:
        await catalog.media.save_pool(Pool("vault", home.clock.now(), require_escrow=True))
    keys = (await the_set(home, sealed)).keys
    engine = home.copier(lambda: {keys[0]})
    assert isinstance(await raised(home.copy(sealed)), EscrowUnproven)
    assert isinstance(await raised(engine.run(partial, home.context(), library="lib", pool="vault")), EscrowUnproven)
    assert home.manager.mounts == []
    assert (await engine.run(sealed, home.context(), library="lib", pool="vault"))["whole"]
    await erase(home, "B2L9")
    assert isinstance(await raised(home.copy(partial)), Refused)
    await home.close()
    await home.open()
    await home.rebuild()
    assert isinstance(await raised(home.copy(sealed)), IdentityNeeded)


@with_home
async def test_a_set_that_ended_early_is_not_copied(home: WrittenHome) -> None:
    """Whoever goes on with it would write other commit points under the numbers that the copy has: whole sets only."""
    await labelled(home, "V1L9")
    set_id = await home.write("docs", tree(20), ["A1L9"], finish=False)
    error = await raised(home.copy(set_id))
    assert isinstance(error, Refused) and "job resume" in error.hint_text


@with_home
async def test_a_copy_that_a_killed_process_wrote_is_taken_in(home: WrittenHome, monkeypatch: MonkeyPatch) -> None:
    """A sealed INDEX of a copy that was never entered is taken in by the next append, without any identity; then
    nothing is lacking."""
    await labelled(home, "V1L9")
    set_id = await home.write("docs", tree(10), ["A1L9"], recipients=RECIPIENTS)

    async def killed(written: object) -> None:
        raise KeyboardInterrupt

    before = await the_cartridge(home, "V1L9")
    monkeypatch.setattr(home.ledger, "enter_copy", killed)
    with pytest.raises(KeyboardInterrupt):
        await home.copy(set_id)
    monkeypatch.undo()
    (home.folder / "file").touch()
    adoption, none = (
        Adoption(catalog=home.catalog, ledger=home.ledger, store=home.store, spool=spool)
        for spool in (home.spool, home.folder / "file")
    )
    async with home.manager.mount("lib", barcode="V1L9", context=home.context()) as mounted:
        tail = await mounted.lane.run(examine_tail, before)
        with pytest.raises(StorageFailed):
            await none.take_in(mounted, tail.ahead)  # type: ignore[arg-type]
        assert await adoption.take_in(mounted, tail.ahead) == frozenset()  # type: ignore[arg-type]
    result = await home.copy(set_id)
    assert (result["whole"], result["segments_copied"]) == (True, 0)
    await erase(home, "A1L9")
    await home.restore(set_id, identities=[MINE])
    assert home.target.files == home.content(set_id)


@with_home
async def test_no_room_in_the_spool(home: WrittenHome, monkeypatch: MonkeyPatch) -> None:
    """With one drive and no room for one segment nothing is mounted for writing, and the error says why; with room for
    few, they go in several turns."""
    await labelled(home, "V1L9")
    set_id = await home.write("docs", tree(60), ["A1L9"], codec="none")
    home.manager.drives = 1
    usage = copy_source.shutil.disk_usage(home.spool)
    monkeypatch.setattr(copy_source.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    error = await raised(home.copy(set_id))
    assert isinstance(error, StorageFailed) and "no second drive" in str(error)

    def small(folder: Path) -> Any:
        return usage._replace(free=700_000 - sum(path.stat().st_size for path in folder.iterdir()))

    monkeypatch.setattr(copy_source.shutil, "disk_usage", small)
    mounts = len(home.manager.mounts)
    result = await home.copy(set_id)
    assert result["whole"] and home.manager.mounts[mounts:].count("V1L9") > 3
    assert (await home.verifier().run_cartridge("V1L9", home.context()))["errors"] == 0
    await erase(home, "A1L9")
    await home.restore(set_id)
    assert home.target.files == home.content(set_id)


@with_home
async def test_the_spool_cannot_be_made(home: WrittenHome) -> None:
    """The disk's refusal is told as one; with the disk mended the same command copies."""
    await labelled(home, "V1L9")
    set_id = await home.write("docs", tree(5), ["A1L9"])
    home.spool.rename(home.folder / "away")
    home.spool.touch()
    assert isinstance(await raised(home.copy(set_id)), StorageFailed)
    home.spool.unlink()
    assert (await home.copy(set_id))["whole"]
