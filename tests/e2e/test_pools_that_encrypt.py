"""Sets that the drive encrypts, as an operator meets them."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness import SMALL, Home, below, describe

pytestmark = pytest.mark.slow


@pytest.fixture
def unlock(home: Home, tmp_path: Path) -> tuple[str, ...]:
    """What opens the key store of a home with a pool that lets the drive encrypt."""
    (tmp_path / "unlock").write_bytes(bytes(range(32)))
    options = ("--key-file", str(tmp_path / "unlock"))
    home.configure(**SMALL)
    home.library()
    home.run("key", "create", "tapes", "--drive", *options)
    home.run("pool", "create", "vault", "--drive-encryption", "tapes")
    return options


def test_without_the_key_nothing_is_written_in_clear(home: Home, tree: Path, unlock: tuple[str, ...]) -> None:
    """A backup to such a pool that cannot have the key fails before it touches a cartridge."""
    error = home.run("backup", tree, "--name", "t", "--pool", "vault", code=2).json["error"]
    assert "--key-file" in error["message"]
    assert not home.run("sets").json and not any(item["uuid"] for item in home.run("tape", "list").json)
    home.run("backup", tree, "--name", "t", "--pool", "vault", *unlock)
    [made] = home.run("sets").json
    key = home.run("key", "list").json[0]["id"]
    assert (made["encryption"], made["keys"], made["recipients"]) == ("drive", [key], [])


def test_who_reads_without_the_key_is_told_which(
    home: Home, tree: Path, unlock: tuple[str, ...], tmp_path: Path
) -> None:
    """Restore, verification and a dump of the records name the key; a rebuild knows the set as locked, never its
    cartridge as scratch, goes on appending, and unlocks it when the key comes; an export of the key opens it too."""
    home.run("backup", tree, "--name", "t", "--pool", "vault", *unlock)
    [key] = home.run("sets").json[0]["keys"]
    (tmp_path / "phrase").write_text("of the export")
    exported = ("--identity-passphrase-file", str(tmp_path / "phrase"))
    home.run("key", "export", "tapes", "--to", tmp_path / "tapes.age", *unlock, *exported)
    (home.path / "keys").rename(tmp_path / "lost")
    for command in (("restore", "latest:t", "--to", tmp_path / "out"), ("verify", "latest:t")):
        error = home.run(*command, code=5).json["error"]
        assert error["code"] == "identity-needed" and key in error["message"]
    error = home.run("tape", "dump", "CAP001L9", code=5).json["error"]
    assert error["code"] == "drive-key-needed" and key in error["message"]
    assert not (tmp_path / "out").exists()

    (home.path / "catalog.db").unlink()
    assert home.run("rebuild", "--library", "lib").json["locked"] == 1
    [cartridge] = [item for item in home.run("tape", "list").json if item["uuid"]]
    assert cartridge["state"] == "available" and cartridge["barcode"] == "CAP001L9"
    assert home.run("verify", "CAP001L9").json["sets"][0]["locked"]
    home.run("pool", "change", "vault", "--no-drive-encryption")
    (tree / "open").write_text("open")
    home.run("backup", tree, "--name", "open", "--pool", "vault")
    assert home.run("sets").json[-1]["cartridges"] == ["CAP001L9"], "it is appended behind the locked set"
    home.run("restore", "latest:open", "--to", tmp_path / "open")
    assert describe(below(tmp_path / "open", tree)) == describe(tree)

    sheet = ("--identity", tmp_path / "tapes.age", *exported)
    assert home.run("rebuild", "--library", "lib", *sheet).json["locked"] == 0
    (tree / "open").unlink()
    home.run("restore", "latest:t", "--to", tmp_path / "all", *sheet)
    assert set(describe(below(tmp_path / "all", tree))) == set(describe(tree))
    assert home.run("verify", "CAP001L9", *sheet).json["unchecked_files"] == 0


def test_a_pool_has_one_encryption(home: Home, unlock: tuple[str, ...]) -> None:
    """A set is sealed for recipients or encrypted by the drive; a key that is none of a drive, or is retired, is no key
    for one."""
    del unlock
    recipient = "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj"
    home.run("pool", "change", "vault", "--recipient", recipient, code=2)
    home.run("pool", "create", "both", "--recipient", recipient, "--drive-encryption", "tapes", code=2)
    home.run("pool", "create", "none", "--drive-encryption", "nobody", code=3)
    home.run("key", "retire", "tapes")
    home.run("pool", "create", "old", "--drive-encryption", "tapes", code=2)
    assert {pool["name"]: pool["drive_key"] != "" for pool in home.run("pool", "list").json} == {"vault": True}
