"""Runs one restore and dies by SIGKILL when it has put the n-th entry that is no directory under its name.

usage: restore_killer.py HOME SET TO POLICY N
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from capstan.bootstrap import open_home
from capstan.core.backup import Conflicts
from capstan.core.job import JobKind
from capstan.recovery.select import RestoreRequest


async def main(home: Path, reference: str, to: Path, policy: str, number: int) -> None:
    seen = 0
    rename = os.rename

    def watched(source: bytes, *arguments: object, **keywords: object) -> None:
        nonlocal seen
        rename(source, *arguments, **keywords)  # type: ignore[arg-type]
        if isinstance(source, bytes) and source.startswith(b".capstan-"):
            seen += 1
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)

    os.rename = watched  # type: ignore[assignment]
    request = RestoreRequest(reference=reference, to=to, conflicts=Conflicts(policy))
    async with open_home(home) as capstan:
        await capstan.jobs.run(
            JobKind.RESTORE, lambda job: capstan.restore.run(request, job), parameters=request.as_parameters()
        )


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), sys.argv[4], int(sys.argv[5])))
