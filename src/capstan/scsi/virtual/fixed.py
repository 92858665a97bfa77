"""READ and WRITE of several blocks of one length, in terms of those of one block (SSC-5, 6.4 and 6.8, FIXED)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from capstan.scsi.virtual.target import INVALID_FIELD, CheckCondition, illegal


def read_blocks(read: Callable[[memoryview], int], count: int, length: int, data: memoryview) -> int:
    """Read `count` blocks of `length`; `read` takes one. The information of what ends it early is how many are left."""
    moved = 0
    for done in range(count):
        try:
            moved += read(data[moved : moved + length])
        except CheckCondition as check:
            raise CheckCondition(replace(check.sense, information=count - done), moved=moved) from None
    return moved


def write_blocks(write: Callable[[memoryview], int], count: int, length: int, data: memoryview) -> int:
    """Write `count` blocks of `length`; `write` takes one. All are written behind the early warning, which is told at
    the end."""
    warning: CheckCondition | None = None
    for done in range(count):
        try:
            write(data[done * length : (done + 1) * length])
        except CheckCondition as check:
            if not check.moved:
                raise CheckCondition(replace(check.sense, information=count - done), moved=done * length) from None
            warning = check
    if warning is not None:
        raise CheckCondition(warning.sense, moved=count * length)
    return count * length


def check_blocks(count: int, length: int, data: memoryview | None, most: int) -> memoryview:
    """The buffer of such a command. ILLEGAL REQUEST where no block length is set, or they do not fit together."""
    if not length or count * length > most or data is None or len(data) != count * length:
        raise illegal(*INVALID_FIELD)
    return data
