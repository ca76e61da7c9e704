"""What a worker does between Kafka and its sinks, whatever they are: opens partitions, lets them flow, watches them."""

import asyncio
import dataclasses
import datetime
import functools
from collections.abc import Awaitable, Callable, Sequence

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.structs import OffsetAndMetadata

from stillwell.errors import PartitionStopped, StoreUnavailable
from stillwell.layout.chain import TopicIncarnation
from stillwell.pipeline import Pipeline
from streams.cluster import Cluster
from streams.consumer import Batch, Consumer, Limits
from streams.endings import TopicReplaced
from streams.flow import Flow, Sinks
from streams.metrics import ASSIGNED, DURABLE_LAG, FAILED_COMMITS, LAG, Metrics
from streams.opening import KafkaPartition, LogFacts, Opening
from streams.ports import Archive, DeadLetters, OnlineStore, Threads
from streams.prepare import Preparation
from streams.retry import Retries
from streams.watch import Progress, Watchdog
from streams.web import Health
from streams.window import Window

_log = structlog.get_logger(__name__)

_REPORT_EVERY = 1.0
_CHECK_ONLINE_EVERY = 5.0
_COMMIT_TIMEOUT = 10.0


@dataclasses.dataclass(frozen=True, slots=True)
class Services:
    """What the worker reads from and writes to; everything is started, and nobody else uses the consumer."""

    kafka: AIOKafkaConsumer
    group: str
    cluster: Cluster
    online: OnlineStore
    archive: Archive
    dead_letters: DeadLetters
    threads: Threads


class Worker:
    """`run` it until `drain` was awaited."""

    def __init__(
        self,
        services: Services,
        pipelines: Sequence[Pipeline],
        deliver: Callable[[Batch], Awaitable[None]],
        retries: Retries,
        window: Window,
        limits: Limits,
        watchdog: Watchdog,
        grace: datetime.timedelta,
        now: Callable[[], datetime.datetime],
        metrics: Metrics,
    ) -> None:
        """deliver: hands a batch to its topic's agent without waiting for it. grace: how long keys outlive a TTL."""
        self._services = services
        self._retries = retries
        self._watchdog = watchdog
        self._metrics = metrics
        self._openings = {each.topic.topic: self._opening(each, window, grace, now) for each in pipelines}
        self._consumer = Consumer(services.kafka, self._openings, self._open, deliver, limits, metrics)

    async def run(self) -> None:
        """Consume until drained. Raises what no retry can mend; the process is then to end."""
        tasks = [asyncio.create_task(work) for work in (self._consumer.run(), self._watch(), self._check_online())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()

    async def drain(self) -> None:
        """Stop fetching, link and commit what is in hand within the deadline."""
        await self._consumer.drain()

    async def drop(self) -> None:
        """Stop at once; what is in hand will be read again."""
        await self._consumer.drop()

    def health(self) -> Health:
        """How the worker does, for the probes."""
        assigned, flowing = self._consumer.assigned, set(self._consumer.flows)
        waiting = sorted(f"{partition.topic}-{partition.partition} does not flow" for partition in assigned - flowing)
        silent = [f"{sink} does not answer" for sink in self._retries.silent]
        return Health(
            alive=True, ready=self._consumer.joined and not waiting and not silent, details=(*silent, *waiting)
        )

    # ---- opening a partition ----

    def _opening(
        self, pipeline: Pipeline, window: Window, grace: datetime.timedelta, now: Callable[[], datetime.datetime]
    ) -> Opening:
        sinks = Sinks(
            online=self._services.online,
            dead_letters=self._services.dead_letters,
            retry_online=self._retries.online,
            retry_dead_letters=self._retries.dead_letters,
            threads=self._services.threads,
        )
        topic, preparation = pipeline.topic, Preparation(pipeline, grace)
        return Opening(topic.topic, topic.start, self._services.archive, sinks, preparation, window, now, self._metrics)

    async def _open(self, partition: TopicPartition) -> Flow:
        look, commit = functools.partial(self._look, partition), functools.partial(self._commit, partition)
        kafka = KafkaPartition(look, self._require_topic, commit)
        return await self._openings[partition.topic].open(partition.partition, kafka)

    async def _look(self, partition: TopicPartition) -> LogFacts:
        return await self._retries.kafka.until_done(lambda: self._look_once(partition))

    async def _look_once(self, partition: TopicPartition) -> LogFacts:
        facts = (await self._services.cluster.topics([partition.topic])).get(partition.topic)
        if facts is None:
            raise PartitionStopped(f"topic {partition.topic} is gone; create it again or take it from the definitions")
        try:
            start = (await self._services.kafka.beginning_offsets([partition]))[partition]
            end = (await self._services.kafka.end_offsets([partition]))[partition]
        except (KafkaError, OSError) as error:
            raise StoreUnavailable(f"Kafka does not tell which offsets {partition} holds: {error!r}") from error
        committed = await self._services.cluster.committed(self._services.group, partition)
        return LogFacts(facts.id, facts.partitions, start, end, committed[1] if committed else None)

    async def _require_topic(self, incarnation: TopicIncarnation) -> None:
        """No answer to a fetch tells which topic it is of: one made anew may hold the very offset that was asked for.

        A topic that is gone is no other one: what was read of it may be linked.
        """
        topic = incarnation.topic
        found = await self._retries.kafka.until_done(lambda: self._services.cluster.topics([topic]))
        if topic in found and found[topic].id != incarnation.topic_id:
            raise TopicReplaced(f"topic {topic} was made anew while it was read")

    async def _commit(self, partition: TopicPartition, offset: int, metadata: str) -> None:
        """The offset is a hint to whoever opens the partition next, and shows lag to Kafka's tools: no more."""
        try:
            async with asyncio.timeout(_COMMIT_TIMEOUT):
                await self._services.kafka.commit({partition: OffsetAndMetadata(offset, metadata)})
        except (KafkaError, TimeoutError) as error:
            self._metrics.count(FAILED_COMMITS, 1, partition.topic)
            _log.info("offset not committed", partition=str(partition), offset=offset, reason=repr(error))

    # ---- watching ----

    async def _check_online(self) -> None:
        """Notice a Redis that has forgotten even while no event comes."""
        while True:
            await asyncio.sleep(_CHECK_ONLINE_EVERY)
            await asyncio.gather(*(flow.check_online() for flow in self._consumer.flows.values()))

    async def _watch(self) -> None:
        """Report where every partition stands, and end the process when one stands still for no reason."""
        while True:
            await asyncio.sleep(_REPORT_EVERY)
            now = asyncio.get_running_loop().time()
            self._watchdog.look(
                now, [self._report(*item) for item in self._consumer.flows.items()], not self._retries.silent
            )
            held: dict[str, int] = dict.fromkeys(self._openings, 0)
            for partition in self._consumer.assigned:
                held[partition.topic] += 1
            for topic, count in held.items():
                self._metrics.set(ASSIGNED, count, topic)

    def _report(self, partition: TopicPartition, flow: Flow) -> Progress:
        ledger = flow.ledger
        stable_end = self._services.kafka.last_stable_offset(partition)
        lag = max(0, (stable_end or 0) - ledger.position)
        labels = (partition.topic, str(partition.partition))
        self._metrics.set(LAG, lag, *labels)
        self._metrics.set(DURABLE_LAG, ledger.position - ledger.linked, *labels)
        return Progress(partition, ledger.position, ledger.durable, ledger.linked, lag > 0 or ledger.has_closed_spans)
