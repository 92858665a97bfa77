"""`capstan copy`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from capstan.cli.state import state

if TYPE_CHECKING:
    from capstan.bootstrap import Capstan


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("copy")(copy)


def copy(
    context: typer.Context,
    reference: str = typer.Argument(None, metavar="[SET]", help="An id, latest:NAME, or NAME@TIME."),
    missing: bool = typer.Option(False, "--missing", help="Every set that lacks the copy that its pool demands."),
    pool: str = typer.Option(None, help="The pool to copy to; by default the copy pool of the set's pool."),
    library: str = typer.Option(None, help="The library to write in; not needed when there is only one."),
) -> None:
    """Copy a set to other cartridges. Run again, it goes on where it ended; no key is needed for it."""
    from capstan.cli.recovery import shown
    from capstan.cli.session import given_text, only_library, with_home
    from capstan.core.job import JobKind
    from capstan.errors import InvalidValue

    if missing == (reference is not None):
        raise InvalidValue(what="set", value=reference or "", reason="name a set, or say --missing")
    wanted = given_text("pool", pool, "")

    async def body(capstan: Capstan) -> dict[str, Any]:
        where = await only_library(capstan, library)

        async def work(job: Any) -> dict[str, Any]:
            if missing:
                return await capstan.copying.run_missing(job, library=where, pool=wanted)
            return await capstan.copying.run(reference, job, library=where, pool=wanted)

        parameters = {"set": reference or "", "missing": missing, "pool": wanted}
        _, result = await capstan.jobs.run(JobKind.COPY, work, library=where, parameters=parameters)
        return result

    current = state(context)
    result = shown(current, lambda: with_home(current, body, writing=True))
    made = result["copied"] if missing else [result]
    current.output.result(result, "\n".join(map(_line, made)) or "nothing lacks its copy")


def _line(made: dict[str, Any]) -> str:
    from capstan.core.sizes import format_size

    where = ", ".join(item["barcode"] for item in made["cartridges"])
    done = f"{made['segments_copied']} segments, {format_size(made['bytes_copied'])}, copied"
    whole = "whole" if made["whole"] else "not whole"
    return f"copy {made['copy']} of set {made['set_id'][:8]} {made['name']} is {whole}, on {where}: {done}"
