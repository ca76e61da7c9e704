"""Where a partition begins, and when it must not: what Kafka, the chain and Redis say, on the twins."""

import asyncio
import random

import pytest

import streams.opening
from stillwell.errors import PartitionStopped
from stillwell.layout.chain import PartitionId, TopicIncarnation
from streams import metrics
from streams.opening import LogFacts
from tests.chain_support import NOON
from tests.twin_line import Worker, World, links, some_log


def run(worker: Worker) -> None:
    """Let a worker read the log to its end; not for long."""
    asyncio.run(asyncio.wait_for(worker.work(), 10))


def test_a_topic_that_was_made_anew_is_not_read_until_it_is_adopted(rng: random.Random) -> None:
    """Its offsets begin again at 0: nothing of it belongs to the chain of the old one."""
    world = World(some_log(rng))
    run(Worker(world, "a"))
    before = dict(world.store.objects)
    world.log.topic_id = "id-2"
    with pytest.raises(PartitionStopped, match="stillwell topics adopt t"):
        run(Worker(world, "b"))
    assert world.store.objects == before


def test_a_topic_that_is_made_anew_between_two_looks_is_not_read_either(rng: random.Random) -> None:
    """The incarnation was still its own at the first look; the log that is looked at next is another topic's."""
    world = World(some_log(rng))
    run(Worker(world, "a"))
    before = dict(world.store.objects)
    looks = []

    class Anew(Worker):
        async def _look(self) -> LogFacts:
            looks.append(1)
            if len(looks) == 2:
                self.world.log.topic_id = "id-2"
            return await super()._look()

    with pytest.raises(PartitionStopped, match="stillwell topics adopt t"):
        run(Anew(world, "b"))
    assert world.store.objects == before


def test_a_log_that_ends_before_its_chain_stops_the_partition(
    rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kafka has lost what was read of it: the next records at these offsets would be others."""
    monkeypatch.setattr(streams.opening, "_TRUNCATED_PAUSE", 0)
    world = World(some_log(rng))
    run(Worker(world, "a"))
    del world.log.values[30:]
    with pytest.raises(PartitionStopped, match="ends at 30, before offset 40"):
        run(Worker(world, "b"))


def test_a_log_that_is_short_for_a_moment_is_waited_for(rng: random.Random, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new leader may not know yet how far readers had come."""
    monkeypatch.setattr(streams.opening, "_TRUNCATED_PAUSE", 0)
    world = World(some_log(rng))
    run(Worker(world, "a"))
    later = world.log.values[30:]
    del world.log.values[30:]
    looks = []

    class Late(Worker):
        async def _look(self) -> LogFacts:
            looks.append(1)
            if len(looks) == 5:
                self.world.log.values += later
            return await super()._look()

    run(Late(world, "b"))
    assert links(world)[-1].end == 40


@pytest.mark.parametrize(
    ("partition", "start", "begins_at"),
    [(0, "earliest", 10), (0, "latest", 40), (3, "earliest", 0), (3, "latest", 0)],
)
def test_a_partition_begins_where_its_topic_says_and_one_that_was_added_later_at_its_first_offset(
    partition: int, start: str, begins_at: int
) -> None:
    facts = LogFacts("id", 4, start=10, end=40, committed=None)
    incarnation = TopicIncarnation(
        created_at=NOON,
        topic="t",
        incarnation=1,
        topic_id="id",
        partitions=3,
        start=start,  # type: ignore[arg-type]
    )
    assert streams.opening._first_offset(PartitionId("t", 1, partition), incarnation, facts) == begins_at


def test_what_retention_took_is_counted(rng: random.Random) -> None:
    """There is an alarm on it."""
    world = World(some_log(rng))
    world.log.values, later = world.log.values[:10], world.log.values[10:]
    run(Worker(world, "a"))
    world.log.values += later
    world.log.start = 25
    worker = Worker(world, "b")
    run(worker)
    assert worker.metrics.get(metrics.EXPIRED, "t") == 15
