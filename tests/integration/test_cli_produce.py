"""`stillwell produce` into a real Kafka, and `stillwell try` of what is in a topic there."""

import json
import random
import re
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from tests.integration import oracle, orders
from tests.integration.conftest import Deployment


@pytest.fixture
def fresh(admin: AdminClient) -> Iterator[str]:
    """A topic's name that Kafka does not have; what gets it ends with the test."""
    name = f"produced-{uuid.uuid4().hex[:8]}"
    yield name
    if name in admin.list_topics(timeout=30).topics:
        admin.delete_topics([name])


def written(folder: Path, *lines: str) -> str:
    (folder / "events.ndjson").write_text("\n".join(lines) + "\n")
    return "events.ndjson"


def test_every_line_is_a_record_as_it_stands_and_keys_come_from_a_field(
    deploy: Callable[..., Deployment], fresh: str
) -> None:
    deployment = deploy()
    lines = [json.dumps({"buyer": {"id": number % 2}}) for number in range(50)]
    file = written(deployment.folder, *lines[:25], "", "no JSON", *lines[25:])
    done = deployment.run("produce", fresh, file, "--key", "buyer.id", "--create")
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(rf"51 records written to {fresh}, in [23] partitions\n", done.stdout)
    assert "1 line had no buyer.id: those records have no key" in done.stderr
    read = orders.read(deployment.bootstrap, fresh, 6)
    assert sorted(each.record.value or b"" for each in read) == sorted([*(line.encode() for line in lines), b"no JSON"])
    assert {each.record.key for each in read} == {b"0", b"1", None}


def test_a_topic_that_is_not_there_is_not_made_by_chance(deploy: Callable[..., Deployment], fresh: str) -> None:
    deployment = deploy()
    done = deployment.run("produce", fresh, written(deployment.folder, "{}"), "--json")
    assert done.returncode == 2
    assert f"Kafka has no topic {fresh}" in done.stderr
    assert "make it by --create" in done.stderr
    done = deployment.run("produce", f"{deployment.topic}s", written(deployment.folder, "{}"))
    assert f"did you mean '{deployment.topic}'? Name another one, make it by --create" in done.stderr


def test_a_line_that_kafka_does_not_take_is_named(deploy: Callable[..., Deployment], topic: Callable[..., str]) -> None:
    deployment = deploy()
    small = topic("small", config={"max.message.bytes": "1000"})
    long = json.dumps({"text": random.Random(1).randbytes(4_000).hex()})
    done = deployment.run("produce", small, written(deployment.folder, "{}", long))
    assert done.returncode == 1
    assert re.search(f"Kafka did not take line [12] for {small}: it takes only smaller records", done.stderr)


def test_the_newest_records_of_a_topic_are_tried_and_nothing_is_written(deploy: Callable[..., Deployment]) -> None:
    """Of all partitions, though they are told by their offsets there; no group comes into being."""
    deployment = deploy(partitions=3)
    good = [json.dumps(orders.order(number, random.Random(number))) for number in range(30)]
    bad = json.dumps({**orders.order(30, random.Random(1)), "amount": "much"})
    for lines in (good, [bad]):
        file = written(deployment.folder, *lines)
        deployment.run("produce", deployment.topic, file, "--key", "customer").check_returncode()
    done = deployment.run("try", orders.VIEW, "--limit", "10", "--json")
    assert done.returncode == 0, done.stderr
    tried = json.loads(done.stdout)
    assert tried["records"] == 10
    assert [each["reason"] for each in tried["rejects"]] == ["decode"]
    assert len(tried["rows"]) + len(tried["filtered"]) == 9
    ends = orders.log_ends(deployment.bootstrap, deployment.topic, 3)
    partition, _, offset = tried["rejects"][0]["at"].partition("/")
    assert int(offset) == ends[int(partition)] - 1
    assert not (deployment.folder / "offline").exists()
    assert oracle.committed(deployment.settings, deployment.topic) == {}


def test_a_topic_that_is_not_there_is_named_with_what_was_meant(deploy: Callable[..., Deployment]) -> None:
    deployment = deploy()
    done = deployment.run("try", orders.VIEW, "--from", f"{deployment.topic}s")
    assert done.returncode == 2
    assert f"Kafka has no topic {deployment.topic}s; did you mean '{deployment.topic}'?" in done.stderr
