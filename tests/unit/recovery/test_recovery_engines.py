"""Restore, verify and rebuild over a catalog and several cartridges."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from pytest import MonkeyPatch
from written_home import WrittenHome
from written_set import Member, MemoryTarget, member

from capstan.core.backup import SetState
from capstan.core.files import FileEntry
from capstan.core.media import CartridgeState
from capstan.errors import (
    CapstanError,
    CartridgeMissing,
    DamageFound,
    HardwareError,
    HomeDamaged,
    JobCancelled,
    NotCapstanTape,
    NotFound,
    SetPartial,
    TargetError,
    VerificationFailed,
)
from capstan.recovery.earlier import EarlierRun
from capstan.recovery.select import RestoreRequest
from capstan.recovery.target import Placement
from capstan.tape.drive import BlockRead
from capstan.testing.memory_drive import MemoryTapeDrive


def tree(count: int, seed: int = 0) -> list[Member]:
    draw = random.Random(seed)
    return [
        member(b"srv/%d/f%03d" % (seed, n), draw.randbytes(draw.choice([0, 100, 40_000, 150_000])))
        for n in range(count)
    ]


def with_home(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run an asynchronous test with a home that has three labelled cartridges."""

    def run(tmp_path: Path, monkeypatch: MonkeyPatch) -> None:
        async def body() -> None:
            home = WrittenHome(tmp_path)
            await home.open()
            for barcode in ("A1L9", "B2L9", "C3L9"):
                await home.label(barcode)
            try:
                await (test(home, monkeypatch) if test.__code__.co_argcount == 2 else test(home))
            finally:
                await home.close()

        asyncio.run(body())

    run.__doc__ = test.__doc__
    return run


async def raised(work: Awaitable[object]) -> CapstanError:
    with pytest.raises(CapstanError) as caught:
        await work
    return caught.value


@with_home
async def test_a_restore_passes_all_phases_in_order(home: WrittenHome) -> None:
    """A set over two cartridges comes back, the phases are told in order, and the result says what was done."""
    set_id = await home.write("docs", tree(30), ["A1L9", "B2L9"])
    result = await home.restore("latest:docs")
    assert home.target.files == home.content(set_id)
    assert result["set_id"] == set_id and result["errors"] == 0 and result["verified_files"] == 30
    assert result["bytes"] == sum(len(data) for data in home.content(set_id).values())
    assert home.manager.mounts == ["A1L9", "B2L9"] and result["locates"] == 2
    phases = list(dict.fromkeys(home.events.phases()))
    assert phases == ["search", "select", "create", "load", "read", "decompress", "verify", "write"]


@with_home
async def test_one_file_mounts_one_cartridge(home: WrittenHome) -> None:
    """A file that lies on one cartridge needs only that one; what is not in the set is said, before and after."""
    members = tree(30)
    set_id = await home.write("docs", members, ["A1L9", "B2L9"])
    path = members[-1][0].path
    result = await home.restore(set_id[:8], b"/" + path)
    assert home.target.files == {path: members[-1][1]} and home.manager.mounts == ["B2L9"]
    assert (result["files"], result["locates"]) == (1, 1)
    assert isinstance(await raised(home.restore(set_id, b"/nothing/here")), NotFound)
    error = await raised(home.restore(set_id, b"/nothing/here", b"/" + path))
    assert isinstance(error, VerificationFailed) and home.target.files == {path: members[-1][1]}
    assert error.result is not None and error.result["problems"][0]["path"] == "/nothing/here"


@with_home
async def test_a_plan_says_what_a_restore_would_do(home: WrittenHome) -> None:
    """Files, bytes, cartridges, what is read and what is missing, without a mount; and the restore reads just that."""
    members = tree(30)
    set_id = await home.write("docs", members, ["A1L9", "B2L9"])
    async with home.catalog.transaction() as catalog:
        await catalog.media.save(replace(await catalog.media.get("B2L9"), place=""))
    plan = await home.restorer().plan(RestoreRequest("latest:docs", home.folder))
    assert (plan["set_id"], plan["files"], plan["cartridges"]) == (set_id, 30, ["A1L9", "B2L9"])
    assert plan["missing"] == ["B2L9"] and home.manager.mounts == []
    result = await home.restore(set_id)
    assert (plan["bytes_to_read"], plan["locates"]) == (result["bytes_read_from_tape"], result["locates"])
    one = await home.restorer().plan(RestoreRequest(set_id, home.folder, paths=(members[0][0].path,)))
    assert (one["files"], one["bytes"], one["locates"]) == (1, len(members[0][1]), 1)


@with_home
async def test_a_missing_cartridge_is_named_and_the_rest_restores(home: WrittenHome) -> None:
    """Without one cartridge the files of the others come back, and the error names it and the lost files."""
    set_id = await home.write("docs", tree(40), ["A1L9", "B2L9", "C3L9"])
    del home.tapes["B2L9"]
    error = await raised(home.restore(set_id))
    assert isinstance(error, CartridgeMissing) and error.result is not None
    lost = {problem["path"][1:].encode() for problem in error.result["problems"]}
    assert lost and error.result["missing_cartridges"] == ["B2L9"]
    expected = {path: data for path, data in home.content(set_id).items() if path not in lost}
    assert home.target.files == expected and len(expected) > 10


@with_home
async def test_a_reused_cartridge_is_not_mistaken_for_the_old_one(home: WrittenHome) -> None:
    """A cartridge that was labelled anew counts as missing for the sets that were on it."""
    set_id = await home.write("docs", tree(20), ["A1L9"])
    await home.label("A1L9")
    assert isinstance(await raised(home.restore(set_id)), CartridgeMissing)
    assert home.target.files == {}


def fail_reads(monkeypatch: MonkeyPatch, failing: set[int]) -> None:
    """The n-th READ of this test fails as if the drive were broken."""
    reads = 0
    read_block = MemoryTapeDrive.read_block

    def read(drive: MemoryTapeDrive, into: memoryview) -> BlockRead:
        nonlocal reads
        reads += 1
        if reads in failing:
            raise HardwareError(device="memory", command="READ", sense="servo")
        return read_block(drive, into)

    monkeypatch.setattr(MemoryTapeDrive, "read_block", read)


@with_home
async def test_a_drive_that_fails_once_costs_nothing(home: WrittenHome, monkeypatch: MonkeyPatch) -> None:
    """When a drive fails altogether, wherever that is, the cartridge is mounted again and the restore is whole."""
    set_id = await home.write("docs", tree(25), ["A1L9", "B2L9"])
    for failing in range(1, 40, 3):
        fail_reads(monkeypatch, {failing})
        result = await home.restore(set_id)
        monkeypatch.undo()
        assert home.target.files == home.content(set_id) and result["errors"] == 0


@with_home
async def test_a_drive_that_fails_for_good_costs_only_what_it_had_to_read(
    home: WrittenHome, monkeypatch: MonkeyPatch
) -> None:
    """What was read before is restored, the rest of that cartridge is named as lost, the other cartridges are read."""
    set_id = await home.write("docs", tree(40), ["A1L9", "B2L9"], codec="none")
    fail_reads(monkeypatch, {12, 13})
    error = await raised(home.restore(set_id))
    assert error.result is not None and error.exit_code != 0
    lost = {problem["path"][1:].encode() for problem in error.result["problems"]}
    assert home.target.files == {path: data for path, data in home.content(set_id).items() if path not in lost}
    assert lost and len(lost) < 25 and error.result["missing_cartridges"] == ["A1L9"]
    assert home.manager.mounts == ["A1L9", "A1L9", "B2L9"]


@with_home
async def test_a_cancel_ends_the_restore(home: WrittenHome) -> None:
    """A cancel in the middle raises JobCancelled, leaves whole files only, and no thread behind."""
    set_id = await home.write("docs", tree(40), ["A1L9", "B2L9"])
    before = threading.active_count()
    home.manager.on_mount = lambda: home.running.cancel() if len(home.manager.mounts) == 2 else None
    assert isinstance(await raised(home.restore(set_id)), JobCancelled)
    assert home.target.files.items() <= home.content(set_id).items() and not home.target.open
    home.running.cancelled.clear()
    assert threading.active_count() <= before + 2  # those of the loop's own pool


@with_home
async def test_a_target_that_breaks_ends_the_restore(home: WrittenHome, monkeypatch: MonkeyPatch) -> None:
    """An error of the target that is no trouble with one entry ends the restore with that error, and nothing hangs."""
    set_id = await home.write("docs", tree(40), ["A1L9", "B2L9"])

    def broken(target: MemoryTarget, entry: FileEntry, data: memoryview) -> Placement:
        raise MemoryError("no more")

    monkeypatch.setattr(MemoryTarget, "whole_file", broken)
    with pytest.raises(MemoryError):
        await home.restore(set_id)


@with_home
async def test_verify_finds_nothing_on_sound_tapes(home: WrittenHome) -> None:
    """Sound sets and cartridges verify, whatever spans from one to the next; the cartridge's row keeps the outcome."""
    first = await home.write("docs", tree(20, 1), ["A1L9", "B2L9"], codec="lz4")
    await home.write("docs", tree(20, 2), ["B2L9"])
    assert (await home.verifier().run_set(first, home.context()))["verified_files"] == 20
    result = await home.verifier().run_cartridge("B2L9", home.context())
    assert [item["set_id"] for item in result["sets"]] == list(home.sets)
    assert result["sets"][1]["verified_files"] == 20
    other = await home.verifier().run_cartridge("A1L9", home.context())
    split = result["sets"][0]["verified_files"] + other["sets"][0]["verified_files"]
    assert 18 <= split <= 20 and other["errors"] == 0
    async with home.catalog.snapshot() as catalog:
        row = await catalog.media.get("B2L9")
    assert row.verify_result == "good" and row.verified_at is not None


@with_home
async def test_verify_names_any_damaged_block(home: WrittenHome) -> None:
    """A flipped bit in any record of a cartridge, headers and INDEXes included, is found and named by its block."""
    set_id = await home.write("docs", tree(8), ["A1L9"])
    await home.write("docs", tree(3, 1), ["A1L9"])
    whole = list(home.tapes["A1L9"].blocks)
    for at, record in enumerate(whole):
        if record is None:
            continue
        flipped = bytearray(record)
        flipped[len(record) // 2 if len(record) > 4096 else 30] ^= 4
        home.tapes["A1L9"].blocks = [*whole[:at], bytes(flipped), *whole[at + 1 :]]
        error = await raised(home.verifier().run_cartridge("A1L9", home.context()))
        assert error.exit_code != 0 and error.result is not None
        blocks = {trouble["block"] for trouble in error.result["damage"]}
        begins = {index for index, block in enumerate(whole) if index == 0 or whole[index - 1] is None}
        file_begin = max(begin for begin in begins if begin <= at)
        assert at in blocks or file_begin in blocks or (file_begin == 0 and blocks <= {0, 1})
    home.tapes["A1L9"].blocks = whole
    await home.verifier().run_cartridge("A1L9", home.context())
    await home.verifier().run_set(set_id, home.context())


@with_home
async def test_damage_is_named_by_block_and_file(home: WrittenHome) -> None:
    """Verify and restore name the cartridge, the block and exactly the files of a damaged record; others restore."""
    members = [member(b"a", bytes(5)), member(b"b", random.Random(1).randbytes(90_000)), member(b"c", b"c")]
    set_id = await home.write("docs", members, ["A1L9"], codec="none")
    tape = home.tapes["A1L9"]
    bad = next(n for n, block in enumerate(tape.blocks) if block and members[1][1][:100] in block) + 1
    tape.unreadable.add(bad)
    for work in (home.restore(set_id), home.verifier().run_set(set_id, home.context())):
        error = await raised(work)
        assert isinstance(error, VerificationFailed) and error.result is not None
        assert {(item["cartridge"], item["block"]) for item in error.result["damage"]} == {("A1L9", bad)}
        assert {item["path"][1:] for item in error.result["problems"]} == {"b", "c"} or {
            item["path"][1:] for item in error.result["problems"]
        } == {"a", "b", "c"}
    async with home.catalog.snapshot() as catalog:
        assert (await catalog.media.get("A1L9")).verify_result.startswith(f"damaged: block {bad}")


async def snapshot(home: WrittenHome) -> dict[str, tuple[object, ...]]:
    """What the catalog knows of sets, as far as it is on tape."""
    async with home.catalog.snapshot() as catalog:
        sets = await catalog.backups.list()
        facts = {}
        for item in sets:
            commits = await catalog.backups.list_commits(set_id=item.id)
            facts[item.id] = (
                item.number,
                item.name,
                item.state,
                item.files,
                item.bytes,
                item.stored_bytes,
                tuple(item.cartridges),
                tuple(item.missing),
                tuple(commits),
            )
    return facts


@with_home
async def test_a_rebuild_brings_everything_back(home: WrittenHome) -> None:
    """With catalog and indexes gone, a rebuild gives the same sets, commit points and cartridges, and all restores."""
    await home.write("docs", tree(20, 1), ["A1L9", "B2L9"])
    await home.write("docs", tree(10, 2), ["B2L9"])
    await home.write("broken-off", tree(10, 3), ["C3L9"], finish=False)
    before = await snapshot(home)
    async with home.catalog.snapshot() as catalog:
        ends = [(c.barcode, c.uuid, c.end_block, c.tape_files, c.index_block, c.index_sha256, c.written_bytes)
                for c in await catalog.media.list()]  # fmt: skip
    await home.close()
    await home.open()
    result = await home.rebuild()
    assert await snapshot(home) == before
    assert (result["sets"], result["complete"], result["incomplete"]) == (3, 2, 1)
    async with home.catalog.snapshot() as catalog:
        assert ends == [(c.barcode, c.uuid, c.end_block, c.tape_files, c.index_block, c.index_sha256, c.written_bytes)
                        for c in await catalog.media.list()]  # fmt: skip
        assert [c.state for c in await catalog.media.list()] == [CartridgeState.AVAILABLE] * 3
        assert [pool.name for pool in await catalog.media.list_pools()] == ["default"]
    for set_id in list(home.sets)[:2]:
        await home.restore(set_id)
        assert home.target.files == home.content(set_id)
    assert await home.rebuild() == {**result, "seconds": 0.0}
    assert await snapshot(home) == before


@with_home
async def test_a_rebuild_without_a_cartridge_leaves_partial_sets(home: WrittenHome) -> None:
    """A set that lacks a cartridge, or whose cartridge was labelled anew, is PARTIAL and names it; what remains
    restores."""
    set_id = await home.write("docs", tree(30), ["A1L9", "B2L9", "C3L9"])
    await home.label("B2L9")
    await home.close()
    await home.open()
    await home.rebuild()
    async with home.catalog.snapshot() as catalog:
        found = await catalog.backups.get(set_id)
    assert (found.state, found.missing) == (SetState.PARTIAL, ["B2L9"])
    error = await raised(home.restore(set_id))
    assert error.result is not None and error.result["errors"] > 0
    assert len(home.target.files) >= 15
    assert all(home.content(set_id)[path] == data for path, data in home.target.files.items())


@with_home
async def test_what_may_not_have_reached_the_disk_is_not_trusted(home: WrittenHome) -> None:
    """When the last sync fails, the restore that goes on takes nothing that is there for whole."""
    set_id = await home.write("docs", tree(5), ["A1L9"])
    earlier: list[EarlierRun | None] = []

    class Target(MemoryTarget):
        def restored(self, entry: FileEntry) -> bool:
            return False

        def finish(self, *, whole: bool = True) -> None:
            if earlier == [None]:
                raise TargetError(path="/out", reason="what was written did not reach the disk")

    def open_target(request: RestoreRequest, tell: object, **more: object) -> Target:
        found = more["earlier"]
        assert found is None or isinstance(found, EarlierRun)
        earlier.append(found)
        return Target()

    engine = home.restorer()
    engine._open_target = open_target  # type: ignore[assignment]
    request = RestoreRequest(set_id, home.folder / "out")
    context = home.context()
    context.job.started_at = home.clock.now()
    assert isinstance(await raised(engine.run(request, context)), TargetError)
    await engine.resume(request, context)
    assert [run and run.trusted for run in earlier] == [None, False]


@with_home
async def test_a_partial_set_never_ends_as_sound(home: WrittenHome) -> None:
    """Nobody knows what the part that is gone said, so even where all that is known comes back, or verifies, the end is
    an error that names the cartridge."""
    members = tree(30)
    set_id = await home.write("docs", members, ["A1L9", "B2L9", "C3L9"])
    await home.label("B2L9")
    await home.close()
    await home.open()
    await home.rebuild()
    path, content, _ = members[-1][0].path, *members[-1][1:]
    for work in (home.restore(set_id, path), home.restore(set_id)):
        error = await raised(work)
        assert isinstance(error, SetPartial) and error.exit_code == 6 and "B2L9" in str(error)
        assert error.result is not None and error.result["warning_codes"]["partial-set"] == 1
        assert home.target.files[path] == content
    async with home.catalog.transaction() as catalog:
        found = await catalog.backups.get(set_id)
        await catalog.backups.save(replace(found, missing=[]))
    error = await raised(home.verifier().run_set(set_id, home.context()))
    assert isinstance(error, SetPartial) and "commit points" in str(error)


@with_home
async def test_a_set_that_ended_early_says_how_far_it_reaches(home: WrittenHome) -> None:
    """A restore of it, or a part of it, and a verification end well, with a warning of the last path it has whole."""
    members = tree(30)
    set_id = await home.write("docs", members, ["A1L9"], finish=False)
    last = "/" + members[-1][0].path.decode()
    for work in (home.restore(set_id), home.restore(set_id, members[0][0].path)):
        assert (await work)["warning_codes"] == {"incomplete-set": 1}
        await home.running.conclude({})
        told = [data for kind, data in home.events.told if kind == "job.warning"]
        assert [(data["code"], data["path"]) for data in told] == [("incomplete-set", last)]
    assert (await home.verifier().run_set(set_id, home.context()))["warning_codes"] == {"incomplete-set": 1}
    plan = await home.restorer().plan(RestoreRequest(set_id, home.folder))
    assert last in plan["shortfall"]


@with_home
async def test_a_rebuild_forgets_what_is_no_longer_there(home: WrittenHome) -> None:
    """A catalog that knows more than the tapes hold loses what is gone: whole sets, or a part of one."""
    gone = await home.write("docs", tree(10, 1), ["A1L9"])
    part = await home.write("docs", tree(30, 2), ["A1L9", "B2L9"])
    kept = await home.write("docs", tree(10, 3), ["C3L9"])
    home.tapes["A1L9"].blocks.clear()
    await home.label("A1L9")
    result = await home.rebuild()
    found = await snapshot(home)
    assert set(found) == {part, kept} and gone not in found
    assert (result["partial"], result["complete"]) == (1, 1)
    assert found[part][7] == ("A1L9",)
    assert not (home.folder / "index-1" / gone).exists()


@with_home
async def test_a_rebuild_goes_on_behind_bad_cartridges(home: WrittenHome) -> None:
    """Foreign, blank and unreadable cartridges become what they are, with a warning, and the rest is rebuilt. Blank
    ones of a real library are not taken for free."""
    set_id = await home.write("docs", tree(10), ["C3L9"])
    home.tapes["A1L9"].blocks = [b"VOL1" + bytes(76), None]
    home.tapes["B2L9"].unreadable.add(0)
    home.tapes.update(D4L9=type(home.tapes["A1L9"])())
    await home.close()
    await home.open()
    for virtual, blank in ((False, CartridgeState.UNKNOWN), (True, CartridgeState.SCRATCH)):
        result = await home.rebuild(virtual=virtual)
        assert (result["foreign"], result["suspect"], result["sets"]) == (["A1L9"], ["B2L9"], 1)
        async with home.catalog.snapshot() as catalog:
            states = {row.barcode: row.state for row in await catalog.media.list()}
        assert states == {
            "A1L9": CartridgeState.FOREIGN,
            "B2L9": CartridgeState.SUSPECT,
            "C3L9": CartridgeState.AVAILABLE,
            "D4L9": blank,
        }
    await home.restore(set_id)
    assert home.target.files == home.content(set_id)


@with_home
async def test_a_damaged_index_does_not_lose_what_the_catalog_kept(home: WrittenHome) -> None:
    """Where an INDEX can no longer be read, the catalog's copy of it stays, and the cartridge is not written to."""
    first = await home.write("docs", tree(10, 1), ["A1L9"])
    second = await home.write("docs", tree(10, 2), ["A1L9"])
    home.tapes["A1L9"].unreadable.add(home.ends["A1L9"].index_block + 1)
    before = await snapshot(home)
    await home.rebuild()
    assert await snapshot(home) == before
    async with home.catalog.snapshot() as catalog:
        assert (await catalog.media.get("A1L9")).state is CartridgeState.SUSPECT
    for set_id in (first, second):
        await home.restore(set_id)
        assert home.target.files == home.content(set_id)


@with_home
async def test_damage_that_spoils_no_file_is_still_an_error(home: WrittenHome) -> None:
    """Every file comes back, and the damaged place is named, with an exit code that is not 0."""
    set_id = await home.write("docs", tree(10), ["A1L9"])
    async with home.catalog.snapshot() as catalog:
        block = (await catalog.backups.list_segments(set_id))[0].block
    home.tapes["A1L9"].unreadable.add(block)
    error = await raised(home.restore(set_id))
    assert isinstance(error, DamageFound) and error.exit_code == 6 and f"block {block}" in str(error)
    assert home.target.files == home.content(set_id)


@with_home
async def test_verify_refuses_what_is_not_ours(home: WrittenHome) -> None:
    """A blank cartridge is not called damaged; one of ours whose label is gone is."""
    home.tapes["Z9L9"] = type(home.tapes["A1L9"])()
    await home.manager.inventory()
    assert isinstance(await raised(home.verifier().run_cartridge("Z9L9", home.context())), NotCapstanTape)
    home.tapes["A1L9"].blocks.clear()
    error = await raised(home.verifier().run_cartridge("A1L9", home.context()))
    assert isinstance(error, VerificationFailed)


@with_home
async def test_a_broken_table_in_the_home_is_named(home: WrittenHome) -> None:
    """A file index that was damaged beside the catalog ends the restore with its name and the way out: a rebuild."""
    set_id = await home.write("docs", tree(5), ["A1L9"])
    [path] = (home.folder / "index-1" / set_id).glob("*.files.parquet")
    path.write_bytes(path.read_bytes()[:50])
    error = await raised(home.restore(set_id))
    assert isinstance(error, HomeDamaged) and str(path) in str(error) and "rebuild" in error.hint_text
    await home.rebuild()
    await home.restore(set_id)
    assert home.target.files == home.content(set_id)
