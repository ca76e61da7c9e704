"""Records that no producer should send: huge, broken, empty, by themselves or one after another."""

import json
import random
from collections.abc import Callable

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.cimpl import NewTopic

from tests.integration import oracle, orders
from tests.integration.conftest import Deployment
from tests.integration.orders import Order, Record
from tests.integration.proof import log, metric, prove, until_linked, until_logged
from tests.waiting import eventually

LARGE = {"message.max.bytes": 15_000_000}
TEN_MEGABYTES = "x" * 10_000_000

GOOD: Order = {"at": "2025-10-09T12:00:00Z", "customer": "c", "amount": 1.5, "number": 7}

POISON: dict[str, bytes | None] = {
    "no JSON": b"{",
    "not UTF-8": b'{"customer": "\xff"}',
    "an array": b"[1, 2]",
    "a number": b"1",
    "null": b"null",
    "no value": None,
    "empty": b"",
    "blanks": b"   ",
    "another type": json.dumps({**GOOD, "amount": "much"}).encode(),
    "a field that is null": json.dumps({**GOOD, "customer": None}).encode(),
    "a field that is missing": json.dumps({name: GOOD[name] for name in ("at", "customer", "amount")}).encode(),
    "a time without a zone": json.dumps({**GOOD, "at": "2025-10-09T12:00:00"}).encode(),
    "a time that is none": json.dumps({**GOOD, "at": "yesterday"}).encode(),
    "a time in the far future": json.dumps({**GOOD, "at": "2999-01-01T00:00:00Z"}).encode(),
    "an integer of 30 digits": json.dumps({**GOOD, "number": 10**30}).encode(),
    "deeper than any parser goes": b'{"customer": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "two documents": json.dumps(GOOD).encode() * 2,
    "zero bytes": bytes(100),
    "a key that is too long for the online store": json.dumps({**GOOD, "customer": "c" * 600}).encode(),
}


def test_a_record_that_cannot_be_used_is_kept_as_it_came_and_stops_nobody(
    deploy: Callable[..., Deployment], rng: random.Random
) -> None:
    """Each poison stands between good records: these are in Redis and Parquet, it is in the dead letters, with its
    bytes, key and headers, and the archive has it too."""
    deployment = deploy()
    headers = (("source", b"test"), ("empty", b""), ("null", None), ("stillwell.topic", b"a name of ours"))
    poison = [Record(body, key=name.encode(), headers=headers) for name, body in POISON.items()]
    poison.append(Record(None))
    good = orders.orders(len(poison) + 1, rng)
    values = [good[0], *(each for pair in zip(poison, good[1:], strict=True) for each in pair)]
    sent = orders.produce(deployment.bootstrap, deployment.topic, values)
    worker = deployment.start_worker().until_ready()
    until_linked(deployment, sent)
    assert worker.stop() == 0
    expected = {each.offset for each in sent if each.record in poison}
    assert {letter.offset for letter in oracle.dead_letters(deployment.settings, deployment.topic)} == expected
    prove(deployment, sent)


def test_a_record_of_ten_megabytes(
    deploy: Callable[..., Deployment], topic: Callable[..., str], rng: random.Random
) -> None:
    """It is taken in like any other: its row is in Redis; one that cannot be used goes to the dead letters by
    reference, and the archive has its bytes."""
    large = topic("large", config={"max.message.bytes": "16000000"})
    deployment = deploy(reject_ratio="0.99")
    orders.write_definitions(deployment.folder, large)
    values: list[Order | bytes | Record] = [
        *orders.orders(10, rng),
        {**GOOD, "pad": TEN_MEGABYTES},
        TEN_MEGABYTES.encode(),
        Record(b"{", key=b"k" * 900_000, headers=(("h", b"v" * 900_000),)),
        *orders.orders(10, rng, first=10),
    ]
    sent = orders.produce(deployment.bootstrap, large, values, settings=LARGE)
    worker = deployment.start_worker().until_ready()
    until_linked(deployment, sent, topic=large)
    assert worker.stop() == 0
    letters = {letter.offset: letter for letter in oracle.dead_letters(deployment.settings, large)}
    assert letters.keys() == {11, 12}
    assert letters[11].by_reference
    prove(deployment, sent, topic=large)


def test_too_many_rejects_in_a_row_end_the_worker_before_it_sends_them_anywhere(
    deploy: Callable[..., Deployment], rng: random.Random
) -> None:
    """Past the ratio the worker says which topic, how many and why, and ends with exit code 1; nothing of that batch is
    acknowledged, archived or in the dead letters. Mended, it takes up where it was."""
    deployment = deploy(reject_ratio="0.2", reject_min_count="100")
    good = orders.produce(deployment.bootstrap, deployment.topic, orders.orders(500, rng))
    worker = deployment.start_worker().until_ready()
    until_linked(deployment, good)
    bad = orders.produce(deployment.bootstrap, deployment.topic, [b"{"] * 400)
    assert worker.running.wait(15) == 1
    assert "of the last" in log(worker)
    assert "STILLWELL_REJECT_RATIO" in log(worker)
    assert oracle.dead_letters(deployment.settings, deployment.topic) == []
    prove(deployment, good)
    worker = deployment.start_worker(reject_ratio="1").until_ready()
    until_linked(deployment, good + bad)
    assert worker.stop() == 0
    prove(deployment, good + bad)


def test_a_record_that_breaks_a_rule_that_stops_ends_the_worker_and_is_lost_to_nobody(
    deploy: Callable[..., Deployment], rng: random.Random
) -> None:
    """The worker names the record, the rule and what to do, and ends with exit code 1; nothing of that batch is
    acknowledged, archived or in the dead letters. Once the rule only warns, in the same version of the view, another
    worker takes up where it was, and counts and tells the record."""
    deployment = deploy()
    package = deployment.folder / "orders" / "__init__.py"
    definitions = package.read_text().replace("import Col,", "import rule, Col,")
    package.write_text(definitions.replace("amount: Col[Float64]\n", "amount: Col[Float64] = col(stop=rule(le=1e6))\n"))
    good = orders.produce(deployment.bootstrap, deployment.topic, orders.orders(100, rng))
    worker = deployment.start_worker().until_ready()
    until_linked(deployment, good)
    mad = [*orders.orders(10, rng, first=100), {**GOOD, "amount": 2e9}, *orders.orders(10, rng, first=110)]
    sent = orders.produce(deployment.bootstrap, deployment.topic, mad)
    assert worker.running.wait(15) == 1
    named = f"topic {deployment.topic}, partition 0, offset 110: amount: expected <= 1000000.0, got 2000000000.0"
    assert named in log(worker)
    assert "mend its producer, and let the rule warn or reject" in log(worker)
    assert oracle.dead_letters(deployment.settings, deployment.topic) == []
    prove(deployment, good)
    package.write_text(package.read_text().replace("stop=rule", "warn=rule"))
    worker = deployment.start_worker().until_ready()
    until_linked(deployment, good + sent)
    until_logged(worker, "records break an expectation that warns")
    labels = {"topic": deployment.topic, "column": "amount", "rule": "<= 1000000.0", "action": "warn"}
    assert metric(worker, "stillwell_expectations_broken_total", **labels) == 1
    assert worker.stop() == 0
    prove(deployment, good + sent)


@pytest.mark.parametrize("how", ["gone", "too small"])
def test_dead_letters_that_cannot_be_written_hold_the_partition_back_loudly(
    deploy: Callable[..., Deployment], admin: AdminClient, rng: random.Random, how: str
) -> None:
    """The dead-letter topic is gone, or takes no record of that size: the worker says so, is not ready, and links
    nothing beyond the record; when the topic is mended, it goes on by itself."""
    deployment = deploy()
    sent = orders.produce(deployment.bootstrap, deployment.topic, orders.orders(100, rng))
    worker = deployment.start_worker().until_ready()
    until_linked(deployment, sent)
    spoil(admin, deployment.dead_letters, how)
    bad = Record(b"{" + rng.randbytes(20_000), key=b"bad")
    sent += orders.produce(deployment.bootstrap, deployment.topic, [bad, *orders.orders(100, rng, first=100)])
    until_logged(worker, f"dead-letter topic {deployment.dead_letters}")
    eventually(lambda: "dead_letters does not answer" in worker.page("/readyz")[1], what="a worker that is not ready")
    assert metric(worker, "stillwell_sink_waiting_calls", sink="dead_letters") > 0
    assert oracle.linked(deployment.settings) == 100
    mend(admin, deployment.dead_letters, how)
    until_linked(deployment, sent)
    assert worker.stop() == 0
    prove(deployment, sent)


def spoil(admin: AdminClient, topic: str, how: str) -> None:
    """Make a topic unwritable."""
    if how == "gone":
        admin.delete_topics([topic])[topic].result(30)
    else:
        set_largest(admin, topic, 10_000)


def mend(admin: AdminClient, topic: str, how: str) -> None:
    """Make it writable again."""
    if how == "gone":
        admin.create_topics([NewTopic(topic, num_partitions=1, replication_factor=1)])[topic].result(30)
    else:
        set_largest(admin, topic, 1_000_000)


def set_largest(admin: AdminClient, topic: str, nbytes: int) -> None:
    """The largest batch that a topic takes."""
    entry = ConfigEntry("max.message.bytes", str(nbytes), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[entry])
    admin.incremental_alter_configs([resource])[resource].result(10)


SLOW = '''
import time
from pathlib import Path
from stillwell import Rows, rows

class Slow(View, source=Order, entity=Customer, ttl=timedelta(days=3650)):
    """A transformation that does not come back while there is a file."""
    number: Feature[Int64]

    @rows
    @staticmethod
    def slowly(event: Order) -> Rows:
        while Path("hold").exists():
            time.sleep(0.01)
        yield {"customer": event.customer, "number": event.number}
'''


def test_a_transformation_that_does_not_come_back_holds_up_its_own_topic_alone(
    deploy: Callable[..., Deployment], topic: Callable[..., str], rng: random.Random
) -> None:
    """The other topics of the worker go on, into Redis and to rest; its own does when the transformation is done."""
    deployment = deploy(watchdog_timeout="10m")
    returns = topic("returns")
    orders.write_definitions(deployment.folder, deployment.topic, returns)
    package = deployment.folder / "orders" / "__init__.py"
    package.write_text(package.read_text() + SLOW)
    worker = deployment.start_worker().until_ready()
    hold = deployment.folder / "hold"
    hold.touch()
    held = orders.produce(deployment.bootstrap, deployment.topic, orders.orders(100, rng))
    eventually(lambda: metric(worker, "stillwell_buffered_bytes", topic=deployment.topic) > 0, what="a batch in hand")
    of_returns = orders.produce(deployment.bootstrap, returns, orders.orders(100, rng))
    until_linked(deployment, of_returns, topic=returns)
    assert oracle.linked(deployment.settings, deployment.topic) == 0
    hold.unlink()
    until_linked(deployment, held, topic=deployment.topic)
    assert worker.stop() == 0
    prove(deployment, of_returns, topic=returns, view=orders.VIEW_OF_RETURNS)
