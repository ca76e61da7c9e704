"""Hints of a process that answers: put without waiting, sent together, and each not more often than it helps."""

import asyncio
import collections
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import structlog

from stillwell.errors import StillwellError
from stillwell.predictions.hint import Hint
from stillwell.predictions.outbox import Outbox

_log = structlog.get_logger(__name__)

_SILENT = 1.0
"""Seconds in which a hint is not sent again that was put over the same inputs: what it asks for is under way. After
that it may have been lost. Over other inputs what is under way may come too early, so that it is sent at once; a row
that changes a hundred times a second then costs readers of it a hundred hints, which one job of the worker takes in."""

_SLOW = 2.0
"""Seconds without an answer of the topic's, after which nobody is told any more that a hint is on its way."""

_QUOTED = 200
"""Characters of an error that a reader is told."""

_MOST_WAITING = 10_000
"""Hints that wait while Kafka is away, some megabytes; of more, reads hint again."""

_MOST_REMEMBERED = 50_000
"""The last hints, which are not sent again within their second; where there are more, some are sent once too often."""

_TOGETHER = 500
"""Sent by one call, which waits for all of them: what comes meanwhile goes together in the next."""

_PAUSE = 1.0
"""Seconds after a failure before the next attempt, as long as a hint is silent: each brings one line in the log."""


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
        self._outbox: Outbox[Hint] = Outbox(self._send, self._drop, most=_MOST_WAITING, together=_TOGETHER)
        self._sent: collections.OrderedDict[tuple[str, bytes, bytes, bytes], float] = collections.OrderedDict()
        """When each was put, the last at the end."""
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
        if self._outbox.is_full:
            return f"no worker can be asked to compute it anew: {_MOST_WAITING} such requests wait for Kafka already"
        return ""

    def put(self, hints: Sequence[Hint]) -> list[bool]:
        """Send hints, soon; False for one that was put a moment ago, or for which there is no room."""
        return [self._put(hint) for hint in hints]

    def _put(self, hint: Hint) -> bool:
        what, now = _what(hint), self._clock()
        if now < self._sent.get(what, now - _SILENT) + _SILENT or not self._outbox.put(hint):
            return False
        self._sent[what] = now
        self._sent.move_to_end(what)
        if len(self._sent) > _MOST_REMEMBERED:
            self._sent.popitem(last=False)
        return True

    async def close(self) -> None:
        """Send no more."""
        await self._outbox.close()

    async def _send(self, hints: list[Hint]) -> None:
        self._busy_since = self._clock()
        try:
            if self._topic is None:
                self._topic = await self._connect()
            await self._topic.send(hints)
            self._failed = ""
        finally:
            self._busy_since = None

    async def _drop(self, hints: list[Hint], error: Exception) -> None:
        if isinstance(error, StillwellError):
            why = str(error)
            _log.warning("hints were dropped; reads ask again", hints=len(hints), error=why)
        else:  # a mistake of ours, about these
            why = repr(error)
            _log.error("hints were dropped; reads ask again", hints=len(hints), exc_info=error)
        self._failed = why[:_QUOTED]
        for hint in hints:
            self._sent.pop(_what(hint), None)
        await asyncio.sleep(_PAUSE)


def _what(hint: Hint) -> tuple[str, bytes, bytes, bytes]:
    """What a hint asks for: a prediction, of these inputs."""
    return hint.model, hint.key, hint.digest, hint.fingerprint
