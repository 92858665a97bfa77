"""`capstan discover`: the drives and changers of this machine, which belongs to which, and what is wrong with any."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from capstan.core.generations import generation_of_density
from capstan.errors import CapstanError
from capstan.scsi.address import open_transport
from capstan.scsi.found_devices import CHANGER, FoundDevice
from capstan.scsi.transport import ScsiTransport
from capstan.tape.scsi_changer import ScsiMediaChanger
from capstan.tape.scsi_drive import ScsiTapeDrive


@dataclass(slots=True)
class Discovered:
    """One device. `element` and `changer`: of a drive that a changer says it has. `state`: what is in a drive, or what
    a changer has. `lacks`: what a drive cannot do that others can, and what Capstan does without it."""

    address: str
    kind: str
    product: str
    serial: str
    firmware: str = ""
    names: list[str] = field(default_factory=list)
    generation: str = ""
    state: str = ""
    trouble: str = ""
    changer: str = ""
    element: int | None = None
    lacks: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def discover(open_device: Callable[[str], ScsiTransport] = open_transport) -> list[Discovered]:
    """Everything that is there, also what cannot be opened. Nothing is moved; a device that another program uses is not
    asked."""
    found = [_ask(device, open_device) for device in _found()]
    serials: dict[str, tuple[str, int]] = {}
    for device, elements in found:
        serials |= {serial: (device.address, element) for element, serial in elements.items()}
    for device, _ in found:
        at = next(
            (place for serial, place in serials.items() if device.serial and serial.endswith(device.serial)), None
        )
        if at is not None and device.kind == "drive":
            device.changer, device.element = at
    return [device for device, _ in found]


def _found() -> list[FoundDevice]:
    if sys.platform == "win32":
        from capstan.scsi import windows_discovery

        return windows_discovery.find_devices()
    from capstan.scsi import linux_discovery

    return linux_discovery.find_devices()


def _ask(device: FoundDevice, open_device: Callable[[str], ScsiTransport]) -> tuple[Discovered, dict[int, str]]:
    """What a device says, and of a changer the serial numbers of its drives by their elements."""
    inquiry = device.inquiry
    told = Discovered(
        address=device.address,
        kind="changer" if inquiry is not None and inquiry.device_type == CHANGER else "drive",
        product=f"{inquiry.vendor} {inquiry.product}".strip() if inquiry else "",
        serial=device.serial,
        firmware=inquiry.revision if inquiry else "",
        names=list(device.names),
        trouble=device.trouble,
    )
    if device.trouble or inquiry is None:
        return told, {}
    try:
        transport = open_device(device.address)
        try:
            return told, _changer(told, transport) if told.kind == "changer" else _drive(told, transport)
        finally:
            transport.close()
    except CapstanError as error:
        told.trouble = f"{error}; {error.hint_text}" if error.hint_text else str(error)
        return told, {}


def _changer(told: Discovered, transport: ScsiTransport) -> dict[int, str]:
    inventory = ScsiMediaChanger(transport).inventory()
    full = sum(element.full for element in inventory)
    told.state = f"{len(inventory.drives)} drives, {len(inventory.slots)} slots, {len(inventory.ports)} mail slots"
    told.state += f", {full} cartridges"
    return {element.place.element: element.drive_serial for element in inventory.drives if element.drive_serial}


def _drive(told: Discovered, transport: ScsiTransport) -> dict[int, str]:
    drive = ScsiTapeDrive(transport)
    status = drive.status()
    told.serial = told.serial or drive.identity.serial
    able = drive.capabilities
    told.generation = able.writes[-1] if able.writes else ""
    cartridge = generation_of_density(status.density)
    told.state = f"loaded: {cartridge.name}" if cartridge else "loaded" if status.loaded else "empty"
    if status.loaded and status.write_protected:
        told.state += ", write-protected"
    lacking = {
        "no log pages: no counters, no TapeAlerts": not able.log_sense,
        "no cartridge memory": not able.attributes,
        "no reservation against other hosts": not able.reservations,
        "no block protection": not able.block_protection,
        "no encryption": not able.encryption,
        f"records of at most {able.max_block >> 10} KiB": able.max_block < 1 << 20,
    }
    told.lacks = [what for what, lacks in lacking.items() if lacks]
    return {}
