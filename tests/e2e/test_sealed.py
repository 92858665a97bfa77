"""Sets that are sealed for recipients, as an operator meets them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pyrage
import pytest
from harness import SMALL, Home, below, describe, make_tree
from test_freedom import DECODE, segments, shell

pytestmark = pytest.mark.slow

SECRETS = [pyrage.x25519.Identity.generate() for _ in range(2)]


@pytest.fixture
def keys(tmp_path: Path) -> list[Path]:
    """Files with the identities of two keys."""
    found = []
    for number, secret in enumerate(SECRETS):
        found.append(tmp_path / f"key{number}.txt")
        found[-1].write_text(f"# a key\n{secret}\n")
    return found


def recipients() -> list[str]:
    return [part for secret in SECRETS for part in ("--recipient", str(secret.to_public()))]


def test_a_sealed_series(home: Home, tree: Path, keys: list[Path], tmp_path: Path) -> None:
    """A pool's sets are sealed without a word more; restore, single file, incremental, verify and a rebuild of a lost
    catalog work with any of the keys; without one nothing is restored, and the error says which keys do it."""
    home.configure(**SMALL)
    home.library()
    home.run("pool", "create", "vault", *recipients())
    full = home.run("backup", tree, "--name", "t", "--pool", "vault").json["set_id"]
    (tree / "new").write_text("new")
    (tree / "zero").unlink()
    home.run("backup", tree, "--name", "t", "--pool", "vault", "--type", "incremental")
    error = home.run("restore", "latest:t", "--to", tmp_path / "none", code=5).json["error"]
    assert error["code"] == "identity-needed" and "--identity" in error["hint"] and not (tmp_path / "none").exists()
    for number, key in enumerate(keys):
        to = tmp_path / f"out{number}"
        home.run("restore", "latest:t", "--to", to, "--identity", key)
        assert describe(below(to, tree)) == describe(tree)
    home.run("restore", full, tree / "text.txt", "--to", tmp_path / "one", "--identity", keys[0])
    assert (below(tmp_path / "one", tree) / "text.txt").read_bytes() == (tree / "text.txt").read_bytes()
    assert home.run("verify", full).json["unchecked_files"] > 0
    assert home.run("verify", full, "--identity", keys[1]).json["unchecked_files"] == 0
    assert home.run("verify", "CAP001L9", "--identity", keys[1]).json["unchecked_files"] == 0

    (home.path / "catalog.db").unlink()
    home.run("rebuild", "--library", "lib")
    assert {item["state"] for item in home.run("sets").json} == {"locked"}
    assert {item["state"] for item in home.run("tape", "list").json if item["uuid"]} == {"available"}
    error = home.run("restore", full, "--to", tmp_path / "none", "--identity", keys[0], code=5).json["error"]
    assert error["code"] == "identity-needed" and "rebuild" in error["hint"]
    home.run("backup", tree, "--name", "u", *recipients())  # appending needs no key
    home.run("rebuild", "--library", "lib", "--identity", keys[0])
    home.run("restore", "latest:t", "--to", tmp_path / "again", "--identity", keys[0])
    assert describe(below(tmp_path / "again", tree)) == describe(tree)


def test_no_name_is_on_the_tape(home: Home, tmp_path: Path) -> None:
    """The file that a virtual cartridge is has no name of a source and no line of a text, in any record."""
    tree = tmp_path / "salaries-of-the-board"
    tree.mkdir()
    (tree / "bonus-2031.txt").write_text("the chairman gets nothing\n" * 1000)
    home.configure(**SMALL)
    home.library()
    home.run("backup", tree, "--codec", "none", *recipients())
    on_tape = home.cartridge("CAP001L9").read_bytes()
    for text in (b"salaries", b"bonus", b"chairman"):
        assert text not in on_tape


@pytest.mark.requires("age")
@pytest.mark.requires("zstd")
@pytest.mark.requires("lz4")
@pytest.mark.parametrize("codec", ["zstd", "lz4", "gzip", "none"])
def test_a_sealed_set_with_stock_programs(home: Home, tree: Path, keys: list[Path], tmp_path: Path, codec: str) -> None:
    """With dd's files, tail, age, the codec's program and tar alone, and the deletions of an incremental set."""
    home.configure(**SMALL)
    home.library()
    home.run("backup", make_tree(tmp_path / "other", seed=9), "--name", "other")
    sets = [home.run("backup", tree, "--name", "t", "--codec", codec, *recipients()).json["set_id"]]
    (tree / "zero").unlink()
    (tree / "new").write_text("new")
    more = ("--type", "incremental", "--codec", codec, *recipients())
    sets.append(home.run("backup", tree, "--name", "t", *more).json["set_id"])
    home.run("tape", "extract", "CAP001L9", "--to", tmp_path / "tape")
    (tmp_path / "all").mkdir()
    opened = f"tail -c +4097 $f | age -d -i {keys[1]}"
    for set_id in sets:
        for path in sorted((tmp_path / "tape").glob("*.index")):
            if set_id != sets[0] and f"set: {set_id}" in path.read_bytes()[:4096].decode():
                unpack = f"{DECODE[codec]} | tar -xf - -O deleted | xargs -0 rm -rf --"
                shell(f"f={path}; {opened} | {unpack}", tmp_path / "all")
        pieces = " ".join(str(path) for _, path in sorted(segments(tmp_path / "tape", set_id).items()))
        stream = f"for f in {pieces}; do {opened}; done | {DECODE[codec]}"
        tar = "tar -xpf - --delay-directory-restore --xattrs --xattrs-include='*' --acls --numeric-owner"
        shell(f"{stream} | {tar}", tmp_path / "all")
    assert describe(tmp_path / "all" / tree.relative_to("/")) == describe(tree)


@pytest.mark.requires("age")
@pytest.mark.requires("zstd")
def test_each_sealed_tape_file_says_how_to_read_it(home: Home, tree: Path, keys: list[Path], tmp_path: Path) -> None:
    """The `restore:` line of an INDEX and of the first segment works on that file, with the identity in `$KEY`."""
    home.configure(**SMALL)
    home.library()
    home.run("backup", tree, "--name", "t", *recipients())
    home.run("tape", "extract", "CAP001L9", "--to", tmp_path / "tape")
    first, index = tmp_path / "tape" / "0001.segment", next((tmp_path / "tape").glob("*.index"))
    for path, expected in ((first, "source"), (index, "files.parquet")):
        out = tmp_path / f"out-{path.name}"
        out.mkdir()
        lines = path.read_bytes()[:4096].decode().splitlines()
        [command] = [line.removeprefix("restore: ") for line in lines if line.startswith("restore: ")]
        environment = {"TAPE": str(path), "KEY": str(keys[0]), "PATH": "/usr/bin:/bin"}
        subprocess.run(["bash", "-c", command], cwd=out, env=environment, capture_output=True, check=False)
        assert expected in {found.name for found in out.rglob("*")}


def test_an_escrow_is_proven_before_anything_is_written(home: Home, tree: Path, tmp_path: Path) -> None:
    """A pool that demands a proven escrow takes nothing before the drill. Afterwards what was exported brings every set
    back, though the key store and the catalog are lost; until then the key store does it."""
    home.configure(**SMALL)
    home.library()
    for name in ("store", "export"):
        (tmp_path / name).write_text(f"the {name} passphrase\n")
    unlock = ("--passphrase-file", tmp_path / "store")
    exported = ("--identity-passphrase-file", tmp_path / "export")
    home.run("key", "create", "vault-key", *unlock)
    home.run("pool", "create", "vault", "--recipient", "vault-key", "--require-escrow")
    error = home.run("backup", tree, "--name", "t", "--pool", "vault", code=5).json["error"]
    assert error["code"] == "escrow-unproven" and "key drill" in error["hint"]
    assert not home.run("sets").json and not any(item["uuid"] for item in home.run("tape", "list").json)
    home.run("key", "export", "vault-key", "--to", tmp_path / "vault.age", *unlock, *exported)
    home.run("key", "drill", "--identity", tmp_path / "vault.age", *exported)
    home.run("backup", tree, "--name", "t", "--pool", "vault")
    home.run("restore", "latest:t", "--to", tmp_path / "by-store", *unlock)
    assert describe(below(tmp_path / "by-store", tree)) == describe(tree)

    shutil.rmtree(home.path / "keys")
    (home.path / "catalog.db").unlink()
    shutil.rmtree(home.path / "indexes")
    sheet = ("--identity", tmp_path / "vault.age", *exported)
    home.run("rebuild", "--library", "lib", *sheet)
    home.run("restore", "latest:t", "--to", tmp_path / "by-export", *sheet)
    assert describe(below(tmp_path / "by-export", tree)) == describe(tree)


def test_a_restore_is_resumed_with_an_identity(home: Home, tree: Path, keys: list[Path], tmp_path: Path) -> None:
    """An identity is no part of what a job keeps: whoever goes on with it gives one again."""
    home.configure(**SMALL)
    home.library()
    home.run("backup", tree, "--name", "t", *recipients())
    image = home.cartridge("CAP001L9")
    whole = image.read_bytes()
    image.write_bytes(whole[:4096])
    home.run_any("restore", "latest:t", "--to", tmp_path / "out", "--identity", keys[0])
    image.write_bytes(whole)
    job = home.run("jobs").json[0]
    assert job["state"] == "failed" and str(SECRETS[0]) not in (home.path / "catalog.db").read_bytes().decode("latin-1")
    assert home.run("job", "resume", job["job_id"], code=5).json["error"]["code"] == "identity-needed"
    home.run("job", "resume", job["job_id"], "--identity", keys[0])
    assert describe(below(tmp_path / "out", tree)) == describe(tree)


@pytest.mark.requires("ssh-keygen")
def test_ssh_keys_open_sets(home: Home, tree: Path, tmp_path: Path) -> None:
    """The public line of an SSH key is a recipient, and its private file an identity."""
    home.configure(**SMALL)
    home.library()
    for kind in ("ed25519", "rsa"):
        key = tmp_path / f"id_{kind}"
        subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", key], check=True)
        home.run("backup", tree, "--name", kind, "--recipient", f"@{key}.pub")
        home.run("restore", f"latest:{kind}", "--to", tmp_path / kind, "--identity", key)
        assert describe(below(tmp_path / kind, tree)) == describe(tree)


def test_a_pool_that_a_rebuild_makes_is_not_open_by_accident(
    home: Home, tree: Path, keys: list[Path], tmp_path: Path
) -> None:
    """A catalog is lost, and with it what its pools were told. Where the newest set is locked nothing is written in
    clear to its pool before somebody says what it is to do, or gives the key; a pool that is there keeps what it was
    told."""
    home.configure(**SMALL)
    home.library()
    home.run("pool", "create", "vault")
    home.run("backup", tree, "--name", "old", "--pool", "vault")
    home.run("pool", "change", "vault", *recipients())
    home.run("backup", tree, "--name", "t", "--pool", "vault")
    for key in (None, keys[0]):
        (home.path / "catalog.db").unlink()
        answer = home.run("rebuild", "--library", "lib", *(("--identity", key) if key else ()))
        codes = {event["code"] for event in answer.events if event["event"] == "job.warning"}
        assert "pool-made-again" in codes and ("pool-blocked" in codes) == (key is None)
        if key is None:
            error = home.run("backup", tree, "--name", "u", "--pool", "vault", code=2).json["error"]
            assert "pool change" in error["hint"]
            assert home.run("backup", tree, "--name", "u", "--pool", "vault", *recipients()).code == 0
            home.run("rebuild", "--library", "lib", "--identity", keys[0])
        assert home.run("pool", "show", "vault").json["recipients"] == recipients()[1::2]
        home.run("backup", tree, "--name", "v", "--pool", "vault")
        assert home.run("sets").json[-1]["encryption"] == "age"
    home.run("pool", "change", "vault", "--no-recipients")
    home.run("rebuild", "--library", "lib", "--identity", keys[0])
    assert home.run("pool", "show", "vault").json["recipients"] == []
