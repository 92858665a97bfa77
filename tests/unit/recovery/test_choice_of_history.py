"""Of two histories of a set one is chosen as a whole, whatever is known of them and in which order."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from capstan.core.backup import Commit
from capstan.core.history import agree, history_of
from capstan.format.header import Header, Kind
from capstan.recovery.histories import choose_history

NOW = datetime(2026, 3, 4, tzinfo=UTC)


@dataclass(frozen=True)
class Index:
    """An INDEX as `choose_history` sees it."""

    header: Header
    commit_point: Commit
    history: dict[int, str] = field(hash=False)

    def commit(self) -> Commit:
        return self.commit_point


def index(history: str, sequence: int, *, copy: int = 0, final: bool = False, cartridge: str = "") -> Any:
    """The INDEX with this number of a history, which is a name for each number: "aab" goes another way at the third."""
    digests = {number: name * 8 + str(number) for number, name in enumerate(history[:sequence], 1)}
    cartridge = cartridge or f"{history}-{copy}"
    own = digests[sequence]
    at = sequence * 10
    header = Header(Kind.INDEX, sequence, at, cartridge, "B", 9, "", "", "", copy=copy, sequence=sequence)
    commit = Commit(
        "s", sequence, cartridge, "B", sequence, at, at + 3, f"copy {own}" if copy else own, 1, "", final, 1, 1, at,
        NOW + timedelta(seconds=sequence), copy=copy, original_sha256=own if copy else "",
    )  # fmt: skip
    return Index(header, commit, digests)


def chosen(found: list[Any], staying: list[Commit] = []) -> dict[int, str]:  # noqa: B006
    """The history of what counts."""
    choice = choose_history(found, staying)
    kept = [commit for commit in staying if commit not in choice.dropped]
    return history_of([item.commit() for item in cast(list[Any], choice.indexes)] + kept)


def test_what_is_whole_counts_before_what_reaches_further() -> None:
    """A finished set before one that was going on longer; then the longer; then the original; then the newer."""
    whole = [index("aab", 1), index("aab", 2), index("aab", 3, final=True)]
    longer = [index("aaccc", number) for number in (3, 4, 5)]
    for order in itertools.permutations([*whole, *longer], 6):
        assert chosen(list(order)) == whole[-1].history
    assert chosen([*whole[:2], *longer]) == longer[-1].history
    copied = index("aad", 3, copy=1, final=True)
    assert chosen([copied, *whole]) == whole[-1].history
    assert chosen([copied, *whole[:2], *longer]) == copied.history


def test_the_catalog_counts_like_any_other() -> None:
    """What it has of cartridges that are elsewhere stays, or is dropped where it is of the other history."""
    theirs = [index("aab", number, final=number == 3).commit() for number in (1, 2, 3)]
    found = [index("aac", number) for number in (1, 2, 3)]
    choice = choose_history(found, theirs)
    assert [item.commit().sequence for item in choice.aside] == [3] and not choice.dropped
    longer = [*found, index("aacd", 4, final=True)]
    choice = choose_history(longer, theirs)
    assert [commit.sequence for commit in choice.dropped] == [3] and not choice.aside


HISTORIES = st.sampled_from(["aaaa", "aabb", "abbb", "accc"])
INDEXES = st.builds(
    index,
    HISTORIES,
    st.integers(1, 4),
    copy=st.integers(0, 2),
    final=st.booleans(),
)


@given(st.lists(INDEXES, max_size=8), HISTORIES, st.sets(st.integers(1, 4), max_size=3))
def test_nothing_is_ever_mixed(found: list[Any], known: str, numbers: set[int]) -> None:
    """Whatever is found: all that counts agrees, and what is put aside does not agree with it."""
    staying = [index(known, number, cartridge="elsewhere").commit() for number in sorted(numbers)]
    choice = choose_history(found, staying)
    counted = [item.history for item in cast(list[Any], choice.indexes)]
    kept = history_of([commit for commit in staying if commit not in choice.dropped])
    for one, other in itertools.combinations([*counted, kept], 2):
        assert agree(one, other)
    for item in cast(list[Any], choice.aside):
        assert not all(agree(item.history, other) for other in [*counted, kept])
