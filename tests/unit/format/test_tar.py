"""Members written by hand are what every tar reads."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capstan.core.files import FileEntry, FileType
from capstan.format.acl import acl_text
from capstan.format.tar import has_extras, member_headers, parse_member

COMPONENT = st.binary(min_size=1, max_size=120).filter(
    lambda b: b"/" not in b and b"\0" not in b and b not in (b".", b"..")
)
PATHS = st.lists(COMPONENT, min_size=1, max_size=4).map(b"/".join)
NAMES = st.text(st.characters(codec="ascii", categories=("L", "N")), max_size=40)


@st.composite
def entries(draw: st.DrawFn) -> FileEntry:
    kind = draw(st.sampled_from(FileType))
    linked = kind in (FileType.SYMLINK, FileType.HARDLINK)
    device = kind in (FileType.CHARACTER, FileType.BLOCK)
    return FileEntry(
        path=draw(PATHS),
        type=kind,
        mode=draw(st.integers(0, 0o7777)),
        uid=draw(st.integers(0, 2**32 - 1)),
        gid=draw(st.integers(0, 2**32 - 1)),
        size=draw(st.integers(0, 2**40)) if kind is FileType.REGULAR else 0,
        mtime_ns=draw(st.integers(-(2**60), 2**62)),
        owner=draw(NAMES),
        group=draw(NAMES),
        target=draw(PATHS) if linked else b"",
        rdev_major=draw(st.integers(0, 4095)) if device else 0,
        rdev_minor=draw(st.integers(0, 2**20 - 1)) if device else 0,
        xattrs=tuple(
            draw(st.dictionaries(st.sampled_from([b"user.a", b"security.capability"]), st.binary(max_size=700))).items()
        ),
    )


@given(entries())
def test_headers_come_back(entry: FileEntry) -> None:
    """What is written into the headers is read from them, whatever the name, time and owner."""
    headers = member_headers(entry)
    assert len(headers) % 512 == 0
    assert parse_member(headers + b"\0" * 512) == (entry, len(headers))


@given(entries())
def test_the_standard_library_reads_the_same(entry: FileEntry) -> None:
    """An independent reader agrees on name, type, size, times and links."""
    stream = io.BytesIO(member_headers(entry) + bytes(1024))
    with tarfile.open(fileobj=stream, encoding="utf-8", errors="surrogateescape") as archive:
        member = archive.next()
    assert member is not None
    assert os.fsencode(member.name) == entry.path
    assert member.mode == entry.mode
    assert (member.uid, member.gid) == (entry.uid, entry.gid)
    assert os.fsencode(member.linkname) == entry.target
    assert member.size == entry.size
    assert abs(member.mtime - entry.mtime_ns / 1e9) < 1e-3


@given(st.integers(0, 511), st.integers(1, 255))
def test_a_broken_header_is_noticed(at: int, change: int) -> None:
    """A changed byte fails the checksum (or, in the checksum itself, differs from the sum)."""
    entry = FileEntry(path=b"a", type=FileType.REGULAR, mode=0o644, uid=0, gid=0, size=3, mtime_ns=0)
    headers = bytearray(member_headers(entry))
    headers[at] ^= change
    try:
        parsed, _ = parse_member(headers)
    except ValueError:
        return
    assert parsed == entry  # only the padding of the checksum field does not count


def test_a_cut_off_header_is_an_error() -> None:
    """Bytes that end inside a header never give an entry."""
    entry = FileEntry(path=b"a", type=FileType.REGULAR, mode=0, uid=0, gid=0, size=0, mtime_ns=1)
    headers = member_headers(entry)
    for length in range(0, len(headers), 100):
        with pytest.raises(ValueError):
            parse_member(headers[:length])


def acl(*entries: tuple[int, int, int]) -> bytes:
    """An attribute's value, of (tag, permissions, identifier)."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


NOBODY = 0xFFFFFFFF
LIST = acl((1, 6, NOBODY), (2, 5, 1234), (4, 4, NOBODY), (8, 3, 4_000_000_000), (16, 7, NOBODY), (32, 0, NOBODY))


def test_an_access_control_list_as_text() -> None:
    """Every kind of entry, with numeric identifiers; a form that is not known gives no text rather than a wrong one."""
    assert acl_text(LIST) == b"user::rw-,user:1234:r-x,group::r--,group:4000000000:-wx,mask::rwx,other::---"
    assert acl_text(acl((64, 6, NOBODY))) is None
    assert acl_text(LIST[:-1]) is None
    assert acl_text(b"\3" + LIST[1:]) is None
    assert acl_text(b"") is None


@pytest.mark.requires("tar")
@pytest.mark.parametrize("options", [["--acls"], ["--xattrs", "--xattrs-include=*"], None])
def test_stock_tar_restores_access_control_lists(tmp_path: Path, options: list[str] | None) -> None:
    """With the options for lists, with those for attributes, and with both, as RESTORE.txt has them."""
    xattrs = ((b"system.posix_acl_access", LIST), (b"system.posix_acl_default", LIST))
    owner = {"uid": os.getuid(), "gid": os.getgid()}
    folder = FileEntry(path=b"d", type=FileType.DIRECTORY, mode=0o670, size=0, mtime_ns=10**18, xattrs=xattrs, **owner)
    file = FileEntry(path=b"f", type=FileType.REGULAR, mode=0o670, size=0, mtime_ns=1, xattrs=xattrs[:1], **owner)
    both = ["--acls", "--xattrs", "--xattrs-include=*"]
    subprocess.run(
        ["tar", "-xpf", "-", "-C", tmp_path, "--delay-directory-restore", "--numeric-owner", *(options or both)],
        input=member_headers(file) + member_headers(folder) + bytes(1024),
        check=True,
    )
    assert os.getxattr(tmp_path / "f", "system.posix_acl_access") == LIST
    assert os.getxattr(tmp_path / "d", "system.posix_acl_access") == LIST
    assert os.getxattr(tmp_path / "d", "system.posix_acl_default") == LIST


def test_what_files_of_windows_have(tmp_path: Path) -> None:
    """It comes back from records of a name of its own, which GNU tar passes over: it restores the file."""
    xattrs = (
        (b"CAPSTAN.win.attributes", b"0x23"),
        (b"CAPSTAN.win.sddl", b"O:BAG:BAD:P(A;;FA;;;WD)"),
        (b"user.a", b"1"),
    )
    entry = FileEntry(b"C/Users/x.txt", FileType.REGULAR, 0o644, 0, 0, 4, 10**18, xattrs=xattrs)
    headers = member_headers(entry)
    assert parse_member(headers)[0].xattrs == xattrs
    assert b" CAPSTAN.win.attributes=0x23\n" in headers
    assert b"SCHILY.xattr.CAPSTAN" not in headers
    assert has_extras(member_headers(replace(entry, xattrs=xattrs[:1])))
    (tmp_path / "x.tar").write_bytes(headers + b"data".ljust(512, b"\0") + bytes(1024))
    command = ["tar", "-xpf", "x.tar", "--xattrs", "--xattrs-include=*", "--no-same-owner"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "C/Users/x.txt").read_text() == "data"
