"""`capstan library serve`: a virtual library for other programs."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager

from capstan.cli.output import Output
from capstan.cli.state import State
from capstan.config.home import Home
from capstan.config.settings import VirtualLibrarySettings
from capstan.errors import Refused
from capstan.library_devices import definition_of
from capstan.scsi.tcmu import KernelTarget
from capstan.scsi.virtual.library import VirtualLibrary


def serve_to_kernel(state: State, name: str, *, seconds: int) -> None:
    """Until SIGINT or SIGTERM. NotFound; InUse; Refused."""
    if not sys.platform.startswith("linux"):
        raise Refused(reason="only Linux takes devices from a program")
    home = Home(state.home.absolute())
    definition = definition_of(home.settings(), name)
    if not isinstance(definition, VirtualLibrarySettings):
        raise Refused(reason=f"library {name} is a real one", hint="other programs can use its devices themselves")
    with closing(VirtualLibrary.open(home.library_path(definition))) as library:
        units = {"lu0": library.changer_transport()}
        units |= {f"lu{index + 1}": library.drive_transport(index) for index in range(library.drive_count)}
        with _stop_signals() as stop, closing(KernelTarget(name, units, seconds=seconds)) as target:
            try:
                target.serve(stop, lambda: _tell(state.output, name))
            except OSError as error:
                reason = f"the kernel has refused {error.filename}: {error.strerror}"
                raise Refused(reason=reason, hint="modprobe -a tcm_loop sg st ch") from None
    state.output.note(f"library {name} is not served any more")


def _tell(output: Output, name: str) -> None:
    text = f"library {name} is served to this machine's kernel; `lsscsi -g` shows its devices; end it with Ctrl-C"
    output.result({"name": name, "served": True}, text)


@contextmanager
def _stop_signals() -> Iterator[int]:
    """A file descriptor that can be read once the process shall end."""
    reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    woken = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        yield reading
    finally:
        signal.set_wakeup_fd(woken)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(reading)
        os.close(writing)
