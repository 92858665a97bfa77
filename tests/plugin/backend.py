"""The smallest build backend (PEP 517): a wheel of the package and of what pyproject.toml says."""

from __future__ import annotations

import tomllib
import zipfile
from pathlib import Path


def build_wheel(wheel_directory: str, config_settings: object = None, metadata_directory: str | None = None) -> str:
    """Write the wheel and return its name."""
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    package = project["name"].replace("-", "_")
    name = f"{package}-{project['version']}"
    groups = project["entry-points"].items()
    points = "\n".join(f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in items.items()) for group, items in groups)
    files = {str(path): path.read_text() for path in sorted(Path(package).glob("*.py"))}
    about = f"Name: {project['name']}\nVersion: {project['version']}\n"
    files |= {
        f"{name}.dist-info/METADATA": f"Metadata-Version: 2.1\n{about}",
        f"{name}.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: backend\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{name}.dist-info/entry_points.txt": points,
    }
    record = f"{name}.dist-info/RECORD"
    files[record] = "".join(f"{path},,\n" for path in [*files, record])
    with zipfile.ZipFile(Path(wheel_directory) / f"{name}-py3-none-any.whl", "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)
    return f"{name}-py3-none-any.whl"
