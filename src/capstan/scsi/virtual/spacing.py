"""Where SPACE leads to on a virtual tape (SSC-5, 7.7), and what READ POSITION says of a place."""

from __future__ import annotations

from capstan.scsi.cdb import SpaceCode
from capstan.scsi.sense import Key, Sense
from capstan.scsi.virtual.image import TapeImage
from capstan.scsi.virtual.target import INVALID_FIELD, CheckCondition, illegal


def space(tape: TapeImage, position: int, code: int, count: int) -> tuple[int, CheckCondition | None]:
    """The position after SPACE, and with what the command ends when it could not go all the way."""
    if code == SpaceCode.END_OF_DATA:
        return tape.count, None
    if code == SpaceCode.FILEMARKS:
        return _filemarks(tape, position, count)
    if code == SpaceCode.BLOCKS:
        return _forward(tape, position, count) if count > 0 else _backward(tape, position, -count)
    raise illegal(*INVALID_FIELD)


def position_data(tape: TapeImage, number: int, action: int, *, at_end: bool) -> bytes:
    """READ POSITION data (SSC-5, 7.5): short form (20 bytes) or, for service action 06h, long form (32 bytes)."""
    flags = (0x80 if number == 0 else 0) | (0x40 if at_end else 0)
    if action in (0x00, 0x01):
        block = min(number, 0xFFFFFFFF).to_bytes(4, "big")
        return bytes((flags, 0, 0, 0)) + block + block + bytes(8)
    if action == 0x06:
        files = tape.file_number(number).to_bytes(8, "big")
        return bytes((flags, 0, 0, 0)) + bytes(4) + number.to_bytes(8, "big") + files + bytes(8)
    raise illegal(*INVALID_FIELD)


def _filemarks(tape: TapeImage, position: int, count: int) -> tuple[int, CheckCondition | None]:
    if count == 0:
        return position, None
    at = tape.file_number(position) + (count - 1 if count > 0 else count)
    if at < 0:
        return 0, _stopped(-at, 0x04, end=True)
    if at >= len(tape.filemarks):
        passed = len(tape.filemarks) - tape.file_number(position)
        return tape.count, _end_of_data(count - passed)
    return tape.filemarks[at] + (1 if count > 0 else 0), None


def _forward(tape: TapeImage, position: int, count: int) -> tuple[int, CheckCondition | None]:
    """Over records, and behind the first filemark met."""
    mark = tape.file_number(position)
    stop = tape.filemarks[mark] if mark < len(tape.filemarks) else tape.count
    moved = min(count, stop - position)
    if moved == count:
        return position + moved, None
    if stop == tape.count:
        return stop, _end_of_data(count - moved)
    return stop + 1, _stopped(count - moved, 0x01)


def _backward(tape: TapeImage, position: int, count: int) -> tuple[int, CheckCondition | None]:
    """Over records, and before the first filemark met."""
    mark = tape.file_number(position) - 1
    stop = tape.filemarks[mark] + 1 if mark >= 0 else 0
    moved = min(count, position - stop)
    if moved == count:
        return position - moved, None
    if stop == 0:
        return 0, _stopped(count - moved, 0x04, end=True)
    return stop - 1, _stopped(count - moved, 0x01)


def _end_of_data(residual: int) -> CheckCondition:
    return CheckCondition(Sense(Key.BLANK_CHECK, 0x00, 0x05, information=residual))


def _stopped(residual: int, ascq: int, *, end: bool = False) -> CheckCondition:
    """SPACE stopped at a filemark (0/00/01) or at the beginning (0/00/04)."""
    return CheckCondition(
        Sense(Key.NO_SENSE, 0x00, ascq, filemark=ascq == 0x01, end_of_medium=end, information=residual)
    )
