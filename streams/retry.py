"""How the worker asks again: one policy for every sink, with one hook."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from stillwell.errors import OutcomeUnknown, StoreUnavailable
from streams.metrics import RETRIES, WAITING, Metrics

_T = TypeVar("_T")
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 5.0
_LOUD_EVERY = 10.0
"""Seconds between two warnings of one sink: an outage is told at once, then at this pace, however many calls wait."""

_log = structlog.get_logger(__name__)


class Retry:
    """Asks one sink again until it answers: with exponential back-off and jitter, counted and logged.

    There is no last attempt: a worker whose sink is down must stand still, hold what it has, and go on by itself.
    """

    def __init__(self, sink: str, metrics: Metrics, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self.sink = sink
        self.waiting = 0
        """How many calls have failed and wait to be made again."""
        self._metrics = metrics
        self._sleep = sleep
        self._random = random.Random()
        self._last_warning = -_LOUD_EVERY

    async def until_done(self, call: Callable[[], Awaitable[_T]]) -> _T:
        """What the call returns once it succeeds. Repeats a call of unknown outcome: it must be harmless to repeat."""
        attempt = 0
        while True:
            try:
                return await call()
            except (StoreUnavailable, OutcomeUnknown) as error:
                attempt += 1
                await self.pause(attempt, error)

    async def pause(self, attempt: int, error: Exception) -> None:
        """Wait before attempt number n (from 1) is made again."""
        longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(attempt - 1, 16))
        self._metrics.count(RETRIES, 1, self.sink)
        self._warn(attempt, error)
        self._waits(+1)
        try:
            await self._sleep(longest * self._random.uniform(0.5, 1.0))
        finally:
            self._waits(-1)

    def _waits(self, change: int) -> None:
        self.waiting += change
        self._metrics.set(WAITING, self.waiting, self.sink)

    def _warn(self, attempt: int, error: Exception) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._last_warning >= _LOUD_EVERY:
            self._last_warning = now
            _log.warning(
                "a sink does not answer; nothing is lost, the worker waits",
                sink=self.sink,
                attempt=attempt,
                error=str(error),
            )
