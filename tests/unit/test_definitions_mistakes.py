"""Every mistake in a definition is refused with its file, line, class and field, and says what to do."""

import pathlib
import sys
import textwrap
from collections.abc import Callable, Iterator

import pytest

from stillwell.definitions.loading import load_definitions
from stillwell.definitions.mistakes import did_you_mean
from stillwell.errors import DefinitionError

PRELUDE = """\
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
import polars as pl
from typing import Annotated
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
    stops: Col[list[String]]
    place: Col[Annotated[list[Float32], Size(2)]]

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
    "a field of a number that is no field": (entity("a: int"), "Wrong.a is annotated int; write `a: Key[Int64]`"),
    "a key of a float that is no field": (entity("a: float"), "Wrong.a is annotated float; write `a: Key[String]`"),
    "a column of a float that is no field": (topic("a: float"), "Wrong.a is annotated float; write `a: Col[Float64]`"),
    "a field of a list that is no field": (
        entity("a: list[int]"),
        "Wrong.a is annotated list[int]; write `a: Key[String]`",
    ),
    "a Python type": (entity("a: Key[int]"), "Wrong.a has the type int, which says no width; use Int64"),
    "a type that does not exist": (
        entity('a: "Key[Strin]"'),
        "Wrong.a has an annotation that cannot be read: name 'Strin' is not defined; did you mean 'String'?",
    ),
    # Lists and vectors
    "a list of nothing said": (topic("a: Col[list]"), "Wrong.a has the type list, which says nothing of its elements"),
    "a list of Python's": (topic("a: Col[list[int]]"), "list[int], whose elements have no width; use list[Int64]"),
    "a list of strangers": (topic("a: Col[list[timedelta]]"), "whose elements have no width; use one of Bool, Int32"),
    "a list of lists": (
        topic("a: Col[list[list[String]]]"),
        "list[List[String]], a list of lists, which are not stored; flatten it",
    ),
    "a list of vectors": (
        topic("a: Col[list[Annotated[list[Int64], Size(2)]]]"),
        "list[Vector[Int64, 2]], a list of l",
    ),
    "elements that may be null": (
        topic("a: Col[list[String | None]]"),
        "list[String | None], whose elements are never null; take `| None` away from them",
    ),
    "a list by another name": (
        topic("a: Col[tuple[Float32, ...]]"),
        "which is no list; use list[Float32], or Annotated",
    ),
    "an array": (topic("import numpy as np\n    a: Col[np.ndarray]"), "Wrong.a has the type ndarray, which is no list"),
    "a list of Polars'": (topic("a: Col[pl.List(pl.String)]"), "Wrong.a has the type List(String), which is no list"),
    "a mapping": (topic("a: Col[dict]"), "Wrong.a has the type dict, which says no width"),
    "a size of nothing": (
        topic("a: Col[Annotated[list[Float32], Size(0)]]"),
        "Annotated[List[Float32], Size(0)], whose size is no integer from 1 to 65536; write one, as Size(128)",
    ),
    "a size past the most": (topic("a: Col[Annotated[list[Float32], Size(65537)]]"), "no integer from 1 to 65536"),
    "a size that is text": (topic("a: Col[Annotated[list[Float32], Size('3')]]"), "no integer from 1 to 65536"),
    "a size that is a truth": (topic("a: Col[Annotated[list[Float32], Size(True)] | None]"), "no integer from 1 to"),
    "two sizes": (topic("a: Col[Annotated[list[Float32], Size(1), Size(2)]]"), "which has several sizes; keep one"),
    "a size of a single value": (
        topic("a: Col[Annotated[Float32, Size(3)]]"),
        "which has a Size, and is no list; write",
    ),
    "a list as a key": (
        entity("a: Key[list[String]]"),
        "Wrong.a is a key of type List[String], and a key is a single value; give each part of it a key of its own",
    ),
    "a vector as a key": (entity("a: Key[Annotated[list[Int64], Size(2)]]"), "is a key of type Vector[Int64, 2]"),
    "a list from the key": (
        topic("a: Col[list[String]] = col(key=True)"),
        "Wrong.a is List[String], which Kafka's key cannot hold; read it from the value",
    ),
    "a list from a header": (
        topic("a: Col[list[Bool]] = col(header='a')"),
        "is List[Bool], which a header cannot hold",
    ),
    "a unit of a list of texts": (topic('t: Col[list[String]] = col(unit="s")'), "a unit, which only a Timestamp"),
    "a bound of a list": (
        topic("a: Col[list[Float32]] = col(ge=1)"),
        "Wrong.a has ge=1, but is List[Float32], and a rule is about a single value; leave such events out by a view's "
        "where=, which can look into it by .list",
    ),
    "a set for a vector": (
        topic("a: Col[Annotated[list[Float32], Size(2)]] = col(one_of=[1])"),
        "Wrong.a has one_of=[1], but is Vector[Float32, 2], and a rule is about a single value",
    ),
    "a pattern for a list": (
        topic("a: Col[list[String]] = col(regex='a')"),
        "Wrong.a has regex='a', but is List[String]",
    ),
    "a list of another type": (
        view("a: Feature[list[Int64]] = feature(Departure.stops)"),
        "Wrong.a is declared List[Int64] but computes List[String]; add .cast(pl.List(pl.Int64))",
    ),
    "a list for a vector": (
        view("a: Feature[Annotated[list[String], Size(2)]] = feature(Departure.stops)"),
        "Vector[String, 2] but computes List[String]; add .list.to_array(2) and .cast(pl.Array(pl.String, 2))",
    ),
    "a vector of another size": (
        view("a: Feature[Annotated[list[Float32], Size(3)]] = feature(Departure.place)"),
        "Wrong.a is declared Vector[Float32, 3] but computes Vector[Float32, 2]; add .cast(pl.Array(pl.Float32, 3))",
    ),
    "a null in a list where a column is": (
        view("a: Feature[list[Float32]] = feature(pl.concat_list(Departure.delay, Departure.delay))"),
        "Wrong.a has a null in it where Departure.delay is null; no element of a list is null: fill it before it goes",
    ),
    "a null in a list for a value": (
        view("a: Feature[list[Int64]] = feature(Departure.stops.list.eval(pl.element().str.to_integer(strict=False)))"),
        "Wrong.a has a null in it for Departure.stops=",
    ),
    "a null in a list of a @rows function": (
        view(
            "a: Feature[list[String]]\n    @rows\n    @staticmethod\n    def make(event):\n"
            "        yield {'airport': event.origin, 'a': [event.tail]}",
            f"View, source=Departure, entity=Airport, {WEEK}",
        ),
        "Wrong gives a null for Departure.",
    ),
    "a set of a @rows function": (
        view(
            "a: Feature[list[String]]\n    @rows\n    @staticmethod\n    def make(event):\n"
            "        yield {'airport': event.origin, 'a': {'x'}}",
            f"View, source=Departure, entity=Airport, {WEEK}",
        ),
        "a is a set, which has no order; give a list, as sorted(…) makes one",
    ),
    "vectors beyond a row": (
        view(
            "_zeros = pl.lit([0.0] * 65_536, pl.Array(pl.Float64, 65_536))\n"
            "    a: Feature[Annotated[list[Float64], Size(65_536)]] = feature(_zeros)\n"
            "    b: Feature[Annotated[list[Float64], Size(65_536)]] = feature(_zeros)"
        ),
        "Wrong cannot be stored: view Wrong: a row would have more than 1048576 bytes, most of them of its vectors",
    ),
    "several types": (topic("a: Col[String | Bool]"), "Wrong.a has several types"),
    "a field without a type": (topic("a = col()"), "Wrong.a has no type; write `a: Col[…] = …`"),
    "a field that is set to a value": (topic("a: Col[Bool] = True"), "Wrong.a is set to True; use col(…)"),
    "a stranger in a topic": (topic("def a(self): ..."), "Wrong.a is no field; a topic has `Col[…]` fields alone"),
    "a function without @rows": (
        view(GOOD + "\n    def ends(event): ..."),
        "Wrong.ends is no field; write @rows or @frame above a function",
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
    "a bound in the place of a rule": (
        topic("a: Col[Int32] = col(warn=10)"),
        "Wrong.a has warn=10; write warn=rule(…), as warn=rule(le=10_000)",
    ),
    "a rule of nothing": (topic("a: Col[Int32] = col(stop=rule())"), "Wrong.a has stop=rule(), which says nothing"),
    "a rule that cannot be one": (
        topic("a: Col[Int32] = col(gt=0, warn=rule(regex='.'))"),
        "Wrong.a has warn=rule(regex='.'), but is Int32; only a String",
    ),
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
    # What Python and Polars refuse
    "a word that col does not take": (
        topic("a: Col[Int64] = col(gth=3)"),
        "TypeError: col() got an unexpected keyword argument 'gth'; did you mean 'gt'?",
    ),
    "a word that feature does not take": (
        view("delay: Feature[Float32 | None] = feature(Departure.delay, ge=3)"),
        "TypeError: feature() got an unexpected keyword argument 'ge'; there is description, expression",
    ),
    "a type of ours where Polars wants one of its own": (
        view("delay: Feature[Float64 | None] = feature(Departure.delay.cast(Float64))"),
        "; in expressions types are Polars', as pl.Float64",
    ),
    "a type of ours that Polars calls otherwise": (
        view("delay: Feature[Bool | None] = feature(Departure.delay.cast(Bool))"),
        "; in expressions types are Polars', as pl.Boolean",
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
    "a feature of a column's name": (
        view('late: Feature[Bool] = feature("delay")'),
        "Wrong.late is 'delay', no expression; write Departure.delay",
    ),
    "a feature of a text": (
        view('late: Feature[Bool] = feature("late")'),
        "Wrong.late is 'late', no expression; write pl.lit(…) for a constant, or use Departure's columns",
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
    "keys beside @frame": (
        view("n: Feature[Int32]\n    @frame\n    @staticmethod\n    def make(events): ..."),
        "Wrong has keys=…, but its @frame function gives the keys; take keys=… away",
    ),
    "an expression beside @frame": (
        view("n: Feature[Int32] = feature(Departure.number)\n    @frame\n    @staticmethod\n    def make(events): ..."),
        "Wrong.n has an expression, but the view has a @frame function",
    ),
    "@rows and @frame": (
        view(
            "n: Feature[Int32]\n    @rows\n    @staticmethod\n    def one(event): ..."
            "\n    @frame\n    @staticmethod\n    def two(events): ..."
        ),
        "Wrong has several @frame and @rows functions, one and two; keep one",
    ),
    "a @frame function that gives no frame": (
        view(
            "n: Feature[Int32]\n    @frame\n    @staticmethod\n    def make(events): ...",
            f"View, source=Departure, entity=Airport, {WEEK}",
        ),
        "Wrong fails for every event that was tried, view Wrong: UnfitFrame: expected a pl.DataFrame, got a NoneType",
    ),
    "two @rows": (
        view(
            "n: Feature[Int32]\n    @rows\n    @staticmethod\n    def one(event): ..."
            "\n    @rows\n    @staticmethod\n    def two(event): ..."
        ),
        "Wrong has several @rows functions, one and two; keep one",
    ),
}


READ_PRELUDE = """
class Route(Entity):
    origin: Key[String]
    dest: Key[String]

class Airborne(Entity):
    plane: Key[Int64]

class AirportDepartures(View, source=Departure, entity=Airport, keys={"airport": Departure.origin}, ttl=timedelta(1)):
    left: Feature[Timestamp] = feature(Departure.at)
    late: Feature[Bool] = feature((Departure.delay > 15).fill_null(False))

class RouteDepartures(View, source=Departure, entity=Route, ttl=timedelta(1), keys={
    "origin": Departure.origin, "dest": Departure.origin}):
    delay: Feature[Float32 | None] = feature(Departure.delay)

class Search(Request):
    departs_at: Col[Timestamp]
    seats: Col[Int32 | None]

Origin = AirportDepartures.at(airport=Route.origin)

class Waiting(OnDemandView, inputs=(AirportDepartures, Search)):
    quiet_s: Feature[Int64 | None] = feature((AS_OF - AirportDepartures.left).dt.total_seconds())
    ahead_s: Feature[Int64] = feature((Search.departs_at - AS_OF).dt.total_seconds())

"""


def on_demand(body: str, words: str = "OnDemandView, inputs=(AirportDepartures,)") -> str:
    return f"class Wrong({words}):\n    {body}\n"


def service(features: str) -> str:
    return f"class Wrong(FeatureService, features={features}): ...\n"


MODEL: dict[str, str] = {
    "entity": "Route",
    "version": '"1"',
    "policy": '"refresh"',
    "max_staleness": "timedelta(1)",
    "inputs": '{"late": Origin.late, "delay": RouteDepartures.delay}',
    "server": 'OpenInference(url="http://127.0.0.1:8080", model="delay")',
}


def model(body: str = "minutes: Output[Float32]", **words: str) -> str:
    said = ", ".join(f"{word}={text}" for word, text in {**MODEL, **words}.items() if text)
    return f"class Wrong(Model, {said}):\n    {body}\n"


QUIET = "s: Feature[Int64 | None] = feature((AS_OF - AirportDepartures.left).dt.total_seconds())"
READ_CASES = {
    # Lists and vectors
    "a null in a list on demand": (
        on_demand("a: Feature[list[Timestamp]] = feature(pl.concat_list(AirportDepartures.left))"),
        "Wrong.a has a null in it where AirportDepartures.left is null; no element of a list is null",
    ),
    "an input of any length": (
        "class Wish(Request):\n    a: Col[list[Float32]]\n\n" + model(inputs='{"a": Wish.a}'),
        "Wrong has an input a that is List[Float32], of any length; a model takes and gives vectors: Annotated[list[",
    ),
    "an output of any length": (model("a: Output[list[Float32]]"), "Wrong.a is List[Float32], of any length; a model"),
    # Freshness
    "an objective in seconds": (view(GOOD, VIEW + ", freshness=60"), "Wrong has freshness=60; write timedelta(minutes"),
    "an objective of nothing": (
        view(GOOD, VIEW + ", freshness=timedelta(0)"),
        "an objective is longer than nothing",
    ),
    "an objective beyond the ttl": (
        view(GOOD, VIEW + ", freshness=timedelta(8)"),
        "which is longer than its ttl, so that no row is ever late: it is outside its age before; make freshness",
    ),
    "a feature that hides View.at": (
        view("at: Feature[Timestamp] = feature(Departure.at)"),
        "Wrong.at has the name of View.at(…), which makes aliases; choose another",
    ),
    # Aliases
    "an alias of a key that is none": (
        "Wrong = AirportDepartures.at(airprt=Route.origin)",
        "AirportDepartures.at(…) maps the key 'airprt', which Airport does not have; did you mean 'airport'?",
    ),
    "an alias that maps too little": (
        "Wrong = AirportDepartures.at()",
        "AirportDepartures.at(…) does not map the key airport of Airport; add airport=<Entity>.<key>",
    ),
    "an alias by a column": (
        "Wrong = AirportDepartures.at(airport=Departure.origin)",
        "AirportDepartures.at(…) has airport=Departure.origin, which is no key of an entity; write airport=<Entity>",
    ),
    "an alias by a text": (
        "Wrong = AirportDepartures.at(airport='origin')",
        "AirportDepartures.at(…) has airport=origin, which is no key of an entity",
    ),
    "an alias by a computed key": (
        "Wrong = AirportDepartures.at(airport=Route.origin.str.to_uppercase())",
        "which is no key of an entity",
    ),
    "an alias by keys of two entities": (
        "Wrong = RouteDepartures.at(origin=Route.origin, dest=Airport.airport)",
        "is led to by keys of Airport and Route; use those of one entity",
    ),
    "an alias by a key of another type": (
        "Wrong = AirportDepartures.at(airport=Flown.number)",
        "has airport=Flown.number, a Int64, but Airport.airport is String; keys of different types never meet",
    ),
    "an alias with two names": ("Start = Origin", "an alias is called Origin and Start; keep one of the names"),
    "two aliases that are one": (
        "Start = AirportDepartures.at(airport=Route.origin)",
        "AirportDepartures.at(airport=Route.origin); import that one",
    ),
    "an alias that another replaces": (
        "Start = AirportDepartures.at(airport=Route.dest)\nStart = AirportDepartures.at(airport=Route.origin)",
        "Start stands in line 53 already, and only this one would count",
    ),
    "an alias called like a view": (
        "Waiting_ = 1\nrouteDepartures = AirportDepartures.at(airport=Route.dest)",
        "routeDepartures has the name of RouteDepartures in",
    ),
    "an alias without a name": (
        service("(AirportDepartures.at(airport=Route.dest).late,)"),
        "Wrong reads an alias without a name; bind it in a module, as "
        "Origin = AirportDepartures.at(airport=Route.dest)",
    ),
    "a feature that a view lacks": (
        service("(AirportDepartures.lat,)"),
        "AttributeError: type object 'AirportDepartures' has no attribute 'lat'; did you mean 'late'?",
    ),
    "a feature that an alias lacks": (
        service("(Origin.lat,)"),
        "AttributeError: AirportDepartures has no feature 'lat'; did you mean 'late'?",
    ),
    # Owners and tags
    "an owner that is nobody": (
        'class Wrong(Request, owner=""):\n    a: Col[Bool]',
        "Wrong has owner=''; write who answers for it, as owner=\"payments\"",
    ),
    "tags without names": (
        service("(Origin.late,), tags=['tier']"),
        'Wrong has tags=[\'tier\']; write texts by their names, as tags={"tier": "1"}',
    ),
    "a tag that is no text": (
        on_demand(QUIET, "OnDemandView, inputs=(AirportDepartures,), tags={'tier': 1}"),
        'Wrong has tags={\'tier\': 1}; a tag is a text by its name, as {"tier": "1"}',
    ),
    # Requests
    "a request without columns": ("class Wrong(Request): ...", "Wrong has no column; write `<name>: Col[Float64]`"),
    "a request with a word": ("class Wrong(Request, ttl=1):\n    a: Col[Bool]", "Wrong has ttl=…, which means nothing"),
    "a request's column with a path": (
        'class Wrong(Request):\n    a: Col[Bool] = col(path="b")',
        "Wrong.a has col(…), but a request's values come by name alone",
    ),
    # On-demand views
    "an on-demand view without inputs": (on_demand(QUIET, "OnDemandView"), "Wrong lacks inputs; write inputs="),
    "inputs of nothing": (on_demand(QUIET, "OnDemandView, inputs=()"), "Wrong has inputs=(); write a tuple"),
    "an input without a tuple": (
        on_demand(QUIET, "OnDemandView, inputs=AirportDepartures"),
        "write a tuple of views, aliases and requests",
    ),
    "an input that is a topic": (
        on_demand(QUIET, "OnDemandView, inputs=(Departure,)"),
        "Wrong has the input Departure; give views, aliases (View.at(…)) and requests",
    ),
    "an input that is an on-demand view": (
        on_demand(QUIET, "OnDemandView, inputs=(Waiting,)"),
        "Wrong has the input Waiting, an on-demand view; give what that is computed from",
    ),
    "an input twice": (
        on_demand(QUIET, "OnDemandView, inputs=(AirportDepartures, AirportDepartures)"),
        "Wrong has the input AirportDepartures twice",
    ),
    "an input that nobody reads": (
        on_demand(QUIET, "OnDemandView, inputs=(AirportDepartures, Search)"),
        "Wrong has the input Search, which no feature reads; take it out",
    ),
    "an on-demand version of nought": (
        on_demand(QUIET, "OnDemandView, inputs=(AirportDepartures,), version=0"),
        "Wrong has version=0; use an integer from 1",
    ),
    "an on-demand view without features": (
        "class Wrong(OnDemandView, inputs=(AirportDepartures,)): ...",
        "Wrong has no feature; write",
    ),
    "an on-demand feature without an expression": (
        on_demand("s: Feature[Int64]"),
        "Wrong.s has no expression; write `= feature(…)`",
    ),
    "an on-demand feature of a constant": (
        on_demand("s: Feature[Int64] = feature(1)"),
        "Wrong.s is 1, no expression; write pl.lit(…) for a constant, or use its inputs' columns",
    ),
    "an on-demand feature of another type": (
        on_demand("s: Feature[Int64 | None] = feature(AirportDepartures.left)"),
        "Wrong.s is declared Int64 but computes Timestamp",
    ),
    "an on-demand feature of what is no input": (
        on_demand("s: Feature[Float32 | None] = feature(RouteDepartures.delay)"),
        "Wrong.s reads RouteDepartures.delay, but its inputs are AirportDepartures; add to inputs=(…)",
    ),
    "an on-demand feature of an alias that is no input": (
        on_demand("s: Feature[Bool | None] = feature(Origin.late)"),
        "Wrong.s reads Origin.late, but its inputs are AirportDepartures",
    ),
    "an on-demand feature of an alias that cannot be computed": (
        on_demand("s: Feature[Bool | None] = feature(Origin.late + AS_OF)", "OnDemandView, inputs=(Origin,)"),
        "Wrong.s cannot be computed: + not allowed on bool and datetime[μs, UTC]",
    ),
    "an on-demand feature of an unqualified column": (
        on_demand('s: Feature[Bool | None] = feature(pl.col("late"))'),
        'Wrong.s reads pl.col("late"), which is of none of its inputs; write AirportDepartures.late',
    ),
    "an on-demand feature of a feature that is not there": (
        on_demand('s: Feature[Bool | None] = feature(pl.col("AirportDepartures.lat"))'),
        "Wrong.s reads AirportDepartures.lat, which AirportDepartures does not have; did you mean",
    ),
    "an on-demand feature by a pattern": (
        on_demand("s: Feature[Bool | None] = feature(pl.any_horizontal(pl.all()))"),
        "Wrong.s reads columns by a pattern",
    ),
    "an on-demand feature called like a key": (
        on_demand("airport: Feature[Bool | None] = feature(AirportDepartures.late)"),
        "Wrong.airport has the name of Airport's key airport; rename the feature",
    ),
    "an on-demand feature called like a request's column": (
        on_demand("seats: Feature[Int32 | None] = feature(Search.seats)", "OnDemandView, inputs=(Search,)"),
        "Wrong.seats has the name of Search.seats; rename the feature",
    ),
    "an on-demand feature that is null where there is no row": (
        on_demand("s: Feature[Bool] = feature(AirportDepartures.late)"),
        "Wrong.s is null where AirportDepartures.late is null, as it is where there is no row or an old one; "
        "add .fill_null(…), or declare Feature[Bool | None]",
    ),
    "an on-demand feature that is null where the request is": (
        on_demand("n: Feature[Int32] = feature(Search.seats)", "OnDemandView, inputs=(Search,)"),
        "Wrong.n is null where Search.seats is null; add .fill_null(…)",
    ),
    "an on-demand feature that is null where two inputs are": (
        on_demand(
            "s: Feature[Bool] = feature(pl.coalesce(AirportDepartures.late, Origin.late))",
            "OnDemandView, inputs=(AirportDepartures, Origin)",
        ),
        "Wrong.s is null where AirportDepartures.late and Origin.late is null",
    ),
    "an on-demand feature that is null for a value": (
        on_demand(
            "n: Feature[Int32] = feature(pl.when(Search.departs_at > AS_OF).then(pl.lit(1, pl.Int32)))",
            "OnDemandView, inputs=(Search,)",
        ),
        "Wrong.n is null for Search.departs_at=",
    ),
    "an on-demand feature of several rows": (
        on_demand("s: Feature[Timestamp | None] = feature(AirportDepartures.left.max())"),
        "a view sees one event at a time",
    ),
    "an on-demand @frame function": (
        on_demand("n: Feature[Bool | None] = feature(AirportDepartures.late)\n    @frame\n    def make(events): ..."),
        "Wrong.make is a @frame function; compute in expressions, by feature(…)",
    ),
    "AS_OF in a view": (
        view("s: Feature[Int64] = feature((AS_OF - Departure.at).dt.total_seconds())"),
        "Wrong.s reads AS_OF, which on-demand views alone have; an event has its own time, Departure.at",
    ),
    # Feature services
    "a service without features": ("class Wrong(FeatureService): ...", "Wrong lacks features; write features=("),
    "a service of nothing": (service("()"), "Wrong has features=(); write a tuple of features"),
    "a service with a computed feature": (
        service("(~Origin.late,)"),
        "name features as they stand (View.feature), and compute in an OnDemandView",
    ),
    "a service with a topic's column": (
        service("(Departure.delay,)"),
        "Wrong has Departure.delay, which is a column of a topic; name features and outputs alone",
    ),
    "a service with a request's column": (
        service("(Search.seats,)"),
        "Wrong has Search.seats, which is a value that a request brings",
    ),
    "a service with a key": (service("(Route.origin,)"), "Wrong has Route.origin, which is a key"),
    "a service with a feature twice": (
        service("(RouteDepartures, RouteDepartures.delay)"),
        "Wrong has RouteDepartures.delay twice; name each feature once",
    ),
    "a service with a field": (
        "class Wrong(FeatureService, features=(Origin,)):\n    late: Feature[Bool]",
        "Wrong.late is a field, and a feature service has none",
    ),
    # Models
    "a model without a server": (model(server=""), "Wrong lacks server; write server=OpenInference("),
    "a model with an unknown word": (model(polcy="1"), "Wrong has polcy=…, which means nothing here; did you mean"),
    "a model without outputs": (model("..."), "Wrong has no output; write `<name>: Output[Float32]`"),
    "a model of no entity": (model(entity="Departure"), "give a class that derives from Entity"),
    "a model's version that is a number": (model(version="1"), "Wrong has version=1; write version="),
    "a model's version with a colon": (model(version='"a:b"'), "Wrong has version='a:b'; write version="),
    "a policy that does not exist": (model(policy='"refrsh"'), "Wrong has policy='refrsh'; did you mean 'refresh'?"),
    "a staleness in seconds": (model(max_staleness="60"), "Wrong has max_staleness=60; write timedelta("),
    "no staleness": (model(max_staleness="timedelta(0)"), "it must be longer than nothing"),
    "a server that is a text": (model(server='"http://a"'), "Wrong has server='http://a'; give OpenInference("),
    "a server's url that is none": (
        model(server='OpenInference(url="delay:8080", model="delay")'),
        "Wrong has a server with url='delay:8080'; write http://host:port, or env:NAME",
    ),
    "a server without a model": (model(server='OpenInference(url="env:URL", model="")'), "a server with model=''"),
    "a server without patience": (
        model(server='OpenInference(url="env:URL", model="a", timeout=timedelta(0))'),
        "Wrong has a server with timeout=datetime.timedelta(0); it must be longer than nothing",
    ),
    "a server that is asked for ever": (
        model(server='OpenInference(url="env:URL", model="a", retries=99)'),
        "Wrong has a server with retries=99; use an integer from 0 to 10",
    ),
    "a server that is asked for nobody": (
        model(server='OpenInference(url="env:URL", model="a", max_batch=0)'),
        "Wrong has a server with max_batch=0; use an integer from 1",
    ),
    "a model without inputs": (model(inputs="{}"), "Wrong has inputs={}; write inputs="),
    "an input with a bad name": (model(inputs='{"a b": Origin.late}'), "Wrong has an input called 'a b'; use 1 to 64"),
    "a computed input": (
        model(inputs='{"a": ~Origin.late}'),
        "name a feature as it stands (View.feature), and compute in an OnDemandView",
    ),
    "an input of a topic": (
        model(inputs='{"a": Departure.delay}'),
        "Wrong has an input a that is Departure.delay, which is no feature; name a feature, or a request's column",
    ),
    "an input of another entity": (
        model(inputs='{"a": AirportDepartures.late}'),
        "Wrong has an input a that is of AirportDepartures, a view of Airport; the model is of Route: use an alias, "
        "as AirportDepartures.at(airport=Route.…)",
    ),
    "an input of an alias of another entity": (
        model(entity="Airport", inputs='{"a": Origin.late}'),
        "is of Origin, which keys of Route lead to; the model is of Airport: use AirportDepartures itself",
    ),
    "an on-demand input of another entity": (
        model(inputs='{"a": Waiting.quiet_s}'),
        "Wrong has an input a that is Waiting.quiet_s, which reads of AirportDepartures, a view of Airport",
    ),
    "an output called like a key": (
        model("origin: Output[Float32]"),
        "Wrong.origin has the name of Route's key origin; rename the output",
    ),
    "an output called like a column of the log": (
        model("computed_at: Output[Float32]"),
        "Wrong.computed_at has the name of the column computed_at of the log of predictions",
    ),
    "an output that is a feature": (model("minutes: Feature[Float32]"), "write `minutes: Output[String]`"),
    "a refresh by what is no view": (
        model(refresh_on_write="(Departure,)"),
        "Wrong has Departure in refresh_on_write; give views and aliases",
    ),
    "a refresh without a tuple": (
        model(refresh_on_write="RouteDepartures"),
        "write a tuple of views and aliases, as (RouteDepartures,)",
    ),
    "a refresh by what is no input": (
        model(inputs='{"late": Origin.late}', refresh_on_write="(RouteDepartures,)"),
        "Wrong has RouteDepartures in refresh_on_write, which none of its inputs reads; take it out",
    ),
    "a refresh twice": (
        model(refresh_on_write="(RouteDepartures, RouteDepartures)"),
        "Wrong has RouteDepartures twice in refresh_on_write",
    ),
    "a refresh by an alias without a bound": (
        model(refresh_on_write="(Origin,)"),
        "one write may concern many of Route; add max_fan_out=…",
    ),
    "a bound without an alias": (
        model(refresh_on_write="(RouteDepartures,)", max_fan_out="5"),
        "Wrong has max_fan_out=…, but no alias in refresh_on_write",
    ),
    "a bound that is none": (
        model(refresh_on_write="(Origin,)", max_fan_out="0"),
        "Wrong has max_fan_out=0; use an integer from 1",
    ),
    "a debounce without a refresh": (
        model(debounce="timedelta(1)"),
        "Wrong has debounce=…, but no write refreshes it",
    ),
    "a debounce past its most": (
        model(refresh_on_write="(RouteDepartures,)", debounce="timedelta(2)", max_debounce="timedelta(1)"),
        "which is less than its debounce",
    ),
    "the most of no debounce": (
        model(refresh_on_write="(RouteDepartures,)", max_debounce="timedelta(1)"),
        "Wrong has max_debounce=…, but no debounce=…; give both",
    ),
    "a refresh where a request is needed": (
        model(
            inputs='{"delay": RouteDepartures.delay, "ahead": Waiting.ahead_s}', refresh_on_write="(RouteDepartures,)"
        ),
        "Wrong has refresh_on_write=…, but its inputs need Search's values, which no write knows",
    ),
    "a model called like a service": (
        model() + "class wrong(FeatureService, features=(Origin,)): ...",
        "has the name of",
    ),
}


@pytest.mark.parametrize(("body", "says"), READ_CASES.values(), ids=READ_CASES)
def test_a_mistake_in_what_is_read_is_refused_too(mistakes: Load, body: str, says: str) -> None:
    found = mistakes(READ_PRELUDE + body)
    assert [message for message in found if says in message], found
    before = (PRELUDE + READ_PRELUDE).splitlines()
    lines = [*range(len(before) + 1, len(before) + body.count("\n") + 2), before.index(ORIGIN) + 1]
    assert found[0].startswith(tuple(f"definitions_of_a_test.py:{line}: " for line in lines)), found


ORIGIN = "Origin = AirportDepartures.at(airport=Route.origin)"


def test_the_prelude_of_what_is_read_is_right_and_so_is_the_model(mistakes: Load) -> None:
    whole = model(
        refresh_on_write="(RouteDepartures, Origin)",
        max_fan_out="9",
        debounce="timedelta(1)",
        max_debounce="timedelta(2)",
    )
    assert mistakes(READ_PRELUDE + whole + service("(Waiting, Origin)").replace("Wrong", "Right")) == []


@pytest.mark.parametrize(("body", "says"), CASES.values(), ids=CASES)
def test_a_mistake_is_refused_in_its_place_and_says_what_to_do(mistakes: Load, body: str, says: str) -> None:
    found = mistakes(body)
    assert [message for message in found if says in message], found
    first_line = PRELUDE.count("\n") + 1
    lines = range(first_line, first_line + body.count("\n") + 2)
    assert found[0].startswith(tuple(f"definitions_of_a_test.py:{line}: " for line in lines)), found


def test_a_word_that_something_of_polars_does_not_take_is_told_as_it_is(mistakes: Load) -> None:
    (found,) = mistakes(view('at: Feature[Timestamp] = feature(Departure.at.cast(pl.Datetime(unit="us")))'))
    assert found.endswith("TypeError: Datetime.__init__() got an unexpected keyword argument 'unit'")


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


@pytest.mark.parametrize(("rule", "ruled_out"), [("ge=0", True), ("stop=rule(ge=0)", True), ("warn=rule(ge=0)", False)])
def test_nulls_need_a_declaration_where_a_record_may_break_the_expectation(
    mistakes: Load, rule: str, ruled_out: bool
) -> None:
    """Events are made up within the bounds that every record with rows keeps."""
    body = (
        'class Coded(Topic, name="coded", event_time="at"):\n'
        "    at: Col[Timestamp]\n"
        "    name: Col[String]\n"
        f"    code: Col[Int32] = col({rule})\n"
        f"class Codes(View, source=Coded, entity=Airport, keys={{'airport': Coded.name}}, {WEEK}):\n"
        "    n: Feature[Int32] = feature(pl.when(Coded.code >= 0).then(Coded.code))\n"
    )
    assert (mistakes(body) == []) is ruled_out


def test_the_nearest_name_is_offered_up_to_the_length_at_which_none_can_be_near() -> None:
    assert did_you_mean("a" * 70, ["a" * 30]) == f"; did you mean {'a' * 30!r}?"
    assert did_you_mean("a" * 71, ["a" * 30]) == f"; there is {'a' * 30}"
    assert did_you_mean("a", []) == ""
