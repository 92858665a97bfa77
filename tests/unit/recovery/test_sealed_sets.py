"""Sets that are sealed for recipients: what needs an identity, and what does not."""

from __future__ import annotations

import pyrage
import pytest
from test_recovery_engines import raised, tree, with_home
from written_home import WrittenHome

from capstan.core.backup import BackupSet, Encryption, SetState
from capstan.core.media import Cartridge, CartridgeState
from capstan.crypto.identities import X25519Identity
from capstan.errors import IdentityNeeded, VerificationFailed
from capstan.format.append import examine_tail
from capstan.media.adoption import Adoption

SECRETS = [pyrage.x25519.Identity.generate() for _ in range(2)]
RECIPIENTS = [str(secret.to_public()) for secret in SECRETS]
MINE, ESCROW = (X25519Identity.from_text(str(secret)) for secret in SECRETS)
STRANGER = X25519Identity.from_text(str(pyrage.x25519.Identity.generate()))


async def the_set(home: WrittenHome, set_id: str) -> BackupSet:
    async with home.catalog.snapshot() as catalog:
        return await catalog.backups.get(set_id)


async def the_cartridge(home: WrittenHome, barcode: str) -> Cartridge:
    async with home.catalog.snapshot() as catalog:
        return await catalog.media.get(barcode)


@pytest.mark.parametrize("codec", ["zstd", "none"])
def test_any_recipient_restores(codec: str, tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """A sealed set over two cartridges comes back for each of its recipients, whole and by single files."""

    @with_home
    async def body(home: WrittenHome) -> None:
        members = tree(30)
        set_id = await home.write("docs", members, ["A1L9", "B2L9"], codec=codec, recipients=RECIPIENTS)
        for identity in (MINE, ESCROW):
            result = await home.restore(set_id, identities=[STRANGER, identity])
            assert home.target.files == home.content(set_id)
            assert (result["verified_files"], result["errors"]) == (30, 0)
        for entry, data, _ in members:
            mounts = len(home.manager.mounts)
            result = await home.restore(set_id, b"/" + entry.path, identities=[MINE])
            assert home.target.files == {entry.path: data} and result["locates"] == len(home.manager.mounts[mounts:])

    body(tmp_path, monkeypatch)


@with_home
async def test_others_are_told_before_a_tape_moves(home: WrittenHome) -> None:
    """Without the identity nothing is mounted and nothing is made; the error names the keys that would do."""
    set_id = await home.write("docs", tree(3), ["A1L9"], recipients=RECIPIENTS)
    for identities in ([], [STRANGER]):
        error = await raised(home.restore(set_id, identities=identities))
        assert isinstance(error, IdentityNeeded) and home.manager.mounts == [] and not home.target.files
        assert all(key in str(error) for key in (await the_set(home, set_id)).keys)


@with_home
async def test_no_name_lies_on_the_tape(home: WrittenHome) -> None:
    """In the raw records of a sealed set there is no name of a source, and nothing of an archive or a table."""
    await home.write("docs", tree(30), ["A1L9"], codec="none", recipients=RECIPIENTS)
    on_tape = b"".join(record for record in home.tapes["A1L9"].blocks if record)
    for text in (b"srv/0/", b"/f001", b"docs", b"ustar\0", b"manifest.json", b"files.parquet"):
        begin = on_tape.index(b"kind: segment")  # behind the label, which is nobody's secret
        assert text not in on_tape[begin:], text
    plain = await home.write("open", tree(3), ["B2L9"], codec="none")
    assert plain and b"srv/0/f001" in b"".join(record for record in home.tapes["B2L9"].blocks if record)


@with_home
async def test_a_verification_without_a_key_proves_every_record(home: WrittenHome) -> None:
    """Records and segments are compared without any identity, and the files said to be unchecked; with one, all are."""
    set_id = await home.write("docs", tree(30), ["A1L9"], recipients=RECIPIENTS)
    for run, what in ((home.verifier().run_set, set_id), (home.verifier().run_cartridge, "A1L9")):
        result = await run(what, home.context())
        assert (result["verified_files"], result["unchecked_files"], result["errors"]) == (0, 30, 0)
        result = await run(what, home.context(), identities=[MINE])
        assert (result["verified_files"], result["unchecked_files"], result["errors"]) == (30, 0, 0)
    segment = next(
        number for number, record in enumerate(home.tapes["A1L9"].blocks) if record and len(record) == 65_536
    )
    changed = bytearray(home.tapes["A1L9"].blocks[segment] or b"")
    changed[1000] ^= 1
    home.tapes["A1L9"].blocks[segment] = bytes(changed)
    for run, what in ((home.verifier().run_set, set_id), (home.verifier().run_cartridge, "A1L9")):
        error = await raised(run(what, home.context()))
        assert isinstance(error, VerificationFailed) and f"block {segment}" in str(error)


@with_home
async def test_a_rebuild_without_the_key_locks_and_one_with_it_unlocks(home: WrittenHome) -> None:
    """From the headers alone a set is known as locked, its cartridges are never scratch and can be appended to; with
    the key the same rebuild makes all of it again."""
    set_id = await home.write("docs", tree(30), ["A1L9", "B2L9"], recipients=RECIPIENTS)
    ends = {barcode: home.ends[barcode] for barcode in ("A1L9", "B2L9")}
    known = await the_set(home, set_id)
    await home.close()
    await home.open()
    result = await home.rebuild()
    assert (result["locked"], result["complete"], result["foreign"]) == (1, 0, [])
    locked = await the_set(home, set_id)
    assert (locked.state, locked.keys, locked.encryption) == (SetState.LOCKED, known.keys, Encryption.AGE)
    assert (locked.number, locked.name, locked.cartridges) == (known.number, "", ["A1L9", "B2L9"])
    for barcode, end in ends.items():
        row = await the_cartridge(home, barcode)
        assert row.state is not CartridgeState.SCRATCH
        assert (row.end_block, row.tape_files, row.index_block) == (end.end_block, end.tape_files, end.index_block)
        assert row.index_sha256 == end.index_sha256
    error = await raised(home.restore(set_id, identities=[MINE]))
    assert isinstance(error, IdentityNeeded) and "rebuild" in error.hint_text
    assert (await home.rebuild(identities=[STRANGER]))["locked"] == 1
    assert (await home.rebuild(identities=[ESCROW]))["complete"] == 1
    await home.restore("latest:docs", identities=[MINE])
    assert home.target.files == home.content(set_id)
    result = await home.rebuild()  # it has the key no longer, and must not forget what it knows
    assert (result["locked"], result["complete"]) == (0, 1)
    await home.restore(set_id, identities=[MINE])
    assert home.target.files == home.content(set_id)


@with_home
async def test_a_killed_writer_takes_its_commit_point_in_without_any_identity(home: WrittenHome) -> None:
    """A sealed INDEX that was on tape and not yet entered is read by the home that wrote it, by the key of that one
    file, which is gone as soon as it is entered; a home that lost it is told what to do, and writes nothing."""
    await home.write("docs", tree(3), ["A1L9"], recipients=RECIPIENTS)
    before = await the_cartridge(home, "A1L9")
    set_id = await home.write("docs", tree(4, 1), ["A1L9"], recipients=RECIPIENTS, finish=False, enter=False)
    keys = list((home.folder / "index-1" / set_id).glob("*.announced"))
    assert len(keys) == 1 and keys[0].stat().st_mode & 0o777 == 0o600
    adoption = Adoption(catalog=home.catalog, ledger=home.ledger, store=home.store, spool=home.spool)
    async with home.manager.mount("lib", barcode="A1L9", context=home.context()) as mounted:
        tail = await mounted.lane.run(examine_tail, before)
        kept = keys[0].read_bytes()
        keys[0].write_bytes(b"")
        error = await raised(adoption.take_in(mounted, tail.ahead))  # type: ignore[arg-type]
        assert isinstance(error, IdentityNeeded) and "rebuild" in error.hint_text
        assert (await the_cartridge(home, "A1L9")).end_block == before.end_block
        keys[0].write_bytes(kept)
        assert await adoption.take_in(mounted, tail.ahead) == frozenset()  # type: ignore[arg-type]
    assert (await the_cartridge(home, "A1L9")).end_block == home.ends["A1L9"].end_block
    assert not keys[0].exists()
    await home.restore(set_id, identities=[MINE])
    assert home.target.files == home.content(set_id)


@with_home
async def test_only_the_key_of_what_was_entered_is_forgotten(home: WrittenHome) -> None:
    """Another INDEX of the set may be on tape and wait to be taken in: its key stays until then."""
    set_id = await home.write("docs", tree(3), ["A1L9"], recipients=RECIPIENTS, finish=False)
    for name in ("a" * 64, "b" * 64):
        home.store.announce(set_id, name, b"k" * 16)
    home.store.entered(set_id, "a" * 64)
    assert home.store.announced(set_id, "a" * 64) is None and home.store.announced(set_id, "b" * 64) == b"k" * 16
