"""Asking Kafka about topics while some of its brokers swallow what they are sent."""

import socket
import time
from collections.abc import Callable, Iterator

import pytest
from aiokafka.structs import BrokerMetadata

from stillwell.errors import StoreUnavailable
from streams.cluster import Cluster

PATIENCE_S = 0.3


@pytest.fixture
def black_holes() -> Iterator[list[BrokerMetadata]]:
    """Two brokers that take connections and never say a word."""
    listening = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    yield [BrokerMetadata(1001 + at, "127.0.0.1", each.getsockname()[1], None) for at, each in enumerate(listening)]
    for each in listening:
        each.close()


@pytest.mark.parametrize("reaching", [True, False])
async def test_a_broker_that_does_not_answer_is_passed_over_for_one_that_does(
    reaching: bool,
    black_holes: list[BrokerMetadata],
    bootstrap: str,
    topic: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Though it is asked last; where none does, each of them is named."""
    name = topic(partitions=3)
    cluster = Cluster(
        {"bootstrap_servers": bootstrap}, patience=PATIENCE_S, shuffle=lambda brokers: brokers.sort(reverse=True)
    )
    await cluster.start()
    try:
        known = cluster._client.cluster
        brokers = {broker.nodeId: broker for broker in (*black_holes, *(known.brokers() if reaching else ()))}
        monkeypatch.setattr(known, "brokers", lambda: set(brokers.values()))
        monkeypatch.setattr(known, "broker_metadata", brokers.get)
        began = time.monotonic()
        if reaching:
            assert (await cluster.topics([name]))[name].partitions == 3
        else:
            with pytest.raises(StoreUnavailable, match=r"broker 1002: .*; broker 1001: "):
                await cluster.topics([name])
        # For each: to connect, behind the client's own attempts; a single patience of aiokafka's would be 40 s.
        assert PATIENCE_S < time.monotonic() - began < 10
    finally:
        monkeypatch.undo()
        await cluster.stop()
