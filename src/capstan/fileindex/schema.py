"""The columns of a file index, on tape and beside the catalog: one row for each entry of a set.

Rows stand in the order of the set (`core.files.scan_key`). `directory` and `name` are the stored path in the display
form (each byte that is not UTF-8 as `\\xNN`); where that form differs from the bytes, `raw` has the whole path.

The display form is for people and searches: a name with the byte FF and a name with the four characters `\\xff` look
the same in it. What tells paths apart is (`directory`, `name`, `raw`), never the first two alone.
"""

from __future__ import annotations

import pyarrow as pa

FILES = pa.schema(
    [
        pa.field("directory", pa.string(), nullable=False),  # "" for a root's own entry at the top
        pa.field("name", pa.string(), nullable=False),
        pa.field("raw", pa.binary()),  # the whole stored path, only where its bytes are not UTF-8
        pa.field("type", pa.string(), nullable=False),  # core.files.FileType
        pa.field("mode", pa.uint32(), nullable=False),
        pa.field("uid", pa.uint32(), nullable=False),
        pa.field("gid", pa.uint32(), nullable=False),
        pa.field("owner", pa.string(), nullable=False),
        pa.field("group", pa.string(), nullable=False),
        pa.field("size", pa.uint64(), nullable=False),  # bytes of content, holes included
        pa.field("mtime_ns", pa.int64(), nullable=False),
        pa.field("ctime_ns", pa.int64(), nullable=False),
        pa.field("device", pa.uint64(), nullable=False),
        pa.field("inode", pa.uint64(), nullable=False),
        pa.field("links", pa.uint32(), nullable=False),  # names of the inode, wherever they are
        pa.field("target", pa.binary()),  # symlink text; hard link: stored path of the first name
        pa.field("tar_offset", pa.uint64(), nullable=False),  # of the member's first header in the set's tar stream
        pa.field("tar_bytes", pa.uint64(), nullable=False),  # headers, content and padding of the member
        pa.field("sha256", pa.binary(32)),  # of the content, as it is stored; null where there is no content
        pa.field("flags", pa.uint32(), nullable=False),  # core.files.FileFlag
    ]
)

# Where the frames of the stream lie: frame n of a segment holds tar bytes [tar_offset, tar_offset + tar_bytes),
# compressed into [payload_offset, payload_offset + payload_bytes) of the segment's (decrypted) payload.
FRAMES = pa.schema(
    [
        pa.field("segment", pa.uint32(), nullable=False),
        pa.field("tar_offset", pa.uint64(), nullable=False),
        pa.field("tar_bytes", pa.uint32(), nullable=False),
        pa.field("payload_offset", pa.uint64(), nullable=False),
        pa.field("payload_bytes", pa.uint32(), nullable=False),
    ]
)

ROW_GROUP = 65_536  # rows: small enough that one directory is found without reading much
