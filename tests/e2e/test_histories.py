"""Any tree, any history of changes, any mixture of full, incremental and differential sets: each set restores exactly
what was there at its time, from the catalog, from a rebuilt one, and by stock tools alone."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from harness import SMALL, AheadClock, Home, below, describe
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from test_freedom import segments, shell

from capstan.backup.request import BackupRequest
from capstan.bootstrap import open_home
from capstan.core.backup import SetType
from capstan.core.job import Event, JobKind
from capstan.errors import JobCancelled

pytestmark = pytest.mark.slow

NAMES = ["a", "b", "c", "d e", "f", "ab", "a-", "é", "x"]


@dataclass
class Tree:
    """A directory that things happen to, by a seeded choice."""

    root: Path
    chance: random.Random
    log: list[str] = field(default_factory=list)

    def change(self) -> None:
        """One change; some meet nothing to change."""
        often = [self.write, self.write, self.remove, self.make, self.move]
        action = self.chance.choice(
            [*often, self.mode, self.symlink, self.hardlink, self.replace, self.quietly, self.exchange, self.attribute]
        )
        with suppress(OSError):  # a name is taken, a directory is not empty, a link goes into itself
            action()

    def keep_some(self) -> None:
        """Of a root that is empty nothing is called deleted."""
        if not any(self.root.iterdir()):
            (self.root / "a").mkdir()

    def some(self, kind: str = "any") -> Path:
        """One of the paths there are, or a new one."""
        found = sorted(self.root.rglob("*"))
        if kind == "file":
            found = [path for path in found if path.is_file() and not path.is_symlink()]
        if kind == "new":
            folders = [self.root, *(path for path in found if path.is_dir() and not path.is_symlink())]
            return self.chance.choice(folders) / self.chance.choice(NAMES)
        return self.chance.choice(found or [self.root / "a"])

    def write(self) -> None:
        path = self.some(self.chance.choice(["file", "new"]))
        path.write_bytes(self.chance.randbytes(self.chance.choice([0, 1, 600, 70_000, 300_000])))

    def remove(self) -> None:
        path = self.some()
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()

    def make(self) -> None:
        self.some("new").mkdir()

    def move(self) -> None:
        self.some().rename(self.some("new"))

    def mode(self) -> None:
        path = self.some()
        if not path.is_symlink():
            path.chmod(self.chance.choice([0o600, 0o640, 0o755, 0o700]))

    def symlink(self) -> None:
        self.some("new").symlink_to(self.chance.choice(["a", "b/c", "/nowhere"]))

    def hardlink(self) -> None:
        os.link(self.some("file"), self.some("new"))

    def replace(self) -> None:
        """Another file under the name of one, as editors do it."""
        path = self.some("file")
        other = path.with_name("new version")
        other.write_bytes(self.chance.randbytes(600))
        other.rename(path)

    def quietly(self) -> None:
        """Other content of the same length, with the old modification time."""
        path = self.some("file")
        before = path.stat()
        path.write_bytes(self.chance.randbytes(before.st_size))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    def exchange(self) -> None:
        """Another kind of thing under the same name."""
        path = self.some()
        kind = path.is_dir() and not path.is_symlink()
        self.remove_path(path)
        if kind:
            path.write_bytes(b"now a file")
        else:
            path.mkdir()
            (path / "inner").write_bytes(b"inside")

    def attribute(self) -> None:
        path = self.some("file")
        os.setxattr(path, "user.note", self.chance.randbytes(8))

    @staticmethod
    def remove_path(path: Path) -> None:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def state(root: Path) -> dict[bytes, tuple[Any, ...]]:
    """What must come back, attributes included."""
    found = describe(root)
    for name in found:
        path = os.fsencode(root) + b"/" + name
        if not os.path.islink(path):
            found[name] += (tuple((a, os.getxattr(path, a)) for a in sorted(os.listxattr(path))),)
    return found


async def back_up(home: Path, tree: Tree, kind: SetType, interrupted: int) -> dict[str, Any]:
    """A backup; one that is interrupted, by as many changes of the tree, is cancelled at its first commit point."""

    def hear(event: Event) -> None:
        if interrupted and event.kind == "job.committed":
            capstan.jobs.cancel_all()

    async with open_home(home, clock=AheadClock(), listener=hear) as capstan:
        request = BackupRequest(
            sources=(os.fsencode(tree.root),),
            name="t",
            library="lib",
            type=kind,
            parameters=capstan.parameters("zstd:1"),
        )
        try:
            _, result = await capstan.jobs.run(JobKind.BACKUP, lambda job: capstan.backup.run(request, job), name="t")
            return result
        except JobCancelled as cancelled:
            job_id = str(cancelled.parameters["job"])
    for _ in range(interrupted):
        tree.change()
    tree.keep_some()
    async with open_home(home, clock=AheadClock()) as capstan:
        _, result = await capstan.jobs.resume(job_id, lambda job: capstan.backup.resume(request, job))
        return result


kinds = st.tuples(
    st.sampled_from([*SetType, SetType.INCREMENTAL, SetType.INCREMENTAL]), st.sampled_from([0, 0, 0, 3, 9])
)


@pytest.mark.requires("zstd")
@settings(  # an example takes seconds: shrinking one would take minutes
    max_examples=int(os.environ.get("CAPSTAN_HISTORIES", "6")), phases=[Phase.explicit, Phase.generate]
)
@given(seed=st.integers(0, 2**32), types=st.lists(kinds, min_size=2, max_size=5), pace=st.integers(1, 25))
def test_any_history(seed: int, types: list[tuple[SetType, int]], pace: int) -> None:
    """The promise at the top of this file. A set that was interrupted, and its tree changed before it went on, is of no
    one time; but what builds on it is exact again."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        home = Home(work / "home")
        home.configure(**SMALL, commit_bytes=300_000)
        home.library("4MiB", cartridges=20, slots=24)
        tree = Tree(work / "source", random.Random(seed))
        tree.root.mkdir()
        sets: list[tuple[dict[str, Any], dict[bytes, tuple[Any, ...]]]] = []
        results: list[dict[str, Any]] = []
        for kind, interrupted in [*types, (SetType.INCREMENTAL, 0)]:
            for _ in range(pace):
                tree.change()
            tree.keep_some()
            before = state(tree.root)
            results.append(asyncio.run(back_up(home.path, tree, kind, interrupted)))
            assert results[-1]["type"] == (kind if len(results) > 1 else SetType.FULL)
            if state(tree.root) == before:
                sets.append((results[-1], before))
                assert results[-1]["warnings"] == 0
        for number, (result, before) in enumerate(sets):
            home.run("restore", result["set_id"], "--to", work / f"out{number}")
            assert state(below(work / f"out{number}", tree.root)) == before
            listed = home.run("set", "files", result["set_id"], "--prefix", str(tree.root)).json
            assert {item["path"] for item in listed} == {
                str(tree.root),
                *(f"{tree.root}/{os.fsdecode(name)}" for name in before),
            }
        for path in home.path.glob("catalog.db*"):
            path.unlink()
        shutil.rmtree(home.path / "indexes")
        home.run("rebuild", "--library", "lib")
        for number, (result, before) in enumerate(sets):
            home.run("restore", result["set_id"], "--to", work / f"again{number}")
            assert state(below(work / f"again{number}", tree.root)) == before
        with_stock_tools(home, work, results, below(work / "stock", tree.root), sets[-1][1])


def with_stock_tools(
    home: Home, work: Path, results: list[dict[str, Any]], where: Path, before: dict[bytes, tuple[Any, ...]]
) -> None:
    """The last set, and all that it builds on, oldest first: what is gone is removed, then the set is unpacked."""
    target = work / "stock"
    target.mkdir()
    by_id = {result["set_id"]: result for result in results}
    chain = [results[-1]]
    while chain[-1]["parent_id"]:
        chain.append(by_id[chain[-1]["parent_id"]])
    for result in reversed(chain):
        pieces: dict[int, Path] = {}
        for barcode in result["cartridges"]:
            folder = work / f"tape-{barcode}"
            if not folder.exists():
                home.run("tape", "extract", barcode, "--to", folder)
            for index in folder.glob("*.index"):
                if f"set: {result['set_id']}".encode() in index.read_bytes()[:4096]:
                    shell(
                        f"tail -c +4097 {index} | zstd -dc | tar -xf - -O deleted 2>/dev/null > deleted || true", work
                    )
                    shell(f"cd {target} && xargs -0 rm -rf -- < {work}/deleted", work)
            pieces |= segments(folder, result["set_id"])
        names = " ".join(str(pieces[number]) for number in sorted(pieces))
        options = "--delay-directory-restore --xattrs --xattrs-include='*' --acls --numeric-owner"
        shell(f"cd {target} && (for f in {names}; do tail -c +4097 $f; done) | zstd -dc | tar -xpf - {options}", work)
    assert state(where) == before


@pytest.mark.requires("zstd")
def test_a_file_that_is_written_in_place(tmp_path: Path) -> None:
    """Its directory is as it was, and keeps its time, by stock tools too."""
    home = Home(tmp_path / "home")
    home.configure(**SMALL)
    home.library("4MiB")
    tree = Tree(tmp_path / "source", random.Random(1))
    (tree.root / "a/b").mkdir(parents=True)
    path = tree.root / "a/b/file"
    results = []
    for content in ("one", "two"):
        path.write_text(content)
        results.append(asyncio.run(back_up(home.path, tree, SetType.INCREMENTAL, 0)))
    assert results[-1]["files"] == 1
    with_stock_tools(home, tmp_path, results, below(tmp_path / "stock", tree.root), state(tree.root))
