"""Containers: how the tar bytes of one segment are put into its payload (docs/design/tape-format.md, 3.3 and 8).

`tar` streams: frames go to tape as they come. Every other container makes one archive of each segment, in the spool.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Protocol

from capstan.errors import InvalidValue
from capstan.format.codecs import Levels, checked_level, parse_codec
from capstan.format.segment_archive import RawSegment, SegmentAssembler
from capstan.format.seven_zip import SevenZip
from capstan.plugins import find_plugin, plugin_names

STREAM = "tar"
PLUGIN_GROUP = "capstan.containers"


class SegmentContainer(Protocol):
    """Makes an archive of one segment, and its tar bytes of the archive. May be used by several threads at once.

    `name` is what `--container` and headers say, of at most 16 characters. `suffix` ends the names of its files.
    `methods` are its codecs, as in `--codec`, and `default` is the one that is taken where none is asked for.
    `extract` is the shell line that unpacks an archive FILE.
    """

    @property
    def name(self) -> str: ...

    @property
    def suffix(self) -> str: ...

    @property
    def methods(self) -> Mapping[str, Levels]: ...

    @property
    def default(self) -> str: ...

    @property
    def extract(self) -> str: ...

    def pack(self, segment: RawSegment, packed: IO[bytes], *, method: str, level: int, workers: int) -> None:
        """Write `segment.members()`, all and in their order, to the empty file `packed`, with up to `workers` threads.

        Raises OSError of the file system, and what the segment raises; then what there is of the file is of no use.
        """
        ...

    def unpack(self, packed: IO[bytes], assembler: SegmentAssembler) -> None:
        """Give the assembler every member of the file, in order, from its beginning. Memory does not grow with them.

        Raises ValueError for whatever is wrong with the archive, OSError of the file system.
        """
        ...


@dataclass(frozen=True, slots=True)
class Packing:
    """A container, and a codec of it; of `tar` that is a codec of frames."""

    container: str
    codec: str
    level: int


def find_container(name: str) -> SegmentContainer:
    """A container other than `tar`, of Capstan or of a plugin. Raises InvalidValue when there is none."""
    if name == SevenZip.name:
        return SevenZip()
    found = find_plugin(PLUGIN_GROUP, name)
    if found is None:
        known = ", ".join((STREAM, SevenZip.name, *plugin_names(PLUGIN_GROUP)))
        raise InvalidValue(what="container", value=name, reason=f"use one of {known}, or install its plugin")
    container: SegmentContainer = found()
    return container


def parse_packing(container: str, codec: str | None, *, stream_codec: str) -> Packing:
    """`container` with `codec` as written by a person; `stream_codec` is what `tar` has where none is given.

    Raises InvalidValue.
    """
    if container == STREAM:
        return Packing(container, *parse_codec(codec or stream_codec))
    found = find_container(container)
    name, colon, level = (codec or found.default).partition(":")
    levels = found.methods.get(name)
    if levels is None:
        reason = f"the container {container} has {', '.join(found.methods)}"
        raise InvalidValue(what="codec", value=codec, reason=reason)
    return Packing(container, name, checked_level(name, level if colon else None, levels))
