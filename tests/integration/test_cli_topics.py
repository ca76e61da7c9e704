"""`stillwell topics`: topics are made in a real Kafka, and adopted when they were made anew."""

import asyncio
import datetime
import json
import random
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigResource
from confluent_kafka.cimpl import NewTopic

from sinks.archive import Archive, PartitionArchive
from stillwell.layout import chain
from stillwell.layout.chain import PartitionId
from tests.chain_support import Inline, at_once
from tests.integration import oracle, orders
from tests.integration.conftest import Deployment
from tests.integration.proof import until_linked, until_logged, verified
from tests.stores import store_of
from tests.waiting import eventually


@pytest.fixture
def fresh(admin: AdminClient) -> Iterator[Callable[[str], str]]:
    """fresh("orders"): a name that begins so, and that no topic has; a topic that gets it ends with the test."""
    names: list[str] = []

    def name(begin: str) -> str:
        names.append(f"{begin}-{uuid.uuid4().hex[:8]}")
        return names[-1]

    yield name
    made = admin.list_topics(timeout=30).topics.keys() & set(names)
    if made:
        admin.delete_topics(sorted(made))


def configuration(admin: AdminClient, topic: str) -> dict[str, str]:
    """A topic's configuration."""
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    entries = admin.describe_configs([resource])[resource].result(30)
    return {name: str(entry.value) for name, entry in entries.items()}


def printed(deployment: Deployment, *arguments: str) -> Any:
    """What a command prints as JSON, when it succeeds."""
    done = deployment.run(*arguments, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_what_is_missing_is_created_and_what_is_there_stays_as_it_is(
    deploy: Callable[..., Deployment],
    topic: Callable[..., str],
    fresh: Callable[[str], str],
    admin: AdminClient,
    rng: random.Random,
) -> None:
    """And a worker, that had refused to start without them, starts."""
    name, dead = fresh("orders"), fresh("dead")
    deployment = deploy(dead_letter_topic=dead)
    there = topic("returns", partitions=2)
    orders.write_definitions(deployment.folder, name, there)
    refused = deployment.start_worker()
    assert refused.running.wait(60) == 2

    made = printed(deployment, "topics", "create", "--partitions", "3")
    assert [(each["name"], each["partitions"], each["replication"]) for each in made["created"]] == [
        (name, 3, 1),
        (dead, 3, 1),
    ]
    assert made["existing"] == [{"name": there, "partitions": 2}]
    found = admin.list_topics(timeout=30).topics
    assert [len(found[each].partitions) for each in (name, dead, there)] == [3, 3, 2]
    assert configuration(admin, dead)["retention.ms"] == str(30 * 24 * 3600 * 1000)
    assert configuration(admin, dead)["cleanup.policy"] == "delete"
    assert configuration(admin, name)["retention.ms"] == str(7 * 24 * 3600 * 1000), "the broker's own"

    assert printed(deployment, "topics", "create") == {
        "created": [],
        "existing": [{"name": each, "partitions": count} for each, count in ((name, 3), (there, 2), (dead, 3))],
    }
    sent = orders.produce(deployment.bootstrap, name, orders.orders(30, rng), 3)
    worker = deployment.start_worker().until_ready()
    until_linked(deployment, sent, topic=name)
    assert worker.stop() == 0


def test_more_copies_than_there_are_brokers_are_refused_by_kafka(
    deploy: Callable[..., Deployment], fresh: Callable[[str], str]
) -> None:
    deployment = deploy(dead_letter_topic=fresh("dead"))
    refused = deployment.run("topics", "create", "--replication", "3")
    assert refused.returncode == 1
    assert "InvalidReplicationFactor" in refused.stderr


def make_anew(admin: AdminClient, topic: str, partitions: int) -> None:
    """Delete a topic and create it again, as soon as the broker lets it."""
    admin.delete_topics([topic])[topic].result(30)

    def created() -> bool:
        return admin.create_topics([NewTopic(topic, partitions, 1)])[topic].exception(30) is None

    eventually(created, within_s=30, what=f"{topic} made anew")


def test_a_topic_made_anew_is_adopted_and_its_partitions_go_on(
    deploy: Callable[..., Deployment], admin: AdminClient, rng: random.Random
) -> None:
    """The worker stops and names the command. After it, and not before, it reads all of the new topic, also what was
    produced before the adoption. `verify` finds nothing wrong, and Redis has the newest of the old and the new."""
    deployment = deploy(partitions=2)
    old = orders.produce(deployment.bootstrap, deployment.topic, orders.orders(300, rng), 2)
    worker = deployment.start_worker().until_ready()
    until_linked(deployment, old)

    refused = deployment.run("topics", "adopt", deployment.topic, "--yes")
    assert refused.returncode == 1
    assert "there is no reason to adopt" in refused.stderr

    make_anew(admin, deployment.topic, 2)
    new = orders.produce(deployment.bootstrap, deployment.topic, orders.orders(200, rng, first=5_000), 2)
    until_logged(worker, f"stillwell topics adopt {deployment.topic}", within_s=60)
    assert oracle.linked(deployment.settings) == len(old)
    told = deployment.run("topics", "adopt", deployment.topic)
    assert told.returncode == 2, "nobody is there to answer"
    assert "--yes" in told.stderr
    assert "it was deleted and made anew" in told.stdout
    assert "linked up to 150, Kafka holds 0→100" in told.stdout

    declined = deployment.run("topics", "adopt", deployment.topic, typed="n\n")
    assert declined.returncode == 130
    assert "Open it? [y/N]" in declined.stderr

    adopted = printed(deployment, "topics", "adopt", deployment.topic, "--yes")
    assert (adopted["incarnation"], adopted["start"]) == (2, "earliest")
    assert adopted["previous"]["topic_id"] != adopted["kafka_id"]
    worker.until_ready()
    until_linked(deployment, [*old, *new])
    assert worker.stop() == 0
    report = verified(deployment)
    assert {partition["partition"]: partition["records"] for partition in report["partitions"]} == {
        f"{deployment.topic}@{incarnation}-{partition}": count
        for incarnation, count in ((1, 150), (2, 100))
        for partition in range(2)
    }
    # Orders of the new topic are later ones; where a customer has none, that of the old one is still the newest.
    expected = {**oracle.newest(old), **oracle.newest(new)}
    assert oracle.rows_in_redis(deployment.settings, orders.VIEW, expected) == expected


def test_a_topic_is_adopted_once(deploy: Callable[..., Deployment], admin: AdminClient, rng: random.Random) -> None:
    """Whoever comes second finds no reason to, and a worker that starts afterwards begins with the new one alone."""
    deployment = deploy()
    old = orders.produce(deployment.bootstrap, deployment.topic, orders.orders(50, rng))
    worker = deployment.start_worker().until_ready()
    until_linked(deployment, old)
    assert worker.stop() == 0
    make_anew(admin, deployment.topic, 1)
    printed(deployment, "topics", "adopt", deployment.topic, "--yes")
    again = deployment.run("topics", "adopt", deployment.topic, "--yes")
    assert again.returncode == 1
    assert "there is no reason to adopt" in again.stderr
    found = chain.newest_incarnation(store_of(deployment.settings), deployment.topic)
    assert found is not None
    assert found.incarnation == 2


def test_a_log_that_ends_before_its_chain_is_a_reason_to_adopt(
    deploy: Callable[..., Deployment], rng: random.Random
) -> None:
    """As after a broker that lost acknowledged records: the same topic, but less of it than was read."""
    deployment = deploy()
    sent = orders.produce(deployment.bootstrap, deployment.topic, orders.orders(20, rng))
    worker = deployment.start_worker().until_ready()
    until_linked(deployment, sent)
    assert worker.stop() == 0
    claim(deployment, until=1_000)
    adopted = printed(deployment, "topics", "adopt", deployment.topic, "--yes")
    assert adopted["reason"] == "Kafka has lost the end of partition 0"
    assert adopted["kafka_id"] == adopted["previous"]["topic_id"]
    worker = deployment.start_worker().until_ready()
    until_linked(deployment, [*sent, *sent])
    assert worker.stop() == 0
    verified(deployment)


def test_partitions_that_flow_notice_that_their_topic_was_adopted(
    deploy: Callable[..., Deployment], rng: random.Random
) -> None:
    """Of one whose log lost its end in one partition all partitions are read anew, and at once: Kafka's topic is the
    same one, so that nothing else tells those that still flow."""
    deployment = deploy(2)
    sent = orders.produce(deployment.bootstrap, deployment.topic, orders.orders(40, rng), 2)
    worker = deployment.start_worker().until_ready()
    until_linked(deployment, sent)
    assert worker.stop() == 0
    claim(deployment, until=1_000)
    worker = deployment.start_worker()
    until_logged(worker, "partition stopped", within_s=60)
    printed(deployment, "topics", "adopt", deployment.topic, "--yes")
    until_logged(worker, "incarnation 2 of topic", within_s=20)
    worker.until_ready()
    until_linked(deployment, [*sent, *sent])
    assert worker.stop() == 0
    verified(deployment)


def claim(deployment: Deployment, until: int) -> None:
    """Link offsets that Kafka does not have."""

    async def link() -> None:
        objects = Inline(store_of(deployment.settings))
        id = PartitionId(deployment.topic, 1, 0)
        archive: PartitionArchive = Archive(objects, at_once, now, "a-test").partition(id, [])
        assert await archive.find_end(None)
        assert await archive.expire(until)

    asyncio.run(link())


def now() -> datetime.datetime:
    """The clock."""
    return datetime.datetime.now(datetime.UTC)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["adopt", "oders"], 2, "the definitions have no topic 'oders'"),
        (["adopt", "{topic}"], 1, "was never read: there is nothing to adopt"),
        (["create", "--partitions", "0"], 2, "--partitions"),
    ],
)
def test_a_wrong_call_is_told_what_is_right(
    deploy: Callable[..., Deployment], arguments: list[str], code: int, says: str
) -> None:
    deployment = deploy()
    done = deployment.run("topics", *(argument.format(topic=deployment.topic) for argument in arguments))
    assert done.returncode == code
    assert says in done.stderr


def test_a_topic_that_is_gone_is_to_be_created_first(
    deploy: Callable[..., Deployment], fresh: Callable[[str], str]
) -> None:
    deployment = deploy()
    gone = fresh("gone")
    orders.write_definitions(deployment.folder, gone)
    done = deployment.run("topics", "adopt", gone, "--yes")
    assert done.returncode == 1
    assert "stillwell topics create" in done.stderr
