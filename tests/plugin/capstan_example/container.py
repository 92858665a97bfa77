"""zip as a container: each segment is one zip file."""

from __future__ import annotations

import shutil
import zipfile
import zlib
from typing import IO

from capstan.format.codecs import Levels
from capstan.format.segment_archive import RawSegment, SegmentAssembler


class Zip:
    """A `SegmentContainer`."""

    name = "zip"
    suffix = "zip"
    methods = {"store": Levels(0, 0, 0), "deflate": Levels(1, 9, 6)}
    default = "deflate"
    extract = "unzip FILE"

    def pack(self, segment: RawSegment, packed: IO[bytes], *, method: str, level: int, workers: int) -> None:
        kind = zipfile.ZIP_STORED if method == "store" else zipfile.ZIP_DEFLATED
        with zipfile.ZipFile(packed, "w", kind, compresslevel=level or None) as archive:
            for member in segment.members():
                info = zipfile.ZipInfo(member.name)
                info.compress_type = kind
                info.external_attr = (0o100000 | member.mode) << 16
                with archive.open(info, "w", force_zip64=True) as out:
                    shutil.copyfileobj(member.source, out, 1 << 20)

    def unpack(self, packed: IO[bytes], assembler: SegmentAssembler) -> None:
        try:
            with zipfile.ZipFile(packed) as archive:
                for info in archive.infolist():
                    assembler.member(info.filename)
                    with archive.open(info) as source:
                        while piece := source.read(1 << 20):
                            assembler.write(piece)
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise ValueError(f"the zip file cannot be read: {error}") from None
        assembler.finish()
