"""The motion of a SCSI tape drive: where it stands, and how it gets to another place."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from capstan.errors import BlankMedium, IllegalRequest, PositionLost
from capstan.scsi import cdb, pages
from capstan.scsi.pages import PositionData
from capstan.scsi.sense import Key, decode_sense
from capstan.scsi.transport import ScsiTransport, Status
from capstan.tape import timeouts
from capstan.tape.counted_motion import CountedMotion
from capstan.tape.drive import DriveCapabilities, Position, Read, SpaceUnit
from capstan.tape.scsi_reports import DriveReports


class DriveMotion(DriveReports):
    """The part of `tape.drive.TapeDrive` that moves the tape and touches no data. `capabilities` are learned by whoever
    makes it; `step` passes one record or filemark and says what it was."""

    capabilities: DriveCapabilities

    def __init__(
        self, transport: ScsiTransport, *, sleep: Callable[[float], None] = time.sleep, step: Callable[[], Read]
    ) -> None:
        super().__init__(transport, sleep=sleep)
        self._warned = False  # the programmable early warning, which comes once, was given
        self._stopped_at_end = False  # the last SPACE ended there, not at a filemark
        self._asked_position = False
        self._counted = CountedMotion(self.rewind, step, lambda: self._block)

    def position(self) -> Position:
        if not self.capabilities.reports_position:
            if self._lost or self._block < 0:
                self.rewind()
            return Position(self._block, at_beginning=not self._block)
        found = self._read_position()
        if found.unknown:
            self._lose("the drive does not know it")
            raise PositionLost(device=self.address, reason=self._lost)
        self._found(found.block)
        return Position(found.block, found.file, found.partition, found.at_beginning, found.at_end)

    def _read_position(self) -> PositionData:
        long = self.capabilities.long_position
        try:
            size = 32 if long else 20
            # Not said again behind a unit attention: a reset has moved the tape, and whoever asks means where it was.
            data = self._command("READ POSITION", cdb.read_position(long=long), timeouts.QUERY, size=size, tries=1)
        except IllegalRequest:
            if not long:
                raise
            self.capabilities = replace(self.capabilities, long_position=False)
            return self._read_position()
        return pages.decode_position_long(data) if long else pages.decode_position_short(data)

    def _try_position(self) -> None:
        """At the beginning, where it is known: some emulators answer what they do not know, or say so. Nothing that a
        drive says later is doubted, and nothing that it does not know is counted: only what it never does."""
        for long in (self.capabilities.long_position, False):
            self.capabilities = replace(self.capabilities, long_position=long)
            try:
                found = self._read_position()
            except PositionLost:  # a reset: another load asks
                self.rewind()
                return
            self._asked_position = True
            if found.at_beginning and not (found.unknown or found.block):
                return
        self.capabilities = replace(self.capabilities, reports_position=False, locate=False)

    def rewind(self) -> None:
        self._warned = False
        self._command("REWIND", cdb.rewind(), timeouts.MOTION)
        self._found(0)

    def locate(self, block: int) -> None:
        self._warned = False
        if not self.capabilities.reports_position:
            if not self._counted.locate(block):
                raise BlankMedium(device=self.address, command="LOCATE", sense="end of data")
            return
        if not self.capabilities.locate:
            self._space_to(block)
            return
        try:
            self._command("LOCATE", cdb.locate(block), timeouts.MOTION)
        except IllegalRequest:
            self.capabilities = replace(self.capabilities, locate=False)
            self._space_to(block)
        except BlankMedium:
            self.seek_end_of_data()
            raise
        self._found(block)

    def _space_to(self, block: int) -> None:
        """LOCATE for drives without it: from the beginning, over records and filemarks, counting both."""
        self.rewind()
        left = block
        while left:
            passed = self.space(left, SpaceUnit.BLOCKS)
            left -= passed
            if not left:
                break
            # Stopped at a filemark, which it has passed and which counts, or at the end of data.
            if self._stopped_at_end:
                raise BlankMedium(device=self.address, command="LOCATE", sense="end of data")
            left -= 1
        self._found(block)

    def space(self, count: int, over: SpaceUnit) -> int:
        self._check_position()
        self._warned = False
        if not self.capabilities.reports_position:
            passed, self._stopped_at_end = self._counted.space(count, over)
            return passed
        code = cdb.SpaceCode.BLOCKS if over is SpaceUnit.BLOCKS else cdb.SpaceCode.FILEMARKS
        completion = self._send(cdb.space(count, code), timeouts.MOTION)
        self._stopped_at_end = False
        if completion.status is Status.GOOD:
            self._block = -1
            return abs(count)
        sense = decode_sense(completion.sense)
        self._stopped_at_end = sense.key is Key.BLANK_CHECK
        stopped = sense.key is Key.NO_SENSE and (sense.filemark or sense.end_of_medium)
        if sense.deferred or not (stopped or self._stopped_at_end):
            self._fail("SPACE", completion)
        self._block = -1
        return abs(count) - abs(sense.information or 0)

    def seek_end_of_data(self) -> Position:
        if not self.capabilities.reports_position:
            self.position()
            self._counted.to_the_end()
            return self.position()
        self._command("SPACE to end of data", cdb.space(0, cdb.SpaceCode.END_OF_DATA), timeouts.MOTION)
        self._block = -1
        return self.position()
