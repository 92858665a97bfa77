"""`capstan pool`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import typer

from capstan.cli.state import state

if TYPE_CHECKING:
    from capstan.bootstrap import Capstan
    from capstan.catalog.catalog import Repositories
    from capstan.core.media import Pool

pool_app = typer.Typer(help="Pools: groups of cartridges that sets are written to.", no_args_is_help=True)

_RECIPIENT = typer.Option(
    None, help="Whom sets are sealed for: age1…, an SSH public key, @FILE with such lines, or the name of a key."
)
_DRIVE_KEY = typer.Option(
    None, "--drive-encryption", metavar="KEY", help="The drive encrypts its sets with this key (key create --drive)."
)
_VERIFY = typer.Option(None, help="Whether each set is read again, and compared, in the job that has written it.")
_ESCROW = typer.Option(
    None, help="Whether nothing is written before an export of a key that opens it was proven by `key drill`."
)

_ONE = "a set is sealed for recipients or encrypted by the drive, not both: take one of them back"


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(pool_app, name="pool")


@pool_app.command("create")
def create(
    context: typer.Context,
    name: str,
    scratch: bool = typer.Option(True, help="Whether it takes scratch cartridges by itself."),
    description: str = typer.Option("", help="What it is for."),
    recipient: list[str] = _RECIPIENT,
    drive_encryption: str = _DRIVE_KEY,
    require_escrow: bool = _ESCROW,
    copy_pool: str = typer.Option("", help="The pool that each of its sets is copied to, in the same job."),
    verify_writes: bool = _VERIFY,
) -> None:
    """Make a pool."""
    from capstan.cli.session import with_home
    from capstan.core.ids import check_name
    from capstan.core.media import Pool
    from capstan.errors import InvalidValue

    check_name("pool", name)
    if recipient and drive_encryption:
        raise InvalidValue(what="encryption", value="", reason=_ONE)

    async def work(capstan: Capstan) -> dict[str, Any]:
        pool = Pool(
            name,
            capstan.clock.now(),
            scratch,
            recipients=capstan.recipients(recipient or ()),
            drive_key=capstan.drive_key(drive_encryption) if drive_encryption else "",
            require_escrow=bool(require_escrow),
            description=description,
            copy_pool=copy_pool,
            verify_writes=bool(verify_writes),
        )
        async with capstan.catalog.transaction() as catalog:
            await _check_copy_pool(pool, catalog)
            await catalog.media.add_pool(pool)
            return await _told(pool, catalog)

    made = with_home(state(context), work)
    state(context).output.result(made, f"pool {name}")


@pool_app.command("change")
def change(
    context: typer.Context,
    name: str,
    scratch: bool = typer.Option(None, help="Whether it takes scratch cartridges by itself."),
    description: str = typer.Option(None, help="What it is for."),
    recipient: list[str] = _RECIPIENT,
    no_recipients: bool = typer.Option(False, "--no-recipients", help="Seal its sets no longer."),
    drive_encryption: str = _DRIVE_KEY,
    no_drive_encryption: bool = typer.Option(False, "--no-drive-encryption", help="Let the drive encrypt no longer."),
    require_escrow: bool = _ESCROW,
    copy_pool: str = typer.Option(None, help="The pool that each of its sets is copied to; an empty text for none."),
    verify_writes: bool = _VERIFY,
) -> None:
    """Change what is said of a pool. It holds for the sets that come; those that are there stay as they are."""
    from capstan.cli.session import with_home
    from capstan.errors import InvalidValue

    if recipient and no_recipients:
        raise InvalidValue(what="recipients", value="", reason="give --recipient or --no-recipients")
    if drive_encryption and no_drive_encryption:
        reason = "give --drive-encryption or --no-drive-encryption"
        raise InvalidValue(what="encryption", value="", reason=reason)
    said = {
        "scratch": scratch,
        "description": description,
        "require_escrow": require_escrow,
        "copy_pool": copy_pool,
        "verify_writes": verify_writes,
    }
    changes: dict[str, Any] = {key: value for key, value in said.items() if value is not None}
    if recipient or no_recipients or drive_encryption or no_drive_encryption:
        changes["blocked"] = ""

    async def work(capstan: Capstan) -> dict[str, Any]:
        if recipient or no_recipients:
            changes["recipients"] = capstan.recipients(recipient or ())
        if drive_encryption or no_drive_encryption:
            changes["drive_key"] = capstan.drive_key(drive_encryption) if drive_encryption else ""
        async with capstan.catalog.transaction() as catalog:
            pool = replace(await catalog.media.get_pool(name), **changes)
            if pool.recipients and pool.drive_key:
                raise InvalidValue(what="encryption", value=name, reason=_ONE)
            await _check_copy_pool(pool, catalog)
            await catalog.media.save_pool(pool)
            return await _told(pool, catalog)

    changed = with_home(state(context), work)
    state(context).output.result(changed, _lines(changed))


@pool_app.command("list")
def list_pools(context: typer.Context) -> None:
    """All pools."""
    found = _pools(context, None)
    rows = [
        (
            item["name"],
            "yes" if item["scratch"] else "no",
            _encryption(item),
            len(item["cartridges"]),
            item["description"],
        )
        for item in found
    ]
    columns = ("NAME", "SCRATCH", "ENCRYPTION", "CARTRIDGES", "DESCRIPTION")
    state(context).output.table(found, columns, rows, "no pools yet")


@pool_app.command("show")
def show(context: typer.Context, name: str) -> None:
    """One pool and its cartridges."""
    found = _pools(context, name)[0]
    state(context).output.result(found, _lines(found))


def _encryption(pool: dict[str, Any]) -> str:
    return "age" if pool["recipients"] else "drive" if pool["drive_key"] else "none"


def _lines(pool: dict[str, Any]) -> str:
    lines = [f"pool {pool['name']}: {pool['description']}"]
    lines += [
        f"sealed for {recipient} (key {key})" for recipient, key in zip(pool["recipients"], pool["keys"], strict=True)
    ]
    lines += [f"its drive encrypts with key {pool['drive_key']}"] if pool["drive_key"] else []
    lines += ["nothing is written before the export of a key was proven"] if pool["require_escrow"] else []
    lines += [f"blocked: {pool['blocked']}"] if pool["blocked"] else []
    lines += ["each set is read again after it was written"] if pool["verify_writes"] else []
    lines += [f"each set is copied to pool {pool['copy_pool']}"] if pool["copy_pool"] else []
    return "\n".join([*lines, *pool["cartridges"]])


async def _check_copy_pool(pool: Pool, catalog: Repositories) -> None:
    """NotFound for a pool that is not there; InvalidValue for the pool itself, on whose cartridges the sets are, and
    for one that promises more than this one."""
    from capstan.core.backup import Encryption
    from capstan.core.pool_rules import unfit_for
    from capstan.errors import InvalidValue

    if pool.copy_pool == pool.name:
        raise InvalidValue(what="copy pool", value=pool.name, reason="a copy belongs on cartridges of another pool")
    if pool.copy_pool:
        await catalog.media.get_pool(pool.copy_pool)
    if pool.copy_pool:
        encryption = Encryption.AGE if pool.recipients else Encryption.NONE
        if reason := unfit_for(await catalog.media.get_pool(pool.copy_pool), encryption, pool.recipients):
            raise InvalidValue(what="copy pool", value=pool.copy_pool, reason=f"a set of pool {pool.name} {reason}")
    if pool.copy_pool and pool.drive_key:
        reason = "what a drive encrypts is not copied: give the pool recipients instead"
        raise InvalidValue(what="copy pool", value=pool.copy_pool, reason=reason)


def _pools(context: typer.Context, name: str | None) -> list[dict[str, Any]]:
    from capstan.cli.session import with_home

    async def work(capstan: Capstan) -> list[dict[str, Any]]:
        async with capstan.catalog.snapshot() as catalog:
            pools = await catalog.media.list_pools() if name is None else [await catalog.media.get_pool(name)]
            return [await _told(pool, catalog) for pool in pools]

    return with_home(state(context), work)


async def _told(pool: Pool, catalog: Repositories) -> dict[str, Any]:
    from capstan.crypto.key_ids import key_id

    return {
        "name": pool.name,
        "scratch": pool.scratch,
        "description": pool.description,
        "recipients": pool.recipients,
        "keys": [key_id(recipient) for recipient in pool.recipients],
        "drive_key": pool.drive_key,
        "require_escrow": pool.require_escrow,
        "copy_pool": pool.copy_pool,
        "verify_writes": pool.verify_writes,
        "blocked": pool.blocked,
        "cartridges": [item.barcode for item in await catalog.media.list(pool=pool.name)],
    }
