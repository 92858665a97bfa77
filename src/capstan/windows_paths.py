r"""Paths of Windows and the paths that stand for them on tape. Pure: works, and is tested, on any system.

| Windows | stored path |
|---|---|
| `C:\Users\x` | `C/Users/x` |
| `\\server\share\x` | `UNC/server/share/x` |
| `\\?\Volume{…}\x` | `Volume{…}/x` |

So every tar can unpack it, in a folder for each drive. Names are UTF-8; half a surrogate pair, which Windows allows, is
three bytes as in WTF-8. Above the drives stands a top that Windows does not have, as `/` above the mounts of POSIX.
"""

from __future__ import annotations

import re

_PREFIX = "\\\\?\\"
_UNC = "UNC"
_DRIVE = re.compile(r"[A-Za-z]")
_VOLUME = re.compile(r"(?i)Volume\{[0-9a-f-]+\}")
_UNFIT = re.compile(r'[\x00-\x1f"*:<>?\\|]')
# Names that Windows keeps for devices, whatever follows behind a dot ("Naming Files, Paths, and Namespaces").
_DEVICE = re.compile(r"(?i)(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9¹²³])(?:[ .]|$)")


def stored_path(native: str) -> bytes:
    """The stored path of an absolute path of Windows, in any of its forms. ValueError for one that is not absolute."""
    text = native.replace("/", "\\")
    if text.startswith((_PREFIX, "\\\\.\\")):
        text = text[len(_PREFIX) :]
    elif text.startswith("\\\\"):
        text = f"{_UNC}\\{text[2:]}"
    first, _, rest = text.partition("\\")
    if len(first) == 2 and first[1] == ":" and _DRIVE.match(first):
        first = first[0].upper()
    elif first.upper() == _UNC:
        first = _UNC
    elif not _VOLUME.fullmatch(first):
        raise ValueError(f"{native} is not an absolute path")
    parts = (first, *(part for part in rest.split("\\") if part))
    return "/".join(parts).encode("utf-8", "surrogatepass")


def native_path(stored: bytes) -> str | None:
    r"""The path of Windows for a stored path, in the form that has no limit of 260 characters (`\\?\C:\Users\x`). None
    for what lies above all drives and shares. FileNotFoundError for what can be no path of Windows."""
    try:
        parts = stored.decode("utf-8", "surrogatepass").split("/") if stored else []
    except UnicodeDecodeError:
        raise FileNotFoundError(2, "the name is none that Windows can have", stored) from None
    if any(_UNFIT.search(part) or part in ("", ".", "..") for part in parts):
        raise FileNotFoundError(2, "the name is none that Windows can have", stored)
    if not parts or (parts[0] == _UNC and len(parts) < 3):
        return None
    if len(parts[0]) == 1 and _DRIVE.match(parts[0]):
        parts[0] = f"{parts[0]}:"
    elif parts[0] != _UNC and not _VOLUME.fullmatch(parts[0]):
        raise FileNotFoundError(2, "it lies on no drive", stored)
    top = 3 if parts[0] == _UNC else 1
    return _PREFIX + "\\".join(parts) + ("\\" if len(parts) == top else "")


def fit_name(name: bytes) -> bytes:
    """One component as Windows can hold it, and as its programs can open it: each byte of what they cannot is `%XX`.
    A name that fits is not changed."""
    try:
        text, errors = name.decode("utf-8", "surrogatepass"), "surrogatepass"
    except UnicodeDecodeError:
        text, errors = name.decode("utf-8", "surrogateescape"), "surrogateescape"
        text = re.sub("[\udc80-\udcff]", lambda found: _escaped(found[0]), text)
    fitted = _UNFIT.sub(lambda found: _escaped(found[0]), text)
    if fitted.endswith((".", " ")):
        fitted = fitted[:-1] + _escaped(fitted[-1])
    if _DEVICE.match(fitted):
        fitted = _escaped(fitted[0]) + fitted[1:]
    return fitted.encode("utf-8", errors)


def shown_path(stored: bytes) -> str:
    r"""A stored path as a person of Windows writes it: `C:\Users\x`."""
    try:
        native = native_path(stored)
    except FileNotFoundError:
        native = None
    if native is None:
        return "\\" + stored.decode("utf-8", "backslashreplace").replace("/", "\\")
    native = native[len(_PREFIX) :]
    text = native if not native.startswith(f"{_UNC}\\") else f"\\\\{native[len(_UNC) + 1 :]}"
    return text.encode("utf-8", "backslashreplace").decode()


def _escaped(text: str) -> str:
    return "".join(f"%{byte:02X}" for byte in text.encode("utf-8", "surrogateescape"))
