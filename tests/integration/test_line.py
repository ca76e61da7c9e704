"""The line: events from Kafka into Redis and Parquet, by real workers on real parts."""

import random
from collections.abc import Callable

from tests.integration import orders
from tests.integration.conftest import Deployment
from tests.integration.proof import prove, until_linked


def test_every_event_is_at_rest_once_and_every_customer_has_the_newest_order(
    deploy: Callable[..., Deployment], rng: random.Random
) -> None:
    """One worker, events in disorder: `verify` finds nothing wrong, Redis equals an oracle over the same events."""
    deployment = deploy(partitions=1)
    sent = orders.produce(deployment.bootstrap, deployment.topic, orders.orders(3_000, rng))
    worker = deployment.start_worker().until_ready()
    until_linked(deployment, sent)
    assert worker.stop() == 0
    made = {each.name for each in deployment.folder.iterdir()}
    assert made == {"orders", "offline", worker.log.name}, "nothing where it stands, which may be a read-only container"
    prove(deployment, sent, left_behind=0)
