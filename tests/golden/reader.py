"""Reads tapes in the Capstan Tape Format, version 1: written from docs/design/tape-format.md alone, by its numbers.

Nothing of Capstan is used: the standard library, stock `zstd`, `lz4`, `gzip`, `age` and `7zz`, pyarrow for tables, and
the package crc32c. It checks what 7.3 names, and holds whole cartridges in memory: it is for small ones.
"""

import hashlib
import io
import json
import subprocess
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace as Some

from crc32c import crc32c
from pyarrow.parquet import read_table

PROGRAMS = {"zstd": ["zstd", "-dc"], "lz4": ["lz4", "-dc"], "gzip": ["gzip", "-dc"], "none": ["cat"]}  # 3.1
NOT_GOOD, SPARSE = 2 | 4 | 8, 16  # flags of rows, 4.2


def sha(data):
    return hashlib.sha256(data).hexdigest()


def run(command, data=b""):
    return subprocess.run(command, input=data, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True).stdout


def opened(file, keys):  # 3.7; the drive has opened what it encrypts, 3.8
    sealed = file.header["encryption"] == "age"
    return run(["age", "-d", *(word for key in keys for word in ("-i", key))], file.payload) if sealed else file.payload


def tape_files(records):  # 1, 2
    """All that end with a filemark. `records`: bytes, and None for a filemark, from the beginning of the tape on."""
    began = 0
    for end in (place for place, record in enumerate(records) if record is None):
        text, payload = records[began], records[began + 1 : end]
        header = dict(line.split(": ", 1) for line in text.decode().split("\n") if line)
        right = sha(text[: text.index(b"header-sha256: ")]) == header["header-sha256"] and len(text) == 4096
        assert right and (header["capstan-tape"][:2], header["block"]) == ("1.", str(began)), f"{began}: bad header"
        assert all(len(item) == int(header["record-bytes"]) for item in payload[:-1]), f"{began}: bad records"
        yield Some(header=header, records=payload, payload=b"".join(payload), kind=header["kind"], block=began)
        began = end + 1


def read_index(file, keys):  # 4
    codec = file.header["codec"] if file.header["codec"] in PROGRAMS else "zstd"
    archive = tarfile.open(fileobj=io.BytesIO(run(PROGRAMS[codec], opened(file, keys))))  # noqa: SIM115
    tables = {member.name: archive.extractfile(member).read() for member in archive}
    index = Some(**json.loads(tables["manifest.json"]), tables=tables)
    said = (index.set["id"], str(index.sequence), str(index.copy), index.cartridge["uuid"], str(index.block))
    assert said == tuple(map(file.header.get, ("set", "sequence", "copy", "cartridge", "block"))), "another manifest"
    links = [link["header_sha256"] for link in index.commits]
    assert [file.header["set-previous-index-sha256"]] == (links[-1:] or ["-"]), "the set's chain is broken"
    index.history = index.originals or [*links, file.header["header-sha256"]]  # 9.6
    return index


def read_cartridge(records, keys):
    """Its uuid, its tape files by block, and its INDEXes."""
    (label, *others), before = tape_files(records), ("-", "-")
    for file, said in ((file, file.header) for file in (label, *others) if file.kind != "segment"):
        assert (str(len(file.payload)), sha(file.payload)) == (said["payload-bytes"], said["payload-sha256"]), "damaged"
        assert (said["previous-index-block"], said["previous-index-sha256"]) == before, "the tape's chain is broken"
        before = before if file is label else (said["block"], said["header-sha256"])
        assert said["cartridge"] == label.header["cartridge"], "of another cartridge"
    indexes = [read_index(file, keys) for file in others if file.kind == "index"]
    return label.header["cartridge"], {file.block: file for file in others}, indexes


def read_segment(files, index, facts, keys):  # 3, 7.3
    """The tar that a segment holds, after all checks."""
    file = files[index.cartridge["uuid"]][facts["block"]]
    assert (file.header["set"], file.header["segment"]) == (index.set["id"], str(facts["number"])), "another segment"
    first = sum(segment["records"] for segment in index.segments[: index.segments.index(facts)])
    crcs = b"".join(crc32c(record).to_bytes(4, "little") for record in file.records)
    assert index.tables["records.crc32c"][4 * first :][: 4 * facts["records"]] == crcs, "a record is damaged"
    assert (len(file.payload), sha(file.payload)) == (facts["payload_bytes"], facts["payload_sha256"]), "damaged"
    plain, archive = opened(file, keys), index.set["container"] == "7z"
    text = from_archive(plain, facts["tar_offset"]) if archive else run(PROGRAMS[file.header["codec"]], plain)
    assert len(text) == facts["tar_bytes"], "a segment of another length"
    return text


def from_archive(payload, offset):  # 8
    with TemporaryDirectory() as folder:
        Path(folder, "7z").write_bytes(payload)
        run(["7zz", "x", "-y", f"-o{folder}/out", f"{folder}/7z"])
        stem, text = f"{folder}/out/.capstan/{offset:016}", b""
        headers = Path(f"{stem}.headers").read_bytes()
        for line in Path(f"{stem}.table").read_text().splitlines()[1:]:
            at, _, name = line.split(" ", 2)
            taken = int(at) - len(text)
            text, headers = text + headers[:taken] + Path(folder, "out", name).read_bytes(), headers[taken:]
        return text + headers


def content(member, row):  # 3.2, 3.6
    """What the digest of a row is about: the content as it is stored, map and all."""
    at = 0
    while member[at + 156 : at + 157] == b"x":
        at += 512 + -(-int(member[at + 124 : at + 135], 8) // 512) * 512
    return member[at + 512 :][: int(member[at + 124 : at + 135], 8) if row["flags"] & SPARSE else row["size"]]


def state_of(text, intervals, parent):  # 4.2, 4.3
    """What a set stands for: its rows over those of its parent, each with the `data` of its digest."""
    deleted = {path for tables in intervals for path in tables.get("deleted", b"").split(b"\0")}
    state = {path: row for path, row in parent.items() if path not in deleted}
    rows, firsts = {}, {}
    for row in (row for tables in intervals for row in read_table(io.BytesIO(tables["files.parquet"])).to_pylist()):
        path = row["raw"] or "/".join(filter(None, (row["directory"], row["name"]))).encode()
        rows[path, row["tar_offset"]] = row  # a provisional one is replaced
    for (path, offset), row in rows.items():
        good, row["data"] = not row["flags"] & NOT_GOOD, content(text[offset : offset + row["tar_bytes"]], row)
        if row["type"] == "hardlink":
            row["data"] = firsts[row["target"], row["device"], row["inode"]]
        elif good:
            assert row["sha256"] in (None, hashlib.sha256(row["data"]).digest()), f"{path!r} is damaged"
            firsts[path, row["device"], row["inode"]] = row["data"]
        if good or path not in state or state[path]["flags"] & NOT_GOOD:
            state[path] = row
    return state


def read_sets(tapes, keys=()):
    """The state of each set by its id: rows by stored paths. `tapes`: the records of cartridges; `keys`: files with
    identities. A set is read whole, from its lowest copies; AssertionError for what is not as it should be."""
    cartridges = [read_cartridge(records, keys) for records in tapes]
    files, states, sets = {uuid: found for uuid, found, _ in cartridges}, {}, {}
    for index in (index for _, _, indexes in cartridges for index in indexes):
        sets.setdefault((index.set["number"], index.set["id"]), []).append(index)
    for (_, set_id), found in sorted(sets.items()):
        newest = max(found, key=lambda item: (item.final, item.sequence, -item.copy, item.committed_at))  # 9.6
        found = [item for item in found if item.history == newest.history[: item.sequence]]
        found.sort(key=lambda item: (item.sequence, -item.copy))
        tables = {item.sequence: item.tables for item in found}  # those of all copies are the same
        assert [*tables] == list(range(1, newest.sequence + 1)), "an INDEX is missing"
        places, text = {facts["tar_offset"]: (item, facts) for item in found for facts in item.segments}, b""
        while len(text) in places:
            text += read_segment(files, *places[len(text)], keys)
        assert len(text) == newest.tar_end, "a segment is missing"
        states[set_id] = state_of(text, [*tables.values()], states.get(newest.set["parent"], {}))
    return states
