"""bzip2 as a codec: one bzip2 stream for each frame; `bzip2 -dc` decodes them one behind the other."""

from __future__ import annotations

import bz2
from typing import IO, cast

from capstan.format.codecs import Codec, Levels


class Bzip2:
    """A `FrameCodec`."""

    def __init__(self, level: int) -> None:
        self._level = level or 9

    def compress(self, data: memoryview) -> bytes:
        return bz2.compress(data, self._level)

    def decompress(self, data: memoryview, tar_bytes: int) -> bytes:
        decompressor = bz2.BZ2Decompressor()
        try:
            out = decompressor.decompress(data, tar_bytes + 1)
        except OSError as error:
            raise ValueError(f"the frame cannot be decompressed: {error}") from None
        if len(out) != tar_bytes:
            raise ValueError("the frame holds another number of bytes")
        return out


BZIP2 = Codec("bzip2", Levels(1, 9, 9), "bzip2 -dc", Bzip2, lambda file: cast("IO[bytes]", bz2.BZ2File(file)))
