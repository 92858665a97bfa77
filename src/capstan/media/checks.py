"""What must hold before a cartridge is used. Pure rules."""

from __future__ import annotations

from capstan.core.media import Cartridge, CartridgeState
from capstan.errors import Refused, WrongCartridge
from capstan.format.label import Label


def check_label(cartridge: Cartridge, label: Label) -> None:
    """WrongCartridge when the label that was read is not that of the cartridge that the catalog knows."""
    if label.barcode != cartridge.barcode:
        raise WrongCartridge(barcode=cartridge.barcode, label=label.barcode, expected=cartridge.barcode)
    if cartridge.uuid and label.uuid != cartridge.uuid:
        raise WrongCartridge(barcode=cartridge.barcode, label=label.uuid, expected=cartridge.uuid)


def check_erasable(cartridge: Cartridge) -> None:
    """Refused for cartridges that must not be written to by anyone."""
    if cartridge.state is CartridgeState.CLEANING:
        raise Refused(reason=f"{cartridge.barcode} is a cleaning cartridge")
