"""Motion for drives that do not know where they stand: Capstan counts, one record or filemark after another.

Slow, and only for those: some emulators. Such a drive is seldom right in what it says about SPACE either, so nothing
but READ and REWIND is used.
"""

from __future__ import annotations

from collections.abc import Callable

from capstan.errors import BlockTooLarge
from capstan.tape.drive import Read, SpaceUnit, TapeDrive


def step(drive: TapeDrive) -> Read:
    """Over one record or filemark, whatever it is."""
    try:
        return drive.read_block(memoryview(bytearray(1))).kind
    except BlockTooLarge:
        return Read.DATA


class CountedMotion:
    """Moves a tape by `rewind` and by `step`, which passes one record or filemark and says what it was. `at` says how
    many have been passed since the beginning, less than 0 when that is not known."""

    def __init__(self, rewind: Callable[[], None], step: Callable[[], Read], at: Callable[[], int]) -> None:
        self._rewind = rewind
        self._step = step
        self._at = at

    def locate(self, block: int) -> bool:
        """Go there. False: the data ends before it, and the tape stands at its end."""
        if not 0 <= self._at() <= block:
            self._rewind()
        while self._at() < block:
            if self._step() is Read.END_OF_DATA:
                return False
        return True

    def space(self, count: int, over: SpaceUnit) -> tuple[int, bool]:
        """As `TapeDrive.space`: how many were passed, and whether the end of data has stopped it."""
        if count < 0:
            return self._backwards(-count, over), False
        passed = 0
        while passed < count:
            kind = self._step()
            if kind is Read.END_OF_DATA:
                return passed, True
            if over is SpaceUnit.BLOCKS and kind is Read.FILEMARK:
                break
            passed += (kind is Read.FILEMARK) == (over is SpaceUnit.FILEMARKS)
        return passed, False

    def to_the_end(self) -> None:
        """Behind all that was written."""
        while self._step() is not Read.END_OF_DATA:
            pass

    def _backwards(self, count: int, over: SpaceUnit) -> int:
        here, marks = self._at(), []
        self._rewind()
        while self._at() < here:
            number = self._at()
            if self._step() is Read.FILEMARK:
                marks.append(number)
        if over is SpaceUnit.FILEMARKS:
            target = marks[-count] if count <= len(marks) else 0
            passed = min(count, len(marks))
        else:
            stop = marks[-1] + 1 if marks else 0  # just behind the last filemark
            passed = min(count, here - stop)
            target = here - passed if passed == count else max(stop - 1, 0)
        self.locate(target)
        return passed
