"""What golden tapes are made of, and how a tree is described: by the file system alone."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
from base64 import b64encode
from pathlib import Path
from typing import Any

TIME = 1_234_567_890_123_456_789
ATTRIBUTES = ("user.color", "system.posix_acl_access")
_TYPES = {stat.S_IFREG: "file", stat.S_IFDIR: "dir", stat.S_IFLNK: "symlink", stat.S_IFIFO: "fifo"}


def text(size: int, word: str) -> bytes:
    """Lines that pack well, each another."""
    lines = b"".join(b"%s %07d\n" % (word.encode(), number) for number in range(size // (len(word) + 9) + 1))
    return lines[:size]


def make_small(root: Path) -> None:
    """A few files."""
    (root / "folder/inner").mkdir(parents=True)
    for size in (0, 1, 511, 512, 513, 70_000):
        (root / f"folder/{size} bytes").write_bytes(text(size, "small"))
    (root / "link").symlink_to("folder/inner")
    settle(root)


def make_everything(root: Path) -> None:
    """One of everything that a file system on Linux has."""
    make_small(root)
    (root / "empty").mkdir()
    (root / "dangling").symlink_to("nowhere/at all")
    os.mkfifo(root / "pipe", 0o640)
    deep = root / ("a component of many letters " * 4) / ("b" * 200) / "c"
    deep.mkdir(parents=True)
    (deep / ("long " * 30)).write_bytes(b"at the end of a long path")
    for name in (
        b"\xff\xfe\x80",
        b"new\nline",
        b"\\xff",
        "ü 文".encode(),
        b"con",
        b"dot.",
        b"Two",
        b"two",
        b'a:b*?"<>|',
    ):
        Path(os.fsdecode(bytes(root) + b"/odd " + name)).write_bytes(name)
        Path(os.fsdecode(bytes(root) + b"/folder/" + name)).write_bytes(name)
    os.link(root / "folder/513 bytes", root / "another name")
    os.link(root / "folder/513 bytes", root / "folder/inner/third name")
    with (root / "sparse").open("wb") as file:
        for offset in (0, 1 << 20, 3 << 20):
            file.seek(offset)
            file.write(text(5000, "extent"))
        file.truncate(5 << 20)
    (root / "marked").write_bytes(b"with attributes")
    os.setxattr(root / "marked", "user.color", b"green\0\xff")
    subprocess.run(["setfacl", "-m", "u:4321:rw", root / "marked"], check=True)
    (root / "marked").chmod(0o4755)
    os.chown(root / "folder/512 bytes", 12_345, 3_000_000)
    (root / "large").write_bytes(text(300_000, "in several parts"))
    settle(root)


def settle(root: Path) -> None:
    """Give everything times of nanoseconds, in the past and the future."""
    for folder, directories, names in os.walk(os.fsencode(root), topdown=False):
        for name in sorted((*directories, *names)):
            path = folder + b"/" + name
            offset = int.from_bytes(hashlib.sha256(path).digest()[:7]) - 2**54
            os.utime(path, ns=(TIME, TIME + offset), follow_symlinks=False)
    os.utime(root, ns=(TIME, TIME))


def describe_tree(root: Path, stored: str = "") -> dict[str, dict[str, Any]]:
    """All that is at `root` and below, by stored path, JSON-safe. `stored`: the stored path of `root` itself."""
    top = os.fsencode(root)
    paths = [top]
    for folder, directories, names in os.walk(top):
        paths += [folder + b"/" + name for name in (*directories, *names)]
    prefix = os.fsencode(stored) if stored else top.lstrip(b"/")
    found = {os.fsdecode(prefix + path[len(top) :]): path for path in paths}
    first: dict[int, str] = {}
    for name in sorted(found):
        first.setdefault(os.lstat(found[name]).st_ino, name)
    return {name: _describe(found[name], name, first) for name in sorted(found)}


def _describe(path: bytes, name: str, first: dict[int, str]) -> dict[str, Any]:
    status = os.lstat(path)
    kind = _TYPES[stat.S_IFMT(status.st_mode)]
    facts: dict[str, Any] = {
        "type": kind,
        "mode": stat.S_IMODE(status.st_mode),
        "uid": status.st_uid,
        "gid": status.st_gid,
        "mtime_ns": status.st_mtime_ns,
    }
    if kind == "symlink":
        return {**facts, "target": os.fsdecode(os.readlink(path))}
    known = os.listxattr(path) if kind != "fifo" else []
    facts |= {key: b64encode(os.getxattr(path, key)).decode() for key in ATTRIBUTES if key in known}
    if kind == "file":
        content = Path(os.fsdecode(path)).read_bytes()
        facts |= {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        if first[status.st_ino] != name:
            facts["same_as"] = first[status.st_ino]
    return facts
