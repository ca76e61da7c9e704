"""Hints of a process that answers: put without waiting, sent together, and each not more often than it helps."""

import asyncio
import collections
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import structlog

from stillwell.errors import StillwellError
from stillwell.predictions.hint import Hint

_log = structlog.get_logger(__name__)

_SILENT = 1.0
"""Seconds in which a hint is not sent again: what it asks for is under way. After that it may have been lost."""

_SLOW = 2.0
"""Seconds without an answer of the topic's, after which nobody is told any more that a hint is on its way."""

_QUOTED = 200
"""Characters of an error that a reader is told."""

_MOST_WAITING = 10_000
_MOST_REMEMBERED = 50_000
_TOGETHER = 500
_PAUSE = 1.0


class Topic(Protocol):
    """Where hints go."""

    async def send(self, hints: Sequence[Hint]) -> None:
        """Keep them. Raises StoreError."""


class HintBuffer:
    """Hints on their way to the refresh topic, for one event loop; `close` it.

    What cannot be sent is dropped, with a warning: the next read of that prediction hints again. `problem` then says
    so, until hints get through again: each that is put is an attempt.
    """

    def __init__(self, connect: Callable[[], Awaitable[Topic]], clock: Callable[[], float] = time.monotonic) -> None:
        """connect: connects to Kafka, when the first hint is to be sent. Raises StoreError."""
        self._connect = connect
        self._clock = clock
        self._topic: Topic | None = None
        self._waiting: collections.deque[Hint] = collections.deque()
        self._sent: collections.OrderedDict[tuple[str, bytes, bytes], float] = collections.OrderedDict()
        self._arrived = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._failed = ""
        """Why the last attempt to send came to nothing."""
        self._busy_since: float | None = None

    @property
    def problem(self) -> str:
        """Why hints do not get through; empty where they do, as far as is known."""
        if self._failed:
            return f"no worker can be asked to compute it anew: {self._failed}"
        if self._busy_since is not None and self._clock() - self._busy_since > _SLOW:
            return f"no worker can be asked to compute it anew: Kafka has not taken such requests for {_SLOW:g} s"
        if len(self._waiting) >= _MOST_WAITING:
            return f"no worker can be asked to compute it anew: {_MOST_WAITING} such requests wait for Kafka already"
        return ""

    def put(self, hints: Sequence[Hint]) -> list[bool]:
        """Send hints, soon; False for one that was put a moment ago, or for which there is no room."""
        return [self._put(hint) for hint in hints]

    def _put(self, hint: Hint) -> bool:
        place, now = (hint.model, hint.key, hint.digest), self._clock()
        if now < self._sent.get(place, now - _SILENT) + _SILENT or len(self._waiting) >= _MOST_WAITING:
            return False
        self._sent[place] = now
        self._sent.move_to_end(place)
        if len(self._sent) > _MOST_REMEMBERED:
            self._sent.popitem(last=False)
        self._waiting.append(hint)
        self._arrived.set()
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._send_on())
        return True

    async def close(self) -> None:
        """Send no more."""
        if self._task:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _send_on(self) -> None:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._waiting:
                some = [self._waiting.popleft() for _ in range(min(_TOGETHER, len(self._waiting)))]
                self._busy_since = self._clock()
                try:
                    if self._topic is None:
                        self._topic = await self._connect()
                    await self._topic.send(some)
                    self._failed = ""
                except StillwellError as error:
                    _log.warning("hints were dropped; reads ask again", hints=len(some), error=str(error))
                    await self._drop(some, str(error))
                except Exception as error:
                    # A mistake of ours, about these: those that come after them are sent all the same.
                    _log.exception("hints were dropped; reads ask again", hints=len(some))
                    await self._drop(some, repr(error))
                finally:
                    self._busy_since = None

    async def _drop(self, hints: Sequence[Hint], why: str) -> None:
        self._failed, self._busy_since = why[:_QUOTED], None
        for hint in hints:
            self._sent.pop((hint.model, hint.key, hint.digest), None)
        await asyncio.sleep(_PAUSE)
