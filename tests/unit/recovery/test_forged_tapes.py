"""Tapes that somebody has changed who knows the format and all that is public: nothing false is restored, and each
forgery has its own words."""

from __future__ import annotations

from dataclasses import replace

import pytest
from crc32c import crc32c
from test_recovery_engines import raised, tree, with_home
from test_sealed_sets import MINE, RECIPIENTS
from written_home import WrittenHome

from capstan.core.backup import Segment
from capstan.errors import CapstanError, TapeDiffersFromCatalog, VerificationFailed
from capstan.format.append import examine_tail
from capstan.format.header import decode_header
from capstan.testing.memory_drive import MemoryTapeDrive

BARCODE = "A1L9"


async def first_segment(home: WrittenHome, set_id: str) -> Segment:
    async with home.catalog.snapshot() as catalog:
        return (await catalog.backups.list_segments(set_id))[0]


def records_of(home: WrittenHome, segment: Segment) -> list[bytes]:
    blocks = home.tapes[BARCODE].blocks[segment.block + 1 : segment.block + 1 + segment.records]
    return [block or b"" for block in blocks]


def put(home: WrittenHome, segment: Segment, records: list[bytes]) -> None:
    home.tapes[BARCODE].blocks[segment.block + 1 : segment.block + 1 + segment.records] = records


def forge_crcs(home: WrittenHome, segment: Segment, records: list[bytes]) -> None:
    """As if the change were one that a CRC does not see, which is easily made."""
    path = next((home.folder / "index-1" / segment.set_id).glob("*.records.crc32c"))
    crcs = bytearray(path.read_bytes())
    crcs[: 4 * len(records)] = b"".join(crc32c(record).to_bytes(4, "little") for record in records)
    path.write_bytes(crcs)


async def attempt(home: WrittenHome, set_id: str) -> tuple[CapstanError, str]:
    """The error of a restore, which has made nothing but what was stored; and what is said of the places on tape."""
    error = await raised(home.restore(set_id, identities=[MINE]))
    content = home.content(set_id)
    assert all(content[path] == data for path, data in home.target.files.items())
    assert isinstance(error, VerificationFailed) and error.result is not None
    return error, str(error.result["problems"]) + str(error.result["damage"])


@with_home
async def test_a_changed_segment(home: WrittenHome) -> None:
    """One bit: the record's CRC, or where that was forged too, the seal of the chunk."""
    set_id = await home.write("docs", tree(20), [BARCODE], recipients=RECIPIENTS)
    segment = await first_segment(home, set_id)
    records = records_of(home, segment)
    changed = bytearray(records[1])
    changed[100] ^= 1
    put(home, segment, [records[0], bytes(changed), *records[2:]])
    assert "does not match its CRC" in (await attempt(home, set_id))[1]
    forge_crcs(home, segment, records_of(home, segment))
    assert "was changed, or is not of this file" in (await attempt(home, set_id))[1]


@with_home
async def test_a_segment_of_another_set(home: WrittenHome) -> None:
    """Sealed for the same recipients, with a header that says what is expected, and CRCs to match: no chunk opens."""
    mine = await home.write("docs", tree(20), [BARCODE], recipients=RECIPIENTS)
    other = await home.write("docs", tree(20), [BARCODE], recipients=RECIPIENTS)
    here, there = await first_segment(home, mine), await first_segment(home, other)
    taken = records_of(home, there)[: here.records]
    last = len(records_of(home, here)[-1])
    put(home, here, [*taken[:-1], taken[-1][:last].ljust(last, b"\0")])
    forge_crcs(home, here, records_of(home, here))
    assert "was changed, or is not of this file" in (await attempt(home, mine))[1]
    home.tapes[BARCODE].blocks[here.block] = home.tapes[BARCODE].blocks[there.block]
    assert "says it is block" in str((await raised(home.verifier().run_set(mine, home.context()))).result)


def reissued(home: WrittenHome, block: int, at: int) -> bytes:
    """The header record at `block`, as if it belonged to `at`, with its digest."""
    header, _ = decode_header(home.tapes[BARCODE].blocks[block] or b"", barcode=BARCODE, block=block)
    known, _ = decode_header(home.tapes[BARCODE].blocks[at] or b"", barcode=BARCODE, block=at)
    return replace(header, block=at, tape_file=known.tape_file).encode()[0]


@with_home
async def test_an_old_manifest_in_the_place_of_a_new_one(home: WrittenHome) -> None:
    """The first INDEX of a set is put where its last one was, with a header to fit: a rebuild does not believe it,
    because the sealed manifest says where it belongs, and an append stops, because the catalog knows the newest."""
    set_id = await home.write("docs", tree(3), [BARCODE, BARCODE], recipients=RECIPIENTS)
    async with home.catalog.snapshot() as catalog:
        cartridge = await catalog.media.get(BARCODE)
        old, new = [commit.block for commit in await catalog.backups.list_commits(set_id=set_id)]
    blocks = home.tapes[BARCODE].blocks
    assert blocks[old + 2] is None and blocks[new + 2] is None, "an INDEX of one record, so that it fits"
    blocks[new : new + 2] = [reissued(home, old, new), blocks[old + 1]]
    drive = MemoryTapeDrive(home.tapes[BARCODE])
    drive.load()
    with pytest.raises(TapeDiffersFromCatalog, match="another INDEX is there"):
        examine_tail(drive, cartridge)
    await home.close()
    await home.open()
    result = await home.rebuild(identities=[MINE])
    assert (result["suspect"], result["incomplete"], result["complete"]) == ([BARCODE], 1, 0)
    assert any("the manifest belongs to another INDEX" in str(data) for _, data in home.events.told)
