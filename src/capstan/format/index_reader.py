"""Reads an INDEX from a tape (docs/design/tape-format.md, 4)."""

from __future__ import annotations

import hashlib
import io
import shutil
import tarfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, BinaryIO, cast

import zstandard

from capstan.core.backup import BackupSet, Commit, Encryption, SetState, SetType
from capstan.crypto.age import NoIdentity
from capstan.crypto.identities import Identity
from capstan.errors import BlankMedium, Damaged, DriveKeyNeeded, FormatError, IdentityNeeded
from capstan.fileindex.store import IndexPart
from capstan.format.codecs import decoded, index_codec
from capstan.format.header import Header, Kind, decode_header
from capstan.format.manifest import Manifest, decode_manifest
from capstan.format.scan import read_record, record_buffer
from capstan.format.sealing import SealedFile
from capstan.format.spooling import spooling
from capstan.tape.drive import Read, SpaceUnit, TapeDrive

MANIFEST, FILES, FRAMES, RECORDS, DELETED = (
    "manifest.json",
    "files.parquet",
    "frames.parquet",
    "records.crc32c",
    "deleted",
)


@dataclass(frozen=True, slots=True)
class ReadIndex:
    """One INDEX, whole. The paths are files in the spool folder it was read into, and belong to the caller."""

    header: Header
    header_sha256: str
    end_block: int
    manifest: Manifest
    files: Path
    frames: Path
    records: Path
    deleted: Path | None = None

    def part(self) -> IndexPart:
        """Its tables, for the file index store to take over."""
        holder = self.manifest.cartridge if self.manifest.copy else ""
        digest = self.commit().interval_sha256
        return IndexPart(self.manifest.sequence, digest, self.files, self.frames, self.records, self.deleted, holder)

    @property
    def history(self) -> dict[int, str]:
        """What it says of its set's history (`core.history`)."""
        return {**self.manifest.history, self.manifest.sequence: self.commit().interval_sha256}

    def commit(self) -> Commit:
        """The catalog's form of it."""
        return self.manifest.commit(
            end_block=self.end_block,
            header_sha256=self.header_sha256,
            payload_bytes=self.header.payload_bytes or 0,
            payload_sha256=self.header.payload_sha256 or "",
        )


@dataclass(frozen=True, slots=True)
class LockedIndex:
    """An INDEX that is as it was written, and whose payload none of the identities opens."""

    header: Header
    header_sha256: str
    end_block: int

    def commit(self) -> Commit:
        """What its header record says of it, for the catalog."""
        header = self.header
        return Commit(
            set_id=header.set or "",
            sequence=header.sequence or 0,
            cartridge=header.cartridge,
            barcode=header.barcode,
            tape_file=header.tape_file,
            block=header.block,
            end_block=self.end_block,
            header_sha256=self.header_sha256,
            payload_bytes=header.payload_bytes or 0,
            payload_sha256=header.payload_sha256 or "",
            final=bool(header.final),
            files=0,
            bytes=0,
            tar_end=0,
            committed_at=datetime.fromisoformat(header.written_at),
            locked=True,
            copy=header.copy or 0,
            original_sha256=header.original_index_sha256 or "",
        )

    def backup_set(self) -> BackupSet:
        """What its header record says of its set."""
        header = self.header
        return BackupSet(
            id=header.set or "",
            number=header.set_number or 0,
            name="",
            type=SetType.INCREMENTAL if header.parent else SetType.FULL,
            state=SetState.LOCKED,
            created_at=datetime.fromisoformat(header.written_at),
            parent_id=header.parent or "",
            codec=header.codec or "",
            container=header.container or "",
            encryption=Encryption(header.encryption or "none"),
            keys=(header.keys or "").split(),
        )


def read_index(
    drive: TapeDrive, block: int, *, barcode: str, spool: Path, identities: Sequence[Identity] = ()
) -> ReadIndex | LockedIndex:
    """Read the INDEX at `block` into the folder `spool`, which is made, and check every digest on the way.

    Raises Damaged (with cartridge and block) for whatever is wrong with it, and for an INDEX that does not end with
    a filemark; StorageFailed when the spool cannot take it. `spool` may then hold some of its members.
    """
    with spooling(spool):
        return _read_index(drive, block, barcode, spool, identities)


def _read_index(
    drive: TapeDrive, block: int, barcode: str, spool: Path, identities: Sequence[Identity]
) -> ReadIndex | LockedIndex:
    spool.mkdir(parents=True, exist_ok=True)
    packed = spool / "payload"
    try:
        header, digest, end_block = _read_payload(drive, block, barcode, packed)
    except DriveKeyNeeded:
        return _locked_by_drive(drive, block, barcode)

    def damaged(what: str) -> Damaged:
        return Damaged(barcode=barcode, block=block, what=what)

    try:
        _unpack(packed, header, spool, identities)
        manifest = decode_manifest((spool / MANIFEST).read_bytes())
    except IdentityNeeded:
        return LockedIndex(header, digest, end_block)
    except (OSError, EOFError, ValueError, RuntimeError, KeyError, tarfile.TarError, zlib.error) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the spool's fault, not the tape's
        raise damaged(f"the INDEX cannot be unpacked ({error})") from None
    except zstandard.ZstdError as error:
        raise damaged(f"the INDEX cannot be decompressed ({error})") from None
    finally:
        packed.unlink(missing_ok=True)
    original = manifest.originals[-1] if manifest.originals else ""
    facts = (manifest.backup_set.id, manifest.copy, original, manifest.sequence, manifest.final)
    said = (header.set, header.copy or 0, header.original_index_sha256 or "", header.sequence, header.final)
    if (*facts, manifest.cartridge, manifest.block) != (*said, header.cartridge, block):
        raise damaged("the manifest belongs to another INDEX")
    missing = [name for name in (FILES, FRAMES, RECORDS) if not (spool / name).is_file()]
    if missing:
        raise damaged(f"the INDEX lacks {', '.join(missing)}")
    records = sum(segment.records for segment in manifest.segments)
    if (spool / RECORDS).stat().st_size != 4 * records:
        raise damaged(f"the INDEX has not one CRC for each of {records} records")
    deleted = spool / DELETED
    return ReadIndex(
        header,
        digest,
        end_block,
        manifest,
        spool / FILES,
        spool / FRAMES,
        spool / RECORDS,
        deleted if deleted.exists() else None,
    )


def _locked_by_drive(drive: TapeDrive, block: int, barcode: str) -> LockedIndex:
    """An INDEX whose payload its drive has encrypted, by a key that is not here. Damaged as of `read_index`."""
    buffer = record_buffer(drive)
    drive.locate(block)
    read = read_record(drive, buffer, block)
    if read is None:
        raise Damaged(barcode=barcode, block=block, what="there is no header record that can be read")
    header, digest = decode_header(buffer[: read.length], barcode=barcode, block=block)
    if drive.space(1, SpaceUnit.FILEMARKS) != 1:
        raise Damaged(barcode=barcode, block=block, what="the INDEX was not finished")
    return LockedIndex(header, digest, drive.position().block)


def _read_payload(drive: TapeDrive, block: int, barcode: str, packed: Path) -> tuple[Header, str, int]:
    buffer = record_buffer(drive)

    def damaged(at: int, what: str) -> Damaged:
        return Damaged(barcode=barcode, block=at, what=what)

    try:
        drive.locate(block)
        read = read_record(drive, buffer, block)
    except BlankMedium:
        raise damaged(block, "the tape ends before this INDEX") from None
    if read is None or read.kind is not Read.DATA:
        raise damaged(block, "there is no header record that can be read")
    try:
        header, digest = decode_header(buffer[: read.length], barcode=barcode, block=block)
    except FormatError as error:
        raise damaged(block, str(error)) from None
    if header.kind is not Kind.INDEX:
        raise damaged(block, f"there is a {header.kind} instead of an INDEX")
    sha256 = hashlib.sha256()
    length, at = 0, block + 1
    with packed.open("wb") as out:
        while (read := read_record(drive, buffer, at)) is None or read.kind is Read.DATA:
            if read is None:
                raise damaged(at, "a record of the INDEX cannot be read")
            sha256.update(buffer[: read.length])
            out.write(buffer[: read.length])
            length, at = length + read.length, at + 1
    if read.kind is not Read.FILEMARK:
        raise damaged(at, "the INDEX was not finished")
    if length != header.payload_bytes or sha256.hexdigest() != header.payload_sha256:
        raise damaged(block, "the INDEX does not match its digest")
    return header, digest, at + 1


def _opened(file: BinaryIO, header: Header, size: int, identities: Sequence[Identity]) -> IO[bytes]:
    """The payload as it was before it was sealed. IdentityNeeded; AgeError."""
    if header.encryption in ("none", "drive", None):
        return file
    if header.encryption != "age":
        raise ValueError(f"encryption {header.encryption!r} is not known")
    try:
        return cast("IO[bytes]", io.BufferedReader(SealedFile(file, size, identities), 1 << 20))
    except NoIdentity:
        raise IdentityNeeded(what=f"set {header.set}", keys=header.keys or "") from None


def _unpack(packed: Path, header: Header, spool: Path, identities: Sequence[Identity]) -> None:
    """Extract the known members; others, of later minor versions, are passed over. IdentityNeeded."""
    size = packed.stat().st_size
    with (
        packed.open("rb") as file,
        _opened(file, header, size, identities) as opened,
        decoded(opened, index_codec(header.codec or "")[0]) as unpacked,
        tarfile.open(fileobj=unpacked, mode="r|") as tar,
    ):
        for member in tar:
            content = tar.extractfile(member) if member.name in (MANIFEST, FILES, FRAMES, RECORDS, DELETED) else None
            if content is not None:
                with (spool / member.name).open("wb") as out:
                    shutil.copyfileobj(content, out, 1 << 20)
