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

    What cannot be sent is dropped, with a warning: the next read of that prediction hints again.
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
                try:
                    if self._topic is None:
                        self._topic = await self._connect()
                    await self._topic.send(some)
                except StillwellError as error:
                    _log.warning("hints were dropped; reads ask again", hints=len(some), error=str(error))
                    await self._drop(some)
                except Exception:
                    # A mistake of ours, about these: those that come after them are sent all the same.
                    _log.exception("hints were dropped; reads ask again", hints=len(some))
                    await self._drop(some)

    async def _drop(self, hints: Sequence[Hint]) -> None:
        for hint in hints:
            self._sent.pop((hint.model, hint.key, hint.digest), None)
        await asyncio.sleep(_PAUSE)
