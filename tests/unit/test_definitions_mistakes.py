"""Every mistake in a definition is refused with its file, line, class and field, and says what to do."""

import pathlib
import sys
import textwrap
from collections.abc import Callable, Iterator

import pytest

from stillwell.definitions.loading import load_definitions
from stillwell.errors import DefinitionError

PRELUDE = """\
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
import polars as pl
from stillwell import *

class Airport(Entity):
    airport: Key[String]

class Flown(Entity):
    number: Key[Int64]

class Departure(Topic, name="flights.departures", event_time="at"):
    at: Col[Timestamp]
    origin: Col[String]
    tail: Col[String | None]
    number: Col[Int32]
    delay: Col[Float32 | None]
    cancelled: Col[Bool]

class Arrival(Topic, name="flights.arrivals", event_time="at"):
    at: Col[Timestamp]
    delay: Col[Float32 | None]

"""
WEEK = "ttl=timedelta(days=7)"
VIEW = f'View, source=Departure, entity=Airport, keys={{"airport": Departure.origin}}, {WEEK}'

Load = Callable[[str], list[str]]


@pytest.fixture
def mistakes(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Loads the prelude and a body as a module of definitions, and gives back its mistakes."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.chdir(tmp_path)
    name = "definitions_of_a_test"

    def load(body: str) -> list[str]:
        sys.modules.pop(name, None)
        (tmp_path / f"{name}.py").write_text(PRELUDE + textwrap.dedent(body))
        try:
            load_definitions(name, tmp_path)
        except DefinitionError as error:
            return list(error.args)
        return []

    yield load
    sys.modules.pop(name, None)


def entity(body: str, words: str = "Entity") -> str:
    return f"class Wrong({words}):\n    {body}\n"


def topic(body: str, words: str = 'Topic, name="wrong", event_time="at"') -> str:
    return f"class Wrong({words}):\n    at: Col[Timestamp]\n    {body}\n"


def view(body: str, words: str = VIEW) -> str:
    return f"class Wrong({words}):\n    {body}\n"


GOOD = "delay: Feature[Float32 | None] = feature(Departure.delay)"
CASES = {
    # Names
    "a class that starts with _": (
        "class _Wrong(Entity):\n    a: Key[String]",
        "_Wrong starts with _, which is kept for Stillwell's own columns",
    ),
    "a class beyond the length": (
        f"class {'W' * 65}(Entity):\n    a: Key[String]",
        "has a name of 65 characters; use 64",
    ),
    "a class not in ASCII": ("class Größe(Entity):\n    a: Key[String]", "has a name that not every store takes"),
    "a field that starts with _": (entity("_a: Key[String]"), "Wrong._a starts with _"),
    "a field called event_timestamp": (
        view("event_timestamp: Feature[Timestamp] = feature(Departure.at)"),
        "Wrong.event_timestamp has a name that Stillwell uses itself",
    ),
    "fields that differ by case": (
        topic("delay: Col[Bool]\n    Delay: Col[Bool]"),
        "Wrong.Delay differs from delay by case alone",
    ),
    "a feature named as a key": (
        view("Airport: Feature[String] = feature(Departure.origin)"),
        "Wrong.Airport has the name of Airport's key airport; rename the feature",
    ),
    # Fields
    "a field of another kind": (entity("a: Col[String]"), "Wrong.a is annotated Col"),
    "a field that is no field": (entity("a: str"), "Wrong.a is annotated str; write `a: Key[String]`"),
    "a Python type": (entity("a: Key[int]"), "Wrong.a has the type int, which says no width; use Int64"),
    "a type that does not exist": (
        entity('a: "Key[Strin]"'),
        "Wrong.a has an annotation that cannot be read: name 'Strin' is not defined; did you mean 'String'?",
    ),
    "several types": (topic("a: Col[String | Bool]"), "Wrong.a has several types"),
    "a field without a type": (topic("a = col()"), "Wrong.a has no type; write `a: Col[…] = …`"),
    "a field that is set to a value": (topic("a: Col[Bool] = True"), "Wrong.a is set to True; use col(…)"),
    "a stranger in a topic": (topic("def a(self): ..."), "Wrong.a is no field; a topic has `Col[…]` fields alone"),
    "a function without @rows": (
        view(GOOD + "\n    def ends(event): ..."),
        "Wrong.ends is no field; write @rows above a function",
    ),
    # Entities
    "an entity without a key": ("class Wrong(Entity): ...", "Wrong has no key; write `<name>: Key[String]`"),
    "a key that may be null": (
        entity("a: Key[String | None]"),
        "Wrong.a is a key that may be null; take `| None` away",
    ),
    "a float as a key": (entity("a: Key[Float64]"), "Wrong.a is a key of type Float64"),
    "an unknown word": (
        entity("a: Key[String]", "Entity, ownr='ops'"),
        "Wrong has ownr=…, which means nothing here; did you mean 'owner'?",
    ),
    "a definition that derives from another": (
        entity("a: Key[String]", "Airport"),
        "Wrong derives from Airport; a definition derives from Entity alone",
    ),
    # Topics
    "a topic without a name": (
        topic("a: Col[Bool]", 'Topic, event_time="at"'),
        'Wrong lacks name; write name="flights',
    ),
    "a topic without event time": (
        topic("a: Col[Bool]", 'Topic, name="x"'),
        "Wrong lacks event_time; write event_time=",
    ),
    "a topic's name that Kafka refuses": (
        topic("a: Col[Bool]", 'Topic, name="a b", event_time="at"'),
        "which Kafka refuses",
    ),
    "an event time that is no column": (
        topic("departed_at: Col[Timestamp]", 'Topic, name="x", event_time="departd_at"'),
        "Wrong has event_time='departd_at', which is no column; did you mean 'departed_at'?",
    ),
    "an event time that may be null": (
        topic("when: Col[Timestamp | None]", 'Topic, name="x", event_time="when"'),
        "Wrong.when is the event time; declare it Col[Timestamp], never null",
    ),
    "an event time that is a number": (
        topic("when: Col[Int64]", 'Topic, name="x", event_time="when"'),
        "Wrong.when is the event time; declare it Col[Timestamp]",
    ),
    "a sequence that is text": (
        topic("n: Col[String]", 'Topic, name="x", event_time="at", sequence="n"'),
        "Wrong.n is the sequence, but String; declare it Col[Int64]",
    ),
    "a sequence that is no column": (
        topic("n: Col[Int64]", 'Topic, name="x", event_time="at", sequence="m"'),
        "Wrong has sequence='m', which is no column",
    ),
    "a start that does not exist": (
        topic("a: Col[Bool]", 'Topic, name="x", event_time="at", start="erliest"'),
        "Wrong has start='erliest'; did you mean 'earliest'?",
    ),
    "a column from two places": (
        topic('a: Col[String] = col(key=True, header="a")'),
        "Wrong.a comes from key and header; choose one",
    ),
    "an empty part of a path": (
        topic('a: Col[String] = col(path="a..b")'),
        "Wrong.a has path='a..b', a part of which is empty",
    ),
    "a path through another column": (
        topic('a: Col[String]\n    b: Col[String] = col(path="a.b")'),
        "Wrong cannot be decoded: Wrong.b",
    ),
    "a unit that does not exist": (
        topic('t: Col[Timestamp] = col(unit="min")'),
        "Wrong.t has unit='min'; use one of s, ms",
    ),
    "a unit of text": (topic('t: Col[String] = col(unit="s")'), "Wrong.t has a unit, which only a Timestamp"),
    "a record timestamp that is a number": (
        topic("t: Col[Int64] = col(record_timestamp=True)"),
        "Wrong.t is the record's timestamp, but Int64; declare it Col[Timestamp]",
    ),
    # Expectations
    "a range of text": (topic("a: Col[String] = col(ge=1)"), "Wrong.a has ge=1, but String has no range"),
    "a bound of another type": (
        topic('a: Col[Int32] = col(lt="9")'),
        "Wrong.a has lt='9', a str; give a Int32 column a bound of int",
    ),
    "a bound without a zone": (topic("a: Col[Timestamp] = col(gt=datetime(2020, 1, 1))"), "a time without a zone"),
    "a set of nothing": (topic("a: Col[String] = col(one_of=[])"), "Wrong.a has one_of=[]; list the values"),
    "a set of another type": (
        topic("a: Col[Int32] = col(one_of=['x'])"),
        "Wrong.a has one_of=['x'], which is not all Int32",
    ),
    "a set with None": (topic("a: Col[Int32] = col(one_of=[1, None])"), "Wrong.a has None in one_of"),
    "a regex of numbers": (topic("a: Col[Int32] = col(regex='.')"), "Wrong.a has regex='.', but is Int32"),
    "a regex that is none": (topic("a: Col[String] = col(regex='(')"), "Wrong.a has regex='(', which is none"),
    # Views: the statement
    "a view without ttl": (
        view(GOOD, 'View, source=Departure, entity=Airport, keys={"airport": Departure.origin}'),
        "Wrong lacks ttl; write ttl=timedelta(days=7)",
    ),
    "a view of no topic": (
        view(GOOD, f"View, source=Airport, entity=Airport, {WEEK}"),
        "give a class that derives from Topic",
    ),
    "a view of no entity": (
        view(GOOD, f"View, source=Departure, entity=Entity, {WEEK}"),
        "give a class that derives from Entity",
    ),
    "a negative ttl": (view(GOOD, VIEW.replace("days=7", "days=-7")), "which is negative; use timedelta(0)"),
    "a ttl in seconds": (
        view(GOOD, VIEW.replace("timedelta(days=7)", "60")),
        "Wrong has ttl=60; write timedelta(hours=…)",
    ),
    "a version of nought": (view(GOOD, VIEW + ", version=0"), "Wrong has version=0; use an integer from 1 to 65535"),
    "a version past two bytes": (view(GOOD, VIEW + ", version=65536"), "Wrong has version=65536"),
    "an unmapped key": (
        view(GOOD, f"View, source=Departure, entity=Airport, {WEEK}"),
        'Wrong does not map the key airport of Airport; add keys={"airport": Departure.…}',
    ),
    "a key that the entity lacks": (
        view(GOOD, VIEW.replace('"airport"', '"airprt"')),
        "Wrong maps the key 'airprt', which Airport does not have; did you mean 'airport'?",
    ),
    "a key of another width": (
        view(GOOD, f'View, source=Departure, entity=Flown, keys={{"number": Departure.number}}, {WEEK}'),
        "Wrong has a key 'number' that is declared Int64 but computes Int32; add .cast(pl.Int64)",
    ),
    "a where that is no Bool": (
        view(GOOD, VIEW + ", where=Departure.delay"),
        "Wrong has a where that is declared Bool but computes Float32",
    ),
    # Views: the features
    "a view without features": (f"class Wrong({VIEW}): ...", "Wrong has no feature"),
    "a feature without an expression": (
        view("late: Feature[Bool]"),
        "Wrong.late has no expression; write `= feature(…)`",
    ),
    "a feature of a constant": (
        view("one: Feature[Int32] = feature(1)"),
        "Wrong.one is 1, no expression; write pl.lit(…)",
    ),
    "a feature of another width": (
        view("delay: Feature[Float32 | None] = feature(Departure.delay.cast(pl.Float64))"),
        "Wrong.delay is declared Float32 but computes Float64; add .cast(pl.Float32)",
    ),
    "a column of another topic": (
        view("delay: Feature[Float32 | None] = feature(Arrival.delay)"),
        "Wrong.delay reads Arrival.delay, but its source is Departure; write Departure.delay",
    ),
    "a column that is not qualified": (
        view('delay: Feature[Float32 | None] = feature(pl.col("delay"))'),
        'Wrong.delay reads pl.col("delay"), which belongs to no topic; write Departure.delay',
    ),
    "a column that the topic lacks": (
        view('delay: Feature[Float32 | None] = feature(pl.col("Departure.dely"))'),
        "Wrong.delay reads Departure.dely, which Departure does not have; did you mean 'Departure.delay'?",
    ),
    "columns by a pattern": (
        view("any: Feature[Bool] = feature(pl.any_horizontal(pl.all()))"),
        "Wrong.any reads columns by a pattern",
    ),
    "an expression that has no type": (
        view("x: Feature[Bool] = feature(pl.struct(Departure.at).struct.field('x'))"),
        "Wrong.x cannot be computed",
    ),
    "an expression that always fails": (
        view("x: Feature[Bool] = feature(Departure.origin.dt.year() > 1)"),
        "Wrong.x fails for every event that was tried, InvalidOperationError",
    ),
    # Views: nulls
    "a null in a feature that takes none": (
        view("late: Feature[Bool] = feature(Departure.delay > 15)"),
        "Wrong.late is null where Departure.delay is null; add .fill_null(…), declare Feature[Bool | None]",
    ),
    "a null in a key": (
        view(GOOD, VIEW.replace("Departure.origin", "Departure.tail")),
        "Wrong has a key airport that is null where Departure.tail is null; "
        "a key never is: leave such events out by where=Departure.tail.is_not_null()",
    ),
    "a null that takes two": (
        view("x: Feature[Bool] = feature(pl.coalesce(Departure.delay > 15, Departure.tail == 'a'))"),
        "Wrong.x is null where Departure.tail and Departure.delay is null",
    ),
    "a null from a value": (
        view("n: Feature[Int64] = feature(Departure.origin.str.to_integer(strict=False))"),
        "Wrong.n is null for Departure.origin=",
    ),
    # Views with @rows
    "keys beside @rows": (
        view("n: Feature[Int32]\n    @rows\n    @staticmethod\n    def make(event): ..."),
        "Wrong has keys=…, but its @rows function gives the keys; take keys=… away",
    ),
    "an expression beside @rows": (
        view("n: Feature[Int32] = feature(Departure.number)\n    @rows\n    @staticmethod\n    def make(event): ..."),
        "Wrong.n has an expression, but the view has a @rows function",
    ),
    "two @rows": (
        view(
            "n: Feature[Int32]\n    @rows\n    @staticmethod\n    def one(event): ..."
            "\n    @rows\n    @staticmethod\n    def two(event): ..."
        ),
        "Wrong has several @rows functions, one and two; keep one",
    ),
}


@pytest.mark.parametrize(("body", "says"), CASES.values(), ids=CASES)
def test_a_mistake_is_refused_in_its_place_and_says_what_to_do(mistakes: Load, body: str, says: str) -> None:
    found = mistakes(body)
    assert [message for message in found if says in message], found
    first_line = PRELUDE.count("\n") + 1
    lines = range(first_line, first_line + body.count("\n") + 2)
    assert found[0].startswith(tuple(f"definitions_of_a_test.py:{line}: " for line in lines)), found


def test_a_field_is_named_by_its_own_line(mistakes: Load) -> None:
    line = PRELUDE.count("\n") + 3
    (found,) = mistakes(topic("a: Col[int]"))
    assert found.startswith(f"definitions_of_a_test.py:{line}: Wrong.a ")


def test_all_mistakes_of_a_class_are_told_at_once(mistakes: Load) -> None:
    found = mistakes(topic("a: Col[int]\n    b: Col[String] = col(ge=1)", 'Topic, name="x", event_time="t", ownr=1'))
    assert len(found) == 4, found


def test_the_prelude_itself_is_right(mistakes: Load) -> None:
    assert mistakes(view(GOOD)) == []


def test_nulls_that_where_leaves_out_need_no_declaration(mistakes: Load) -> None:
    words = VIEW.replace("Departure.origin", "Departure.tail")
    where = ", where=Departure.tail.is_not_null() & Departure.delay.is_not_null()"
    assert mistakes(view("late: Feature[Bool] = feature(Departure.delay > 15)", words + where)) == []


def test_nulls_that_an_expectation_rules_out_need_no_declaration(mistakes: Load) -> None:
    body = (
        'class Coded(Topic, name="coded", event_time="at"):\n'
        "    at: Col[Timestamp]\n"
        "    code: Col[String] = col(one_of=['1', '2'])\n"
        f"class Codes(View, source=Coded, entity=Airport, keys={{'airport': Coded.code}}, {WEEK}):\n"
        "    n: Feature[Int64] = feature(Coded.code.str.to_integer(strict=False))\n"
    )
    assert mistakes(body) == []
    assert mistakes(body.replace("col(one_of=['1', '2'])", "col()"))
