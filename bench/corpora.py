"""Trees to measure with, the same for the same seed: made of text, records and noise as real data are.

Each kind of data is made once, some MiB of it, and dealt out again and again with its pieces in another order. The
same piece comes again so far behind that it lies outside the window of the compressors compared here.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

SEED = 20260101
_BASE = 16 << 20
_WORDS = 4000


def large_files(folder: Path, *, size: int = 2 << 30, count: int = 8, seed: int = SEED) -> None:
    """P1: `count` files, `size` bytes together: three of text, two of records, two of noise, one of everything."""
    generator = random.Random(seed)
    kinds = [_Dealer(generator, base).take for base in (_text(generator), _records(generator))] + [generator.randbytes]
    plan = [0, 0, 0, 1, 1, 2, 2, 3]
    folder.mkdir(parents=True)
    for number in range(count):
        kind = plan[number % len(plan)]
        with (folder / f"volume-{number}.bin").open("wb") as file:
            for piece in range(size // count >> 20):
                file.write(kinds[piece % 3 if kind == 3 else kind](1 << 20))


def small_files(folder: Path, *, directories: int = 1000, each: int = 100, seed: int = SEED) -> None:
    """P4: files of 1 to 8 KiB, eight of ten text, one records, one noise."""
    generator = random.Random(seed)
    text = _Dealer(generator, _text(generator)).take
    kinds: list[Callable[[int], bytes]] = [text] * 8
    kinds += [_Dealer(generator, _records(generator)).take, generator.randbytes]
    for directory in range(directories):
        path = folder / f"group-{directory // 100:02d}" / f"project-{directory:04d}"
        path.mkdir(parents=True)
        for number in range(each):
            length = generator.randint(1 << 10, 8 << 10)
            content = kinds[generator.randrange(len(kinds))](length)
            (path / f"document-{number:03d}.txt").write_bytes(content)


class _Dealer:
    """Deals out `base` in pieces of 16 KiB, each piece once in every round."""

    def __init__(self, generator: random.Random, base: bytes) -> None:
        self._pieces = self._endless(generator, base)
        self._rest = b""

    def take(self, length: int) -> bytes:
        parts = [self._rest]
        have = len(self._rest)
        while have < length:
            parts.append(next(self._pieces))
            have += len(parts[-1])
        dealt = b"".join(parts)
        self._rest = dealt[length:]
        return dealt[:length]

    @staticmethod
    def _endless(generator: random.Random, base: bytes) -> Iterator[bytes]:
        starts = list(range(0, len(base), 16 << 10))
        while True:
            generator.shuffle(starts)
            for start in starts:
                yield base[start : start + (16 << 10)]


def _text(generator: random.Random) -> bytes:
    """Lines of words, the frequent ones short and frequent as in a language, with numbers between them."""
    letters = "etaoinshrdlcumwfgypbvkjxqz"
    words = ["".join(generator.choices(letters, range(26, 0, -1), k=2 + rank % 9)) for rank in range(_WORDS)]
    weights = [1 / (rank + 2) for rank in range(_WORDS)]
    lines: list[str] = []
    size = 0
    while size < _BASE:
        for _ in range(1000):
            line = f"{generator.randrange(10**6):06d} {' '.join(generator.choices(words, weights, k=12))}\n"
            lines.append(line)
            size += len(line)
    return "".join(lines).encode()[:_BASE]


def _records(generator: random.Random) -> bytes:
    """Rows of a binary table: counters that grow, small numbers, a few names, some noise."""
    rows = (
        struct.pack(
            "<QIHHd8s",
            10**9 + number * 37,
            generator.randrange(500),
            generator.randrange(12),
            number % 7,
            generator.random() * 100,
            b"unit-%02d\0" % generator.randrange(20),
        )
        for number in range(_BASE // 32)
    )
    return b"".join(rows)
