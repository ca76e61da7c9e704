"""Definitions as names: whoever has the classes asks by them, and the service is asked by text all the same."""

import datetime
import sys
import types
from typing import TYPE_CHECKING, Any

import pytest

from stillwell import (
    AS_OF,
    Col,
    Entity,
    Feature,
    FeatureService,
    Float32,
    Int64,
    Key,
    Model,
    OnDemandView,
    Output,
    Request,
    String,
    Timestamp,
    Topic,
    View,
    feature,
)
from stillwell.client import Client, RequestError, Retries
from stillwell.client.service import Service
from tests.fake_service import FakeTransport, Sent, reply
from tests.fake_service import feature as answered

if TYPE_CHECKING:
    from stillwell.client.named import Asking


class Airport(Entity):
    airport: Key[String]


class Route(Entity):
    origin: Key[String]
    dest: Key[String]


class Departure(Topic, name="departures", event_time="at", start="earliest"):
    at: Col[Timestamp]
    airport: Col[String]
    delay: Col[Float32 | None]


class Departures(
    View, source=Departure, entity=Airport, keys={"airport": Departure.airport}, ttl=datetime.timedelta(hours=6)
):
    left: Feature[Timestamp] = feature(Departure.at)
    delay: Feature[Float32 | None] = feature(Departure.delay)


Origin = Departures.at(airport=Route.origin)


class Journey(Request):
    departs_at: Col[Timestamp]


class Waiting(OnDemandView, inputs=(Departures,)):
    quiet_min: Feature[Int64 | None] = feature((AS_OF - Departures.left).dt.total_minutes())


class RouteDelay(
    Model,
    entity=Route,
    version="1",
    policy="cached",
    max_staleness=datetime.timedelta(minutes=1),
    inputs={"delay": Origin.delay},
    server=lambda columns: columns,
):
    minutes: Output[Float32]


class Board(FeatureService, features=(Departures.delay, Waiting, Origin.left)):
    """What a board shows."""


async def asked(features: "Asking") -> Any:
    """The body that is sent."""
    transport = FakeTransport(reply({"features": {}}))
    await client(transport).features(features, {"airport": "JFK"})
    (sent,) = transport.sent
    return sent.body


def client(transport: FakeTransport) -> Client:
    return Client.of(Service(transport, "http://fake", Retries()))


@pytest.mark.parametrize(
    ("features", "names"),
    [
        ([Departures.delay], ["Departures:delay"]),
        (Departures.delay, ["Departures:delay"]),
        ((Waiting.quiet_min, RouteDelay.minutes), ["Waiting:quiet_min", "RouteDelay:minutes"]),
        ([Origin.left, "Origin:delay"], ["Origin:left", "Origin:delay"]),
        (Origin, ["Origin:left", "Origin:delay"]),
        ([Departures, Waiting], ["Departures:left", "Departures:delay", "Waiting:quiet_min"]),
        ([RouteDelay, Board], ["RouteDelay:minutes", "Departures:delay", "Waiting:quiet_min", "Origin:left"]),
        ([Origin.left, Departures.delay, Board], ["Origin:left", "Departures:delay", "Waiting:quiet_min"]),
    ],
)
async def test_objects_are_asked_for_by_their_names(features: "Asking", names: list[str]) -> None:
    assert (await asked(features))["features"] == names


async def test_a_feature_service_alone_is_asked_for_as_one() -> None:
    """The list is then that of the service, which may be a newer one."""
    body = await asked(Board)
    assert body["feature_service"] == "Board"
    assert "features" not in body


@pytest.mark.parametrize(
    ("features", "says"),
    [
        ([Departures.delay, Route.origin], r"features\[1\]: is Route.origin, a key; name features"),
        ([Departure.delay], r"features\[0\]: is Departure.delay, a column of a topic"),
        ([Journey.departs_at], "a value that a request brings"),
        ([Departures.delay + 1], "must be a feature as it stands .* compute in an OnDemandView"),
        ([Route], "not Route"),
        ([View], "not View"),
        ([7], "not 7"),
        ([Departures.at(airport=Route.dest).left], "has no name; bind it in a module"),
    ],
)
async def test_what_has_no_features_is_refused_before_anything_is_sent(features: Any, says: str) -> None:
    with pytest.raises(RequestError, match=says):
        await asked(features)


async def test_an_alias_that_another_module_of_its_package_names_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that a function has made, say."""
    made = Departures.at(airport=Route.dest)
    monkeypatch.setattr(made, "_module", "shop.making")
    module = types.ModuleType("shop.views")
    vars(module).update(_hidden=made, Dest=made)
    monkeypatch.setitem(sys.modules, "shop.views", module)
    assert (await asked([made.left]))["features"] == ["Dest:left"]


async def test_answers_are_read_by_objects_too() -> None:
    body = {"features": {"Departures:delay": answered("Float32", 1.5), "Origin:left": answered("Timestamp", None)}}
    found = await client(FakeTransport(reply(body))).features([Departures.delay, Origin.left], {"airport": "JFK"})
    assert found.one()[Departures.delay].value == 1.5
    assert found.column(Origin.left) is found.columns["Origin:left"]
    with pytest.raises(KeyError, match="the answer has no Departures:left; it has Departures:delay, Origin:left"):
        found.column(Departures.left)
    with pytest.raises(KeyError, match="the answer has no delay; it has Departures:delay, Origin:left"):
        found.one()["delay"]
    with pytest.raises(RequestError, match="stands for 2 features; name one"):
        found.column(Departures)  # type: ignore[arg-type]


async def test_models_and_views_are_named_by_their_classes() -> None:
    told = {
        "state": "FRESH",
        "outputs": {"minutes": 4.5},
        "computed_at": None,
        "read_at": None,
        "age_s": 0.5,
        "inputs": {},
        "refresh": "none",
        "reason": None,
    }
    answer = {"model": "RouteDelay", "version": "1", "types": {"minutes": "Float32"}, "predictions": [told]}
    predicting = FakeTransport(reply(answer))
    found = await client(predicting).predictions(RouteDelay, {"origin": "JFK", "dest": "LAX"})
    assert found.one()[RouteDelay.minutes] == 4.5
    with pytest.raises(RequestError, match="must be an output as it stands"):
        found.one()[Departures.delay]
    taking = FakeTransport(reply({"token": "Departures@1:0-7", "statuses": ["applied"]}))
    await client(taking).push(Departures, {"airport": "JFK"})
    async with client(taking).pusher(Departures) as pusher:
        await pusher.push({"airport": "JFK"})
    named: list[Sent] = [*predicting.sent, *taking.sent]
    assert [each.body.get("model") or each.body["view"] for each in named] == ["RouteDelay", "Departures", "Departures"]


@pytest.mark.parametrize("wrong", [Origin, Departure, Departures.delay, View, 7])
async def test_what_is_no_view_or_model_is_said_by_its_name(wrong: Any) -> None:
    nobody = client(FakeTransport(None))
    with pytest.raises(RequestError, match="view: must be a view, or its name"):
        await nobody.push(wrong, {"airport": "JFK"})
    with pytest.raises(RequestError, match="model: must be a model, or its name"):
        await nobody.predictions(wrong, {"airport": "JFK"})
