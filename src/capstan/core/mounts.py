"""Which file systems a source is made of: what was where when a set was made.

Device numbers change with a restart, the inode of the top of a file system is the same for all of its kind, and a bind
mount has neither of its own. So a place is told by the file system's own name and the path within it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from capstan.core.plain import plain, unplain


class Location(NamedTuple):
    """A directory by the file system that it is in, whatever that is mounted on: `file_system` is a name that stays
    (`ext4 uuid 6f1c…`), `inner` the path from its top, without a leading slash."""

    file_system: str
    inner: bytes

    def below(self, path: bytes) -> Location:
        """Of what lies at the relative `path` below this one."""
        return Location(self.file_system, b"/".join(filter(None, (self.inner, path))))


@dataclass(frozen=True, slots=True)
class Mounted:
    """A root of a source, or a mount point below one. `path`: its stored path. `absent`: what was here in an earlier
    set was not there; all of that is kept in the state."""

    path: bytes
    location: Location
    is_root: bool = False
    absent: bool = False

    def as_plain(self) -> dict[str, Any]:
        """The JSON-safe form, in catalog and manifest."""
        return {
            "path": plain(self.path),
            "file_system": self.location.file_system,
            "inner": plain(self.location.inner),
            "root": self.is_root,
            "absent": self.absent,
        }

    @classmethod
    def from_plain(cls, value: dict[str, Any]) -> Mounted:
        """ValueError, KeyError or TypeError for what is no such form."""
        location = Location(value["file_system"], unplain(value["inner"]))
        return cls(unplain(value["path"]), location, bool(value["root"]), bool(value["absent"]))


class MountTable:
    """The mounts of one set. Where something is absent, that counts, and not what is there in its place."""

    def __init__(self, mounts: Iterable[Mounted] = ()) -> None:
        self._mounts = list(mounts)
        self._by_path = {item.path: item for item in sorted(self._mounts, key=lambda item: item.absent)}

    @classmethod
    def from_plain(cls, values: Iterable[dict[str, Any]]) -> MountTable:
        return cls(map(Mounted.from_plain, values))

    def __iter__(self) -> Any:
        return iter(self._mounts)

    def __repr__(self) -> str:
        return f"MountTable({self._mounts})"

    def __len__(self) -> int:
        return len(self._mounts)

    @property
    def roots(self) -> frozenset[bytes]:
        """The stored paths of the roots, with all links above them resolved."""
        return frozenset(item.path for item in self._mounts if item.is_root and not item.absent)

    def at(self, path: bytes) -> Mounted | None:
        """The mount whose stored path that is."""
        return self._by_path.get(path)

    def around(self, path: bytes) -> Mounted | None:
        """The innermost mount that a stored path lies in, or is; None above all of them."""
        above = path
        while above not in self._by_path:
            if not above:
                return None
            above = above.rpartition(b"/")[0]
        return self._by_path[above]

    def locate(self, path: bytes) -> Location | None:
        """Where the directory at a stored path was; None above all mounts."""
        mount = self.around(path)
        return None if mount is None else mount.location.below(path[len(mount.path) :].lstrip(b"/"))

    def carried_on(self, now: MountTable, absent: Iterable[Mounted]) -> MountTable:
        """The table of the next set: what is there `now`, and what of this one is `absent`."""
        return MountTable([*now, *(replace(item, absent=True) for item in absent)])
