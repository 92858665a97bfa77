"""What differs from system to system for those who walk trees and restore them, so that they know no platform.

`calls` are the functions of `os` on files and directories: on POSIX `os` itself, on Windows `windows_calls`, which take
the same arguments.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

if sys.platform != "win32":
    calls = os
    has_nodes = True
    find_streams: Callable[[bytes | int], list[str]] | None = None
    sync_file_system: Callable[[int], None] | None = None

    def take_privileges() -> None:
        """Use all rights of this account. Root uses them anyhow."""

    def fit_name(name: bytes) -> bytes:
        """A name as this system can hold it."""
        return name

    def is_spelled(name: bytes, directory: int) -> bool:
        """Whether what has this name in an open directory is called just so. Where case counts, it is."""
        return True

    def by_descriptor(descriptor: int | None, name: bytes) -> bytes:
        """A path, for calls that take no directory descriptor, of `name` in the directory open as `descriptor`."""
        return name if descriptor is None else b"/proc/self/fd/%d/%s" % (descriptor, name)

    def stored_path(name: bytes) -> bytes:
        """The stored path of what was named: links above it are resolved, one that is named itself stays one."""
        path = os.path.join(os.getcwdb(), name).rstrip(b"/")  # noqa: PTH109, PTH118 (bytes)
        above, last = os.path.split(path)
        if last in (b"", b".", b".."):
            return os.path.realpath(path or b"/").lstrip(b"/")
        return os.path.join(os.path.realpath(above), last).lstrip(b"/")  # noqa: PTH118 (bytes)

    def selected_path(text: str) -> bytes:
        """A path of a set, as a person names it: with or without a slash before it."""
        return os.fsencode(text)

    def target_path(path: Path) -> bytes:
        """A path as `calls` take it."""
        return os.fsencode(path)

    def shown_path(stored: bytes) -> str:
        """A stored path as people write it on this system."""
        return os.fsdecode(b"/" + stored)
else:
    from capstan import windows_calls, windows_files, windows_paths
    from capstan.windows_attributes import find_streams as find_streams
    from capstan.windows_attributes import take_privileges as take_privileges
    from capstan.windows_changes import sync_file_system as sync_file_system
    from capstan.windows_paths import fit_name as fit_name
    from capstan.windows_paths import shown_path as shown_path

    calls = windows_calls
    has_nodes = False

    def is_spelled(name: bytes, directory: int) -> bool:
        return windows_files.spelled(name, directory).encode("utf-8", "surrogatepass") == name

    def by_descriptor(descriptor: int | None, name: bytes) -> bytes:
        return b"/" + windows_paths.stored_path(windows_files.locate(name, descriptor) or "")

    def stored_path(name: bytes) -> bytes:
        return windows_files.real_path(name)

    def selected_path(text: str) -> bytes:
        try:
            return windows_paths.stored_path(text)
        except ValueError:  # a stored path already
            return os.fsencode(text.replace("\\", "/"))

    def target_path(path: Path) -> bytes:
        text = str(path)
        if text in ("\\", "/"):
            return b"/"  # above all drives: everything goes back to where it was
        return b"/" + windows_paths.stored_path(os.path.abspath(text))  # noqa: PTH100 (text)
