"""`capstan backup`."""

from __future__ import annotations

import os
import re
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
from capstan.cli.state import state

if TYPE_CHECKING:
    from capstan.bootstrap import Capstan


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("backup")(backup)


def backup(
    context: typer.Context,
    sources: list[str] = typer.Argument(..., metavar="SOURCE…", help="Files and directories."),
    name: str = typer.Option(None, help="The series of sets that this one belongs to; by default the source's name."),
    pool: str = typer.Option("default", help="The pool of cartridges to write to."),
    kind: str = typer.Option(
        "full",
        "--type",
        help="full; incremental: what changed since the newest set; differential: since the newest full one.",
    ),
    exclude: list[str] = typer.Option([], help="What to leave out: a pattern in gitignore syntax; may be repeated."),
    codec: str = typer.Option(None, help="zstd:3, lz4, gzip:6, none; in 7z: lzma2:0, deflate:2, copy."),
    container: str = typer.Option(None, help="tar, or 7z: each segment on tape is an archive that 7-Zip opens."),
    recipient: list[str] = typer.Option(
        [], help="Whom the set is sealed for, instead of its pool's: age1…, an SSH public key, @FILE, or a key's name."
    ),
    library: str = typer.Option(None, help="The library to use; not needed when there is only one."),
    one_file_system: bool = typer.Option(False, "--one-file-system", help="Do not cross mount points."),
    identity: IdentityFiles = None,
    identity_passphrase_file: IdentityPassphraseFile = None,
    identity_passphrase_fd: IdentityPassphraseFd = None,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    key_file: KeyFile = None,
) -> None:
    """Back up files and directories to tape."""
    from capstan.backup.request import BackupRequest
    from capstan.cli.recovery import shown
    from capstan.cli.session import given_text, only_library, with_home
    from capstan.core.backup import SetType
    from capstan.core.ids import check_name
    from capstan.core.job import JobKind
    from capstan.errors import InvalidValue

    try:
        set_type = SetType(kind)
    except ValueError:
        raise InvalidValue(what="type", value=kind, reason="use full, incremental or differential") from None
    paths = tuple(_source(source) for source in sources)
    series = check_name("name", _default_name(paths[0]) if name is None else name)
    given_text("pool", pool, "")
    chosen_codec = given_text("codec", codec, "")
    chosen_container = given_text("container", container, "")

    current = state(context)
    given = GivenIdentities(
        identity, identity_passphrase_file, identity_passphrase_fd, passphrase_file, passphrase_fd, key_file
    )

    async def body(capstan: Capstan) -> dict[str, Any]:
        request = BackupRequest(
            sources=paths,
            name=series,
            library=await only_library(capstan, library),
            pool=pool,
            type=set_type,
            excludes=tuple(exclude),
            one_file_system=one_file_system,
            recipients=tuple(capstan.recipients(recipient)),
            parameters=capstan.parameters(chosen_codec or None, chosen_container or None),
        )
        wanted = set() if request.recipients else await capstan.keys_to_write(pool)
        opening = given.load(current, wanted) if wanted else []
        _, result = await capstan.jobs.run(
            JobKind.BACKUP,
            lambda job: capstan.back_up(request, job, opening),
            name=series,
            library=request.library,
            parameters=request.as_parameters(),
        )
        return result

    result = shown(current, lambda: with_home(current, body, writing=True))
    current.output.result(result, summary(result, pace(result)))


def summary(result: dict[str, Any], pace: str = "") -> str:
    """One line about the set that a backup has made."""
    from capstan.core.sizes import format_size

    text = (
        f"set {result['set_id'][:8]} {result['name']} ({result['type']}): {result['files']} files,"
        f" {format_size(result['bytes'])}{pace}, {format_size(result['stored_bytes'])} on"
        f" {', '.join(result['cartridges'])}"
    )
    for copied in result.get("copies", ()):
        text += f"; copied to {', '.join(item['barcode'] for item in copied['cartridges'])}"
    return f"{text}; {result['warnings']} warnings" if result["warnings"] else text


def pace(result: dict[str, Any]) -> str:
    """How long a backup of all that took."""
    from capstan.core.sizes import format_duration, format_size

    seconds = max(result["seconds"], 1e-3)
    return f" in {format_duration(seconds)} ({format_size(result['bytes'] / seconds)}/s)"


def _default_name(path: bytes) -> str:
    """A series name from the last part of the source's path, in characters that a name may have."""
    last = os.fsdecode(os.path.basename(path.rstrip(b"/"))) or "root"  # noqa: PTH119 (bytes)
    kept = re.sub(r"[^A-Za-z0-9._-]", "-", last)
    return (kept.lstrip("._-") or "backup")[:64]


def _source(text: str) -> bytes:
    """With a slash behind it a link means what it leads to, as for other programs; without, the link itself."""
    from capstan.cli.session import given_path

    path = os.path.abspath(os.fsencode(given_path("source", text)))  # noqa: PTH100 (bytes)
    return os.path.realpath(path) if text.endswith(("/", os.sep)) else path
