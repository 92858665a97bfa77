"""`capstan key` as an operator meets it: on a terminal, in scripts, with mistakes, and after everything was lost."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from base64 import b64encode
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pyrage
import pytest
from harness import Home, full_disk

from capstan.cli.secrets import identities_from
from capstan.crypto.drill import can_open

PHRASE, OTHER, SHEET = "first pass phrase", "another pass phrase", "口令 of the sheet"


def passphrase(folder: Path, text: str) -> Path:
    """A file with a passphrase."""
    path = folder / f"phrase{len(list(folder.glob('phrase*')))}"
    path.write_text(f"{text}\n")
    return path


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    """What unlocks a store, at once: no passphrase is stretched."""
    path = tmp_path / "key file"
    path.write_bytes(bytes(range(64)))
    return path


@pytest.fixture
def sheet_phrase(tmp_path: Path) -> Path:
    return passphrase(tmp_path, SHEET)


@pytest.fixture
def keys(home: Home, key_file: Path) -> Home:
    """A home with the identity `escrow` and the drive's key `drive`."""
    home.run("key", "create", "escrow", "--key-file", key_file)
    home.run("key", "create", "drive", "--drive", "--key-file", key_file)
    return home


def export(home: Home, key_file: Path, sheet_phrase: Path, target: Path, *names: str) -> Path:
    home.run(
        "key", "export", *names, "--to", target, "--key-file", key_file, "--identity-passphrase-file", sheet_phrase
    )
    return target


def on_terminal(command: list[str], answers: list[str]) -> tuple[int, str]:
    """A program on a terminal of its own, where each answer is typed when it has asked; its exit code and all that the
    terminal showed."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(["setsid", "--ctty", *command], stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    pending, shown = iter(answers), b""
    with suppress(OSError):  # how the end of a terminal is told
        while piece := os.read(ours, 4096):
            shown += piece
            if shown.endswith(b": "):
                os.write(ours, next(pending).encode() + b"\n")
    os.close(ours)
    assert list(pending) == [], f"it did not ask so often: {shown!r}"
    return process.wait(), shown.decode()


def plain(home: Home, *arguments: str | Path) -> list[str]:
    """A command line without --json."""
    return [part for part in home.command(*arguments) if part != "--json"]


@pytest.mark.slow
@pytest.mark.requires("setsid", "age")
def test_on_a_terminal(home: Home, tmp_path: Path) -> None:
    """A new passphrase is asked for twice, once only with the first key; nothing that is typed is shown. The stock
    program opens the export, and what it gives is the identity of the recipient that the command showed."""
    code, shown = on_terminal(plain(home, "key", "create", "escrow"), [PHRASE, PHRASE])
    assert code == 0 and "recipient: age1" in shown and "first pass" not in shown
    recipient = shown.split("recipient: ")[1].split()[0]
    code, shown = on_terminal(plain(home, "key", "create", "drive", "--drive"), [PHRASE])
    assert code == 0 and "first pass" not in shown
    file = tmp_path / "keys.age"
    code, shown = on_terminal(plain(home, "key", "export", "escrow", "--to", file), [PHRASE, SHEET, SHEET])
    assert code == 0 and "of the sheet" not in shown and str(file) in shown
    code, _ = on_terminal(["age", "-d", "-o", str(tmp_path / "identity"), str(file)], [SHEET])
    assert code == 0
    (tmp_path / "data").write_bytes(pyrage.encrypt(b"data", [pyrage.x25519.Recipient.from_str(recipient)]))
    opened = ["age", "-d", "-i", str(tmp_path / "identity"), str(tmp_path / "data")]
    assert subprocess.run(opened, check=True, capture_output=True).stdout == b"data"
    code, shown = on_terminal(plain(home, "key", "drill", "--identity", file), [SHEET])
    assert code == 0 and "proven: escrow" in shown
    code, shown = on_terminal(plain(home, "key", "passphrase"), [PHRASE, OTHER, "a slip"])
    assert code == 2 and "the second is not the first" in shown
    code, shown = on_terminal(plain(home, "key", "rotate", "escrow"), [OTHER])
    assert code == 5 and "does not unlock" in shown and "escrow.2" not in shown


@pytest.mark.requires("setsid")
def test_nobody_to_ask(home: Home, key_file: Path) -> None:
    """Without a terminal the error names the options; the standard input is not taken for a passphrase."""
    home.run("key", "create", "one", "--key-file", key_file)
    home.run("key", "passphrase", "--key-file", key_file, "--new-passphrase-file", passphrase(home.path.parent, PHRASE))
    command = ["setsid", *home.command("key", "create", "two")]
    done = subprocess.run(command, input=f"{PHRASE}\n", capture_output=True, text=True, check=False)
    error = json.loads(done.stdout)["error"]
    assert (done.returncode, error["code"]) == (5, "passphrase-missing")
    assert "--passphrase-file" in error["hint"] and "--passphrase-fd" in error["hint"]
    assert PHRASE not in done.stdout + done.stderr
    assert [key["name"] for key in home.run("key", "list").json] == ["one"]


def test_what_is_shown(keys: Home) -> None:
    """`list` and `show` need no passphrase; a key is found by its name or the beginning of its id."""
    escrow, drive = keys.run("key", "list").json
    assert (escrow["name"], escrow["kind"], escrow["state"], escrow["proven_at"]) == ("escrow", "age", "active", None)
    assert escrow["recipient"].startswith("age1") and drive["recipient"] == ""
    assert keys.run("key", "show", "escrow").json == keys.run("key", "show", escrow["id"][:8]).json == escrow
    assert oct((keys.path / "keys").stat().st_mode & 0o777) == "0o700"


def test_no_keys_yet(home: Home) -> None:
    """An empty list, and no store is made for it."""
    assert home.run("key", "list").json == []
    home.run("key", "show", "x", code=3)
    assert not home.path.exists()


def test_rotation(keys: Home, key_file: Path) -> None:
    """The next of the series; the old one is retired, and the answer names it."""
    [old, _] = keys.run("key", "list").json
    new = keys.run("key", "rotate", "escrow", "--key-file", key_file).json
    assert (new["name"], new["state"], new["retired"]) == ("escrow.2", "active", [old["id"]])
    assert keys.run("key", "show", "escrow").json["state"] == "retired"
    assert keys.run("key", "retire", "escrow.2").json["state"] == "retired"


@pytest.mark.slow
def test_a_pool_of_a_retired_key(keys: Home, key_file: Path, tree: Path) -> None:
    """Backups go on, and each says that the key is retired, until the pool is given the next one."""
    keys.library()
    keys.run("pool", "create", "vault", "--recipient", "escrow")
    new = keys.run("key", "rotate", "escrow", "--key-file", key_file).json
    backup = ("backup", tree, "--name", "t", "--pool", "vault")
    warned = keys.run(*backup).json
    assert (warned["state"], warned["warning_codes"]) == ("complete", {"retired-key": 1})
    keys.run("pool", "change", "vault", "--recipient", new["id"])
    assert keys.run(*backup).json["warning_codes"] == {}


@pytest.mark.slow
def test_the_home_is_lost(keys: Home, key_file: Path, sheet_phrase: Path, tmp_path: Path) -> None:
    """The sheet of an export, as text, brings every key back into a new home, with its name, id and state; once more
    changes nothing. It opens what was sealed for its recipient, also without any home."""
    keys.run("key", "rotate", "escrow", "--key-file", key_file)
    before = keys.run("key", "list").json
    file = export(keys, key_file, sheet_phrase, tmp_path / "keys.txt", *(key["id"] for key in before))
    keys.path.rename(tmp_path / "lost")
    arguments = ["key", "import", file, "--identity-passphrase-file", sheet_phrase, "--key-file", key_file]
    facts = ("name", "id", "kind", "state", "recipient")
    for was_there in (False, True):
        taken = keys.run(*arguments).json
        assert [[key[fact] for fact in facts] for key in taken] == [[key[fact] for fact in facts] for key in before]
        assert {key["was_there"] for key in taken} == {was_there}
    assert len(keys.run("key", "list").json) == 3
    identities = identities_from([str(file)], str(sheet_phrase), None)
    assert [identity.key_id for identity in identities] == [key["id"] for key in before]
    assert all(can_open(identities, key["recipient"]) for key in before if key["kind"] == "age")


@pytest.mark.slow
def test_a_drill(keys: Home, key_file: Path, sheet_phrase: Path, tmp_path: Path) -> None:
    """The keys that the export holds are proven, with the day; others, and an export of a stranger's key, are not."""
    file = export(keys, key_file, sheet_phrase, tmp_path / "keys.age", "escrow")
    drilled = keys.run("key", "drill", "--identity", file, "--identity-passphrase-file", sheet_phrase).json
    assert [key["name"] for key in drilled["proven"]] == ["escrow"]
    escrow, drive = keys.run("key", "list").json
    assert escrow["proven_at"] == drilled["proven"][0]["proven_at"] and drive["proven_at"] is None
    stranger = tmp_path / "stranger"
    stranger.write_text(str(pyrage.x25519.Identity.generate()))
    answer = keys.run("key", "drill", "--identity", stranger, code=5)
    assert answer.json["error"]["code"] == "identity-unusable"
    both = ["key", "drill", "--identity", stranger, "--identity", file, "--identity-passphrase-file", sheet_phrase]
    assert len(keys.run(*both).json["unknown"]) == 1


@pytest.mark.slow
def test_import_of_what_others_made(keys: Home, key_file: Path, tmp_path: Path) -> None:
    """A file of `age-keygen` and the hexadecimal key of a drive have no names: one is given; a name that is taken is
    told, and nothing is changed."""
    plain_file, drive = tmp_path / "identity", tmp_path / "drive"
    plain_file.write_text(f"# created: …\n{pyrage.x25519.Identity.generate()}\n")
    drive.write_text("0123456789abcdef" * 4)
    for file, kind in ((plain_file, "age"), (drive, "drive")):
        arguments = ["key", "import", file, "--key-file", key_file]
        keys.run(*arguments, code=2)
        keys.run(*arguments, "--name", "escrow", code=2)
        assert [key["kind"] for key in keys.run(*arguments, "--name", f"theirs-{kind}").json] == [kind]
    assert len(keys.run("key", "list").json) == 4


@pytest.mark.slow
def test_exports_overwrite_nothing(keys: Home, key_file: Path, sheet_phrase: Path, tmp_path: Path) -> None:
    """A sheet comes with the file, both for their owner only; where one of them cannot be, neither is made, and what is
    there stays."""
    target, sheet = tmp_path / "keys.age", tmp_path / "keys.pdf"
    arguments = ["key", "export", "escrow", "--key-file", key_file, "--identity-passphrase-file", sheet_phrase]
    sheet.write_text("mine")
    keys.run(*arguments, "--to", target, "--sheet", sheet, code=2)
    keys.run(*arguments, "--to", sheet, code=2)
    keys.run(*arguments, "--to", target, "--sheet", target, code=2)
    keys.run(*arguments, "--to", tmp_path / "x.pdf", "--sheet", tmp_path / "x.pdf", code=2)
    keys.run(*arguments, "--to", tmp_path / "no" / "folder", code=8)
    keys.run(*arguments, "--to", target, "--sheet", "/proc/self/x.pdf", code=8)
    assert not target.exists() and sheet.read_text() == "mine"
    sheet.unlink()
    made = keys.run(*arguments, "--to", target, "--sheet", sheet).json
    assert made["files"] == [str(target), str(sheet)]
    assert sheet.read_bytes().startswith(b"%PDF")
    assert {path.stat().st_mode & 0o777 for path in (target, sheet)} == {0o600}


@pytest.mark.slow
@pytest.mark.requires("root")
def test_a_sheet_that_has_no_room(keys: Home, key_file: Path, sheet_phrase: Path, tmp_path: Path) -> None:
    """Where the disk is full neither the file nor a part of the sheet is left."""
    with full_disk(tmp_path / "full", "4k"):
        target, sheet = tmp_path / "keys.age", tmp_path / "full" / "keys.pdf"
        arguments = ["--sheet", sheet, "--key-file", key_file, "--identity-passphrase-file", sheet_phrase]
        error = keys.run("key", "export", "escrow", "--to", target, *arguments, code=8).json["error"]
        assert "No space" in error["message"] and not target.exists() and not sheet.exists()


def test_another_passphrase(keys: Home, key_file: Path, tmp_path: Path) -> None:
    """It unlocks from then on, and the old does not; what is given must be what the store is unlocked by."""
    new = passphrase(tmp_path, OTHER)
    keys.run("key", "passphrase", "--key-file", key_file, "--new-passphrase-file", new)
    keys.run("key", "rotate", "escrow", "--key-file", key_file, code=2)
    keys.run("key", "rotate", "escrow", "--passphrase-file", passphrase(tmp_path, PHRASE), code=5)
    keys.run("key", "rotate", "escrow", "--passphrase-file", new)
    keys.run("key", "passphrase", "--passphrase-file", new, "--new-key-file", key_file)
    keys.run("key", "rotate", "escrow", "--passphrase-file", new, code=2)
    keys.run("key", "rotate", "escrow", "--key-file", key_file)


BAD: list[tuple[str, int, str]] = [
    ("create escrow --key-file KEY", 2, "already-exists"),
    ("create a/b --key-file KEY", 2, "invalid-value"),
    ("create new", 2, "usage"),  # it is unlocked by a key file
    ("create new --key-file OTHER", 5, "wrong-passphrase"),
    ("create new --key-file SHORT", 5, "wrong-passphrase"),
    ("create new --key-file EMPTY", 2, "invalid-value"),
    ("create new --key-file NOWHERE", 2, "invalid-value"),
    ("create new --key-file KEY --passphrase-file KEY", 2, "usage"),
    ("show none", 3, "not-found"),
    ("retire none", 3, "not-found"),
    ("rotate none --key-file KEY", 3, "not-found"),
    ("export none --to OUT --key-file KEY", 3, "not-found"),
    ("export escrow --to OUT --key-file OTHER", 5, "wrong-passphrase"),
    ("export escrow --to OUT --key-file KEY --identity-passphrase-file EMPTY", 2, "invalid-value"),
    ("export escrow --to OUT --key-file KEY --identity-passphrase-file BINARY", 2, "invalid-value"),
    ("export escrow --to OUT --key-file KEY --identity-passphrase-file LINES", 2, "invalid-value"),
    ("export escrow --to OUT --key-file KEY --identity-passphrase-file LATIN", 2, "invalid-value"),
    ("export escrow --to OUT --key-file KEY --identity-passphrase-file LONG", 2, "invalid-value"),
    ("export escrow --to OUT --key-file KEY --identity-passphrase-file NOWHERE", 2, "invalid-value"),
    ("export escrow --to OUT --key-file KEY --identity-passphrase-file /dev/zero", 2, "invalid-value"),
    ("export escrow --to OUT --key-file KEY --identity-passphrase-fd 987", 2, "invalid-value"),
    ("export escrow --to OUT --key-file KEY --identity-passphrase-fd -1", 2, "invalid-value"),
    ("export escrow --to OUT --key-file KEY --identity-passphrase-fd 99999999999", 2, "invalid-value"),
    ("export escrow --to OUT --key-file KEY --identity-passphrase-file KEY --identity-passphrase-fd 3", 2, "usage"),
    ("import NOWHERE --key-file KEY", 5, "identity-unusable"),
    ("import BINARY --key-file KEY", 5, "identity-unusable"),
    ("import RECIPIENT --key-file KEY", 5, "identity-unusable"),
    ("drill --identity RECIPIENT", 5, "identity-unusable"),
    ("passphrase --key-file KEY --new-key-file SHORT", 2, "invalid-value"),
    ("passphrase --key-file KEY --new-key-file KEY --new-passphrase-file KEY", 2, "usage"),
]


@pytest.mark.parametrize(("line", "code", "kind"), BAD, ids=[line for line, _, _ in BAD])
def test_wrong_requests_change_nothing(
    keys: Home, key_file: Path, tmp_path: Path, line: str, code: int, kind: str
) -> None:
    """Each has its own error, and store and folder are as they were."""
    contents = {
        "OTHER": bytes(64),
        "SHORT": bytes(31),
        "EMPTY": b"",
        "BINARY": b"\0\1\2",
        "LINES": b"one\ntwo\n",
        "LONG": b"x" * 5000,
        "LATIN": b"m\xfcde\n",
        "RECIPIENT": keys.run("key", "show", "escrow").json["recipient"].encode(),
    }
    words = {"KEY": key_file, "NOWHERE": tmp_path / "nowhere", "OUT": tmp_path / "out"}
    for word, content in contents.items():
        words[word] = tmp_path / word
        words[word].write_bytes(content)
    before = files_below(tmp_path)
    answer = keys.run("key", *(words.get(word, word) for word in line.split()), code=code)
    assert answer.json["error"]["code"] == kind
    assert files_below(tmp_path) == before


def files_below(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("content", [b"", b'{"version": 1', b"[]"])
def test_damaged_files(keys: Home, key_file: Path, content: bytes) -> None:
    """A key's file that was cut off, or the store's own: named, with what to do; no new store is made in its place."""
    key = keys.run("key", "show", "escrow").json
    others = [item["id"] for item in keys.run("key", "list").json if item["id"] != key["id"]]
    for name, arguments in (
        ("master.json", ["key", "create", "new", "--key-file", key_file]),
        (f"{key['id']}.json", ["key", "show", "escrow"]),
        (f"{key['id']}.json", ["key", "list"]),
    ):
        path = keys.path / "keys" / name
        whole = path.read_bytes()
        path.write_bytes(content)
        answer = keys.run(*arguments, code=8)
        error = (answer.events[-1] if arguments[-1] == "list" else answer.json)["error"]
        assert error["code"] == "keys-damaged" and str(path) in error["message"] and error["hint"]
        if arguments[-1] == "list":  # all others are listed
            assert [item["id"] for item in answer.json] == others
        path.write_bytes(whole)
    (keys.path / "keys" / "master.json").unlink()
    keys.run("key", "create", "new", "--key-file", key_file, code=8)


@pytest.mark.slow
def test_a_damaged_key_file_stops_no_backup_in_clear(keys: Home, tree: Path) -> None:
    """Nor one that is sealed for somebody else's key: neither needs the store."""
    keys.library()
    key = keys.run("key", "show", "escrow").json
    (keys.path / "keys" / f"{key['id']}.json").write_bytes(b"")
    other = str(pyrage.x25519.Identity.generate().to_public())
    for options in ((), ("--recipient", other)):
        assert keys.run("backup", tree, "--name", "t", *options).json["state"] == "complete"


def test_the_first_key_file_is_long_enough(home: Home, tmp_path: Path) -> None:
    """A store is not begun with a short one, or an empty passphrase; nor for a name that is none."""
    (tmp_path / "short").write_bytes(bytes(31))
    home.run("key", "create", "one", "--key-file", tmp_path / "short", code=2)
    home.run("key", "create", "one", "--passphrase-file", passphrase(tmp_path, ""), code=2)
    home.run("key", "create", "a/b", "--passphrase-file", passphrase(tmp_path, PHRASE), code=2)
    assert not (home.path / "keys" / "master.json").exists()


class Watched:
    """Runs commands with secrets handed over by descriptors, and keeps everything that others can see of them."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.seen = b""

    def run(self, *arguments: str | Path, code: int = 0, stdout: str = "", **secrets: str) -> None:
        """`secrets`: what is read from the descriptor of the option with that name."""
        pipes = {name: os.pipe() for name in secrets}
        options = [
            part for name, (reading, _) in pipes.items() for part in (f"--{name}-fd".replace("_", "-"), str(reading))
        ]
        with open(stdout or os.devnull, "wb") as other:
            process = subprocess.Popen(
                self.home.command("key", *arguments, *options),
                stdout=other if stdout else subprocess.PIPE,
                stderr=subprocess.PIPE,
                pass_fds=[reading for reading, _ in pipes.values()],
            )
        for name in ("cmdline", "environ"):  # it cannot have ended: nothing was handed over yet
            self.seen += Path(f"/proc/{process.pid}/{name}").read_bytes()
        for name, (reading, writing) in pipes.items():
            os.close(reading)
            with suppress(BrokenPipeError):
                os.write(writing, f"{secrets[name]}\n".encode())
            os.close(writing)
        out, err = process.communicate()
        self.seen += (out or b"") + err
        assert process.returncode == code, (arguments, out, err)


@pytest.mark.slow
def test_secrets_are_seen_nowhere(home: Home, tmp_path: Path) -> None:
    """Neither passphrases nor keys stand in what commands print, in their errors and crashes, in the list of processes
    or in the home; an export shows nothing of what it seals."""
    watched = Watched(home)
    out, text, sheet = tmp_path / "keys.age", tmp_path / "keys.txt", tmp_path / "keys.pdf"
    watched.run("create", "escrow", passphrase=PHRASE)
    watched.run("create", "drive", "--drive", passphrase=PHRASE)
    watched.run("create", "new", passphrase=OTHER, code=5)
    both = {"passphrase": PHRASE, "identity_passphrase": SHEET}
    watched.run("export", "escrow", "drive", "--to", out, "--sheet", sheet, **both)
    watched.run("export", "escrow", "drive", "--to", text, **both)
    watched.run("import", out, **both)
    watched.run("drill", "--identity", out, identity_passphrase=SHEET)
    watched.run("drill", "--identity", out, identity_passphrase=OTHER, code=5)
    watched.run("rotate", "escrow", passphrase=PHRASE, stdout="/dev/full", code=1)  # its answer cannot be printed
    assert b"Traceback" in watched.seen
    watched.run("passphrase", passphrase=PHRASE, new_passphrase=OTHER)
    watched.seen += home.run("key", "list").out.encode() + out.read_bytes() + text.read_bytes() + sheet.read_bytes()
    watched.seen += b"".join(files_below(home.path).values())
    for secret in (PHRASE.encode(), OTHER.encode(), SHEET.encode(), *values_of(out, home)):
        assert secret not in watched.seen


def values_of(file: Path, home: Home) -> Iterator[bytes]:
    """The secrets that a file holds, in every form in which one might write them."""
    content = pyrage.passphrase.decrypt(file.read_bytes(), SHEET).decode()
    [identity] = [line for line in content.splitlines() if line.startswith("AGE-SECRET-KEY-1")]
    [drive] = [bytes.fromhex(line.split(": ")[1]) for line in content.splitlines() if line.startswith("# drive-key")]
    yield from (identity.encode()[20:], drive, drive.hex().encode(), drive.hex().upper().encode(), b64encode(drive))
    yield repr(drive)[2:-1].encode()
