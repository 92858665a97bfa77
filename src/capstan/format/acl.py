"""POSIX access control lists as text: what GNU tar restores them from.

With `--acls`, GNU tar sets what `SCHILY.acl.access` and `SCHILY.acl.default` say after it has set the extended
attributes, and without them it takes away what the attributes brought (seen with 1.34). Capstan itself restores the
attributes, which are exact.
"""

from __future__ import annotations

import struct

# The kernel's form (linux/posix_acl_xattr.h): version 2, then entries of tag, permissions and identifier.
_VERSION = struct.Struct("<I")
_ENTRY = struct.Struct("<HHI")
_TAGS = {0x01: b"user::", 0x02: b"user:%d:", 0x04: b"group::", 0x08: b"group:%d:", 0x10: b"mask::", 0x20: b"other::"}

ACL_RECORDS = {
    b"system.posix_acl_access": b"SCHILY.acl.access",
    b"system.posix_acl_default": b"SCHILY.acl.default",
}


def acl_text(value: bytes) -> bytes | None:
    """The text of an attribute's value, with numeric identifiers; None for a form that is not known."""
    if value[:4] != _VERSION.pack(2) or len(value) % _ENTRY.size != _VERSION.size:
        return None
    entries = []
    for tag, permissions, identifier in _ENTRY.iter_unpack(value[4:]):
        if tag not in _TAGS:
            return None
        who = _TAGS[tag] % identifier if tag in (0x02, 0x08) else _TAGS[tag]
        bits = zip(b"rwx", (4, 2, 1), strict=True)
        entries.append(who + bytes(letter if permissions & bit else 0x2D for letter, bit in bits))
    return b",".join(entries)
