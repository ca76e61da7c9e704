"""What Kafka can do to a worker: retention, topics that go and come again, transactions, compaction, and outages."""

import json
import random
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.cimpl import NewPartitions, NewTopic

from stillwell.layout import chain
from stillwell.local import KafkaBroker, LocalStack
from tests.conftest import BROKER_PROPERTIES
from tests.integration import oracle, orders
from tests.integration.conftest import Deployment
from tests.integration.orders import Feed, Record, Sent
from tests.integration.proof import log, metric, prove, until_linked, until_logged, verified
from tests.services import Proxy
from tests.stores import store_of
from tests.waiting import eventually, throughout

WORKERS_ASK_S = 10
"""How often a worker asks Kafka anew for the facts of its topics."""


def delete_before(admin: AdminClient, topic: str, offset: int, partition: int = 0) -> None:
    """Do what retention does: the log begins at this offset."""
    admin.delete_records([TopicPartition(topic, partition, offset)])[TopicPartition(topic, partition)].result(10)


def without(sent: Iterable[Sent], lost: range) -> list[Sent]:
    """Those of a topic's only partition that retention left."""
    return [each for each in sent if each.offset not in lost]


def expired_spans(deployment: Deployment) -> list[range]:
    """The offsets that links of the topic call expired."""
    store = store_of(deployment.settings)
    (id,) = (id for id in chain.partitions(store) if id.topic == deployment.topic)
    return [range(link.start, link.end) for link in chain.walk(store, id)[1] if link.expired]


def test_what_retention_took_from_a_stopped_worker_is_an_expired_link_and_an_alarm(
    deploy: Callable[..., Deployment], admin: AdminClient, rng: random.Random
) -> None:
    """The log begins beyond the chain's end when the worker comes back: the offsets between are covered by a link that
    says so, counted by an alarm, and everything after them is exact."""
    deployment = deploy()
    sent = orders.produce(deployment.bootstrap, deployment.topic, orders.orders(100, rng))
    worker = deployment.start_worker().until_ready()
    until_linked(deployment, sent)
    assert worker.stop() == 0
    sent += orders.produce(deployment.bootstrap, deployment.topic, orders.orders(200, rng, first=100))
    delete_before(admin, deployment.topic, 150)
    worker = deployment.start_worker().until_ready()
    sent = without(sent, range(100, 150))
    until_linked(deployment, sent)
    assert expired_spans(deployment) == [range(100, 150)]
    assert metric(worker, "stillwell_expired_offsets_total", topic=deployment.topic) == 50
    assert "events were lost" in log(worker)
    assert worker.stop() == 0
    prove(deployment, sent, expired=50)


def test_retention_that_overtakes_a_worker_whose_sink_is_dead(
    deploy: Callable[..., Deployment], admin: AdminClient, redis_proxy: Proxy, rng: random.Random
) -> None:
    """Redis is down, the worker's memory is full, and the log moves past where it reads: when Redis is back, what was
    in hand is linked, what retention took is covered by one expired link, and the rest is exact."""
    memory = {"buffer_bytes": "1MiB", "window_bytes": "256KiB", "partition_fetch_bytes": "256KiB"}
    deployment = deploy(redis_url=f"redis://{redis_proxy.address}/0", **memory)
    sent = orders.produce(deployment.bootstrap, deployment.topic, orders.orders(100, rng))
    worker = deployment.start_worker().until_ready()
    until_linked(deployment, sent)
    redis_proxy.down()
    # Padded with what no compression makes smaller: the memory of spans that wait for their link must stay full.
    values = [{**order, "pad": rng.randbytes(500).hex()} for order in orders.orders(5_000, rng, first=100)]
    sent += orders.produce(deployment.bootstrap, deployment.topic, values)
    eventually(
        lambda: metric(worker, "stillwell_buffered_bytes") >= 1 << 20, within_s=20, what="a worker with its memory full"
    )
    delete_before(admin, deployment.topic, 4_500)
    redis_proxy.up()
    until_logged(worker, "events were lost")
    (lost,) = expired_spans(deployment)
    assert 100 < lost.start < lost.stop == 4_500
    sent = without(sent, lost)
    until_linked(deployment, sent)
    assert metric(worker, "stillwell_expired_offsets_total", topic=deployment.topic) == len(lost)
    assert worker.stop() == 0
    prove(deployment, sent, expired=len(lost))


@pytest.mark.parametrize(
    ("made_anew_with", "frozen"),
    [(50, False), (400, True)],
    ids=["before its eyes, shorter", "behind its back, longer"],
)
def test_a_topic_made_anew_stops_its_partitions_and_no_others(
    deploy: Callable[..., Deployment],
    topic: Callable[..., str],
    admin: AdminClient,
    rng: random.Random,
    made_anew_with: int,
    frozen: bool,
) -> None:
    """A topic is deleted and made anew under a running worker: nothing of the new one gets into the old one's chain,
    the log names the command for a person to decide with, and the other topic goes on.

    Frozen meanwhile, and with more records in the new topic than it has read of the old one, the worker finds the very
    offset that it asks for: no answer of the broker to a fetch tells the two topics apart.
    """
    deployment = deploy()
    returns = topic("returns")
    orders.write_definitions(deployment.folder, deployment.topic, returns)
    of_orders = orders.produce(deployment.bootstrap, deployment.topic, orders.orders(200, rng))
    of_returns = orders.produce(deployment.bootstrap, returns, orders.orders(200, rng))
    worker = deployment.start_worker().until_ready()
    until_linked(deployment, of_orders)
    if frozen:
        worker.freeze()
    admin.delete_topics([deployment.topic])[deployment.topic].result(30)
    make_again(admin, deployment.topic)
    orders.produce(deployment.bootstrap, deployment.topic, orders.orders(made_anew_with, rng, first=1_000))
    if frozen:
        worker.thaw()
    until_logged(worker, f"stillwell topics adopt {deployment.topic}")
    assert metric(worker, "stillwell_partition_stopped", topic=deployment.topic) == 1
    of_returns += orders.produce(deployment.bootstrap, returns, orders.orders(200, rng, first=200))
    until_linked(deployment, of_returns, topic=returns)
    assert worker.stop() == 0
    prove(deployment, of_returns, topic=returns, view=orders.VIEW_OF_RETURNS)
    assert oracle.linked(deployment.settings, deployment.topic) == len(of_orders)


def test_a_topic_that_was_deleted_is_not_made_anew_by_the_worker(
    deploy: Callable[..., Deployment], tmp_path: Path, rng: random.Random
) -> None:
    """Though the broker creates whatever topic it is asked about, as it does by default: a worker asks for the facts of
    its topics every ten seconds, and each of its lookups would make an empty topic in the deleted one's place."""
    broker = KafkaBroker(tmp_path / "broker", properties={**BROKER_PROPERTIES, "auto.create.topics.enable": True})
    broker.start()
    try:
        admin = AdminClient({"bootstrap.servers": broker.bootstrap})
        deployment = deploy(kafka_bootstrap=broker.bootstrap)
        for made in admin.create_topics(
            [NewTopic(name, num_partitions=1) for name in (deployment.topic, deployment.dead_letters)]
        ).values():
            made.result(30)
        sent = orders.produce(broker.bootstrap, deployment.topic, orders.orders(100, rng))
        worker = deployment.start_worker().until_ready()
        until_linked(deployment, sent)
        admin.delete_topics([deployment.topic])[deployment.topic].result(30)

        def gone() -> bool:
            return deployment.topic not in admin.list_topics(timeout=10).topics

        eventually(gone, what=f"{deployment.topic} being gone")
        throughout(gone, for_s=2.5 * WORKERS_ASK_S, what=f"{deployment.topic} being gone")
        assert worker.stop() == 0
    finally:
        broker.stop()


def make_again(admin: AdminClient, topic: str) -> None:
    """Create a topic whose name was deleted a moment ago, as soon as the broker lets it."""

    def created() -> bool:
        future = admin.create_topics([NewTopic(topic, num_partitions=1, replication_factor=1)])[topic]
        return future.exception(30) is None

    eventually(created, within_s=20, what=f"{topic} made anew")


def test_aborted_transactions_are_gaps_and_the_chain_reaches_the_end_of_the_log(
    deploy: Callable[..., Deployment], rng: random.Random
) -> None:
    """Committed, aborted and plain records in turn; one partition ends with the marker of an abort: its lag goes to 0,
    and what was aborted is nowhere."""
    deployment = deploy(2)
    numbers = iter(range(0, 100_000, 100))

    def transaction(commit: bool, partitions: int = 2) -> list[Sent]:
        values = orders.orders(100, rng, first=next(numbers))
        return orders.produce_transaction(
            deployment.bootstrap, deployment.topic, values, partitions=partitions, commit=commit
        )

    sent = transaction(True) + transaction(False)
    worker = deployment.start_worker().until_ready()
    sent += transaction(True) + transaction(False) + transaction(False) + transaction(True)
    sent += orders.produce(deployment.bootstrap, deployment.topic, orders.orders(100, rng, first=next(numbers)), 2)
    sent += transaction(True) + transaction(False, partitions=1)
    until_linked(deployment, sent)
    log_ends = orders.log_ends(deployment.bootstrap, deployment.topic, 2)
    eventually(
        lambda: oracle.ends(deployment.settings, deployment.topic) == log_ends,
        within_s=20,
        what=f"chains that end where the log does, {log_ends}",
    )
    eventually(lambda: metric(worker, "stillwell_lag_records") == 0, what="no lag")
    assert worker.stop() == 0
    prove(deployment, sent)


def test_partitions_added_while_a_worker_runs_are_read_from_their_first_offset(
    deploy: Callable[..., Deployment], admin: AdminClient, rng: random.Random
) -> None:
    """New partitions get records before any worker knows of them: all of these are read."""
    deployment = deploy(1)
    sent = orders.produce(deployment.bootstrap, deployment.topic, orders.orders(100, rng))
    worker = deployment.start_worker().until_ready()
    until_linked(deployment, sent)
    admin.create_partitions([NewPartitions(deployment.topic, 3)])[deployment.topic].result(30)
    sent += orders.produce(deployment.bootstrap, deployment.topic, orders.orders(300, rng, first=100), 3)
    until_linked(deployment, sent)
    assert worker.stop() == 0
    prove(deployment, sent)


@pytest.mark.parametrize("missing", ["topic", "dead letters"])
def test_a_topic_that_is_missing_at_the_start_is_a_mistake_of_who_set_it_up(
    deploy: Callable[..., Deployment], admin: AdminClient, missing: str
) -> None:
    """The worker ends with exit code 2, and says which topic is missing and which command makes it."""
    deployment = deploy()
    name = deployment.topic if missing == "topic" else deployment.dead_letters
    admin.delete_topics([name])[name].result(30)
    worker = deployment.start_worker()
    assert worker.running.wait(30) == 2
    assert f"Kafka has no topic {name}" in log(worker)
    assert "stillwell topics create" in log(worker)


def test_kafka_is_cut_off_for_longer_than_the_session(
    deploy: Callable[..., Deployment], kafka_proxy: Proxy, rng: random.Random
) -> None:
    """The connections to Kafka end and cannot be made again until the group has given the worker up: it comes back by
    itself, and nothing is lost or doubled."""
    deployment = deploy(2, kafka_bootstrap=kafka_proxy.address)
    worker = deployment.start_worker()
    with Feed.of_orders(deployment.bootstrap, deployment.topic, 2, rng) as feed:
        worker.until_ready()
        eventually(lambda: oracle.linked(deployment.settings) > 0, what="a first link")
        kafka_proxy.down()
        eventually(lambda: not group_has_members(deployment), within_s=20, what="a group that has given its member up")
        kafka_proxy.up()
        known = oracle.linked(deployment.settings)
        eventually(lambda: oracle.linked(deployment.settings) > known, within_s=30, what="links after the outage")
    until_linked(deployment, feed.sent)
    assert worker.stop() == 0
    prove(deployment, feed.sent)


def group_has_members(deployment: Deployment) -> bool:
    """Whether the group of a deployment has any."""
    admin = AdminClient({"bootstrap.servers": deployment.bootstrap})
    group = f"test.{deployment.settings['STILLWELL_NAMESPACE']}"
    return bool(admin.describe_consumer_groups([group])[group].result(10).members)


def test_kafka_is_killed_and_comes_back(
    deploy: Callable[..., Deployment], stack: LocalStack, rng: random.Random
) -> None:
    """The broker dies and starts again with its data: the worker goes on by itself."""
    deployment = deploy(2)
    worker = deployment.start_worker()
    with Feed.of_orders(deployment.bootstrap, deployment.topic, 2, rng) as feed:
        worker.until_ready()
        eventually(lambda: oracle.linked(deployment.settings) > 0, what="a first link")
        stack.kafka.kill()
        stack.kafka.start()
        known = oracle.linked(deployment.settings)
        eventually(lambda: oracle.linked(deployment.settings) > known, within_s=30, what="links after the crash")
    until_linked(deployment, feed.sent, within_s=90)
    assert worker.stop() == 0
    prove(deployment, feed.sent)


def test_the_gaps_of_a_compacted_topic(
    deploy: Callable[..., Deployment], topic: Callable[..., str], admin: AdminClient, rng: random.Random
) -> None:
    """The broker has taken older records of the same keys out of the log: they are gaps, and what is left is exact."""
    compacted = topic(
        "compacted",
        config={
            "cleanup.policy": "compact",
            "segment.ms": "100",
            "min.cleanable.dirty.ratio": "0.01",
            "max.compaction.lag.ms": "100",
        },
    )
    deployment = deploy()
    orders.write_definitions(deployment.folder, compacted)
    set_cleaner_pause(admin, "100")
    sent: list[Sent] = []
    for first in range(0, 300, 100):
        values = (keyed(order) for order in orders.orders(100, rng, first=first, customers=7))
        sent += orders.produce(deployment.bootstrap, compacted, values)
    eventually(
        lambda: len(orders.read(deployment.bootstrap, compacted, 1)) < 150, within_s=30, what="a compacted topic"
    )
    left = orders.read(deployment.bootstrap, compacted, 1)
    worker = deployment.start_worker().until_ready()
    until_linked(deployment, left, topic=compacted)
    assert worker.stop() == 0
    prove(deployment, left, topic=compacted)
    assert verified(deployment)["partitions"][0]["gaps"] == len(sent) - len(left)


def keyed(order: orders.Order) -> Record:
    """An order with its customer as the key."""
    return Record(json.dumps(order).encode(), key=str(order["customer"]).encode())


def set_cleaner_pause(admin: AdminClient, milliseconds: str) -> None:
    """How long the broker's cleaner rests when it has nothing to do."""
    entry = ConfigEntry("log.cleaner.backoff.ms", milliseconds, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ConfigResource.Type.BROKER, "1", incremental_configs=[entry])
    admin.incremental_alter_configs([resource])[resource].result(10)
