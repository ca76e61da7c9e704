"""Creating topics in a cluster whose brokers are slow to tell of them, which a real one is only now and then."""

from collections.abc import Collection, Mapping

import pytest

from stillwell.errors import StoreUnavailable
from streams.cluster import Cluster, TopicFacts
from streams.topics import create_missing


class SlowCluster(Cluster):
    """One that tells of a new topic at the third question after it was created; at the second it has no leader."""

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
        return {name: TopicFacts(name, "an-id", 1) for name in names if self.asked >= 3}

    async def create_topic(self, name: str, partitions: int, replication: int, configs: Mapping[str, str]) -> bool:
        """Create it."""
        self.created.add(name)
        return True


async def test_topics_are_created_once_kafka_tells_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that is started next would be refused for want of topics that the command says it has made."""
    monkeypatch.setattr("streams.topics._TELLING_PAUSE", 0)
    cluster = SlowCluster()
    created, found = await create_missing(cluster, ["t", "dead"], 1, 1, "dead")
    assert [new.name for new in created] == ["t", "dead"]
    assert found == {}
    assert {"t", "dead"} <= set(await cluster.topics(["t", "dead"]))
    assert cluster.asked == 4, "three questions of the command, and the one above"


async def test_what_kafka_never_tells_of_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.topics._TELLING_PAUSE", 0)

    class Silent(SlowCluster):
        async def topics(self, names: Collection[str]) -> dict[str, TopicFacts]:
            return {}

    created, _ = await create_missing(Silent(), ["t"], 1, 1, "dead")
    assert [new.name for new in created] == ["t"]
