"""A virtual cartridge: a tape image with a barcode, a generation, a capacity and a write-protect tab."""

from __future__ import annotations

import errno
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from capstan.core.generations import MEDIA, TYPE_M, Generation
from capstan.errors import HomeDamaged
from capstan.scsi.virtual.image import TapeImage
from capstan.scsi.virtual.storage import Storage, load_json, replace_file

_HINT = "the tape image beside it is whole: write the file again, like that of another cartridge"


@dataclass(slots=True)
class CartridgeFacts:
    """What the sidecar keeps. `capacity_bytes` counts image bytes; `cleanings` are left of a cleaning cartridge;
    `attributes`: what hosts keep in its memory, numbers and values in hexadecimal; `type_m`: it is an LTO-7 cartridge
    that an LTO-8 drive has formatted for more;
    bytes and failures are counted over its life."""

    barcode: str
    generation: int
    capacity_bytes: int
    write_protected: bool = False
    worm: bool = False
    cleaning: bool = False
    cleanings: int = 0
    loads: int = 0
    attributes: dict[str, str] = field(default_factory=dict)
    type_m: bool = False
    written_bytes: int = 0
    read_bytes: int = 0
    write_failures: int = 0
    read_failures: int = 0


class VirtualCartridge:
    """Files `BARCODE.tap`, `.map` and `.json` in one folder. The image is open only while it is in a drive."""

    def __init__(self, folder: Path, facts: CartridgeFacts, storage: Storage) -> None:
        self.facts = facts
        self._folder = folder
        self._storage = storage
        self.image: TapeImage | None = None

    @classmethod
    def create(cls, folder: Path, facts: CartridgeFacts, storage: Storage) -> VirtualCartridge:
        """Make a new blank cartridge; durable when it returns."""
        cartridge = cls(folder, facts, storage)
        cartridge.save()
        return cartridge

    @classmethod
    def find(cls, folder: Path, barcode: str, storage: Storage) -> VirtualCartridge:
        """The cartridge of that barcode. HomeDamaged when its sidecar cannot be read."""
        path = folder / f"{barcode}.json"
        try:
            facts = load_json(CartridgeFacts, path, hint=_HINT)
        except FileNotFoundError:
            raise HomeDamaged(path=path, reason="the file is gone", hint=_HINT) from None
        trouble = ""
        if facts.barcode != barcode:
            trouble = f"it is that of cartridge {facts.barcode}"
        elif f"LTO-{facts.generation}" not in MEDIA:
            trouble = f"there is no LTO-{facts.generation}"
        elif facts.capacity_bytes < 1:
            trouble = f"its capacity is {facts.capacity_bytes} bytes"
        if trouble:
            raise HomeDamaged(path=path, reason=trouble, hint=_HINT)
        return cls(folder, facts, storage)

    @property
    def barcode(self) -> str:
        return self.facts.barcode

    @property
    def generation(self) -> Generation:
        return TYPE_M if self.facts.type_m else MEDIA[f"LTO-{self.facts.generation}"]

    @property
    def early_warning_at(self) -> int:
        """Image bytes from which on every write reports the early warning."""
        return self.facts.capacity_bytes - early_warning_zone(self.facts.capacity_bytes)

    def save(self) -> None:
        """Write the sidecar; durable when it returns."""
        data = json.dumps(asdict(self.facts), indent=1).encode()
        replace_file(self._storage, self._folder / f"{self.barcode}.json", data)

    def insert(self) -> TapeImage:
        """Open the image, as a drive that threads the tape does. Only the first time may there be none: later a missing
        image is data that is missing, and a blank tape in its place would hide that. OSError."""
        path = self._folder / f"{self.barcode}.tap"
        if self.facts.loads and not path.exists():
            raise FileNotFoundError(errno.ENOENT, "the tape image is gone", str(path))
        self.image = TapeImage(path, self._storage)
        self.facts.loads += 1
        return self.image

    def remove(self) -> None:
        """Close the image. Harmless when it is not open."""
        if self.image is not None:
            self.image.close()
            self.image = None


def early_warning_zone(capacity_bytes: int) -> int:
    """How many bytes before the end the early warning is given.

    Real drives leave some gigabytes. A small cartridge leaves a sixteenth of itself, but at least 24 MiB where that is
    not more than half of it: room for the frames in hand, the close of a segment and an INDEX.
    """
    return min(8 << 30, max(capacity_bytes // 16, min(24 << 20, capacity_bytes // 2)))
