"""What a worker does between Kafka and its sinks, whatever they are: opens partitions, lets them flow, watches them."""

import asyncio
import contextlib
import dataclasses
import functools
from collections.abc import Sequence

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.structs import OffsetAndMetadata

from stillwell.errors import ChainError, PartitionStopped, StoreUnavailable
from stillwell.layout.chain import TopicIncarnation
from streams.cluster import Cluster
from streams.consumer import Consumer, Deliver, Limits
from streams.endings import Adopted, TopicReplaced
from streams.flow import Flow, RefreshOnWrite, Sinks
from streams.log_ends import LogEnds
from streams.metrics import FAILED_COMMITS, Metrics
from streams.naming import fields, words
from streams.online_watch import OnlineWatch
from streams.opening import KafkaPartition, LogFacts, Opening
from streams.ports import Archive, DeadLetters, OnlineStore, Threads
from streams.prepare import Preparation
from streams.retry import Retries
from streams.standing import Standing
from streams.watch import Watchdog
from streams.web import Health
from streams.window import Window

_log = structlog.get_logger(__name__)

_REPORT_EVERY = 1.0
_CHECK_ONLINE_EVERY = 5.0
_LOOK_AROUND_EVERY = 10.0
"""Seconds between two looks at what nothing tells of: where logs end, which incarnations are in force."""
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
    refresh: RefreshOnWrite | None = None
    """None where no write asks for a refresh."""


class Worker:
    """`run` it until `drain` was awaited."""

    def __init__(
        self,
        services: Services,
        preparations: Sequence[Preparation],
        deliver: Deliver,
        retries: Retries,
        window: Window,
        limits: Limits,
        watchdog: Watchdog,
        metrics: Metrics,
    ) -> None:
        """preparations: one for each topic."""
        self._services = services
        self._retries = retries
        self._watchdog = watchdog
        self._metrics = metrics
        self._openings = {each.topic.topic: self._opening(each, window) for each in preparations}
        self._online_watch = OnlineWatch(services.online)
        self._consumer = Consumer(services.kafka, self._openings, self._open, deliver, limits, metrics)
        self._log_ends = LogEnds(services.kafka)
        self._standing = Standing(self._openings, self._log_ends, metrics)

    async def run(self) -> None:
        """Consume until drained. Raises what no retry can mend; the process is then to end."""
        works = (
            self._consumer.run(),
            self._watch(),
            self._check_online(),
            self._ask_for_log_ends(),
            self._notice_adoptions(),
        )
        tasks = [asyncio.create_task(work) for work in works]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def drain(self) -> None:
        """Stop fetching, link and commit what is in hand within the deadline."""
        await self._consumer.drain()

    async def drop(self) -> None:
        """Stop at once; what is in hand will be read again."""
        await self._consumer.drop()

    def health(self) -> Health:
        """How the worker does, for the probes."""
        assigned, flowing = self._consumer.assigned, set(self._consumer.flows)
        waiting = [f"{words(partition)} does not flow" for partition in sorted(assigned - flowing)]
        silent = [f"{sink} does not answer" for sink in self._retries.silent]
        return Health(ready=self._consumer.joined and not waiting and not silent, details=(*silent, *waiting))

    # ---- opening a partition ----

    def _opening(self, preparation: Preparation, window: Window) -> Opening:
        sinks = Sinks(
            online=self._services.online,
            dead_letters=self._services.dead_letters,
            retry_online=self._retries.online,
            retry_dead_letters=self._retries.dead_letters,
            threads=self._services.threads,
            refresh=self._services.refresh,
        )
        return Opening(self._services.archive, sinks, preparation, window, self._metrics)

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
            raise StoreUnavailable(f"Kafka does not tell which offsets {words(partition)} holds: {error!r}") from error
        committed = await self._services.cluster.committed(self._services.group, partition)
        if committed:
            self._standing.was_linked(partition, committed[0])
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
            _log.info("offset not committed", **fields(partition), offset=offset, reason=repr(error))

    # ---- watching ----

    async def _check_online(self) -> None:
        """Notice a Redis that has forgotten, or may soon, even while no event comes."""
        while True:
            await asyncio.sleep(_CHECK_ONLINE_EVERY)
            flows = self._consumer.flows.values()
            await asyncio.gather(self._online_watch.look(), *(flow.check_online() for flow in flows))

    async def _ask_for_log_ends(self) -> None:
        while True:
            await self._log_ends.ask(self._consumer.assigned)
            await asyncio.sleep(_LOOK_AROUND_EVERY)

    async def _notice_adoptions(self) -> None:
        """Where Kafka's topic is still the same one, a flow notices nothing of a new incarnation by itself."""
        while True:
            await asyncio.sleep(_LOOK_AROUND_EVERY)
            for topic in {partition.topic for partition in self._consumer.flows}:
                with contextlib.suppress(ChainError):  # whoever opens a partition is told of it
                    self._end_older_than(await self._services.archive.incarnation(topic))

    def _end_older_than(self, newest: TopicIncarnation | None) -> None:
        for flow in self._consumer.flows.values():
            if newest and flow.id.topic == newest.topic and flow.id.incarnation < newest.incarnation:
                flow.end(Adopted(f"{flow.id}: incarnation {newest.incarnation} of topic {newest.topic} is in force"))

    async def _watch(self) -> None:
        """Report where every partition stands, and end the process when one stands still for no reason."""
        while True:
            await asyncio.sleep(_REPORT_EVERY)
            now = asyncio.get_running_loop().time()
            progress = self._standing.report(self._consumer.assigned, self._consumer.flows)
            self._watchdog.look(now, progress, sinks_healthy=not self._retries.silent)
