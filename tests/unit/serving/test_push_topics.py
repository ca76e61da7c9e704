"""Which incarnation of a push topic is in force: asked seldom, by one question, and never guessed."""

import asyncio
import datetime
from collections.abc import Collection
from typing import Literal

import pytest

from serving.pushing.topics import PushTopics
from stillwell.errors import StoreUnavailable
from stillwell.kafka_topics import KafkaTopics, TopicFacts, TopicsWhenAsked
from stillwell.layout.chain import TopicIncarnation

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


class Archive:
    """What the offline store knows."""

    def __init__(self) -> None:
        self.known: TopicIncarnation | None = None
        self.asked = 0
        self.error: Exception | None = None

    async def incarnation(self, topic: str) -> TopicIncarnation | None:
        self.asked += 1
        await asyncio.sleep(0)
        if self.error:
            raise self.error
        return self.known

    async def open_incarnation(
        self, topic: str, incarnation: int, topic_id: str, partitions: int, start: Literal["earliest", "latest"]
    ) -> TopicIncarnation:
        proposed = TopicIncarnation(
            created_at=NOW, topic=topic, incarnation=incarnation, topic_id=topic_id, partitions=partitions, start=start
        )
        self.known = self.known or proposed
        return self.known


class Kafka(KafkaTopics):
    """One topic, if any."""

    def __init__(self) -> None:
        self.facts: TopicFacts | None = TopicFacts("t", "id-1", 6)
        self.error: Exception | None = None
        self.starts = self.stops = 0

    async def start(self) -> None:
        self.starts += 1

    async def stop(self) -> None:
        self.stops += 1

    async def topics(self, names: Collection[str]) -> dict[str, TopicFacts]:
        await asyncio.sleep(0)
        if self.error:
            raise self.error
        return {self.facts.name: self.facts} if self.facts else {}


class World:
    def __init__(self) -> None:
        self.archive, self.kafka, self.now = Archive(), Kafka(), 0.0
        self.topics = PushTopics(self.archive, self.kafka, timeout=1.0, clock=lambda: self.now)

    async def later(self, seconds: float) -> None:
        """Let time pass, and what is asked in the background end."""
        self.now += seconds
        for _ in range(10):
            await asyncio.sleep(0)


async def test_the_first_push_opens_what_no_worker_has_read_yet() -> None:
    world = World()
    assert await world.topics.incarnation("t") == 1
    opened = world.archive.known
    assert opened
    assert (opened.topic_id, opened.partitions, opened.start) == ("id-1", 6, "earliest")


async def test_many_ask_by_one_question_and_nobody_again_for_a_while() -> None:
    world = World()
    assert await asyncio.gather(*(world.topics.incarnation("t") for _ in range(50))) == [1] * 50
    await world.later(4)
    assert await world.topics.incarnation("t") == 1
    await world.later(0)
    assert world.archive.asked == 1


async def adopted(world: World) -> None:
    """The topic is made anew, and somebody adopts it."""
    world.kafka.facts = TopicFacts("t", "id-2", 6)
    world.archive.known = None
    await world.archive.open_incarnation("t", 2, "id-2", 6, "earliest")


async def test_who_pushes_all_the_time_knows_of_an_adoption_after_a_while_and_waits_for_no_look() -> None:
    world = World()
    await world.topics.incarnation("t")
    await adopted(world)
    await world.later(6)
    assert await world.topics.incarnation("t") == 1
    await world.later(0)
    assert await world.topics.incarnation("t") == 2


async def test_who_pushes_behind_a_pause_waits_for_a_look_and_is_told_of_no_incarnation_before() -> None:
    world = World()
    await world.topics.incarnation("t")
    await adopted(world)
    await world.later(11)
    assert await asyncio.gather(*(world.topics.incarnation("t") for _ in range(50))) == [2] * 50
    assert world.archive.asked == 2


async def test_an_answer_is_as_old_as_the_beginning_of_its_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """What happens to the topic while an answer is on its way is not in it."""
    world = World()
    asked = world.kafka.topics

    async def slow(names: Collection[str]) -> dict[str, TopicFacts]:
        found = await asked(names)
        world.now += 9
        return found

    monkeypatch.setattr(world.kafka, "topics", slow)
    await world.topics.incarnation("t")
    await adopted(world)
    await world.later(2)
    assert await world.topics.incarnation("t") == 2


async def test_a_topic_made_anew_that_nobody_has_adopted_takes_no_pushes() -> None:
    """Behind a pause the first push finds out; otherwise those that come after it."""
    world = World()
    await world.topics.incarnation("t")
    world.kafka.facts = TopicFacts("t", "id-2", 6)
    await world.later(11)
    with pytest.raises(StoreUnavailable, match="stillwell topics adopt t"):
        await world.topics.incarnation("t")
    world = World()
    await world.topics.incarnation("t")
    world.kafka.facts = TopicFacts("t", "id-2", 6)
    await world.later(6)
    assert await world.topics.incarnation("t") == 1
    await world.later(0)
    with pytest.raises(StoreUnavailable, match="stillwell topics adopt t"):
        await world.topics.incarnation("t")


async def test_what_was_found_of_another_topic_than_kafka_has_holds_for_nobody() -> None:
    """The offline store, which would say whether the new one was adopted, is away."""
    world = World()
    await world.topics.incarnation("t")
    await adopted(world)
    world.archive.error = StoreUnavailable("away")
    await world.later(11)
    with pytest.raises(StoreUnavailable, match="away"):
        await world.topics.incarnation("t")
    world.archive.error = None
    await world.later(1)
    assert await world.topics.incarnation("t") == 2


async def test_a_topic_that_is_not_there_is_told_and_found_once_it_is() -> None:
    world = World()
    world.kafka.facts, facts = None, world.kafka.facts
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match=r"t: Kafka has no such topic: `stillwell topics create`"):
            await world.topics.incarnation("t")
    world.kafka.facts = facts
    await world.later(1)
    assert await world.topics.incarnation("t") == 1


async def test_what_was_found_holds_while_a_store_is_away() -> None:
    world = World()
    await world.topics.incarnation("t")
    for place in (world.archive, world.kafka):
        place.error = StoreUnavailable("away")
        for _ in range(3):
            await world.later(11)
            assert await world.topics.incarnation("t") == 1
        place.error = None


async def test_nobody_waits_again_and_again_for_a_store_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look may take all of its time: only the first push behind a pause waits so long."""
    world = World()
    topics = PushTopics(world.archive, world.kafka, timeout=0.01, clock=lambda: world.now)
    await topics.incarnation("t")
    monkeypatch.setattr(world.archive, "incarnation", lambda topic: asyncio.Event().wait())
    await world.later(11)
    assert await topics.incarnation("t") == 1
    for _ in range(30):
        await world.later(1)
        answered = asyncio.ensure_future(topics.incarnation("t"))
        await asyncio.sleep(0)
        assert answered.done()
        await asyncio.sleep(0.02)
    await topics.close()


async def test_who_is_slow_to_say_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    topics = PushTopics(world.archive, world.kafka, timeout=0.01)

    async def never(names: Collection[str]) -> dict[str, TopicFacts]:
        await asyncio.Event().wait()
        return {}

    monkeypatch.setattr(world.kafka, "topics", never)
    with pytest.raises(StoreUnavailable, match="do not say in time"):
        await topics.incarnation("t")
    await topics.close()


async def test_kafka_is_connected_when_it_is_first_asked_and_anew_behind_a_failure() -> None:
    made: list[Kafka] = []

    def make() -> Kafka:
        made.append(Kafka())
        return made[-1]

    topics = TopicsWhenAsked(make)
    assert made == []
    await topics.topics(["t"])
    await topics.topics(["t"])
    (first,) = made
    first.error = StoreUnavailable("away")
    with pytest.raises(StoreUnavailable):
        await topics.topics(["t"])
    await topics.topics(["t"])
    await topics.stop()
    assert [(each.starts, each.stops) for each in made] == [(1, 1), (1, 1)]


async def test_who_is_given_up_while_connecting_leaves_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    kafka = Kafka()

    async def never() -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(kafka, "start", never)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await TopicsWhenAsked(lambda: kafka).topics(["t"])
    assert kafka.stops == 1


async def test_what_was_known_of_a_topic_that_was_made_anew_is_forgotten_with_what_was_just_being_asked() -> None:
    world = World()
    asked = asyncio.ensure_future(world.topics.incarnation("t"))
    await asyncio.sleep(0)
    world.topics.forget("t")
    assert await asked == 1
    world.archive.known = None
    world.kafka.facts = TopicFacts("t", "id-2", 6)
    await world.archive.open_incarnation("t", 2, "id-2", 6, "earliest")
    assert await world.topics.incarnation("t") == 2
    world.kafka.facts = TopicFacts("t", "id-3", 6)
    world.topics.forget("t")
    with pytest.raises(StoreUnavailable, match="stillwell topics adopt t"):
        await world.topics.incarnation("t")
