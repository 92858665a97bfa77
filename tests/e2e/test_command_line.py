"""The command line as people and programs meet it: errors, exit codes, two processes, cancelling."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from harness import SMALL, Home, below, describe, make_tree

pytestmark = pytest.mark.slow


def slow_backup(home: Home, tree: Path) -> subprocess.Popen[str]:
    """A backup in another process."""
    return subprocess.Popen(
        home.command("backup", tree, "--name", "t"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_for(process: subprocess.Popen[str], kind: str) -> dict[str, object]:
    """Read the process's events until one of this kind comes."""
    assert process.stderr is not None
    for line in process.stderr:
        event: dict[str, object] = json.loads(line)
        if event["event"] == kind:
            return event
    raise AssertionError(f"no event {kind} came")


@pytest.fixture
def busy(home: Home, tmp_path: Path) -> tuple[Home, Path]:
    """A home and a source that is large enough to be caught at work."""
    home.configure(**SMALL, commit_bytes=4 << 20)
    home.library("2GiB")
    tree = make_tree(tmp_path / "source", large=400 << 20)
    return home, tree


def test_another_process_reads_and_cancels(busy: tuple[Home, Path], tmp_path: Path) -> None:
    """While one process backs up: reading commands answer, a second backup hears who has the library, and a cancel ends
    the first behind a commit point, whose files restore."""
    home, tree = busy
    process = slow_backup(home, tree)
    job = str(wait_for(process, "job.committed")["job"])
    [found] = home.run("sets").json
    assert found["state"] == "writing"
    assert home.run("jobs").json[0]["state"] == "running"
    assert home.run("tape", "list").json
    answer = home.run("backup", tree, "--name", "u", code=4)
    assert answer.json["error"]["parameters"]["pid"] == str(process.pid)
    home.run("job", "cancel", job[:6])
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 130
    assert json.loads(out)["error"]["code"] == "cancelled"
    [found] = [item for item in home.run("sets").json if item["name"] == "t"]
    assert found["state"] == "incomplete"
    assert home.run("job", "show", job).json["state"] == "cancelled"
    home.run("restore", found["set_id"], tree / "dangling", "--to", tmp_path / "out")
    assert (below(tmp_path / "out", tree) / "dangling").is_symlink()


def test_ctrl_c_ends_in_good_order(busy: tuple[Home, Path]) -> None:
    """SIGINT cancels: exit code 130, the cartridge is home, the next backup works."""
    home, tree = busy
    process = slow_backup(home, tree)
    wait_for(process, "job.committed")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=120)
    assert process.returncode == 130
    places = home.run("library", "show", "lib").json
    assert all(item["place"].startswith("slot:") for item in places)
    home.run("backup", tree / "deep", "--name", "t")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["restore", "nothing", "--to", "/nowhere"], 3),
        (["restore", "latest:nothing", "--to", "/nowhere"], 3),
        (["restore", "x@not-a-time", "--to", "/nowhere"], 2),
        (["backup", "/does/not/exist"], 1),
        (["backup", ".", "--codec", "zip"], 2),
        (["backup", ".", "--type", "monthly"], 2),
        (["backup", ".", "--name", "a/b"], 2),
        (["backup", ".", "--library", "none"], 3),
        (["backup", ".", "--pool", "none"], 3),
        (["library", "show", "none"], 3),
        (["library", "create", "lib", "--virtual"], 2),
        (["library", "create", "other"], 2),
        (["library", "create", "other", "--virtual", "--capacity", "much"], 2),
        (["library", "create", "other", "--virtual", "--generation", "LTO-99"], 2),
        (["library", "create", "other", "--virtual", "--slots", "2", "--cartridges", "9"], 2),
        (["library", "move", "lib", "slot:1", "slot:2"], 3),
        (["library", "move", "lib", "slot:1001", "slot:1002"], 2),
        (["library", "export", "lib", "NONE"], 5),
        (["tape", "show", "NONE"], 3),
        (["tape", "erase", "CAP001L9"], 2),
        (["tape", "label", "CLN001L9", "--pool", "default"], 2),
        (["set", "show", "0000"], 3),
        (["job", "show", "zzzz"], 3),
        (["job", "cancel", "zzzz"], 3),
        (["find", "x", "--since", "yesterday"], 2),
        (["verify", "NONE"], 3),
        (["nonsense"], 2),
        (["sets", "--nonsense"], 2),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else str(value),
)
def test_wrong_requests_change_nothing(home: Home, tree: Path, arguments: list[str], code: int) -> None:
    """Each ends with the right exit code, a message and (where there is one) a hint, and the home is as it was."""
    home.library(cartridges=3)
    before = home.run("tape", "list").out
    answer = home.run(*arguments, code=code)
    error = answer.json["error"]
    assert error["message"]
    assert error["code"]
    assert home.run("tape", "list").out == before
    assert home.run("sets").json == [] or all(item["state"] != "complete" for item in home.run("sets").json)


def test_broken_files_of_the_home_are_named(home: Home) -> None:
    """A configuration or a database that cannot be read ends with code 8, the file's name, and no traceback."""
    home.library()
    (home.path / "capstan.toml").write_text("[archive]\ncodec = 7\n")
    assert "archive.codec" in home.run("sets", code=8).json["error"]["message"]
    (home.path / "capstan.toml").write_text("[[[")
    assert "capstan.toml" in home.run("sets", code=8).json["error"]["message"]
    (home.path / "capstan.toml").write_text("")
    (home.path / "catalog.db").write_bytes(b"garbage" * 999)
    for path in home.path.glob("catalog.db-*"):
        path.unlink()
    assert "catalog.db" in home.run("sets", code=8).json["error"]["message"]


def test_cartridges_come_and_go(home: Home, tree: Path) -> None:
    """Export to a mail slot, back by import; erase makes scratch and forgets; a full pool says what to do."""
    home.library(cartridges=1)
    home.run("backup", tree, "--name", "t")
    moved = home.run("library", "export", "lib", "CAP001L9").json
    assert moved["to"].startswith("port:")
    assert home.run("library", "import", "lib").json["imported"][0]["barcode"] == "CAP001L9"
    home.run("restore", "latest:t", "--to", home.path.parent / "out")
    assert describe(below(home.path.parent / "out", tree)) == describe(tree)
    assert home.run("tape", "label", "CAP001L9", "--pool", "default", code=2).json["error"]["code"] == "refused"
    home.run("tape", "erase", "CAP001L9", "--yes")
    assert home.run("sets").json == []
    home.run("pool", "create", "strict", "--no-scratch")
    answer = home.run("backup", tree, "--pool", "strict", code=5)
    assert answer.json["error"]["code"] == "no-cartridge-available"
    home.run("backup", tree, "--name", "t")


def test_json_and_home_stand_anywhere(home: Home, tmp_path: Path) -> None:
    """Before or behind the subcommand, or in the environment."""
    home.library()
    command = home.command()[:3]
    environment = {key: value for key, value in os.environ.items() if key != "CAPSTAN_HOME"}
    for arguments, more in (
        (["--json", "--home", str(home.path), "library", "list"], {}),
        (["library", "list", f"--home={home.path}", "--json"], {}),
        (["library", "--json", "list"], {"CAPSTAN_HOME": str(home.path)}),
    ):
        done = subprocess.run(
            [*command, *arguments], env=environment | more, capture_output=True, text=True, check=True
        )
        assert [item["name"] for item in json.loads(done.stdout)] == ["lib"]
