"""How far a set and a cartridge are committed: what outlives the writer of a set, and only a commit moves on."""

from __future__ import annotations

from dataclasses import dataclass

from capstan.core.backup import Commit
from capstan.core.media import Cartridge
from capstan.fileindex.store import IndexPart
from capstan.format.manifest import CommitLink, Manifest


@dataclass(frozen=True, slots=True)
class TapeEnd:
    """Where the committed part of a cartridge ends, and its last INDEX (`index_block` -1: none yet)."""

    cartridge: str
    barcode: str
    record_bytes: int
    end_block: int
    tape_files: int
    index_block: int = -1
    index_sha256: str = ""

    @classmethod
    def of(cls, cartridge: Cartridge) -> TapeEnd:
        """As the catalog knows it."""
        return cls(
            cartridge=cartridge.uuid,
            barcode=cartridge.barcode,
            record_bytes=cartridge.record_bytes,
            end_block=cartridge.end_block,
            tape_files=cartridge.tape_files,
            index_block=cartridge.index_block,
            index_sha256=cartridge.index_sha256,
        )


@dataclass(frozen=True, slots=True)
class SetChain:
    """How far a set is committed: its INDEXes so far, and the number of its next segment."""

    sequence: int = 0
    next_segment: int = 0
    tar_end: int = 0
    stored_bytes: int = 0
    previous_sha256: str = ""
    commits: tuple[CommitLink, ...] = ()


@dataclass(frozen=True, slots=True)
class CommitWritten:
    """A commit point that is on the medium. `part` has files in the spool that belong to the receiver."""

    commit: Commit
    manifest: Manifest
    chain: SetChain
    tape: TapeEnd
    part: IndexPart
    early_warning: bool
