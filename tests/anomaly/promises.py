"""What holds after anything went wrong, whatever it was; and what each operation promises beside."""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
from collections.abc import Collection, Sequence
from contextlib import closing
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from figures import FIGURES
from harness import AheadClock, below, describe
from loop import one_is_named
from operations import IDENTITIES, OPERATIONS, Failure, Operation, Outcome, perform
from scene import NEW, Scene, begins_with, image_of
from states import digest, is_good, is_proven

from capstan.bootstrap import Capstan, open_home
from capstan.catalog.copies import copies_of
from capstan.core.backup import BackupSet, Commit, SetState
from capstan.core.files import FileFlag, display_path
from capstan.core.history import history_of
from capstan.core.job import JobKind, JobState
from capstan.errors import CapstanError, ParentMissing
from capstan.fileindex.reading import read_rows
from capstan.format.header import decode_header
from capstan.format.layout import HEADER_BYTES
from capstan.recovery.select import RestoreRequest

_LEGAL = {JobState.DONE, JobState.FAILED, JobState.INTERRUPTED}
_DRIVES = range(101, 200)
_SETS = "SELECT id, name, state, files, bytes FROM sets ORDER BY id"

original = cache(describe)  # trees are only read


def prove(scene: Scene, operation: Operation, outcome: Outcome | None, *, tape_failed: bool = False) -> None:
    """All promises, after one run that may have failed, or was killed (`outcome` None).

    What is promised of the state alone, whatever led to it, is proven once for all cases that end in the same state;
    one that is not good fails each of them.

    `tape_failed`: a drive has said that the medium is bad.
    """
    FIGURES["cases run"] += 1
    FIGURES["runs"] += 1
    nothing_written_is_lost(scene, operation)
    if outcome is None:
        same_as_source(scene, scene.target, pictures_of(scene, operation), killed=True)
        if operation.name == "rebuild":
            assert scene.ask(_SETS) == scene.ask_template(_SETS)
    else:
        if outcome.error is not None:
            speaks_clearly(outcome.error)
        _PROMISES.get(operation.name, _no_more)(scene, operation, outcome, tape_failed)
    state = digest(scene, operation)
    if is_proven(scene, state) and not one_is_named():
        FIGURES["states proven before"] += 1
        return
    asyncio.run(_catalog_and_acknowledged(scene, operation))
    works_again(scene, operation)
    FIGURES["states proven"] += 1
    is_good(scene, state)


def speaks_clearly(error: Failure) -> None:
    """An error says what happened and what to do."""
    assert error.message.strip()
    assert "?" not in error.message, f"a parameter is missing: {error}"
    assert error.hint, f"it does not say what to do: {error}"


def nothing_written_is_lost(scene: Scene, operation: Operation) -> None:
    """Every byte that was on a cartridge is there as it was; only what was to be erased may be gone."""
    for path in sorted((scene.template / "libraries/lib/cartridges").glob("*.tap")):
        if path.stem == "CAP003L9" and operation.writes == "other":
            continue
        if operation.prepare is OPERATIONS["verify-damaged"].prepare and path.stem == "CAP001L9":
            continue
        whole = begins_with(scene.cartridges / path.name, path)
        FIGURES["lost bytes"] += 0 if whole else path.stat().st_size
        assert whole, f"{path.stem} has lost what was written on it"
        if operation.writes in ("", "new"):
            grown = (scene.cartridges / path.name).stat().st_size - path.stat().st_size
            assert not grown or (operation.writes and not path.stat().st_size), f"{path.stem} was written to"


async def _catalog_and_acknowledged(scene: Scene, operation: Operation) -> None:
    """A home that opens; states that are legal; a catalog that knows only what is on tape; and all of it restores."""
    async with open_home(scene.home, clock=AheadClock(), sleep=lambda seconds: None) as capstan:
        await capstan.tidy()
        async with capstan.catalog.snapshot() as catalog:
            jobs = await catalog.jobs.list(limit=100)
            sets = list(await catalog.backups.list())
            commits = list(await catalog.backups.list_commits())
        legal = {scene.job: _LEGAL | {JobState.CANCELLED}}  # it was, before all this
        illegal = [job for job in jobs if job.state not in legal.get(job.id, _LEGAL)]
        illegal += [job for job in jobs if job.error.get("code") == "unexpected"]
        illegal += [item for item in sets if item.state is SetState.WRITING]  # type: ignore[misc]
        FIGURES["illegal states"] += len(illegal)
        assert not illegal, illegal
        for commit in commits:
            _is_on_tape(scene, commit)
        known = {item.id: item for item in sets}
        if operation.name != "rebuild-all":
            _is_known(scene, operation, known, commits)
        for item in sets:
            parent = known.get(item.parent_id)
            if item.parent_id and (parent is None or parent.state is not SetState.COMPLETE):
                await _says_what_it_lacks(capstan, scene, item)
            elif operation.writes == "tapes" and _is_new(scene, operation, item) and item.files:
                await _restores(capstan, scene, item, parent)
                await _copies_restore(capstan, scene, item)


def _is_known(scene: Scene, operation: Operation, known: dict[str, BackupSet], commits: Sequence[Commit]) -> None:
    """All sets of the scene are known, as whole as they were and with all their commit points; but what was to be
    erased."""
    gone = {scene.other, scene.begun} if operation.writes == "other" else set[str]()
    states = {item: known[item].state for item in scene.sets - gone if item in known}
    assert states.keys() == scene.sets - gone
    assert {*states.values()} <= {SetState.COMPLETE, SetState.INCOMPLETE}
    assert {item for item, state in states.items() if state is SetState.INCOMPLETE} <= {scene.begun}
    points = "SELECT set_id, sequence FROM commits"
    lost = set(scene.ask_template(points)) - {(item.set_id, item.sequence) for item in commits}
    assert {set_id for set_id, _ in lost} <= gone, f"the catalog has forgotten {lost}"


def _is_new(scene: Scene, operation: Operation, item: BackupSet) -> bool:
    """Whether the operation has made the set, or gone on with it."""
    return item.id not in scene.sets or (operation.resumes and item.id == scene.begun)


async def _says_what_it_lacks(capstan: Capstan, scene: Scene, item: BackupSet) -> None:
    """A set that builds on one that is gone, or is not whole, is not taken for whole."""
    request = RestoreRequest(reference=item.id, to=scene.root / item.id)
    with pytest.raises(ParentMissing):
        await capstan.jobs.run(
            JobKind.RESTORE, lambda job: capstan.restore.run(request, job, IDENTITIES), library="lib"
        )
    assert not request.to.exists()


def _is_on_tape(scene: Scene, commit: Commit) -> None:
    """The INDEX of a commit point is where the catalog says, and it is the very one."""
    with closing(image_of(scene, commit.barcode)) as image:
        buffer = memoryview(bytearray(HEADER_BYTES))
        assert image.read(commit.block, buffer) == HEADER_BYTES
        _, digest = decode_header(buffer, barcode=commit.barcode, block=commit.block)
        assert digest == commit.header_sha256, f"{commit.barcode} has another INDEX at block {commit.block}"
        assert image.is_filemark(commit.end_block - 1)


async def _restores(capstan: Capstan, scene: Scene, item: BackupSet, parent: BackupSet | None) -> None:
    """Every file that a commit point acknowledged comes back as it was, and what the parent has and is not gone since.
    A whole set brings back exactly the tree of its time."""
    target = scene.root / item.id
    request = RestoreRequest(reference=item.id, to=target)
    try:
        _, result = await capstan.jobs.run(
            JobKind.RESTORE, lambda job: capstan.restore.run(request, job, IDENTITIES), library="lib"
        )
    except CapstanError as error:
        async with capstan.catalog.snapshot() as catalog:
            told = [event.data for event in await catalog.events.list() if event.kind == "job.warning"]
        error.add_note(f"warnings: {told}")
        raise
    assert not result["errors"]
    own, pictures = scene.picture(item.id), [scene.picture(item.id)]
    listed = await acknowledged_paths(capstan, scene, item.id)
    if item.state is SetState.COMPLETE:
        assert describe(below(target, scene.tree)) == original(own)
    elif parent is not None:
        pictures.append(scene.picture(parent.id))
    found = same_as_source(scene, target, pictures, newest=listed)
    if parent is not None:
        listed |= {_stored(scene) + path for path in original(own).keys() & original(pictures[-1]).keys()}
    FIGURES["lost bytes"] += sum(1 for path in listed if path not in found)
    assert listed <= found
    shutil.rmtree(target)


async def acknowledged_paths(capstan: Capstan, scene: Scene, set_id: str) -> set[bytes]:
    """The stored paths, below the tree, of all whole rows of a set's commit points."""
    async with capstan.catalog.snapshot() as catalog:
        history = history_of(await catalog.backups.list_commits(set_id=set_id))
    parts = capstan.store.parts(set_id, history)
    return {
        row.entry.path
        for part in parts
        for row in read_rows(part.files)
        if row.entry.path.startswith(_stored(scene)) and not row.flags & (FileFlag.CONTINUES | FileFlag.UNREADABLE)
    }


def _stored(scene: Scene) -> bytes:
    """The stored path of the tree, with the slash behind it."""
    return bytes(scene.tree.relative_to("/")) + b"/"


def pictures_of(scene: Scene, operation: Operation) -> list[Path]:
    """What may stand in the target of a restore."""
    return [scene.picture(getattr(scene, operation.restores))] if operation.restores else []


def same_as_source(
    scene: Scene, target: Path, pictures: Sequence[Path], *, newest: Collection[bytes] = (), killed: bool = False
) -> set[bytes]:
    """Whatever stands under its own name below `target` is what one of `pictures` has, the first one where `newest`
    names it; returns the stored paths.

    Only whoever was killed may leave something behind under a temporary name; it is removed here.
    """
    root = below(target, scene.tree)
    found = describe(root) if root.exists() else {}
    for path, value in found.items():
        if path.rpartition(b"/")[2].startswith(b".capstan-"):
            assert killed, f"{path!r} was left behind"
            (root / os.fsdecode(path)).unlink()
            continue
        allowed = pictures[:1] if _stored(scene) + path in newest else pictures
        wanted = [_alone(original(picture)[path]) for picture in allowed if path in original(picture)]
        assert wanted, f"{path!r} was never there"
        if not stat.S_ISDIR(value[0]):
            same = _alone(value) in wanted
            FIGURES["files compared"] += 1
            FIGURES["bytes compared"] += len(wanted[0][-1])
            FIGURES["lost bytes"] += 0 if same else len(wanted[0][-1])
            assert same, f"{path!r} is not what it was"
    return {_stored(scene) + path for path in found}


def _alone(entry: tuple[Any, ...]) -> tuple[Any, ...]:
    """What `describe` says of a file, without the other names that it has."""
    return (*entry[:4], entry[4].split(b" = ")[0])


def works_again(scene: Scene, operation: Operation) -> None:
    """On devices that are well again the same operation ends well, and brings every cartridge home."""
    FIGURES["runs"] += 1
    outcome = perform(operation, scene)
    ends_well(operation, outcome)
    in_drives = {barcode for barcode, element in scene.places().items() if element in _DRIVES}
    idle = operation.name == "copy" and outcome.told.get("segments_copied") == 0  # it was whole: no drive was used
    assert idle or not in_drives, f"{in_drives} stayed in a drive"
    for picture in pictures_of(scene, operation):
        assert describe(below(scene.target, scene.tree)) == original(picture)
    if operation.resumes:
        asyncio.run(_is_whole(scene, scene.begun))
    if operation.name in ("copy", "twice"):
        asyncio.run(_is_copied(scene, outcome.told["set_id"]))
    if operation.name == "import":
        assert NEW in scene.places()
        assert scene.places()[NEW] >= 1000
    if operation.name.startswith("rebuild"):
        finds_every_set(scene, outcome)
    if operation.writes == "tapes":
        survives_the_loss_of_the_catalog(scene)


async def _is_whole(scene: Scene, set_id: str) -> None:
    """The set restores exactly."""
    async with open_home(scene.home, clock=AheadClock(), sleep=lambda seconds: None) as capstan:
        async with capstan.catalog.snapshot() as catalog:
            found = await catalog.backups.get(set_id)
        assert found.state is SetState.COMPLETE
        await _restores(capstan, scene, found, None)


async def _is_copied(scene: Scene, set_id: str) -> None:
    """The copy is whole, and the set restores from it alone."""
    async with open_home(scene.home, clock=AheadClock(), sleep=lambda seconds: None) as capstan:
        async with capstan.catalog.snapshot() as catalog:
            found = await catalog.backups.get(set_id)
            assert [copy.whole for copy in await copies_of(catalog, found) if copy.copy] == [True]
        await _copies_restore(capstan, scene, found)


async def _copies_restore(capstan: Capstan, scene: Scene, item: BackupSet) -> None:
    """Where a copy is whole: with every cartridge of the original out of the library, the set restores exactly."""
    async with capstan.catalog.transaction() as catalog:
        if not any(copy.whole for copy in await copies_of(catalog, item) if copy.copy):
            return
        lost = [await catalog.media.get(barcode) for barcode in item.cartridges]
        for cartridge in lost:
            await catalog.media.save(replace(cartridge, place=""))
    await _restores(capstan, scene, item, None)
    async with capstan.catalog.transaction() as catalog:
        for cartridge in lost:
            await catalog.media.save(cartridge)


def ends_well(operation: Operation, outcome: Outcome) -> None:
    """The outcome on devices that are well."""
    if operation.name == "verify-damaged":
        assert outcome.error is not None
        assert outcome.error.code in ("verification-failed", "damage-found"), outcome.error
        return
    if outcome.error is not None:
        raise AssertionError(f"{operation.name} failed again: {outcome.error}")


def survives_the_loss_of_the_catalog(scene: Scene) -> None:
    """Whatever was left on the cartridges: a rebuild from them alone finds every whole set again."""
    whole = "SELECT id, files, bytes FROM sets WHERE state = 'complete'"
    before = scene.ask(whole)
    scene.take_out_blank()
    scene.lose_catalog()
    FIGURES["runs"] += 1
    outcome = perform(OPERATIONS["rebuild"], scene)
    assert outcome.error is None, outcome.error
    assert scene.ask(whole) == before


# ── what single operations promise ────────────────────────────────────────────────────────────────────


def _no_more(scene: Scene, operation: Operation, outcome: Outcome, tape_failed: bool) -> None:
    """Nothing beside."""


def _backup(scene: Scene, operation: Operation, outcome: Outcome, tape_failed: bool) -> None:
    """A backup that reports success has a whole set, of the type that was asked for; one that reports failure has none,
    and one that goes on makes no other."""
    known = "SELECT id, state, type, parent_id FROM sets ORDER BY number"
    old = scene.sets - {scene.begun} if operation.resumes else scene.sets
    made = [row for row in scene.ask(known) if row[0] not in old]
    parent = scene.chained if operation.name == "incremental" else ""
    if outcome.error is None:
        wanted = ("complete", "incremental" if parent else "full", parent)
        assert [row[1:] for row in made] == [wanted]
        assert outcome.told["set_id"] == made[0][0]
    else:
        assert len(made) <= 1


def _restore(scene: Scene, operation: Operation, outcome: Outcome, tape_failed: bool) -> None:
    """Success is the whole tree. Failure names every file that is not there, and leaves no half of one."""
    [picture] = pictures_of(scene, operation)
    found = same_as_source(scene, scene.target, [picture])
    if outcome.error is None:
        assert describe(below(scene.target, scene.tree)) == original(picture)
        return
    wanted = {_stored(scene) + path for path in original(picture)}
    lacking = {"/" + display_path(path) for path in wanted - found}
    named = {problem["path"] for problem in outcome.told.get("problems", ())}
    # Where the home cannot be written to the command ends as a whole, and that is what it says.
    ended = not found or outcome.error.code == "storage-failed"
    assert lacking <= named or ended, f"{outcome.error}: {sorted(lacking - named)} are not there and not named"
    if outcome.error.code == "damage-found":
        assert tape_failed and outcome.told["damage"] and not lacking, "no place is damaged, or a file too"
    elif outcome.error.exit_code == 6:
        # A directory that could not be made, and was for what is in it, lacks its mode and time only.
        refused = any(problem["code"] == "target" for problem in outcome.told["problems"])
        assert lacking or refused, f"{outcome.error.code}, and nothing is lacking"


def _verify(scene: Scene, operation: Operation, outcome: Outcome, tape_failed: bool) -> None:
    """Nothing is damaged: only a drive that calls the medium bad makes a damage of its fault."""
    verdicts = [verdict for (verdict,) in scene.ask("SELECT verify_result FROM cartridges") if verdict]
    if not tape_failed:
        assert all(verdict == "good" for verdict in verdicts), verdicts
        assert not outcome.told.get("damage"), outcome.error


def _verify_damaged(scene: Scene, operation: Operation, outcome: Outcome, tape_failed: bool) -> None:
    """What is damaged is never called good."""
    assert outcome.error is not None
    verdicts = [verdict for (verdict,) in scene.ask("SELECT verify_result FROM cartridges") if verdict]
    assert "good" not in verdicts


def _rebuild(scene: Scene, operation: Operation, outcome: Outcome, tape_failed: bool) -> None:
    """One that fails has changed nothing; one that ends has every whole set."""
    if outcome.error is not None:
        assert scene.ask(_SETS) == scene.ask_template(_SETS)
    else:
        finds_every_set(scene, outcome)


def _rebuild_all(scene: Scene, operation: Operation, outcome: Outcome, tape_failed: bool) -> None:
    """From nothing: what was not found is explained by a cartridge that could not be read."""
    if outcome.error is None and not outcome.told["suspect"]:
        finds_every_set(scene, outcome)


def _erase(scene: Scene, operation: Operation, outcome: Outcome, tape_failed: bool) -> None:
    """It says which sets elsewhere cannot be restored any more."""
    if outcome.error is None:
        assert scene.child in str(outcome.told["broken_sets"])


def finds_every_set(scene: Scene, outcome: Outcome) -> None:
    """Every whole set is known again, with all that is known of it."""
    assert scene.ask(_SETS) == scene.ask_template(_SETS), outcome.told


_PROMISES = {
    "backup": _backup,
    "sealed": _backup,
    "archives": _backup,
    "twice": _backup,
    "incremental": _backup,
    "resume": _backup,
    "restore": _restore,
    "restore-chain": _restore,
    "verify-set": _verify,
    "verify-cartridge": _verify,
    "verify-damaged": _verify_damaged,
    "rebuild": _rebuild,
    "rebuild-all": _rebuild_all,
    "erase": _erase,
}
