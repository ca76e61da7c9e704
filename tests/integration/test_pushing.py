"""Rows and events that strangers write to a push topic: they compete with those of the source topic, and one rule of
order decides; what is for one store alone stays there; what cannot be used is a dead letter with its reason."""

import dataclasses
import datetime
import hashlib
import itertools
import json
import os
import random
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import redis

from stillwell.local import RedisServer
from tests.integration import oracle, orders
from tests.integration.conftest import Deployment
from tests.integration.orders import Feed, Headers, Record, Sent
from tests.integration.proof import log, metric, until_linked, verified
from tests.integration.test_rebuild import assert_same, dump, flush, rebuilt
from tests.unit.test_format_pages import blocks
from tests.waiting import eventually

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "push-records.md").read_text()
PARTITIONS = 2
RAW: Headers = (("transform_on_write", b"true"),)
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)

BAD: Mapping[str, tuple[Record, str, str]] = {
    "no JSON": (Record(b"{"), "decode", "expected one JSON object in UTF-8"),
    "no value": (Record(None, b"s2:c1"), "null_value", "takes no deletes"),
    "a field too many": (Record(b'{"customer": "c", "amounts": 1}'), "decode", "did you mean 'amount'?"),
    "a null": (
        Record(b'{"customer": "c", "event_timestamp": "2025-01-01T00:00:00Z", "amount": null, "number": 1}'),
        "decode",
        "amount: expected Float64",
    ),
    "a time without a zone": (
        Record(b'{"customer": "c", "event_timestamp": "2025-01-01T00:00:00", "amount": 1, "number": 1}'),
        "decode",
        "event_timestamp: expected Timestamp",
    ),
    "the far future": (
        Record(b'{"customer": "c", "event_timestamp": "2200-01-01T00:00:00Z", "amount": 1, "number": 1}'),
        "future",
        "past the timestamp of its record",
    ),
    "another destination": (Record(b"{}", headers=(("to", b"nowhere"),)), "decode", "header to: expected online,"),
    "a raw event that is none": (Record(b'{"customer": "c"}', headers=RAW), "decode", "at: expected Timestamp"),
    "a key that is too long": (
        Record(
            json.dumps(
                {"customer": "c" * 600, "event_timestamp": "2025-01-01T00:00:00Z", "amount": 1, "number": 1}
            ).encode()
        ),
        "too_long",
        "the entity key has more than 512 bytes",
    ),
}


def pushes(count: int, rng: random.Random, first: int = 0) -> Iterator[Record]:
    """Pushes in disorder, final and raw, of the same customers and times as orders."""
    for number in range(first, first + count):
        order = orders.order(number, rng)
        to = rng.choice([None, None, b"online", b"offline", b"online_and_offline"])
        said: Headers = (("to", to),) if to else ()
        if rng.random() < 0.4:
            yield Record(json.dumps(order).encode(), headers=(*said, *RAW))
            continue
        row = {
            "customer": order["customer"],
            "event_timestamp": order["at"],
            "amount": order["amount"],
            "number": number,
            **({"_sequence": rng.randrange(3)} if rng.random() < 0.2 else {}),
        }
        said += (("version", b"1"), ("raw", b"never read")) if rng.random() < 0.2 else ()
        yield Record(json.dumps(row).encode(), key=str(order["customer"]).encode(), headers=said)


@dataclasses.dataclass(frozen=True, slots=True)
class Won:
    """A row by what it must be judged by, and what it says."""

    age: tuple[object, ...]
    customer: str
    to: str
    number: int


def row_of(sent: Sent, pushed: str) -> Won | None:
    """The row that a good record gives, if it gives one: twenty lines that share nothing with the product's own."""
    headers = dict(sent.record.headers)
    fields = json.loads(sent.record.value or b"")
    final = sent.topic == pushed and headers.get("transform_on_write") != b"true"
    if not final and fields["amount"] < 0:
        return None
    at = datetime.datetime.fromisoformat(fields["event_timestamp" if final else "at"]) - _EPOCH
    sequence = fields.get("_sequence")
    return Won(
        age=(
            at // datetime.timedelta(microseconds=1),
            sequence is not None,
            sequence or 0,
            sent.timestamp,
            hashlib.sha256(sent.topic.encode()).digest()[:8],
            sent.partition,
            sent.offset,
        ),
        customer=fields["customer"],
        to=(headers.get("to") or b"online_and_offline").decode(),
        number=fields["number"],
    )


def what_is_wrong(deployment: Deployment, sent: Sequence[Sent]) -> list[str]:
    """In which a deployment differs from what good records of both topics must have become."""
    environment, pushed = deployment.settings, deployment.pushes
    rows = [row for each in sent if (row := row_of(each, pushed))]
    newest: dict[str, Won] = {}
    for row in rows:
        if row.to != "offline" and (row.customer not in newest or row.age > newest[row.customer].age):
            newest[row.customer] = row
    found = oracle.rows_in_redis(environment, orders.VIEW, {each.customer for each in rows})
    numbers = {customer: row.number for customer, row in found.items()}
    wrong = [
        f"Redis: {customer} is {numbers.get(customer)}, expected {row}"
        for customer, row in newest.items()
        if numbers.get(customer) != row.number
    ]
    wrong += [f"Redis: {customer} should not be there" for customer in numbers.keys() - newest.keys()]
    expected = sorted((each.topic, each.partition, each.offset) for each in sent if row_of(each, pushed))
    at_rest = [
        (topic, partition, offset)
        for topic in (deployment.topic, pushed)
        for table in oracle._rows(environment, topic, orders.VIEW)
        for partition, offset in oracle._coordinates(table)
    ]
    if sorted(at_rest) != expected:
        wrong.append(f"files: {len(at_rest)} rows, expected {len(expected)}")
    to = {
        (partition, offset): word
        for table in oracle._rows(environment, pushed, orders.VIEW)
        for (partition, offset), word in zip(oracle._coordinates(table), table.column("_to").to_pylist(), strict=True)
    }
    said = {
        (each.partition, each.offset): row.to for each in sent if each.topic == pushed if (row := row_of(each, pushed))
    }
    if to != said:
        wrong.append(f"files: _to is not what was said: {to} and {said}")
    if any("_to" in table.column_names for table in oracle._rows(environment, deployment.topic, orders.VIEW)):
        wrong.append("files: rows of the source topic have _to")
    return wrong


def until_both_linked(deployment: Deployment, sent: Sequence[Sent], within_s: float = 30) -> None:
    for topic in (deployment.topic, deployment.pushes):
        of_topic = [each for each in sent if each.topic == topic]
        until_linked(deployment, of_topic, topic=topic, within_s=within_s)


def produced(deployment: Deployment, source: Iterable[Any], pushed: Iterable[Record]) -> list[Sent]:
    """What Kafka has of both."""
    return [
        *orders.produce(deployment.bootstrap, deployment.topic, source, PARTITIONS),
        *orders.produce(deployment.bootstrap, deployment.pushes, pushed, PARTITIONS),
    ]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of the test's own: what it forgets is nobody else's."""
    server = RedisServer(tmp_path / "redis")
    server.start()
    yield server
    server.stop()


def test_pushed_rows_and_those_of_the_source_compete_by_one_rule_in_whatever_order_they_come(
    deploy: Callable[..., Deployment], server: RedisServer, rng: random.Random
) -> None:
    """The same records taken in by one namespace at once, and by another in an order of its own, end in the same rows;
    and a rebuild brings back the same bytes, without what is for the offline store alone."""
    deployment = deploy(PARTITIONS, pushed=True, redis_url=server.url)
    sent = produced(deployment, orders.orders(1_500, rng), pushes(1_500, rng))
    worker = deployment.start_worker().until_ready()
    until_both_linked(deployment, sent)
    late = produced(deployment, orders.orders(300, rng, first=100), pushes(300, rng, first=100))
    sent += late
    until_both_linked(deployment, sent)
    offline = sum(row.to == "offline" for each in sent if (row := row_of(each, deployment.pushes)))
    assert offline > 100
    pushed_rows = sum(1 for each in sent if each.topic == deployment.pushes and row_of(each, deployment.pushes))
    rows = metric(worker, "stillwell_rows_total", view=orders.VIEW)
    assert rows == sum(1 for each in sent if row_of(each, deployment.pushes)) > pushed_rows > 0
    assert worker.stop() == 0
    assert what_is_wrong(deployment, sent) == []
    report = verified(deployment)
    records = {each["partition"].rpartition("@")[0]: 0 for each in report["partitions"]}
    for each in report["partitions"]:
        records[each["partition"].rpartition("@")[0]] += each["records"]
    assert records == {deployment.topic: 1_800, deployment.pushes: 1_800}

    before = dump(deployment)
    assert len(before.marks) == 2 * PARTITIONS
    flush(deployment)
    rebuilt(deployment)
    assert_same(dump(deployment), before)

    again = dataclasses.replace(
        deployment,
        settings={
            **deployment.settings,
            "STILLWELL_NAMESPACE": f"{deployment.settings['STILLWELL_NAMESPACE']}b",
            "STILLWELL_FETCH_WAIT": "1ms",
            "STILLWELL_PARTITION_FETCH_BYTES": "2KiB",
            "STILLWELL_WINDOW_ROWS": "97",
        },
        workers=deployment.workers,
    )
    assert again.start_worker().until_ready().running.poll() is None
    until_both_linked(again, sent)
    assert again.workers[-1].stop() == 0
    assert what_is_wrong(again, sent) == []
    values = [sorted(dump(each).rows.values()) for each in (deployment, again)]
    assert values[0] == values[1]


def test_killed_in_the_middle_nothing_is_lost_and_nothing_is_there_twice(
    deploy: Callable[..., Deployment], rng: random.Random
) -> None:
    deployment = deploy(PARTITIONS, pushed=True)
    endless = itertools.chain.from_iterable(pushes(1_000, rng, first=1_000 * number) for number in itertools.count())
    with (
        Feed.of_orders(deployment.bootstrap, deployment.topic, PARTITIONS, rng) as source,
        Feed(deployment.bootstrap, deployment.pushes, PARTITIONS, endless, 1_000) as pushed,
    ):
        for _ in range(3):
            worker = deployment.start_worker().until_ready()
            linked = oracle.linked(deployment.settings, deployment.pushes)
            eventually(
                lambda more=linked + 500: oracle.linked(deployment.settings, deployment.pushes) > more,  # type: ignore[misc]
                within_s=30,
                what="pushes are linked",
            )
            worker.kill()
    worker = deployment.start_worker().until_ready()
    sent = [*source.sent, *pushed.sent]
    until_both_linked(deployment, sent)
    assert worker.stop() == 0
    assert what_is_wrong(deployment, sent) == []
    verified(deployment)


def test_what_cannot_be_used_is_a_dead_letter_with_its_reason(deploy: Callable[..., Deployment]) -> None:
    deployment = deploy(pushed=True)
    good = Record(b'{"customer": "c", "event_timestamp": "2025-01-01T00:00:00Z", "amount": 1, "number": 1}')
    sent = orders.produce(deployment.bootstrap, deployment.pushes, [*(bad for bad, _, _ in BAD.values()), good])
    worker = deployment.start_worker().until_ready()
    until_linked(deployment, sent, topic=deployment.pushes)
    assert metric(worker, "stillwell_rejected_total", topic=deployment.pushes) == len(BAD)
    assert worker.stop() == 0
    listed = json.loads(deployment.run("dlq", "list", "--topic", deployment.pushes, "--json").stdout)
    letters = {letter["offset"]: letter for letter in listed["letters"]}
    for each, (name, (_, reason, says)) in zip(sent, BAD.items(), strict=False):
        assert letters[each.offset]["reason"] == reason, name
        assert says in letters[each.offset]["error"], name
    assert letters.keys() == set(range(len(BAD)))
    kept = {letter.offset: letter for letter in oracle.dead_letters(deployment.settings, deployment.pushes)}
    for each in sent[:-1]:
        letter = kept[each.offset]
        assert (letter.key, letter.value, letter.headers) == (each.record.key, each.record.value, each.record.headers)
    assert set(oracle.rows_in_redis(deployment.settings, orders.VIEW, ["c"])) == {"c"}
    verified(deployment)


def test_the_source_of_a_row_is_named_by_its_push_topic(deploy: Callable[..., Deployment]) -> None:
    deployment = deploy(pushed=True)
    raw = {"at": "2025-01-01T00:00:00Z", "customer": "c", "amount": 1.5, "number": 7}
    sent = orders.produce(deployment.bootstrap, deployment.pushes, [Record(json.dumps(raw).encode(), headers=RAW)])
    worker = deployment.start_worker().until_ready()
    until_linked(deployment, sent, topic=deployment.pushes)
    assert worker.stop() == 0
    for setting in ("true", "false"):
        deployment.settings["STILLWELL_PUSH"] = setting
        row = json.loads(deployment.run("get", orders.VIEW, "customer=c", "--json").stdout)["row"]
        assert (row["topic"], row["offset"], row["version"]) == (deployment.pushes, 0, 1)
    deployment.settings["STILLWELL_PUSH"] = "true"
    refused = deployment.run("topics", "adopt", deployment.pushes)
    assert refused.returncode == 1
    assert f"there is no reason to adopt {deployment.pushes}" in refused.stderr


def test_a_worker_without_push_topics_says_what_to_do(deploy: Callable[..., Deployment]) -> None:
    """An existing deployment has none."""
    deployment = deploy()
    deployment.settings |= {"STILLWELL_PUSH": "true", "STILLWELL_PROJECT": f"new{deployment.topic[-8:]}"}
    worker = deployment.start_worker()
    assert worker.running.wait(60) == 2
    assert f"Kafka has no topic {deployment.pushes}; `stillwell topics create`" in log(worker)
    assert "set STILLWELL_PUSH=false" in log(worker)
    found = json.loads(deployment.run("doctor", "--json").stdout)
    assert any(deployment.pushes in str(each) for each in found)
    listed = deployment.run("topics", "list")
    assert listed.returncode == 1
    assert f"{deployment.pushes} not in Kafka! pushes to {orders.VIEW}" in re.sub(" +", " ", listed.stdout)
    made = json.loads(deployment.run("topics", "create", "--partitions", "1", "--json").stdout)
    assert [each["name"] for each in made["created"]] == [deployment.pushes]
    listed = deployment.run("topics", "list", "--json")
    assert listed.returncode == 0
    assert json.loads(listed.stdout) == [
        {"name": deployment.topic, "use": "events", "of": "Order", "views": [orders.VIEW], "partitions": 1},
        {"name": deployment.pushes, "use": "pushes", "of": orders.VIEW, "views": [orders.VIEW], "partitions": 1},
        {"name": deployment.dead_letters, "use": "dead letters", "of": "", "views": [], "partitions": 1},
    ]
    assert deployment.start_worker().until_ready().stop() == 0


def test_only_newer_rows_are_put_where_redis_has_lost_some_and_none_that_are_for_the_offline_store(
    deploy: Callable[..., Deployment], server: RedisServer, rng: random.Random
) -> None:
    """What a worker applies again by itself, from files, is what it had put before."""
    deployment = deploy(PARTITIONS, pushed=True, redis_url=server.url)
    sent = orders.produce(deployment.bootstrap, deployment.pushes, pushes(500, rng), PARTITIONS)
    worker = deployment.start_worker().until_ready()
    until_linked(deployment, sent, topic=deployment.pushes)
    assert worker.stop() == 0
    before = dump(deployment)
    with redis.Redis.from_url(server.url) as client:
        for key in before.rows:
            client.delete(key)
        for key in before.marks:
            client.delete(key)
    worker = deployment.start_worker().until_ready()
    assert worker.stop() == 0
    assert "applying rows again" in log(worker)
    assert_same(dump(deployment), before)
    assert what_is_wrong(deployment, sent) == []


def test_a_worker_goes_on_after_a_rebuild_though_nothing_was_ever_pushed(
    deploy: Callable[..., Deployment], server: RedisServer, rng: random.Random
) -> None:
    deployment = deploy(PARTITIONS, pushed=True, redis_url=server.url)
    sent = produced(deployment, orders.orders(300, rng), ())
    worker = deployment.start_worker().until_ready()
    until_both_linked(deployment, sent)
    flush(deployment)
    eventually(lambda: worker.page("/readyz")[0] == 503, within_s=30, what="the worker notices")
    rebuilt(deployment)
    worker.until_ready()
    sent += produced(deployment, orders.orders(300, rng, first=300), pushes(300, rng))
    until_both_linked(deployment, sent)
    assert worker.stop() == 0
    assert what_is_wrong(deployment, sent) == []
    verified(deployment)


def test_the_raw_archive_keeps_pushes_as_they_came(deploy: Callable[..., Deployment], rng: random.Random) -> None:
    deployment = deploy(pushed=True)
    sent = orders.produce(deployment.bootstrap, deployment.pushes, pushes(50, rng))
    worker = deployment.start_worker().until_ready()
    until_linked(deployment, sent, topic=deployment.pushes)
    assert worker.stop() == 0
    (table,) = list(oracle._archived(deployment.settings, deployment.pushes))
    assert table.column("value").to_pylist() == [each.record.value for each in sent]


def test_a_stranger_pushes_with_nothing_but_the_page(deploy: Callable[..., Deployment]) -> None:
    """Its producer, over its rows and events."""
    (code,) = blocks(PAGE, "python")
    page: dict[str, Any] = {}
    exec(compile(code, "push-records.md", "exec"), page)
    deployment = deploy(pushed=True)
    producer = page["idempotent"](deployment.bootstrap)
    row = {"customer": "ä", "event_timestamp": "2025-01-01T00:00:00Z", "amount": 1.5, "number": 1}
    event = {"customer": "b", "at": "2025-01-01T00:00:00Z", "amount": 2.5, "number": 2}
    page["push"](producer, deployment.pushes, row, key="anything", to="online")
    page["push"](producer, deployment.pushes, event, transform_on_write="true")
    page["push"](producer, deployment.pushes, {**row, "customer": "c"}, to="offline")
    assert producer.flush(30) == 0
    worker = deployment.start_worker().until_ready()
    eventually(lambda: oracle.linked(deployment.settings, deployment.pushes) == 3, within_s=30, what="links")
    assert worker.stop() == 0
    found = oracle.rows_in_redis(deployment.settings, orders.VIEW, ["ä", "b", "c"])
    assert {customer: (row.amount, row.number) for customer, row in found.items()} == {"ä": (1.5, 1), "b": (2.5, 2)}
    verified(deployment)


@pytest.fixture
def go_producer(tmp_path: Path) -> Path:
    """The page's producer in Go, built. Where there is no Go the test is skipped, which in CI is a failure."""
    if shutil.which("go") is None:
        pytest.skip("Go is missing: install Go 1.25 or newer")
    folder = tmp_path / "producer"
    shutil.copytree(Path(__file__).parents[1] / "go_producer", folder)
    (code,) = blocks(PAGE, "go")
    (folder / "main.go").write_text(code)
    environment = {**os.environ, "GOFLAGS": "-mod=readonly"}
    subprocess.run(["go", "build", "-o", "produce", "."], cwd=folder, env=environment, check=True, timeout=300)
    return folder / "produce"


def test_a_stranger_who_speaks_another_language_pushes_with_nothing_but_the_page(
    deploy: Callable[..., Deployment], go_producer: Path
) -> None:
    """Nothing of Python, and no library that we use, has a part in what is written."""
    deployment = deploy(pushed=True)
    number = 2**53 + 1  # what a language without whole numbers of 64 bits would lose
    row = {"customer": "ä", "event_timestamp": "2025-01-01T00:00:00Z", "amount": 1.5, "number": number}
    event = {"customer": "b", "at": "2025-01-01T00:00:00+01:00", "amount": 2.5, "number": 2}
    written: list[dict[str, Any]] = [
        {"key": "anything", "headers": {"to": "online"}, "value": row},
        {"headers": {"transform_on_write": "true"}, "value": event},
        {"headers": {"to": "offline"}, "value": {**row, "customer": "c"}},
        {"headers": {}, "value": {**row, "number": 4, "_sequence": 7}},
        {"headers": {"to": "both"}, "value": {**row, "customer": "d"}},
    ]
    subprocess.run(
        [go_producer, deployment.bootstrap, deployment.pushes],
        input="\n".join(json.dumps(each, indent=1) for each in written).encode(),
        check=True,
        timeout=60,
    )
    worker = deployment.start_worker().until_ready()
    eventually(lambda: oracle.linked(deployment.settings, deployment.pushes) == 5, within_s=30, what="links")
    assert worker.stop() == 0
    found = oracle.rows_in_redis(deployment.settings, orders.VIEW, ["ä", "b", "c", "d"])
    assert {customer: (row.amount, row.number) for customer, row in found.items()} == {"ä": (1.5, 4), "b": (2.5, 2)}
    at_rest = [
        (each["number"], each["_to"])
        for table in oracle._rows(deployment.settings, deployment.pushes, orders.VIEW)
        for each in table.select(["number", "_to"]).to_pylist()
    ]
    assert sorted(at_rest) == [
        (2, "online_and_offline"),
        (4, "online_and_offline"),
        (number, "offline"),
        (number, "online"),
    ]
    (letter,) = oracle.dead_letters(deployment.settings, deployment.pushes)
    assert (letter.offset, letter.headers) == (4, (("to", b"both"),))
    verified(deployment)
