"""Which incarnation of a push topic is in force: what a token names, and what the stamps of its rows hold.

The offline store knows it, and it changes only when somebody adopts a topic that was made anew. So it is looked up when
a view is first pushed to, and again once in a while, and as soon as offsets begin again; the topic's id tells whether
Kafka still has the same one. A topic that no worker has read yet is opened here, as a worker would.

A view that is pushed to all the time has its answer renewed behind the pushes, and none of them waits. One that was not
for a while has no answer that still holds, and the push that ends the pause waits for a look: the topic may have been
made anew, adopted, and filled by others meanwhile, and a token of the incarnation before would be passed at once.

What remains is the time for which an answer holds. Where a topic is made anew within it, and others have put more into
the new one than this process knows of the old, a push is taken as of the incarnation before: its token may be passed
before its rows are in Redis, or be waited for in vain. A process that knows of more finds out by offsets (`forget`). To
be certain in each case Kafka and the offline store would have to be asked behind every push. And where one of them is
away an answer holds for longer, as pushes would have to be refused otherwise; unless Kafka tells of another topic.
"""

import asyncio
import dataclasses
import functools
from collections.abc import Callable, Collection
from typing import Protocol

from stillwell import incarnations
from stillwell.errors import PartitionStopped, StoreError, StoreUnavailable
from stillwell.incarnations import Incarnations
from stillwell.kafka_topics import TopicFacts

_HOLDS = 10.0
"""Seconds, counted from the beginning of a look, for which nobody waits for another one. With more, more tokens may be
of the incarnation before; with less, who pushes seldom waits more often, for Kafka and for a bucket. Rows that are
written as of that one meanwhile are no matter: those that the worker writes again take their place."""

_LOOK_AGAIN = 5.0
"""Seconds after which a push has it looked for again, and does not wait: the rest of the time is for the look."""

_REFUSE_FOR = 0.5
"""Seconds in which nobody is asked again after a look that failed."""


class KnownTopics(Protocol):
    """What is asked of Kafka."""

    async def topics(self, names: Collection[str]) -> dict[str, TopicFacts]:
        """The named topics that exist. Raises StoreUnavailable."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Known:
    """What a look has come to: an incarnation, or why there is none. topic_id: of the topic that Kafka had then. again:
    from when on it is to be looked for once more. until: to when nobody waits for that."""

    found: int | StoreError
    topic_id: str
    again: float
    until: float


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
        self._known: dict[str, _Known] = {}
        self._looking: dict[str, asyncio.Task[int]] = {}

    async def incarnation(self, topic: str) -> int:
        """The number of the incarnation in force, as it was at most `_HOLDS` seconds ago; or as it was last found,
        where the offline store does not tell, or Kafka does not, and it is not known to be another.

        Raises StoreUnavailable where nothing was ever found, and says what is amiss with Kafka or the offline store;
        and where the topic was made anew and nobody has adopted it.
        """
        known = self._known.get(topic)
        if known is None or self._clock() >= known.until:
            return await asyncio.shield(self._look(topic))
        if self._clock() >= known.again:
            self._look(topic)
        if isinstance(known.found, StoreError):
            raise known.found
        return known.found

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
        begun = self._clock()
        try:
            async with asyncio.timeout(self._timeout):
                found, topic_id = await self._ask(topic)
        except (StoreError, PartitionStopped, TimeoutError, OSError) as error:
            return self._held(topic, error)
        if self._is_looking(topic):
            self._known[topic] = _Known(found, topic_id, begun + _LOOK_AGAIN, begun + _HOLDS)
        return found

    async def _ask(self, topic: str) -> tuple[int, str]:
        """The incarnation in force, and the id of the topic that Kafka has."""
        facts = (await self._kafka.topics([topic])).get(topic)
        if facts is None:
            raise StoreUnavailable("Kafka has no such topic: `stillwell topics create` makes it")
        known = self._known.get(topic)
        if known and known.topic_id != facts.id and self._is_looking(topic):
            # Whatever the offline store says, or does not: what was found is of a topic that is no more.
            del self._known[topic]
        found = await incarnations.in_force(self._archive, topic, "earliest", facts.id, facts.partitions)
        return found.incarnation, facts.id

    def _held(self, topic: str, error: Exception) -> int:
        """What was found before a look that failed, where it may still hold: a store that is away for a moment stops no
        pushes. Raises what is told of the error where it does not."""
        told, now = _told(topic, error), self._clock()
        if not self._is_looking(topic):
            raise told from error
        known = self._known.get(topic)
        if known is None or isinstance(known.found, StoreError) or isinstance(error, PartitionStopped):
            self._known[topic] = _Known(told, "", now + _REFUSE_FOR, now + _REFUSE_FOR)
            raise told from error
        # Nobody waits for a store that is asked again and again: each look may take all of its time.
        self._known[topic] = dataclasses.replace(known, again=now + _REFUSE_FOR, until=now + _HOLDS)
        return known.found

    def _is_looking(self, topic: str) -> bool:
        """Whether what this task finds is to be kept: it was not forgotten meanwhile."""
        return self._looking.get(topic) is asyncio.current_task()


def _told(topic: str, error: Exception) -> StoreUnavailable:
    if isinstance(error, PartitionStopped):
        return StoreUnavailable(str(error))
    if isinstance(error, TimeoutError):
        return StoreUnavailable(f"push topic {topic}: Kafka or the offline store do not say in time which one it is")
    return StoreUnavailable(f"push topic {topic}: {error}")
