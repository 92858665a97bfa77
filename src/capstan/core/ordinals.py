"""A set of numbers that come in ascending order, one bit each: frames of a stream, rows of a table."""

from __future__ import annotations


class OrdinalSet:
    """`count` is how many are in it. Memory is one bit for each number up to the highest."""

    def __init__(self) -> None:
        self._bits = bytearray()
        self.count = 0

    def add(self, ordinal: int) -> None:
        """Each number at most once."""
        index = ordinal >> 3
        if index >= len(self._bits):
            self._bits.extend(bytes(index + 1 - len(self._bits)))
        self._bits[index] |= 1 << (ordinal & 7)
        self.count += 1

    def __contains__(self, ordinal: int) -> bool:
        index = ordinal >> 3
        return index < len(self._bits) and bool(self._bits[index] >> (ordinal & 7) & 1)
