"""Runs one backup and dies by SIGKILL at a chosen moment.

usage: killer.py HOME SOURCE NAME MOMENT N [JOB [CONTAINER]]

MOMENT: one of those below; N from 1; with JOB it resumes that one, if that is not empty.

written  the n-th commit point is on the medium, and the catalog was not told
entered  the catalog knows the n-th commit point
copy-written, copy-entered  the same of the commit points of a copy in the same pass
labelled the n-th label is on the medium, and the catalog was not told that it is finished
event    the n-th event of the job was told, progress not counted
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

from capstan.backup.request import BackupRequest
from capstan.bootstrap import Capstan, open_home
from capstan.core.job import Event, JobKind
from capstan.media import cartridges


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def main(
    home: Path, source: Path, name: str, moment: str, number: int, job_id: str = "", container: str = "tar"
) -> None:
    seen = 0

    def hear(event: Event) -> None:
        nonlocal seen
        seen += event.kind != "job.progress"  # how many of those there are is a matter of time
        if moment == "event" and seen == number:
            die()

    async with open_home(home, listener=hear) as capstan:
        watch_ledger(capstan, moment, number)
        watch_labels(moment, number)
        codec = "none" if container == "tar" else "copy"
        request = BackupRequest(
            sources=(os.fsencode(source),),
            name=name,
            library="lib",
            parameters=capstan.parameters(codec, container),
        )
        await capstan.tidy()
        if job_id:
            await capstan.jobs.resume(job_id, lambda job: capstan.backup.resume(request, job))
            return
        await capstan.jobs.run(
            JobKind.BACKUP,
            lambda job: capstan.backup.run(request, job),
            name=name,
            library="lib",
            parameters=request.as_parameters(),
        )


def watch_ledger(capstan: Capstan, moment: str, number: int) -> None:
    ledger: Any = capstan.backup._equipment.ledger

    def watched(enter: Any, kind: str) -> Any:
        count = 0

        async def watch(*arguments: Any, **keywords: Any) -> Any:
            nonlocal count
            count += 1
            if moment == f"{kind}written" and count == number:
                die()
            result = await enter(*arguments, **keywords)
            if moment == f"{kind}entered" and count == number:
                die()
            return result

        return watch

    ledger.enter = watched(ledger.enter, "")
    ledger.enter_copy = watched(ledger.enter_copy, "copy-")


def watch_labels(moment: str, number: int) -> None:
    write = cartridges.write_label
    count = 0

    def watched(*arguments: Any) -> Any:
        nonlocal count
        count += 1
        result = write(*arguments)
        if moment == "labelled" and count == number:
            die()
        return result

    cartridges.write_label = watched  # type: ignore[assignment]


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4], int(sys.argv[5]), *sys.argv[6:]))
