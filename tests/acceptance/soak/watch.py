"""Looks at the processes once a second, from outside, and at what they tell from inside."""

import asyncio
import collections
import json
import re
import secrets
import socket
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

from tests.acceptance.soak.trend import Sample
from tests.waiting import eventually_async

_EVERY_S = 1.0
_MIB = 1024 * 1024

MEASURES = ("memory", "objects", "files", "threads", "tasks")
"""Resident memory in MiB, blocks of Python's own allocator in thousands, open files but for connections in pools (which
have bounds of their own), threads, asyncio's tasks."""

GROWING = ("memory",)
"""Those that are judged by their slope. The others go with what is under way, or with what is garbage and not yet
collected, and are judged at rest."""

_COLLECTED_S = 30.0


class Watch:
    """Of some processes, by what they are called. samples: of each, by measure. gone: those that have ended."""

    def __init__(self, processes: Mapping[str, psutil.Process], told: Path, clock: Callable[[], float]) -> None:
        self.samples: dict[str, dict[str, list[Sample]]] = {name: {each: [] for each in MEASURES} for name in processes}
        self.gone: set[str] = set()
        self._processes = dict(processes)
        self._told = told
        self._clock = clock

    @property
    def pids(self) -> set[int]:
        """Their numbers."""
        return {each.pid for each in self._processes.values()}

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            self.look()
            await asyncio.sleep(_EVERY_S)

    def look(self) -> None:
        """Once."""
        at = self._clock()
        for name, values in self.now().items():
            for measure, value in values.items():
                self.samples[name][measure].append((at, value))

    async def collect(self) -> None:
        """Have all processes collect their garbage, and wait until they have."""
        asked = secrets.token_hex(4)
        (self._told / "collect.fresh").write_text(asked)
        (self._told / "collect.fresh").replace(self._told / "collect")

        async def all_have() -> bool:
            return all(json.loads(each.read_text())["collected"] == asked for each in self._telling())

        await eventually_async(all_have, within_s=_COLLECTED_S, what="garbage to be collected")

    def _telling(self) -> list[Path]:
        files = [self._told / f"{process.pid}.json" for process in self._processes.values() if process.is_running()]
        return [each for each in files if each.exists()]

    def now(self) -> dict[str, dict[str, float]]:
        """What each process holds."""
        return {name: self._of(name, process) for name, process in self._processes.items() if name not in self.gone}

    def _of(self, name: str, process: psutil.Process) -> dict[str, float]:
        try:
            with process.oneshot():
                found = {
                    "memory": process.memory_info().rss / _MIB,
                    "files": float(process.num_fds()),
                    "threads": float(process.num_threads()),
                }
        except psutil.NoSuchProcess:
            self.gone.add(name)
            return {}
        if inside := self._inside(process):
            found |= {"objects": inside["blocks"] / 1_000, "tasks": float(sum(inside["tasks"].values()))}
            found["files"] -= len(inside["pooled"])
        return found

    def _inside(self, process: psutil.Process) -> Any:
        """What it tells of itself. The parent of the service loads no definitions, and so tells nothing."""
        file = self._told / f"{process.pid}.json"
        return json.loads(file.read_text()) if file.exists() else None

    def named(self) -> dict[str, collections.Counter[str]]:
        """Each process's tasks by what they run, its connections by their other end, its other files by their names."""
        found = {}
        for name, process in self._processes.items():
            if name in self.gone:
                continue
            inside = self._inside(process) or {"tasks": {}, "pooled": []}
            ends = {each.fd: _end(each) for each in process.net_connections("all")}
            ends |= dict.fromkeys(inside["pooled"], "connection in a pool")
            of = collections.Counter(ends.get(number, kind) for number, kind in _open(process.pid))
            of.update(inside["tasks"])
            found[name] = of
        return found


def _end(of: Any) -> str:
    """What a connection, as psutil has it, leads to."""
    if of.family == socket.AF_UNIX:
        return f"connection by {of.laddr or 'a socket without a name'}"
    return f"connection to {of.raddr.port if of.raddr else 'nobody'}"


def _open(pid: int) -> Iterator[tuple[int, str]]:
    """The number of each file that a process has open, and what it is: psutil leaves out pipes, and connections that
    the other end has ended and this one has not."""
    for each in Path(f"/proc/{pid}/fd").iterdir():
        try:
            yield int(each.name), re.sub(r":?\[\d+\]", "", str(each.readlink()))
        except FileNotFoundError:  # closed meanwhile
            continue
