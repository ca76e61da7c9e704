"""The life of a partition between aiokafka and its flow: nothing is taken twice, passed over, or held without bound."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Sequence

import pytest
from aiokafka import TopicPartition

from stillwell.errors import PartitionStopped
from streams import consumer
from streams.consumer import Batch, Consumer, Limits
from streams.endings import OnlineFellBehind
from streams.flow import Flow
from streams.gate import RejectGate, RejectLimit
from streams.ingest import Ingest
from streams.metrics import Metrics
from tests.twin_kafka import Kafka
from tests.twin_line import PARTITION, PREPARATION, Log, Worker, World, _Inline, expected, links, some_log, stored

FIRST, SECOND = TopicPartition("t", 0), TopicPartition("t", 1)


class Line:
    """A consumer over two partitions, each with a world of its own; the agent is the real one, called at once."""

    def __init__(self, *logs: Log, buffer_bytes: int = 1 << 30, window_rows: int = 12) -> None:
        self.worlds = {TopicPartition("t", number): World(log) for number, log in enumerate(logs)}
        self.kafka = Kafka({partition: world.log for partition, world in self.worlds.items()})
        self.workers = {
            partition: Worker(world, f"p{partition.partition}", window_rows=window_rows)
            for partition, world in self.worlds.items()
        }
        self.opened: list[TopicPartition] = []
        self.before_opening: Callable[[TopicPartition], None] = lambda partition: None
        self.batches: list[Batch] = []
        self.holds_back = False
        self.ingest = Ingest(PREPARATION, RejectGate("t", RejectLimit(1.0, 1 << 30)), _Inline(), Metrics())
        limits = Limits(buffer_bytes, rebalance_timeout=4.0, drain_timeout=2.0, batch_records=7, reopen_after=0.0)
        self.consumer = Consumer(self.kafka, ["t"], self._open, self._deliver, limits, Metrics())

    async def _open(self, partition: TopicPartition) -> Flow:
        self.opened.append(partition)
        self.before_opening(partition)
        return await self.workers[partition].open()

    async def _deliver(self, batches: Sequence[Batch]) -> None:
        self.batches += batches
        if not self.holds_back:
            await self.ingest.take(batches)

    @contextlib.asynccontextmanager
    async def running(self, *partitions: TopicPartition) -> AsyncIterator[asyncio.Task[None]]:
        """The consumer at work, with these partitions; it is dropped at the end."""
        task = asyncio.create_task(self.consumer.run())
        await asyncio.sleep(0)
        await self.kafka.assign(*partitions)
        try:
            yield task
        finally:
            await self.consumer.drop()
            await asyncio.wait((task,), timeout=2)
            task.cancel()

    async def until(self, what: Callable[[], bool]) -> None:
        """Wait until something is so."""
        async with asyncio.timeout(5):
            while not what():  # noqa: ASYNC110
                await asyncio.sleep(0)

    def position(self, partition: TopicPartition = FIRST) -> int:
        """Up to where the partition's flow has come."""
        flow = self.consumer.flows.get(partition)
        return flow.ledger.position if flow else -1

    def linked(self, partition: TopicPartition = FIRST) -> int:
        """The chain's end."""
        world = self.worlds[partition]
        found = links(world) if PARTITION.genesis_path in world.store.objects else []
        return found[-1].end if found else 0


async def test_every_offset_is_taken_once_gaps_too(rng: random.Random) -> None:
    """What a revocation leaves at rest is all that was fetched, and Redis equals the oracle. The first records come
    from a fetch that was begun before the partition flowed."""
    line = Line(some_log(rng))
    async with line.running(FIRST):
        await line.until(lambda: line.position() == 40)
        await line.kafka.revoke(FIRST)
        assert line.consumer.flows == {}
        assert line.consumer.assigned == set()
    assert line.linked() == 40
    assert sum(link.gaps for link in links(line.worlds[FIRST])) == line.worlds[FIRST].log.values.count(None)
    assert stored(line.worlds[FIRST]) == expected(line.worlds[FIRST].log)


async def test_gaps_at_the_end_of_the_log_are_taken_without_a_record(rng: random.Random) -> None:
    """An aborted transaction alone moves the position: the chain reaches the end of the log."""
    line = Line(some_log(rng))
    line.worlds[FIRST].log.values += [None] * 3
    async with line.running(FIRST):
        await line.until(lambda: line.position() == 43)
        line.worlds[FIRST].log.values += [None] * 2
        await line.until(lambda: line.position() == 45)


async def test_records_from_before_the_position_are_left_out(rng: random.Random) -> None:
    """They were taken in already: each is counted, and archived, once."""
    line = Line(some_log(rng))
    line.kafka.repeats = 3
    async with line.running(FIRST):
        await line.until(lambda: line.position() == 40)
        await line.kafka.revoke(FIRST)
    taken = [offset for batch in line.batches for offset in batch.records.offsets.tolist()]
    assert taken == [offset for offset, body in enumerate(line.worlds[FIRST].log.values) if body is not None]


async def test_a_partition_begins_at_its_chains_end_and_is_silent_until_then(rng: random.Random) -> None:
    """What lies before it is not fetched again, whatever the placeholder says."""
    line = Line(some_log(rng))
    async with line.running(FIRST):
        await line.until(lambda: line.position() == 40)
        await line.kafka.revoke(FIRST)
        line.kafka.read.clear()
        line.worlds[FIRST].log.values += [b"{"]
        await line.kafka.assign(FIRST)
        await line.until(lambda: line.position() == 41)
    assert line.kafka.read == [(FIRST, 40)]


async def test_a_position_that_somebody_else_moved_ends_the_process(rng: random.Random) -> None:
    """Or what was passed over would be linked as a gap."""
    line = Line(some_log(rng))
    async with line.running(FIRST) as task:
        await line.until(lambda: line.position() == 40)
        line.kafka.seek(FIRST, 12)
        with pytest.raises(RuntimeError, match="but 40 is to be fetched next"):
            await asyncio.wait_for(task, 5)


@pytest.mark.parametrize(("large", "ahead"), [(1, 2), (1 << 30, 1)], ids=["large ones", "small ones"])
async def test_an_agent_that_lags_gets_few_batches(
    rng: random.Random, monkeypatch: pytest.MonkeyPatch, large: int, ahead: int
) -> None:
    """Two large ones wait for it, or one small one, whatever is in the log."""
    monkeypatch.setattr(consumer, "_LARGE_BATCH", large)
    line = Line(some_log(rng))
    line.holds_back = True
    async with line.running(FIRST):
        await line.until(lambda: len(line.batches) == ahead)
        for _ in range(20):
            await asyncio.sleep(0.002)
        assert len(line.batches) == ahead


async def test_a_topic_that_has_spent_its_memory_is_not_fetched_and_closes_its_largest_span(rng: random.Random) -> None:
    """The window never closes by itself, and only what is linked gives memory back: yet the log is read to its end."""
    line = Line(some_log(rng), buffer_bytes=100, window_rows=1 << 30)
    async with line.running(FIRST):
        await line.until(lambda: line.linked() >= 35)
    assert len(links(line.worlds[FIRST])) >= 3


async def test_a_sink_that_is_down_bounds_what_is_fetched(rng: random.Random) -> None:
    """With Redis dead nothing is linked; no more is fetched than the buffer holds."""
    line = Line(some_log(rng, 400), buffer_bytes=1)
    dead = line.workers[FIRST].online

    def refuse(operation: str) -> str | None:
        return "refused" if operation == "put" else None

    dead.faults = refuse  # type: ignore[assignment]
    async with line.running(FIRST):
        await line.until(lambda: bool(line.batches))
        for _ in range(50):
            await asyncio.sleep(0.002)
        assert len(line.batches) <= 2
        assert line.linked() == 0


async def test_a_partition_is_given_away_within_its_deadline_whatever_hangs(rng: random.Random) -> None:
    """What is in hand is dropped; its flow is over, and takes nothing any more."""
    line = Line(some_log(rng))
    line.consumer._limits = Limits(1 << 30, rebalance_timeout=0.1, drain_timeout=0.1, batch_records=7, reopen_after=0)
    line.workers[FIRST].online.faults = lambda operation: "refused" if operation == "put" else None
    async with line.running(FIRST):
        await line.until(lambda: line.position() == 40)
        flow = line.consumer.flows[FIRST]
        async with asyncio.timeout(2):
            await line.kafka.revoke(FIRST)
        assert flow.ended
        await line.ingest.take([line.batches[-1]])
        assert flow.ledger.position == 40


async def test_out_of_range_links_what_is_in_hand_and_goes_on_behind_the_hole(rng: random.Random) -> None:
    """Retention overtakes a running flow: an expired link covers what was never fetched, nothing else."""
    line = Line(some_log(rng, 60), window_rows=1 << 30)
    log = line.worlds[FIRST].log
    log.values, later = log.values[:20], log.values[20:]
    async with line.running(FIRST):
        await line.until(lambda: line.position() == 20)
        log.values += later
        log.start = 30
        await line.until(lambda: line.position() == 60)
        await line.kafka.revoke(FIRST)
    spans = [(link.start, link.end) for link in links(line.worlds[FIRST]) if link.expired]
    assert spans == [(20, 30)]
    assert line.linked() == 60


async def test_a_partition_out_of_range_does_not_disturb_one_whose_position_moved_over_a_gap(
    rng: random.Random,
) -> None:
    """aiokafka raises for the one after it has moved the other: what it moved over must be taken as a gap."""
    line = Line(some_log(rng), some_log(rng))
    async with line.running(FIRST, SECOND) as task:
        await line.until(lambda: line.position(FIRST) == 40 == line.position(SECOND))
        line.worlds[FIRST].log.values += [None] * 5
        line.worlds[SECOND].log.values += [b"{"] * 10
        line.worlds[SECOND].log.start = 45
        await line.until(lambda: task.done() or line.position(FIRST) == 45)
        assert not task.done(), task.exception()


async def test_a_partition_that_cannot_be_opened_ends_the_process(rng: random.Random) -> None:
    """Whatever it is: a partition must not be left alone in silence."""
    line = Line(some_log(rng))

    def fail(partition: TopicPartition) -> None:
        raise KeyError("a mistake of ours")

    line.before_opening = fail
    async with line.running(FIRST) as task:
        with pytest.raises(KeyError):
            await asyncio.wait_for(task, 5)


async def test_a_stopped_partition_is_looked_at_again(rng: random.Random) -> None:
    """A person's decision may have been carried out."""
    line = Line(some_log(rng))

    def stop_once(partition: TopicPartition) -> None:
        if len(line.opened) < 3:
            raise PartitionStopped("run a command")

    line.before_opening = stop_once
    async with line.running(FIRST):
        await line.until(lambda: line.position() == 40)
    assert len(line.opened) == 3


async def test_draining_links_what_was_fetched(rng: random.Random) -> None:
    """SIGTERM: the window is far from full."""
    line = Line(some_log(rng), window_rows=1 << 30)
    async with line.running(FIRST):
        await line.until(lambda: line.position() == 40)
        await line.consumer.drain()
        assert line.linked() == 40


async def test_a_redis_that_loses_rows_again_while_a_partition_is_opened_ends_no_process(rng: random.Random) -> None:
    """The opening ends, and is made anew: what Redis lacks is applied again by the next one."""
    line = Line(some_log(rng))
    fails = 3

    def fall_behind(partition: TopicPartition) -> None:
        if len(line.opened) <= fails:
            raise OnlineFellBehind("Redis has lost rows again that it had just taken")

    line.before_opening = fall_behind
    async with line.running(FIRST) as task:
        await line.until(lambda: task.done() or line.position() == 40)
        assert not task.done()
    assert len(line.opened) == fails + 1


async def test_what_is_assigned_while_the_worker_ends_is_not_begun(rng: random.Random) -> None:
    """A rebalance may come between the drain and the goodbye to the group: nobody would flush what it brings."""
    line = Line(some_log(rng))
    async with line.running():
        await line.consumer.drain()
        await line.kafka.assign(FIRST)
        assert line.consumer.assigned == set()
        assert line.opened == []
