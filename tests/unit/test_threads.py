"""Threads that give way to others, and work that is handed to them bit by bit."""

import concurrent.futures
import itertools
import os
import sys
import threading

import pytest

from stillwell.threads import ThreadPool, each_in_order


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a niceness is a process's")
async def test_a_pools_threads_give_way_and_nobody_else_does() -> None:
    """The files that they compress are not to take the processor from the batches that come meanwhile."""
    ours = os.getpriority(os.PRIO_PROCESS, 0)
    nice, plain = ThreadPool("nice", 1, 7), ThreadPool("plain", 1)
    assert await nice.call(_niceness) == min(19, ours + 7)
    assert await plain.call(_niceness) == _niceness() == ours
    for each in (nice, plain):
        each.close()


def test_of_work_without_end_a_little_is_begun_and_results_come_in_order() -> None:
    begun = itertools.count()
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        results = each_in_order(threads, lambda item: (next(begun), -item)[1], itertools.count())
        assert list(itertools.islice(results, 1_000)) == [(item, -item) for item in range(1_000)]
    assert next(begun) < 1_500


def _niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
