"""What other packages add: codecs, containers and transports, found by the entry points of what is installed.

Those of Capstan itself are found first, so that no plugin can take the place of what tapes are written with.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any

from capstan.errors import Refused


def find_plugin(group: str, name: str) -> Any | None:
    """The object that an installed package offers as `name` in `group`; None when there is none.

    Raises Refused when there is one and it cannot be loaded, or when two packages offer the same name.
    """
    found = list(entry_points(group=group, name=name))
    if not found:
        return None
    owners = sorted({point.dist.name for point in found if point.dist})
    if len(found) > 1:
        reason = f"{' and '.join(owners)} both offer {name} as one of {group}"
        raise Refused(reason=reason, hint="uninstall all but one of them")
    try:
        return found[0].load()
    except (ImportError, AttributeError) as error:
        reason = f"the plugin {name} of {', '.join(owners)} cannot be loaded: {error}"
        raise Refused(reason=reason, hint="install it again, in a version for this Capstan") from error


def plugin_names(group: str) -> list[str]:
    """What installed packages offer in `group`."""
    return sorted(entry_points(group=group).names)
