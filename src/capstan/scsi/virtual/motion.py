"""SPACE on a virtual tape (SSC-5, 7.7): where it leads, and what stops it. Pure."""

from __future__ import annotations

from capstan.scsi.cdb import SpaceCode
from capstan.scsi.sense import Key, Sense
from capstan.scsi.virtual.image import TapeImage
from capstan.scsi.virtual.target import INVALID_FIELD, illegal

_BLANK = (0x00, 0x05)


def space(tape: TapeImage, code: int, at: int, count: int) -> tuple[int, Sense | None]:
    """The position afterwards, and the sense data if fewer objects were passed than asked for."""
    if code == SpaceCode.END_OF_DATA:
        return tape.count, None
    if code == SpaceCode.FILEMARKS:
        return _filemarks(tape, at, count)
    if code == SpaceCode.BLOCKS:
        return _blocks(tape, at, count)
    raise illegal(*INVALID_FIELD)


def _filemarks(tape: TapeImage, position: int, count: int) -> tuple[int, Sense | None]:
    if count == 0:
        return position, None
    passed = tape.file_number(position)
    at = passed + (count - 1 if count > 0 else count)
    if at < 0:
        return 0, _stopped(-at, 0x04, end=True)
    if at >= len(tape.filemarks):
        return tape.count, Sense(Key.BLANK_CHECK, *_BLANK, information=count - (len(tape.filemarks) - passed))
    return tape.filemarks[at] + (1 if count > 0 else 0), None


def _blocks(tape: TapeImage, position: int, count: int) -> tuple[int, Sense | None]:
    mark = tape.file_number(position)
    if count > 0:
        stop = tape.filemarks[mark] if mark < len(tape.filemarks) else tape.count
        moved = min(count, stop - position)
        if moved == count:
            return position + moved, None
        if stop == tape.count:
            return stop, Sense(Key.BLANK_CHECK, *_BLANK, information=count - moved)
        return stop + 1, _stopped(count - moved, 0x01)
    stop = tape.filemarks[mark - 1] + 1 if mark else 0
    moved = min(-count, position - stop)
    if moved == -count:
        return position - moved, None
    if stop == 0:
        return 0, _stopped(-count - moved, 0x04, end=True)
    return stop - 1, _stopped(-count - moved, 0x01)


def _stopped(residual: int, ascq: int, *, end: bool = False) -> Sense:
    """Stopped at a filemark (0/00/01) or at the beginning (0/00/04)."""
    return Sense(Key.NO_SENSE, 0x00, ascq, filemark=ascq == 0x01, end_of_medium=end, information=residual)
