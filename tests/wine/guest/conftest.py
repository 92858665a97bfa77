"""What Wine has not got of what Windows has."""

from __future__ import annotations

import shutil

import pytest

_CLASSES = r"SYSTEM\CurrentControlSet\Control\DeviceClasses"
_ENUM = r"SYSTEM\CurrentControlSet\Enum\ROOT\CAPSTAN"
_TAPE, _CHANGER = "{53f5630b-b6bf-11d0-94f2-00a0c91efb8b}", "{53f56310-b6bf-11d0-94f2-00a0c91efb8b}"


@pytest.fixture(autouse=True)
def copies_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wine 8 ends a program that calls CopyFile2; without it Python copies piece by piece."""
    monkeypatch.delattr(shutil._winapi, "CopyFile2", raising=False)  # type: ignore[attr-defined]


@pytest.fixture
def registered() -> None:
    """Two drives and a changer, as a driver of Windows would register them: Wine has no tape class driver."""
    import winreg

    for number, guid in (("0000", _TAPE), ("0001", _TAPE), ("0002", _CHANGER)):
        instance = rf"ROOT\CAPSTAN\{number}"
        with winreg.CreateKey(winreg.HKEY_LOCAL_MACHINE, rf"{_ENUM}\{number}") as key:
            winreg.SetValueEx(key, "ClassGUID", 0, winreg.REG_SZ, guid)
        link = rf"##?#ROOT#CAPSTAN#{number}#{guid}"
        with winreg.CreateKey(winreg.HKEY_LOCAL_MACHINE, rf"{_CLASSES}\{guid}\{link}") as key:
            winreg.SetValueEx(key, "DeviceInstance", 0, winreg.REG_SZ, instance)
        with winreg.CreateKey(winreg.HKEY_LOCAL_MACHINE, rf"{_CLASSES}\{guid}\{link}\#") as key:
            winreg.SetValueEx(key, "SymbolicLink", 0, winreg.REG_SZ, link.replace("##?#", "\\\\?\\"))
        with winreg.CreateKey(winreg.HKEY_LOCAL_MACHINE, rf"{_CLASSES}\{guid}\{link}\#\Control") as key:
            winreg.SetValueEx(key, "Linked", 0, winreg.REG_DWORD, 1)
