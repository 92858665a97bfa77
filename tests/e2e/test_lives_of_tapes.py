"""Whatever happens to tapes, sets, copies and the home, in whatever order: what the catalog calls whole restores as
long as one copy of it is there, a copy that is called whole restores alone, and a rebuild never finds less than there
was. What was lost with a cartridge is named.

A walk is drawn from its seed: `CAPSTAN_LIVES` walks in the soak, a few otherwise. A failure shows the steps before it.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyrage
import pytest
from harness import SMALL, Home, below, describe, make_tree
from test_catalog_lost import forget
from test_two_histories import put_back, remember

from capstan.backup.request import BackupRequest
from capstan.bootstrap import open_home
from capstan.core.job import Event, JobKind
from capstan.errors import CapstanError, JobCancelled

pytestmark = pytest.mark.slow

WALKS = int(os.environ.get("CAPSTAN_LIVES", "3"))
STEPS = 14
STEP_NAMES = ["change", "cancel", "kill", "resume", "copy", "erase", "take_out", "lose", "put_back", "pool", "remember"]
TOLERATED = {
    "no-cartridge-available",
    "tape-ahead-of-catalog",
    "copy-incomplete",
    "cartridge-missing",
    "refused",
    "wrong-cartridge",
}
ERRORS = ("parent-missing", "set-partial")
Tree = dict[bytes, tuple[Any, ...]]


class Life:
    """A home with two drives and a pool with a copy pool, and what was ever backed up there. `pictures`: what the
    source was for each set; `killed`: for those whose backup did not live to say which it was. `begun`: a job that was
    cancelled, and what the source was then. `gone`: cartridges that were taken out for good. Half of the lives are
    sealed."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.chance = random.Random(seed)
        self.folder = folder
        self.home = Home(folder / "home")
        self.home.configure(**SMALL, commit_bytes=1 << 20, spooled_segment_bytes=1 << 20, codec="none")
        self.home.library("8MiB", cartridges=14, slots=16, drives=2)
        sealed: tuple[str, ...] = ()
        self.opening: tuple[str | Path, ...] = ()
        if self.chance.random() < 0.5:
            identity = pyrage.x25519.Identity.generate()
            (folder / "identity").write_text(str(identity))
            sealed = ("--recipient", str(identity.to_public()))
            self.opening = ("--identity", folder / "identity")
        self.home.run("pool", "create", "vault", *sealed)
        self.home.run("pool", "create", "default", "--copy-pool", "vault", *sealed)
        self.tree = make_tree(folder / "source", files=6, large=1 << 20)
        self.pictures: dict[str, list[Tree]] = {}
        self.killed: list[Tree] = []
        self.begun: tuple[str, Tree] | None = None
        self.gone: set[str] = set()
        self.older = False  # the home was put back, and not rebuilt since
        self.steps: list[str] = []
        self.snapshots = 0

    def go(self) -> None:
        """One step."""
        names = ["back_up"] * 4 + STEP_NAMES
        name = "rebuild" if self.older and self.chance.random() < 0.5 else self.chance.choice(names)
        self.steps.append(name)
        getattr(self, f"_{name}")()

    def command(self, *arguments: str | Path) -> Any:
        """Run one that may fail for reasons of this life; its result, None if it did."""
        answer = self.home.run_any(*arguments)
        if answer.code == 0:
            return answer.json
        code = answer.json["error"]["code"] if answer.out.startswith("{") else answer.out
        self.steps[-1] += f" ({code})"
        assert code in TOLERATED, (arguments, answer.out[-1500:], answer.err[-1500:])
        return None

    def _change(self) -> None:
        number = self.chance.randrange(1000)
        size = self.chance.choice([10, 70_000, 900_000])
        (self.tree / f"new {number}").write_bytes(random.Random(number).randbytes(size))
        for path in self.chance.sample(sorted(self.tree.glob("new *")), k=1):
            if self.chance.random() < 0.3:
                path.unlink()

    def _back_up(self) -> None:
        kind = self.chance.choice(["full", "incremental", "differential"])
        packing = self.chance.choice([[], ["--container", "7z"], ["--codec", "zstd"]])
        self._change()
        told = self.command("backup", self.tree, "--name", "t", "--type", kind, *packing)
        if told is not None:
            self.pictures.setdefault(told["set_id"], []).append(describe(self.tree))

    def _cancel(self) -> None:
        self._change()
        at = self.chance.randint(1, 2)

        async def body() -> None:
            def hear(event: Event) -> None:
                if event.kind == "job.committed" and event.data["sequence"] == at:
                    capstan.jobs.cancel_all()

            async with open_home(self.home.path, listener=hear) as capstan:
                request = BackupRequest((os.fsencode(self.tree),), "c", "lib", parameters=capstan.parameters())
                _, told = await capstan.jobs.run(
                    JobKind.BACKUP,
                    lambda job: capstan.back_up(request, job),
                    name="c",
                    library="lib",
                    parameters=request.as_parameters(),
                )
                self.pictures.setdefault(told["set_id"], []).append(describe(self.tree))  # it was too late

        try:
            asyncio.run(body())
        except JobCancelled as stopped:
            self.begun = str(stopped.parameters["job"]), describe(self.tree)
            for item in self.home.run("sets").json:
                if (item["name"], item["state"]) == ("c", "complete") and item[
                    "set_id"
                ] not in self.pictures:  # that was its last one
                    self.pictures[item["set_id"]] = [describe(self.tree)]  # that was its last commit point
        except CapstanError as error:
            assert error.code in TOLERATED, error

    def _kill(self) -> None:
        self._change()
        moment, number = self.chance.choice(["written", "entered", "labelled", "event"]), self.chance.randint(1, 4)
        self.steps[-1] += f" {moment} {number}"
        killer = [sys.executable, str(Path(__file__).with_name("killer.py"))]
        arguments = [self.home.path, self.tree, "k", moment, number]
        ended = subprocess.run([*killer, *map(str, arguments)], capture_output=True, text=True, check=False)
        assert ended.returncode in (0, -9) or any(code in ended.stderr for code in ERRORS), ended.stderr[-3000:]
        self.killed.append(describe(self.tree))

    def _take_out(self) -> None:
        used = [item["barcode"] for item in self.home.run("tape", "list").json if item["uuid"] and item["place"]]
        if not used or len(self.gone) == 2 or self.older:
            return
        self.gone.add(self.chance.choice(used))
        path = self.home.path / "libraries/lib/library.json"
        layout = json.loads(path.read_text())
        layout["places"] = {place: item for place, item in layout["places"].items() if item not in self.gone}
        path.write_text(json.dumps(layout))
        self.home.run("library", "inventory", "lib")

    def _resume(self) -> None:
        if self.begun is None or describe(self.tree) != self.begun[1]:
            return
        if not any(job["job_id"] == self.begun[0] for job in self.home.run("jobs").json):
            return  # the catalog was lost since
        told = self.command("job", "resume", self.begun[0])
        if told is not None:
            self.pictures.setdefault(told["set_id"], []).append(self.begun[1])
            self.begun = None

    def _copy(self) -> None:
        self.command("copy", "--missing")

    def _erase(self) -> None:
        known = self.home.run("tape", "list").json
        used = [item["barcode"] for item in known if item["uuid"] and item["pool"] and item["place"]]
        if used and not self.older:
            self.command("tape", "erase", self.chance.choice(used), "--yes")

    def _lose(self) -> None:
        before = self.whole() if not self.older else set()
        forget(self.home)
        self._rebuild()
        assert before <= self.whole()

    def _rebuild(self) -> None:
        self.home.run("rebuild", "--library", "lib", *self.opening)
        self.older = False

    def _remember(self) -> None:
        self.snapshots += 1
        remember(self.home, self.folder / f"snapshot-{self.snapshots}")

    def _put_back(self) -> None:
        """An older home meets tapes that have gone on; what was whole is found again by a rebuild, sooner or later."""
        if not self.snapshots or self.older:
            return
        before = self.whole()
        put_back(self.home, self.folder / f"snapshot-{self.chance.randint(1, self.snapshots)}")
        self.older = True
        for _ in range(self.chance.randint(0, 2)):
            self.steps.append("back_up of an older home")
            self._back_up()
        self._rebuild()
        assert before <= self.whole()

    def _pool(self) -> None:
        option = self.chance.choice([["--copy-pool", ""], ["--copy-pool", "vault"], ["--verify-writes"]])
        self.home.run_any("pool", "change", "default", *option)

    def whole(self) -> set[str]:
        """The sets that the catalog calls complete, and all that they build on too, and of each of which one copy lies
        in the library."""
        sets = {item["set_id"]: item for item in self.home.run("sets").json}
        here = {set_id for set_id in sets if self._is_here(set_id)}
        found = set()
        for set_id in sets:
            chain = [set_id]
            while sets[chain[-1]]["parent_id"] in sets:
                chain.append(sets[chain[-1]]["parent_id"])
            if (
                not sets[chain[-1]]["parent_id"]
                and here.issuperset(chain)
                and all(sets[item]["state"] == "complete" for item in chain)
            ):
                found.add(set_id)
        return found

    def _is_here(self, set_id: str) -> bool:
        copies = self.home.run("set", "show", set_id).json["copies"]
        return any(copy["whole"] and self.gone.isdisjoint(used_by(copy)) for copy in copies)

    def check(self) -> None:
        """All that is called whole is, and what is not there for want of a cartridge is said to be on it."""
        whole = self.whole()
        for item in self.home.run("sets").json:
            if item["state"] == "complete" and item["set_id"] not in whole:
                self._is_missed(item["set_id"])
        for set_id in sorted(whole):
            self._restores(set_id)
            shown = self.home.run("set", "show", set_id).json
            for copy in shown["copies"] if shown["type"] == "full" else []:
                if copy["whole"] and self.gone.isdisjoint(used_by(copy)):
                    with self.only(used_by(copy)):
                        self._restores(set_id)

    def _restores(self, set_id: str) -> None:
        out = self.folder / "out"
        self.home.run("restore", set_id, "--to", out, *self.opening)
        assert describe(below(out, self.tree)) in self.pictures.get(set_id, self.killed), set_id
        shutil.rmtree(out)

    def _is_missed(self, set_id: str) -> None:
        """Restored as far as it can be, or not begun: either way with the names of cartridges, which are gone."""
        out = self.folder / "out"
        answer = self.home.run_any("restore", set_id, "--to", out, *self.opening)
        if answer.code == 0:  # segments of several copies make up for each other
            assert describe(below(out, self.tree)) in self.pictures.get(set_id, self.killed), set_id
        else:
            told = json.dumps(answer.json["error"])
            assert any(barcode in told for barcode in self.gone) or answer.json["error"]["code"] in ERRORS, told
        shutil.rmtree(out, ignore_errors=True)

    @contextmanager
    def only(self, barcodes: set[str]) -> Iterator[None]:
        """As if all other cartridges were taken out of the library."""
        path = self.home.path / "libraries/lib/library.json"
        before = path.read_text()
        layout = json.loads(before)
        layout["places"] = {place: item for place, item in layout["places"].items() if item in barcodes}
        path.write_text(json.dumps(layout))
        self.home.run("library", "inventory", "lib")
        yield
        path.write_text(before)
        self.home.run("library", "inventory", "lib")


def used_by(copy: dict[str, Any]) -> set[str]:
    return {item["barcode"] for item in copy["cartridges"]}


@pytest.mark.parametrize("seed", range(WALKS))
def test_a_life(tmp_path: Path, seed: int) -> None:
    life = Life(tmp_path, seed)
    try:
        for _ in range(STEPS):
            life.go()
        if life.older:
            life._rebuild()
        life.check()
    except BaseException as error:
        error.add_note(f"seed {seed}: {life.steps}")
        raise
