"""The address of a buffer, for what the operating system reads and writes by itself."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager


class _PyBuffer(ctypes.Structure):
    """Py_buffer (Python/C API, "Buffer structure"); stable since 3.11."""

    _fields_ = (
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.py_object),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    )


_SIMPLE = 0  # PyBUF_SIMPLE: contiguous bytes, readable
_get = ctypes.pythonapi.PyObject_GetBuffer
_get.argtypes = (ctypes.py_object, ctypes.POINTER(_PyBuffer), ctypes.c_int)
_release = ctypes.pythonapi.PyBuffer_Release
_release.argtypes = (ctypes.POINTER(_PyBuffer),)
_release.restype = None


@contextmanager
def pinned(data: memoryview) -> Iterator[int]:
    """The address of the first byte of `data`, which stays where it is within the block; also of one that only may be
    read. BufferError for one that is not contiguous."""
    held = _PyBuffer()
    _get(data, ctypes.byref(held), _SIMPLE)
    try:
        yield held.buf or 0
    finally:
        _release(ctypes.byref(held))
