"""Runs a command on a real Linux kernel (User Mode Linux), which has SCSI tapes, changers and the target core, whatever
the kernel of this machine has. It sees this machine's files, and writes to one folder only."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

INIT = Path(__file__).with_name("init.sh")


@dataclass(frozen=True, slots=True)
class Ended:
    """What a guest has left. `status` is None when it did not come to an end; then `errors` is its console."""

    status: int | None
    output: str
    errors: str


def run_on_kernel(command: str, folder: Path, *, seconds: int) -> Ended:
    """Boot, run the shell `command` in `folder`, switch off."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "command").write_text(command)
    console = folder / "console"
    with console.open("wb") as log:
        guest = subprocess.Popen(
            [
                "linux.uml",
                "mem=1536M",
                f"uml_dir={folder}",
                "umid=uml",
                "root=/dev/root",
                "rootfstype=hostfs",
                "rootflags=/",
                "ro",
                "quiet",
                "noreboot",
                "panic=-1",
                f"init={INIT}",
                f"UML_INIT={INIT}",
                f"UML_RUN={folder}",
                "con=null",
                "ssl=null",
                "con0=null,fd:1",
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TMPDIR": "/dev/shm"},
            start_new_session=True,
        )
        try:
            guest.wait(seconds)
        except subprocess.TimeoutExpired:
            pass
        finally:
            _kill(guest, folder)
    status = folder / "status"
    if not status.exists():
        return Ended(None, _text(folder / "output"), _text(console) + _text(folder / "errors"))
    return Ended(int(status.read_text()), _text(folder / "output"), _text(folder / "errors"))


def _kill(guest: subprocess.Popen[bytes], folder: Path) -> None:
    """The guest's processes are ours: its main one has told its number."""
    if guest.poll() is None:
        pid = folder / "uml/pid"
        for target in (int(pid.read_text()) if pid.exists() else guest.pid, guest.pid):
            try:
                os.killpg(target, 9)
            except ProcessLookupError:
                continue
        guest.wait()


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""
