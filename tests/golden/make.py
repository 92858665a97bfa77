"""Makes golden tapes, by the command line: once for each kind, and never again, so that what a release wrote stays.

usage: make.py [NAME…]      (a kind that is there is refused: remove its folder first, and say why in the commit)

As root, for owners and attributes. A folder of `tapes/` holds the cartridges of a kind, and `expected.json`: what the
source was when each set was made. The secrets in `keys/` open nothing else.
"""

from __future__ import annotations

import asyncio
import json
import lzma
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "e2e"))

from harness import Home  # noqa: E402
from trees import describe_tree, make_everything, make_small, settle, text  # noqa: E402

from capstan.backup.request import BackupRequest  # noqa: E402
from capstan.bootstrap import open_home  # noqa: E402
from capstan.core.job import Event, JobKind  # noqa: E402
from capstan.errors import JobCancelled  # noqa: E402

TAPES, KEYS = HERE / "tapes", HERE / "keys"
ROOT = Path("/srv/golden")
SIZES = {
    "record_bytes": 64 << 10,
    "frame_bytes": 64 << 10,
    "segment_bytes": 128 << 10,
    "spooled_segment_bytes": 128 << 10,
    "commit_bytes": 512 << 10,
}


class Kind:
    """A home with a library, and what was written there."""

    def __init__(self, folder: Path, capacity: str = "64MiB") -> None:
        self.home = Home(folder / "home")
        self.home.configure(**SIZES)
        self.home.library(capacity, cartridges=12, drives=2)
        self.sets: dict[str, Any] = {}
        self.left_out: list[str] = []  # cartridges that are lost

    def back_up(self, *options: str | Path) -> str:
        """Back up the source as it is, and write down what it is."""
        set_id = str(self.home.run("backup", ROOT, "--name", "golden", *options).json["set_id"])
        self.sets[set_id] = describe_tree(ROOT)
        return set_id

    def keep(self, name: str, keys: list[str], into: Path = TAPES) -> None:
        """Put the cartridges that were written into a folder of that name."""
        folder = into / name
        folder.mkdir(parents=True)
        for path in sorted(self.home.cartridge("CAP001L9").parent.glob("*.tap")):
            if path.stat().st_size and path.stem not in self.left_out:
                (folder / f"{path.name}.xz").write_bytes(lzma.compress(path.read_bytes(), preset=9))
        facts = {"sets": self.sets, "keys": keys}
        (folder / "expected.json").write_text(json.dumps(facts, indent=0, sort_keys=True))


def packed(*options: str, tree: Callable[[Path], None] = make_everything) -> Callable[[Path], Kind]:
    """One set, packed so."""

    def make(folder: Path) -> Kind:
        kind = Kind(folder)
        tree(ROOT)
        kind.back_up(*options)
        return kind

    return make


def chain(folder: Path) -> Kind:
    """A full set; an incremental one on it; and a differential one, of which the incremental one is no part."""
    kind = Kind(folder)
    make_everything(ROOT)
    kind.back_up()
    (ROOT / "folder/70000 bytes").unlink()
    (ROOT / "empty").rmdir()
    (ROOT / "empty").write_text("a file by now")
    (ROOT / "large").rename(ROOT / "folder/moved")
    os.link(ROOT / "another name", ROOT / "fourth name")
    settle(ROOT)
    kind.back_up("--type", "incremental")
    shutil.rmtree(ROOT / "folder/inner")
    (ROOT / "new").write_bytes(text(3000, "new"))
    settle(ROOT)
    kind.back_up("--type", "differential", "--codec", "lz4")
    return kind


def spanning(folder: Path) -> Kind:
    """On three cartridges, with a file that lies on two."""
    kind = Kind(folder, "4MiB")
    make_small(ROOT)
    for number in range(2):
        (ROOT / f"large {number}").write_bytes(text(3 << 20, f"spanning {number}"))
    settle(ROOT)
    kind.back_up("--codec", "none")
    assert len(kind.home.run("sets").json[0]["cartridges"]) > 2
    return kind


def interrupted(folder: Path) -> Kind:
    """Cancelled within a file that was then changed, and gone on with on another cartridge: the file is damaged there,
    and follows whole."""
    kind = Kind(folder)
    make_small(ROOT)
    (ROOT / "large").write_bytes(text(2 << 20, "before"))
    settle(ROOT)
    cancel(kind.home)
    [job] = kind.home.run("jobs").json
    (ROOT / "large").write_bytes(text((2 << 20) + 5, "after"))
    settle(ROOT)
    with closing(sqlite3.connect(kind.home.path / "catalog.db")) as database:
        database.execute("UPDATE cartridges SET state = 'full' WHERE barcode = 'CAP001L9'")
        database.commit()
    set_id = kind.home.run("job", "resume", job["job_id"]).json["set_id"]
    kind.sets[set_id] = describe_tree(ROOT)
    assert len(kind.home.run("sets").json[0]["cartridges"]) == 2
    return kind


def cancel(home: Home) -> None:
    """Back up to the first commit point."""

    async def body() -> None:
        def hear(event: Event) -> None:
            if event.kind == "job.committed":
                capstan.jobs.cancel_all()

        async with open_home(home.path, listener=hear) as capstan:
            request = BackupRequest((os.fsencode(ROOT),), "golden", "lib", parameters=capstan.parameters("none"))
            await capstan.jobs.run(
                JobKind.BACKUP,
                lambda job: capstan.backup.run(request, job),
                name="golden",
                library="lib",
                parameters=request.as_parameters(),
            )

    try:
        asyncio.run(body())
    except JobCancelled:
        return
    raise AssertionError("it was not cancelled")


def copies(folder: Path) -> Kind:
    """A copy on two cartridges, with a torn tape file between, of which the first cartridge of the original is lost."""
    kind = Kind(folder, "4MiB")
    make_small(ROOT)
    (ROOT / "large").write_bytes(text(5 << 20, "copied"))
    settle(ROOT)
    kind.home.run("pool", "create", "vault")
    small = kind.back_up("--pool", "vault", "--codec", "none")  # so that the copy ends elsewhere
    set_id = kind.back_up("--codec", "none")
    kind.home.run("copy", set_id, "--pool", "vault")
    assert small != set_id
    kind.left_out = kind.home.run("set", "show", set_id).json["cartridges"][:1]
    return kind


def unreadable(folder: Path) -> Kind:
    """A file that the backup may not read, and a directory that it may not list: what is in them is not there."""
    kind = Kind(folder)
    make_small(ROOT)
    (ROOT / "secret").write_text("not for you")
    (ROOT / "closed").mkdir()
    (ROOT / "closed/inner").write_text("nor this")
    settle(ROOT)
    for name in ("secret", "closed"):
        (ROOT / name).chmod(0)
    drop = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
    command = [*drop, *kind.home.command("backup", ROOT, "--name", "golden")]
    told = json.loads(subprocess.run(command, capture_output=True, check=False).stdout)
    kind.sets[told["set_id"]] = {
        path: {"type": facts["type"], "unreadable": True} if path.endswith("secret") else facts
        for path, facts in describe_tree(ROOT).items()
        if not path.endswith("closed/inner")
    }
    return kind


def drive(folder: Path) -> Kind:
    """Encrypted by the drive."""
    kind = Kind(folder)
    make_small(ROOT)
    opening = ["--key-file", str(folder / "unlock"), "--identity-passphrase-file", str(folder / "phrase")]
    (folder / "unlock").write_bytes(bytes(range(32)))
    (folder / "phrase").write_text("golden")
    kind.home.run("key", "create", "tapes", "--drive", *opening[:2])
    kind.home.run("pool", "create", "encrypted", "--drive-encryption", "tapes")
    kind.back_up("--pool", "encrypted", *opening[:2])
    kind.home.run("key", "export", "tapes", "--to", KEYS / "drive.age", *opening)
    return kind


X25519 = ("--recipient", f"@{KEYS / 'x25519.pub'}")
SSH = ("--recipient", f"@{KEYS / 'ssh_ed25519.pub'}", "--recipient", f"@{KEYS / 'ssh_rsa.pub'}")
KINDS: dict[str, tuple[Callable[[Path], Kind], list[str]]] = {
    "tar-zstd": (packed("--codec", "zstd"), []),
    "tar-lz4": (packed("--codec", "lz4"), []),
    "tar-gzip": (packed("--codec", "gzip"), []),
    "tar-none": (packed("--codec", "none"), []),
    "7z-copy": (packed("--container", "7z", "--codec", "copy"), []),
    "7z-deflate": (packed("--container", "7z", "--codec", "deflate"), []),
    "7z-lzma2": (packed("--container", "7z", "--codec", "lzma2"), []),
    "age-x25519": (packed(*X25519, tree=make_small), ["x25519"]),
    "age-ssh": (packed(*SSH, "--codec", "gzip", tree=make_small), ["ssh_ed25519", "ssh_rsa"]),
    "age-7z": (packed(*X25519, "--container", "7z", tree=make_small), ["x25519"]),
    "drive": (drive, ["drive.age"]),
    "spanning": (spanning, []),
    "interrupted": (interrupted, []),
    "chain": (chain, []),
    "copies": (copies, []),
    "unreadable": (unreadable, []),
}


def make(name: str, into: Path) -> Kind:
    """Write the tapes of a kind in a new home below `into`."""
    shutil.rmtree(ROOT, ignore_errors=True)
    ROOT.mkdir(parents=True)
    try:
        return KINDS[name][0](into)
    finally:
        shutil.rmtree(ROOT, ignore_errors=True)


def make_keys() -> None:
    """The identities, unless they are there."""
    if KEYS.exists():
        return
    KEYS.mkdir()
    subprocess.run(["age-keygen", "-o", KEYS / "x25519"], check=True, capture_output=True)
    shown = subprocess.run(["age-keygen", "-y", KEYS / "x25519"], check=True, capture_output=True)
    (KEYS / "x25519.pub").write_bytes(shown.stdout)
    for name, kind in (("ssh_ed25519", ["ed25519"]), ("ssh_rsa", ["rsa", "-b", "2048"])):
        subprocess.run(["ssh-keygen", "-q", "-N", "", "-C", "golden", "-t", *kind, "-f", KEYS / name], check=True)


if __name__ == "__main__":
    make_keys()
    for wanted in sys.argv[1:] or KINDS:
        if (TAPES / wanted).exists():
            sys.exit(f"{wanted} is there already: golden tapes are made once")
        with tempfile.TemporaryDirectory() as work:
            make(wanted, Path(work)).keep(wanted, KINDS[wanted][1])
