"""How the worker asks again: one policy for every sink."""

import asyncio
import contextlib
import dataclasses
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Self, TypeVar

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

    def __init__(
        self,
        sink: str,
        metrics: Metrics,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.sink = sink
        self.waiting = 0
        """How many calls have failed, and are asleep or made again: one in which the sink is silent waits as well."""
        self._metrics = metrics
        self._sleep = sleep
        self._clock = clock
        self._uniform = uniform
        self._silent_since: float | None = None
        self._last_warning = -_LOUD_EVERY
        metrics.begin_sink(sink)

    async def until_done(self, call: Callable[[], Awaitable[_T]]) -> _T:
        """What the call returns once it succeeds. Repeats a call of unknown outcome: it must be harmless to repeat."""
        try:
            done = await call()
        except (StoreUnavailable, OutcomeUnknown) as error:
            with self._waits():
                done = await self._ask_again(call, error)
        self._answered()
        return done

    async def _ask_again(self, call: Callable[[], Awaitable[_T]], error: Exception) -> _T:
        attempt = 0
        while True:
            attempt += 1
            await self._pause(attempt, error)
            try:
                return await call()
            except (StoreUnavailable, OutcomeUnknown) as again:
                error = again

    async def _pause(self, attempt: int, error: Exception) -> None:
        longest = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(attempt - 1, 16))
        self._metrics.count(RETRIES, 1, self.sink)
        self._warn(attempt, error)
        await self._sleep(longest * self._uniform(0.5, 1.0))

    @contextlib.contextmanager
    def _waits(self) -> Iterator[None]:
        self._change(+1)
        try:
            yield
        finally:
            self._change(-1)

    def _change(self, waiting: int) -> None:
        self.waiting += waiting
        self._metrics.set(WAITING, self.waiting, self.sink)

    def _warn(self, attempt: int, error: Exception) -> None:
        now = self._clock()
        if self._silent_since is None:
            self._silent_since = now
        if now - self._last_warning >= _LOUD_EVERY:
            self._last_warning = now
            _log.warning(
                "a sink does not answer; nothing is lost, the worker waits",
                sink=self.sink,
                attempt=attempt,
                error=str(error),
            )

    def _answered(self) -> None:
        """Say so once no call waits any more, unless nobody was told of the outage."""
        if self._silent_since is None or self.waiting:
            return
        if self._last_warning >= self._silent_since:
            seconds = self._clock() - self._silent_since
            _log.info("a sink answers again", sink=self.sink, seconds=round(seconds, 1))
        self._silent_since = None


@dataclasses.dataclass(frozen=True, slots=True)
class Retries:
    """How each sink, and Kafka, is asked again. Their names are labels of metrics."""

    online: Retry
    archive: Retry
    dead_letters: Retry
    kafka: Retry
    refresh: Retry

    @classmethod
    def of(cls, metrics: Metrics) -> Self:
        """A policy for each, all counted in the same metrics."""
        return cls(
            online=Retry("redis", metrics),
            archive=Retry("offline", metrics),
            dead_letters=Retry("dead_letters", metrics),
            kafka=Retry("kafka", metrics),
            refresh=Retry("refresh", metrics),
        )

    @property
    def silent(self) -> list[str]:
        """The names of those that do not answer: for which a call waits."""
        return [
            each.sink
            for each in (self.online, self.archive, self.dead_letters, self.kafka, self.refresh)
            if each.waiting
        ]
