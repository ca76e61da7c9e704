"""Lists and vectors with real parts: from Kafka and from pushes into Redis and Parquet, read back and predicted from
over HTTP and on the command line; verified, and rebuilt to the same bytes."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis

from stillwell.local import RedisServer
from stillwell.pushing.record import push_topic
from tests.integration import oracle, orders
from tests.integration.conftest import Deployment
from tests.integration.orders import Record
from tests.integration.proof import log, verified
from tests.integration.test_rebuild import assert_same, dump, flush, rebuilt
from tests.integration.test_serve import ask, until_healthy
from tests.waiting import eventually

BASKETS = """
from datetime import timedelta
from typing import Annotated

from stillwell import Col, Entity, Feature, Float32, Key, Model, OnDemandView, Output, Request, Size, String, Timestamp
from stillwell import Topic, View, feature

Taste = Annotated[list[Float32], Size(3)]


class Customer(Entity):
    customer: Key[String]


class Basket(Topic, name="{topic}", event_time="at", start="earliest"):
    at: Col[Timestamp]
    customer: Col[String]
    items: Col[list[String] | None]
    taste: Col[Taste]


class Baskets(View, source=Basket, entity=Customer, keys={{"customer": Basket.customer}}, ttl=timedelta(days=3650)):
    items: Feature[list[String] | None] = feature(Basket.items.list.sort())
    taste: Feature[Taste] = feature(Basket.taste)


class Wish(Request):
    wish: Col[Taste]


class Near(OnDemandView, inputs=(Baskets, Wish)):
    dot: Feature[Float32 | None] = feature((Baskets.taste * Wish.wish).arr.sum())


def _turned(columns):
    return {{"turned": [each[::-1] for each in columns["taste"]]}}


class Turned(Model, entity=Customer, version="1", policy="wait", max_staleness=timedelta(days=1),
             inputs={{"taste": Baskets.taste}}, server=_turned):
    turned: Output[Taste]
"""
AT = "2026-01-01T12:00:00+00:00"


def basket(customer: str, items: Any = None, taste: Any = (1, 0.5, -2)) -> dict[str, Any]:
    return {"at": AT, "customer": customer, "items": items, "taste": list(taste)}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of the test's own: what it forgets is nobody else's."""
    server = RedisServer(tmp_path / "redis")
    server.start()
    yield server
    server.stop()


def forget_what_ends(deployment: Deployment) -> None:
    """Predictions, and answers to pushes: they are no part of what a rebuild brings back."""
    prefix = f"{deployment.settings['STILLWELL_PROJECT']}:{deployment.settings['STILLWELL_NAMESPACE']}"
    with redis.Redis.from_url(deployment.settings["STILLWELL_REDIS_URL"]) as client:
        for key in client.scan_iter(f"{prefix}:[pla]:*", count=10_000):
            client.delete(key)


def test_lists_and_vectors_go_through_the_whole_product(deploy: Callable[..., Deployment], server: RedisServer) -> None:
    deployment = deploy(redis_url=server.url, definitions="baskets", push="true")
    deployment.settings["STILLWELL_PROJECT"] = project = f"w{deployment.settings['STILLWELL_NAMESPACE']}"
    (deployment.folder / "baskets.py").write_text(BASKETS.format(topic=deployment.topic))
    deployment.run("topics", "create", "--partitions", "1").check_returncode()
    deployment.start_worker().until_ready()
    service = until_healthy(deployment.service().start())
    events = [
        basket("ada", ["tea", "ale"]),
        basket("bob"),
        basket("eve", ["tea", None]),
        basket("eve", [], (1, 2)),
        basket("cyd", []),
    ]
    sent = [Record(json.dumps(each).encode()) for each in events]
    orders.produce(deployment.bootstrap, deployment.topic, sent)
    eventually(lambda: oracle.linked(deployment.settings, deployment.topic) == 5, within_s=30, what="five events")

    asked = {"customer": ["ada", "bob", "cyd", "eve"]}
    _, answer = ask(service, {"features": ["Baskets:items", "Baskets:taste"], "entities": asked}, "/v1/features")
    items, taste = answer["features"]["Baskets:items"], answer["features"]["Baskets:taste"]
    assert (items["type"], items["values"]) == ("List[String]", [["ale", "tea"], None, [], None])
    assert items["statuses"] == ["PRESENT", "NULL_VALUE", "PRESENT", "NOT_FOUND"]
    assert (taste["type"], taste["values"]) == ("Vector[Float32, 3]", [*[[1.0, 0.5, -2.0]] * 3, None])
    _, answer = ask(service, {"features": ["Baskets:taste"], "entities": asked})
    assert answer["results"][1]["values"] == taste["values"]

    body: dict[str, Any] = {"features": ["Near:dot"], "entities": {**asked, "wish": [[2, 2, 0.5]] * 4}}
    _, answer = ask(service, body, "/v1/features")
    assert answer["features"]["Near:dot"]["values"] == [2.0, 2.0, 2.0, None]
    path = f"/v1/features?features=Near:dot&customer=ada&wish={quote('[2, 2, 0.5]')}"
    status, answer = ask(service, None, path)
    assert (status, answer["features"]["Near:dot"]["value"]) == (200, 2.0), answer
    body["entities"]["wish"] = [[2, 2]] * 4
    status, answer = ask(service, body, "/v1/features")
    assert (status, answer["error"]["field"]) == (422, "entities.wish[0]")
    _, answer = ask(service, None, "/v1/predictions?model=Turned&customer=ada")
    assert answer["types"] == {"turned": "Vector[Float32, 3]"}
    assert answer["prediction"]["outputs"] == {"turned": [-2.0, 0.5, 1.0]}

    (deployment.folder / "rows.ndjson").write_text(json.dumps(basket("dan", ["rum"], (0, 0, 1))))
    final = {"customer": ["fay"], "event_timestamp": [AT], "items": [["gin"]], "taste": pa.array([[4, 5, 6]])}
    pq.write_table(pa.table(final), deployment.folder / "rows.parquet")
    url = f"http://127.0.0.1:{service.port}"
    for file, *options in (["rows.ndjson"], ["rows.parquet", "--final"]):
        deployment.run("push", "Baskets", file, *options, "--url", url).check_returncode()
    got = json.loads(deployment.run("get", "Baskets", "customer=fay", "--json").stdout)["features"]
    assert [each["value"] for each in got.values()] == [["gin"], [4.0, 5.0, 6.0]]
    dot = deployment.run("get", "Near:dot", "customer=dan", "wish=[1, 1, 7]")
    assert "Near:dot  PRESENT          7.0" in dot.stdout, dot.stdout + dot.stderr
    pushes = push_topic(project, "Baskets")
    eventually(lambda: oracle.linked(deployment.settings, pushes) == 2, within_s=30, what="two pushes linked")

    said = deployment.run("dlq", "list").stdout
    assert "items[1]: expected String (Unicode text), got null (at $.items[1])" in said
    assert "got a list of 2 (at $.taste)" in said
    for worker in deployment.workers:
        assert worker.stop() == 0
        assert "Traceback" not in log(worker)
    verified(deployment)
    forget_what_ends(deployment)
    before = dump(deployment)
    assert len(before.rows) == 5
    flush(deployment)
    rebuilt(deployment)
    after = dump(deployment)
    assert_same(after, dataclasses.replace(before, marks={key: before.marks[key] for key in after.marks}))
