"""What a packer reads: the content of one opened file, which always has the length its header promised."""

from __future__ import annotations

from capstan import positional_io
from capstan.core.files import FileEntry, FileFlag
from capstan.file_system import calls
from capstan.format.sparse import SparseMap

ZEROS = bytes(1 << 16)


class FileContent:
    """The content of one opened file, from some offset on. Always yields what the header promised: zeros where the
    file does not. `flags` tells what was wrong with it; `trouble` is the error in words."""

    __slots__ = ("_descriptor", "_ended", "flags", "trouble")

    def __init__(self, descriptor: int, flags: int = 0) -> None:
        self._descriptor = descriptor
        self._ended = descriptor < 0
        self.flags = flags
        self.trouble = ""

    def fill(self, piece: memoryview, offset: int) -> None:
        """Fill `piece` from `offset` of what is stored."""
        filled = 0
        while filled < len(piece) and not self._ended:
            try:
                count = positional_io.preadv(self._descriptor, (piece[filled:],), offset + filled)
            except OSError as error:
                self.flags |= FileFlag.DAMAGED
                self.trouble = error.strerror or str(error)
                self._ended = True
                break
            if not count:
                self.flags |= FileFlag.CHANGED
                self._ended = True
            filled += count
        fill_zeros(piece[filled:])

    def changed_since(self, entry: FileEntry) -> bool:
        """Whether the open file was changed since `entry` was made from it."""
        now = calls.fstat(self._descriptor)
        return (now.st_size, now.st_mtime_ns, now.st_ctime_ns) != (entry.size, entry.mtime_ns, entry.ctime_ns)


class SparseContent(FileContent):
    """The same of a file that is stored without its holes: its map, then its data. The holes are never read."""

    __slots__ = ("_map",)

    def __init__(self, descriptor: int, sparse: SparseMap, flags: int = 0) -> None:
        super().__init__(descriptor, flags | FileFlag.SPARSE)
        self._map = sparse

    def fill(self, piece: memoryview, offset: int) -> None:
        text = self._map.text[offset : offset + len(piece)]
        piece[: len(text)] = text
        piece = piece[len(text) :]
        begin = offset + len(text) - len(self._map.text)
        for place, length in self._map.pieces(begin, begin + len(piece)):
            super().fill(piece[:length], place)
            piece = piece[length:]


def content_of(descriptor: int, sparse: SparseMap | None, flags: int = 0) -> FileContent:
    """The content of an opened file as it is stored, with its map if it has one. `descriptor` -1: zeros for data."""
    return FileContent(descriptor, flags) if sparse is None else SparseContent(descriptor, sparse, flags)


def fill_zeros(piece: memoryview) -> None:
    """Overwrite all of `piece` with zeros: buffers are used again and again."""
    for at in range(0, len(piece), len(ZEROS)):
        rest = min(len(piece) - at, len(ZEROS))
        piece[at : at + rest] = ZEROS[:rest]


def same_file(now: FileEntry, before: FileEntry) -> bool:
    """Whether an opened file is the one a row was made from, with the same content."""
    return (now.device, now.inode, now.size, now.mtime_ns, now.ctime_ns) == (
        before.device,
        before.inode,
        before.size,
        before.mtime_ns,
        before.ctime_ns,
    )
