"""`capstan sets`, `set` and `find`: what is on the tapes, without touching them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from capstan.cli.state import State, state

if TYPE_CHECKING:
    from capstan.bootstrap import Capstan
    from capstan.catalog.catalog import Repositories
    from capstan.core.backup import BackupSet
    from capstan.fileindex.chain import ChainSet
    from capstan.fileindex.comparison import Difference
    from capstan.fileindex.search import FileSearch, FoundFile

set_app = typer.Typer(help="One set: what it is, its files, how it differs from another.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("sets")(list_sets)
    app.add_typer(set_app, name="set")
    app.command("find")(find)


def list_sets(context: typer.Context, name: str = typer.Option(None, help="Only this series.")) -> None:
    """All sets, oldest first."""
    from capstan.cli.session import with_home
    from capstan.core.sizes import format_size
    from capstan.core.suggest import not_found

    async def work(capstan: Capstan) -> list[tuple[BackupSet, list[dict[str, Any]]]]:
        async with capstan.catalog.snapshot() as catalog:
            found = list(await catalog.backups.list(name=name))
            if name is not None and not found:
                known = {item.name for item in await catalog.backups.list()}
                raise not_found("series", name, known, "`capstan sets` lists all")
            return [(item, await _copies(catalog, item)) for item in found]

    found = with_home(state(context), work)
    rows = [
        (s.id[:8], s.name, s.type.value, s.state.value, _local(s.created_at), _local(s.finished_at), s.files,
         format_size(s.bytes), sum(copy["copy"] > 0 and copy["whole"] for copy in copies), " ".join(s.cartridges))
        for s, copies in found
    ]  # fmt: skip
    columns = ("SET", "NAME", "TYPE", "STATE", "STARTED", "ENDED", "FILES", "SIZE", "COPIES", "CARTRIDGES")
    told = [{**_set(item), "copies": copies} for item, copies in found]
    state(context).output.table(told, columns, rows, "no sets yet")


async def _copies(catalog: Repositories, found: BackupSet) -> list[dict[str, Any]]:
    from capstan.catalog.copies import copies_of

    return [copy.as_dict() for copy in await copies_of(catalog, found)]


def _local(time: datetime | None) -> str:
    return f"{time.astimezone():%Y-%m-%d %H:%M:%S}" if time else ""


@set_app.command("show")
def show(context: typer.Context, set_id: str) -> None:
    """Everything about one set."""
    from capstan.cli.session import with_home
    from capstan.recovery.select import resolve_set

    async def work(capstan: Capstan) -> dict[str, Any]:
        async with capstan.catalog.snapshot() as catalog:
            found = await resolve_set(catalog, set_id)
            segments = await catalog.backups.list_segments(found.id)
            commits = await catalog.backups.list_commits(set_id=found.id)
            copies = await _copies(catalog, found)
        counted = {"segments": len(segments), "commit_points": len(commits)}
        return {**_set(found), **counted, "copies": copies}

    found = with_home(state(context), work)
    shown = [(key, value) for key, value in found.items() if key != "copies" and value not in ("", [], None)]
    lines = [f"{key.replace('_', ' ')}: {value}" for key, value in shown]
    lines += [_copy_line(copy) for copy in found["copies"] if copy["copy"]]
    state(context).output.result(found, "\n".join(lines))


def _copy_line(copy: dict[str, Any]) -> str:
    places = [f"{item['barcode']} ({item['place'] or 'outside'}, {item['state']})" for item in copy["cartridges"]]
    return f"copy {copy['copy']}, {'whole' if copy['whole'] else 'not whole'}: {', '.join(places)}"


@set_app.command("files")
def files(
    context: typer.Context,
    set_id: str,
    prefix: str = typer.Option("", help="Only at and below this path."),
    stored: bool = typer.Option(False, "--stored", help="Of an incremental set, only what it has stored itself."),
) -> None:
    """The files of a set: of an incremental one, the whole tree at its time."""
    from itertools import chain as concatenated

    from capstan.errors import NotFound

    search, chain = _chain(state(context), set_id, stored=stored)
    rows = iter(search.list_files(chain, prefix))
    first = next(rows, None)
    if first is None and prefix.strip("/"):
        raise NotFound(what=f"path in set {chain[-1].set_id[:8]}", name=prefix, hint="`capstan find` looks in all sets")
    _print_files(state(context), concatenated([first] if first else [], rows), with_set=len(chain) > 1)


@set_app.command("diff")
def diff(context: typer.Context, before: str, after: str) -> None:
    """What changed from one set to another: added, removed, changed, moved."""
    search, first = _chain(state(context), before)
    _, second = _chain(state(context), after)
    found = search.diff(first, second)
    if state(context).output.json_mode:
        state(context).output.array(_difference(item) for item in found)
        return
    marks = {"added": "+", "removed": "-", "changed": "*", "moved": ">"}
    for item in found:
        print(f"{marks[item.change]} /{item.path}" + (f"  (was /{item.moved_from})" if item.moved_from else ""))


def find(
    context: typer.Context,
    pattern: str = typer.Argument(..., help="Part of a path, or a glob with * ? [ ]."),
    set_id: str = typer.Option(None, "--set", help="Only in this set."),
    since: str = typer.Option(None, help="Only files modified at or after this time (ISO 8601)."),
    limit: int = typer.Option(0, min=0, max=10**9, help="Stop after so many; 0: all."),
) -> None:
    """Look for files in all sets, newest set first: each is named once for every set that has stored it."""
    from capstan.cli.session import with_home
    from capstan.errors import InvalidValue

    after = None
    if since is not None:
        try:
            after = datetime.fromisoformat(since).astimezone(UTC)
        except (ValueError, OverflowError):
            raise InvalidValue(
                what="since", value=since, reason="write it as 2026-01-31 or 2026-01-31T12:00:00"
            ) from None

    async def work(capstan: Capstan) -> tuple[FileSearch, list[BackupSet], list[list[Path]]]:
        from capstan.recovery.select import resolve_set

        async with capstan.catalog.snapshot() as catalog:
            sets = (
                [await resolve_set(catalog, set_id)] if set_id is not None else list(await catalog.backups.list())[::-1]
            )
            return capstan.search, sets, [await _committed(capstan, catalog, item.id) for item in sets]

    search, sets, parts = with_home(state(context), work)
    pairs = [(item.id, paths) for item, paths in zip(sets, parts, strict=True)]
    _print_files(state(context), search.find(pairs, pattern, since=after, limit=limit or None), with_set=True)


def _chain(current: State, set_id: str, *, stored: bool = False) -> tuple[FileSearch, list[ChainSet]]:
    """The set's file index, with those of the sets it builds on unless only what it has `stored` is wanted; a note
    says what the set lacks."""
    import asyncio

    from capstan.catalog.chains import Shortfall, chain_of, find_shortfall, index_chain
    from capstan.cli.session import with_home
    from capstan.recovery.select import resolve_set

    async def work(capstan: Capstan) -> tuple[FileSearch, list[ChainSet], Shortfall | None]:
        async with capstan.catalog.snapshot() as catalog:
            found = await resolve_set(catalog, set_id)
            sets = [found] if stored else await chain_of(catalog, found)
            indexes = await index_chain(catalog, capstan.store, sets)
        return capstan.search, indexes, await asyncio.to_thread(find_shortfall, sets, indexes)

    search, indexes, shortfall = with_home(current, work)
    if shortfall is not None:
        current.output.note(f"{shortfall} [{shortfall.code}]")
    return search, indexes


async def _committed(capstan: Capstan, catalog: Repositories, set_id: str) -> list[Path]:
    """The file index of a set, of its commit points only: what a killed process left beside them does not count."""
    from capstan.catalog.chains import all_commits
    from capstan.core.history import history_of

    history = history_of(commit for commit in await all_commits(catalog, set_id) if not commit.locked)
    return [part.files for part in capstan.store.parts(set_id, history)]


def _print_files(current: State, found: Iterator[FoundFile], *, with_set: bool = False) -> None:
    """A table's lines as they come: there may be millions."""
    if current.output.json_mode:
        current.output.array(item.as_dict() for item in found)
        return
    for item in found:
        prefix = f"{item.set_id[:8]}  " if with_set else ""
        time = f"{item.modified_at.astimezone():%Y-%m-%d %H:%M}"
        print(f"{prefix}{item.type:8} {item.mode:04o} {item.size:>14} {time}  /{item.path}")


def _difference(found: Difference) -> dict[str, Any]:
    value = {"change": found.change, "path": "/" + found.path}
    return value | ({"moved_from": "/" + found.moved_from} if found.moved_from else {})


def _set(found: BackupSet) -> dict[str, Any]:
    from dataclasses import asdict

    value = asdict(found)
    value["set_id"] = value.pop("id")
    return value
