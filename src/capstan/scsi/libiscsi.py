"""As much of libiscsi (1.19 and later) as a tape needs, by ctypes. Its calls release the interpreter's lock.

Only the asynchronous calls are used for commands: the synchronous ones leave a request in the queue when the session
is lost, which points to memory that is no longer theirs.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_char_p, c_int, c_size_t, c_ubyte, c_uint8, c_uint16, c_void_p
from functools import cache
from typing import Any

from capstan.errors import Delivery, TransportError

SONAMES = ("libiscsi.so.7", "libiscsi.so.9", "libiscsi.so.10", "libiscsi.so.11")
MAX_CDB = 16  # SCSI_CDB_MAX_SIZE
NORMAL_SESSION = 2
DISCOVERY_SESSION = 1
CHAP = 1
FAILED = 0x0F000000  # statuses from here on say that no answer came


class Sense(ctypes.Structure):
    """struct scsi_sense (scsi-lowlevel.h)."""

    _fields_ = (
        ("error_type", c_ubyte),
        ("key", c_int),
        ("ascq", c_int),
        ("bits", c_uint8),
        ("bit_pointer", c_ubyte),
        ("field_pointer", c_uint16),
    )


class Data(ctypes.Structure):
    """struct scsi_data."""

    _fields_ = (("size", c_int), ("data", c_void_p))


class Task(ctypes.Structure):
    """The beginning of struct scsi_task; the library allocates it."""

    _fields_ = (
        ("status", c_int),
        ("cdb_size", c_int),
        ("direction", c_int),
        ("expected", c_int),
        ("cdb", c_ubyte * MAX_CDB),
        ("residual_status", c_int),
        ("residual", c_size_t),
        ("sense", Sense),
        ("data_in", Data),
    )


class Portal(ctypes.Structure):
    """struct iscsi_target_portal (iscsi.h)."""


class Target(ctypes.Structure):
    """struct iscsi_discovery_address (iscsi.h)."""


Portal._fields_ = (("next", POINTER(Portal)), ("portal", c_char_p))
Target._fields_ = (("next", POINTER(Target)), ("name", c_char_p), ("portals", POINTER(Portal)))

OnDone = ctypes.CFUNCTYPE(None, c_void_p, c_int, c_void_p, c_void_p)

_FUNCTIONS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "iscsi_create_context": (c_void_p, (c_char_p,)),
    "iscsi_destroy_context": (c_int, (c_void_p,)),
    "iscsi_set_targetname": (c_int, (c_void_p, c_char_p)),
    "iscsi_set_session_type": (c_int, (c_void_p, c_int)),
    "iscsi_set_timeout": (c_int, (c_void_p, c_int)),
    "iscsi_set_noautoreconnect": (None, (c_void_p, c_int)),
    "iscsi_set_initiator_username_pwd": (c_int, (c_void_p, c_char_p, c_char_p)),
    "iscsi_connect_sync": (c_int, (c_void_p, c_char_p)),
    "iscsi_login_sync": (c_int, (c_void_p,)),
    "iscsi_logout_sync": (c_int, (c_void_p,)),
    "iscsi_discovery_sync": (POINTER(Target), (c_void_p,)),
    "iscsi_free_discovery_data": (None, (c_void_p, POINTER(Target))),
    "iscsi_get_error": (c_char_p, (c_void_p,)),
    "iscsi_scsi_command_async": (c_int, (c_void_p, c_int, POINTER(Task), OnDone, c_void_p, c_void_p)),
    "iscsi_get_fd": (c_int, (c_void_p,)),
    "iscsi_which_events": (c_int, (c_void_p,)),
    "iscsi_service": (c_int, (c_void_p, c_int)),
    "scsi_create_task": (POINTER(Task), (c_int, c_char_p, c_int, c_int)),
    "scsi_free_scsi_task": (None, (POINTER(Task),)),
    "scsi_task_add_data_in_buffer": (c_int, (POINTER(Task), c_int, c_void_p)),
    "scsi_task_add_data_out_buffer": (c_int, (POINTER(Task), c_int, c_void_p)),
}


@cache
def load() -> Any:
    """The library, with its functions typed. TransportError(NOT_DELIVERED) when it is not installed."""
    for name in SONAMES:
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        for function, (result, arguments) in _FUNCTIONS.items():
            entry = getattr(library, function)
            entry.restype, entry.argtypes = result, arguments
        return library
    hint = "install it: the package is libiscsi7 on Debian, libiscsi on openEuler"
    raise TransportError(delivery=Delivery.NOT_DELIVERED, address="iscsi:", reason="libiscsi is not there", hint=hint)
