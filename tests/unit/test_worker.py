"""A worker on the twins: what it asks Kafka of a partition, and what it tells it."""

import asyncio
import contextlib
import dataclasses
import random
from collections.abc import AsyncIterator, Callable, Collection

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import CommitFailedError
from aiokafka.structs import OffsetAndMetadata

from sinks.archive import Archive
from stillwell.kafka_topics import TopicFacts
from stillwell.testing.online import MemoryOnlineStore
from streams import worker as streams_worker
from streams.consumer import Limits
from streams.gate import RejectGate, RejectLimit
from streams.ingest import Ingest
from streams.metrics import Metrics
from streams.retry import Retries, Retry
from streams.watch import Watchdog
from streams.window import Window
from streams.worker import Services, Worker
from tests.twin_kafka import Kafka
from tests.twin_line import (
    KEYS,
    PARTITION,
    PREPARATION,
    Objects,
    World,
    _Inline,
    _no_sleep,
    _now,
    expected,
    links,
    some_log,
    stored,
)

FIRST = TopicPartition("t", 0)


class Broker(Kafka):
    """The consumer, and what else a worker asks of Kafka."""

    def __init__(self, world: World) -> None:
        super().__init__({FIRST: world.log})
        self.world = world
        self.committed: list[OffsetAndMetadata] = []
        self.chain_ends: list[int] = []
        """Where the chain ended at each commit."""
        self.refuses_commits = False
        self.before_topics: Callable[[], None] = lambda: None

    async def beginning_offsets(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        return {partition: self.logs[partition].start for partition in partitions}

    async def end_offsets(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        return {partition: self.logs[partition].end for partition in partitions}

    def last_stable_offset(self, partition: TopicPartition) -> int:
        return self.logs[partition].end

    async def commit(self, offsets: dict[TopicPartition, OffsetAndMetadata]) -> None:
        if self.refuses_commits:
            raise CommitFailedError
        self.committed += offsets.values()
        found = links(self.world)
        self.chain_ends.append(found[-1].end if found else 0)


@dataclasses.dataclass
class Cluster:
    """Kafka's facts."""

    broker: Broker

    async def topics(self, names: Collection[str]) -> dict[str, TopicFacts]:
        self.broker.before_topics()
        return {"t": TopicFacts("t", self.broker.world.log.topic_id, 1)}

    async def committed(self, group: str, partition: TopicPartition) -> tuple[int, str] | None:
        last = self.broker.committed[-1:]
        return (last[0].offset, last[0].metadata) if last else None


class Line:
    """A worker over one partition."""

    def __init__(self, world: World, window_rows: int = 12) -> None:
        self.world = world
        self.broker = Broker(world)
        self.online = MemoryOnlineStore(world.server, KEYS)
        self.reads: list[str] = []
        values = Metrics()
        retry = Retry("any", values, _no_sleep)
        ingest = Ingest(PREPARATION, RejectGate("t", RejectLimit(1.0, 1 << 30)), _Inline(), values)

        services = Services(
            kafka=self.broker,
            group="g",
            cluster=Cluster(self.broker),  # type: ignore[arg-type]
            online=self.online,
            archive=Archive(Objects(world.store), retry.until_done, _now, "a-test"),
            dead_letters=world.dead_letters,
            threads=_Inline(),
        )
        self.worker = Worker(
            services=services,
            preparations=[PREPARATION],
            deliver=ingest.take,
            retries=Retries(retry, retry, retry, retry, retry),
            window=Window(window_rows, 1 << 30, 1e9),
            limits=Limits(1 << 30, rebalance_timeout=4, drain_timeout=2, batch_records=7, reopen_after=0.01),
            watchdog=Watchdog(60),
            metrics=values,
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.Task[None]]:
        """The worker at work, with the partition."""
        task = asyncio.create_task(self.worker.run())
        await asyncio.sleep(0.001)
        await self.broker.assign(FIRST)
        try:
            yield task
        finally:
            await self.worker.drop()
            await asyncio.wait((task,), timeout=2)
            task.cancel()

    async def until(self, what: Callable[[], bool]) -> None:
        """Wait until something is so."""
        async with asyncio.timeout(5):
            while not what():  # noqa: ASYNC110
                await asyncio.sleep(0)

    @property
    def taken(self) -> int:
        """Up to which offset records were taken in."""
        return max((flow.ledger.position for flow in self.worker._consumer.flows.values()), default=0)

    @property
    def linked(self) -> int:
        """The chain's end."""
        found = links(self.world) if PARTITION.genesis_path in self.world.store.objects else []
        return found[-1].end if found else 0


async def test_a_worker_reads_a_log_to_its_end_and_commits_behind_its_last_link(rng: random.Random) -> None:
    """The group's offset carries start and nonce of the link that it was committed for."""
    line = Line(World(some_log(rng)))
    async with line.running():
        await line.until(lambda: line.taken == 40)
        await line.worker.drain()
    last = links(line.world)[-1]
    assert line.linked == 40
    assert [commit.offset for commit in line.broker.committed] == line.broker.chain_ends
    assert line.broker.committed[-1] == OffsetAndMetadata(40, f"{last.start}:{last.nonce}")
    assert stored(line.world) == expected(line.world.log)


async def test_the_hint_saves_the_walk(rng: random.Random) -> None:
    """Who opens the partition next does not read the links before the one that was committed for."""
    world = World(some_log(rng))
    first = Line(world)
    async with first.running():
        await first.until(lambda: first.taken == 40)
        await first.worker.drain()
    assert len(links(world)) > 2
    read: list[str] = []
    world.store.faults = lambda operation, path: read.append(path)
    second = Line(world)
    second.broker.committed = first.broker.committed
    async with second.running():
        await second.until(lambda: bool(second.worker._consumer.flows))
    walked = [path for path in read if path.startswith(PARTITION.folder) and path != PARTITION.genesis_path]
    assert links(world)[0].path not in walked


async def test_a_refused_commit_disturbs_nothing(rng: random.Random) -> None:
    """The offset is a hint: the partition may be another member's by now."""
    line = Line(World(some_log(rng)))
    line.broker.refuses_commits = True
    async with line.running():
        await line.until(lambda: line.taken == 40)
        await line.worker.drain()
    assert line.linked == 40


async def test_nothing_is_linked_of_a_topic_that_was_made_anew_while_it_was_read(rng: random.Random) -> None:
    """What is in hand may be of the new one: its chain must not take it."""
    line = Line(World(some_log(rng)), window_rows=1 << 30)
    async with line.running():
        await line.until(lambda: bool(line.worker._consumer.flows))
        (flow,) = line.worker._consumer.flows.values()
        await line.until(lambda: flow.ledger.position == 40)
        line.world.log.topic_id = "id-2"
        flow.close_span()
        await line.until(lambda: flow.ended)
        assert line.linked == 0
        assert "t-0 does not flow" in line.worker.health().details


async def test_a_redis_that_forgets_while_nothing_is_written_is_noticed(
    rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No event comes, and still the linked rows are there again after a look or two."""
    monkeypatch.setattr(streams_worker, "_CHECK_ONLINE_EVERY", 0.01)
    line = Line(World(some_log(rng)), window_rows=5)
    async with line.running():
        await line.until(lambda: bool(line.worker._consumer.flows))
        (flow,) = line.worker._consumer.flows.values()
        await line.until(lambda: flow.ledger.position == 40)
        flow.close_span()
        await line.until(lambda: line.linked == 40)
        line.world.server.fail_over(lost=4)
        await line.until(lambda: flow.ended)
        await line.until(lambda: stored(line.world) == expected(line.world.log))


async def test_a_flow_of_the_incarnation_in_force_goes_on_however_often_it_is_looked_for(
    rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The look is for topics that were adopted; what is read as it should be is not opened anew each time."""
    monkeypatch.setattr(streams_worker, "_LOOK_AROUND_EVERY", 0.001)
    line = Line(World(some_log(rng)), window_rows=1 << 30)
    looks: list[str] = []
    line.world.store.faults = lambda operation, path: looks.append(path)
    async with line.running():
        await line.until(lambda: line.taken == 40)
        (flow,) = line.worker._consumer.flows.values()
        looks.clear()
        await line.until(lambda: sum(path.endswith("@2/topic.json") for path in looks) > 2)
        assert not flow.ended
        assert list(line.worker._consumer.flows.values()) == [flow]


async def test_what_was_read_of_a_topic_that_is_gone_is_linked(rng: random.Random) -> None:
    """A topic that is gone is no other one."""
    line = Line(World(some_log(rng)), window_rows=1 << 30)
    async with line.running():
        await line.until(lambda: line.taken == 40)

        async def gone(names: Collection[str]) -> dict[str, TopicFacts]:
            return {}

        line.worker._services.cluster.topics = gone  # type: ignore[method-assign]
        await line.worker.drain()
    assert line.linked == 40
