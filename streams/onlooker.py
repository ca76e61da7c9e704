"""A consumer without a group, for people who look: it moves no offset, joins nothing, and commits nothing."""

import asyncio
import contextlib
import heapq
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Self

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError, OffsetOutOfRangeError
from aiokafka.structs import ConsumerRecord

from stillwell.counting import counted
from stillwell.definitions.mistakes import did_you_mean
from stillwell.errors import SettingsError, StoreUnavailable
from stillwell.kafka_topics import KafkaTopics
from stillwell.progress import Advance, unseen

_WAIT_MS = 500
_PATIENCE = 30.0
"""Seconds without any progress before Kafka counts as silent."""

_MOST_NAMED = 10
"""Topics that a message lists, of a cluster that may have thousands."""


def no_topic(topic: str, known: Iterable[str]) -> str:
    """That Kafka has no such topic, and which one may have been meant."""
    names = sorted(known)
    near = did_you_mean(topic, names) or "; it has none at all"
    if len(names) > _MOST_NAMED and "did you mean" not in near:
        near = f"; it has {counted(len(names), 'topic')}, such as {', '.join(names[:_MOST_NAMED])}"
    return f"Kafka has no topic {topic}{near}"


class Onlooker:
    """Reads committed records of whole topics. Every method raises StoreUnavailable when Kafka does not answer."""

    def __init__(self, kafka: AIOKafkaConsumer) -> None:
        self._kafka = kafka

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, connection: Mapping[str, Any]) -> AsyncIterator[Self]:
        """connection: what every aiokafka client needs."""
        kafka = AIOKafkaConsumer(
            **connection,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_committed",
        )
        try:
            await kafka.start()
            yield cls(kafka)
        except (KafkaError, OSError) as error:
            raise StoreUnavailable(f"Kafka does not answer: {error!r}; check STILLWELL_KAFKA_BOOTSTRAP") from error
        finally:
            await kafka.stop()

    async def bounds(self, topic: str, partitions: int) -> list[tuple[int, int]]:
        """The offsets [start, end) that each partition of a topic holds, in order; end as committed readers see it."""
        wanted = [TopicPartition(topic, number) for number in range(partitions)]
        starts = await self._kafka.beginning_offsets(wanted)
        ends = await self._kafka.end_offsets(wanted)
        return [(starts[partition], ends[partition]) for partition in wanted]

    async def topics(self) -> set[str]:
        """The names of all topics that we may see, but for Kafka's own."""
        return {name for name in await self._kafka.topics() if not name.startswith("__")}

    async def records(
        self, topic: str, partitions: int, advance: Advance = unseen, begins: Mapping[int, int] = MappingProxyType({})
    ) -> AsyncIterator[ConsumerRecord]:
        """Every record of a topic from its beginning to the end that it has when this is called.

        advance: told of offsets, after each fetch that brought some. begins: the offset to begin a partition at, for
        those that are not to be read from their beginnings.
        """
        bounds = [
            (max(start, begins.get(number, start)), end)
            for number, (start, end) in enumerate(await self.bounds(topic, partitions))
        ]
        left = {TopicPartition(topic, number): end for number, (start, end) in enumerate(bounds) if start < end}
        known = sum(end - start for start, end in bounds)
        self._kafka.assign(list(left))
        for number, (start, _) in enumerate(bounds):
            if (partition := TopicPartition(topic, number)) in left:
                self._kafka.seek(partition, start)
        deadline = asyncio.get_running_loop().time() + _PATIENCE
        behind = known
        while left:
            for record in await self._fetch(list(left)):
                if record.offset < left[TopicPartition(topic, record.partition)]:
                    yield record
            # The position moves over what no record comes of: aborted transactions, their markers, compacted offsets.
            positions = {partition: await self._kafka.position(partition) for partition in left}
            left = {partition: end for partition, end in left.items() if positions[partition] < end}
            now = asyncio.get_running_loop().time()
            ahead = sum(end - positions[partition] for partition, end in left.items())
            if ahead < behind:
                behind, deadline = ahead, now + _PATIENCE
                advance(known - behind, known)
            elif now > deadline:
                raise StoreUnavailable(
                    f"Kafka sends nothing more of {topic}, {counted(behind, 'offset')} before its end; try again"
                )

    async def _fetch(self, partitions: Sequence[TopicPartition]) -> list[ConsumerRecord]:
        try:
            fetched = await self._kafka.getmany(*partitions, timeout_ms=_WAIT_MS)
        except OffsetOutOfRangeError as error:
            # Retention has taken the beginning meanwhile.
            await self._to_the_beginning(list(error.args[0]))
            return []
        return [record for records in fetched.values() for record in records]

    async def _to_the_beginning(self, partitions: Sequence[TopicPartition]) -> None:
        for partition, start in (await self._kafka.beginning_offsets(partitions)).items():
            self._kafka.seek(partition, start)


class _Ranked(NamedTuple):
    """A record's place among the newest; no two have the same."""

    timestamp: int
    partition: int
    offset: int
    record: ConsumerRecord


async def newest_records(connection: Mapping[str, Any], topic: str, count: int) -> list[ConsumerRecord]:
    """The newest records of a topic, `count` at most, by their timestamps, and within a partition by offset.

    Fewer where a log is compacted or holds transactions: so many offsets of each partition are read. Raises
    SettingsError where there is no such topic, StoreUnavailable where Kafka does not answer.
    """
    topics = KafkaTopics(connection)
    await topics.start()
    try:
        facts = (await topics.topics([topic])).get(topic)
    finally:
        await topics.stop()
    async with Onlooker.open(connection) as onlooker:
        if facts is None:
            raise SettingsError(no_topic(topic, await onlooker.topics()))
        bounds = await onlooker.bounds(topic, facts.partitions)
        begins = {number: max(start, end - count) for number, (start, end) in enumerate(bounds)}
        newest: list[_Ranked] = []  # so many at most, of however many partitions
        async for record in onlooker.records(topic, facts.partitions, begins=begins):
            ranked = _Ranked(record.timestamp, record.partition, record.offset, record)
            (heapq.heappush if len(newest) < count else heapq.heappushpop)(newest, ranked)
    return [ranked.record for ranked in sorted(newest)]
