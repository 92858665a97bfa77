"""Names in archives: what each becomes, and what happens where two would be the same."""

from __future__ import annotations

import pytest

from capstan.format.member_names import MemberNames, escape


@pytest.mark.parametrize(
    ("component", "name"),
    [
        (b"plain name.txt", "plain name.txt"),
        ("übung 日本".encode(), "übung 日本"),
        (b'a:b?c*d"e<f>g|h\\i%j', "a%3Ab%3Fc%2Ad%22e%3Cf%3Eg%7Ch%5Ci%25j"),
        (b"\xff\n\x7f", "%FF%0A%7F"),
        (b"dot.", "dot%2E"),
        (b"blank ", "blank%20"),
        (b"...", "..%2E"),
        (b"con", "%63on"),
        (b"COM1.log", "%43OM1.log"),
        (b"console", "console"),
        (b"com0x", "com0x"),
    ],
)
def test_escaping(component: bytes, name: str) -> None:
    """Only what some system cannot hold is changed."""
    assert escape(component) == name


def test_long_names() -> None:
    """A component that would be too long keeps its beginning and its end."""
    name = escape(b"\xff" * 100 + b"x" * 100 + b".tar.gz")
    assert len(name) <= 200
    assert name.startswith("%FF%FF")
    assert name.endswith("x.tar.gz")


def test_names_that_meet() -> None:
    """Other case is the same name; a file is never called like a folder, whichever came first; parts and `.sparse` stay
    at the end; the members that Capstan adds keep their names."""
    names = MemberNames()
    assert names.reserve(".capstan/0.table") == ".capstan/0.table"
    assert names.name(b"a/Read") == "a/Read"
    assert names.name(b"a/read") == "a/read~2"
    assert names.name(b"A/READ") == "A/READ~3"
    assert names.name(b"a") == "a~2"
    assert names.name(b"a~2/x") == "a~2~2/x"
    assert names.name(b"a~2/y") == "a~2~2/y"
    assert names.name(b".capstan") == ".capstan~2"
    assert names.name(b".capstan/0.TABLE") == ".capstan/0.TABLE~2"
    assert names.name(b"big", part=1) == "big.part001"
    assert names.name(b"big", part=1) == "big~2.part001"
    assert names.name(b"vm", sparse=True) == "vm.sparse"
    assert names.name(b"vm", sparse=True, part=12) == "vm.sparse.part012"


def test_deep_folders() -> None:
    """What lies deeper than a path can be is in a folder of its own, the same for all files in it."""
    names = MemberNames()
    folder = b"/".join([b"f" * 190] * 30)
    one, other = names.name(folder + b"/one"), names.name(folder + b"/other")
    assert one.startswith(".capstan/deep/")
    assert one.rpartition("/")[0] == other.rpartition("/")[0]
    assert len(one) < 100
