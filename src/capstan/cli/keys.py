"""`capstan key`: secret keys, their exports, and the proof that an export works. It needs no catalog and no tapes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from capstan.cli.identities import (
    IdentityPassphraseFd,
    IdentityPassphraseFile,
    KeyFile,
    PassphraseFd,
    PassphraseFile,
)
from capstan.cli.state import State, state

if TYPE_CHECKING:
    from capstan.cli.secrets import PassphraseFrom, UnlockFrom
    from capstan.crypto.file_keystore import FileKeyStore
    from capstan.crypto.key_export import Export
    from capstan.crypto.keystore import Key
    from capstan.errors import CapstanError

key_app = typer.Typer(help="Secret keys: make, export, prove and retire them.", no_args_is_help=True)

_Name = Annotated[str, typer.Argument(metavar="ID|NAME", help="A key: its name, or how its id begins.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(key_app, name="key")


@key_app.command("create")
def create(
    context: typer.Context,
    name: str,
    drive: Annotated[bool, typer.Option("--drive", help="A key for encryption by the drive.")] = False,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    key_file: KeyFile = None,
) -> None:
    """Make a key. With the first one the key store is made, and asks for a new passphrase."""
    from capstan.core.ids import check_name
    from capstan.crypto.keystore import KeyKind

    check_name("key name", name)
    store = _store_or_new(state(context), _unlock_from(passphrase_file, passphrase_fd, key_file))
    key = store.create_key(KeyKind.DRIVE if drive else KeyKind.AGE, name)
    text = f"{_describe(key)}\nexport it before it is used: capstan key export {name} --to FILE"
    state(context).output.result(_value(key), text)


@key_app.command("list")
def list_keys(context: typer.Context) -> None:
    """All keys, oldest first."""
    from capstan.errors import KeysDamaged, NotFound

    keys: Sequence[Key] = []
    damage: KeysDamaged | None = None
    with suppress(NotFound):
        keys, damage = _store(state(context)).readable()
    output = state(context).output
    rows = [
        (key.name, key.id, key.kind.value, key.state.value, _day(key.created_at), _day(key.proven_at)) for key in keys
    ]
    columns = ("NAME", "ID", "KIND", "STATE", "CREATED", "PROVEN")
    if damage is None:
        output.table([_value(key) for key in keys], columns, rows, "no keys yet")
        return
    if output.json_mode:
        output.array(_then(map(_value, keys), damage))
    elif rows:
        output.table([], columns, rows, "")
    raise damage


def _then(values: Iterable[dict[str, Any]], error: CapstanError) -> Iterator[dict[str, Any]]:
    yield from values
    raise error


@key_app.command("show")
def show(context: typer.Context, key: _Name) -> None:
    """What anybody may know of a key: its recipient, its state, when an export of it was proven."""
    found = _store(state(context)).get(key)
    state(context).output.result(_value(found), _describe(found))


@key_app.command("export")
def export(
    context: typer.Context,
    keys: Annotated[list[str], typer.Argument(metavar="ID|NAME…", help="Keys: names, or how ids begin.")],
    to: Annotated[str, typer.Option("--to", metavar="FILE", help="A new file; .txt and .pdf: the sheet.")],
    sheet: Annotated[str | None, typer.Option(metavar="FILE.pdf", help="Also a sheet for paper.")] = None,
    identity_passphrase_file: IdentityPassphraseFile = None,
    identity_passphrase_fd: IdentityPassphraseFd = None,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    key_file: KeyFile = None,
) -> None:
    """Seal keys by a passphrase of their own, in a file that `age -d` opens too, and on a sheet for the safe."""
    from datetime import UTC, datetime

    from capstan.cli.session import given_path
    from capstan.crypto.key_export import check_new, export_keys
    from capstan.errors import InvalidValue

    targets = [given_path("to", to), *([given_path("sheet", sheet)] if sheet is not None else [])]
    for path in targets:
        check_new(path)
    if sheet is not None and (targets[1].suffix.lower() != ".pdf" or targets[0] == targets[1]):
        raise InvalidValue(what="sheet", value=sheet, reason="name another file than --to, which ends with .pdf")
    store = _store(state(context), _unlock_from(passphrase_file, passphrase_fd, key_file))
    chosen = list({key.id: key for key in map(store.get, keys)}.values())
    with store.open(chosen[0].id):
        pass  # a wrong passphrase is told before a new one is asked for
    with _export_from(identity_passphrase_file, identity_passphrase_fd).read(new=True) as passphrase:
        made = export_keys(store, chosen, passphrase, datetime.now(UTC))
    _write_all(made, targets)
    files = [str(path) for path in targets]
    value = {"keys": [_value(key) for key in chosen], "files": files}
    text = f"{', '.join(key.name for key in chosen)} → {', '.join(files)}\n"
    text += f"prove it: capstan key drill --identity {targets[0]}" if targets[0].suffix != ".pdf" else ""
    state(context).output.result(value, text.rstrip())


@key_app.command("import")
def import_keys(
    context: typer.Context,
    file: Annotated[str, typer.Argument(metavar="FILE", help="An export, or a file with AGE-SECRET-KEY-1…")],
    name: Annotated[str | None, typer.Option(help="What to call a key that has no name, or another one.")] = None,
    identity_passphrase_file: IdentityPassphraseFile = None,
    identity_passphrase_fd: IdentityPassphraseFd = None,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    key_file: KeyFile = None,
) -> None:
    """Take in the keys of a file. Those that are there already stay as they are."""
    from capstan.cli.secrets import for_files
    from capstan.cli.session import given_path
    from capstan.core.ids import check_name
    from capstan.crypto.identity_files import read_keys
    from capstan.errors import InvalidValue

    ask = for_files(_export_from(identity_passphrase_file, identity_passphrase_fd))
    found = read_keys(given_path("file", file), ask)
    if name is not None and len(found) > 1:
        raise InvalidValue(what="name", value=name, reason=f"there are {len(found)} keys in the file; leave it out")
    names = [check_name("key name", name or key.name) if name or key.name else "" for key in found]
    if not all(names):
        raise InvalidValue(what="name", value="", reason="a key in the file has no name; give --name, one key a file")
    store = _store_or_new(state(context), _unlock_from(passphrase_file, passphrase_fd, key_file))
    known = {key.id for key in store.list()}
    taken: list[Key] = []
    for called, key in zip(names, found, strict=True):
        with key.secret:
            taken.append(store.take_in(key.kind, called, key.secret))
        if key.retired and taken[-1].id not in known:
            taken[-1] = store.retire(taken[-1].id)
    value = [{**_value(key), "was_there": key.id in known} for key in taken]
    lines = [f"{key.name}  {key.id}" + ("  was there already" if key.id in known else "") for key in taken]
    state(context).output.result(value, "\n".join(lines))


@key_app.command("retire")
def retire(context: typer.Context, key: _Name) -> None:
    """Seal nothing new with a key. It opens what it has sealed, as before."""
    retired = _store(state(context)).retire(key)
    state(context).output.result(_value(retired), f"{_describe(retired)}\nkeep its export: it opens what it has sealed")


@key_app.command("rotate")
def rotate(
    context: typer.Context,
    key: _Name,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    key_file: KeyFile = None,
) -> None:
    """Make the next key of a series (NAME, NAME.2, NAME.3 …) and retire those before it."""
    store = _store(state(context), _unlock_from(passphrase_file, passphrase_fd, key_file))
    new = store.rotate(key)
    retired = [found for found in store.list() if found.series == new.series and found.id != new.id]
    value = {**_value(new), "retired": [found.id for found in retired]}
    text = (
        f"{_describe(new)}\nretired: {', '.join(found.name for found in retired)}; keep their exports\n"
        "whatever names a retired key seals for it until it is given the new one\n"
        f"export it before it is used: capstan key export {new.name} --to FILE"
    )
    state(context).output.result(value, text)


@key_app.command("passphrase")
def passphrase(
    context: typer.Context,
    new_passphrase_file: Annotated[
        str | None, typer.Option(metavar="FILE", help="The new one is in this file.")
    ] = None,
    new_passphrase_fd: Annotated[int | None, typer.Option(metavar="N", help="… is read from this descriptor.")] = None,
    new_key_file: Annotated[str | None, typer.Option(metavar="FILE", help="From now on this file unlocks.")] = None,
    passphrase_file: PassphraseFile = None,
    passphrase_fd: PassphraseFd = None,
    key_file: KeyFile = None,
) -> None:
    """Unlock the key store by another passphrase, or key file, from now on. Exports keep theirs."""
    from capstan.cli.secrets import PassphraseFrom, UnlockFrom

    store = _store(state(context), _unlock_from(passphrase_file, passphrase_fd, key_file))
    source = PassphraseFrom("the key store", "new-passphrase", new_passphrase_file, new_passphrase_fd)
    by_key_file = new_key_file is not None
    new = UnlockFrom(source, "new-key-file", new_key_file)
    store.change_unlocking(lambda: new.read(by_key_file=by_key_file, new=True), key_file=by_key_file)
    what = "key file" if by_key_file else "passphrase"
    state(context).output.result(
        {"unlocked_by": what}, f"the key store has another {what}; what was exported keeps its own"
    )


@key_app.command("drill")
def drill(
    context: typer.Context,
    identity: Annotated[list[str], typer.Option("--identity", metavar="FILE", help="An export; may be repeated.")],
    identity_passphrase_file: IdentityPassphraseFile = None,
    identity_passphrase_fd: IdentityPassphraseFd = None,
) -> None:
    """Prove that an export opens what is sealed for its keys. The key store is not unlocked; it notes the proof."""
    from datetime import UTC, datetime

    from capstan.cli.secrets import for_files
    from capstan.cli.session import given_path
    from capstan.crypto.drill import prove_export
    from capstan.crypto.identity_files import read_keys
    from capstan.errors import IdentityUnusable

    store = _store(state(context))
    paths = [given_path("identity", file) for file in identity]
    ask = for_files(_export_from(identity_passphrase_file, identity_passphrase_fd))
    exported = [key for path in paths for key in read_keys(path, ask)]
    proven = prove_export(store, exported, datetime.now(UTC))
    if not proven:
        raise IdentityUnusable(path=paths[0], reason="none of its keys is in the key store, so nothing was proven")
    known = {key.id for key in proven}
    others = sorted({key.id for key in exported} - known)
    lines = [f"proven: {key.name}  {key.id}" for key in proven]
    lines += [f"not in the key store: {key_id}" for key_id in others]
    state(context).output.result({"proven": [_value(key) for key in proven], "unknown": others}, "\n".join(lines))


def _unlock_from(passphrase_file: str | None, passphrase_fd: int | None, key_file: str | None) -> UnlockFrom:
    from capstan.cli.secrets import unlock_from

    return unlock_from(passphrase_file, passphrase_fd, key_file)


def _store(current: State, unlock: UnlockFrom | None = None) -> FileKeyStore:
    from capstan.cli.secrets import home_keys

    return home_keys(current, unlock)


def _export_from(file: str | None, fd: int | None) -> PassphraseFrom:
    from capstan.cli.secrets import PassphraseFrom

    return PassphraseFrom("the exported file", "identity-passphrase", file, fd)


def _store_or_new(current: State, unlock: UnlockFrom) -> FileKeyStore:
    """The home's key store; a new one if there is none, unlocked by a key file if one was given."""
    from capstan.errors import NotFound
    from capstan.home_keys import create_keys

    try:
        return _store(current, unlock)
    except NotFound:
        by_key_file = unlock.key_file is not None
        home = current.home.absolute()
        store = create_keys(home, lambda: unlock.read(by_key_file=by_key_file, new=True), key_file=by_key_file)
        current.output.note("a key store was made: without what unlocks it, only exports bring its keys back")
        return store


def _write_all(made: Export, targets: Sequence[Path]) -> None:
    """An export to new files, all or none of them."""
    from capstan.crypto.key_export import write_new
    from capstan.crypto.key_sheet import as_pdf, as_text
    from capstan.errors import CapstanError

    written: list[Path] = []
    try:
        for path in targets:
            suffix = path.suffix.lower()
            content = (
                as_pdf(made) if suffix == ".pdf" else (as_text(made) if suffix == ".txt" else made.armored).encode()
            )
            write_new(path, content)
            written.append(path)
    except CapstanError:
        for path in written:
            path.unlink(missing_ok=True)
        raise


def _value(key: Key) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(key)


def _describe(key: Key) -> str:
    lines = [f"key {key.name}", f"id: {key.id}", f"kind: {key.kind.value}", f"state: {key.state.value}"]
    lines += [f"recipient: {key.recipient}"] if key.recipient else []
    lines += [f"created: {key.created_at.astimezone():%Y-%m-%d %H:%M:%S}"]
    return "\n".join([*lines, f"proven: {_day(key.proven_at) or 'never: `capstan key drill` proves an export'}"])


def _day(time: Any) -> str:
    return f"{time.astimezone():%Y-%m-%d}" if time else ""
