"""The payload of an INDEX, made in the spool before it is written: its header carries its length and digest."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from capstan.format.codecs import FrameCodec
from capstan.format.sealing import PayloadSealer

_PIECE = 4 << 20


@dataclass(frozen=True, slots=True)
class IndexPayload:
    """A finished payload of `size` bytes in the spool; the caller removes `path`. `file_key` opens it, where it is
    sealed."""

    path: Path
    size: int
    sha256: str
    file_key: bytes = field(default=b"", repr=False)


def build_index_payload(
    path: Path,
    members: Sequence[tuple[str, bytes | Path]],
    codec: FrameCodec,
    *,
    mtime: int,
    recipients: Sequence[str] = (),
) -> IndexPayload:
    """Write a tar archive of `members` to `path`, compressed in pieces of 4 MiB, and sealed if there are `recipients`;
    memory does not grow with it."""
    with path.open("wb") as file:
        out = _Tally(file)
        sealer = PayloadSealer(recipients, out.write) if recipients else None
        sink = _CompressedSink(sealer.write if sealer else out.write, codec)
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
        if sealer:
            sealer.finish()
    return IndexPayload(path, out.written, out.digest.hexdigest(), sealer.file_key if sealer else b"")


class _Tally:
    """Writes to a file, and counts and digests what it writes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.written = 0

    def write(self, data: bytes | memoryview) -> None:
        self.digest.update(data)
        self._file.write(data)
        self.written += len(data)


class _CompressedSink:
    """A file object that compresses what it is given, piece by piece."""

    def __init__(self, out: Callable[[bytes | memoryview], None], codec: FrameCodec) -> None:
        self._out = out
        self._codec = codec
        self._pending = bytearray()

    def write(self, data: bytes) -> int:
        self._pending += data
        if len(self._pending) >= _PIECE:
            self.finish()
        return len(data)

    def finish(self) -> None:
        """Compress what is pending."""
        if self._pending:
            self._out(self._codec.compress(memoryview(self._pending)))
            self._pending = bytearray()
