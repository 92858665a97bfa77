"""Functions of Windows libraries by name. Nothing of Windows is touched before one is called, so that every module
can be imported, and its layouts checked, on any system."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

INVALID_HANDLE = ctypes.c_void_p(-1).value


@cache
def _library(name: str) -> Any:
    return vars(ctypes)["WinDLL"](name, use_last_error=True)


@cache
def function(library: str, name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
    """`name` of `library`, with these ctypes of its result and arguments. KeyError where there is no Windows,
    AttributeError where this Windows has not got the function."""
    found = _library(library)[name]
    found.restype, found.argtypes = result, arguments
    return found  # type: ignore[no-any-return]


def last_error() -> int:
    """The Win32 error that the last of these functions left on this thread."""
    return vars(ctypes)["get_last_error"]()  # type: ignore[no-any-return]


def error_text(code: int) -> str:
    """What Windows says of an error, with its number."""
    return f"{vars(ctypes)['FormatError'](code).strip() or 'unknown error'} (Windows error {code})"


def os_error(path: str, code: int | None = None) -> OSError:
    """An OSError with errno, strerror and filename, as Python raises it; of the last error, or of `code`."""
    code = last_error() if code is None else code
    return OSError(None, vars(ctypes)["FormatError"](code).strip(), path, code)
