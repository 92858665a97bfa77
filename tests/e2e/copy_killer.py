"""Runs one copy and dies by SIGKILL at a chosen moment.

usage: copy_killer.py HOME SET MOMENT N

MOMENT: `written`: the n-th commit point is on the medium, and the catalog was not told; `entered`: the catalog knows
it; `event`: the n-th event of the job was told, progress not counted. N from 1.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

from capstan.bootstrap import open_home
from capstan.core.job import Event, JobKind


async def main(home: Path, set_id: str, moment: str, number: int) -> None:
    seen = 0

    def count(what: str) -> None:
        nonlocal seen
        seen += what == moment
        if seen == number:
            os.kill(os.getpid(), signal.SIGKILL)

    def hear(event: Event) -> None:
        if event.kind != "job.progress":  # how many of those there are is a matter of time
            count("event")

    async with open_home(home, listener=hear) as capstan:
        ledger: Any = capstan.copying._ledger
        enter = ledger.enter_copy

        async def watched(*arguments: Any) -> Any:
            count("written")
            result = await enter(*arguments)
            count("entered")
            return result

        ledger.enter_copy = watched
        await capstan.jobs.run(JobKind.COPY, lambda job: capstan.copying.run(set_id, job, library="lib", pool="vault"))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])))
