"""manifest.json: what an INDEX says of its set (docs/design/tape-format.md, 4.1)."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from capstan.core.backup import BackupSet, Commit, Encryption, Segment, SetState, SetType
from capstan.format.layout import FORMAT_MAJOR

_SEGMENT_FIELDS = (
    "number",
    "stream",
    "tape_file",
    "block",
    "records",
    "record_bytes",
    "payload_bytes",
    "payload_sha256",
    "tar_offset",
    "tar_bytes",
    "age_beginning",
)


@dataclass(frozen=True, slots=True)
class CommitLink:
    """An earlier INDEX of the same set and copy: enough to find it and to know when it is missing."""

    sequence: int
    cartridge: str
    barcode: str
    tape_file: int
    block: int
    header_sha256: str
    copy: int = 0


@dataclass(frozen=True, slots=True)
class Manifest:
    """`backup_set` holds the set's facts with the totals up to this INDEX; state, cartridges and job are not on tape
    but follow from it. `tape_file` and `block` are those of its INDEX. `segments` are those since the set's previous
    INDEX; in a copy (`copy` is its number), those of the same interval that are on this cartridge. `originals`: only in
    a copy, the `header-sha256` of the INDEXes that the backup wrote, from the first to that of this interval."""

    backup_set: BackupSet
    sequence: int
    final: bool
    cartridge: str
    barcode: str
    tape_file: int
    block: int
    committed_at: datetime
    tar_end: int
    segments: tuple[Segment, ...] = ()
    commits: tuple[CommitLink, ...] = ()
    torn: tuple[int, ...] = field(default=())
    copy: int = 0
    originals: tuple[str, ...] = ()

    @property
    def history(self) -> dict[int, str]:
        """What it says of the set's history (`core.history`); in the original that is all before its own INDEX."""
        if self.copy:
            return dict(enumerate(self.originals, 1))
        return {link.sequence: link.header_sha256 for link in self.commits}

    def commit(
        self,
        *,
        end_block: int,
        header_sha256: str,
        payload_bytes: int,
        payload_sha256: str,
    ) -> Commit:
        """The catalog's form of this INDEX, given where it ends, and what its header record says of it."""
        return Commit(
            set_id=self.backup_set.id,
            sequence=self.sequence,
            cartridge=self.cartridge,
            barcode=self.barcode,
            tape_file=self.tape_file,
            block=self.block,
            end_block=end_block,
            header_sha256=header_sha256,
            payload_bytes=payload_bytes,
            payload_sha256=payload_sha256,
            final=self.final,
            files=self.backup_set.files,
            bytes=self.backup_set.bytes,
            tar_end=self.tar_end,
            committed_at=self.committed_at,
            segments=self.segments,
            copy=self.copy,
            original_sha256=self.originals[-1] if self.originals else "",
        )


def encode_manifest(manifest: Manifest) -> bytes:
    """The JSON of `manifest`, indented so that a person can read it."""
    backup_set = manifest.backup_set
    return json.dumps(
        {
            "version": FORMAT_MAJOR,
            "set": {
                "id": backup_set.id,
                "number": backup_set.number,
                "name": backup_set.name,
                "type": backup_set.type.value,
                "parent": backup_set.parent_id,
                "created_at": backup_set.created_at.isoformat(),
                "finished_at": backup_set.finished_at.isoformat() if backup_set.finished_at else "",
                "host": backup_set.host,
                "sources": backup_set.sources,
                "excludes": backup_set.excludes,
                "one_file_system": backup_set.one_file_system,
                "mounts": backup_set.mounts,
                "pool": backup_set.pool,
                "codec": backup_set.codec,
                "container": backup_set.container,
                "encryption": backup_set.encryption.value,
                "recipients": backup_set.recipients,
                "keys": backup_set.keys,
            },
            "copy": manifest.copy,
            "sequence": manifest.sequence,
            "final": manifest.final,
            "cartridge": {"uuid": manifest.cartridge, "barcode": manifest.barcode},
            "tape_file": manifest.tape_file,
            "block": manifest.block,
            "committed_at": manifest.committed_at.isoformat(),
            "files": backup_set.files,
            "bytes": backup_set.bytes,
            "stored_bytes": backup_set.stored_bytes,
            "warnings": backup_set.warning_count,
            "tar_end": manifest.tar_end,
            "segments": [{key: getattr(segment, key) for key in _SEGMENT_FIELDS} for segment in manifest.segments],
            "commits": [
                {
                    "sequence": link.sequence,
                    "cartridge": link.cartridge,
                    "barcode": link.barcode,
                    "tape_file": link.tape_file,
                    "block": link.block,
                    "header_sha256": link.header_sha256,
                }
                for link in manifest.commits
            ],
            "torn": list(manifest.torn),
            "originals": list(manifest.originals),
        },
        indent=1,
    ).encode()


def decode_manifest(data: bytes) -> Manifest:
    """The manifest in `data`; keys it does not know are ignored. Raises ValueError when it is not one."""
    try:
        value = json.loads(data)
        return _decode(value)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"manifest.json lacks or confuses {error}") from None


def _decode(value: dict[str, Any]) -> Manifest:
    facts = value["set"]
    cartridge, barcode = value["cartridge"]["uuid"], value["cartridge"]["barcode"]
    copy = int(value.get("copy", 0))
    finished_at = facts.get("finished_at", "")
    backup_set = BackupSet(
        id=facts["id"],
        number=int(facts["number"]),
        name=facts["name"],
        type=SetType(facts["type"]),
        state=SetState.COMPLETE if value["final"] else SetState.INCOMPLETE,
        created_at=datetime.fromisoformat(facts["created_at"]),
        finished_at=datetime.fromisoformat(finished_at) if finished_at else None,
        sources=list(facts["sources"]),
        excludes=list(facts.get("excludes", ())),
        one_file_system=bool(facts.get("one_file_system", False)),
        mounts=list(facts.get("mounts", ())),
        parent_id=facts["parent"],
        host=facts["host"],
        pool=facts["pool"],
        codec=facts["codec"],
        container=facts["container"],
        encryption=Encryption(facts["encryption"]),
        recipients=list(facts["recipients"]),
        keys=list(facts["keys"]),
        files=int(value["files"]),
        bytes=int(value["bytes"]),
        stored_bytes=int(value["stored_bytes"]),
        warning_count=int(value["warnings"]),
    )
    return Manifest(
        backup_set=backup_set,
        sequence=int(value["sequence"]),
        final=bool(value["final"]),
        cartridge=cartridge,
        barcode=barcode,
        tape_file=int(value["tape_file"]),
        block=int(value["block"]),
        committed_at=datetime.fromisoformat(value["committed_at"]),
        tar_end=int(value["tar_end"]),
        segments=tuple(
            Segment(
                set_id=backup_set.id,
                cartridge=cartridge,
                barcode=barcode,
                copy=copy,
                **{key: segment[key] for key in _SEGMENT_FIELDS},
            )
            for segment in value["segments"]
        ),
        commits=tuple(
            CommitLink(
                sequence=int(link["sequence"]),
                cartridge=link["cartridge"],
                barcode=link["barcode"],
                tape_file=int(link["tape_file"]),
                block=int(link["block"]),
                header_sha256=link["header_sha256"],
                copy=copy,
            )
            for link in value["commits"]
        ),
        torn=tuple(int(number) for number in value["torn"]),
        copy=copy,
        originals=tuple(str(digest) for digest in value["originals"]),
    )
