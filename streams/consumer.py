"""The aiokafka consumer: subscription, fetching, rebalances, back-pressure. It owns positions; agents only see batches.

The life of a partition here: assigned (paused, at a placeholder) → opened at the chain's end (`opening`) → flowing →
flushed and given away. Everything slow happens outside aiokafka's callbacks but the flush, which has to.

What aiokafka 0.14.0 does that this module leans on: a partition without a position raises at the next fetch, hence the
placeholder; `seek` drops what was fetched before; records of paused partitions are dropped and fetched again, so that
back-pressure leaves partitions out of `getmany` instead, which keeps at most one fetched response of each; a consumer's
position moves over aborted and compacted offsets even where no record is returned; heartbeats go on while partitions
are revoked, but not while they are assigned.
"""

import asyncio
import contextlib
import dataclasses
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np
import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import IllegalStateError, NoOffsetForPartitionError, OffsetOutOfRangeError
from aiokafka.structs import ConsumerRecord

from stillwell.errors import ChainError, PartitionStopped, StoreNotReady
from stillwell.records import Records
from streams.endings import FlowEnded, OutOfRange
from streams.flow import Flow
from streams.metrics import (
    BATCH,
    BUFFERED,
    DURABLE_LAG,
    EVENT_BYTES,
    EVENTS,
    LAG,
    REBALANCES,
    STOPPED,
    UNLINKED,
    Metrics,
)
from streams.naming import fields, labels, words
from streams.reopening import Reopening

_log = structlog.get_logger(__name__)

_BATCHES_AHEAD = 2  # one in the agent's hands, one waiting; more only means more memory and smaller batches
_LARGE_BATCH = 1 << 20
"""Bytes of a batch beside which the next one may wait. A batch costs some milliseconds however few records it has:
after a small one it is better to wait for the agent, and take all that has come by then."""
_IDLE_WAIT_MS = 100
_BUSY_WAIT_MS = 5

RECORD_OVERHEAD = 200
"""Bytes that a fetched record takes beside its key and value: the record object and its headers, near enough."""


@dataclasses.dataclass(frozen=True, slots=True)
class Batch:
    """Records for an agent, and the flow that they belong to; stale once that flow has ended.

    nbytes: memory that the records take.
    """

    flow: Flow
    records: Records
    nbytes: int


@dataclasses.dataclass(frozen=True, slots=True)
class Limits:
    """How much the consumer takes in at a time, and how long it waits. Times in seconds."""

    buffer_bytes: int
    rebalance_timeout: float
    drain_timeout: float
    batch_records: int = 10_000
    reopen_after: float = 5.0
    """How soon a stopped partition is looked at again: the person's decision may have been carried out."""


Open = Callable[[TopicPartition], Awaitable[Flow]]
"""Opens a partition at the chain's end, retrying for as long as a store does not answer. Raises PartitionStopped."""

Deliver = Callable[[Sequence[Batch]], Awaitable[None]]
"""Hands the batches of one topic to its agent without waiting for it."""


class Consumer:
    """Feeds batches of the assigned partitions to their agents. `run` it; `drain` it before it stops."""

    def __init__(
        self,
        kafka: AIOKafkaConsumer,
        topics: Iterable[str],
        open_partition: Open,
        deliver: Deliver,
        limits: Limits,
        metrics: Metrics,
    ) -> None:
        self._kafka = kafka
        self._topics = tuple(topics)
        self._open = open_partition
        self._deliver = deliver
        self._limits = limits
        self._metrics = metrics
        self._flows: dict[TopicPartition, Flow] = {}
        self._lives: dict[TopicPartition, asyncio.Task[None]] = {}
        self._crashed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._draining = False
        self._joined = False

    @property
    def flows(self) -> Mapping[TopicPartition, Flow]:
        """The partitions that flow now."""
        return self._flows

    @property
    def assigned(self) -> set[TopicPartition]:
        """The partitions that this process holds, flowing or not yet."""
        return set(self._lives)

    @property
    def joined(self) -> bool:
        """Whether the group has given this process its part, be it none."""
        return self._joined

    # ---- fetching ----

    async def run(self) -> None:
        """Fetch until drained. Raises what no retry can mend; the process is then to end."""
        self._kafka.subscribe(self._topics, listener=_Listener(self._revoked, self._assigned))
        fetching = asyncio.create_task(self._fetch_on())
        try:
            done, _ = await asyncio.wait((fetching, self._crashed), return_when=asyncio.FIRST_COMPLETED)
            for each in done:
                each.result()
        finally:
            fetching.cancel()
            await asyncio.wait((fetching,))

    async def _fetch_on(self) -> None:
        while not self._draining:
            await self._fetch()

    async def _fetch(self) -> None:
        """One round over all partitions."""
        wanted = self._partitions_with_room()
        if self._flows and not wanted:
            await asyncio.sleep(_BUSY_WAIT_MS / 1000)
            return
        await self._check_positions(wanted)
        # Partitions that are left out now cannot end the wait when they get room again: look again soon.
        wait_ms = _IDLE_WAIT_MS if len(wanted) == len(self._flows) else _BUSY_WAIT_MS
        try:
            fetched = await self._kafka.getmany(*wanted, timeout_ms=wait_ms, max_records=self._limits.batch_records)
        except OffsetOutOfRangeError as error:
            for partition, offset in error.args[0].items():
                self._out_of_range(partition, offset)
            fetched = {}  # before it raised, aiokafka may have moved others over gaps: they are taken below
        except NoOffsetForPartitionError:
            fetched = {}  # a partition that was assigned a moment ago and has no placeholder yet
        # Without partitions to name, aiokafka gives those of any that was opened while we waited: take them too.
        flows = {partition: flow for partition in {*wanted, *fetched} if (flow := self._flows.get(partition))}
        positions = {partition: await self._position(partition) for partition in flows}
        batches = [
            self._take(flow, _records(partition, flow.fetched, position, fetched.get(partition, ())))
            for partition, flow in flows.items()
            if self._flows.get(partition) is flow and (position := positions[partition]) > flow.fetched
        ]
        for topic in self._topics:
            if of_topic := [batch for batch in batches if batch.records.topic == topic]:
                await self._deliver(of_topic)

    async def _position(self, partition: TopicPartition) -> int:
        """The offset that is to be fetched next: past a gap, too, where no record came. -1 for one that was revoked."""
        try:
            return int(await self._kafka.position(partition))
        except IllegalStateError:
            return -1

    async def _check_positions(self, partitions: Iterable[TopicPartition]) -> None:
        """Offsets that the position has passed without a record count as gaps: nobody else may have moved it.

        Raises RuntimeError, which ends the process before anything is linked that was never seen.
        """
        for partition in partitions:
            flow = self._flows.get(partition)
            with contextlib.suppress(IllegalStateError):  # revoked meanwhile
                position = await self._kafka.position(partition)
                if flow and position != flow.fetched:
                    raise RuntimeError(
                        f"{words(partition)}: the position is {position}, but {flow.fetched} is to be fetched next"
                    )

    def _partitions_with_room(self) -> list[TopicPartition]:
        """The partitions that may be fetched: few batches ahead of their agent, in topics with credits left.

        Waiting for the agent makes batches grow under load, where small ones would cost most.
        """
        used = dict.fromkeys(self._topics, 0)
        for partition, flow in self._flows.items():
            used[partition.topic] += flow.nbytes
        for topic, nbytes in used.items():
            self._metrics.set(BUFFERED, nbytes, topic)
            if nbytes >= self._limits.buffer_bytes:
                flows = [flow for partition, flow in self._flows.items() if partition.topic == topic]
                make_room(flows, self._limits.buffer_bytes)
        return [
            partition
            for partition, flow in self._flows.items()
            if _wants_more(flow) and used[partition.topic] < self._limits.buffer_bytes
        ]

    def _take(self, flow: Flow, records: Records) -> Batch:
        """What was fetched, as the flow's next batch: from here on, the flow waits for it."""
        size = sum(map(len, filter(None, records.values))) + sum(map(len, filter(None, records.keys)))
        batch = Batch(flow, records, size + RECORD_OVERHEAD * len(records))
        flow.expect(records.end, batch.nbytes)
        self._metrics.count(EVENTS, len(records), records.topic)
        self._metrics.count(EVENT_BYTES, size, records.topic)
        self._metrics.observe(BATCH, len(records), records.topic)
        return batch

    # ---- the life of a partition ----

    def _assigned(self, partitions: Iterable[TopicPartition]) -> None:
        """In aiokafka's callback, without heartbeats: only put placeholders, and begin the lives outside."""
        if self._draining:
            return
        self._joined = True
        self._metrics.count(REBALANCES, 1)
        for partition in partitions:
            self._kafka.pause(partition)
            self._kafka.seek(partition, 0)
            self._lives[partition] = asyncio.create_task(self._live(partition), name=f"partition {partition}")
        _log.info("partitions assigned", partitions=[words(partition) for partition in sorted(self._lives)])

    async def _revoked(self, partitions: Iterable[TopicPartition]) -> None:
        """In aiokafka's callback: link and commit what is in hand within a deadline, then drop the rest.

        What is dropped is read again by whoever gets the partition.
        """
        if revoked := sorted(partitions):
            _log.info("partitions revoked", partitions=[words(partition) for partition in revoked])
        await self._give_away(revoked, self._limits.rebalance_timeout / 2)

    async def drain(self) -> None:
        """Stop fetching, and flush everything within the deadline."""
        self._draining = True
        await self._give_away(list(self._lives), self._limits.drain_timeout)
        _log.info("drained")

    async def drop(self) -> None:
        """Stop fetching, and leave what is in hand to whoever reads it again."""
        self._draining = True
        await self._give_away(list(self._lives), 0)

    async def _give_away(self, partitions: list[TopicPartition], deadline: float) -> None:
        flows = [flow for partition in partitions if (flow := self._flows.get(partition))]
        flushes = [asyncio.create_task(flow.flush()) for flow in flows]
        if flushes:
            _, late = await asyncio.wait(flushes, timeout=deadline)
            for flush in late:
                flush.cancel()
            if late:
                _log.warning("gave partitions away with work in hand; it will be read again", partitions=len(late))
        lives = [life for partition in partitions if (life := self._lives.pop(partition, None))]
        for life in lives:
            life.cancel()
        await asyncio.gather(*lives, return_exceptions=True)
        for partition in partitions:
            for gauge in (LAG, DURABLE_LAG, STOPPED, UNLINKED):
                self._metrics.forget(gauge, *labels(partition))

    async def _live(self, partition: TopicPartition) -> None:
        """Open the partition, let it flow, and open it anew whenever its flow ends."""
        reopening = Reopening()
        while True:
            try:
                flow = await self._open(partition)
                reopening.flows()
                pause = await self._flow_until_it_ends(partition, flow, reopening)
            except FlowEnded as reason:  # before it began: Redis has lost more while it was opened
                _log.warning("partition is opened anew", **fields(partition), reason=str(reason))
                pause = reopening.ended(progressed=False)
            except (PartitionStopped, StoreNotReady, ChainError) as reason:
                if reopening.is_news(str(reason), asyncio.get_running_loop().time()):
                    _log.error("partition stopped", **fields(partition), reason=str(reason))
                self._metrics.set(STOPPED, 1, *labels(partition))
                pause = self._limits.reopen_after
            except Exception as error:  # whatever it is, a partition must not be left alone in silence
                self._crash(partition, error)
                return
            await asyncio.sleep(pause)

    async def _flow_until_it_ends(self, partition: TopicPartition, flow: Flow, reopening: Reopening) -> float:
        """How long to wait until it is opened anew."""
        begun = flow.ledger.linked
        try:
            await self._flow(partition, flow)
        except FlowEnded as reason:
            _log.warning("partition is opened anew", **fields(partition), reason=str(reason))
        return reopening.ended(progressed=flow.ledger.linked > begun)

    def _crash(self, partition: TopicPartition, error: Exception) -> None:
        """End `run` with this error. Those that come later, or while nobody runs it any more, are at least told."""
        if self._draining or self._crashed.done():
            _log.error("partition failed while the worker ends", **fields(partition), exc_info=error)
        else:
            self._crashed.set_exception(error)

    async def _flow(self, partition: TopicPartition, flow: Flow) -> None:
        self._metrics.set(STOPPED, 0, *labels(partition))
        _log.info("partition flows", **fields(partition), incarnation=flow.id.incarnation, offset=flow.fetched)
        self._kafka.seek(partition, flow.fetched)
        self._flows[partition] = flow
        self._kafka.resume(partition)
        try:
            await flow.run()
        finally:
            del self._flows[partition]
            with contextlib.suppress(IllegalStateError):  # it may be another member's by now
                self._kafka.pause(partition)

    def _out_of_range(self, partition: TopicPartition, offset: int) -> None:
        if flow := self._flows.get(partition):
            self._kafka.pause(partition)
            flow.end(OutOfRange(f"{words(partition)}: Kafka no longer has offset {offset}"))


def _wants_more(flow: Flow) -> bool:
    """Whether another batch may be fetched before the agent has taken those that were."""
    return not flow.batches_ahead or (flow.batches_ahead < _BATCHES_AHEAD and flow.bytes_ahead >= _LARGE_BATCH)


class Spans(Protocol):
    """A flow, as far as its memory goes. Sizes in bytes."""

    @property
    def open_bytes(self) -> int:
        """What closing its span would set on its way."""

    @property
    def closing_bytes(self) -> int:
        """What is on its way to a link."""

    def close_span(self) -> None:
        """Set it on its way."""


def make_room(flows: Sequence[Spans], limit: int) -> None:
    """Close a topic's largest span before its time: only what is linked gives its memory back.

    Not while a quarter of the limit is on its way already. It will be free soon, or, where the store is slow, no sooner
    for being followed by more: spans would be closed as fast as they are opened, each a file of a few records.
    """
    if sum(flow.closing_bytes for flow in flows) >= limit // 4:
        return
    largest = max(flows, key=lambda flow: flow.open_bytes)
    if largest.open_bytes:
        largest.close_span()


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka carries no types
    def __init__(
        self,
        revoked: Callable[[Iterable[TopicPartition]], Awaitable[None]],
        assigned: Callable[[Iterable[TopicPartition]], None],
    ) -> None:
        self._revoked = revoked
        self._assigned = assigned

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        await self._revoked(revoked)

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        self._assigned(assigned)


def _records(partition: TopicPartition, start: int, end: int, fetched: Sequence[ConsumerRecord]) -> Records:
    """Columns of the offsets [start, end); what lies before start was taken in already and is left out."""
    found = fetched if not fetched or fetched[0].offset >= start else [each for each in fetched if each.offset >= start]
    return Records(
        topic=partition.topic,
        partition=partition.partition,
        start=start,
        end=end,
        offsets=np.array([record.offset for record in found], np.int64),
        timestamps=np.array([record.timestamp for record in found], np.int64),
        keys=[record.key for record in found],
        values=[record.value for record in found],
        headers=[record.headers for record in found],
    )
