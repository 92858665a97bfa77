"""Errors of cartridges and drives to work with. To be imported from `capstan.errors`, where the whole tree stands."""

from __future__ import annotations

from capstan.error_base import CapstanError, Remedy


class MediaError(CapstanError):
    code = "media"
    exit_code = 5
    remedy = Remedy.OPERATOR


class NoCartridgeAvailable(MediaError):
    """Parameters: pool, library."""

    code = "no-cartridge-available"
    message = "pool {pool} has no cartridge with room, and library {library} has no scratch cartridge"
    hint = "import or erase cartridges (`capstan library import`, `capstan tape erase`)"


class CartridgeMissing(MediaError):
    """Parameters: barcodes (text)."""

    code = "cartridge-missing"
    message = "not in the library: {barcodes}"
    hint = "put them into the mail slots and run `capstan library import NAME`"


class CartridgeTooSmall(MediaError):
    """Parameters: barcode."""

    code = "cartridge-too-small"
    message = "cartridge {barcode} cannot hold even one segment and its index"
    hint = "use smaller segments or larger cartridges"


class EscrowUnproven(MediaError):
    """Parameters: pool, keys."""

    code = "escrow-unproven"
    message = "pool {pool} demands a proven escrow, and no export of its keys has opened anything yet ({keys})"
    hint = "`capstan key export KEY --to FILE`, put it into the safe, then `capstan key drill --identity FILE`"


class NoCleaningCartridge(MediaError):
    """Parameters: library."""

    code = "no-cleaning-cartridge"
    message = "library {library} has no cleaning cartridge that is not used up"
    hint = "put a new one (its barcode begins with CLN) into a mail slot, and run `capstan library import {library}`"


class CleaningFailed(MediaError):
    """Parameters: drive, reason."""

    code = "cleaning-failed"
    message = "drive {drive} was not cleaned: {reason}"
    hint = "put a new cleaning cartridge into the library, then `capstan drive clean {drive}`"


class NoDriveFits(MediaError):
    """Parameters: library, barcode, reason."""

    code = "no-drive-fits"
    message = "no drive of library {library} that is free takes cartridge {barcode}: {reason}"
    hint = "use a cartridge that the drives take, or wait for a drive that takes this one"


class NoDriveAvailable(MediaError):
    """Parameters: library."""

    code = "no-drive-available"
    remedy = Remedy.RETRY
    message = "library {library} has no free drive that works"
    hint = "wait for the jobs that use the drives (`capstan jobs`), or mend a drive, then run the command again"
