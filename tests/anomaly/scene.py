"""A small home with everything in it that can be lost, cheap to copy: each case gets one of its own.

Two series are on tape: `before` on two cartridges, the second of which has room left, and `other` on one of a pool of
its own. A new cartridge lies in a mail slot, and there is scratch for what fails.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import Home, make_tree

from capstan.scsi.virtual.image import TapeImage
from capstan.scsi.virtual.library import VirtualLibrary
from capstan.scsi.virtual.storage import DiskStorage

# The least that the format allows, so that a run of few commands has every kind of them.
ARCHIVE = {
    "record_bytes": 64 << 10,
    "frame_bytes": 64 << 10,
    "segment_bytes": 128 << 10,
    "commit_bytes": 256 << 10,
    "codec": "none",
}
CAPACITY = 768 << 10  # bytes of a cartridge: half of it lies before the early warning
NEW = "NEW001L9"
_CREATED_WITH = "4MiB"  # the smallest that can be bought


@dataclass(frozen=True, slots=True)
class Scene:
    """A home at `root/home`. `tree` is what is backed up and `template` what it was copied from: both are only read."""

    root: Path
    tree: Path
    before: str  # the set of the tree
    other: str  # the set on the cartridge that is erased
    template: Path

    @property
    def home(self) -> Path:
        return self.root / "home"

    @property
    def target(self) -> Path:
        """Where this case restores to; not there yet."""
        return self.root / "out"

    @property
    def library(self) -> Path:
        return self.home / "libraries" / "lib"

    @property
    def cartridges(self) -> Path:
        return self.library / "cartridges"

    def copy(self, root: Path) -> Scene:
        """The same scene in a folder of its own."""
        shutil.copytree(self.home, root / "home")
        return Scene(root, self.tree, self.before, self.other, self.home)

    def places(self) -> dict[str, int]:
        """At which element each cartridge is."""
        layout = json.loads((self.library / "library.json").read_bytes())
        return {barcode: int(element) for element, barcode in layout["places"].items()}

    def take_out_blank(self) -> None:
        """Put cartridges that were never written to on the shelf: whoever reads all of them has less to do."""
        path = self.library / "library.json"
        layout = json.loads(path.read_bytes())
        layout["places"] = {
            element: barcode
            for element, barcode in layout["places"].items()
            if (self.cartridges / f"{barcode}.tap").exists() and (self.cartridges / f"{barcode}.tap").stat().st_size
        }
        path.write_text(json.dumps(layout))

    def lose_catalog(self) -> None:
        """Nothing is left of the home but its settings and its cartridges."""
        for path in self.home.glob("catalog.db*"):
            path.unlink()
        shutil.rmtree(self.home / "indexes", ignore_errors=True)

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        """What the catalog's database answers."""
        return self.ask_home(self.home, query)

    @staticmethod
    def ask_home(home: Path, query: str) -> list[tuple[Any, ...]]:
        """The same of any home."""
        with closing(sqlite3.connect(home / "catalog.db")) as database:
            return list(database.execute(query))


def build(root: Path) -> Scene:
    """Make the scene that all others are copies of."""
    home = Home(root / "home")
    home.configure(**ARCHIVE)
    home.library(_CREATED_WITH, cartridges=9, slots=12)
    for path in home.cartridge("CAP001L9").parent.glob("*.json"):
        facts = json.loads(path.read_bytes())
        path.write_text(json.dumps({**facts, "capacity_bytes": CAPACITY}))
    tree = make_tree(root / "source", files=12, large=500 << 10)
    (tree / "text.txt").write_text("the same line\n" * 500)
    home.run("pool", "create", "aside")
    before = home.run("backup", tree, "--name", "before").json
    assert len(before["cartridges"]) == 2
    other = home.run("backup", tree / "deep", "--name", "other", "--pool", "aside").json
    assert not set(other["cartridges"]) & set(before["cartridges"])
    library = VirtualLibrary.open(home.path / "libraries" / "lib")
    library.insert_into_port(NEW, capacity_bytes=CAPACITY)
    library.close()
    return Scene(root, tree, before["set_id"], other["set_id"], home.path)


def image_of(scene: Scene, barcode: str) -> TapeImage:
    """The tape of a cartridge, as it lies on disk; the caller closes it."""
    return TapeImage(scene.cartridges / f"{barcode}.tap", DiskStorage())


def begins_with(path: Path, other: Path) -> bool:
    """Whether the file at `path` begins with all of what `other` holds."""
    wanted = other.read_bytes()
    with path.open("rb") as file:
        return file.read(len(wanted)) == wanted


def scratch_folder() -> str | None:
    """A file system in memory: what is proven here is not how fast a disk syncs."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
