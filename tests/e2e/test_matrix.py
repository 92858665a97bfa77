"""Every way a set can be written, through everything that is done with one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyrage
import pytest
from harness import SMALL, Home, below, describe, make_tree

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Way:
    """Options of `backup`, and of all that reads."""

    writing: tuple[str, ...]
    reading: tuple[str, ...]


def way(encryption: str, home: Home, folder: Path) -> Way:
    """How sets of that encryption are written and read."""
    if encryption == "none":
        return Way((), ())
    if encryption == "drive":
        (folder / "unlock").write_bytes(bytes(range(32)))
        unlock = ("--key-file", str(folder / "unlock"))
        home.run("key", "create", "of-the-drive", "--drive", *unlock)
        home.run("pool", "create", "vault", "--drive-encryption", "of-the-drive")
        return Way(("--pool", "vault", *unlock), unlock)
    secret = pyrage.x25519.Identity.generate()
    key = folder / "key.txt"
    key.write_text(str(secret))
    return Way(("--recipient", str(secret.to_public())), ("--identity", str(key)))


@pytest.mark.parametrize("capacity", ["64MiB", "8MiB"], ids=["one", "spanning"])
@pytest.mark.parametrize("encryption", ["none", "age", "drive"])
@pytest.mark.parametrize("codec", ["zstd", "lz4", "gzip", "none", "7z lzma2", "7z deflate", "7z copy"])
def test_all_that_is_done_with_a_set(home: Home, tmp_path: Path, codec: str, encryption: str, capacity: str) -> None:
    """Whole restore, single file, verification, a rebuild of a lost catalog and an incremental set on top of it: all
    identical, on one cartridge and over several."""
    home.configure(**SMALL, spooled_segment_bytes=1200 << 10)
    home.library(capacity)
    tree = make_tree(tmp_path / "source", files=20, large=(10 << 20) if capacity == "8MiB" else (1 << 20))
    chosen = way(encryption, home, tmp_path)
    *container, codec = codec.split()
    packing = ("--codec", codec, *(("--container", *container) if container else ()))
    options = ("--name", "t", *packing, *chosen.writing)
    made = home.run("backup", tree, *options).json
    assert (len(made["cartridges"]) > 1) == (capacity == "8MiB")
    on_tape = b"".join(home.cartridge(barcode).read_bytes() for barcode in made["cartridges"])
    assert (b"file 0003.dat" in on_tape) == (encryption == "none" and codec in ("none", "copy"))
    home.run("restore", "latest:t", "--to", tmp_path / "whole", *chosen.reading)
    assert describe(below(tmp_path / "whole", tree)) == describe(tree)
    home.run("restore", "latest:t", tree / "text.txt", "--to", tmp_path / "one", *chosen.reading)
    assert list(describe(below(tmp_path / "one", tree))) == [b"text.txt"]
    verified = home.run("verify", "latest:t", *chosen.reading).json
    assert verified["unchecked_files"] == 0 and verified["verified_files"] > 20

    (home.path / "catalog.db").unlink()
    home.run("rebuild", "--library", "lib", *chosen.reading)
    (tree / "zero").unlink()
    (tree / "new").write_text("new")
    assert home.run("backup", tree, "--type", "incremental", *options).json["type"] == "incremental"
    assert {item["encryption"] for item in home.run("sets").json} == {encryption}
    home.run("restore", "latest:t", "--to", tmp_path / "state", *chosen.reading)
    assert describe(below(tmp_path / "state", tree)) == describe(tree)
