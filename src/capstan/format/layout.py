"""Numbers of the tape format (docs/design/tape-format.md) and of a writer's choices."""

from __future__ import annotations

from dataclasses import dataclass

from capstan.errors import InvalidValue

FORMAT_MAJOR = 1
FORMAT_MINOR = 0
HEADER_BYTES = 4096
TAR_BLOCK = 512
TAR_END = bytes(2 * TAR_BLOCK)

MIN_RECORD_BYTES = 65_536
MAX_RECORD_BYTES = 1_048_576
DEFAULT_RECORD_BYTES = 524_288
MAX_FRAME_BYTES = 64 << 20

CODECS = ("zstd", "lz4", "gzip", "none")  # of the format itself; plugins may add others


@dataclass(frozen=True, slots=True)
class ArchiveParameters:
    """A writer's choices; none of them must be known to read. Sizes in bytes.

    `frame_bytes` of tar; `segment_bytes` of payload after which a segment is closed; a commit point is written after
    `commit_bytes` of payload or `commit_seconds`. `level` is the codec's own. `archive_bytes`: of tar in a segment of a
    container that makes an archive of it; such a segment is closed no later than with `archive_entries` rows.
    """

    codec: str = "zstd"
    level: int = 3
    container: str = "tar"
    frame_bytes: int = 4 << 20
    segment_bytes: int = 2 << 30
    commit_bytes: int = 32 << 30
    commit_seconds: float = 600.0
    archive_bytes: int = 3 << 30
    archive_entries: int = 50_000

    def __post_init__(self) -> None:
        if not 64 << 10 <= self.frame_bytes <= MAX_FRAME_BYTES:
            raise InvalidValue(what="frame size", value=self.frame_bytes, reason="use 64 KiB to 64 MiB")


def check_record_bytes(record_bytes: int) -> int:
    """Return `record_bytes` if tapes may have records of this size, else raise InvalidValue."""
    if not MIN_RECORD_BYTES <= record_bytes <= MAX_RECORD_BYTES or record_bytes % 4096:
        raise InvalidValue(
            what="record size", value=record_bytes, reason="use a multiple of 4 KiB from 64 KiB to 1 MiB"
        )
    return record_bytes


def index_end(block: int, payload_bytes: int, record_bytes: int) -> int:
    """Where an INDEX ends whose header record is at `block`: behind its filemark."""
    return block + 1 + records_of(payload_bytes, record_bytes) + 1


def records_of(payload_bytes: int, record_bytes: int) -> int:
    """How many payload records hold `payload_bytes`."""
    return -(-payload_bytes // record_bytes)
