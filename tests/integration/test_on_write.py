"""Views that store an on-demand view's features, with real parts: whichever way a push comes, the row is what a read
computes from the same values; it rests in files, and a rebuild brings back the same bytes."""

import dataclasses
import datetime
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stillwell.local import RedisServer
from stillwell.pushing.record import push_topic
from tests.integration import oracle, orders
from tests.integration.conftest import Deployment
from tests.integration.orders import Record
from tests.integration.proof import log, verified
from tests.integration.test_push_service import calling
from tests.integration.test_rebuild import assert_same, dump, flush, rebuilt
from tests.integration.test_serve import until_healthy
from tests.waiting import eventually

UTC = datetime.UTC
CARDS = """
from datetime import timedelta

from stillwell import AS_OF, Col, Entity, Feature, Float64, Int64, Key, OnDemandView, Request, String, Timestamp, Topic
from stillwell import View, feature


class Card(Entity):
    card: Key[String]


class Payment(Topic, name="{topic}", event_time="paid_at", start="earliest"):
    paid_at: Col[Timestamp]
    card: Col[String]
    cents: Col[Int64]


class LastPayment(View, source=Payment, entity=Card, keys={{"card": Payment.card}}, ttl=timedelta(days=3650)):
    paid_at: Feature[Timestamp] = feature(Payment.paid_at)
    cents: Feature[Int64] = feature(Payment.cents)


class Attempt(Request):
    attempted_cents: Col[Int64]


class Risk(OnDemandView, inputs=(LastPayment, Attempt)):
    surge: Feature[Float64 | None] = feature(Attempt.attempted_cents / (LastPayment.cents * 0.7))
    idle_s: Feature[Int64 | None] = feature((AS_OF - LastPayment.paid_at).dt.total_seconds())


class RiskAtPayment(View, source=Risk, entity=Card, ttl=timedelta(days=3650)):
    pass
"""
NAMES = ["RiskAtPayment:surge", "RiskAtPayment:idle_s"]
PAID_AT = datetime.datetime(2026, 1, 1, 12, tzinfo=UTC)
PAYMENT = {"paid_at": PAID_AT.isoformat(), "cents": 999}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of the test's own: what it forgets is nobody else's."""
    server = RedisServer(tmp_path / "redis")
    server.start()
    yield server
    server.stop()


def attempt(card: str, seconds: int) -> dict[str, Any]:
    """A raw event: 5,000 cents attempted so many seconds after the payment."""
    at = PAID_AT + datetime.timedelta(seconds=seconds)
    return {"card": card, "event_timestamp": at.isoformat(), "attempted_cents": 5_000, **PAYMENT}


def columns(row: dict[str, Any]) -> dict[str, list[Any]]:
    return {name: [value] for name, value in row.items()}


async def test_whichever_way_a_push_comes_the_row_is_what_a_read_computes(
    deploy: Callable[..., Deployment], server: RedisServer
) -> None:
    deployment = deploy(redis_url=server.url, definitions="cards", push="true")
    deployment.settings["STILLWELL_PROJECT"] = project = f"w{deployment.settings['STILLWELL_NAMESPACE']}"
    (deployment.folder / "cards.py").write_text(CARDS.format(topic=deployment.topic))
    deployment.run("topics", "create", "--partitions", "1").check_returncode()
    topic = push_topic(project, "RiskAtPayment")
    listed = json.loads(deployment.run("topics", "list", "--json").stdout)
    ours = [each for each in listed if each["of"] in ("RiskAtPayment", "Risk")]
    assert ours == [
        {"name": topic, "use": "pushes", "of": "RiskAtPayment", "views": ["RiskAtPayment"], "partitions": 1}
    ]
    deployment.start_worker().until_ready()
    service = until_healthy(deployment.service().start())
    async with calling(service) as (caller,):

        async def risk(card: str, after: str = "") -> list[Any]:
            body = {"features": NAMES, "entities": {"card": [card]}, "after": after, "timeout_ms": 30_000}
            status, answer = await caller.post("/v1/features", body)
            assert status == 200, answer
            return [answer["features"][name]["values"][0] for name in NAMES]

        async def push(path: str = "/v1/push", **body: object) -> dict[str, Any]:
            status, answer = await caller.post(path, body)
            assert status in (200, 202), answer
            taken: dict[str, Any] = answer
            return taken

        # What a read computes from the same values; how long ago is another number for it, and is counted below.
        stored = await push(view="LastPayment", rows=[{"card": "read", **PAYMENT}])
        asked = {"card": ["read"], "attempted_cents": [5_000]}
        _, answer = await caller.post(
            "/v1/features", {"features": ["Risk:surge"], "entities": asked, "after": stored["token"]}
        )
        surge = answer["features"]["Risk:surge"]["values"][0]
        assert surge == 5_000 / (999 * 0.7)

        token = (await push(view="RiskAtPayment", rows=[attempt("sync", 60)]))["token"]
        assert await risk("sync", token) == [surge, 60]
        token = (await push(view="RiskAtPayment", rows=[attempt("async", 61)], mode="async"))["token"]
        assert await risk("async", token) == [surge, 61]
        final = {"card": "final", "event_timestamp": PAID_AT.isoformat(), "surge": surge, "idle_s": 62}
        token = (await push(view="RiskAtPayment", rows=[final], transform_on_write=False))["token"]
        assert await risk("final", token) == [surge, 62]
        await push("/push", push_source_name="RiskAtPayment", df=columns(attempt("feast", 63)))
        assert await risk("feast") == [surge, 63]
        written = {name: value for name, value in columns(final).items() if name != "card"} | {"card": ["written"]}
        await push("/write-to-online-store", feature_view_name="RiskAtPayment", df=written)
        assert await risk("written") == [surge, 62]
        kept_offline = Record(
            json.dumps(attempt("offline", 64)).encode(), headers=(("transform_on_write", b"true"), ("to", b"offline"))
        )
        wrong = Record(json.dumps({**attempt("wrong", 0), "cent": 1}).encode(), headers=kept_offline.headers)
        orders.produce(deployment.bootstrap, topic, [kept_offline, wrong])
        eventually(lambda: oracle.linked(deployment.settings, topic) == 7, within_s=30, what="seven pushes linked")
        assert await risk("offline") == [None, None]

    for worker in deployment.workers:
        assert worker.stop() == 0
        assert "Traceback" not in log(worker)
    verified(deployment)
    at_rest = {
        row["card"]: (row["surge"], row["idle_s"], row["_to"])
        for table in oracle._rows(deployment.settings, topic, "RiskAtPayment")
        for row in table.to_pylist()
    }
    both = "online_and_offline"
    assert at_rest == {
        "sync": (surge, 60, both),
        "async": (surge, 61, both),
        "final": (surge, 62, both),
        "feast": (surge, 63, "online"),
        "written": (surge, 62, "online"),
        "offline": (surge, 64, "offline"),
    }
    letters = json.loads(deployment.run("dlq", "list", "--topic", topic, "--json").stdout)["letters"]
    assert [each["reason"] for each in letters] == ["decode"]
    before = dump(deployment)
    assert len(before.rows) == 6
    flush(deployment)
    rebuilt(deployment)
    after = dump(deployment)
    # Of a topic that nothing was read from, the worker alone has a mark.
    assert_same(after, dataclasses.replace(before, marks={key: before.marks[key] for key in after.marks}))


PURE = """
from datetime import timedelta

from stillwell import AS_OF, Col, Entity, Feature, Int64, Key, OnDemandView, Request, String, Timestamp, View, feature


class Visitor(Entity):
    visitor: Key[String]


class Visit(Request):
    since: Col[Timestamp]


class Stay(OnDemandView, inputs=(Visit,)):
    seconds: Feature[Int64] = feature((AS_OF - Visit.since).dt.total_seconds())


class LastStay(View, source=Stay, entity=Visitor, ttl=timedelta(days=3650)):
    seconds: Feature[Int64] = feature(Stay.seconds)
"""


async def test_a_deployment_needs_no_topic_of_its_own(deploy: Callable[..., Deployment]) -> None:
    """All of it is pushed."""
    deployment = deploy(definitions="visits", push="true")
    deployment.settings["STILLWELL_PROJECT"] = f"w{deployment.settings['STILLWELL_NAMESPACE']}"
    (deployment.folder / "visits.py").write_text(PURE)
    assert deployment.run("check").stdout.startswith("visits is right: 1 entity, 0 topics, 1 view")
    deployment.run("topics", "create", "--partitions", "1").check_returncode()
    worker = deployment.start_worker().until_ready()
    rows = [{"visitor": "v", "event_timestamp": "2026-01-01T00:01:00Z", "since": "2026-01-01T00:00:00Z"}]
    async with calling(deployment.service().start()) as (caller,):
        status, answer = await caller.post("/v1/push", {"view": "LastStay", "rows": rows, "mode": "async"})
        assert status == 202, answer
        asked = {"features": ["LastStay:seconds"], "entities": {"visitor": ["v"]}, "after": answer["token"]}
        status, answer = await caller.post("/v1/features", {**asked, "timeout_ms": 30_000})
        assert answer["features"]["LastStay:seconds"]["values"] == [60]
    assert worker.stop() == 0
    verified(deployment)
