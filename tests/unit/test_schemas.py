"""The flights: every topic has its card and its golden examples, every example is a test, and nothing is orphaned."""

import json
import pathlib
from datetime import datetime, timedelta

import pytest

from stillwell.definitions.golden import disagreements
from stillwell.definitions.loading import load_definitions
from stillwell.spec import ExampleSpec, TopicSpec, ViewSpec

ROOT = pathlib.Path(__file__).parents[2]
FLIGHTS = load_definitions("schemas", ROOT)
A_YEAR = timedelta(days=400)


def _views_of(topic: TopicSpec) -> tuple[ViewSpec, ...]:
    return FLIGHTS.views_of(topic)


@pytest.mark.parametrize(
    "example", FLIGHTS.examples, ids=[f"{example.topic}/{example.name}" for example in FLIGHTS.examples]
)
def test_what_becomes_of_a_golden_example_is_what_it_says(example: ExampleSpec) -> None:
    topic = next(topic for topic in FLIGHTS.topics if topic.topic == example.topic)
    assert disagreements(example, topic, _views_of(topic)) == ()


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
def test_a_view_is_described_outlives_the_year_and_has_an_example(view: ViewSpec) -> None:
    assert view.description
    assert view.ttl == timedelta(0) or view.ttl >= A_YEAR
    assert any(view.name in example.rows for example in FLIGHTS.examples)


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
