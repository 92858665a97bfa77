"""`capstan restore`, `verify` and `rebuild`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

import typer

from capstan.cli.identities import (
    GivenIdentities,
    IdentityFiles,
    IdentityPassphraseFd,
    IdentityPassphraseFile,
    KeyFile,
    PassphraseFd,
    PassphraseFile,
)
from capstan.cli.state import State, state

if TYPE_CHECKING:
    from capstan.bootstrap import Capstan
    from capstan.core.job import JobKind
    from capstan.crypto.identities import Identity
    from capstan.jobs.context import JobContext


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("restore")(restore)
    app.command("verify")(verify)
    app.command("rebuild")(rebuild)


def restore(
    context: typer.Context,
    reference: str = typer.Argument(..., metavar="SET", help="An id, latest:NAME, or NAME@TIME."),
    paths: list[str] = typer.Argument(None, metavar="[PATH…]", help="What to restore; everything by default."),
    to: str = typer.Option(
        ..., "--to", metavar="DIR", help="The directory below which the full paths are made again; / in place."
    ),
    pattern: list[str] = typer.Option([], help="Restore what matches: gitignore syntax; may be repeated."),
    plan: bool = typer.Option(False, "--plan", help="Only say what would be read."),
    on_conflict: str = typer.Option(
        "skip", help="What to do with files that are there: skip, overwrite, keep-newer, rename."
    ),
    strip: int = typer.Option(0, min=0, max=10_000, help="Drop so many leading parts of each path."),
    only_this_set: bool = typer.Option(
        False, "--only-this-set", help="Of an incremental set, what it has stored itself, without its parents."
    ),
    library: str = typer.Option(None, help="The library that has the cartridges."),
    identity: IdentityFiles = None,
    identity_passphrase_file: IdentityPassphraseFile = None,
    identity_passphrase_fd: IdentityPassphraseFd = None,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    key_file: KeyFile = None,
) -> None:
    """Restore files from tape, every digest checked."""
    from capstan import file_system
    from capstan.cli.session import given_path, with_home
    from capstan.core.backup import Conflicts
    from capstan.core.job import JobKind
    from capstan.errors import InvalidValue
    from capstan.recovery.select import RestoreRequest

    try:
        conflicts = Conflicts(on_conflict)
    except ValueError:
        reason = f"use {', '.join(Conflicts)}"
        raise InvalidValue(what="on-conflict", value=on_conflict, reason=reason) from None
    request = RestoreRequest(
        reference=reference,
        to=given_path("to", to),
        library=library or "",
        paths=tuple(map(file_system.selected_path, paths or ())),
        patterns=tuple(pattern),
        conflicts=conflicts,
        strip=strip,
        only_this_set=only_this_set,
    )
    current = state(context)
    if plan:
        found = with_home(current, _in_library(library, lambda capstan: capstan.restore.plan(request)))
        lines = [f"{key.replace('_', ' ')}: {_show(key, value)}" for key, value in found.items()]
        current.output.result(found, "\n".join(lines))
        return
    given = GivenIdentities(
        identity, identity_passphrase_file, identity_passphrase_fd, passphrase_file, passphrase_fd, key_file
    )

    async def identities(capstan: Capstan) -> Sequence[Identity]:
        return given.load(current, await capstan.keys_of(reference, with_parents=not only_this_set))

    def work(capstan: Capstan, job: JobContext, opening: Sequence[Identity]) -> Awaitable[dict[str, Any]]:
        return capstan.restore.run(request, job, opening)

    result = _run(current, JobKind.RESTORE, _in_library(library, work), request.as_parameters(), identities)
    current.output.result(result, restored(result))


def verify(
    context: typer.Context,
    what: str | None = typer.Argument(
        None, metavar="[ID|BARCODE]", help="A set (id, latest:NAME, NAME@TIME) or a cartridge."
    ),
    pool: str | None = typer.Option(None, help="Every cartridge of this pool that is here, instead."),
    copy: int | None = typer.Option(None, min=0, metavar="N", help="Only that copy of the set; 0 is the original."),
    sample: str = typer.Option("100%", help="How much of each set, in whole segments drawn at random, like 5%."),
    library: str = typer.Option(None, help="The library that has the cartridges."),
    identity: IdentityFiles = None,
    identity_passphrase_file: IdentityPassphraseFile = None,
    identity_passphrase_fd: IdentityPassphraseFd = None,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    key_file: KeyFile = None,
) -> None:
    """Read a set, a cartridge or a pool and check every digest; nothing is restored."""
    from capstan.cli.session import with_home
    from capstan.core.job import JobKind
    from capstan.errors import UsageError
    from capstan.recovery.sampling import parse_percent

    if (what is None) == (pool is None):
        raise UsageError(reason="say what to verify: a set, a cartridge, or --pool NAME", hint="see --help")
    if copy is not None and pool is not None:
        raise UsageError(reason="--copy is about one set", hint="leave --pool out")
    percent, named = parse_percent(sample), what if pool is None else pool
    assert named is not None

    async def is_cartridge(capstan: Capstan) -> bool:
        async with capstan.catalog.snapshot() as catalog:
            return await catalog.media.find(named) is not None

    current = state(context)
    given = GivenIdentities(
        identity, identity_passphrase_file, identity_passphrase_fd, passphrase_file, passphrase_fd, key_file
    )
    cartridge = pool is None and copy is None and with_home(current, is_cartridge)

    async def work(capstan: Capstan, job: JobContext, opening: Sequence[Identity]) -> dict[str, Any]:
        verify = capstan.verify
        how: dict[str, Any] = {"library": library or "", "identities": opening, "percent": percent}
        if pool is None and not cartridge:
            return await verify.run_set(named, job, copy=copy, **how)
        return await (verify.run_cartridge if cartridge else verify.run_pool)(named, job, **how)

    parameters = {"what": what or "", "pool": pool or "", "copy": copy, "sample": percent}
    result = _run(current, JobKind.VERIFY, _in_library(library, work), parameters, given.explicit(current))
    text = f"{named} is good: {result['verified_files']} files verified" + _extras(result)
    if result["segments_verified"] < result["segments"]:
        text += f"; {result['segments_verified']} of {result['segments']} segments were drawn"
    elif result["unchecked_files"] and not cartridge:
        text += f"; {result['unchecked_files']} files are sealed: of them every record was verified (see --identity)"
    current.output.result(result, text)


def rebuild(
    context: typer.Context,
    library: str = typer.Option(..., "--library", help="The library whose cartridges to read."),
    identity: IdentityFiles = None,
    identity_passphrase_file: IdentityPassphraseFile = None,
    identity_passphrase_fd: IdentityPassphraseFd = None,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    key_file: KeyFile = None,
) -> None:
    """Make the catalog again from the cartridges alone."""
    from capstan.core.job import JobKind

    current = state(context)
    given = GivenIdentities(
        identity, identity_passphrase_file, identity_passphrase_fd, passphrase_file, passphrase_fd, key_file
    )

    def work(capstan: Capstan, job: JobContext, opening: Sequence[Identity]) -> Awaitable[dict[str, Any]]:
        return capstan.rebuild.run(library, job, opening)

    result = _run(current, JobKind.REBUILD, work, {}, given.explicit(current))
    text = "\n".join(f"{key.replace('_', ' ')}: {value}" for key, value in result.items())
    current.output.result(result, text)
    if result["locked"]:
        current.output.note("locked sets are sealed: run the same with --identity FILE to unlock them")


def _in_library(name: str | None, work: Any) -> Any:
    """`work`, once it is sure that the library that was named is one."""

    async def checked(capstan: Capstan, *arguments: Any) -> Any:
        if name is not None:
            capstan.library(name)
        return await work(capstan, *arguments)

    return checked


def _run(
    current: State,
    kind: JobKind,
    work: Callable[[Capstan, JobContext, Sequence[Identity]], Awaitable[dict[str, Any]]],
    parameters: dict[str, Any],
    identities: Callable[[Capstan], Awaitable[Sequence[Identity]]],
) -> dict[str, Any]:
    """A job with what opens sealed sets, which is asked for before it begins, and is no part of what is kept of it."""
    from capstan.cli.session import with_home

    async def body(capstan: Capstan) -> dict[str, Any]:
        opening = await identities(capstan)
        _, result = await capstan.jobs.run(kind, lambda job: work(capstan, job, opening), parameters=parameters)
        return result

    return shown(current, lambda: with_home(current, body, writing=True))


def shown(current: State, run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Run a job whose error may carry a result: then that is shown before the error ends the command."""
    from capstan.errors import CapstanError

    try:
        return run()
    except CapstanError as error:
        if error.result is None:
            raise
        if current.output.json_mode:
            current.output.result({**error.result, "error": error.as_dict()})
        else:
            for problem in error.result.get("problems", [])[:20]:
                place = (
                    f"{problem.get('cartridge') or ''} block {problem.get('block')}" if problem.get("cartridge") else ""
                )
                current.output.note(
                    f"{problem.get('path') or ''}: {problem.get('what') or problem.get('code')} {place}".rstrip()
                )
            for trouble in error.result.get("damage", [])[:20]:
                current.output.note(
                    f"damage on {trouble.get('cartridge')}, block {trouble.get('block')}: {trouble.get('what')}"
                )
            current.output.error(error)
        raise typer.Exit(error.exit_code) from None


def restored(result: dict[str, Any]) -> str:
    """One line about what a restore did."""
    from capstan.core.sizes import format_size

    text = f"{result['verified_files']} files verified, {format_size(result['bytes_read_from_tape'])} read from tape"
    if result["files_from_copies"]:
        text += f", {result['files_from_copies']} files from copies"
    return text + _extras(result)


def _extras(result: dict[str, Any]) -> str:
    words = [f"{result[key]} {key}" for key in ("skipped", "warnings", "restored_before") if result.get(key)]
    return f" ({', '.join(words)})" if words else ""


def _show(key: str, value: Any) -> str:
    from capstan.core.sizes import format_size

    if key.endswith("bytes") or key.startswith("bytes"):
        return format_size(value)
    if isinstance(value, list):
        return ", ".join(str(item) for item in value) or "none"
    return str(value)
