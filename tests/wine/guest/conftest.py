"""What Wine has not got of what Windows has."""

from __future__ import annotations

import shutil

import pytest


@pytest.fixture(autouse=True)
def copies_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wine 8 ends a program that calls CopyFile2; without it Python copies piece by piece."""
    monkeypatch.delattr(shutil._winapi, "CopyFile2", raising=False)  # type: ignore[attr-defined]
