"""The label: tape file 0 (docs/design/tape-format.md, 5)."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from capstan import __version__
from capstan.core.media import PoolPolicy
from capstan.errors import BlankMedium, Damaged, NotCapstanTape
from capstan.format.header import Header, Kind, decode_header
from capstan.format.layout import DEFAULT_RECORD_BYTES, FORMAT_MAJOR, MAX_RECORD_BYTES, check_record_bytes
from capstan.format.restore_text import restore_line, restore_text
from capstan.tape.drive import Read, TapeDrive, find_encrypting


@dataclass(frozen=True, slots=True)
class Label:
    """What a cartridge says it is. `uuid` and `record_bytes` hold for everything on it; `policy` is what the pool
    demanded when it was labelled."""

    uuid: str
    barcode: str
    pool: str
    labelled_at: datetime
    labelled_by: str = f"capstan {__version__}"
    record_bytes: int = DEFAULT_RECORD_BYTES
    version: int = FORMAT_MAJOR
    policy: PoolPolicy = field(default_factory=PoolPolicy)


@dataclass(frozen=True, slots=True)
class LabelWritten:
    """`end_block` is where the first tape file behind the label begins; `tape_files` is 1."""

    end_block: int
    tape_files: int
    header_sha256: str


def write_label(drive: TapeDrive, label: Label) -> LabelWritten:
    """Rewind and write the label: everything behind it is unreachable afterwards. Durable when it returns.

    The order (rewind, records, one synchronous filemark) leaves, on failure, either the old tape, or one whose label is
    torn: `read_label` says Damaged or NotCapstanTape then, never a wrong label.
    """
    check_record_bytes(label.record_bytes)
    payload = _payload(label)
    header, digest = Header(
        kind=Kind.LABEL,
        tape_file=0,
        block=0,
        cartridge=label.uuid,
        barcode=label.barcode,
        record_bytes=label.record_bytes,
        written_at=label.labelled_at.isoformat(),
        written_by=label.labelled_by,
        restore=restore_line("label"),
        payload_bytes=len(payload),
        payload_sha256=hashlib.sha256(payload).hexdigest(),
    ).encode()
    drive.rewind()
    if (encrypting := find_encrypting(drive)) is not None:
        encrypting.clear_key()  # a label is for everybody
    drive.write_block(memoryview(header))
    blocks = 1
    for start in range(0, len(payload), label.record_bytes):
        drive.write_block(memoryview(payload)[start : start + label.record_bytes])
        blocks += 1
    drive.write_filemarks(1)
    return LabelWritten(end_block=blocks + 1, tape_files=1, header_sha256=digest)


def read_label(drive: TapeDrive, *, barcode: str) -> Label:
    """Rewind and read the label; the tape stands behind its filemark afterwards.

    Raises NotCapstanTape (found="blank" on an empty tape), UnsupportedVersion, or Damaged. Does not compare the
    label's barcode with `barcode`, which only names the cartridge in errors.
    """
    drive.rewind()
    buffer = memoryview(bytearray(min(MAX_RECORD_BYTES, drive.capabilities.max_block)))
    try:
        first = drive.read_block(buffer)
    except BlankMedium:
        raise NotCapstanTape(barcode=barcode, found="blank") from None
    if first.kind is not Read.DATA:
        found = "blank" if first.kind is Read.END_OF_DATA else "a filemark"
        raise NotCapstanTape(barcode=barcode, found=found)
    header, _ = decode_header(buffer[: first.length], barcode=barcode, block=0)
    if header.kind is not Kind.LABEL:
        raise Damaged(barcode=barcode, block=0, what=f"the tape begins with a {header.kind} instead of a label")
    payload = bytearray()
    while (read := drive.read_block(buffer)).kind is Read.DATA:
        payload += buffer[: read.length]
    if len(payload) != header.payload_bytes or hashlib.sha256(payload).hexdigest() != header.payload_sha256:
        raise Damaged(barcode=barcode, block=1, what="the label does not match its digest")
    try:
        with tarfile.open(fileobj=io.BytesIO(payload)) as archive:
            member = archive.extractfile("label.json")
            values = json.loads(member.read()) if member else {}
        return Label(
            uuid=values["uuid"],
            barcode=values["barcode"],
            pool=values["pool"],
            record_bytes=int(values["record_bytes"]),
            labelled_at=datetime.fromisoformat(values["labelled_at"]),
            labelled_by=values["labelled_by"],
            version=int(values["version"]),
            policy=_policy(values["policy"]),
        )
    except (tarfile.TarError, ValueError, KeyError, TypeError) as error:
        raise Damaged(barcode=barcode, block=1, what=f"label.json cannot be read ({error})") from None


def _policy(values: dict[str, Any]) -> PoolPolicy:
    return PoolPolicy(
        recipients=tuple(map(str, values["recipients"])),
        drive_key=str(values["drive_key"]),
        require_escrow=bool(values["require_escrow"]),
        copy_pool=str(values["copy_pool"]),
        verify_writes=bool(values["verify_writes"]),
    )


def _payload(label: Label) -> bytes:
    text = {
        "version": label.version,
        "uuid": label.uuid,
        "barcode": label.barcode,
        "pool": label.pool,
        "record_bytes": label.record_bytes,
        "labelled_at": label.labelled_at.isoformat(),
        "labelled_by": label.labelled_by,
        "policy": asdict(label.policy),
    }
    restore = restore_text(barcode=label.barcode, uuid=label.uuid, record_bytes=label.record_bytes)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in (("label.json", json.dumps(text, indent=1)), ("RESTORE.txt", restore)):
            data = content.encode()
            member = tarfile.TarInfo(name)
            member.size = len(data)
            member.mtime = int(label.labelled_at.timestamp())
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()
