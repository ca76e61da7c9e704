"""The consumer's own decisions: when it ends, what it says, and what it does when memory is spent.

Kafka is a stand-in that has nothing to give; what real brokers do is for the tests of the integration.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, cast

import pytest
from aiokafka import ConsumerRebalanceListener, TopicPartition
from structlog.testing import capture_logs

from stillwell.errors import PartitionStopped
from stillwell.layout.chain import PartitionId
from streams.consumer import Batch, Consumer, Limits, make_room
from streams.endings import FlowEnded
from streams.flow import Flow
from streams.ledger import Ledger
from streams.metrics import BUFFERED, Metrics
from tests.twin_line import Worker, World, some_log
from tests.waiting import eventually_async

ORDERS = [TopicPartition("orders", number) for number in range(3)]


class _Kafka:
    """A consumer of a topic to which nothing comes."""

    def __init__(self) -> None:
        self.listener: ConsumerRebalanceListener | None = None
        self.fetching = 0

    def subscribe(self, topics: tuple[str, ...], listener: ConsumerRebalanceListener) -> None:
        self.listener = listener

    def pause(self, partition: TopicPartition) -> None: ...

    def resume(self, partition: TopicPartition) -> None: ...

    def seek(self, partition: TopicPartition, offset: int) -> None: ...

    async def position(self, partition: TopicPartition) -> int:
        return 0

    async def getmany(self, *partitions: TopicPartition, timeout_ms: int, max_records: int) -> dict[Any, Any]:
        self.fetching += 1
        try:
            await asyncio.sleep(0.001)
        finally:
            self.fetching -= 1
        return {}


class _Flow:
    """A partition that flows until it is told how to end."""

    def __init__(self) -> None:
        self.id = PartitionId("orders", 1, 0)
        self.fetched = 0
        self.nbytes = 70
        self.unlinked_seconds = 0.0
        self.batches_ahead = self.bytes_ahead = 0
        self.ledger = Ledger(0, ())
        self.ends: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        raise await self.ends

    async def flush(self) -> None: ...


class Line:
    """A consumer of three partitions, whose opening a test decides."""

    def __init__(self, open_partition: Callable[[TopicPartition], Awaitable[object]]) -> None:
        self.kafka = _Kafka()
        self.metrics = Metrics()
        self.consumer = Consumer(
            cast(Any, self.kafka),
            ["orders"],
            cast(Callable[[TopicPartition], Awaitable[Flow]], open_partition),
            self._deliver,
            Limits(buffer_bytes=1_000, rebalance_timeout=1, drain_timeout=1, reopen_after=0),
            self.metrics,
        )
        self.running = asyncio.create_task(self.consumer.run())

    async def assign(self) -> None:
        """Give it all partitions, as a rebalance does."""
        await asyncio.sleep(0)
        assert self.kafka.listener is not None
        await self.kafka.listener.on_partitions_assigned(ORDERS)

    async def _deliver(self, batches: Sequence[Batch]) -> None:
        raise AssertionError("nothing came from Kafka")


async def until(condition: Callable[[], object]) -> None:
    """Let the others run until it holds."""

    async def holds() -> bool:
        return bool(condition())

    await eventually_async(holds)


async def test_a_consumer_that_is_cancelled_leaves_nothing_running() -> None:
    async def flow(partition: TopicPartition) -> _Flow:
        return _Flow()

    line = Line(flow)
    await line.assign()
    await until(lambda: len(line.consumer.flows) == 3 and line.kafka.fetching)
    line.running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await line.running
    assert line.kafka.fetching == 0
    await line.consumer.drop()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_the_first_failure_ends_the_consumer_and_the_others_are_told() -> None:
    """A second one may be the cause of the first."""
    flows: list[_Flow] = []

    async def flow(partition: TopicPartition) -> _Flow:
        flows.append(_Flow())
        return flows[-1]

    line = Line(flow)
    await line.assign()
    await until(lambda: len(line.consumer.flows) == 3)
    with capture_logs() as logs:
        for number, each in enumerate(flows):
            each.ends.set_result(RuntimeError(f"failure {number}"))
        with pytest.raises(RuntimeError, match="failure 0"):
            await line.running
    assert line.kafka.fetching == 0
    failures = [log for log in logs if log["log_level"] == "error"]
    assert [(log["topic"], log["partition"], str(log["exc_info"])) for log in failures] == [
        ("orders", 1, "failure 1"),
        ("orders", 2, "failure 2"),
    ]


async def test_a_stopped_partition_is_told_once_for_each_reason() -> None:
    """It is looked at again and again, and would otherwise fill the log."""
    reasons: Iterator[str] = iter(["truncated"] * 5 + ["made anew"] * 5)
    waits = asyncio.Event()

    async def stopped(partition: TopicPartition) -> _Flow:
        if partition.partition == 0 and (reason := next(reasons, None)):
            raise PartitionStopped(reason)
        if partition.partition == 0:
            waits.set()
        return _Flow()

    line = Line(stopped)
    with capture_logs() as logs:
        await line.assign()
        async with asyncio.timeout(10):
            await waits.wait()
    told = [(log["topic"], log["partition"], log["reason"]) for log in logs if log["event"] == "partition stopped"]
    assert told == [("orders", 0, "truncated"), ("orders", 0, "made anew")]
    await line.consumer.drop()
    await line.running


async def test_a_partition_whose_flow_ends_at_once_again_and_again_does_not_spin() -> None:
    opened = 0

    async def ends(partition: TopicPartition) -> _Flow:
        nonlocal opened
        opened += 1
        flow = _Flow()
        flow.ends.set_result(FlowEnded("overtaken"))
        return flow

    line = Line(ends)
    await line.assign()
    await until(lambda: opened >= 2 * len(ORDERS))
    assert opened <= 3 * len(ORDERS), "pauses of 0.2 and 0.4 s lie between"
    await line.consumer.drop()
    await line.running


async def test_what_is_held_is_nothing_once_the_partitions_are_gone() -> None:
    """A gauge that keeps its last value would show memory that nobody holds."""

    async def flow(partition: TopicPartition) -> _Flow:
        return _Flow()

    line = Line(flow)
    await line.assign()
    await until(lambda: line.metrics.get(BUFFERED, "orders") == 210)
    assert line.kafka.listener is not None
    await line.kafka.listener.on_partitions_revoked(ORDERS)
    await until(lambda: line.metrics.get(BUFFERED, "orders") == 0)
    await line.consumer.drop()
    await line.running


async def test_a_partition_is_not_given_away_amid_the_commit_of_its_last_link(rng: random.Random) -> None:
    """Of two partitions that link at once, the one whose commit comes second must not be cut short: whoever opens it
    next would walk from an older hint, and Kafka's tools would show a lag for ever."""
    world = World(some_log(rng))
    worker = SlowToCommit(world, "a")
    await worker.work()
    assert worker.flow is not None
    assert worker.committed[-1] == world.log.end == worker.flow.ledger.linked


class SlowToCommit(Worker):
    """Kafka takes its time for each commit."""

    committed: tuple[int, ...] = ()

    async def _commit(self, offset: int, metadata: str) -> None:
        for _ in range(20):
            await asyncio.sleep(0)
        self.committed = (*self.committed, offset)


# ---- memory ----


class _Spans:
    def __init__(self, open_bytes: int, closing_bytes: int = 0) -> None:
        self.open_bytes = open_bytes
        self.closing_bytes = closing_bytes

    def close_span(self) -> None:
        self.open_bytes, self.closing_bytes = 0, self.closing_bytes + self.open_bytes


def test_memory_is_made_room_for_by_the_largest_spans_until_a_quarter_is_on_its_way() -> None:
    flows = [_Spans(100), _Spans(300), _Spans(200)]
    for _ in range(10):
        make_room(flows, 2_000)
    assert [flow.open_bytes for flow in flows] == [100, 0, 0], "300 and 200 of the 500 that are a quarter"
    flows[1].closing_bytes = 0
    make_room(flows, 2_000)
    assert [flow.open_bytes for flow in flows] == [0, 0, 0]
    make_room(flows, 2_000)


async def test_a_store_that_does_not_link_gets_no_more_and_smaller_files(rng: random.Random) -> None:
    """However often the consumer looks while memory is spent: only what is linked gives memory back."""
    world = World(some_log(rng))
    worker = Worker(world, "a", batch=2, window_rows=1_000)
    worker.online.faults = lambda operation: "refused" if operation == "put" else None
    working = asyncio.create_task(worker.work())
    while worker.flow is None or worker.flow.ledger.position < world.log.end:
        await asyncio.sleep(0)
        if worker.flow:
            make_room([worker.flow], 4)
    for _ in range(100):
        make_room([worker.flow], 4)
        await asyncio.sleep(0)
    assert worker.flow.closing_bytes > 0
    files = [path for path in world.store.objects if path.startswith("raw/")]
    assert len(files) == 2, "one for want of memory, and one with all the rest, which the end of the log has flushed"
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
