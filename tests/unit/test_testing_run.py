"""`stillwell.testing`: a view over events, and the fixtures for pytest."""

import datetime
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from stillwell import (
    AS_OF,
    Bytes,
    Col,
    Entity,
    Feature,
    Float64,
    Int64,
    Key,
    OnDemandView,
    Request,
    Rows,
    String,
    Timestamp,
    Topic,
    View,
    col,
    feature,
    rows,
    rule,
)
from stillwell.testing import Record, run

NOON = datetime.datetime(2026, 3, 1, 12, tzinfo=UTC)


class Customer(Entity):
    customer: Key[String]


class Order(Topic, name="shop.orders", event_time="placed"):
    placed: Col[Timestamp] = col(unit="ms")
    customer: Col[String] = col(path="buyer.id")
    amount: Col[Float64] = col(gt=0, warn=rule(le=1_000))
    channel: Col[String | None] = col(header="channel")
    shard: Col[Int64 | None] = col(key=True)
    came: Col[Timestamp | None] = col(record_timestamp=True)
    seal: Col[Bytes | None]


class LastOrder(
    View,
    source=Order,
    entity=Customer,
    keys={"customer": Order.customer},
    where=Order.amount > 5,
    ttl=timedelta(days=1),
):
    amount: Feature[Float64] = feature(Order.amount)
    channel: Feature[String | None] = feature(Order.channel)
    shard: Feature[Int64 | None] = feature(Order.shard)
    came: Feature[Timestamp | None] = feature(Order.came)
    seal: Feature[Bytes | None] = feature(Order.seal)


class Ends(View, source=Order, entity=Customer, ttl=timedelta(0)):
    amount: Feature[Float64]

    @rows
    @staticmethod
    def both(event: Order) -> Rows:
        if event.amount > 5:
            yield {"customer": event.customer, "amount": event.amount}
            yield {"customer": "everybody", "amount": event.amount}


def order(customer: str, amount: object, minutes: int = 0) -> dict[str, Any]:
    placed = round((NOON + timedelta(minutes=minutes)).timestamp() * 1_000)
    return {"placed": placed, "buyer": {"id": customer}, "amount": amount}


def test_rows_rejects_and_filtered_events_are_told_by_the_place_of_their_event() -> None:
    events = [order("ada", 20.0), order("ada", 1.0), "no JSON", order("bob", -1), None, order("bob", 7.5)]
    ran = run(LastOrder, events, at=NOON)
    assert [(row["customer"], row["amount"], row["event_timestamp"]) for row in ran.rows] == [
        ("ada", 20.0, NOON),
        ("bob", 7.5, NOON),
    ]
    assert ran.filtered == (1,)
    assert [(reject.event, reject.reason) for reject in ran.rejected] == [
        (2, "decode"),
        (3, "expectation"),
        (4, "null_value"),
    ]
    assert "amount: expected > 0, got -1.0" in ran.rejected[1].error


def test_the_newest_rows_are_those_that_the_online_store_keeps() -> None:
    late = [order("ada", 20.0, 5), order("ada", 30.0, 0), order("bob", 7.0)]
    newest = run(LastOrder, late, at=NOON).newest
    assert {row["customer"]: row["amount"] for row in newest} == {"ada": 20.0, "bob": 7.0}


def test_a_record_brings_key_headers_and_timestamp() -> None:
    came = NOON + timedelta(seconds=3)
    record = Record(order("ada", 20.0), key="17", headers={"channel": "app"}, at=came)
    (row,) = run(LastOrder, [record], at=NOON).rows
    assert (row["shard"], row["channel"], row["came"]) == (17, "app", came)


def test_an_event_of_the_topics_class_becomes_the_record_that_gives_it() -> None:
    came = NOON + timedelta(seconds=3)
    event = Order(placed=NOON, customer="ada", amount=20.0, channel="app", shard=17, came=came, seal=b"\x00\xff")
    (row,) = run(LastOrder, [event], at=NOON).rows
    assert row == {
        "customer": "ada",
        "event_timestamp": NOON,
        "amount": 20.0,
        "channel": "app",
        "shard": 17,
        "came": came,
        "seal": b"\x00\xff",
    }


class Visit(Topic, name="shop.visits", event_time="at"):
    at: Col[Timestamp] = col(header="at")
    customer: Col[String]
    clicks: Col[list[Timestamp]] = col(unit="ms")


class LastVisit(View, source=Visit, entity=Customer, keys={"customer": Visit.customer}, ttl=timedelta(days=1)):
    clicks: Feature[list[Timestamp]] = feature(Visit.clicks)


def test_times_in_headers_and_lists_go_as_the_decoder_takes_them() -> None:
    visit = Visit(at=NOON, customer="ada", clicks=[NOON, NOON + timedelta(minutes=1)])
    ran = run(LastVisit, [visit], at=NOON)
    assert ran.rejected == ()
    assert ran.rows[0]["clicks"] == [NOON, NOON + timedelta(minutes=1)]


def test_an_event_of_another_topic_is_no_event_of_the_view() -> None:
    class Refund(Topic, name="shop.refunds", event_time="at"):
        at: Col[Timestamp]

    with pytest.raises(TypeError, match="the view reads Order, got an event of Refund"):
        run(LastOrder, [Refund(at=NOON)])


@pytest.mark.parametrize("event", [17, ["a"], 1.5])
def test_what_is_no_event_is_refused(event: Any) -> None:
    with pytest.raises(TypeError, match="an event is a mapping, text, bytes"):
        run(LastOrder, [event])


@pytest.mark.parametrize("one", [order("ada", 20.0), "{}", b"{}", Record({})])
def test_one_event_is_no_list_of_events(one: Any) -> None:
    """The keys of a mapping, or the letters of a text, would pass for events."""
    with pytest.raises(TypeError, match=r"run takes a list of events, got .*; put brackets around the one"):
        run(LastOrder, one)


@pytest.mark.parametrize("view", ["LastOrder", Order, LastOrder.spec])
def test_what_is_no_view_is_refused(view: Any) -> None:
    with pytest.raises(TypeError, match=r"run takes the class of a view, got .*; import it"):
        run(view, [])


def test_an_event_of_a_pydantic_model_is_sent_as_its_producer_does() -> None:
    class Placed(BaseModel):
        placed: int
        buyer: dict[str, str]
        amount: float

    placed = Placed(placed=int(NOON.timestamp() * 1_000), buyer={"id": "ada"}, amount=20.0)
    with pytest.raises(TypeError, match=r"of a Placed, as value\.model_dump_json\(\)"):
        run(LastOrder, [placed], at=NOON)  # type: ignore[list-item]  # that is the mistake
    (row,) = run(LastOrder, [placed.model_dump_json()], at=NOON).rows
    assert row["customer"] == "ada"


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(TypeError, match=r"add tzinfo=datetime\.UTC"):
        run(LastOrder, [], at=datetime.datetime(2026, 1, 1))  # that is the mistake


def test_a_future_event_is_judged_by_its_records_timestamp() -> None:
    (reject,) = run(LastOrder, [order("ada", 20.0, minutes=61)], at=NOON).rejected
    assert reject.reason == "future"
    assert run(LastOrder, [order("ada", 20.0, minutes=60)], at=NOON).rejected == ()


def test_records_are_of_now_where_nobody_says_otherwise() -> None:
    soon = datetime.datetime.now(UTC) + timedelta(minutes=30)
    event = {**order("ada", 20.0), "placed": round(soon.timestamp() * 1_000)}
    assert len(run(LastOrder, [event]).rows) == 1


def test_a_function_gives_any_number_of_rows_of_an_event() -> None:
    ran = run(Ends, [order("ada", 20.0), order("ada", 1.0)], at=NOON)
    assert [(row["customer"], row["amount"]) for row in ran.rows] == [("ada", 20.0), ("everybody", 20.0)]
    assert ran.filtered == (1,)


def test_what_a_rule_warns_of_is_counted_and_kept() -> None:
    ran = run(LastOrder, [order("ada", 2_000.0), order("ada", 20.0)], at=NOON)
    assert ran.warned == {("amount", "<= 1000"): 1}
    assert len(ran.rows) == 2


def test_no_events_give_no_rows() -> None:
    ran = run(LastOrder, [])
    assert (ran.rows, ran.newest, ran.rejected, ran.filtered) == ((), (), (), ())


class Basket(Request):
    total: Col[Float64]


class Larger(OnDemandView, inputs=(LastOrder, Basket)):
    larger: Feature[Float64 | None] = feature(Basket.total - LastOrder.amount)
    age_s: Feature[Int64 | None] = feature((AS_OF - LastOrder.came).dt.total_seconds())


class LargerThen(View, source=Larger, entity=Customer, ttl=timedelta(days=1)):
    larger: Feature[Float64 | None] = feature(Larger.larger)


def test_a_view_that_stores_what_is_computed_on_demand_takes_what_is_pushed_to_it() -> None:
    pushed = {"customer": "ada", "event_timestamp": NOON, "total": 30.0, "amount": 20.0}
    ran = run(LargerThen, [pushed, {**pushed, "total": "much"}], at=NOON)
    assert [(row["customer"], row["larger"]) for row in ran.rows] == [("ada", 10.0)]
    assert [reject.reason for reject in ran.rejected] == ["decode"]


# ---- the plugin ----

PROJECT: Mapping[str, str] = {
    "stillwell.toml": 'project = "shop"\ndefinitions = "shop_plugin"\n',
    "shop_plugin/__init__.py": """
from datetime import timedelta

from stillwell import Col, Entity, Feature, Float64, Key, String, Timestamp, Topic, View, feature


class Customer(Entity):
    customer: Key[String]


class Order(Topic, name="shop.orders", event_time="at"):
    at: Col[Timestamp]
    customer: Col[String]
    amount: Col[Float64]


class LastOrder(View, source=Order, entity=Customer, keys={"customer": Order.customer}, ttl=timedelta(days=1)):
    amount: Feature[Float64] = feature(Order.amount)
""",
    "shop_plugin/golden/shop.orders/plain.json": """{
    "about": "an order",
    "timestamp": "2026-01-01T00:00:01Z",
    "value": {"at": "2026-01-01T00:00:00Z", "customer": "ada", "amount": 20.0},
    "rows": {"LastOrder": [{"customer": "ada", "event_timestamp": "2026-01-01T00:00:00Z", "amount": 20.0}]}
}""",
    "test_shop.py": """
def test_the_definitions_load(stillwell_definitions):
    assert [view.name for view in stillwell_definitions.views] == ["LastOrder"]


def test_an_example_holds(stillwell_example):
    stillwell_example.check()
""",
}


def _pytest(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name, content in PROJECT.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    return tmp_path


def test_the_fixtures_are_there_without_a_word(project: Path) -> None:
    ran = _pytest(project, "-v")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "test_an_example_holds[shop.orders/plain] PASSED" in ran.stdout


def test_an_example_that_does_not_hold_is_a_test_that_fails(project: Path) -> None:
    example = project / "shop_plugin/golden/shop.orders/plain.json"
    example.write_text(example.read_text().replace('"amount": 20.0}]', '"amount": 21.0}]'))
    ran = _pytest(project)
    assert ran.returncode == 1
    assert "expects of LastOrder" in ran.stdout
    assert "amount=21.0" in ran.stdout
