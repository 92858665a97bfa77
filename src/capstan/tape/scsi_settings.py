"""What a drive is told once a cartridge is loaded: compression and the programmable early warning (SSC-5, 8.3)."""

from __future__ import annotations

from collections.abc import Callable

from capstan.scsi import cdb, modes, pages
from capstan.tape.drive import DriveCapabilities, DriveSettings
from capstan.tape.scsi_commands import DriveCommands

_HEADER = bytes((0, 0, 0x10, 0))  # buffered; no block descriptor (SSC-5, 8.3.2)


class ScsiDriveSettings:
    """The settings of one drive. Each page is read, changed in one field and sent back."""

    def __init__(self, commands: DriveCommands, settings: DriveSettings) -> None:
        self._commands = commands
        self._settings = settings

    def apply(self, capabilities: DriveCapabilities) -> None:
        """Set what the drive can do and what it is not set to yet. DeviceError, TransportError."""
        wanted = self._settings
        if wanted.compression is not None and capabilities.compression:
            on = wanted.compression
            self._change(modes.COMPRESSION, 0, lambda page: modes.with_compression(page, on=on))
        if wanted.early_warning_bytes and capabilities.programmable_early_warning:
            count = min(-(-wanted.early_warning_bytes // modes.EARLY_WARNING_UNIT), modes.MOST_EARLY_WARNING)
            self._change(*modes.EXTENSION, lambda page: modes.with_early_warning(page, count))

    def _change(self, page: int, subpage: int, change: Callable[[bytes], bytes]) -> None:
        command = cdb.mode_sense(page, subpage, length=64)
        found = pages.decode_mode(self._commands.query(command, 64)).page
        wanted = change(found)
        if wanted[2:] != found[2:]:
            parameters = _HEADER + wanted
            self._commands.send_parameters("MODE SELECT", cdb.mode_select(len(parameters)), memoryview(parameters))
