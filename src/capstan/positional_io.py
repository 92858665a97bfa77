"""Reading and writing at an offset, and what an open file is, on systems with and without the calls for it.

On POSIX these are the calls of the system. On Windows the position of the descriptor moves, so that a descriptor
belongs to one thread, as it does everywhere in Capstan.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

if sys.platform != "win32":
    pread, pwrite, preadv, pwritev = os.pread, os.pwrite, os.preadv, os.pwritev
else:
    _PIECE = 1 << 24  # bytes of one call: what is read is copied once

    def pread(descriptor: int, length: int, offset: int) -> bytes:
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.read(descriptor, length)

    def pwrite(descriptor: int, data: bytes | memoryview, offset: int) -> int:
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.write(descriptor, data)

    def preadv(descriptor: int, buffers: Sequence[memoryview], offset: int) -> int:
        os.lseek(descriptor, offset, os.SEEK_SET)
        count = 0
        for buffer in buffers:
            filled = 0
            while filled < len(buffer):
                piece = os.read(descriptor, min(_PIECE, len(buffer) - filled))
                if not piece:
                    return count + filled
                buffer[filled : filled + len(piece)] = piece
                filled += len(piece)
            count += filled
        return count

    def pwritev(descriptor: int, buffers: Sequence[bytes | memoryview], offset: int) -> int:
        os.lseek(descriptor, offset, os.SEEK_SET)
        count = 0
        for buffer in buffers:
            written = os.write(descriptor, buffer)
            count += written
            if written != len(buffer):
                break
        return count
