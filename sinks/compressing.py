"""When files are compressed: one after the other, and those that nobody waits for with rests in between.

The spans of a worker's partitions are closed together, since they were opened together. To compress all their files at
once, or without a pause, takes a core from the batches that come meanwhile, and rows reach Redis late.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

_T = TypeVar("_T")

_REST = 8
"""Times what the file before took: files, then, take a ninth of a core."""

_LONGEST_REST = 0.1
"""In seconds."""

_MOST_THAT_REST = 32
"""More files than so many are not spread out: they would not be through before the next ones come. All rests together
last three seconds at most, which is what a flush may wait for that finds its spans closed already, but not done."""

Rest = Callable[[float, asyncio.Event], Awaitable[None]]
"""Passes so many seconds, or fewer when the event is set."""


async def pause(seconds: float, cut_short: asyncio.Event) -> None:
    """A rest in real time."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await cut_short.wait()


class Compressing:
    """The files of one worker, in the order in which they ask."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, rest: Rest = pause) -> None:
        """clock: seconds."""
        self._clock = clock
        self._rest = rest
        self._turn = asyncio.Lock()
        self._asked = 0
        self._waiting = 0
        self._urgent = 0  # the last file that somebody waits for, by the order of asking
        self._urgent_came = asyncio.Event()
        self._rested_at = 0.0

    async def one(self, work: Callable[[], Awaitable[_T]], at_leisure: bool) -> _T:
        """What `work` returns or raises, which compresses one file.

        at_leisure: nobody waits for it, so that it comes after a rest of eight times what the last one took, but of a
        tenth of a second at most. Nobody rests in front of a file that somebody waits for.
        """
        self._asked += 1
        number = self._asked
        if not at_leisure:
            self._urgent = number
            self._urgent_came.set()
        await self._my_turn()
        try:
            if number > self._urgent and self._waiting < _MOST_THAT_REST:
                self._urgent_came.clear()
                await self._rest(max(0.0, self._rested_at - self._clock()), self._urgent_came)
            began = self._clock()
            result = await work()
            self._rested_at = self._clock() + min(_REST * (self._clock() - began), _LONGEST_REST)
            return result
        finally:
            self._turn.release()

    async def _my_turn(self) -> None:
        self._waiting += 1
        try:
            await self._turn.acquire()
        finally:
            self._waiting -= 1
