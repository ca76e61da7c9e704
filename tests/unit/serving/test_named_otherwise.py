"""Aliases, feature services, on-demand features and objectives, as both interfaces show them."""

import datetime
from collections.abc import AsyncIterator

import polars as pl
import pytest

from serving.metrics import LATE_ROWS, OBJECTIVE_ROWS
from stillwell.spec import (
    AS_OF,
    AliasSpec,
    EntitySpec,
    FeatureServiceSpec,
    KeySpec,
    OnDemandSpec,
    RequestColumnSpec,
    RequestSpec,
)
from stillwell.types import FLOAT64, INT64, TIMESTAMP
from tests import served as made_for_tests
from tests.batches import feature
from tests.served import DEFINITIONS, NOW_US, PLACES, USERS, Served

FRIENDS = EntitySpec(name="Friends", keys=(KeySpec(name="friend", type=INT64),))
SINCE = USERS.model_copy(update={"freshness": datetime.timedelta(minutes=1)})
FRIEND = AliasSpec(name="Friend", view=SINCE, entity=FRIENDS, keys={"id": "friend"})
OFFER = RequestSpec(
    name="Offer",
    columns=(
        RequestColumnSpec(name="price", type=FLOAT64, nullable=False),
        RequestColumnSpec(name="until", type=TIMESTAMP, nullable=True),
    ),
)
DEAL = OnDemandSpec(
    name="Deal",
    version=1,
    inputs=(SINCE, FRIEND, OFFER),
    features=(
        feature("more", FLOAT64, pl.col("Users.amount") - pl.col("Offer.price"), nullable=True),
        feature("ends_s", INT64, (pl.col("Offer.until") - pl.col(AS_OF)).dt.total_seconds(), nullable=True),
    ),
)
OTHER = RequestSpec(name="Other", columns=(RequestColumnSpec(name="until", type=INT64, nullable=False),))
LEFT = OnDemandSpec(name="Left", version=1, inputs=(OTHER,), features=(feature("until", INT64, pl.col("Other.until")),))
EXTENDED = DEFINITIONS.model_copy(
    update={
        "entities": (*DEFINITIONS.entities, FRIENDS),
        "views": (SINCE, PLACES),
        "aliases": (FRIEND,),
        "requests": (OFFER, OTHER),
        "on_demand": (DEAL, LEFT),
        "services": (FeatureServiceSpec(name="Both", features=("Users:amount", "Friend:amount", "Deal:more")),),
    }
)


@pytest.fixture
async def extended(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Served]:
    """A service with more to ask for."""
    monkeypatch.setattr(made_for_tests, "DEFINITIONS", EXTENDED)
    made = Served()
    await made.client.start_server()
    yield made
    await made.client.close()


async def test_feasts_clients_ask_for_a_service_and_tell_aliases_by_full_names(extended: Served) -> None:
    await extended.put({"id": 1, "name": "a", "amount": 7.5}, {"id": 2, "name": "b", "amount": 1.0})
    asked = {"feature_service": "Both", "entities": {"id": [1, 2], "friend": [2, 9], "price": [2, 0.5]}}
    status, answer = await extended.post("/get-online-features", **asked, full_feature_names=True)
    assert status == 200
    names = ["id", "friend", "price", "Users__amount", "Friend__amount", "Deal__more"]
    assert answer["metadata"]["feature_names"] == names
    shown = {name: (each["values"], each["statuses"]) for name, each in zip(names, answer["results"], strict=True)}
    assert shown["Users__amount"] == ([7.5, 1.0], ["PRESENT"] * 2)
    assert shown["Friend__amount"] == ([1.0, None], ["PRESENT", "NOT_FOUND"])
    assert shown["Deal__more"] == ([5.5, 0.5], ["PRESENT"] * 2)
    assert shown["price"] == ([2, 0.5], ["PRESENT"] * 2)
    assert answer["results"][5]["event_timestamps"] == ["2026-01-01T00:00:00Z"] * 2


async def test_an_unknown_service_is_told_the_nearest(extended: Served) -> None:
    status, answer = await extended.post("/v1/features", feature_service="Bth", entities={"id": [1]})
    assert (status, answer["error"]["field"]) == (404, "feature_service")
    assert "did you mean 'Both'?" in answer["error"]["message"]
    status, answer = await extended.get("/v1/features?features=Both&id=1")
    assert (status, answer["error"]["field"]) == (422, "features[0]")
    assert "'Both' must be <view>:<feature>; it is a feature service: name it as `feat" in answer["error"]["message"]
    status, answer = await extended.get("/v1/features?feature_service=Both&features=Users:name&id=1")
    assert (status, answer["error"]["field"]) == (422, "feature_service")


async def test_a_url_carries_request_values_and_the_answer_the_freshness(extended: Served) -> None:
    await extended.put({"id": 1, "name": "a", "amount": 7.5})
    extended.now_us = NOW_US + 61_000_000
    query = "features=Users:amount,Deal:more,Deal:ends_s,Places:amount&id=1&name=a&price=2.5&until=2026-01-01T00:02:01Z"
    status, answer = await extended.get(f"/v1/features?{query}")
    assert status == 200
    assert answer["entity"] == {"id": 1, "name": "a", "price": 2.5, "until": "2026-01-01T00:02:01Z"}
    shown = {name: (each["value"], each["freshness"]) for name, each in answer["features"].items()}
    assert shown == {
        "Users:amount": (7.5, "LATE"),
        "Deal:more": (5.0, "LATE"),
        "Deal:ends_s": (60, None),
        "Places:amount": (7.5, None),
    }
    assert answer["features"]["Deal:ends_s"]["event_time"] is None
    assert answer["features"]["Deal:more"]["age_s"] == 61.0


async def test_a_value_in_a_url_is_read_by_the_type_that_the_features_asked_for_give_it(extended: Served) -> None:
    """Two requests may call different things alike."""
    await extended.put({"id": 1, "name": "a", "amount": 7.5})
    _, answer = await extended.get("/v1/features?features=Left:until&until=7")
    assert answer["features"]["Left:until"]["value"] == 7
    _, answer = await extended.get("/v1/features?features=Deal:ends_s&until=2026-01-01T00:00:09Z")
    assert answer["features"]["Deal:ends_s"]["value"] == 9
    _, answer = await extended.get("/v1/features?features=Users:amount&id=1&until=whenever")
    assert answer["entity"] == {"id": 1, "until": "whenever"}


async def test_rows_of_views_with_an_objective_are_counted_and_those_that_miss_it(extended: Served) -> None:
    """For each request and view, however many of its features are asked for; by an alias too, and where a feature on
    demand reads them."""
    metrics = extended.metrics

    async def counted(*features: str, **entities: list[object]) -> tuple[float, float]:
        before = metrics.get(OBJECTIVE_ROWS, "Users"), metrics.get(LATE_ROWS, "Users")
        status, _ = await extended.post("/v1/features", features=features, entities=entities)
        assert status == 200
        return metrics.get(OBJECTIVE_ROWS, "Users") - before[0], metrics.get(LATE_ROWS, "Users") - before[1]

    rest = {"seen": "2026-01-01T00:00:00Z", "raw": "AA==", "amount": 7.5}  # without a null, rows are read another way
    await extended.put({"id": 1, "name": "a", **rest}, {"id": 2, "name": "b", **rest})
    begun = [sample for family in metrics.collect() for sample in family.samples if sample.name == LATE_ROWS.name]
    assert [sample.labels["view"] for sample in begun] == ["Users"]
    assert await counted("Users:amount", "Users:name", id=[1]) == (1, 0)
    assert await counted("Users:amount", "Users:name", id=[1, 2]) == (2, 0)
    assert await counted("Users:amount", id=[1, 2, 9]) == (2, 0)
    assert await counted("Places:amount", name=["a"], id=[1]) == (0, 0)
    extended.now_us = NOW_US + 61_000_000
    await extended.put({"id": 2, "name": "b", **rest, "at": "2026-01-01T00:01:01Z"})
    assert await counted("Users:amount", "Users:name", id=[1]) == (1, 1)
    assert await counted("Users:amount", "Users:name", id=[1, 2]) == (2, 1)
    assert await counted("Users:amount", id=[1, 2, 9]) == (2, 1)
    assert await counted("Friend:amount", friend=[1, 9]) == (1, 1)
    assert await counted("Deal:more", id=[1], friend=[1], price=[1.0]) == (1, 1)


async def test_columns_say_the_freshness_of_each_entity(extended: Served) -> None:
    await extended.put({"id": 1, "name": "a", "amount": 7.5})
    _, answer = await extended.post("/v1/features", features=["Users:amount"], entities={"id": [1, 2]})
    assert answer["features"]["Users:amount"]["freshness"] == ["FRESH", None]


@pytest.mark.parametrize(
    ("query", "field", "message"),
    [
        ("price=dear", "price", "price: must be a number, got 'dear'"),
        ("price=1&until=tomorrow", "until", "until: must be a time with its zone, as in 2026-01-31T12:00:00Z, got"),
        ("price=1&id=%2B1", "id", "id: must be a whole number that fits Int64, got '+1'"),
        ("price=1e400&id=1", "price", "price: must be a number, got '1e400'"),
        ("prize=1", "prize", "prize: is no key of any entity; did you mean 'price'?"),
    ],
)
async def test_a_request_value_in_a_url_is_read_strictly(
    query: str, field: str, message: str, extended: Served
) -> None:
    status, answer = await extended.get(f"/v1/features?features=Deal:more,Deal:ends_s&{query}")
    assert (status, answer["error"]["field"]) == (422, field)
    assert answer["error"]["message"].startswith(message)


async def test_nan_and_infinity_are_texts_on_the_way_in_as_on_the_way_out(extended: Served) -> None:
    await extended.put({"id": 1, "name": "a", "amount": 7.5})
    _, answer = await extended.get("/v1/features?features=Deal:more&id=1&price=-Infinity")
    assert answer["entity"]["price"] == "-Infinity"
    assert answer["features"]["Deal:more"]["value"] == "Infinity"


@pytest.mark.parametrize("names", [["Users:amount", "Deal:more"], ["Deal:more", "Users:amount"]])
async def test_what_is_computed_has_no_provenance_though_all_that_it_reads_is_of_one_row(
    names: list[str], extended: Served
) -> None:
    await extended.put({"id": 1, "name": "a", "amount": 7.5})
    entities = {"id": [1], "price": [2.5]}
    _, answer = await extended.post("/v1/features", features=names, entities=entities, provenance=True)
    (made,) = answer["features"]["Users:amount"]["provenance"]
    assert made is not None
    assert answer["features"]["Deal:more"]["provenance"] == [None]
