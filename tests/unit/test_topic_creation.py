"""Creating topics in a cluster whose brokers are slow to tell of them, which a real one is only now and then."""

from collections.abc import Collection, Mapping

import pytest

from stillwell.errors import StoreUnavailable
from stillwell.kafka_topics import TopicFacts
from stillwell.local import free_port
from streams.cluster import Cluster
from streams.topics import broker_count, create_missing


class SlowCluster(Cluster):
    """One that tells of new topics from the fifth question on after they were created: the first goes to a broker that
    knows of them already, the second finds no leader, and the next two go to a broker that does not know yet."""

    def __init__(self) -> None:
        self.asked = 0
        self.created: set[str] = set()

    async def topics(self, names: Collection[str]) -> dict[str, TopicFacts]:
        """Those that are told of by now."""
        if not self.created:
            return {}
        self.asked += 1
        if self.asked == 2:
            raise StoreUnavailable("Kafka does not tell of topic t: LeaderNotAvailableError")
        return {} if self.asked in (3, 4) else {name: TopicFacts(name, "an-id", 1) for name in names}

    async def create_topic(self, name: str, partitions: int, replication: int, configs: Mapping[str, str]) -> bool:
        """Create it, unless somebody else has just done so."""
        self.created.add(name)
        return name != "theirs"


async def test_topics_are_created_once_kafka_tells_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that is started next would be refused for want of topics that the command says it has made."""
    monkeypatch.setattr("streams.topics._TELLING_PAUSE", 0)
    cluster = SlowCluster()
    created, found = await create_missing(cluster, ["t", "dead"], 1, 1, "dead")
    assert [new.name for new in created] == ["t", "dead"]
    assert found == {}
    assert cluster.asked == 4 + 5, "five answers in a row, of whichever brokers"


async def test_topics_that_somebody_else_creates_at_the_same_time_are_waited_for_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("streams.topics._TELLING_PAUSE", 0)
    cluster = SlowCluster()
    created, _ = await create_missing(cluster, ["theirs"], 1, 1, "dead")
    assert created == []
    assert cluster.asked == 4 + 5


async def test_what_kafka_never_tells_of_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.topics._TELLING_PAUSE", 0)

    class Silent(SlowCluster):
        async def topics(self, names: Collection[str]) -> dict[str, TopicFacts]:
            return {}

    created, _ = await create_missing(Silent(), ["t"], 1, 1, "dead")
    assert [new.name for new in created] == ["t"]


async def test_a_kafka_that_is_not_there_is_told_by_the_setting_that_names_it() -> None:
    with pytest.raises(StoreUnavailable, match=r"Kafka cannot be reached: .*; check STILLWELL_KAFKA_BOOTSTRAP"):
        await broker_count({"bootstrap_servers": f"127.0.0.1:{free_port()}"})
