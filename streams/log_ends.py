"""Where logs end for readers of committed records, asked of Kafka.

A consumer is told with every answer to a fetch, but it does not fetch while memory is spent, nor a partition that is
stopped: that is when people look how far it is behind.
"""

import asyncio
import itertools
from collections.abc import Iterable, Mapping, Sequence

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

_PATIENCE = 5.0


class LogEnds:
    """The end of each partition's log, as far as is known."""

    def __init__(self, kafka: AIOKafkaConsumer) -> None:
        """kafka: one that reads committed records, so that an end is that of the last finished transaction."""
        self._kafka = kafka
        self._asked: Mapping[TopicPartition, int] = {}

    async def ask(self, partitions: Iterable[TopicPartition]) -> None:
        """Ask anew for these and forget all others, by one request a topic and broker; one without answer is known
        from before."""
        topics = itertools.groupby(sorted(partitions), key=lambda partition: partition.topic)
        answers = await asyncio.gather(*(self._ask(list(of_one)) for _, of_one in topics))
        self._asked = {partition: end for answer in answers for partition, end in answer.items()}

    def of(self, partition: TopicPartition, flows: bool) -> int | None:
        """The end of an assigned partition's log; None where it is not known yet. flows: whether it is fetched, since
        then an answer to a fetch may be newer."""
        fetched = self._kafka.last_stable_offset(partition) if flows else None
        return max((end for end in (self._asked.get(partition), fetched) if end is not None), default=None)

    async def _ask(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        try:
            async with asyncio.timeout(_PATIENCE):
                ends: Mapping[TopicPartition, int] = await self._kafka.end_offsets(partitions)
        except (KafkaError, OSError, TimeoutError):
            return {partition: self._asked[partition] for partition in partitions if partition in self._asked}
        return ends
