"""Everything a file has comes back exactly, from a set on three cartridges: by Capstan, and by stock tar."""

from __future__ import annotations

import hashlib
import os
import random
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness import SMALL, Home, below
from test_freedom import segments, shell

pytestmark = [pytest.mark.slow, pytest.mark.requires("root", "setfacl", "setfattr", "setcap", "zstd")]

LEVELS = 300  # of the deep tree: 3,000 where the scan reaches paths of more than 4,096 bytes
TIME = 1_234_567_890_123_456_789
ODD_NAMES = [b"n" * 255, b"\xff\xfe\x80", b"new\nline", b" ", b"-rf", b"\\xff", "ü \u200b".encode(), b"tab\t\x01\x7f"]


def run(*command: str | bytes | Path) -> None:
    subprocess.run(command, check=True)


def make_hard_tree(root: Path) -> None:
    """One of everything; what is random is the same each time."""
    root.mkdir()
    make_content(root)
    make_metadata(root / "m-metadata")
    for name in ODD_NAMES:
        folder = bytes(root) + b"/odd/" + name
        os.makedirs(folder)
        for inner in ODD_NAMES:
            Path(os.fsdecode(folder + b"/" + inner)).write_bytes(inner)
        os.symlink(name, folder + b"/link")
    at = os.open(root, os.O_RDONLY)
    for level in range(LEVELS):
        at = _down(at, b"level-%d" % level)
    os.close(os.open("bottom", os.O_CREAT | os.O_WRONLY, 0o640, dir_fd=at))
    os.close(at)
    for path, _, at, name in walk(root):  # every time is one of nanoseconds, in the past and in the far future
        offset = int.from_bytes(hashlib.sha256(path).digest()[:7]) - 2**54
        os.utime(name, ns=(TIME, TIME + offset), dir_fd=at, follow_symlinks=False)


def _down(at: int, name: bytes) -> int:
    os.mkdir(name, dir_fd=at)
    inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=at)
    os.close(at)
    return inner


def make_content(root: Path) -> None:
    """Files of all sizes, with and without holes, and names of one file that lie far from each other."""
    chance = random.Random(3)
    for folder in ("a", "n", "z/deeper"):
        (root / folder).mkdir(parents=True)
        for number in range(12):
            (root / folder / f"{number}").write_bytes(chance.randbytes(chance.choice([0, 1, 511, 512, 5000, 70_000])))
    (root / "b-large").write_bytes(chance.randbytes(9 << 20))
    (root / "y-large").write_bytes(chance.randbytes(5 << 20))
    (root / "empty").mkdir()
    layouts = {
        "c-hole": ([], 8 << 30),
        "c-small": ([(8192, 5000)], 40_000),
        "o-ends-in-data": ([(1 << 30, 300_001)], 0),
        "p-across-frames": ([(number << 20, 20_000 + 4096 * number) for number in range(1, 40)], 5 << 30),
        "x-across-cartridges": ([(0, 100), (3 << 30, 6 << 20), (9 << 30, 12_288)], 10 << 30),
    }
    for name, (extents, size) in layouts.items():
        with (root / name).open("wb") as file:
            for offset, length in extents:
                file.seek(offset)
                file.write(chance.randbytes(length))
            file.truncate(max(size, file.tell()))
    for name in ("n/further", "y-further", "z/deeper/further"):
        os.link(root / "b-large", root / name)
        os.link(root / "c-small", root / f"{name}-sparse")


def make_metadata(root: Path) -> None:
    """Modes, owners, attributes, lists, capabilities, and what is neither file nor directory."""
    root.mkdir()
    for name in ("plain", "listed", "capable", "setuid", "attributes"):
        (root / name).write_bytes(name.encode())
    (root / "folder").mkdir()
    os.mkfifo(root / "fifo")
    os.link(root / "fifo", root / "fifo-again")
    os.mknod(root / "char", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    os.mknod(root / "block", 0o600 | stat.S_IFBLK, os.makedev(511, 70_000))
    (root / "link").symlink_to("nowhere/at all")
    for number, path in enumerate(sorted(root.iterdir())):
        os.chown(path, 3_000_000_000 + number, 70_000 + number, follow_symlinks=False)
    for name, mode in {"setuid": 0o6751, "folder": 0o3775, "fifo": 0o622, "char": 0o4666, "plain": 0o000}.items():
        (root / name).chmod(mode)
    run("setfacl", "-m", "u:1234:rw,g:3000000000:r,m::rwx", root / "listed")
    run("setfacl", "-m", "u:1234:rwx", "-m", "d:u:4321:rx,d:o::-", root / "folder")
    run("setcap", "cap_net_raw,cap_chown+ep", root / "capable")
    for name in ("folder", "attributes"):
        run("setfattr", "-n", "user.text", "-v", "text", root / name)
        run("setfattr", "-n", "security.selinux", "-v", "system_u:object_r:tmp_t:s0", root / name)
    run("setfattr", "-n", "user.binary", "-v", "0x000a3d00ff", root / "attributes")
    run("setfattr", "-n", "user.long", "-v", "long" * 500, root / "attributes")
    for name in ("folder", "attributes", "fifo", "char", "link"):
        run("setfattr", "-h", "-n", "trusted.of", "-v", name, root / name)


def walk(root: Path) -> Iterator[tuple[bytes, os.stat_result, int, bytes]]:
    """Every entry below `root`, content before its directory: relative path, status, and directory and name to reach it
    by, which are lent. No path is handed to the system: there may be such that none takes."""
    top = os.open(root, os.O_RDONLY)
    stack: list[tuple[bytes, list[bytes]]] = [(b"", sorted(map(os.fsencode, os.listdir(top)), reverse=True))]
    at = top
    while stack:
        path, names = stack[-1]
        if not names:
            stack.pop()
            if not stack:
                break
            above = os.open("..", os.O_RDONLY | os.O_DIRECTORY, dir_fd=at)
            os.close(at)
            at = above
            name = path.rpartition(b"/")[2]
            yield path, os.stat(name, dir_fd=at, follow_symlinks=False), at, name
            continue
        name = names.pop()
        child = path + b"/" + name if path else name
        status = os.stat(name, dir_fd=at, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
            os.close(at)
            at = inner
            stack.append((child, sorted(map(os.fsencode, os.listdir(at)), reverse=True)))
        else:
            yield child, status, at, name
    os.close(at)


def content(at: int, name: bytes) -> tuple[Any, ...]:
    """Size, where the data lies, and the digest of the data."""
    descriptor = os.open(name, os.O_RDONLY, dir_fd=at)
    size, end, extents, digest = os.fstat(descriptor).st_size, 0, [], hashlib.sha256()
    while end < size:
        try:
            begin = os.lseek(descriptor, end, os.SEEK_DATA)
        except OSError:
            break
        end = os.lseek(descriptor, begin, os.SEEK_HOLE)
        extents.append((begin, end))
        digest.update(os.pread(descriptor, end - begin, begin))
    os.close(descriptor)
    return size, extents, digest.hexdigest()


def picture(root: Path) -> dict[bytes, dict[str, Any]]:
    """All there is to know of everything below `root`, by relative path."""
    found: dict[bytes, dict[str, Any]] = {}
    firsts: dict[int, bytes] = {}
    for path, status, at, name in walk(root):
        known: dict[str, Any] = {
            "mode": oct(status.st_mode),
            "owner": (status.st_uid, status.st_gid),
            "mtime": status.st_mtime_ns,
            "device": status.st_rdev,
        }
        reached = b"/proc/self/fd/%d/%b" % (at, name)
        attributes = os.listxattr(reached, follow_symlinks=False)
        known["attributes"] = {key: os.getxattr(reached, key, follow_symlinks=False) for key in sorted(attributes)}
        if not stat.S_ISDIR(status.st_mode):
            known["file"] = firsts.setdefault(status.st_ino, path)
        if stat.S_ISLNK(status.st_mode):
            known["target"] = os.readlink(name, dir_fd=at)
        if stat.S_ISREG(status.st_mode):
            known["content"] = content(at, name)
            known["blocks"] = status.st_blocks
        found[path] = known
    return found


def differences(found: dict[bytes, dict[str, Any]], wanted: dict[bytes, dict[str, Any]]) -> list[Any]:
    """What is not the same, short enough to be read."""
    missing = [(path, "missing") for path in wanted if path not in found]
    added = [(path, "added") for path in found if path not in wanted]
    return [*missing, *added] + [
        (path, key, found[path].get(key), value)
        for path, known in wanted.items()
        if path in found
        for key, value in known.items()
        if not same(key, found[path].get(key), value)
    ]


def same(key: str, found: Any, wanted: Any) -> bool:
    """The file system's own map of a file's extents may take a block more or less."""
    return found == wanted if key != "blocks" or found is None else abs(found - wanted) <= 16


def remove(root: Path) -> None:
    """Remove a tree of any depth."""
    run("rm", "-rf", root)


def test_a_hard_tree_comes_back(home: Home, tmp_path: Path) -> None:
    """Content, holes, links, names, modes, owners, times, attributes, lists, capabilities, devices, depth: whatever was
    there is there again, and nothing else; on tape there is no hole. The same by GNU tar as RESTORE.txt says."""
    tree = tmp_path / "source"
    make_hard_tree(tree)
    wanted = picture(tree)
    home.configure(**SMALL)
    home.library("8MiB")
    backup = home.run("backup", tree, "--name", "t").json
    assert backup["warnings"] == 0
    assert len(backup["cartridges"]) >= 3
    assert backup["bytes"] > 20 << 30 and backup["stored_bytes"] < 30 << 20
    assert home.run("verify", "latest:t").json["errors"] == 0

    restore = home.run("restore", "latest:t", "--to", tmp_path / "out").json
    assert (restore["errors"], restore["warnings"], restore["warning_codes"]) == (0, 0, {})
    assert differences(picture(below(tmp_path / "out", tree)), wanted) == []

    pieces: dict[int, Path] = {}
    for barcode in backup["cartridges"]:
        home.run("tape", "extract", barcode, "--to", tmp_path / barcode)
        pieces |= segments(tmp_path / barcode, backup["set_id"])
    names = " ".join(str(pieces[number]) for number in sorted(pieces))
    (tmp_path / "tar").mkdir()
    options = "--delay-directory-restore --xattrs --xattrs-include='*' --acls --numeric-owner"
    shell(f"for f in {names}; do tail -c +4097 $f; done | zstd -dc | tar -xpf - {options}", tmp_path / "tar")
    assert differences(picture(below(tmp_path / "tar", tree)), wanted) == []
    for folder in (tree, tmp_path / "out", tmp_path / "tar"):
        remove(folder)
