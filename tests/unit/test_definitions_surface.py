"""What a class statement says comes out as a frozen spec, and its fields are expressions."""

import os
import pathlib
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pydantic
import pytest

from stillwell import (
    Bool,
    Bytes,
    Col,
    Entity,
    Feature,
    FeatureService,
    Float32,
    Float64,
    Int32,
    Int64,
    Key,
    Model,
    OnDemandView,
    OpenInference,
    Output,
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
from stillwell.errors import DefinitionError
from stillwell.spec import Origin
from stillwell.types import BOOL, BYTES, FLOAT32, FLOAT64, INT32, INT64, STRING, TIMESTAMP


class Route(Entity, owner="ops"):
    """A pair of airports."""

    origin: Key[String]
    dest: Key[String]


class Event(Topic, name="flights.events", event_time="at", sequence="number", start="latest"):
    """What happened.

    To whom.
    """

    at: Col[Timestamp]
    flag: Col[Bool]
    small: Col[Int32]
    number: Col[Int64 | None]
    ratio: Col[Float32]
    wide: Col[Float64]
    text: Col[String]
    raw: Col[Bytes | None]
    nested: Col[String] = col(path="flight.tail")
    dotted: Col[String] = col(path=("flight.tail", "number"))
    kafka_key: Col[String | None] = col(key=True)
    feed: Col[String | None] = col(header="X-Feed")
    received: Col[Timestamp] = col(record_timestamp=True)
    epoch: Col[Timestamp] = col(unit="ms")


class Plain(
    View,
    source=Event,
    entity=Route,
    keys={"origin": Event.text, "dest": Event.nested},
    where=Event.flag,
    ttl=timedelta(hours=6),
    version=3,
):
    """The latest."""

    ratio: Feature[Float32] = feature(Event.ratio, description="a share")
    late: Feature[Bool | None] = feature(Event.wide > 15)


class Both(View, source=Event, entity=Route, ttl=timedelta(0)):
    number: Feature[Int64 | None] = feature(description="its number")

    @rows
    @staticmethod
    def both(event: Event) -> Rows:
        """There and back."""
        yield {"origin": event.text, "dest": event.nested, "number": event.number}
        yield {"origin": event.nested, "dest": event.text, "number": None}


def test_an_entity_has_its_keys_sorted_by_name() -> None:
    assert [(key.name, key.type) for key in Route.spec.keys] == [("dest", STRING), ("origin", STRING)]
    assert (Route.spec.name, Route.spec.owner, Route.spec.description) == ("Route", "ops", "A pair of airports.")


def test_every_definition_may_have_an_owner_and_tags_and_a_column_a_description() -> None:
    words: dict[str, Any] = {"owner": "payments", "tags": {"tier": "1", "pii": ""}}

    class Payer(Entity, **words):
        payer: Key[String]

    class Payment(Topic, name="payments", event_time="at", **words):
        at: Col[Timestamp] = col(description="when it was made")
        payer: Col[String]
        amount: Col[Float32 | None]

    class Last(View, source=Payment, entity=Payer, keys={"payer": Payment.payer}, ttl=timedelta(0), **words):
        amount: Feature[Float32 | None] = feature(Payment.amount)

    class Asked(Request, **words):
        amount: Col[Float32 | None] = col(description="of the next one")

    class Larger(OnDemandView, inputs=(Last, Asked), **words):
        larger: Feature[Bool | None] = feature(Asked.amount > Last.amount)

    class Till(FeatureService, features=(Larger,), **words):
        pass

    class Risk(
        Model,
        entity=Payer,
        version="1",
        policy="cached",
        max_staleness=timedelta(1),
        inputs={"amount": Last.amount},
        server=OpenInference(url="http://localhost:1", model="risk"),
        **words,
    ):
        risk: Output[Float32]

    for definition in (Payer, Payment, Last, Asked, Larger, Till, Risk):
        assert (definition.spec.owner, definition.spec.tags) == ("payments", (("tier", "1"), ("pii", "")))
    assert Payment.spec.columns[0].description == "when it was made"
    assert Asked.spec.columns[0].description == "of the next one"


def test_a_topic_says_its_name_event_time_sequence_start_and_description() -> None:
    spec = Event.spec
    assert (spec.name, spec.topic, spec.event_time, spec.sequence, spec.start) == (
        "Event",
        "flights.events",
        "at",
        "number",
        "latest",
    )
    assert spec.description == "What happened.\n\nTo whom."


def test_every_type_is_read_from_its_annotation() -> None:
    types = {column.name: (column.type, column.nullable) for column in Event.spec.columns[:8]}
    assert types == {
        "at": (TIMESTAMP, False),
        "flag": (BOOL, False),
        "small": (INT32, False),
        "number": (INT64, True),
        "ratio": (FLOAT32, False),
        "wide": (FLOAT64, False),
        "text": (STRING, False),
        "raw": (BYTES, True),
    }


def test_every_column_says_where_in_a_record_it_comes_from() -> None:
    origins = {column.name: (column.origin, column.path, column.unit) for column in Event.spec.columns}
    assert origins["text"] == (Origin.VALUE, ("text",), None)
    assert origins["nested"] == (Origin.VALUE, ("flight", "tail"), None)
    assert origins["dotted"] == (Origin.VALUE, ("flight.tail", "number"), None)
    assert origins["kafka_key"] == (Origin.KEY, (), None)
    assert origins["feed"] == (Origin.HEADER, ("X-Feed",), None)
    assert origins["received"] == (Origin.RECORD_TIMESTAMP, (), None)
    assert origins["epoch"] == (Origin.VALUE, ("epoch",), "ms")


def test_a_column_on_its_class_is_an_expression_qualified_by_the_class() -> None:
    assert str(Event.ratio) == str(pl.col("Event.ratio"))
    assert str(Route.origin) == str(pl.col("Route.origin"))
    assert str(Plain.late) == str(pl.col("Plain.late"))


def test_an_event_holds_values_and_refuses_what_is_no_column() -> None:
    values = {"at": 1, "flag": True, "small": 1, "ratio": 0.5, "wide": 2.0, "text": "a", "nested": "b", "dotted": "c"}
    event = Event(**values, received=1, epoch=1)
    assert (event.ratio, event.number) == (0.5, None)
    with pytest.raises(TypeError, match="Event has no column 'txt'; did you mean 'text'"):
        Event(**values, received=1, epoch=1, txt="a")
    with pytest.raises(TypeError, match=r"Event\.received is never null"):
        Event(**values, epoch=1)


def test_a_view_says_what_it_is_computed_from_and_how() -> None:
    spec = Plain.spec
    assert (spec.name, spec.version, spec.ttl, spec.description) == ("Plain", 3, timedelta(hours=6), "The latest.")
    assert (spec.source, spec.entity) == (Event.spec, Route.spec)
    assert [str(key) for key in spec.keys] == [str(Event.nested), str(Event.text)], "in the order of the entity's keys"
    assert str(spec.where) == str(Event.flag)
    assert [(each.name, each.type, each.nullable, each.description) for each in spec.features] == [
        ("ratio", FLOAT32, False, "a share"),
        ("late", BOOL, True, ""),
    ]
    assert spec.rows is None


def test_a_rows_function_is_the_view_and_can_be_called_as_it_stands() -> None:
    spec = Both.spec
    assert spec.rows is not None
    assert spec.keys == ()
    assert spec.features[0].expression is None
    values = {"at": 1, "flag": True, "small": 1, "ratio": 0.5, "wide": 2.0, "text": "a", "nested": "b", "dotted": "c"}
    event = Event(**values, received=1, epoch=1, number=7)
    expected = [{"origin": "a", "dest": "b", "number": 7}, {"origin": "b", "dest": "a", "number": None}]
    assert list(Both.both(event)) == expected
    assert list(spec.rows(event)) == expected


def test_a_spec_is_frozen_and_refuses_unknown_words() -> None:
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        Plain.spec.version = 4
    with pytest.raises(pydantic.ValidationError, match="Extra inputs"):
        type(Route.spec)(name="x", keys=(), onwer="y")  # type: ignore[call-arg]


RULES = {
    "ge": ("Col[Float32]", {"ge": 0}, [0.0, 1.0], [-0.1, float("nan")]),
    "gt": ("Col[Int32]", {"gt": 0}, [1], [0, -1]),
    "le": ("Col[Float64]", {"le": 1.5}, [1.5, float("-inf")], [1.6, float("nan")]),
    "lt": ("Col[Int64]", {"lt": 2**31}, [2**31 - 1], [2**31]),
    "a bound beyond the type": ("Col[Int32]", {"lt": 2**31}, [2**31 - 1], []),
    "times": (
        "Col[Timestamp]",
        {"ge": datetime(2013, 1, 1, tzinfo=UTC)},
        [datetime(2013, 1, 1, tzinfo=UTC)],
        [datetime(2012, 12, 31, tzinfo=UTC)],
    ),
    "set": ("Col[String]", {"one_of": ["EWR", "JFK"]}, ["EWR"], ["LGA", ""]),
    "set of numbers": ("Col[Int32]", {"one_of": (1, 2)}, [2], [3]),
    "regex": ("Col[String]", {"regex": "[A-Z]{3}|X"}, ["EWR", "X"], ["EWRX", "XX", "EWR\n", "ewr"]),
}


@pytest.mark.parametrize(("annotation", "words", "good", "bad"), RULES.values(), ids=RULES)
def test_an_expectation_holds_for_good_values_and_null_and_not_for_bad_ones(
    annotation: str, words: dict[str, Any], good: list[object], bad: list[object]
) -> None:
    class Ruled(Topic, name="ruled", event_time="at"):
        at: Col[Timestamp]
        x: annotation = col(**words)  # type: ignore[valid-type]

    column = Ruled.spec.columns[1]
    (expectation,) = column.expectations
    values = pl.Series("x", [*good, *bad, None], dtype=column.type.polars)
    verdicts = values.to_frame().select(expectation.holds).to_series().to_list()
    assert verdicts == [True] * len(good) + [False] * len(bad) + [None]


def test_the_rule_is_named_as_people_would_say_it() -> None:
    class Ruled(Topic, name="ruled", event_time="at"):
        at: Col[Timestamp]
        x: Col[Int32] = col(ge=0, lt=10, one_of=[1, 2])
        y: Col[String] = col(regex="[a-z]+")

    named = [each.rule for column in Ruled.spec.columns for each in column.expectations]
    assert named == [">= 0", "< 10", "one of 1, 2", "matches [a-z]+"]


def test_rules_that_warn_and_stop_stand_behind_those_that_reject_each_with_its_action() -> None:
    class Ruled(Topic, name="ruled", event_time="at"):
        at: Col[Timestamp]
        x: Col[Int32] = col(gt=0, warn=rule(ge=1, le=10), stop=rule(le=100))

    actions = [(each.rule, each.action) for each in Ruled.spec.columns[1].expectations]
    assert actions == [("> 0", "reject"), (">= 1", "warn"), ("<= 10", "warn"), ("<= 100", "stop")]


def test_a_null_is_refused_where_the_class_statement_stands() -> None:
    with pytest.raises(DefinitionError, match=r"Nulls\.late is null where Event\.number is null"):

        class Nulls(
            View, source=Event, entity=Route, keys={"origin": Event.text, "dest": Event.nested}, ttl=timedelta(0)
        ):
            late: Feature[Bool] = feature(Event.number > 15)


TYPED = """\
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Annotated, assert_type
import polars as pl
from stillwell import *

Place = Annotated[list[Float32], Size(2)]

class Airport(Entity, owner="ops"):
    airport: Key[String]

class Departure(Topic, name="flights.departures", event_time="at"):
    at: Col[Timestamp]
    origin: Col[String] = col(path="route.origin", regex="[A-Z]{3}")
    delay: Col[Float32 | None]
    stops: Col[list[String]]
    place: Col[Place | None]

class Late(View, source=Departure, entity=Airport, keys={"airport": Departure.origin}, ttl=timedelta(days=1)):
    late: Feature[Bool] = feature((Departure.delay > 15).fill_null(False))
    stops: Feature[list[String]] = feature(Departure.stops)

class Made(View, source=Departure, entity=Airport, ttl=timedelta(days=1)):
    delay: Feature[Float32 | None]

    @rows
    @staticmethod
    def make(event: Departure) -> Rows:
        assert_type(event.delay, float | None)
        assert_type(event.origin, str)
        assert_type(event.stops, list[str])
        assert_type(event.place, list[float] | None)
        yield {"airport": event.origin, "delay": event.delay}

assert_type(Departure.delay, pl.Expr)
assert_type(Departure.delay > 15, pl.Expr)
assert_type(Late.late, pl.Expr)
"""
WRONG = """\
class A(Entity, ownr="ops"):
    a: Key[String]
class B(Topic, name="b", event_time="at", start="never"):
    at: Col[Timestamp] = feature()
class C(View, source=B, entity=A):
    c: Feature[Bool] = feature(15)
"""


def test_a_type_checker_sees_expressions_on_classes_values_on_events_and_wrong_words(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "typed.py"
    file.write_text(TYPED + WRONG)
    root = pathlib.Path(__file__).parents[2]
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", "", "--no-error-summary", str(file)]
    environment = {**os.environ, "MYPYPATH": str(root), "MYPY_CACHE_DIR": str(root / ".mypy_cache" / "surface")}
    said = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False).stdout
    first = TYPED.count("\n")
    wrong = {
        int(line.split(":")[1]) - first
        for line in said.splitlines()
        if ": error:" in line and line.startswith(file.name)
    }
    assert wrong == {1, 3, 4, 5, 6}, said
