"""Busy polling: for a while after a request has come, the event loop looks for the next one instead of sleeping.

A core on which nobody runs sleeps, and a virtual one is slow to come back. Linux does the same for a network card's
queue (`net.core.busy_poll`) and for the cores of some virtual machines (`guest_halt_poll_ns`); by this a service may,
wherever it runs. The price is a core that is busy while requests come.
"""

import asyncio
import os
import time
from collections.abc import Callable


class BusyPoll:
    """Of the event loop that runs where it is made."""

    __slots__ = ("_clock", "_loop", "_polling", "_seconds", "_until")

    def __init__(self, seconds: float, clock: Callable[[], float] = time.perf_counter) -> None:
        """seconds: for how long after the last request the loop stays awake."""
        self._loop = asyncio.get_running_loop()
        self._seconds = seconds
        self._clock = clock
        self._until = 0.0
        self._polling = False

    def prolong(self) -> None:
        """Called with each request: stay awake from now on."""
        self._until = self._clock() + self._seconds
        if not self._polling:
            self._polling = True
            self._loop.call_soon(self._poll)

    def _poll(self) -> None:
        """One turn. A loop that has something to call does not sleep when it looks for what has come."""
        if self._clock() < self._until:
            os.sched_yield()  # whoever else wants the core comes first: Redis may be on the same machine
            self._loop.call_soon(self._poll)
        else:
            self._polling = False
