"""Redis forgets; `stillwell rebuild` puts everything back from the files, byte for byte, and workers go on."""

import dataclasses
import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from stillwell.layout.redis_keys import RedisKeys
from stillwell.local import RedisServer
from tests.integration import orders
from tests.integration.conftest import Deployment
from tests.integration.orders import Feed, Order
from tests.integration.proof import log, metric, prove, until_linked, until_logged
from tests.stores import root_of
from tests.waiting import eventually

PARTITIONS = 2

SECOND_VERSION = """
from stillwell import Bool

class LastOrder(View, source=Order, entity=Customer, keys={"customer": Order.customer}, where=Order.amount >= 0,
                ttl=timedelta(days=3650), version=2):
    amount: Feature[Float64] = feature(Order.amount)
    number: Feature[Int64] = feature(Order.number)
    large: Feature[Bool] = feature(Order.amount > 50)
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of the test's own: what it forgets is nobody else's."""
    server = RedisServer(tmp_path / "redis")
    server.start()
    yield server
    server.stop()


@dataclasses.dataclass(frozen=True, slots=True)
class Dump:
    """What Redis holds. rows: by key; expiries: of the same, in ms since the epoch; marks: positions by key."""

    rows: dict[bytes, bytes]
    expiries: dict[bytes, int]
    marks: dict[bytes, bytes]
    ready: bytes | None


def dump(deployment: Deployment) -> Dump:
    """Everything of the deployment's namespace."""
    keys = RedisKeys(deployment.settings["STILLWELL_PROJECT"], deployment.settings["STILLWELL_NAMESPACE"])
    with redis.Redis.from_url(deployment.settings["STILLWELL_REDIS_URL"]) as client:
        seconds, microseconds = client.time()
        now = seconds * 1000 + microseconds // 1000
        stored = {key: client.get(key) for key in client.scan_iter(keys.prefix + b"*", count=10_000)}
        rows = {key: value for key, value in stored.items() if key.startswith(keys.prefix + b"f:")}
        expiries = {key: now + client.pttl(key) for key in rows}
    marks = {key: value[:20] for key, value in stored.items() if key.startswith(keys.prefix + b"m:")}
    assert len(rows) + len(marks) + 1 >= len(stored), stored.keys()
    return Dump(rows, expiries, marks, stored.get(keys.ready))


def assert_same(now: Dump, then: Dump) -> None:
    """The same rows and marks, byte for byte; the same expiries, as far as the clock tells."""
    assert now.rows == then.rows
    assert now.marks == then.marks
    assert now.expiries.keys() == then.expiries.keys()
    assert all(abs(now.expiries[key] - then.expiries[key]) < 2_000 for key in now.expiries)


def flush(deployment: Deployment) -> None:
    """FLUSHALL."""
    with redis.Redis.from_url(deployment.settings["STILLWELL_REDIS_URL"]) as client:
        client.flushall()


def rebuilt(deployment: Deployment, *options: str) -> dict[str, Any]:
    """What `stillwell rebuild --json` prints, when it succeeds."""
    done = deployment.run("rebuild", "--json", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    parts = ("applied", "stale", "duplicate", "expired", "superseded", "offline")
    assert report["rows"] == sum(report[part] for part in parts), report
    return report


def test_after_a_flush_everything_comes_back_byte_for_byte(
    deploy: Callable[..., Deployment], server: RedisServer, rng: random.Random
) -> None:
    """Rows, expiries and marks; a rebuild over what is there has to be meant, and changes nothing; and a worker goes on
    from there."""
    deployment = deploy(PARTITIONS, redis_url=server.url)
    values: list[Order | bytes] = [*orders.orders(2_000, rng), b"no JSON"]
    sent = orders.produce(deployment.bootstrap, deployment.topic, values, PARTITIONS)
    worker = deployment.start_worker().until_ready()
    until_linked(deployment, sent)
    assert worker.stop() == 0
    before = dump(deployment)
    assert len(before.rows) == 50
    assert len(before.marks) == PARTITIONS

    flush(deployment)
    asked = deployment.run("get", "LastOrder", "customer=c1")
    assert asked.returncode == 1
    assert "stillwell rebuild" in asked.stderr
    report = rebuilt(deployment)
    assert report["applied"] >= len(before.rows)
    assert report["chains"] == PARTITIONS
    after = dump(deployment)
    assert_same(after, before)
    assert after.ready not in (None, before.ready)

    assert_a_rebuild_has_to_be_meant(deployment)
    assert rebuilt(deployment, "--yes")["applied"] == 0
    assert_same(dump(deployment), before)

    more = orders.produce(deployment.bootstrap, deployment.topic, orders.orders(500, rng, first=2_000), PARTITIONS)
    worker = deployment.start_worker().until_ready()
    until_linked(deployment, [*sent, *more])
    assert worker.stop() == 0
    assert "applying rows again" not in log(worker)
    prove(deployment, [*sent, *more])


def assert_a_rebuild_has_to_be_meant(deployment: Deployment) -> None:
    """Redis is ready: on a terminal the command asks, elsewhere it wants --yes; without it Redis stays as it is."""
    ready = dump(deployment).ready
    refused = deployment.run("rebuild", "--json")
    assert (refused.returncode, json.loads(refused.stdout)["error"]["kind"]) == (2, "UsageError")
    assert "Redis is ready" in refused.stderr
    assert "--yes" in refused.stderr
    declined = deployment.run("rebuild", typed="n\n")
    assert declined.returncode == 130
    assert "Rebuild it? [y/N]" in declined.stderr
    assert dump(deployment).ready == ready
    accepted = deployment.run("rebuild", typed="y\n")
    assert accepted.returncode == 0
    assert "Redis is ready again" in accepted.stdout
    assert dump(deployment).ready not in (None, ready)


def test_a_running_worker_stops_when_redis_forgets_and_goes_on_after_a_rebuild(
    deploy: Callable[..., Deployment], server: RedisServer, rng: random.Random
) -> None:
    """It says so loudly, writes nothing meanwhile, and nobody needs to start it again."""
    deployment = deploy(PARTITIONS, redis_url=server.url)
    worker = deployment.start_worker()
    with Feed.of_orders(deployment.bootstrap, deployment.topic, PARTITIONS, rng, pace=500) as feed:
        worker.until_ready()
        eventually(lambda: metric(worker, "stillwell_links_total") > 2, within_s=30, what="some links")
        flush(deployment)
        until_logged(worker, "stillwell rebuild")
        eventually(lambda: worker.page("/readyz")[0] == 503, what="readiness to be denied")
        assert worker.page("/healthz")[0] == 200
        stopped = "stillwell_partition_stopped"
        eventually(lambda: metric(worker, stopped) == PARTITIONS, what="all partitions to be stopped")
        forgotten = dump(deployment)
        assert (forgotten.rows, forgotten.marks, forgotten.ready) == ({}, {}, None)
        rebuilt(deployment)
        worker.until_ready(deadline=30)
        linked = metric(worker, "stillwell_links_total")
        eventually(lambda: metric(worker, "stillwell_links_total") > linked, within_s=30, what="more links")
    until_linked(deployment, feed.sent)
    assert worker.stop() == 0
    prove(deployment, feed.sent)


def test_rows_of_a_version_that_definitions_no_longer_have_come_back_too(
    deploy: Callable[..., Deployment], server: RedisServer, rng: random.Random
) -> None:
    """By what was registered; without that nothing is touched, and the version is named."""
    deployment = deploy(redis_url=server.url)
    first = orders.produce(deployment.bootstrap, deployment.topic, orders.orders(300, rng, customers=200))
    worker = deployment.start_worker().until_ready()
    until_linked(deployment, first)
    assert worker.stop() == 0
    change_version(deployment)
    second = orders.produce(deployment.bootstrap, deployment.topic, orders.orders(100, rng, first=300, customers=200))
    worker = deployment.start_worker().until_ready()
    until_linked(deployment, [*first, *second])
    assert worker.stop() == 0
    before = dump(deployment)

    answers = [asked(deployment, customer) for customer in rows_of_both_versions(before)]
    assert [answer["row"]["version"] for answer in answers] == [1, 2]
    assert [answer["features"]["LastOrder:large"]["status"] for answer in answers] == ["NOT_FOUND", "PRESENT"]
    assert {answer["features"]["LastOrder:amount"]["status"] for answer in answers} == {"PRESENT"}

    registry = Path(root_of(deployment.settings)) / "_registry"
    shutil.move(registry, deployment.folder / "kept")
    refused = deployment.run("rebuild")
    assert refused.returncode == 1
    assert "LastOrder version 1" in refused.stderr
    untouched = dump(deployment)
    assert_same(untouched, before)
    assert untouched.ready == before.ready
    shutil.move(deployment.folder / "kept", registry)

    flush(deployment)
    rebuilt(deployment)
    assert_same(dump(deployment), before)


def change_version(deployment: Deployment) -> None:
    """Give the view another feature, and the next version."""
    file = deployment.folder / "orders" / "__init__.py"
    kept, _, _ = file.read_text().partition("class LastOrder")
    file.write_text(kept + SECOND_VERSION)


def rows_of_both_versions(found: Dump) -> list[str]:
    """A customer whose row is of the first version, and one of the second: told by the length of their values."""
    by_length: dict[int, str] = {}
    for key, value in found.rows.items():
        by_length[len(value)] = key.split(b":")[-2].decode()
    first, second = (by_length[length] for length in sorted(by_length))
    return [first, second]


def asked(deployment: Deployment, customer: str) -> dict[str, Any]:
    """What `stillwell get --json` says."""
    done = deployment.run("get", "LastOrder", f"customer={customer}", "--json")
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer
