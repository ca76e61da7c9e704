"""The processes of a service: what becomes of one that the machine cannot start."""

import asyncio
import sys
from pathlib import Path

import pytest

from serving.processes import parent as parent_
from serving.processes.parent import _Parent
from tests.waiting import eventually_async


class Parent(_Parent):
    """Starts a process that ends at once, then none for a while, then one that stays."""

    def __init__(self, folder: Path, fails: range) -> None:
        super().__init__([()], folder)
        self.starts = 0
        self._fails = fails

    def _is_up(self, number: int) -> bool:
        return True

    async def _start(self, number: int, restarts: int) -> asyncio.subprocess.Process:
        self.starts += 1
        if self.starts - 1 in self._fails:
            raise OSError("Resource temporarily unavailable")
        lives = 0 if self.starts == 1 else 60
        command = [sys.executable, "-c", f"import time; time.sleep({lives})"]
        process = self._running[number] = await asyncio.create_subprocess_exec(*command)
        return process


async def test_a_process_that_cannot_be_started_anew_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Given up, the service would answer with one process less, and nobody would hear of it."""
    monkeypatch.setattr(parent_, "_UNSTARTED_PAUSE", 0.01)
    parent = Parent(tmp_path, range(1, 4))
    running = asyncio.create_task(parent.run())

    async def stands() -> bool:
        return parent.starts == 5 and bool(parent._running)

    await eventually_async(stands, what="a process after three that could not be started")
    parent._ended.set()
    assert await running == 0


async def test_a_service_that_cannot_be_started_at_all_ends(tmp_path: Path) -> None:
    assert await asyncio.wait_for(Parent(tmp_path, range(1)).run(), 10) == 1
