"""A home, a library and the command line, as a person uses them."""

from __future__ import annotations

import io
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from capstan.cli.main import main
from capstan.clock import SystemClock


class AheadClock(SystemClock):
    """An hour ahead: what has just been changed does not count as being changed while it is looked at, so that
    comparing is what decides."""

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(hours=1)


@dataclass
class Answer:
    """What one command said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def events(self) -> list[dict[str, Any]]:
        """The JSON lines of standard error."""
        return [json.loads(line) for line in self.err.splitlines() if line.startswith("{")]

    def phases(self) -> list[str]:
        """The phases of the job, in the order told."""
        return [event["phase"] for event in self.events if event["event"] == "job.phase"]


class Home:
    """Runs `capstan --json` on one home; a command that fails fails the test unless `code` says which failure."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def command(self, *arguments: str | Path) -> list[str]:
        """The same as a command line for another process."""
        return [sys.executable, "-m", "capstan.cli.main", "--json", "--home", str(self.path), *map(str, arguments)]

    def run(self, *arguments: str | Path, code: int = 0) -> Answer:
        """Run a command that ends with `code`."""
        answer = self.run_any(*arguments)
        assert answer.code == code, f"{arguments}: {answer.code}\n{answer.out[-2000:]}\n{answer.err[-3000:]}"
        return answer

    def run_any(self, *arguments: str | Path) -> Answer:
        """In this process: what a command does is the same, and an interpreter's start is saved each time."""
        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            code = main(["--json", "--home", str(self.path), *map(str, arguments)])
        return Answer(code, out.getvalue(), err.getvalue())

    def library(self, capacity: str = "64MiB", name: str = "lib", **options: str | int) -> None:
        """Create a virtual library."""
        extra = [part for key, value in options.items() for part in (f"--{key.replace('_', '-')}", str(value))]
        self.run("library", "create", name, "--virtual", "--capacity", capacity, *extra)

    def configure(self, **archive: int | str) -> None:
        """Set `[archive]` values in capstan.toml."""
        self.path.mkdir(exist_ok=True)
        lines = ["[archive]", *(f"{key} = {json.dumps(value)}" for key, value in archive.items()), ""]
        old = (self.path / "capstan.toml").read_text() if (self.path / "capstan.toml").exists() else ""
        (self.path / "capstan.toml").write_text("\n".join(lines) + old)

    def cartridge(self, barcode: str, library: str = "lib") -> Path:
        """The image file of a virtual cartridge."""
        return self.path / "libraries" / library / "cartridges" / f"{barcode}.tap"


@contextmanager
def full_disk(folder: Path, size: str) -> Iterator[None]:
    """A file system of that size (as mount writes it) in the place of `folder`; needs root."""
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def lying_disk(folder: Path, backing: Path) -> Iterator[None]:
    """A file system of 64 MiB in the place of `folder`, on a disk that has less: writing goes well, and fails later,
    when what was written goes to the disk. Needs root, loop and mkfs.ext4."""
    folder.mkdir(parents=True, exist_ok=True)
    with full_disk(backing, "2m"):
        image = backing / "disk"
        with image.open("wb") as file:
            file.truncate(64 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-O", "^has_journal", str(image)], check=True)
        subprocess.run(["mount", "-o", "loop", str(image), str(folder)], check=True)
        try:
            yield
        finally:
            subprocess.run(["umount", str(folder)], check=True)


SMALL = {"frame_bytes": 65536, "segment_bytes": 1 << 20, "record_bytes": 65536}


def make_tree(root: Path, *, files: int = 60, large: int = 1 << 20, seed: int = 1) -> Path:
    """A tree with what file systems have: many small files, a large one, links, modes, times, odd names."""
    chance = random.Random(seed)
    (root / "deep" / "er").mkdir(parents=True)
    (root / "empty").mkdir()
    for number in range(files):
        folder = root / ("deep/er" if number % 3 else "deep")
        path = folder / f"file {number:04}.dat"
        path.write_bytes(chance.randbytes(chance.randint(0, 9000)))
        path.chmod(chance.choice([0o600, 0o644, 0o755]))
        os.utime(path, ns=(0, chance.randint(0, 2_000_000_000_000_000_000)))
    with (root / "large.bin").open("wb") as file:
        for start in range(0, large, 1 << 20):
            file.write(chance.randbytes(min(1 << 20, large - start)))
    (root / "text.txt").write_text("the same line\n" * 20_000)
    (root / "zero").touch()
    (root / "link").symlink_to("deep/er")
    (root / "dangling").symlink_to("nowhere/at/all")
    os.link(root / "text.txt", root / "text hard.txt")
    Path(os.fsdecode(os.fsencode(root) + b"/n\xe4me \n\\xff")).write_bytes(b"not UTF-8")
    os.utime(root / "empty", ns=(0, 1_234_567_890_123_456_789))
    return root


def describe(root: Path) -> dict[bytes, tuple[Any, ...]]:
    """Everything below `root` that a restore must bring back, by path."""
    found: dict[bytes, tuple[Any, ...]] = {}
    top = os.fsencode(root)
    inodes: dict[int, bytes] = {}
    for folder, directories, names in os.walk(top):
        for name in sorted((*directories, *names)):
            path = folder + b"/" + name
            status = os.lstat(path)
            relative = path[len(top) + 1 :]
            content: bytes = b""
            if os.path.islink(path):
                content = os.readlink(path)
            elif os.path.isfile(path):
                content = Path(os.fsdecode(path)).read_bytes()
                first = inodes.setdefault(status.st_ino, relative)
                content += b"" if first == relative else b" = " + first
            mode = status.st_mode
            found[relative] = (mode, status.st_uid, status.st_gid, status.st_mtime_ns, content)
    return found


def below(target: Path, source: Path) -> Path:
    """Where the restore to `target` puts `source`."""
    return target / source.relative_to("/")
