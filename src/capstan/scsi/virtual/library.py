"""A virtual tape library: a folder with cartridges, a robot, drives, and one owner at a time.

`library.json` says what there is and where each cartridge is; it is replaced as a whole, durably, at each move. The
lock is the operating system's and dies with its owner.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from capstan.core.generations import GENERATIONS, Generation, generation_of_barcode, is_worm_barcode, parse_generation
from capstan.core.ids import check_barcode, check_name
from capstan.errors import AlreadyExists, HomeDamaged, InvalidValue, NotFound, Refused
from capstan.process_lock import ProcessLock
from capstan.scsi.pages import ElementType
from capstan.scsi.virtual.cartridge import CartridgeFacts, VirtualCartridge
from capstan.scsi.virtual.changer import FIRST_DRIVE, FIRST_PORT, FIRST_SLOT, ROBOT, VirtualChanger
from capstan.scsi.virtual.drive import VirtualDrive
from capstan.scsi.virtual.element_status import ElementView
from capstan.scsi.virtual.faults import FaultPlan
from capstan.scsi.virtual.reservations import HostView
from capstan.scsi.virtual.storage import DiskStorage, Storage, load_json, replace_file
from capstan.scsi.virtual.target import VirtualTransport
from capstan.scsi.virtual.timing import Timing

MIN_CAPACITY = 4 << 20
_MAX_CAPACITY = 1 << 50
_MAX_ELEMENTS = 1000
_HINT = (
    "it says what lies in which slot: write it again, like that of another library; the cartridges are not concerned"
)
_NO_TAG = (0x53, 0x06)  # VOLUME IDENTIFIER MISSING
_CLEANINGS = 50  # uses of a cleaning cartridge (LTO Universal Cleaning Cartridge)


@dataclass(frozen=True, slots=True)
class LibrarySpec:
    """What to build. `capacity_bytes` None: the generation's native capacity."""

    name: str
    drives: int = 2
    slots: int = 24
    ports: int = 2
    cartridges: int = 12
    generation: str = "LTO-9"
    capacity_bytes: int | None = None
    barcode_prefix: str = "CAP"
    cleaning_cartridges: int = 1
    clean_every: int = 0  # data cartridges after which a drive asks to be cleaned; 0: never
    short_tags: bool = False  # the robot shows barcodes without the two characters that say what the cartridge is


@dataclass(slots=True)
class _Layout:
    """The content of library.json. `places`, `sources` and `uses` by element address; `clean_every`, `uses`: as of
    `Upkeep`. `put_in`: mail slots whose cartridge a person has put there; `unlabelled`: names of
    cartridges that no barcode is on."""

    name: str
    generation: int
    capacity_bytes: int
    drives: int
    slots: int
    ports: int
    places: dict[int, str] = field(default_factory=dict)
    sources: dict[int, int] = field(default_factory=dict)
    clean_every: int = 0
    uses: dict[int, int] = field(default_factory=dict)
    short_tags: bool = False
    put_in: list[int] = field(default_factory=list)
    unlabelled: list[str] = field(default_factory=list)

    def elements(self, kind: ElementType) -> range:
        first, count = {
            ElementType.TRANSPORT: (ROBOT, 1),
            ElementType.STORAGE: (FIRST_SLOT, self.slots),
            ElementType.IMPORT_EXPORT: (FIRST_PORT, self.ports),
            ElementType.DRIVE: (FIRST_DRIVE, self.drives),
        }[kind]
        return range(first, first + count)


class VirtualLibrary:
    """An open library; close it to let another process use it. Not thread-safe for moves; each drive has one user."""

    def __init__(
        self,
        folder: Path,
        layout: _Layout,
        lock: ProcessLock,
        faults: FaultPlan | None,
        timing: Timing,
        storage: Storage,
    ) -> None:
        self._folder = folder
        self._layout = layout
        self._lock = lock
        self._faults = faults
        self._timing = timing
        self._storage = storage
        self._changer = VirtualChanger(serial=f"{layout.name}-R", places=self, timing=timing)
        generation = GENERATIONS[layout.generation]
        self._drives = {
            element: VirtualDrive(
                generation=generation,
                serial=f"{layout.name}-D{index}",
                timing=timing,
                clean_every=layout.clean_every,
            )
            for index, element in enumerate(layout.elements(ElementType.DRIVE))
        }
        for element, drive in self._drives.items():
            barcode = layout.places.get(element)
            if barcode:
                drive.insert(VirtualCartridge.find(self._cartridges, barcode, storage), layout.uses.get(element, 0))

    @staticmethod
    def create(folder: Path, spec: LibrarySpec, *, storage: Storage | None = None) -> list[str]:
        """Build a library in `folder`, which must not hold one; return the barcodes. Durable when it returns.

        On failure no `library.json` is there, so `folder` counts as no library and `create` may be tried again.
        """
        storage = storage or DiskStorage()
        generation = _check(spec)
        if (folder / "library.json").exists():
            raise AlreadyExists(what="library", name=spec.name)
        cartridges = folder / "cartridges"
        cartridges.mkdir(parents=True, exist_ok=True)
        capacity = spec.capacity_bytes or generation.capacity_bytes
        layout = _Layout(spec.name, generation.number, capacity, spec.drives, spec.slots, spec.ports)
        layout.clean_every, layout.short_tags = spec.clean_every, spec.short_tags
        barcodes = barcodes_of(spec)
        cleaning = [f"CLN{number:03d}{generation.suffix}" for number in range(1, spec.cleaning_cartridges + 1)]
        for slot, barcode in zip(layout.elements(ElementType.STORAGE), barcodes + cleaning, strict=False):
            facts = CartridgeFacts(barcode, generation.number, capacity)
            if barcode in cleaning:
                facts.cleaning, facts.cleanings = True, _CLEANINGS
            VirtualCartridge.create(cartridges, facts, storage)
            layout.places[slot] = barcode
        _save(folder, layout, storage)
        return barcodes

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        faults: FaultPlan | None = None,
        timing: Timing | None = None,
        storage: Storage | None = None,
    ) -> VirtualLibrary:
        """Power it on. InUse (with the owner's pid) when another process has it; NotFound; HomeDamaged."""
        layout = _load(folder)
        lock = ProcessLock(folder / "lock", f"library {layout.name}")
        lock.acquire()
        try:
            layout = _load(folder)  # the last owner may have moved something until it let go
            return cls(folder, layout, lock, faults, timing or Timing(), storage or DiskStorage())
        except BaseException:
            lock.release()
            raise

    @property
    def name(self) -> str:
        return self._layout.name

    @property
    def generation(self) -> Generation:
        return GENERATIONS[self._layout.generation]

    @property
    def _cartridges(self) -> Path:
        return self._folder / "cartridges"

    @property
    def drive_count(self) -> int:
        return self._layout.drives

    def changer_transport(self) -> VirtualTransport:
        """A path to the robot."""
        return VirtualTransport(f"virtual:{self.name}", "changer", self._changer, self._faults, lambda: None)

    def drive_transport(self, index: int, host: str = "") -> VirtualTransport:
        """A path to drive `index`, from 0, for one of the hosts that the drive tells apart in its reservations."""
        drive = self._drives[FIRST_DRIVE + index]
        view = HostView(drive, drive.reservations, host)
        return VirtualTransport(f"virtual:{self.name}/{index}", f"drive{index}", view, self._faults, lambda: None)

    def close(self) -> None:
        """Power it off and let go of the lock. Twice is harmless."""
        for drive in self._drives.values():
            drive.close()
        self._lock.release()

    # ── what a person does ────────────────────────────────────────────────────────────────────────────

    def capacity_of(self, barcode: str) -> int:
        """Bytes that a cartridge holds, as printed on its box."""
        whole = next((name for name in self._layout.places.values() if self._tag(name) == barcode), barcode)
        return VirtualCartridge.find(self._cartridges, whole, self._storage).facts.capacity_bytes

    def insert_into_port(
        self, barcode: str, *, worm: bool = False, capacity_bytes: int | None = None, unlabelled: bool = False
    ) -> int:
        """Put a cartridge into a free mail slot: one that was taken out before, or a new blank one, of the generation
        that its barcode says, or the library's. `unlabelled`: `barcode` is on no sticker, and only names its files.
        Returns the element address. Refused when the slots are full or the door is locked."""
        check_barcode(barcode)
        if self._changer.locked:
            raise Refused(reason="the mail slots are locked")
        if barcode in self._layout.places.values():
            raise AlreadyExists(what="cartridge", name=barcode)
        free = [port for port in self.elements(ElementType.IMPORT_EXPORT) if not self.occupied(port)]
        if not free:
            raise Refused(reason="all mail slots are full")
        if not (self._cartridges / f"{barcode}.json").exists():
            medium = generation_of_barcode(barcode) or self.generation
            capacity = capacity_bytes or self._layout.capacity_bytes
            facts = CartridgeFacts(barcode, medium.number, capacity, worm=worm or is_worm_barcode(barcode))
            facts.type_m = medium.type_m
            self._layout.unlabelled += [barcode] * unlabelled
            VirtualCartridge.create(self._cartridges, facts, self._storage)
        self._layout.places[free[0]] = barcode
        self._layout.put_in.append(free[0])
        _save(self._folder, self._layout, self._storage)
        self._changer.mail_slot_used()
        return free[0]

    def take_from_port(self, element: int) -> str:
        """Take the cartridge out of a mail slot; its files stay in the folder, as on a shelf. Returns its barcode."""
        if element not in self.elements(ElementType.IMPORT_EXPORT) or not self.occupied(element):
            raise NotFound(what="cartridge in mail slot", name=element)
        if self._changer.locked:
            raise Refused(reason="the mail slots are locked")
        barcode = self._layout.places.pop(element)
        self._layout.sources.pop(element, None)
        self._layout.put_in = [port for port in self._layout.put_in if port != element]
        _save(self._folder, self._layout, self._storage)
        self._changer.mail_slot_used()
        return barcode

    def use_door(self, *, opened: bool) -> None:
        """Open the door, or close it. Refused while it is locked. The robot stands still while it is open."""
        if opened and self._changer.locked:
            raise Refused(reason="the door is locked")
        self._changer.door_used(opened=opened)

    def carry(self, source: int, destination: int) -> None:
        """Move a cartridge by hand, from one slot to another. Refused while the door is closed."""
        slots = self.elements(ElementType.STORAGE)
        if not self._changer.door_open or source not in slots or destination not in slots:
            raise Refused(reason="a hand reaches the slots, and only while the door is open")
        self.move(source, destination)
        self._layout.sources.pop(destination, None)
        _save(self._folder, self._layout, self._storage)

    def block(self, element: int, code: tuple[int, int] | None) -> None:
        """Something keeps the robot from an element: it says why, by an additional sense code; None: it is gone."""
        if code is None:
            self._changer.blocked.pop(element, None)
        else:
            self._changer.blocked[element] = code

    def set_write_protected(self, barcode: str, *, protected: bool) -> None:
        """Slide the tab of a cartridge; Refused while it is in a drive."""
        if any(self._layout.places.get(element) == barcode for element in self._drives):
            raise Refused(reason=f"cartridge {barcode} is in a drive")
        cartridge = VirtualCartridge.find(self._cartridges, barcode, self._storage)
        cartridge.facts.write_protected = protected
        cartridge.save()

    # ── what the robot asks (changer.Places) ──────────────────────────────────────────────────────────

    def elements(self, kind: ElementType) -> range:
        return self._layout.elements(kind)

    def occupied(self, element: int) -> bool:
        return element in self._layout.places

    def view(self, kind: ElementType, element: int) -> ElementView:
        view = ElementView(element, source=self._layout.sources.get(element))
        if kind is ElementType.DRIVE:
            view.serial, view.accessible = self._drives[element].serial, not self.threaded(element)
        barcode = self._layout.places.get(element)
        if barcode:
            view.full, view.put_in = True, element in self._layout.put_in
            view.cleaning, view.worm = barcode.startswith("CLN"), is_worm_barcode(barcode)
            view.tag = self._tag(barcode)
            view.code = (0, 0) if view.tag else _NO_TAG
        return view

    def _tag(self, barcode: str) -> str:
        """The barcode as the robot shows it."""
        if barcode in self._layout.unlabelled:
            return ""
        return barcode[:-2] if self._layout.short_tags and generation_of_barcode(barcode) else barcode

    def threaded(self, element: int) -> bool:
        return element in self._drives and self._drives[element].threaded

    def move(self, source: int, destination: int) -> None:
        """Move a cartridge and make that durable. OSError, HomeDamaged: nothing has moved."""
        if source == destination:
            return
        places, sources = self._layout.places, self._layout.sources
        in_slot = source not in self._drives
        # Before anything moves: a cartridge whose sidecar cannot be read stays where it harms nobody.
        cartridge = VirtualCartridge.find(self._cartridges, places[source], self._storage) if in_slot else None
        after = _Layout(**{**asdict(self._layout), "places": dict(places), "sources": dict(sources)})
        after.places[destination] = after.places.pop(source)
        after.sources.pop(source, None)
        after.sources[destination] = source
        after.put_in = [port for port in after.put_in if port not in (source, destination)]
        if cartridge is not None and destination in self._drives:
            after.uses = {**after.uses, destination: self._use(cartridge, destination)}
        _save(self._folder, after, self._storage)
        self._layout = after
        if cartridge is None:
            cartridge = self._drives[source].take()
        if destination in self._drives:
            self._drives[destination].insert(cartridge, after.uses.get(destination, 0))
            if cartridge.facts.cleanings:
                cartridge.facts.cleanings -= 1
                with suppress(OSError):  # it has moved, and one use more harms nobody
                    cartridge.save()

    def _use(self, cartridge: VirtualCartridge, element: int) -> int:
        """How many cartridges a drive has used since it was cleaned, with this one."""
        if not cartridge.facts.cleaning:
            return self._layout.uses.get(element, 0) + 1
        return 0 if cartridge.facts.cleanings else self._layout.uses.get(element, 0)


def barcodes_of(spec: LibrarySpec) -> list[str]:
    """The barcodes of the data cartridges of a new library. InvalidValue when it cannot be built."""
    generation = _check(spec)
    return [_barcode(spec.barcode_prefix, number, generation) for number in range(1, spec.cartridges + 1)]


def _barcode(prefix: str, number: int, generation: Generation) -> str:
    return check_barcode(f"{prefix}{number:03d}{generation.suffix}")


def _check(spec: LibrarySpec) -> Generation:
    _check_counts(spec)
    if spec.cartridges < 0 or spec.cartridges + spec.cleaning_cartridges > spec.slots:
        raise InvalidValue(what="cartridges", value=spec.cartridges, reason=f"the library has {spec.slots} slots")
    if spec.capacity_bytes is not None and not MIN_CAPACITY <= spec.capacity_bytes <= _MAX_CAPACITY:
        raise InvalidValue(what="capacity", value=spec.capacity_bytes, reason="use 4 MiB to 1 PiB")
    generation = parse_generation(spec.generation)
    if spec.barcode_prefix.startswith("CLN"):
        raise InvalidValue(what="barcode prefix", value=spec.barcode_prefix, reason="cleaning cartridges have it")
    _barcode(spec.barcode_prefix, max(spec.cartridges, 1), generation)
    return generation


def _check_counts(of: LibrarySpec | _Layout) -> None:
    for what, count, least in (("drives", of.drives, 1), ("slots", of.slots, 1), ("ports", of.ports, 0)):
        limit = {"drives": FIRST_PORT - FIRST_DRIVE, "ports": 100}.get(what, _MAX_ELEMENTS * 60)
        if not least <= count <= limit:
            raise InvalidValue(what=what, value=count, reason=f"use {least} to {limit}")


def _save(folder: Path, layout: _Layout, storage: Storage) -> None:
    replace_file(storage, folder / "library.json", json.dumps(asdict(layout), indent=1).encode())


def _load(folder: Path) -> _Layout:
    path = folder / "library.json"
    try:
        layout = load_json(_Layout, path, hint=_HINT)
    except FileNotFoundError:
        hint = "is a disk not mounted? capstan.toml says where the library is"
        raise NotFound(what="virtual library in", name=str(folder), hint=hint) from None
    try:
        _check_layout(layout)
    except InvalidValue as error:
        raise HomeDamaged(path=path, reason=str(error), hint=_HINT) from None
    return layout


def _check_layout(layout: _Layout) -> None:
    """InvalidValue when there can be no such library."""
    check_name("library", layout.name)
    _check_counts(layout)
    if layout.generation not in GENERATIONS:
        raise InvalidValue(what="generation", value=layout.generation, reason="use 5 to 10")
    elements = {element for kind in ElementType if kind is not ElementType.ALL for element in layout.elements(kind)}
    seen: set[str] = set()
    for element, barcode in layout.places.items():
        if element not in elements:
            raise InvalidValue(what="place", value=element, reason="there is no such element")
        if check_barcode(barcode) in seen:
            raise InvalidValue(what="barcode", value=barcode, reason="it is in two places")
        seen.add(barcode)
    for element in {*layout.sources, *layout.sources.values()} - elements:
        raise InvalidValue(what="source", value=element, reason="there is no such element")
