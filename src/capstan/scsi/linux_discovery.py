"""Which tape drives and media changers Linux knows: what sysfs says of the devices of its `sg` driver.

No device is opened, and none is disturbed, but to see whether this user may open it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from capstan.scsi.found_devices import CHANGER, TAPE, FoundDevice
from capstan.scsi.linux_sg import SCHEME
from capstan.scsi.pages import InquiryData

_SYS, _DEV, _PROC = Path("/sys"), Path("/dev"), Path("/proc")
_SERIAL_AT = 4  # in VPD page 80h (SPC-5, 7.7.17)


def find_devices() -> list[FoundDevice]:
    """All tape drives, then all changers, each by number. Numbers change when devices come and go: serial numbers, and
    the names below /dev/tape/by-id, stay."""
    found = []
    holders = _holders()
    for kind in (TAPE, CHANGER):
        for generic in sorted((_SYS / "class/scsi_generic").glob("sg*"), key=lambda path: int(path.name[2:])):
            device = generic / "device"
            if _text(device / "type") == str(kind):
                found.append(_describe(generic.name, device, kind, holders))
    return found


def what_is_missing() -> str:
    """Why nothing at all may have been found; empty when the kernel has what it takes."""
    if not (_SYS / "class/scsi_generic").is_dir():
        return "the kernel's module sg is not loaded: modprobe sg"
    return ""


def _describe(name: str, device: Path, kind: int, holders: dict[str, set[str]]) -> FoundDevice:
    node = _DEV / name
    tapes = sorted(path.name for path in (device / "scsi_tape").glob("nst*") if path.name[3:].isdigit())
    robots = sorted(path.name for path in (device / "scsi_changer").glob("*"))
    kernel = {name, *tapes, *_rewinding(tapes), *robots}
    stable = sorted(str(link) for link in _links() if link.resolve().name in kernel)
    using = {user for each in kernel for user in holders.get(f"{_DEV}/{each}", ())}
    inquiry = InquiryData(kind, _text(device / "vendor"), _text(device / "model"), _text(device / "rev"))
    return FoundDevice(
        address=f"{SCHEME}:{node}",
        inquiry=inquiry,
        serial=_serial(device),
        trouble=_trouble(node, using),
        names=(*(f"{_DEV}/{each}" for each in (*tapes, *robots)), *stable),
        holders=tuple(sorted(using)),
    )


def _rewinding(tapes: list[str]) -> list[str]:
    """Of the devices that do not rewind when they are closed, those that do."""
    return [tape[1:] for tape in tapes]


def _trouble(node: Path, holders: set[str]) -> str:
    if not node.exists():
        return f"{node} is not there: is udev running?"
    if not os.access(node, os.R_OK | os.W_OK):
        rule = 'SUBSYSTEM=="scsi_generic", ATTRS{type}=="1|8", GROUP="tape", MODE="0660"'
        return f"no permission: join the group that owns {node}, or add a udev rule: {rule}"
    return f"in use by {', '.join(sorted(holders))}" if holders else ""


def _links() -> Iterator[Path]:
    for folder in ("tape/by-id", "tape/by-path"):
        if (_DEV / folder).is_dir():
            yield from (_DEV / folder).iterdir()


def _serial(device: Path) -> str:
    try:
        return (device / "vpd_pg80").read_bytes()[_SERIAL_AT:].decode("ascii", "replace").strip("\0 ")
    except OSError:
        return ""


def _holders() -> dict[str, set[str]]:
    """Who has which device open; only of those processes that this user may look into."""
    found: dict[str, set[str]] = {}
    for process in _PROC.iterdir():
        if not process.name.isdecimal() or int(process.name) == os.getpid():
            continue
        try:
            for link in (process / "fd").iterdir():
                target = os.readlink(link)  # noqa: PTH115 (text)
                if target.startswith(("/dev/sg", "/dev/st", "/dev/nst", "/dev/sch")):
                    found.setdefault(target, set()).add(f"{_text(process / 'comm')} (pid {process.name})")
        except OSError:
            continue
    return found


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
