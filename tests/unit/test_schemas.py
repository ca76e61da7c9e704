"""The flights: every topic has its card and its golden examples, every example is a test, and nothing is orphaned."""

import json
import pathlib
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest

from stillwell.definitions.golden import disagreements
from stillwell.definitions.loading import load_definitions
from stillwell.on_demand import OnDemand, at_one_instant
from stillwell.reading.catalog import Catalog
from stillwell.spec import ExampleSpec, OpenInferenceSpec, TopicSpec, ViewSpec

ROOT = pathlib.Path(__file__).parents[2]
FLIGHTS = load_definitions("schemas", ROOT)
A_YEAR = timedelta(days=400)


@pytest.mark.parametrize(
    "example", FLIGHTS.examples, ids=[f"{example.topic}/{example.name}" for example in FLIGHTS.examples]
)
def test_what_becomes_of_a_golden_example_is_what_it_says(example: ExampleSpec) -> None:
    assert disagreements(example, FLIGHTS) == ()


def test_the_topics_and_entities_are_those_of_the_flights() -> None:
    assert {topic.topic for topic in FLIGHTS.topics} == {"flights.departures", "flights.arrivals", "weather.hourly"}
    assert {entity.name for entity in FLIGHTS.entities} == {"Airport", "Carrier", "Route", "Aircraft"}
    assert len(FLIGHTS.views) >= 6


@pytest.mark.parametrize("topic", FLIGHTS.topics, ids=[topic.topic for topic in FLIGHTS.topics])
def test_a_topic_has_examples_that_are_used_and_such_that_are_refused(topic: TopicSpec) -> None:
    examples = [example for example in FLIGHTS.examples if example.topic == topic.topic]
    assert any(example.rows for example in examples)
    assert any(example.rejects for example in examples)


@pytest.mark.parametrize("topic", FLIGHTS.topics, ids=[topic.topic for topic in FLIGHTS.topics])
def test_the_card_of_a_topic_says_who_writes_and_reads_it_how_long_it_is_kept_and_what_each_field_is(
    topic: TopicSpec,
) -> None:
    for heading in ("Written by:", "Read by:", "Key:", "Retention:", "Fields:"):
        assert heading in topic.description
    lines = topic.description.partition("Fields:")[2].split("- ")
    named = {name.strip() for line in lines for name in line.partition(":")[0].split(",")}
    assert {column.name for column in topic.columns} <= named
    assert named - {""} <= {column.name for column in topic.columns}, "a card names no field that is gone"


@pytest.mark.parametrize("view", FLIGHTS.views, ids=[view.name for view in FLIGHTS.views])
def test_a_view_is_described_outlives_the_year_and_has_examples_that_come_and_such_that_are_pushed(
    view: ViewSpec,
) -> None:
    assert view.description
    assert view.ttl == timedelta(0) or view.ttl >= A_YEAR
    topics = {example.topic for example in FLIGHTS.examples if view.name in example.rows}
    assert topics == {view.source.topic, f"push/{view.name}"}


@pytest.mark.parametrize("example", FLIGHTS.examples, ids=[example.file for example in FLIGHTS.examples])
def test_an_example_is_named_after_its_edge_case_and_says_what_it_is(example: ExampleSpec) -> None:
    assert example.name == example.name.lower()
    assert " " not in example.name
    assert example.about.endswith(".")


def test_the_flight_of_the_examples_was_in_the_air_before_it_arrived() -> None:
    """Its times are local, Newark's and Houston's: with one zone for both it would have flown faster than it can."""
    golden = ROOT / "schemas/golden"
    departure, arrival = (
        json.loads((golden / topic / "on-time.json").read_text())["value"]
        for topic in ("flights.departures", "flights.arrivals")
    )
    assert departure["flight"] == arrival["flight"]
    left, reached = (datetime.fromisoformat(event["at"]) for event in (departure, arrival))
    assert timedelta(minutes=arrival["airborne"]) < reached - left < timedelta(hours=5)
    card = next(topic.description for topic in FLIGHTS.topics if topic.topic == "flights.arrivals")
    assert arrival["at"] in card, "the card shows this event"


def test_a_feature_of_every_kind_is_there() -> None:
    """What a reader of the demo should meet: a composite key, a filter, several rows of an event, text, numbers."""
    types = {feature.type.name for view in FLIGHTS.views for feature in view.features}
    assert {"Bool", "Int32", "Float32", "String", "Timestamp"} <= types
    assert any(len(view.entity.keys) > 1 for view in FLIGHTS.views)
    assert any(view.where is not None for view in FLIGHTS.views)
    assert any(view.rows is not None for view in FLIGHTS.views)


# What is read


def outlook(**given: object) -> dict[str, object]:
    """The outlook of one route at noon, from what is known of it."""
    (view,) = FLIGHTS.on_demand
    on_demand = OnDemand(view)
    row: dict[str, object] = dict.fromkeys(on_demand.columns)
    for name, value in given.items():
        (qualified,) = (each for each in row if each.endswith(f".{name}") and "RouteDepartures" not in each)
        row[qualified] = value
    frame = pl.DataFrame({name: pl.Series([row[name]], dtype=kind.polars) for name, kind in on_demand.columns.items()})
    noon = int(datetime(2026, 1, 1, 12, tzinfo=UTC).timestamp() * 1_000_000)
    computed = on_demand.compute(frame, at_one_instant(noon, 1))
    assert computed.failures == ()
    return computed.frame.row(0, named=True)


def test_the_minutes_since_the_last_departure_are_counted_from_when_it_left_to_the_instant_of_asking() -> None:
    scheduled = datetime(2026, 1, 1, 11, 20, tzinfo=UTC)
    assert outlook(scheduled=scheduled, delay=25.0)["quiet_min"] == 15
    assert outlook(scheduled=scheduled, delay=-2.0)["quiet_min"] == 42
    assert outlook(scheduled=scheduled)["quiet_min"] == 40
    assert outlook()["quiet_min"] is None


def test_an_outlook_on_which_nothing_is_known_is_not_rough_and_says_what_a_journey_brings() -> None:
    assert outlook(departs_at=datetime(2026, 1, 1, 13, 30, tzinfo=UTC)) == {
        "quiet_min": None,
        "ahead_min": 90,
        "rough": False,
        "recovering": False,
    }
    assert outlook(gusty=True)["rough"] is True
    assert outlook(visibility=0.25)["rough"] is True


def test_a_departure_board_is_one_request_by_the_routes_keys() -> None:
    catalog = Catalog(FLIGHTS)
    plan = catalog.plan(catalog.references([], "RouteNow"))
    assert set(plan.required) == {"origin", "dest"}
    assert [output.reference for output in plan.outputs] == [
        "RouteDepartures:delay",
        "RouteDepartures:cancelled",
        "Origin:late",
        "OriginWeather:visibility",
        "RouteOutlook:quiet_min",
        "RouteOutlook:ahead_min",
        "RouteOutlook:rough",
        "RouteOutlook:recovering",
    ]


def test_the_weather_is_meant_to_be_no_older_than_two_observations() -> None:
    by_name = {view.name: view for view in FLIGHTS.views}
    assert by_name["AirportWeather"].freshness == timedelta(hours=2)


def test_the_delay_model_stands_on_the_route_and_its_origin_and_is_refreshed_by_the_routes_news() -> None:
    (model,) = FLIGHTS.models
    assert model.description
    assert (model.entity.name, model.policy, model.refresh_on_write) == ("Route", "refresh", ("RouteDepartures",))
    assert {each.reference.partition(":")[0] for each in model.inputs} == {"RouteDepartures", "Origin", "OriginWeather"}
    assert model.server == OpenInferenceSpec(url="env:DELAY_URL", model="delay")
    assert [(each.name, each.type.name) for each in model.outputs] == [("minutes", "Float32")]


def test_every_definition_that_is_read_is_described() -> None:
    assert all(request.description for request in FLIGHTS.requests)
    assert all(view.description for view in FLIGHTS.on_demand)
    assert all(service.description for service in FLIGHTS.services)
    assert all(model.description for model in FLIGHTS.models)
