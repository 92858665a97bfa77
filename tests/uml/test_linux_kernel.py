"""On a real Linux kernel, which Capstan serves its virtual library to: its own `sg` transport, and programs that nobody
here wrote, use that library as they would use any other."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from kernel import run_on_kernel

pytestmark = [
    pytest.mark.slow,
    pytest.mark.requires(
        "linux.uml", "modprobe", "ip", "lsscsi", "sg_inq", "mtx", "mt-st", "btape", "bacula-dir", "root"
    ),
]

GUEST = Path(__file__).parent / "guest"
SOURCE = Path(__file__).parents[2] / "src"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> ElementTree.Element:
    """What became of each test of the guest: one boot for all."""
    folder = tmp_path_factory.mktemp("guest")
    options = "-q -p no:cacheprovider -p no:xdist -p no:hypothesispytest -c /dev/null --basetemp=/run/tests"
    command = (
        f"PYTHONDONTWRITEBYTECODE=1 PYTHONPATH={SOURCE} {sys.executable} -m pytest {options} --rootdir={GUEST}"
        f" --confcutdir={GUEST} --junitxml={folder}/results.xml {GUEST}"
    )
    ended = run_on_kernel(command, folder, seconds=600)
    assert (folder / "results.xml").exists(), f"{ended.status}\n{ended.output[-6000:]}\n{ended.errors[-6000:]}"
    return ElementTree.parse(folder / "results.xml").getroot()


@pytest.mark.parametrize("module", sorted(path.stem for path in GUEST.glob("test_*.py")))
def test_on_a_real_kernel(results: ElementTree.Element, module: str) -> None:
    """Every test of that module has passed, or is skipped for what the drive says that it lacks."""
    cases = [case for case in results.iter("testcase") if module in case.get("classname", "").split(".")]
    assert cases
    wrong = [
        f"{case.get('name')}: {(part.text or part.get('message') or '')[-3000:]}"
        for case in cases
        for part in case
        if part.tag in ("failure", "error")
    ]
    assert not wrong, "\n".join(wrong)
