"""Threads that give way to others."""

import os
import sys
import threading

import pytest

from stillwell.threads import ThreadPool


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a niceness is a process's")
async def test_a_pools_threads_give_way_and_nobody_else_does() -> None:
    """The files that they compress are not to take the processor from the batches that come meanwhile."""
    ours = os.getpriority(os.PRIO_PROCESS, 0)
    nice, plain = ThreadPool("nice", 1, 7), ThreadPool("plain", 1)
    assert await nice.call(_niceness) == min(19, ours + 7)
    assert await plain.call(_niceness) == _niceness() == ours
    for each in (nice, plain):
        each.close()


def _niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
