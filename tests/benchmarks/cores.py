"""Who runs where and when, while latency is measured: who is measured has a core to itself, or comes before all others.

Left to itself, a scheduler with two cores puts the generator, Redis or Kafka's Java on the core of the service from
time to time, and what is measured then is for how long: between 6 and 17 ms at the 99th percentile, by chance.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

from tests.benchmarks.testbed import MeasurementError


@contextlib.contextmanager
def apart(measured: Sequence[int]) -> Iterator[set[int]]:
    """Have processes on the first core of this one's, and this one, and all else that it has started and starts
    meanwhile, on the rest of them; gives the first. Raises MeasurementError where there is but one."""
    all_of_them = os.sched_getaffinity(0)
    first, *rest = sorted(all_of_them)
    if not rest:
        raise MeasurementError("there is one core, and latency is measured where the service has one to itself")
    try:
        for pid in _family():
            move(pid, {first} if pid in measured else set(rest))
        yield {first}
    finally:
        for pid in _family():
            move(pid, all_of_them)


@contextlib.contextmanager
def at_once(pids: Sequence[int]) -> Iterator[None]:
    """Have processes, with all threads that they have, and what this thread starts meanwhile, run as soon as they want
    to, whoever else does. Raises MeasurementError where that is not allowed."""
    threads = [0, *(thread for pid in pids for thread in _threads(pid))]
    try:
        _schedule(threads, os.SCHED_RR, 1)
        yield
    finally:
        _schedule(threads, os.SCHED_OTHER, 0)


def _schedule(threads: Sequence[int], policy: int, priority: int) -> None:
    """Those that have ended meanwhile are passed over."""
    try:
        for thread in threads:
            with contextlib.suppress(ProcessLookupError):
                os.sched_setscheduler(thread, policy, os.sched_param(priority))
    except PermissionError as error:
        told = "processes that reads go through must come before all others, which root may do (CAP_SYS_NICE)"
        raise MeasurementError(f"{told}: {error}") from error


def _family() -> list[int]:
    """This process and all that it has started."""
    own = psutil.Process()
    return [own.pid, *(child.pid for child in own.children(recursive=True))]


def move(pid: int, cores: set[int]) -> None:
    """Have a process on some cores, with all threads that it has."""
    for thread in _threads(pid):
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(thread, cores)


def _threads(pid: int) -> list[int]:
    with contextlib.suppress(FileNotFoundError):
        return [int(thread.name) for thread in Path(f"/proc/{pid}/task").iterdir()]
    return []
