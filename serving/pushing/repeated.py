"""A push that is sent again under its idempotency key is answered as it was, and written once.

Best effort: the answer is kept in Redis for ten minutes, for all processes of a namespace. It is not kept where Redis
does not take it, or the answer is large; and two processes that are sent the same push in the same moment both carry it
out. That is harmless to rows (the same row is stored once, whichever record it comes from): what it costs is a second
record in Kafka, and a second row at rest.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec

from stillwell.errors import RequestError, StoreError

KEPT_FOR = 600
"""Seconds: longer than a client tries again."""

MOST_BYTES = 64 * 1024
"""Of an answer that is kept: some thousands of rows."""

_MOST_AT_ONCE = 10_000
"""Keys whose pushes are under way: more than requests may be, of which each has one."""


class Answers(Protocol):
    """Where answers are kept. Both raise StoreError."""

    async def find(self, view: str, digest: str) -> bytes | None:
        """What was kept, if it still is."""

    async def keep(self, view: str, digest: str, answer: bytes, seconds: int) -> None:
        """Keep an answer for so long."""


class Kept(msgspec.Struct):
    """An answer, and what it is the answer to."""

    asked: str
    status: int
    body: bytes


_kept = msgspec.msgpack.Decoder(Kept)
_encode = msgspec.msgpack.Encoder().encode


class Repeated:
    """For one event loop."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._under_way: dict[tuple[str, str], asyncio.Future[Kept]] = {}

    async def answer(self, view: str, key: str, asked: bytes, push: Callable[[], Awaitable[tuple[int, bytes]]]) -> Kept:
        """The status and body that `push` gives, or has given under this key. asked: all that the request said.

        Raises RequestError where the key was used for something else, and what `push` raises: a push that failed is not
        remembered.
        """
        digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
        own = hashlib.sha256(asked).hexdigest()
        under_way = self._under_way.get((view, digest))
        if under_way is None and len(self._under_way) < _MOST_AT_ONCE:
            task = asyncio.ensure_future(self._carry_out(view, digest, own, push))
            under_way = self._under_way[view, digest] = task
            task.add_done_callback(lambda _: self._under_way.pop((view, digest), None))
            # Told to those who wait; where all have gone, to nobody, and not to the log either.
            task.add_done_callback(lambda task: task.cancelled() or task.exception())
        # Whoever sent it first may go away; the push goes on, for the next to hear of.
        kept = await (asyncio.shield(under_way) if under_way else self._carry_out(view, digest, own, push))
        if kept.asked != own:
            raise RequestError("idempotency_key", "was used for another push; take a new one for each")
        return kept

    async def _carry_out(
        self, view: str, digest: str, asked: str, push: Callable[[], Awaitable[tuple[int, bytes]]]
    ) -> Kept:
        try:
            found = await self._answers.find(view, digest)
            if found is not None:
                return _kept.decode(found)
        except (StoreError, msgspec.DecodeError):
            pass
        kept = Kept(asked, *await push())
        try:
            if len(kept.body) <= MOST_BYTES:
                await self._answers.keep(view, digest, _encode(kept), KEPT_FOR)
        except StoreError:
            pass
        return kept
