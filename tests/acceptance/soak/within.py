"""Tells from inside a process what it holds. The soak lays this file beside its definitions, which begin it.

SOAK_TOLD    the folder to tell into: one file a process, by its number, written anew every second; once there is a file
             `collect` in it, all garbage is collected before it is told, and so each time that the file is another
SOAK_TRACE   if it is set, who has asked for the most objects that are there and were not at the first look, told
             every minute

Not by which kinds of objects there are: to list all of them (`gc.get_objects`) breaks the making of a tuple that
another thread is at.
"""

import asyncio
import collections
import contextlib
import gc
import json
import os
import sys
import threading
import time
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import redis.asyncio

_EVERY_S = 1.0
_TRACED_EVERY = 60
_SHOWN = 15

_T = TypeVar("_T")

_pools: "weakref.WeakSet[redis.asyncio.BlockingConnectionPool]" = weakref.WeakSet()


def begin() -> None:
    """From now on; nothing where no folder is named."""
    if told := os.environ.get("SOAK_TOLD"):
        _remember_pools()
        threading.Thread(target=_tell, args=(Path(told),), name="soak", daemon=True).start()


def _remember_pools() -> None:
    pool: Any = redis.asyncio.BlockingConnectionPool
    made = pool.__init__

    def make(self: Any, *arguments: Any, **named: Any) -> None:
        made(self, *arguments, **named)
        _pools.add(self)

    pool.__init__ = make


def _tell(folder: Path) -> None:
    traced = bool(os.environ.get("SOAK_TRACE"))
    if traced:
        tracemalloc.start(8)
    # What all_tasks() looks through; 3.12 has renamed it.
    tasks = getattr(asyncio.tasks, "_scheduled_tasks", None)
    if tasks is None:
        tasks = asyncio.tasks._all_tasks  # type: ignore[attr-defined]
    before: tracemalloc.Snapshot | None = None
    asked = collected = ""
    for number in range(sys.maxsize):
        file = folder / f"{os.getpid()}.json"
        fresh = file.with_suffix(".fresh")
        with contextlib.suppress(FileNotFoundError):
            asked = (folder / "collect").read_text()
        if asked != collected:
            gc.collect()
            collected = asked
        holds = {
            "blocks": sys.getallocatedblocks(),
            "tasks": _under_way(tasks),
            "pooled": _pooled(),
            "collected": collected,
        }
        fresh.write_text(json.dumps(holds))
        fresh.replace(file)
        if traced and number % _TRACED_EVERY == _TRACED_EVERY - 1:
            now = tracemalloc.take_snapshot()
            if before is None:
                before = now
            with (folder / f"{os.getpid()}.trace").open("a") as trace:
                trace.write(f"---- after {number} s\n")
                trace.writelines(f"{line}\n" for line in _more(before, now))
        time.sleep(_EVERY_S)


def _more(before: tracemalloc.Snapshot, now: tracemalloc.Snapshot) -> Iterator[str]:
    """Who has asked for what there is more of, the most first."""
    asked = sorted(now.compare_to(before, "traceback"), key=lambda each: each.count_diff, reverse=True)
    for each in asked[:_SHOWN]:
        yield f"{each.count_diff:+} blocks, {each.size_diff:+} B"
        yield from each.traceback.format()


def _under_way(tasks: "weakref.WeakSet[asyncio.Task[Any]]") -> dict[str, int]:
    """How many are not done, by what they run. A set forgets those that are once a collection finds them, and a worker
    has few."""
    return dict(collections.Counter(_undisturbed(lambda: [_runs(task) for task in list(tasks) if not task.done()])))


def _runs(task: "asyncio.Task[Any]") -> str:
    run: Any = task.get_coro()
    return str(getattr(run, "__qualname__", run))


def _pooled() -> list[int]:
    """The numbers of the files that are connections in pools. A pool opens one where all that it has are in use, and
    keeps it, up to a bound; one that the other end has ended it keeps as well, until it is its turn."""
    held = _undisturbed(
        lambda: [
            connection
            for pool in list(_pools)
            for connection in [*pool._available_connections, *pool._in_use_connections]
        ]
    )
    writers: list[Any] = [connection._writer for connection in held]
    sockets = [writer.get_extra_info("socket") for writer in writers if writer is not None]
    return sorted(each.fileno() for each in sockets if each is not None and each.fileno() >= 0)


def _undisturbed(look: Callable[[], _T]) -> _T:
    """What it gives once no other thread changes what it looks at."""
    while True:
        try:
            return look()
        except RuntimeError:
            continue
