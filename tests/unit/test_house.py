"""Rules of the house that a machine can check; each says why in its message."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

import capstan.errors
from capstan.config.settings import Settings
from capstan.errors import CapstanError

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src" / "capstan").rglob("*.py"))
TREE = capstan.errors.__doc__ or ""


def names(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


def tracked() -> list[Path]:
    """Every file under version control; all files where there is no git."""
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        return [path for path in ROOT.rglob("*") if path.is_file() and ".venv" not in path.parts]
    return [ROOT / name for name in done.stdout.splitlines() if (ROOT / name).is_file()]


@pytest.mark.parametrize("path", SOURCES, ids=names(SOURCES))
def test_modules_are_small_and_say_what_they_are(path: Path) -> None:
    """Under 400 lines, so that a module can be read at once; a docstring in each; only that in `__init__`."""
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 400, "split it: one public concept for each module"
    module = ast.parse(text)
    assert ast.get_docstring(module), "say what the module is for, and what always holds in it"
    if path.name == "__init__.py" and path.parent.name != "capstan":
        assert len(module.body) == 1, "__init__ modules hold a docstring and no code"
    assert path.stem not in ("utils", "common", "helper", "helpers", "misc"), "name it after what it does"


@pytest.mark.parametrize("path", SOURCES, ids=names(SOURCES))
def test_public_classes_have_a_docstring(path: Path) -> None:
    """A class that others use says what it promises (tables of the database say it in their module)."""
    if path.parent.name == "models":
        return
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_") and not _is_error(node):
            assert ast.get_docstring(node) or path.stem == "catalog", f"{node.name} has no docstring"


def _is_error(node: ast.ClassDef) -> bool:
    return hasattr(capstan.errors, node.name)


def test_every_error_is_in_the_tree_and_has_a_code_of_its_own() -> None:
    """The tree at the top of errors.py is whole; programs tell errors apart by their code."""
    classes = [
        value for value in vars(capstan.errors).values() if isinstance(value, type) and issubclass(value, CapstanError)
    ]
    assert [cls.__name__ for cls in classes if not re.search(rf"\b{cls.__name__}\b", TREE)] == []
    codes = [cls.code for cls in classes]
    assert sorted(code for code in set(codes) if codes.count(code) > 1) == []


def test_nothing_speaks_of_this_machine_or_is_left_undone() -> None:
    """No path of a machine, no registry's address, no reminder of work that was left undone."""
    words = [
        f"/{'root'}/",
        f"/{'work'}/(main|shared)",
        rf"{'pypi'}\.org",
        f"{'python'}hosted",
        r"\bTODO\b",
        r"\bFIXME\b",
    ]
    words.append("raise NotImplementedError")
    pattern = re.compile("|".join(words))
    found = []
    for path in tracked():
        if path.suffix in (".py", ".md", ".toml", ".lock", ".sh", "") and path != Path(__file__):
            for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
                if pattern.search(line):
                    found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}")
    assert found == []


def test_the_two_readmes_go_together() -> None:
    """Both languages have the same sections and name the two commands that a stranger needs."""
    texts = [(ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh-CN.md")]
    assert texts[0].count("\n## ") == texts[1].count("\n## ")
    for text in texts:
        assert "make demo" in text
        assert "make test" in text


def test_every_setting_is_documented() -> None:
    """docs/operations.md lists each key with its default."""
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    settings = Settings()
    for section in ("archive", "engine"):
        for key, value in getattr(settings, section).model_dump().items():
            shown = f"{value:g}" if isinstance(value, float) else str(value)
            assert f"| `{section}.{key}` | `{shown}` |" in text


def test_links_between_documents_lead_somewhere() -> None:
    """Every relative link in the Markdown files names a file that is there."""
    broken = [
        f"{path.relative_to(ROOT)} → {target}"
        for path in tracked()
        if path.suffix == ".md"
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text(encoding="utf-8"))
        if not (path.parent / target).exists()
    ]
    assert broken == []
