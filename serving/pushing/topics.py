"""Which incarnation of a push topic is in force: what a token names, and what the stamps of its rows hold.

The offline store knows it, and it changes only when somebody adopts a topic that was made anew. So it is looked up when
a view is first pushed to, and again once in a while, and as soon as offsets begin again; the topic's id tells whether
Kafka still has the same one. A topic that no worker has read yet is opened here, as a worker would.
"""

import asyncio
import functools
from collections.abc import Callable, Collection
from typing import Protocol

from stillwell import incarnations
from stillwell.errors import PartitionStopped, StoreError, StoreUnavailable
from stillwell.incarnations import Incarnations
from stillwell.kafka_topics import TopicFacts

_LOOK_AGAIN = 10.0
"""Seconds for which an answer holds. An adoption is known by then; meanwhile rows are written as of the incarnation
before, which those that the worker writes again take the place of."""

_REFUSE_FOR = 0.5
"""Seconds in which nobody is asked again after a look that failed."""


class KnownTopics(Protocol):
    """What is asked of Kafka."""

    async def topics(self, names: Collection[str]) -> dict[str, TopicFacts]:
        """The named topics that exist. Raises StoreUnavailable."""


class PushTopics:
    """For one event loop."""

    def __init__(
        self, archive: Incarnations, kafka: KnownTopics, timeout: float, clock: Callable[[], float] | None = None
    ) -> None:
        """timeout: seconds for one look. clock: seconds that only grow."""
        self._archive = archive
        self._kafka = kafka
        self._timeout = timeout
        self._clock = clock or asyncio.get_running_loop().time
        self._known: dict[str, tuple[float, int | StoreError]] = {}
        self._looking: dict[str, asyncio.Task[int]] = {}

    async def incarnation(self, topic: str) -> int:
        """The number of the incarnation in force.

        Raises StoreUnavailable where Kafka or the offline store do not tell, or Kafka has no such topic, and where the
        topic was made anew and nobody has adopted it.
        """
        known = self._known.get(topic)
        if known is None:
            return await asyncio.shield(self._look(topic))
        until, found = known
        if self._clock() >= until:
            if isinstance(found, StoreError):
                return await asyncio.shield(self._look(topic))
            # Nobody waits for a look that most probably finds what is known.
            self._look(topic)
        if isinstance(found, StoreError):
            raise found
        return found

    def forget(self, topic: str) -> None:
        """Its records have offsets that it had before: it was made anew. What is being asked may be answered of the old
        one, and is not kept."""
        self._looking.pop(topic, None)
        self._known.pop(topic, None)

    async def close(self) -> None:
        """Ask nobody any more."""
        for task in self._looking.values():
            task.cancel()
        await asyncio.gather(*self._looking.values(), return_exceptions=True)

    def _look(self, topic: str) -> "asyncio.Task[int]":
        """Ask, all who want to know it at once by one question."""
        if topic not in self._looking:
            task = self._looking[topic] = asyncio.create_task(self._asked(topic))
            task.add_done_callback(functools.partial(self._looked, topic))
            task.add_done_callback(lambda task: task.cancelled() or task.exception())
        return self._looking[topic]

    def _looked(self, topic: str, task: "asyncio.Task[int]") -> None:
        if self._looking.get(topic) is task:
            del self._looking[topic]

    async def _asked(self, topic: str) -> int:
        try:
            async with asyncio.timeout(self._timeout):
                found = await self._ask(topic)
        except (StoreError, PartitionStopped, TimeoutError, OSError) as error:
            told = _told(topic, error)
            if self._looking.get(topic) is not asyncio.current_task():
                raise told from error
            known = self._known.get(topic)
            stands = isinstance(error, PartitionStopped) or known is None or isinstance(known[1], StoreError)
            if stands:
                self._known[topic] = self._clock() + _REFUSE_FOR, told
            elif known:
                # What was found lately still holds: a store that is away for a moment stops no pushes.
                self._known[topic] = self._clock() + _REFUSE_FOR, known[1]
            raise told from error
        if self._looking.get(topic) is asyncio.current_task():
            self._known[topic] = self._clock() + _LOOK_AGAIN, found
        return found

    async def _ask(self, topic: str) -> int:
        facts = (await self._kafka.topics([topic])).get(topic)
        if facts is None:
            raise StoreUnavailable("Kafka has no such topic: `stillwell topics create` makes it")
        found = await incarnations.in_force(self._archive, topic, "earliest", facts.id, facts.partitions)
        return found.incarnation


def _told(topic: str, error: Exception) -> StoreUnavailable:
    if isinstance(error, PartitionStopped):
        return StoreUnavailable(str(error))
    if isinstance(error, TimeoutError):
        return StoreUnavailable(f"push topic {topic}: Kafka or the offline store do not say in time which one it is")
    return StoreUnavailable(f"push topic {topic}: {error}")
