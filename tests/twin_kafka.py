"""aiokafka's consumer on the twins: positions, pauses, rebalances and fetches over logs in memory.

It does what streams/consumer.py says that it leans on: a partition without a position raises, paused ones are left out,
`seek` drops what was fetched, positions move over gaps where no record is returned, and one partition that is out of
range raises for all, after others have moved.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import IllegalStateError, NoOffsetForPartitionError, OffsetOutOfRangeError
from aiokafka.structs import ConsumerRecord

from tests.twin_line import Log


class Kafka:
    """A consumer of one topic's partitions."""

    def __init__(self, logs: dict[TopicPartition, Log]) -> None:
        self.logs = logs
        self.positions: dict[TopicPartition, int | None] = {}
        self.paused: set[TopicPartition] = set()
        self.read: list[tuple[TopicPartition, int]] = []
        self.while_fetching: Callable[[], Any] = lambda: None
        self.repeats = 0
        """How many records before the position each fetch gives, as one of a compressed batch may."""
        self._listener: Any = None

    def subscribe(self, topics: Iterable[str], listener: Any) -> None:
        self._listener = listener

    async def assign(self, *partitions: TopicPartition) -> None:
        """What a rebalance gives."""
        self.positions |= dict.fromkeys(partitions)
        await self._listener.on_partitions_assigned(partitions)

    async def revoke(self, *partitions: TopicPartition) -> None:
        """What a rebalance takes."""
        await self._listener.on_partitions_revoked(partitions)
        for partition in partitions:
            del self.positions[partition]
            self.paused.discard(partition)

    def pause(self, partition: TopicPartition) -> None:
        self._require(partition)
        self.paused.add(partition)

    def resume(self, partition: TopicPartition) -> None:
        self._require(partition)
        self.paused.discard(partition)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self._require(partition)
        self.positions[partition] = offset

    async def position(self, partition: TopicPartition) -> int:
        self._require(partition)
        position = self.positions[partition]
        assert position is not None, "a real consumer would wait here"
        return position

    async def getmany(
        self, *partitions: TopicPartition, timeout_ms: int, max_records: int
    ) -> dict[TopicPartition, list[ConsumerRecord]]:
        await asyncio.sleep(0)
        self.while_fetching()
        await asyncio.sleep(0)
        fetched: dict[TopicPartition, list[ConsumerRecord]] = {}
        for partition in partitions or tuple(self.positions):
            if partition not in self.positions or partition in self.paused:
                continue
            position, log = self.positions[partition], self.logs[partition]
            if position is None:
                raise NoOffsetForPartitionError(partition)
            if not log.start <= position <= log.end:
                if fetched:
                    return fetched
                raise OffsetOutOfRangeError({partition: position})
            if records := self._take(partition, position, max_records):
                fetched[partition] = records
        return fetched

    def _take(self, partition: TopicPartition, position: int, most: int) -> list[ConsumerRecord]:
        records = []
        log = self.logs[partition]
        for offset in range(max(log.start, position - self.repeats), log.end):
            body = log.values[offset]
            if offset >= position:
                self.positions[partition] = offset + 1
            if body is not None:
                records.append(_record(partition, offset, body))
                self.read.append((partition, offset))
            if len(records) == most:
                break
        return records

    def _require(self, partition: TopicPartition) -> None:
        if partition not in self.positions:
            raise IllegalStateError(f"{partition} is not assigned")


def _record(partition: TopicPartition, offset: int, body: bytes) -> ConsumerRecord:
    return ConsumerRecord(
        partition.topic, partition.partition, offset, 1_767_225_600_000 + offset, 0, None, body, None, 0, len(body), ()
    )
