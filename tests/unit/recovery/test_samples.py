"""A part of what is on tape, drawn at random, is verified as a whole; and so is a pool."""

from __future__ import annotations

import random

import pytest
from test_recovery_engines import raised, tree, with_home
from written_home import WrittenHome

from capstan.errors import DamageFound, InvalidValue, NotFound, VerificationFailed
from capstan.recovery.sampling import draw, parse_percent
from capstan.recovery.select import make_selector
from capstan.recovery.selection import Selection


@pytest.mark.parametrize(("text", "value"), [("5%", 5), ("0.1", 0.1), ("100%", 100), ("33.3%", 33.3)])
def test_a_percentage(text: str, value: float) -> None:
    """With or without its sign."""
    assert parse_percent(text) == value


@pytest.mark.parametrize("text", ["", "0", "-1", "101%", "half", "nan", "5%%", "inf"])
def test_what_is_no_percentage(text: str) -> None:
    """A clear error, before any drive is asked for."""
    with pytest.raises(InvalidValue, match="sample"):
        parse_percent(text)


@pytest.mark.slow
@with_home
async def test_whole_segments_are_drawn(home: WrittenHome) -> None:
    """As many as asked for, rounded up, never none; what lies wholly in them is verified, the rest is unchecked; over
    many draws each segment has its turn."""
    set_id = await home.write("docs", tree(40), ["A1L9", "B2L9"])
    whole = await home.verifier().run_set(set_id, home.context())
    count = whole["segments"]
    assert count == whole["segments_verified"] > 4 and whole["unchecked_files"] == 0
    for percent, chosen in ((0.001, 1), (50, -(-count // 2)), (100, count)):
        result = await home.verifier().run_set(set_id, home.context(), percent=percent)
        assert (result["segments_verified"], result["segments"]) == (chosen, count)
        assert result["verified_files"] + result["unchecked_files"] == 40 and result["errors"] == 0
        assert result["bytes_read_from_tape"] <= whole["bytes_read_from_tape"]
    assert result["verified_files"] == 40
    read = {
        (await home.verifier().run_set(set_id, home.context(), percent=1))["bytes_read_from_tape"] for _ in range(60)
    }
    assert len(read) > 1


@with_home
async def test_what_was_drawn_is_kept_with_the_cartridge(home: WrittenHome) -> None:
    """A sample that was good is not taken for the whole; damage in what was drawn is found."""
    await home.write("docs", tree(40), ["A1L9"])
    result = await home.verifier().run_cartridge("A1L9", home.context(), percent=20)
    async with home.catalog.snapshot() as catalog:
        kept = (await catalog.media.get("A1L9")).verify_result
    assert kept == f"good, {result['segments_verified']} of {result['segments']} segments"
    assert 0 < result["segments_verified"] < result["segments"]
    blocks = home.tapes["A1L9"].blocks
    for number, block in enumerate(blocks):
        if block and len(block) == 65_536:
            blocks[number] = bytes([block[0] ^ 1]) + block[1:]
    error = await raised(home.verifier().run_cartridge("A1L9", home.context(), percent=20))
    assert isinstance(error, VerificationFailed | DamageFound)


@with_home
async def test_a_pool_is_verified_cartridge_by_cartridge(home: WrittenHome) -> None:
    """Each that holds sets, whatever is wrong with another; one that is elsewhere is said to be."""
    for barcode in ("A1L9", "B2L9"):
        await home.write(barcode, tree(5), [barcode])
    result = await home.verifier().run_pool("default", home.context())
    assert [item["barcode"] for item in result["cartridges"]] == ["A1L9", "B2L9"]
    assert result["verified_files"] == 10 and result["segments"] == result["segments_verified"]
    home.tapes["A1L9"].unreadable.add(4)
    error = await raised(home.verifier().run_pool("default", home.context()))
    assert isinstance(error, VerificationFailed) and error.result is not None
    bad, good = error.result["cartridges"]
    assert bad["error"]["code"] and "error" not in good and good["verified_files"] == 5
    assert isinstance(await raised(home.verifier().run_pool("nobody", home.context())), NotFound)


@with_home
async def test_a_draw_needs_no_more_than_its_segments(home: WrittenHome) -> None:
    """The plan of a sample reads the drawn segments and nothing else, each whole."""
    set_id = await home.write("docs", tree(40), ["A1L9"])
    async with home.catalog.snapshot() as catalog:
        commits = await catalog.backups.list_commits(set_id=set_id)
    from capstan.recovery.rows import SetTable, kept_parts

    table = SetTable(kept_parts(home.store, set_id, commits))
    plan = Selection(table, make_selector()).plan()
    sample = draw(plan, table.frames(), 30, random.Random(5))
    runs = [run for visit in sample.plan.visits for run in visit.runs]
    assert len(runs) == sample.chosen and sample.plan.uncovered == []
    assert all((run.first_record, run.last_record) == (0, run.segment.records - 1) for run in runs)
