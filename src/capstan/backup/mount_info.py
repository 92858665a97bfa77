"""What Linux says about mounted file systems (proc(5), `/proc/self/mountinfo`); elsewhere only devices are known."""

from __future__ import annotations

import os
import re
import select
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from capstan.core.mounts import Location
from capstan.file_system import calls

_TABLE = Path("/proc/self/mountinfo")
_BY_UUID = Path("/dev/disk/by-uuid")
_ESCAPE = re.compile(rb"\\([0-7]{3})")
_MOUNT_ID = re.compile(rb"^mnt_id:\s*(\d+)", re.MULTILINE)
# Their `f_fsid` comes from the file system itself; that of others is the number of a device, or nothing.
_NAMED_BY_FSID = frozenset({"ext2", "ext3", "ext4", "btrfs", "f2fs", "tmpfs", "overlay"})

# What the kernel makes up when it is read: nothing in there can be restored.
_MADE_UP = frozenset(
    (
        *("autofs", "binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts", "devtmpfs", "efivarfs"),
        *("fusectl", "hugetlbfs", "mqueue", "nsfs", "proc", "pstore", "rpc_pipefs", "securityfs", "selinuxfs", "sysfs"),
        "tracefs",
    )
)


class _Mount(NamedTuple):
    point: bytes  # stored path
    top: bytes  # path within the file system that is mounted there
    type: str
    source: str
    device: str  # major:minor


class MountInfo:
    """The mounts that this process sees, always as they are now."""

    def __init__(self) -> None:
        self._file: int | None = None
        self._poll = select.poll() if hasattr(select, "poll") else None
        self._mounts: dict[int, _Mount] = {}
        self._names: dict[int, str] = {}
        with suppress(OSError):
            if not hasattr(os, "statvfs"):
                return  # no POSIX
            self._file = os.open(_TABLE, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
            if self._poll is not None:
                self._poll.register(self._file, select.POLLPRI)
            self._read()

    def __del__(self) -> None:
        if self._file is not None:
            os.close(self._file)

    def points(self) -> Iterator[bytes]:
        """The stored paths of all mount points."""
        self._refresh()
        return (mount.point for mount in self._mounts.values())

    def made_up(self) -> Iterator[bytes]:
        """Those of the mount points whose content is nobody's data: /proc, /sys and their like."""
        self._refresh()
        return (mount.point for mount in self._mounts.values() if mount.type in _MADE_UP)

    def locate(self, descriptor: int, path: bytes) -> Location:
        """Where the directory that is open as `descriptor` is, which was reached by the stored `path`."""
        self._refresh()
        mount_id = self._mount_id(descriptor)
        mount = self._mounts.get(mount_id)
        if mount is None:
            return Location(f"device {calls.fstat(descriptor).st_dev}", path)
        if mount_id not in self._names:
            self._names[mount_id] = _name(mount, descriptor)
        rest = path[len(mount.point) :].lstrip(b"/")
        return Location(self._names[mount_id], b"/".join(filter(None, (mount.top, rest))))

    def _mount_id(self, descriptor: int) -> int:
        """Of the very mount that an open file was reached through."""
        try:
            with open(f"/proc/self/fdinfo/{descriptor}", "rb", buffering=0) as file:  # noqa: PTH123 (a descriptor's)
                found = _MOUNT_ID.search(file.read())
        except OSError:
            return -1
        return int(found[1]) if found else -1

    def _refresh(self) -> None:
        """Read the table again if it has changed: the kernel says so to whoever polls it."""
        if self._file is not None and (self._poll is None or self._poll.poll(0)):
            self._read()

    def _read(self) -> None:
        assert self._file is not None
        os.lseek(self._file, 0, os.SEEK_SET)
        text = b""
        while piece := os.read(self._file, 1 << 16):
            text += piece
        self._mounts, self._names = {}, {}
        for line in text.splitlines():
            before, _, behind = line.partition(b" - ")
            number, _, device, top, point, *_ = before.split()
            kind, source, *_ = behind.split()
            self._mounts[int(number)] = _Mount(
                _unescaped(point).strip(b"/"),
                _unescaped(top).strip(b"/"),
                os.fsdecode(kind),
                os.fsdecode(_unescaped(source)),
                os.fsdecode(device),
            )


def _unescaped(field: bytes) -> bytes:
    return _ESCAPE.sub(lambda found: bytes([int(found[1], 8)]), field)


def _name(mount: _Mount, descriptor: int) -> str:
    """A name of a file system that it has wherever, and as whatever device, it is mounted."""
    fsid = os.statvfs(descriptor).f_fsid if mount.type in _NAMED_BY_FSID else 0
    if fsid:
        return f"{mount.type} fsid {fsid:016x}"
    uuid = _uuid_of(mount.device)
    return f"{mount.type} uuid {uuid}" if uuid else f"{mount.type} {mount.source}"


def _uuid_of(device: str) -> str:
    """The UUID of a block device, where udev tells it."""
    with suppress(OSError):
        for link in _BY_UUID.iterdir():
            number = link.stat().st_rdev
            if f"{os.major(number)}:{os.minor(number)}" == device:
                return link.name
    return ""
