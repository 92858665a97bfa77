"""The payload of an INDEX, made in the spool before it is written: its header carries its length and digest."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from capstan.format.codecs import FrameCodec

_PIECE = 4 << 20


@dataclass(frozen=True, slots=True)
class IndexPayload:
    """A finished payload in the spool; the caller removes `path`."""

    path: Path
    bytes: int
    sha256: str


def build_index_payload(
    path: Path, members: Sequence[tuple[str, bytes | Path]], codec: FrameCodec, *, mtime: int
) -> IndexPayload:
    """Write a tar archive of `members` to `path`, compressed in pieces of 4 MiB; memory does not grow with it."""
    with path.open("wb") as out:
        sink = _CompressedSink(out, codec)
        with tarfile.open(fileobj=sink, mode="w|", format=tarfile.PAX_FORMAT, bufsize=_PIECE) as archive:  # type: ignore[call-overload]
            for name, content in members:
                member = tarfile.TarInfo(name)
                member.mtime = mtime
                if isinstance(content, Path):
                    member.size = content.stat().st_size
                    with content.open("rb") as source:
                        archive.addfile(member, source)
                else:
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
        sink.finish()
    return IndexPayload(path, sink.written, sink.digest.hexdigest())


class _CompressedSink:
    """A file object that compresses what it is given, piece by piece, and digests what it writes."""

    def __init__(self, out: BinaryIO, codec: FrameCodec) -> None:
        self._out = out
        self._codec = codec
        self._pending = bytearray()
        self.digest = hashlib.sha256()
        self.written = 0

    def write(self, data: bytes) -> int:
        self._pending += data
        if len(self._pending) >= _PIECE:
            self.finish()
        return len(data)

    def finish(self) -> None:
        """Compress what is pending."""
        if self._pending:
            piece = self._codec.compress(memoryview(self._pending))
            self.digest.update(piece)
            self._out.write(piece)
            self.written += len(piece)
            self._pending = bytearray()
