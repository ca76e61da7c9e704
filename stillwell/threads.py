"""Blocking calls off the event loop, in pools of a fixed size."""

import asyncio
import concurrent.futures
import functools
import itertools
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from stillwell.storage import ObjectStore

_T = TypeVar("_T")
_Item = TypeVar("_Item")
_AHEAD = 256


class ThreadPool:
    """Threads for one kind of work, so that slow calls of one kind never hold up another."""

    def __init__(self, name: str, threads: int, niceness: int = 0) -> None:
        """niceness: how far they give way to the process's other threads, where the system knows of such: 0 to 19."""
        self._executor = concurrent.futures.ThreadPoolExecutor(
            threads, thread_name_prefix=name, initializer=_give_way, initargs=(niceness,)
        )

    async def call(self, work: Callable[..., _T], *arguments: Any) -> _T:
        """What `work` returns or raises."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, functools.partial(work, *arguments))

    def close(self) -> None:
        """Forget what has not begun; what has is not waited for."""
        self._executor.shutdown(wait=False, cancel_futures=True)


def each_in_order(
    threads: concurrent.futures.Executor, work: Callable[[_Item], _T], items: Iterable[_Item]
) -> Iterator[tuple[_Item, _T]]:
    """Each item with what `work` returns for it, in order; raises what it raises.

    Of a million items a few hundred are under way at a time: an executor's own `map` would begin and keep them all.
    """
    remaining = iter(items)
    while chunk := list(itertools.islice(remaining, _AHEAD)):
        yield from zip(chunk, threads.map(work, chunk), strict=True)


def _give_way(niceness: int) -> None:
    if niceness and sys.platform == "linux":  # elsewhere a niceness is a process's
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, min(19, os.getpriority(os.PRIO_PROCESS, thread) + niceness))


class ThreadedStore:
    """An object store whose calls are made in threads of their own."""

    def __init__(self, store: ObjectStore, threads: ThreadPool) -> None:
        self._store = store
        self._threads = threads

    async def call(self, work: Callable[[ObjectStore], _T]) -> _T:
        """What `work` returns or raises when it is given the store."""
        return await self._threads.call(work, self._store)
