"""A Windows machine for one test run: a Wine prefix of its own, with our driver in it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from windows_python import ROOT, cache_folder

NATIVE = Path(__file__).parent / "native"
COMPILER = "x86_64-w64-mingw32-gcc"
_BIN = "/usr/lib/wine"  # where Debian has the programs themselves
_KERNEL = ("-I/usr/share/mingw-w64/include/ddk", "-nostdlib", "-Wl,--subsystem,native", "-Wl,--entry,DriverEntry")


class WineMachine:
    """Booted by `start`, gone with `stop`. `c` is the folder that is its drive C:, `Z:` is all of this machine."""

    def __init__(self, folder: Path) -> None:
        self.c = folder / "prefix" / "drive_c"
        self._folder = folder
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("CAPSTAN", "PYTHON", "WINE"))},
            "PATH": f"{_BIN}:{os.environ['PATH']}",
            "WINEPREFIX": str(folder / "prefix"),
            "WINEARCH": "win64",
            "WINEDEBUG": "-all",
            "WINEDLLOVERRIDES": "mscoree,mshtml,winemenubuilder.exe=",
            "PYTHONPATH": ";".join(map(windows_path, (ROOT / "src", cache_folder() / "site"))),
            "PYTHONUTF8": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def start(self) -> None:
        """Boot it, as Windows 10, and load the driver. What stays in the background holds no pipe of ours."""
        self.c.parent.mkdir(parents=True)
        self._quietly("wineserver64", "-p")
        self._quietly("wine64", "wineboot", "-i")
        self._quietly("wine64", "reg", "add", r"HKCU\Software\Wine", "/v", "Version", "/d", "win10", "/f")
        system = self.c / "windows" / "system32"
        self._compile("prng.c", system / "bcryptprimitives.dll", "-ladvapi32")
        driver = system / "drivers" / "passthrough.sys"
        self._compile("passthrough.c", driver, *_KERNEL, "-lntoskrnl", "-lntdll")
        place = r"C:\windows\system32\drivers\passthrough.sys"
        self._quietly("wine64", "sc", "create", "passthrough", "type=", "kernel", "binPath=", place)
        self._end()  # the services of the first boot do not know of one that came later
        self._quietly("wineserver64", "-p")
        self._quietly("wine64", "sc", "start", "passthrough")

    def python(self, arguments: Sequence[str], *, timeout: float) -> subprocess.CompletedProcess[str]:
        """Run Windows' Python. It wants pipes for all three."""
        return subprocess.run(
            ["wine64", str(cache_folder() / "python" / "python.exe"), *arguments],
            env=self._environment,
            cwd=ROOT,
            input="",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )

    def stop(self) -> None:
        """End all programs in the prefix, and remove it. Twice is harmless."""
        self._end()
        shutil.rmtree(self._folder / "prefix", ignore_errors=True)

    def _end(self) -> None:
        for option in ("-k", "-w"):
            subprocess.run(["wineserver64", option], env=self._environment, check=False, timeout=60)

    def _quietly(self, *command: str) -> None:
        null = subprocess.DEVNULL
        subprocess.run(command, env=self._environment, stdin=null, stdout=null, stderr=null, check=True, timeout=120)

    def _compile(self, source: str, into: Path, *options: str) -> None:
        warnings = ("-Wall", "-Wextra", "-Wno-unused-parameter", "-Werror")
        command = [COMPILER, "-O2", "-shared", *warnings, "-o", str(into), str(NATIVE / source), *options]
        subprocess.run(command, check=True, timeout=120)


def windows_path(path: Path) -> str:
    """A path of this machine as programs under Wine name it."""
    return "Z:" + str(path).replace("/", "\\")
