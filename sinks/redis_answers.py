"""Answers to pushes, kept in Redis for who sends one again: see `serving.pushing.repeated`."""

from sinks.redis_link import RedisLink
from stillwell.layout.redis_keys import RedisKeys


class RedisAnswers:
    """In one Redis server. Both raise StoreUnavailable and OutcomeUnknown."""

    def __init__(self, link: RedisLink, keys: RedisKeys) -> None:
        self._link = link
        self._keys = keys

    async def find(self, view: str, digest: str) -> bytes | None:
        """What was kept, if it still is."""
        (found,) = await self._link.ask(("GET", self._keys.answer(view, digest)))
        return bytes(found) if found is not None else None

    async def keep(self, view: str, digest: str, answer: bytes, seconds: int) -> None:
        """Keep an answer for so long."""
        await self._link.ask(("SET", self._keys.answer(view, digest), answer, "EX", str(seconds)))
