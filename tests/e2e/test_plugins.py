"""Codecs and containers of other packages: found by entry point once they are installed, and only then."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from harness import SMALL, Home, below, describe
from test_freedom import headers, segments, shell

pytestmark = pytest.mark.slow

EXAMPLE = Path(__file__).parents[1] / "plugin"


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example, built and installed into a directory of its own, without a network."""
    source, target = tmp_path_factory.mktemp("source") / "plugin", tmp_path_factory.mktemp("target")
    shutil.copytree(EXAMPLE, source, ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--no-index", "--no-deps"]
    done = subprocess.run(
        [*pip, "--no-build-isolation", "--target", str(target), str(source)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return target


def with_plugin(home: Home, plugin: Path, *arguments: str | Path) -> Any:
    """What a command answers in a process that finds the plugin."""
    found = os.pathsep.join([str(plugin), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        home.command(*arguments), env=os.environ | {"PYTHONPATH": found}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.configure(**SMALL, spooled_segment_bytes=512 << 10)
    home.library()
    return home


@pytest.mark.requires("bzip2")
def test_a_codec_of_a_plugin(home: Home, plugin: Path, tree: Path, tmp_path: Path) -> None:
    """It writes and restores; the header's line names its stock program; the catalog is rebuilt without the plugin;
    and what needs it says so."""
    result = with_plugin(home, plugin, "backup", tree, "--name", "t", "--codec", "bzip2:1")
    with_plugin(home, plugin, "restore", result["set_id"], "--to", tmp_path / "out")
    assert describe(below(tmp_path / "out", tree)) == describe(tree)
    home.run("tape", "extract", "CAP001L9", "--to", tmp_path / "tape")
    (tmp_path / "all").mkdir()
    pieces = " ".join(str(path) for _, path in sorted(segments(tmp_path / "tape", result["set_id"]).items()))
    shell(
        f"for f in {pieces}; do tail -c +4097 $f; done | bzip2 -dc | tar -xpf - --delay-directory-restore",
        tmp_path / "all",
    )
    assert describe(tmp_path / "all" / tree.relative_to("/")) == describe(tree)
    lines = {header["kind"]: header["restore"] for _, header in headers(tmp_path / "tape")}
    assert "bzip2 -dc" in lines["segment"]
    assert "zstd -dc" in lines["index"]

    (home.path / "catalog.db").unlink()
    home.run("rebuild", "--library", "lib")
    answer = home.run("restore", result["set_id"], "--to", tmp_path / "no", code=2)
    assert "bzip2" in answer.json["error"]["message"]
    with_plugin(home, plugin, "verify", result["set_id"])


def test_a_container_of_a_plugin(home: Home, plugin: Path, tree: Path, tmp_path: Path) -> None:
    """The same for a container: the payload of each segment is a file of its kind."""
    result = with_plugin(home, plugin, "backup", tree, "--name", "t", "--container", "zip", "--codec", "store")
    with_plugin(home, plugin, "restore", result["set_id"], "--to", tmp_path / "out")
    assert describe(below(tmp_path / "out", tree)) == describe(tree)
    home.run("tape", "extract", "CAP001L9", "--to", tmp_path / "tape")
    found = segments(tmp_path / "tape", result["set_id"])
    assert len(found) > 1
    assert all(path.read_bytes()[4096:4100] == b"PK\3\4" for path in found.values())
    assert "0001.zip" in [header["restore"] for _, header in headers(tmp_path / "tape")][2]

    (home.path / "catalog.db").unlink()
    home.run("rebuild", "--library", "lib")
    for command in (("restore", result["set_id"], "--to", tmp_path / "no"), ("verify", result["set_id"])):
        answer = home.run(*command, code=2)
        assert "zip" in answer.json["error"]["message"]
    with_plugin(home, plugin, "verify", "CAP001L9")


def test_a_plugin_that_cannot_be_loaded(plugin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is named, with what is wrong with it; and so are two that offer the same. What Capstan has itself is not taken
    from a plugin."""
    from capstan.errors import Refused
    from capstan.format.codecs import find_codec
    from capstan.plugins import find_plugin

    def offer(name: str, text: str) -> None:
        folder = tmp_path / name / f"{name}-1.0.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_text(f"[capstan.codecs]\n{text}\n")
        monkeypatch.syspath_prepend(str(tmp_path / name))

    ours = find_codec("zstd")
    offer("broken", "brotli = nowhere.at_all:CODEC")
    with pytest.raises(Refused, match="broken"):
        find_codec("brotli")
    offer("first", "zstd = json:dumps")
    assert find_codec("zstd") is ours
    offer("second", "zstd = json:loads")
    with pytest.raises(Refused, match="first and second"):
        find_plugin("capstan.codecs", "zstd")


def test_a_transport_of_a_plugin(home: Home, plugin: Path, tree: Path, tmp_path: Path) -> None:
    """A library whose changer and drives lie at addresses of the plugin: added, backed up to, restored from, removed.
    A trace of it shows every command, and nothing of what was written."""
    folder = home.path / "libraries/lib"
    real = Home(tmp_path / "real")
    real.configure(**SMALL)
    drives = [part for number in (1, 0) for part in ("--drive", f"folder:{folder}/{number}")]
    added = with_plugin(real, plugin, "library", "add", "shelf", "--changer", f"folder:{folder}", *drives)
    assert (added["drives"], added["cartridges"][0]) == (2, "CAP001L9")
    with_plugin(real, plugin, "tape", "label", "CAP001L9", "--pool", "default")
    made = with_plugin(real, plugin, "backup", tree, "--name", "t", "--trace", tmp_path / "trace")
    assert made["state"] == "complete"
    with_plugin(real, plugin, "restore", made["set_id"], "--to", tmp_path / "out")
    assert describe(below(tmp_path / "out", tree)) == describe(tree)
    traced = with_plugin(real, plugin, "scsi", "replay", tmp_path / "trace")
    assert {"WRITE(6)", "MOVE MEDIUM", "LOG SENSE"} <= {item["name"] for item in traced}
    assert sum(item["moved"] for item in traced if item["name"] == "WRITE(6)") >= made["stored_bytes"]
    error = json.loads(subprocess.run(real.command("sets", "--trace", tmp_path / "trace"), capture_output=True).stdout)
    assert error["error"]["code"] == "storage-failed"
    with_plugin(real, plugin, "library", "remove", "shelf")
    assert real.run("library", "list").json == []
    assert real.run("tape", "show", "CAP001L9").json["place"] == ""


def test_a_library_that_another_host_uses_too(home: Home, plugin: Path, tree: Path, tmp_path: Path) -> None:
    """Only the drives that were named are used, whatever lies in the others."""
    folder = home.path / "libraries/lib"
    home.run("library", "move", "lib", "CAP002L9", "drive:101")
    real = Home(tmp_path / "real")
    real.configure(**SMALL)
    options = ("--changer", f"folder:{folder}", "--drive", f"folder:{folder}/1")
    with_plugin(real, plugin, "library", "add", "shelf", *options)
    with_plugin(real, plugin, "tape", "label", "CAP001L9", "--pool", "default")
    made = with_plugin(real, plugin, "backup", tree, "--name", "t")
    with_plugin(real, plugin, "restore", made["set_id"], "--to", tmp_path / "out")
    places = {item["barcode"]: item["place"] for item in real.run("library", "show", "shelf").json}
    assert places["CAP002L9"] == "drive:101"
    assert {drive["serial"]: drive["loads"] for drive in real.run("drive", "list").json} == {"lib-D0": 0, "lib-D1": 3}


def test_addresses_that_lead_nowhere(home: Home, plugin: Path) -> None:
    """They say what is wrong, and nothing is defined."""
    for address, code, word in (
        ("folder:/nowhere", 2, "begins with"),
        ("sg", 2, "begins with"),
        ("sg:/dev/nothing", 7, "no such device"),
        ("sg:/dev/null", 7, "no SCSI generic device"),
    ):
        error = home.run("library", "add", "real", "--changer", address, "--drive", address, code=code).json["error"]
        assert word in error["message"], error
    assert [item["name"] for item in home.run("library", "list").json] == ["lib"]
    assert "virtual" in home.run("library", "remove", "lib", code=2).json["error"]["message"]
    home.run("library", "remove", "nothing", code=3)
