"""A folder with a virtual library as a real one: `folder:PATH` is its changer, `folder:PATH/0` its first drive."""

from __future__ import annotations

from pathlib import Path

from capstan.errors import Delivery, TransportError
from capstan.scsi.transport import Command, Completion, ScsiTransport
from capstan.scsi.virtual.library import VirtualLibrary

_open: dict[Path, tuple[VirtualLibrary, set[_Unit]]] = {}


class _Unit:
    """A `ScsiTransport` that keeps its library open while it is."""

    def __init__(self, folder: Path, inner: ScsiTransport) -> None:
        self._folder = folder
        self._inner = inner
        self.address = inner.address
        self.limits = inner.limits
        _open[folder][1].add(self)

    def execute(self, command: Command) -> Completion:
        return self._inner.execute(command)

    def close(self) -> None:
        self._inner.close()
        library, users = _open.get(self._folder, (None, set()))
        users.discard(self)
        if library is not None and not users:
            del _open[self._folder]
            library.close()


def open_folder(place: str) -> ScsiTransport:
    """The unit at `PATH` or `PATH/NUMBER`. TransportError."""
    path = Path(place)
    number = int(path.name) if path.name.isdecimal() else None
    folder = path if number is None else path.parent
    if folder not in _open:
        if not (folder / "library.json").exists():
            address = f"folder:{place}"
            raise TransportError(delivery=Delivery.NOT_DELIVERED, address=address, reason="there is no library")
        _open[folder] = VirtualLibrary.open(folder), set()
    library = _open[folder][0]
    return _Unit(folder, library.changer_transport() if number is None else library.drive_transport(number))
