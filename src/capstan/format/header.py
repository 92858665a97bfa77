"""The header record: what every tape file begins with (docs/design/tape-format.md, 2).

4096 bytes of text that `dd bs=512k count=1` shows to anyone. It names the tape file, links the INDEXes into chains,
carries its own digest, and says which command restores what follows.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from enum import StrEnum

from capstan.errors import Damaged, NotCapstanTape, UnsupportedVersion
from capstan.format.layout import FORMAT_MAJOR, FORMAT_MINOR, HEADER_BYTES

_MAGIC = b"capstan-tape: "
_DIGEST = b"header-sha256: "


class Kind(StrEnum):
    """What a tape file is."""

    LABEL = "label"
    SEGMENT = "segment"
    INDEX = "index"


@dataclass(frozen=True, slots=True)
class Header:
    """One header record. A field's key on tape is its name with dashes; None is not written."""

    kind: Kind
    tape_file: int
    block: int
    cartridge: str
    barcode: str
    record_bytes: int
    written_at: str
    written_by: str
    restore: str
    previous_index_block: int = -1
    previous_index_sha256: str = ""
    set: str | None = None
    parent: str | None = None
    container: str | None = None
    codec: str | None = None
    encryption: str | None = None
    keys: str | None = None
    set_number: int | None = None
    copy: int | None = None
    stream: int | None = None
    segment: int | None = None
    tar_offset: int | None = None
    sequence: int | None = None
    final: bool | None = None
    set_previous_index_sha256: str | None = None
    original_index_sha256: str | None = None
    payload_bytes: int | None = None
    payload_sha256: str | None = None

    def encode(self) -> tuple[bytes, str]:
        """The 4096 bytes and their `header-sha256`."""
        lines = [f"capstan-tape: {FORMAT_MAJOR}.{FORMAT_MINOR}"]
        for name in _ORDER:
            value = getattr(self, name)
            if value is None:
                continue
            if isinstance(value, bool):
                value = "yes" if value else "no"
            elif value == "" or (name == "previous_index_block" and value < 0):
                value = "-"
            lines.append(f"{name.replace('_', '-')}: {value}")
        text = ("\n".join(lines) + "\n").encode()
        digest = hashlib.sha256(text).hexdigest()
        record = (text + _DIGEST + digest.encode() + b"\n").ljust(HEADER_BYTES, b"\n")
        if len(record) != HEADER_BYTES:
            raise ValueError(f"a header record of {len(record)} bytes: a field is too long")
        return record, digest


_ORDER = [field.name for field in fields(Header) if field.name != "restore"] + ["restore"]
_INTEGERS = {
    "tape_file",
    "block",
    "record_bytes",
    "copy",
    "stream",
    "segment",
    "tar_offset",
    "sequence",
    "payload_bytes",
    "set_number",
}
_REQUIRED = {"kind", "tape_file", "block", "cartridge", "barcode", "record_bytes"}


def is_header(record: bytes | memoryview) -> bool:
    """Whether `record` claims to be a header record of any version."""
    return bytes(record[: len(_MAGIC)]) == _MAGIC


def decode_header(record: bytes | memoryview, *, barcode: str, block: int) -> tuple[Header, str]:
    """The header and its `header-sha256`. `barcode` and `block` name the place in errors.

    Raises NotCapstanTape when it is none, UnsupportedVersion for another major number, and Damaged when its digest,
    its fields or its own `block` are wrong.
    """
    data = bytes(record)
    if not is_header(data):
        raise NotCapstanTape(barcode=barcode, found=_describe(data))
    if len(data) != HEADER_BYTES:
        raise Damaged(barcode=barcode, block=block, what=f"a header record of {len(data)} bytes instead of 4096")
    version = data[len(_MAGIC) : data.index(b"\n")].decode("ascii", "replace")
    if version.partition(".")[0] != str(FORMAT_MAJOR):
        raise UnsupportedVersion(barcode=barcode, version=version)
    end = data.find(_DIGEST)
    digest = hashlib.sha256(data[:end]).hexdigest()
    if end < 0 or data[end + len(_DIGEST) :].rstrip(b"\n").decode("ascii", "replace") != digest:
        raise Damaged(barcode=barcode, block=block, what="the header record does not match its own digest")
    values: dict[str, object] = {"written_at": "", "written_by": "", "restore": ""}
    for line in data[:end].decode("utf-8", "replace").splitlines()[1:]:
        key, _, value = line.partition(": ")
        name = key.replace("-", "_")
        if name in _ORDER:
            values[name] = _value(name, value)
    missing = _REQUIRED - values.keys()
    if missing or values["kind"] not in tuple(Kind):
        raise Damaged(barcode=barcode, block=block, what="the header record lacks " + (", ".join(missing) or "a kind"))
    if values["block"] != block:
        raise Damaged(barcode=barcode, block=block, what=f"its header record says it is block {values['block']}")
    values["kind"] = Kind(str(values["kind"]))
    return Header(**values), digest  # type: ignore[arg-type]


def _value(name: str, text: str) -> object:
    if name == "final":
        return text == "yes"
    if name == "previous_index_block":
        return -1 if text == "-" else int(text)
    if name in _INTEGERS:
        return int(text)
    return "" if text == "-" else text


def _describe(data: bytes) -> str:
    if not data:
        return "an empty record"
    if data[257:262] == b"ustar":
        return "a tar archive"
    if data[:4] == b"VOL1":
        return "an ANSI label (LTFS or another program)"
    return f"a record of {len(data)} bytes that is not ours"
