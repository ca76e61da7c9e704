"""Who runs on which core, where latency is measured: who is measured has one to itself.

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
def within(cores: set[int]) -> Iterator[None]:
    """Start processes on these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _family() -> list[int]:
    """This process and all that it has started."""
    own = psutil.Process()
    return [own.pid, *(child.pid for child in own.children(recursive=True))]


def move(pid: int, cores: set[int]) -> None:
    """Have a process on some cores, with all threads that it has."""
    with contextlib.suppress(FileNotFoundError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(ProcessLookupError):
                os.sched_setaffinity(int(thread.name), cores)
