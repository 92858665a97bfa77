"""Member headers of the pax tar stream, written and read (docs/design/tape-format.md, 3.2).

Written by hand on templates: a nanosecond header costs the standard library's `tarfile` 60 microseconds, which would be
more than all else that is done for a small file. The reader is for headers of this format; what other programs may
write in a pax archive beyond it is not understood.
"""

from __future__ import annotations

from functools import lru_cache
from zlib import adler32

from capstan.core.files import FileEntry, FileType
from capstan.format.acl import ACL_RECORDS, acl_text
from capstan.format.layout import TAR_BLOCK

_TYPES = {
    FileType.REGULAR: b"0",
    FileType.HARDLINK: b"1",
    FileType.SYMLINK: b"2",
    FileType.CHARACTER: b"3",
    FileType.BLOCK: b"4",
    FileType.DIRECTORY: b"5",
    FileType.FIFO: b"6",
}
_KINDS = {value: key for key, value in _TYPES.items()}
_MAX_SIZE = 8**11 - 1  # what eleven octal digits hold
_MAX_ID = 8**7 - 1
_XATTR = b"SCHILY.xattr."
_OWN = b"CAPSTAN."  # what only this format has, under names that no file system gives an attribute (3.9)
_SPARSE_1_0 = b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n"
_SPARSE_NAME = b"GNU.sparse.name"
_SPARSE_SIZE = b"GNU.sparse.realsize"


def padded(size: int) -> int:
    """`size` rounded up to whole tar blocks."""
    return -(-size // TAR_BLOCK) * TAR_BLOCK


def content_bytes(entry: FileEntry) -> int:
    """How many bytes of content follow the headers of `entry` in the stream."""
    if entry.type is not FileType.REGULAR:
        return 0
    return entry.size if entry.stored_bytes < 0 else entry.stored_bytes


def member_headers(entry: FileEntry) -> bytes:
    """All headers of one member, a multiple of 512 bytes. `entry.size` counts for regular files only."""
    return _plain_file(entry) or _any_member(entry)


def _plain_file(entry: FileEntry) -> bytes | None:
    """The headers of a file that needs no extended record but its time; None for all others. Same bytes, half the time:
    what many files share comes from a cache, and only what differs is summed up for the checksum."""
    name, prefix = entry.path, b""
    if len(name) > 100:
        name, prefix, fits = _split(name)
        if not fits:
            return None
    # The times are those whose seconds have ten digits: 2001 to 2286.
    if (
        entry.type is not FileType.REGULAR
        or entry.xattrs
        or entry.stored_bytes >= 0
        or entry.size > _MAX_SIZE
        or not 1_000_000_000_000_000_000 <= entry.mtime_ns < _MAX_SIZE * 1_000_000_000
    ):
        return None
    shared = _shared_fields(entry.mode, entry.uid, entry.gid, entry.owner, entry.group)
    if shared is None:
        return None
    numbers, names, names_sum = shared
    seconds, nanoseconds = divmod(entry.mtime_ns, 1_000_000_000)
    head = b"%b%b%011o\0%011o\0" % (name.ljust(100, b"\0"), numbers, entry.size, seconds)
    # Adler-32's low half is one more than the byte sum as long as that stays under 65,521: so short a text always does.
    checksum = (adler32(head) & 0xFFFF) - 1 + names_sum
    if prefix:
        checksum += (adler32(prefix) & 0xFFFF) - 1
    tail = b"%06o\0 %b%b" % (checksum, names, prefix.ljust(167, b"\0"))
    if nanoseconds:
        return b"".join((_PAX_30, b"30 mtime=%d.%09d\n" % (seconds, nanoseconds), _PAD_30, head, tail))
    return head + tail


@lru_cache(maxsize=4096)
def _shared_fields(mode: int, uid: int, gid: int, owner: str, group: str) -> tuple[bytes, bytes, int] | None:
    """Mode and owner as numbers; type, link name and names; the sum of the latter and of a blank checksum."""
    owner_name, group_name = owner.encode(), group.encode()
    if uid > _MAX_ID or gid > _MAX_ID or len(owner_name) > 31 or len(group_name) > 31:
        return None
    names = b"0" + bytes(100) + _names(owner_name, group_name, 0, 0)
    return _mode_and_owner(mode, uid, gid), names, sum(names) + 8 * 0x20


def _any_member(entry: FileEntry) -> bytes:
    sparse = entry.stored_bytes >= 0
    path = _sparse_name(entry.path) if sparse else entry.path
    if entry.type is FileType.DIRECTORY:
        path += b"/"
    size = content_bytes(entry)
    seconds, nanoseconds = divmod(entry.mtime_ns, 1_000_000_000)
    name, prefix = path, b""
    extended = b""
    if len(path) > 100:
        name, prefix, fits = _split(path)
        if not fits:
            extended += _pax(b"path", path)
    if len(entry.target) > 100:
        extended += _pax(b"linkpath", entry.target)
    if size > _MAX_SIZE:
        extended += _pax(b"size", b"%d" % size)
    if entry.uid > _MAX_ID or entry.gid > _MAX_ID:
        extended += _pax(b"uid", b"%d" % entry.uid) + _pax(b"gid", b"%d" % entry.gid)
    owner, group = entry.owner.encode(), entry.group.encode()
    if len(owner) > 31:
        extended += _pax(b"uname", owner)
    if len(group) > 31:
        extended += _pax(b"gname", group)
    for key, value in entry.xattrs:
        extended += _pax(key if key.startswith(_OWN) else _XATTR + key, value)
        text = acl_text(value) if key in ACL_RECORDS else None
        if text is not None:
            extended += _pax(ACL_RECORDS[key], text)
    if sparse:  # behind `path` and `size`: some readers take the last that speaks of a name or a size
        extended += _SPARSE_1_0 + _pax(_SPARSE_NAME, entry.path) + _pax(_SPARSE_SIZE, b"%d" % entry.size)
    if nanoseconds or not 0 <= seconds <= _MAX_SIZE:
        if not extended and 1_000_000_000 <= seconds < 10_000_000_000:
            pax = _PAX_30 + b"30 mtime=%d.%09d\n" % (seconds, nanoseconds) + _PAD_30
        else:
            pax = _extended_header(extended + _pax(b"mtime", _decimal(entry.mtime_ns)))
    else:
        pax = _extended_header(extended) if extended else b""
    return pax + _ustar(
        name,
        _TYPES[entry.type],
        _mode_and_owner(entry.mode, min(entry.uid, _MAX_ID), min(entry.gid, _MAX_ID)),
        min(size, _MAX_SIZE),
        min(max(seconds, 0), _MAX_SIZE),
        entry.target[:100],
        _names(owner[:31], group[:31], entry.rdev_major, entry.rdev_minor),
        prefix,
    )


def parse_member(data: bytes | memoryview) -> tuple[FileEntry, int]:
    """The entry whose headers begin at `data[0]`, and how many bytes the headers take.

    Raises ValueError when a checksum is wrong, a type is unknown, or `data` ends too early.
    """
    header = _block(data, 0)
    extended: dict[bytes, bytes] = {}
    offset = 0
    if header[156:157] == b"x":
        length = int(header[124:135], 8)
        records = bytes(data[TAR_BLOCK : TAR_BLOCK + length])
        if len(records) != length:
            raise ValueError("an extended header is cut off")
        extended = _parse_pax(records)
        offset = TAR_BLOCK + padded(length)
        header = _block(data, offset)
    kind = _KINDS.get(header[156:157])
    if kind is None:
        raise ValueError(f"unknown member type {header[156:157]!r}")
    prefix = header[345:500].rstrip(b"\0")
    path = extended.get(b"path") or (prefix + b"/" if prefix else b"") + header[:100].rstrip(b"\0")
    size, stored_bytes = int(extended.get(b"size") or int(header[124:135], 8)), -1
    if _SPARSE_SIZE in extended:
        path = extended.get(_SPARSE_NAME, path)
        size, stored_bytes = int(extended[_SPARSE_SIZE]), size
    mtime = extended.get(b"mtime")
    entry = FileEntry(
        path=path[:-1] if kind is FileType.DIRECTORY and path.endswith(b"/") else path,
        type=kind,
        mode=int(header[100:107], 8),
        uid=int(extended.get(b"uid") or int(header[108:115], 8)),
        gid=int(extended.get(b"gid") or int(header[116:123], 8)),
        size=size,
        mtime_ns=_nanoseconds(mtime) if mtime else int(header[136:147], 8) * 1_000_000_000,
        owner=(extended.get(b"uname") or header[265:297].rstrip(b"\0")).decode("utf-8", "replace"),
        group=(extended.get(b"gname") or header[297:329].rstrip(b"\0")).decode("utf-8", "replace"),
        target=extended.get(b"linkpath") or header[157:257].rstrip(b"\0"),
        rdev_major=int(header[329:336].rstrip(b"\0") or b"0", 8),
        rdev_minor=int(header[337:344].rstrip(b"\0") or b"0", 8),
        xattrs=tuple(
            (key.removeprefix(_XATTR), value) for key, value in extended.items() if key.startswith((_XATTR, _OWN))
        ),
        stored_bytes=stored_bytes,
    )
    return entry, offset + TAR_BLOCK


def has_extras(headers: bytes | memoryview) -> bool:
    """Whether the headers hold what no file-index row does (extended attributes): then they must be parsed."""
    return len(headers) > 3 * TAR_BLOCK or any(word in bytes(headers) for word in (b"SCHILY.", _OWN))


def _ustar(
    name: bytes, kind: bytes, mode: bytes, size: int, mtime: int, target: bytes, names: bytes, prefix: bytes
) -> bytes:
    head = name.ljust(100, b"\0") + mode + b"%011o\0%011o\0" % (size, mtime)
    tail = kind + target.ljust(100, b"\0") + names + prefix.ljust(167, b"\0")
    probe = head + b"        " + tail
    # Adler-32's low half is one more than the byte sum as long as that stays under 65,521; ASCII always does.
    checksum = (adler32(probe) & 0xFFFF) - 1 if probe.isascii() else sum(probe)
    return head + b"%06o\0 " % checksum + tail


@lru_cache(maxsize=4096)
def _mode_and_owner(mode: int, uid: int, gid: int) -> bytes:
    return b"%07o\0%07o\0%07o\0" % (mode, uid, gid)


@lru_cache(maxsize=4096)
def _names(owner: bytes, group: bytes, major: int, minor: int) -> bytes:
    return b"ustar\x0000" + owner.ljust(32, b"\0") + group.ljust(32, b"\0") + b"%07o\0%07o\0" % (major, minor)


def _sparse_name(path: bytes) -> bytes:
    """What a sparse member is called: a reader that does not know such members makes no file under the real name."""
    directory, slash, name = path.rpartition(b"/")
    return directory + slash + b"GNUSparseFile.0/" + name


def _split(path: bytes) -> tuple[bytes, bytes, bool]:
    """`path` as ustar's name and prefix, and whether it fits whole."""
    at = path.find(b"/", max(len(path) - 101, 0), len(path) - 1)
    if 0 < at <= 155:
        return path[at + 1 :], path[:at], True
    return path[:100], b"", False


def _pax(key: bytes, value: bytes) -> bytes:
    """One record: its own length in decimal, a blank, key=value, a newline."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    if len(str(length)) + rest != length:
        length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


def _parse_pax(records: bytes) -> dict[bytes, bytes]:
    found = {}
    at = 0
    while at < len(records):
        blank = records.index(b" ", at)
        end = at + int(records[at:blank])
        key, equals, value = records[blank + 1 : end - 1].partition(b"=")
        if end <= at or end > len(records) or not equals:
            raise ValueError("an extended header record is malformed")
        found[key] = value
        at = end
    return found


def _decimal(nanoseconds: int) -> bytes:
    seconds, rest = divmod(abs(nanoseconds), 1_000_000_000)
    return b"%s%d.%09d" % (b"-" if nanoseconds < 0 else b"", seconds, rest)


def _nanoseconds(text: bytes) -> int:
    whole, _, fraction = text.decode("ascii").partition(".")
    value = abs(int(whole)) * 1_000_000_000 + int(fraction[:9].ljust(9, "0") or 0)
    return -value if whole.startswith("-") else value


def _extended_header(records: bytes) -> bytes:
    head = _ustar(
        b"././@PaxHeader",
        b"x",
        _mode_and_owner(0o644, 0, 0),
        len(records),
        0,
        b"",
        _names(b"", b"", 0, 0),
        b"",
    )
    return head + records.ljust(padded(len(records)), b"\0")


def _block(data: bytes | memoryview, at: int) -> bytes:
    block = bytes(data[at : at + TAR_BLOCK])
    if len(block) != TAR_BLOCK:
        raise ValueError("a header is cut off")
    if sum(block[:148]) + sum(block[156:]) + 8 * 0x20 != int(block[148:154].strip(b"\0 ") or b"0", 8):
        raise ValueError("the checksum of a header is wrong")
    return block


# The extended header of nearly every member: one nanosecond time, a record of 30 bytes.
_PAX_30 = _extended_header(b"30 mtime=1000000000.000000001\n")[:TAR_BLOCK]
_PAD_30 = bytes(TAR_BLOCK - 30)
