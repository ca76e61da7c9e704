"""Push topics in memory, with faults on demand: the twin of the one in Kafka, under the same contract.

log = MemoryPushLog({"test.push.Users": 3})     topics and how many partitions they have
log.records("test.push.Users")                  all that is there, as a consumer finds it
log.faults = lambda topic: "lost answer"        what the next append meets
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple
from zlib import crc32

from stillwell.errors import OutcomeUnknown, StoreUnavailable
from stillwell.pushing.log import Place
from stillwell.pushing.record import PushRecord

Fault = Literal["refused", "lost answer", "lost call"]
"""`refused`: nothing is written, and it says so. `lost answer`: all is written; `lost call`: nothing is; the caller
cannot tell which."""


class Kept(NamedTuple):
    """A record in its place."""

    place: Place
    record: PushRecord


def no_faults(topic: str) -> Fault | None:
    """Every append succeeds."""
    return None


class MemoryPushLog:
    """Topics, each with some partitions."""

    def __init__(self, topics: Mapping[str, int], faults: Callable[[str], Fault | None] = no_faults) -> None:
        self.faults = faults
        self.clock: Callable[[], int] | None = None
        """What gives records their timestamps, in ms, where the topics do not keep those that they come with."""
        self._topics = {topic: [[] for _ in range(count)] for topic, count in topics.items()}  # type: ignore[var-annotated]
        self.made_anew: Callable[[str], None] = lambda topic: None
        """Told of a topic whose offsets begin again."""
        self._last: dict[tuple[str, int], int] = {}
        self._appended = 0

    async def append(self, topic: str, records: Sequence[PushRecord], timestamp: int) -> list[Place]:
        """See `stillwell.pushing.log.PushLog`. Keys are spread by another hash than Kafka's."""
        await asyncio.sleep(0)
        fault = self.faults(topic)
        if topic not in self._topics:
            raise StoreUnavailable(f"push topic {topic}: Kafka has no such topic: `stillwell topics create` makes it")
        if fault == "refused":
            raise StoreUnavailable(f"push topic {topic}: refused by the test")
        if fault == "lost call":
            raise OutcomeUnknown(f"push topic {topic}: no answer")
        self._appended += 1
        places = [self._keep(topic, record, timestamp) for record in records]
        await asyncio.sleep(0)
        if fault == "lost answer":
            raise OutcomeUnknown(f"push topic {topic}: no answer")
        return places

    def make_anew(self, topic: str) -> None:
        """Delete a topic, and make it again."""
        self._topics[topic] = [[] for _ in self._topics[topic]]

    def records(self, topic: str) -> list[Kept]:
        """All that is there, partition by partition, in the order of offsets."""
        return [kept for partition in self._topics[topic] for kept in partition]

    def _keep(self, topic: str, record: PushRecord, timestamp: int) -> Place:
        partitions = self._topics[topic]
        number = (self._appended if record.key is None else crc32(record.key)) % len(partitions)
        place = Place(number, len(partitions[number]), self.clock() if self.clock else timestamp)
        if place.offset <= self._last.get((topic, number), -1):
            self.made_anew(topic)
        self._last[topic, number] = place.offset
        partitions[number].append(Kept(place, record))
        return place
