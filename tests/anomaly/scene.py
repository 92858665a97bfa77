"""A small home with everything in it that can be lost, cheap to copy: each case gets one of its own.

On tape are `before` on two cartridges, the second of which has room left, and `chained`, which builds on it; `other`
on one of a pool of its own, and `child`, which builds on that and lies elsewhere; and `begun` beside `other`, a backup
that was cancelled behind its first commit point. Between full, incremental and cancelled sets the tree has changed. A
new cartridge lies in a mail slot, and there is scratch for what fails.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import sqlite3
import subprocess
import tempfile
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness import AheadClock, Home, make_tree

from capstan.backup.request import BackupRequest
from capstan.bootstrap import open_home
from capstan.core.backup import SetType
from capstan.core.job import Event, JobKind
from capstan.errors import JobCancelled
from capstan.scsi.virtual.image import TapeImage
from capstan.scsi.virtual.library import VirtualLibrary
from capstan.scsi.virtual.storage import DiskStorage

# The least that the format allows, so that a run of few commands has every kind of them.
ARCHIVE = {
    "record_bytes": 64 << 10,
    "frame_bytes": 64 << 10,
    "segment_bytes": 64 << 10,
    "spooled_segment_bytes": 128 << 10,
    "commit_bytes": 128 << 10,
    "codec": "none",
}
CAPACITY = 512 << 10  # bytes of a cartridge: half of it lies before the early warning
NEW = "NEW001L9"
_CREATED_WITH = "4MiB"  # the smallest that can be bought


@dataclass(frozen=True, slots=True)
class Scene:
    """A home at `root/home`. `tree` is what is backed up, `pictures` how it was, and `template` what the home was
    copied from: all three are only read."""

    root: Path
    tree: Path
    pictures: Path
    before: str  # the set of the tree
    chained: str  # the incremental set on top of it
    other: str  # the set on the cartridge that is erased
    child: str  # the incremental set on top of it, on another cartridge
    begun: str  # the set that waits to be gone on with, and its job
    job: str
    template: Path
    made_at: datetime

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
        return replace(self, root=root, template=self.home)

    @property
    def cases(self) -> Path:
        """Where the cases of the template lie. Nothing else is made in its root, nor above the tree: the directories on
        the way to what is backed up are part of a set, with their times."""
        return self.root / "cases"

    @property
    def proven(self) -> Path:
        """A file for each state that was proven good; see `states`."""
        return self.template.parent / "proven"

    def new_copy(self) -> Scene:
        """The same scene in a new folder among the cases."""
        return self.copy(Path(tempfile.mkdtemp(dir=self.cases)))

    @property
    def sets(self) -> frozenset[str]:
        """All sets of the template."""
        return frozenset({self.before, self.chained, self.other, self.child, self.begun})

    def picture(self, set_id: str) -> Path:
        """What the tree was when that set was made: a copy of it, or the tree itself if it is as it was."""
        found = self.pictures / set_id
        return found if found.exists() else self.tree

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
        with closing(sqlite3.connect(self.home / "catalog.db")) as database:
            return list(database.execute(query))

    def ask_template(self, query: str) -> list[tuple[Any, ...]]:
        """The same of the template, which others copy meanwhile: no file comes or goes beside its database."""
        place = (self.template / "catalog.db").as_uri() + "?immutable=1"
        with closing(sqlite3.connect(place, uri=True)) as database:
            return list(database.execute(query))


def build(root: Path) -> Scene:
    """Make the scene that all others are copies of."""
    home = Home(root / "home")
    home.configure(**ARCHIVE)
    home.library(_CREATED_WITH, cartridges=16, slots=18)
    for path in home.cartridge("CAP001L9").parent.glob("*.json"):
        facts = json.loads(path.read_bytes())
        path.write_text(json.dumps({**facts, "capacity_bytes": CAPACITY}))
    home.run("pool", "create", "aside")
    tree, pictures = make_tree(root / "source", files=9, large=240 << 10), root / "pictures"
    (tree / "text.txt").write_text("the same line\n" * 500)
    before = _back_up(home.path, tree, "before")
    assert len(before["cartridges"]) == 2
    other = _back_up(home.path, tree / "deep", "other", pool="aside")
    _keep(tree, pictures / before["set_id"])
    _change(tree, 1, 20_000)
    chained = _back_up(home.path, tree, "before", type=SetType.INCREMENTAL)
    child = _back_up(home.path, tree / "deep", "other", type=SetType.INCREMENTAL)
    assert (chained["parent_id"], child["parent_id"]) == (before["set_id"], other["set_id"])
    assert set(chained["cartridges"] + child["cartridges"]) == {before["cartridges"][-1]}
    _keep(tree, pictures / chained["set_id"])
    _change(tree, 2, 130_000)
    # What is left of it spans to another cartridge, and has several commit points still.
    begun = _back_up(home.path, tree, "begun", pool="aside", cancel=True)
    assert other["cartridges"] == ["CAP003L9"]
    library = VirtualLibrary.open(home.path / "libraries" / "lib")
    library.insert_into_port(NEW, capacity_bytes=CAPACITY)
    library.close()
    for name in ("cases", "proven"):
        (root / name).mkdir()
    sets = {"before": before, "chained": chained, "other": other, "child": child, "begun": begun}
    return Scene(
        root,
        tree,
        pictures,
        **{name: told["set_id"] for name, told in sets.items()},
        job=begun["job"],
        template=home.path,
        made_at=datetime.now(UTC),
    )


def _back_up(home: Path, tree: Path, name: str, *, cancel: bool = False, **more: Any) -> dict[str, Any]:
    """The result of a backup; with `cancel` it is stopped at its first commit point, and its set and job are told."""

    async def body() -> dict[str, Any]:
        def hear(event: Event) -> None:
            if cancel and event.kind == "job.committed":
                capstan.jobs.cancel_all()

        async with open_home(home, clock=AheadClock(), listener=hear) as capstan:
            request = BackupRequest((os.fsencode(tree),), name, "lib", parameters=capstan.parameters(), **more)
            try:
                _, result = await capstan.jobs.run(
                    JobKind.BACKUP,
                    lambda job: capstan.backup.run(request, job),
                    name=name,
                    library="lib",
                    parameters=request.as_parameters(),
                )
            except JobCancelled as stopped:
                async with capstan.catalog.snapshot() as catalog:
                    job = await catalog.jobs.get(stopped.parameters["job"])
                return {"set_id": job.set_id, "job": job.id}
            return result

    return asyncio.run(body())


def _keep(tree: Path, picture: Path) -> None:
    picture.parent.mkdir(exist_ok=True)
    subprocess.run(["cp", "-a", tree, picture], check=True)


def _change(tree: Path, turn: int, size: int) -> None:
    """A new file of `size` bytes, one that is another now under both of its names, one that is gone, one that moved."""
    (tree / f"new {turn}").write_bytes(random.Random(turn).randbytes(size))
    (tree / "text.txt").write_text(f"line {turn}\n" * 500)
    gone, moved, *_ = sorted((tree / "deep/er").glob("file*"))
    gone.unlink()
    moved.rename(tree / f"moved {turn}")


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
