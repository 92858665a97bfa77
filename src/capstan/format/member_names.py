"""Names for people in a segment that is an archive of its own (docs/design/tape-format.md, 8.3).

They are for stock programs on any system, and nobody reads a stored path back from them: the tar headers have that.
"""

from __future__ import annotations

import hashlib
import re

_UNFIT = re.compile('[\x00-\x1f"%*:<>?\\\\|\x7f\udc80-\udcff]')  # for Windows, for 7z, or for this escape itself
# Names that Windows keeps for devices, whatever follows behind a dot ("Naming Files, Paths, and Namespaces").
_DEVICE = re.compile(r"(?i:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9¹²³])(?:[ .]|$)")
_MAX_COMPONENT = 200  # bytes of UTF-8; file systems take 255, and what tells names apart still comes behind
_MAX_PATH = 3500  # bytes; Linux takes 4095, together with the directory that it is unpacked in
_DEEP = ".capstan/deep"


class MemberNames:
    """Gives every content of one segment a name of its own. Two names never differ in case alone.

    Memory: the names that were given.
    """

    def __init__(self) -> None:
        self._files: set[str] = set()
        self._folders: dict[bytes, str] = {b"": ""}
        self._folder_names: set[str] = set()

    def reserve(self, name: str) -> str:
        """Take `name` as it is, and its folders."""
        self._files.add(name.casefold())
        self._take_folders(name)
        return name

    def name(self, path: bytes, *, part: int = 0, sparse: bool = False) -> str:
        """The name of the file with the stored path `path`, or of one `part` of it, counted from 1."""
        folder, _, last = path.rpartition(b"/")
        suffix = (".sparse" if sparse else "") + (f".part{part:03}" if part else "")
        above = self._folder(folder)
        if len(above.encode()) > _MAX_PATH:
            above = f"{_DEEP}/{hashlib.sha256(folder).hexdigest()[:32]}/"
        return self.reserve(self._free(above + escape(last), suffix, folder=False))

    def _folder(self, path: bytes) -> str:
        """The name of a folder, with a slash behind it."""
        found = self._folders.get(path)
        if found is None:
            above, _, last = path.rpartition(b"/")
            found = self._free(self._folder(above) + escape(last), "", folder=True) + "/"
            self._folders[path] = found
        return found

    def _free(self, stem: str, suffix: str, *, folder: bool) -> str:
        """`stem` and `suffix`, with a number between if that is taken. Folders may be the same, up to case."""
        name, number = stem + suffix, 1
        while (folded := name.casefold()) in self._files or (not folder and folded in self._folder_names):
            number += 1
            name = f"{stem}~{number}{suffix}"
        return name

    def _take_folders(self, name: str) -> None:
        above = name.casefold().rpartition("/")[0]
        while above and above not in self._folder_names:
            self._folder_names.add(above)
            above = above.rpartition("/")[0]


def escape(component: bytes) -> str:
    """One component of a path as a name that every system can hold: what one cannot is `%XX`, byte by byte."""
    name = _UNFIT.sub(_hex, component.decode("utf-8", "surrogateescape"))
    if name[-1:] in (".", " "):
        name = name[:-1] + f"%{ord(name[-1]):02X}"
    if _DEVICE.match(name):
        name = f"%{ord(name[0]):02X}{name[1:]}"
    if len(name.encode()) > _MAX_COMPONENT:
        # The end stays whole, as programs look at it; the digest makes it unlike any other.
        digest = hashlib.sha256(component).hexdigest()[:16]
        kept = name.encode()
        head = kept[: _MAX_COMPONENT - 48].decode("utf-8", "ignore")
        tail = kept[-24:].decode("utf-8", "ignore")
        name = f"{head.rstrip(' .')}~{digest}~{tail}"
    return name


def _hex(found: re.Match[str]) -> str:
    return f"%{ord(found[0]) & 0xFF:02X}"
