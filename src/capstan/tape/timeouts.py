"""How long each kind of command may take, in seconds: what LTO drives' manuals recommend, rounded up."""

from __future__ import annotations

QUERY = 60.0  # INQUIRY, TEST UNIT READY, MODE SENSE, READ POSITION
LOG = 180.0
TRANSFER = 180.0  # READ, WRITE
FILEMARK = 1800.0  # a synchronous filemark first writes everything that is buffered
MOTION = 3 * 3600.0  # SPACE, LOCATE, REWIND
LOAD = 8100.0  # an LTO-9 cartridge is initialised for up to two hours at its first load
UNLOAD = 1800.0
ERASE = 5 * 3600.0
MOVE = 1800.0  # a robot, with retries
INVENTORY = 3600.0  # INITIALIZE ELEMENT STATUS
CLEAN = 900.0  # a cleaning cartridge is at work for some minutes
