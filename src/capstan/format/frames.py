"""What the pipeline hands to the writer: frames in order, each with the rows of the members that end in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import IO, Any

from capstan.core.files import Row
from capstan.format.sparse import SparseMap


@dataclass(slots=True)
class Totals:
    """Of a set, up to some place in its stream. `bytes` of content; `warnings` counts."""

    files: int = 0
    bytes: int = 0
    warnings: int = 0


@dataclass(slots=True)
class OpenMember:
    """The member that goes on behind a frame. `row` has its final `tar_offset` and `tar_bytes`. `hash` is the state
    of its SHA-256 up to the frame's end (a copy of its own), None when it was not kept. `sparse`: the map of a member
    that is stored without its holes, None when it was not kept, or the member is not such a one."""

    row: Row
    header_bytes: int
    hash: Any = None
    sparse: SparseMap | None = None


@dataclass(slots=True)
class ResumePoint:
    """Where the stream can be taken up again: at a frame's end. `after` is the last stored path that was handled
    (None: nothing yet), in scan order; `open_member` has its rest behind `tar_offset`. `lost_links`: first names of
    hard-linked files that are not in the stream, and which name has the content in their place (None: none yet)."""

    tar_offset: int = 0
    after: bytes | None = None
    open_member: OpenMember | None = None
    totals: Totals = field(default_factory=Totals)
    lost_links: dict[bytes, bytes | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SegmentArchive:
    """A whole segment, as the archive that is its payload. `file`, from its beginning, has `payload_bytes`; `frames`
    are those in it, each by `tar_offset` and `tar_bytes`."""

    file: IO[bytes]
    payload_bytes: int
    frames: tuple[tuple[int, int], ...]


@dataclass(slots=True)
class Frame:
    """One frame of the stream, compressed. `payload` is valid until the next frame is asked for.

    One with an `archive` (valid as long) is all frames of a segment at once, and has no `payload` of its own.

    `rows` are those of the members that end in it, in order; `deleted` the stored paths that are in the parent set
    and were found to be gone up to its end; `resume` describes its end. `last`: the stream ends with it.
    """

    tar_offset: int
    tar_bytes: int
    payload: bytes | memoryview
    rows: list[Row]
    resume: ResumePoint
    last: bool = False
    deleted: list[bytes] = field(default_factory=list)
    archive: SegmentArchive | None = None
