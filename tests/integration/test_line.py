"""The line: events from Kafka into Redis and Parquet, by real workers on real parts."""

import json
import random
from collections.abc import Callable

from stillwell.layout import chain
from tests.integration import orders
from tests.integration.conftest import Deployment
from tests.stores import store_of
from tests.waiting import eventually


def linked_records(deployment: Deployment) -> int:
    """How many records the chains cover."""
    store = store_of(deployment.settings)
    return sum(link.records for id in chain.partitions(store) for link in chain.walk(store, id)[1])


def test_every_event_is_at_rest_once_and_every_customer_has_the_newest_order(
    deploy: Callable[..., Deployment], rng: random.Random
) -> None:
    """One worker, events in disorder: `verify` finds nothing wrong, Redis equals an oracle over the same events."""
    deployment = deploy(partitions=1)
    sent = [orders.order(number, rng) for number in range(3_000)]
    orders.produce(deployment.bootstrap, deployment.topic, sent)
    worker = deployment.start_worker().until_ready()
    eventually(lambda: linked_records(deployment) == len(sent), within_s=30, what="all records linked")
    assert worker.stop() == 0
    made = {each.name for each in deployment.folder.iterdir()}
    assert made == {"orders", "offline", worker.log.name}, "nothing where it stands, which may be a read-only container"
    verified = deployment.run("verify", "--json")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    report = json.loads(verified.stdout)
    assert sum(partition["records"] for partition in report["partitions"]) == len(sent)
