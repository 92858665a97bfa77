"""What a writer of sets gives its segments to a second time, while it writes them (a copy in the same pass)."""

from __future__ import annotations

from typing import Protocol

from capstan.core.backup import Segment


class SegmentMirror(Protocol):
    """Called on the thread of the writer's drive, only after that drive has taken the same. Never raises: whatever goes
    wrong with the copy is no business of the writer."""

    @property
    def wants_commit(self) -> bool:
        """The copy would do well with a commit point now: its cartridge comes to an end."""
        ...

    def begin(self, number: int, stream: int, tar_offset: int) -> None:
        """A segment begins."""
        ...

    def write(self, piece: bytes | memoryview) -> None:
        """A part of its payload, as it lies on tape. May wait until the copy keeps up; `piece` may be reused then."""
        ...

    def end(self, segment: Segment) -> None:
        """The segment is whole, and this is what it is. It counts only when its interval is committed."""
        ...

    def tear(self) -> None:
        """The segment in hand, and what else was not committed, never counts."""
        ...


class NoMirror:
    """Of a set that is written once."""

    wants_commit = False

    def begin(self, number: int, stream: int, tar_offset: int) -> None: ...

    def write(self, piece: bytes | memoryview) -> None: ...

    def end(self, segment: Segment) -> None: ...

    def tear(self) -> None: ...
