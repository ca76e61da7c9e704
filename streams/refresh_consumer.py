"""The consumer of the refresh topic, in a group of its own: hints to the agent, and offsets back when they are done.

It never waits for the work: hints are taken into memory up to a number, and while that is full nothing is fetched.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.structs import OffsetAndMetadata

from streams.refresh import RefreshAgent
from streams.refresh_hints import RefreshBatch, RefreshHint

_log = structlog.get_logger(__name__)

_FETCH_WAIT_MS = 100
"""How long a fetch waits that finds nothing; one that finds something does not."""

_MOST_OF_A_FETCH = 5_000
"""Hints, which are taken in in one go: meanwhile nothing else is done."""

_FULL_PAUSE = 0.05
"""Seconds until it is looked again whether there is room."""

_COMMIT_EVERY = 0.5
"""Seconds: what is committed late is read again by whoever comes next, and found fresh."""

_COMMIT_TIMEOUT = 5.0

Deliver = Callable[[RefreshBatch], Awaitable[None]]
"""Hands a batch to the agent."""


class RefreshConsumer:
    """`run` it, and `stop` it while Kafka can still be told what is done."""

    def __init__(self, kafka: AIOKafkaConsumer, topic: str, agent: RefreshAgent, deliver: Deliver) -> None:
        """kafka: started, and nobody else's."""
        self._kafka = kafka
        self._topic = topic
        self._agent = agent
        self._deliver = deliver
        self._committed: dict[TopicPartition, int] = {}
        self._ending = False

    async def run(self) -> None:
        """Fetch until stopped. Raises what no retry can mend."""
        self._kafka.subscribe([self._topic], listener=_Listener(self._revoked))
        tasks = [asyncio.create_task(work) for work in (self._fetch(), self._commit_on(), self._agent.run())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def stop(self) -> None:
        """Fetch no more, and say what is done."""
        self._ending = True
        await self._commit()

    async def _fetch(self) -> None:
        while not self._ending:
            if not self._agent.has_room:
                await asyncio.sleep(_FULL_PAUSE)
                continue
            fetched = await self._kafka.getmany(timeout_ms=_FETCH_WAIT_MS, max_records=_MOST_OF_A_FETCH)
            # Read at once: what comes is of the assignment that is in force when it comes.
            life = self._agent.life
            hints = [
                RefreshHint(partition, record.offset, record.value, record.timestamp)
                for partition, records in fetched.items()
                for record in records
            ]
            if hints:
                batch = RefreshBatch(life, hints)
                await self._deliver(batch)
                await batch.taken.wait()

    async def _commit_on(self) -> None:
        while True:
            await self._agent.moved.wait()
            self._agent.moved.clear()
            await self._commit()
            await asyncio.sleep(_COMMIT_EVERY)

    async def _commit(self) -> None:
        """What is not committed is done again by whoever comes next, who finds it fresh."""
        mine = self._kafka.assignment()
        offsets = {
            partition: offset
            for partition, offset in self._agent.commits().items()
            if partition in mine and self._committed.get(partition) != offset
        }
        if not offsets:
            return
        try:
            async with asyncio.timeout(_COMMIT_TIMEOUT):
                await self._kafka.commit({at: OffsetAndMetadata(offset, "") for at, offset in offsets.items()})
            self._committed.update(offsets)
        except (KafkaError, TimeoutError) as error:
            _log.info("offsets of hints not committed", topic=self._topic, reason=repr(error))

    async def _revoked(self, partitions: Iterable[TopicPartition]) -> None:
        with contextlib.suppress(KafkaError):
            await self._commit()
        self._agent.forget()
        self._committed.clear()


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka carries no types
    def __init__(self, revoked: Callable[[Iterable[TopicPartition]], Awaitable[None]]) -> None:
        self._revoked = revoked

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        await self._revoked(revoked)

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Positions are those that were committed."""
