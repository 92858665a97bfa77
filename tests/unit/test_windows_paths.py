"""Paths of Windows and stored paths, on any system."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capstan.windows_paths import fit_name, native_path, shown_path, stored_path


@pytest.mark.parametrize(
    ("native", "stored", "long", "shown"),
    [
        (r"c:\Users\x", b"C/Users/x", r"\\?\C:\Users\x", r"C:\Users\x"),
        ("C:/Users//x/", b"C/Users/x", r"\\?\C:\Users\x", r"C:\Users\x"),
        ("D:\\", b"D", "\\\\?\\D:\\", "D:\\"),
        (r"\\?\C:\long", b"C/long", r"\\?\C:\long", r"C:\long"),
        (r"\\server\share\a b", b"UNC/server/share/a b", r"\\?\UNC\server\share\a b", r"\\server\share\a b"),
        (r"\\?\UNC\server\share", b"UNC/server/share", "\\\\?\\UNC\\server\\share\\", "\\\\server\\share\\"),
        (r"\\?\Volume{1a-2b}\x", b"Volume{1a-2b}/x", r"\\?\Volume{1a-2b}\x", r"Volume{1a-2b}\x"),
        ("C:\\\ud800", b"C/\xed\xa0\x80", "\\\\?\\C:\\\ud800", r"C:\\ud800"),
    ],
)
def test_both_ways(native: str, stored: bytes, long: str, shown: str) -> None:
    """Drives, shares and volumes have a first component of their own, and no path is too long."""
    assert (stored_path(native), native_path(stored), shown_path(stored)) == (stored, long, shown)


@pytest.mark.parametrize("native", ["x", r"\x", r"C:x\y", r"\\.\Tape0", ""])
def test_what_is_not_absolute(native: str) -> None:
    """It has no stored path."""
    with pytest.raises(ValueError, match="not an absolute path"):
        stored_path(native)


def test_above_the_drives() -> None:
    """There are stored paths that no path of Windows has; they are directories all the same."""
    assert [native_path(path) for path in (b"", b"UNC", b"UNC/server")] == [None] * 3


@pytest.mark.parametrize("stored", [b"srv/data", b"C/../x", b"C/a:b", b"C/a\\b", b"C/\xff", b"C//x", b"C/*"])
def test_what_leads_nowhere(stored: bytes) -> None:
    """A path that Windows cannot have is one where nothing is; none leads out of its directory, or to a stream."""
    with pytest.raises(FileNotFoundError):
        native_path(stored)


@given(st.binary(min_size=1, max_size=20).filter(lambda name: b"/" not in name and b"\0" not in name))
def test_fitted_names_fit(name: bytes) -> None:
    """Whatever bytes a name has, what is made of it can be a name; and fitting it again changes nothing."""
    fitted = fit_name(name)
    if name not in (b".", b".."):
        assert native_path(b"C/" + fitted) is not None
        assert not re.search(rb'["*:<>?\\|\x00-\x1f]|[. ]$', fitted)
    assert fit_name(fitted) == fitted


@pytest.mark.parametrize("name", [b"100%.txt", "grün.txt".encode(), b"console", b"a b", b".profile", b"\xed\xa0\x80"])
def test_names_that_fit_stay(name: bytes) -> None:
    """Nothing is changed that need not be."""
    assert fit_name(name) == name


@pytest.mark.parametrize("name", [b"con", b"NUL.tar.gz", b"com1", b"LPT9.x", "COM¹".encode()])
def test_names_of_devices(name: bytes) -> None:
    """What Windows would take for a device becomes a file's name."""
    assert fit_name(name).startswith(b"%")
