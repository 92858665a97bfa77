"""What every catalog must do. Bind it by giving a `catalog` fixture, and `second` for another process's view of it."""

from __future__ import annotations

import asyncio
import dataclasses
from datetime import UTC, datetime, timedelta

import pytest

from capstan.catalog.catalog import Catalog
from capstan.core.backup import BackupSet, Commit, Segment, SetState, SetType
from capstan.core.health import Drive, DriveState, Load
from capstan.core.job import Event, Job, JobKind, JobState
from capstan.core.media import Cartridge, CartridgeState, Pool
from capstan.errors import AlreadyExists, Conflict, InvalidValue, NotFound, Refused

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)


def job(job_id: str = "ab12cd34", **changes: object) -> Job:
    """A job that was just created."""
    return dataclasses.replace(
        Job(id=job_id, kind=JobKind.BACKUP, state=JobState.CREATED, created_at=NOW, parameters={"source": ["/a"]}),
        **changes,  # type: ignore[arg-type]
    )


def backup_set(number: int, set_id: str = "", **changes: object) -> BackupSet:
    """A whole set of the series `home`."""
    return dataclasses.replace(
        BackupSet(
            id=set_id or f"{number:08x}-0000-4000-8000-000000000000",
            number=number,
            name="home",
            type=SetType.FULL,
            state=SetState.COMPLETE,
            created_at=NOW + timedelta(hours=number),
            sources=["/srv"],
            cartridges=["CAP001L9"],
        ),
        **changes,  # type: ignore[arg-type]
    )


def commit(of: BackupSet, sequence: int, cartridge: str, block: int, copy: int = 0) -> Commit:
    """A commit point with two segments."""
    pieces = tuple(
        Segment(
            of.id,
            2 * sequence + i,
            cartridge,
            "CAP001L9",
            i + 1,
            block - 20 + i,
            3,
            65536,
            150_000,
            "d" * 64,
            i,
            9,
            copy=copy,
        )
        for i in range(2)
    )
    return Commit(
        of.id, sequence, cartridge, "CAP001L9", 3, block, block + 3, "a" * 64, 99, "b" * 64, False, 1, 2, 3, NOW,
        pieces, copy=copy,
    )  # fmt: skip


class CatalogContract:
    """Promises of `catalog.Catalog`."""

    async def test_a_transaction_is_all_or_nothing(self, catalog: Catalog, second: Catalog) -> None:
        """What a failed transaction wrote is not there; what an ended one wrote is, for every process."""
        with pytest.raises(ZeroDivisionError):
            async with catalog.transaction() as inside:
                await inside.jobs.add(job())
                raise ZeroDivisionError
        async with second.snapshot() as view:
            assert list(await view.jobs.list()) == []
        async with catalog.transaction() as inside:
            await inside.jobs.add(job())
        async with second.snapshot() as view:
            assert await view.jobs.get("ab12cd34") == job()

    async def test_readers_do_not_wait_for_a_writer(self, catalog: Catalog, second: Catalog) -> None:
        """A snapshot taken while another process writes sees the state before."""
        async with catalog.transaction() as inside:
            await inside.jobs.add(job())
            async with second.snapshot() as view:
                assert list(await view.jobs.list()) == []

    async def test_nobody_runs_a_job_twice(self, catalog: Catalog, second: Catalog) -> None:
        """Of two that take the same job only one succeeds; a cancel survives the other's writes."""
        async with catalog.transaction() as inside:
            await inside.jobs.add(job())
        async with second.transaction() as inside:
            await inside.jobs.request_cancel("ab12")
        running = job(state=JobState.RUNNING, started_at=NOW)
        async with catalog.transaction() as inside:
            await inside.jobs.replace(running, was=JobState.CREATED)
        with pytest.raises(Conflict):
            async with second.transaction() as inside:
                await inside.jobs.replace(running, was=JobState.CREATED)
        async with catalog.snapshot() as view:
            assert await view.jobs.cancel_requested("ab12cd34")
            assert (await view.jobs.get("ab12cd34")).started_at == NOW

    async def test_a_job_goes_only_where_it_may(self, catalog: Catalog) -> None:
        """What is done stays done: no process writes another state over it."""
        async with catalog.transaction() as inside:
            await inside.jobs.add(job(state=JobState.DONE))
        with pytest.raises(Conflict):
            async with catalog.transaction() as inside:
                await inside.jobs.replace(job(state=JobState.RUNNING), was=JobState.DONE)

    async def test_an_ended_job_cannot_be_cancelled(self, catalog: Catalog) -> None:
        """The person hears that it has ended, and how."""
        async with catalog.transaction() as inside:
            await inside.jobs.add(job(state=JobState.DONE))
            with pytest.raises(Refused, match="done"):
                await inside.jobs.request_cancel("ab12cd34")

    async def test_a_job_that_runs_again_begins_without_a_cancel(self, catalog: Catalog) -> None:
        """What was asked of its first run does not end its second at once."""
        async with catalog.transaction() as inside:
            await inside.jobs.add(job(state=JobState.RUNNING))
            assert (await inside.jobs.request_cancel("ab12cd34")).cancel_requested
            await inside.jobs.replace(job(state=JobState.CANCELLED), was=JobState.RUNNING)
            assert await inside.jobs.cancel_requested("ab12cd34")
            await inside.jobs.replace(job(state=JobState.RUNNING), was=JobState.CANCELLED)
            assert not await inside.jobs.cancel_requested("ab12cd34")

    async def test_a_transaction_sees_its_own_writes(self, catalog: Catalog) -> None:
        """What was read before is read anew after it was replaced or removed."""
        async with catalog.transaction() as inside:
            await inside.jobs.add(job())
            assert (await inside.jobs.get("ab12cd34")).state is JobState.CREATED
            await inside.jobs.replace(job(state=JobState.RUNNING, phase="scan"), was=JobState.CREATED)
            assert (await inside.jobs.get("ab12cd34")).phase == "scan"
            await inside.backups.add(backup_set(1))
            await inside.backups.add_commit(commit(backup_set(1), 1, "c-1", 30))
            assert len(await inside.backups.list_segments(backup_set(1).id)) == 2
            await inside.backups.save(backup_set(1, state=SetState.PARTIAL, missing=["CAP001L9"]))
            assert (await inside.backups.get(backup_set(1).id)).missing == ["CAP001L9"]
            await inside.backups.remove(backup_set(1).id)
            assert await inside.backups.find(backup_set(1).id) is None
            assert not await inside.backups.list_segments(backup_set(1).id)

    async def test_writers_take_turns(self, catalog: Catalog, second: Catalog) -> None:
        """Two processes that each take a set number ten times never get the same one."""

        async def take(one: Catalog) -> list[int]:
            numbers = []
            for _ in range(10):
                async with one.transaction() as inside:
                    numbers.append(await inside.backups.next_number())
            return numbers

        first, other = await asyncio.gather(take(catalog), take(second))
        assert sorted(first + other) == list(range(1, 21))

    async def test_identifiers_may_be_shortened_if_clear(self, catalog: Catalog) -> None:
        """A unique prefix finds, an ambiguous one is an error, a wrong one is not found, a wildcard is no prefix."""
        async with catalog.transaction() as inside:
            await inside.jobs.add(job("ab12cd34"))
            await inside.jobs.add(job("ab99cd34"))
            with pytest.raises(AlreadyExists):
                await inside.jobs.add(job("ab12cd34"))
        async with catalog.snapshot() as view:
            assert (await view.jobs.get("ab9")).id == "ab99cd34"
            with pytest.raises(InvalidValue):
                await view.jobs.get("ab")
            assert (await view.jobs.get("AB99")).id == "ab99cd34"
            for wrong in ("zz", "a%", "__"):
                with pytest.raises(NotFound):
                    await view.jobs.get(wrong)

    async def test_pages_of_jobs(self, catalog: Catalog) -> None:
        """Newest first, filtered by state, page after page."""
        async with catalog.transaction() as inside:
            for number in range(5):
                await inside.jobs.add(job(f"{number:08x}", created_at=NOW + timedelta(seconds=number)))
        async with catalog.snapshot() as view:
            first = await view.jobs.list(limit=2)
            assert [found.id for found in first] == ["00000004", "00000003"]
            rest = await view.jobs.list(before=first[-1].created_at)
            assert [found.id for found in rest] == ["00000002", "00000001", "00000000"]
            assert not await view.jobs.list(states=[JobState.DONE])

    async def test_cartridges_and_pools(self, catalog: Catalog) -> None:
        """They come back as they were saved, in barcode order, and are found by barcode and uuid."""
        one = Cartridge("CAP002L9", CartridgeState.AVAILABLE, NOW, uuid="u-2", pool="p", library="l", index_block=-1)
        two = Cartridge("CAP001L9", CartridgeState.SCRATCH, NOW, library="l")
        async with catalog.transaction() as inside:
            await inside.media.add_pool(Pool("p", NOW))
            with pytest.raises(AlreadyExists):
                await inside.media.add_pool(Pool("p", NOW))
        async with catalog.transaction() as inside:
            await inside.media.add(one)
            await inside.media.save(two)
            await inside.media.save(dataclasses.replace(two, loads=7, written_at=NOW))
        async with catalog.snapshot() as view:
            assert await view.media.get_pool("p") == Pool("p", NOW)
        changed = Pool(
            "p",
            NOW,
            scratch=False,
            recipients=["age1x"],
            require_escrow=True,
            verify_writes=True,
            description="d",
            copy_pool="q",
        )
        async with catalog.transaction() as inside:
            await inside.media.save_pool(changed)
        async with catalog.snapshot() as view:
            assert await view.media.list_pools() == [changed]
            assert [found.barcode for found in await view.media.list(library="l")] == ["CAP001L9", "CAP002L9"]
            assert list(await view.media.list(pool="p", states=[CartridgeState.AVAILABLE])) == [one]
            assert await view.media.find_by_uuid("u-2") == one
            assert await view.media.find_by_uuid("") is None
            assert (await view.media.get("CAP001L9")).loads == 7
            assert await view.media.find("NONE") is None
            with pytest.raises(NotFound):
                await view.media.get("NONE")
            with pytest.raises(NotFound):
                await view.media.get_pool("NONE")

    async def test_drives_and_loads(self, catalog: Catalog) -> None:
        """They come back as they were saved; loads oldest first, by drive, by cartridge, or those that count."""
        drive = Drive("S-1", "lib", 101, NOW, product="IBM ULT3580", wants_cleaning=True, cleaned_at=NOW)
        other = Drive("S-0", "lib", 102, NOW, state=DriveState.QUARANTINED, reason="it fails")
        loads = [
            Load("1", "S-1", "CAP001L9", "ab12cd34", NOW, alerts=[3, 20], counters={"written_bytes": 1 << 40}),
            Load("2", "S-1", "CAP002L9", "ab12cd34", NOW + timedelta(hours=1), code="medium-error", medium=True),
            Load("3", "S-0", "CAP001L9", "ab12cd34", NOW + timedelta(hours=2), code="medium-error", settled=True),
            Load("4", "S-0", "CAP003L9", "ab12cd34", NOW + timedelta(hours=3), error="bad", state_before="full"),
        ]
        async with catalog.transaction() as inside:
            for saved in (drive, dataclasses.replace(other, loads=1)):
                await inside.health.save_drive(saved)
            await inside.health.save_drive(other)
            for load in loads:
                await inside.health.save_load(dataclasses.replace(load, counters={}))
                await inside.health.save_load(load)
        async with catalog.snapshot() as view:
            health = view.health
            assert await health.get_drive("S-1") == drive and await health.find_drive("none") is None
            assert await health.list_drives(library="lib") == [drive, other]
            assert await health.list_drives(library="none") == []
            with pytest.raises(NotFound):
                await health.get_drive("none")
            assert await health.list_loads() == loads
            assert await health.list_loads(drive="S-1") == loads[:2]
            assert await health.list_loads(drive="S-0", barcode="CAP001L9") == [loads[0], *loads[2:]]
            assert await health.list_loads(failed=True) == [loads[1]]
            assert await health.list_loads(limit=2) == loads[2:]

    async def test_set_numbers_are_never_used_again(self, catalog: Catalog) -> None:
        """Not even that of a set that was removed or cleared, nor of one that came from a tape with its number."""
        async with catalog.transaction() as inside:
            first = await inside.backups.next_number()
            await inside.backups.add(backup_set(first))
            await inside.backups.remove(backup_set(first).id)
            assert await inside.backups.next_number() > first
            await inside.backups.add(backup_set(50))
            await inside.backups.remove(backup_set(50).id)
            assert await inside.backups.next_number() == 51
            await inside.backups.add(backup_set(70))
        await catalog.clear()
        async with catalog.transaction() as inside:
            assert await inside.backups.next_number() == 71

    async def test_the_latest_set_is_by_number_and_whole(self, catalog: Catalog) -> None:
        """Order comes from numbers; a set that is not complete does not count; `at` looks at its end."""
        async with catalog.transaction() as inside:
            await inside.backups.add(backup_set(1))
            await inside.backups.add(backup_set(2, created_at=NOW, finished_at=NOW + timedelta(days=3)))
            await inside.backups.add(backup_set(3, state=SetState.INCOMPLETE))
        async with catalog.snapshot() as view:
            latest = await view.backups.latest("home")
            assert latest == backup_set(2, created_at=NOW, finished_at=NOW + timedelta(days=3))
            assert await view.backups.latest("home", at=NOW + timedelta(days=3)) == latest
            assert await view.backups.latest("home", at=NOW) is None
            earlier = await view.backups.latest("home", at=NOW + timedelta(days=2))
            assert earlier == backup_set(1)
            assert await view.backups.latest("other") is None
            assert [found.number for found in await view.backups.list(limit=2)] == [2, 3]
            with pytest.raises(InvalidValue):
                await view.backups.get("0000")

    async def test_commit_points_and_segments(self, catalog: Catalog) -> None:
        """They come back in order; entering one again changes nothing; a cartridge's can be forgotten."""
        one, two = backup_set(1), backup_set(2)
        async with catalog.transaction() as inside:
            for found in (one, two):
                await inside.backups.add(found)
            await inside.backups.add_commit(commit(two, 1, "c-1", 200))
            await inside.backups.add_commit(commit(one, 2, "c-2", 60))
            for _ in range(2):
                await inside.backups.add_commit(commit(one, 1, "c-1", 30))
        async with catalog.snapshot() as view:
            assert list(await view.backups.list_commits(set_id=one.id)) == [
                commit(one, 1, "c-1", 30),
                commit(one, 2, "c-2", 60),
            ]
            on_first = await view.backups.list_commits(cartridge="c-1")
            assert [found.set_id for found in on_first] == [one.id, two.id]
            assert [found.number for found in await view.backups.list_segments(one.id)] == [2, 3, 4, 5]
            assert [found.number for found in await view.backups.sets_on("c-2")] == [1]
        async with catalog.transaction() as inside:
            await inside.backups.remove_commits("c-1")
            await inside.backups.remove(two.id)
        async with catalog.snapshot() as view:
            assert [found.sequence for found in await view.backups.list_commits()] == [2]

    async def test_copies_stand_beside_what_the_backup_wrote(self, catalog: Catalog) -> None:
        """Whoever asks for a set's commit points hears nothing of its copies; whoever asks for those, or for a
        cartridge, does. What is removed is removed with its copies."""
        one = backup_set(1)
        original, other = commit(one, 1, "c-1", 30), commit(one, 2, "c-1", 60)
        first, second, third = (
            commit(one, 1, "c-2", 30, copy=1),
            commit(one, 1, "c-3", 40, copy=2),
            commit(one, 2, "c-2", 90, copy=1),
        )
        async with catalog.transaction() as inside:
            await inside.backups.add(one)
            for entered in (third, second, original, first, other):
                await inside.backups.add_commit(entered)
        async with catalog.snapshot() as view:
            assert list(await view.backups.list_commits(set_id=one.id)) == [original, other]
            assert list(await view.backups.list_copies(one.id)) == [first, third, second]
            assert list(await view.backups.list_commits(cartridge="c-2")) == [first, third]
            assert list(await view.backups.list_commits()) == [original, other, first, third, second]
            assert list(await view.backups.list_segments(one.id)) == [*original.segments, *other.segments]
            assert [found.number for found in await view.backups.sets_on("c-3")] == [1]
        async with catalog.transaction() as inside:
            await inside.backups.remove_commits("c-2")
            assert list(await inside.backups.list_copies(one.id)) == [second]
            await inside.backups.remove(one.id)
            assert not await inside.backups.list_commits()

    async def test_a_commit_point_entered_again_replaces_its_segments(self, catalog: Catalog) -> None:
        """Segments that the second form does not name are gone; those of other commit points stay."""
        first, other = commit(backup_set(1), 1, "c-1", 30), commit(backup_set(1), 2, "c-1", 60)
        shorter = dataclasses.replace(first, segments=first.segments[:1])
        async with catalog.transaction() as inside:
            await inside.backups.add(backup_set(1))
            for entered in (first, other, shorter):
                await inside.backups.add_commit(entered)
        async with catalog.snapshot() as view:
            assert list(await view.backups.list_commits()) == [shorter, other]

    async def test_events_only_grow(self, catalog: Catalog) -> None:
        """Sequence numbers rise; a reader that knows the last one misses nothing and sees nothing twice."""
        event = Event("job.phase", NOW, {"phase": "scan"}, job_id="ab12cd34")
        async with catalog.transaction() as inside:
            numbers = [await inside.events.append(event) for _ in range(3)]
            await inside.events.append(dataclasses.replace(event, job_id="other"))
        assert numbers == sorted(set(numbers))
        async with catalog.snapshot() as view:
            found = await view.events.list(after=numbers[0], job_id="ab12cd34")
            assert found == [dataclasses.replace(event, sequence=number) for number in numbers[1:]]

    async def test_settings(self, catalog: Catalog) -> None:
        """A setting is what it was last set to."""
        async with catalog.transaction() as inside:
            await inside.put_setting("a", "1")
            await inside.put_setting("a", "2")
        async with catalog.snapshot() as view:
            assert await view.get_setting("a") == "2"
            assert await view.get_setting("b") is None

    async def test_clear_keeps_jobs(self, catalog: Catalog) -> None:
        """Before a rebuild everything that tapes can tell is forgotten; jobs and events are not on tapes."""
        async with catalog.transaction() as inside:
            await inside.jobs.add(job())
            await inside.backups.add(backup_set(1))
            await inside.backups.add_commit(commit(backup_set(1), 1, "c", 9))
        await catalog.clear()
        async with catalog.snapshot() as view:
            assert not await view.backups.list()
            assert not await view.backups.list_commits()
            assert await view.jobs.list()
