"""`capstan demo`: back up real files, lose them, get them back, and show how."""

from __future__ import annotations

import os
import shutil
import sysconfig
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from capstan.cli.state import State, state

if TYPE_CHECKING:
    from capstan.bootstrap import Capstan

_LIBRARY = "demo"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("demo")(demo)


def demo(
    context: typer.Context,
    source: Path = typer.Option(None, "--source", help="What to back up; by default this Python's own library."),
) -> None:
    """Back up real files to a virtual library, lose them, restore and verify them."""
    from capstan.core.sizes import format_duration, format_size
    from capstan.errors import InvalidValue

    current = state(context)
    chosen = source.absolute() if source else Path(sysconfig.get_paths()["stdlib"])
    if not chosen.is_dir():
        raise InvalidValue(what="source", value=str(chosen), reason="it is not a directory")
    say = current.output.note
    with tempfile.TemporaryDirectory(prefix="capstan-demo-") as folder:
        work = Path(folder)
        say(f"1. A copy of {chosen}, to lose it safely")
        files = work / "files"
        shutil.copytree(chosen, files, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", "site-packages"))
        before = _digest(files)
        say("2. A virtual tape library: 2 drives, 12 cartridges" if _prepare(current) else "2. The demo library")
        say("3. Backup to tape")
        backup = _backup(current, files)
        say(f"4. The files are lost: rm -r {files}")
        shutil.rmtree(files)
        say("5. Restore from tape, every digest checked")
        restore = _restore(current, backup["set_id"])
        after = _digest(files)
    if before != after:
        current.output.note("the restored tree is NOT the one that was backed up")
        raise typer.Exit(6)
    rate = backup["bytes"] / max(backup["seconds"], 1e-3)
    result = {"identical": True, "entries": len(before), "backup": backup, "restore": restore}
    text = "\n".join(
        (
            "",
            f"  library   {_LIBRARY}: virtual, in {current.home / 'libraries' / _LIBRARY}",
            f"  set       {backup['set_id'][:8]} on {', '.join(backup['cartridges'])}",
            f"  files     {backup['files']}, {format_size(backup['bytes'])}",
            f"  stored    {format_size(backup['stored_bytes'])} on tape",
            f"  backup    {format_duration(backup['seconds'])}, {format_size(rate)}/s",
            f"  restore   {format_duration(restore['seconds'])}, {restore['verified_files']} files verified,"
            f" {restore['locates']} locate, {format_size(restore['bytes_read_from_tape'])} read",
            f"  identical: {len(before)} entries compared in content, mode, owner, time and links",
            "",
            "Look around:",
            f"  capstan --home {current.home} sets",
            f"  capstan --home {current.home} find '*.py' --limit 5",
            f"  capstan --home {current.home} tape dump {backup['cartridges'][0]}",
            "There is no web interface yet: it comes with the server.",
        )
    )
    current.output.result(result, text)


def _prepare(current: State) -> bool:
    """Make the demo library if the home has none; whether it was made."""
    from capstan.cli.session import with_home
    from capstan.scsi.virtual.library import LibrarySpec

    async def work(capstan: Capstan) -> bool:
        if _LIBRARY in capstan.settings.libraries:
            return False
        await capstan.create_virtual_library(LibrarySpec(_LIBRARY, barcode_prefix="DEMO"))
        return True

    return with_home(current, work, writing=True)


def _backup(current: State, files: Path) -> dict[str, Any]:
    from capstan.backup.request import BackupRequest
    from capstan.cli.session import run_job
    from capstan.core.job import JobKind

    async def work(capstan: Capstan, job: Any) -> dict[str, Any]:
        request = BackupRequest(
            sources=(os.fsencode(files),), name="demo", library=_LIBRARY, parameters=capstan.parameters()
        )
        return await capstan.backup.run(request, job)

    return run_job(current, JobKind.BACKUP, work, name="demo", library=_LIBRARY)


def _restore(current: State, set_id: str) -> dict[str, Any]:
    from capstan.cli.session import run_job
    from capstan.core.job import JobKind
    from capstan.recovery.select import RestoreRequest

    request = RestoreRequest(reference=set_id, to=Path("/"))
    return run_job(current, JobKind.RESTORE, lambda capstan, job: capstan.restore.run(request, job))


def _digest(root: Path) -> dict[str, tuple[Any, ...]]:
    """What a person would compare: path, type, mode, owner, time, and content or link text."""
    import hashlib

    found: dict[str, tuple[Any, ...]] = {}
    for folder, directories, names in os.walk(root):
        for name in (*directories, *names):
            path = Path(folder) / name
            status = path.lstat()
            content = ""
            if path.is_symlink():
                content = str(path.readlink())
            elif path.is_file():
                content = hashlib.sha256(path.read_bytes()).hexdigest()
            found[str(path)] = (status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, content)
    return found
