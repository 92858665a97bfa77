"""What a virtual drive knows of its own health: counters since the cartridge was loaded, TapeAlert flags, cleaning."""

from __future__ import annotations

from capstan.scsi.virtual.cartridge import CartridgeFacts

_CLEANING_LOOKS = 6  # how often it says that it is being cleaned before it is done
_READ_FAILURE, _WRITE_FAILURE, _CLEAN_PERIODIC, _CLEANING_EXPIRED = 5, 6, 21, 22  # SSC-5, table A.2


class Upkeep:
    """One for a drive. `every`: data cartridges after which it asks to be cleaned, 0 for never; `uses`: how many there
    were since it was."""

    def __init__(self, every: int) -> None:
        self._every = every
        self._uses = 0
        self._alerts: set[int] = set()
        self._looks = 0
        self._facts: CartridgeFacts | None = None
        self.written_bytes = self.read_bytes = 0
        self.write_failures = self.read_failures = 0

    @property
    def wants_cleaning(self) -> bool:
        return bool(self._every) and self._uses >= self._every

    def inserted(self, cartridge: CartridgeFacts, uses: int) -> None:
        """The robot has brought a cartridge."""
        self._uses, self._facts = uses, cartridge
        self.loaded()
        if cartridge.cleaning:
            self._looks = _CLEANING_LOOKS if cartridge.cleanings else 0
            if not cartridge.cleanings:
                self._alerts.add(_CLEANING_EXPIRED)

    def loaded(self) -> None:
        """The tape has been threaded: counters begin anew."""
        self.written_bytes = self.read_bytes = self.write_failures = self.read_failures = 0

    def cleaning(self) -> bool:
        """Whether the cleaning cartridge in it is still at work; asked until it is not."""
        self._looks -= self._looks > 0
        return self._looks > 0

    def moved(self, length: int, *, writing: bool) -> None:
        """A block of so many bytes was read or written."""
        self.written_bytes += length if writing else 0
        self.read_bytes += 0 if writing else length
        if self._facts is not None:
            self._facts.written_bytes += length if writing else 0
            self._facts.read_bytes += 0 if writing else length

    def failed(self, *, writing: bool) -> None:
        """The medium could not be read or written."""
        if self._facts is not None:
            self._facts.write_failures += writing
            self._facts.read_failures += not writing
        self.write_failures += writing
        self.read_failures += not writing
        self._alerts.add(_WRITE_FAILURE if writing else _READ_FAILURE)

    def take_alerts(self) -> frozenset[int]:
        """The flags that are set; those that speak of something that is over are cleared by it (SSC-5, 4.2.20)."""
        found = self._alerts | ({_CLEAN_PERIODIC} if self.wants_cleaning else set())
        self._alerts.clear()
        return frozenset(found)
