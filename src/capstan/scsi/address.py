r"""Which transport an address means: `sg:/dev/sg3`, `spti:\\.\Tape0`, `iscsi:HOST/IQN/LUN`, or one of another package.

A package adds a scheme with an entry point in the group `capstan.transports`: a function that takes what stands behind
the colon, and returns an open `ScsiTransport`, or raises TransportError.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module

from capstan.errors import InvalidValue
from capstan.plugins import find_plugin, plugin_names
from capstan.scsi.transport import ScsiTransport

GROUP = "capstan.transports"
OpenTransport = Callable[[str], ScsiTransport]

# Imported when they are asked for: each needs an operating system, or a library, that is not everywhere.
_OWN = {
    "iscsi": ("capstan.scsi.iscsi", "IscsiTransport", ""),
    "sg": ("capstan.scsi.linux_sg", "open_sg", "linux"),
    "spti": ("capstan.scsi.windows_spti", "SptiTransport", "win32"),
}


def schemes() -> list[str]:
    """What addresses may begin with here."""
    return sorted(
        {*(scheme for scheme, (_, _, system) in _OWN.items() if system in ("", sys.platform))}
    ) + plugin_names(GROUP)


def check_address(address: str) -> str:
    """InvalidValue for what cannot be an address anywhere; whether there is such a transport here is not asked."""
    scheme, colon, rest = address.partition(":")
    if not (scheme and colon and rest):
        raise InvalidValue(what="address", value=address, reason=_known())
    return address


def open_transport(address: str) -> ScsiTransport:
    """Open the path to a device. InvalidValue; TransportError(NOT_DELIVERED)."""
    open_it, rest = _find(address)
    return open_it(rest)


def _find(address: str) -> tuple[OpenTransport, str]:
    scheme, _, rest = check_address(address).partition(":")
    if scheme in _OWN:
        module, name, system = _OWN[scheme]
        if system not in ("", sys.platform):
            reason = f"there is no {scheme} on this system; {_known()}"
            raise InvalidValue(what="address", value=address, reason=reason)
        found: OpenTransport = getattr(import_module(module), name)
        return found, rest
    plugin: OpenTransport | None = find_plugin(GROUP, scheme)
    if plugin is None:
        raise InvalidValue(what="address", value=address, reason=_known())
    return plugin, rest


def _known() -> str:
    return f"an address begins with {', '.join(f'{name}:' for name in schemes())}"
