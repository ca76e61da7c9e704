"""Whether processes that are not children of the tests have ended."""

import time
from collections.abc import Iterable

import psutil


def still_running(processes: Iterable[psutil.Process], within_s: float) -> list[psutil.Process]:
    """Wait until all have ended, so long at most; gives those that have not.

    One that waits to be reaped has ended: in a container whose first process reaps nobody it would be there for ever.
    """
    deadline = time.monotonic() + within_s
    while running := [process for process in processes if _runs(process)]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.01)
    return running


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
