"""How long a virtual drive takes: nothing, or what a real one would, for demonstrations and planner tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


def _at_once(seconds: float) -> None:
    """Take no time."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds for each motion, given to `sleep`. The default takes no time at all.

    `locate_full` is for the whole length of what is written, and shorter ways take their part of it.
    `bytes_per_second` 0 is as fast as the disk.
    """

    sleep: Callable[[float], None] = _at_once
    load_seconds: float = 0.0
    unload_seconds: float = 0.0
    locate_full_seconds: float = 0.0
    move_seconds: float = 0.0
    bytes_per_second: int = 0

    def load(self) -> None:
        self.sleep(self.load_seconds)

    def unload(self) -> None:
        self.sleep(self.unload_seconds)

    def move(self) -> None:
        self.sleep(self.move_seconds)

    def locate(self, start: int, end: int, count: int) -> None:
        """From one object to another on a tape of `count` objects."""
        if count and self.locate_full_seconds:
            self.sleep(self.locate_full_seconds * abs(end - start) / count)

    def transfer(self, length: int) -> None:
        """Read or write `length` bytes at native speed."""
        if self.bytes_per_second:
            self.sleep(length / self.bytes_per_second)
