"""A view that looks at more than one event is refused, whatever Polars calls it; one that does not is let through."""

import itertools
import math
import random
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Annotated, Any

import polars as pl
import pytest

from stillwell import (
    Bool,
    Col,
    Entity,
    Feature,
    Float32,
    Float64,
    Int32,
    Int64,
    Key,
    Size,
    String,
    Timestamp,
    Topic,
    View,
    col,
    feature,
    frame,
    rows,
)
from stillwell.definitions.checks import check_row_locality
from stillwell.definitions.functions import Rows
from stillwell.definitions.mistakes import Mistakes
from stillwell.definitions.samples import empty_events, sample_events
from stillwell.spec import FeatureSpec, ViewSpec
from stillwell.types import of_polars


class Airport(Entity):
    airport: Key[String]


class Departure(Topic, name="flights.departures", event_time="at"):
    at: Col[Timestamp]
    origin: Col[String]
    dest: Col[String]
    number: Col[Int64]
    delay: Col[Float32 | None]
    ratio: Col[Float64]
    cancelled: Col[Bool | None]
    tail: Col[String | None]
    kind: Col[String] = col(one_of=["jet", "prop"])


class Template(View, source=Departure, entity=Airport, keys={"airport": Departure.origin}, ttl=timedelta(0)):
    number: Feature[Int64] = feature(Departure.number)


def problems(view: ViewSpec) -> tuple[str, ...]:
    mistakes = Mistakes(Template)
    check_row_locality(view, empty_events(view.source), mistakes)
    return mistakes.messages


def with_feature(expression: pl.Expr, template: ViewSpec = Template.spec) -> ViewSpec:
    """The template with one feature, of the type that the expression has."""
    schema = empty_events(template.source).schema
    (dtype,) = pl.LazyFrame(schema=schema).select(expression).collect_schema().values()
    kind = of_polars(dtype)
    assert kind is not None
    tried = FeatureSpec(name="tried", type=kind, nullable=True, expression=expression)
    return template.model_copy(update={"features": (tried,)})


class Basket(Topic, name="shop.baskets", event_time="at"):
    at: Col[Timestamp]
    shop: Col[String]
    items: Col[list[String] | None]
    counts: Col[list[Int64]]
    prices: Col[list[Float64]]
    paid: Col[Float64]
    owed: Col[Float64 | None]
    taste: Col[Annotated[list[Float32], Size(200)] | None]
    wish: Col[Annotated[list[Float32], Size(200)]]


class Baskets(View, source=Basket, entity=Airport, keys={"airport": Basket.shop}, ttl=timedelta(0)):
    items: Feature[list[String] | None] = feature(Basket.items)


def _hexadecimal(number: int) -> str:
    return f"{number:x}"


NOT_LOCAL = {
    "mean": Departure.delay - Departure.delay.mean(),
    "sum": Departure.ratio / Departure.ratio.sum(),
    "max": Departure.number == Departure.number.max(),
    "quantile": Departure.delay > Departure.delay.quantile(0.9),
    "standard deviation": Departure.ratio / Departure.ratio.std(),
    "shift": Departure.number.shift(1),
    "diff": Departure.number.diff(),
    "cumulative sum": Departure.number.cum_sum(),
    "cumulative count": Departure.tail.cum_count().cast(pl.Int64),
    "rank": Departure.delay.rank("dense").cast(pl.Int64),
    "over": Departure.delay.max().over(Departure.origin),
    "count over": pl.len().over(Departure.origin).cast(pl.Int64),
    "first": Departure.origin.first(),
    "last": Departure.origin.last(),
    "length": pl.len().cast(pl.Int64),
    "row number": pl.int_range(pl.len(), dtype=pl.Int64),
    "is duplicated": Departure.origin.is_duplicated(),
    "is first distinct": Departure.number.is_first_distinct(),
    "is unique of structs": pl.struct(Departure.origin, Departure.number).is_unique(),
    "number of values": Departure.origin.n_unique().cast(pl.Int64),
    "mode": Departure.origin.mode().first(),
    "reverse": Departure.number.reverse(),
    "sort": Departure.number.sort(),
    "sort by": Departure.number.sort_by(Departure.delay),
    "gather": Departure.number.gather([0]),
    "head": Departure.number.head(1),
    "tail": Departure.number.tail(5),
    "slice": Departure.number.slice(0, 3),
    "filter": Departure.number.filter(Departure.number > 0),
    "drop nulls": Departure.delay.drop_nulls(),
    "unique": Departure.origin.unique(),
    "explode": Departure.origin.str.split("x").explode(),
    "forward fill": Departure.delay.forward_fill(),
    "backward fill": Departure.delay.backward_fill(),
    "interpolate": Departure.delay.interpolate(),
    "fill with mean": Departure.delay.fill_null(Departure.delay.mean()),
    "fill by strategy": Departure.delay.fill_null(strategy="max"),
    "rolling": Departure.delay.rolling_mean(3),
    "exponential mean": Departure.ratio.ewm_mean(com=1),
    "run lengths": Departure.origin.rle_id().cast(pl.Int64),
    "equal to the one before": Departure.origin == Departure.origin.shift(),
    "category codes": Departure.origin.cast(pl.Enum(["a"]), strict=False).reverse().cast(pl.String),
    "any": Departure.cancelled.any(),
    "all": Departure.cancelled.all(),
    "any null": Departure.tail.has_nulls(),
    "null count": Departure.tail.null_count().cast(pl.Int64),
    "search": Departure.number.search_sorted(5).cast(pl.Int64),
    "contained in the batch": Departure.tail.is_in(Departure.origin.implode()),
    "behind a condition": pl.when(Departure.number > 10**9).then(Departure.number.max()).otherwise(0),
    "behind an equality": pl.when(Departure.origin == "LGA").then(Departure.delay.mean()),
    "the rare case of a rare case": pl.when(Departure.cancelled.is_null()).then(Departure.number.shift(1)),
    "sample": Departure.number.sample(fraction=1.0, shuffle=True),
    "shuffle": Departure.number.shuffle(),
    "shuffle with a seed": Departure.number.shuffle(seed=3),
    "the size of the batch": pl.when(pl.len() > 1_000).then(Departure.number).otherwise(-1),
    "the sign of a zero": pl.when(pl.len() > 2).then(-0.0).otherwise(0.0),
    "is unique of whole events": pl.struct(
        *(pl.col(f"Departure.{column.name}") for column in Departure.spec.columns)
    ).is_unique(),
    "a function that counts": Departure.number.map_batches(
        lambda values: pl.Series(range(len(values)), dtype=pl.Int64), return_dtype=pl.Int64
    ),
}

LOCAL = {
    "the column": Departure.delay,
    "a constant": pl.lit(1, dtype=pl.Int64),
    "arithmetic": (Departure.delay * 2 - 1).cast(pl.Float32),
    "overflow": Departure.number * Departure.number,
    "division by nought": Departure.ratio / (Departure.ratio - Departure.ratio),
    "division of floats by a constant": Departure.ratio / 1_000,
    "division of integers by a constant": Departure.number / 3.6,
    "remainder of floats": Departure.ratio % 60,
    "logarithm": Departure.ratio.log(),
    "comparison": Departure.delay > 15,
    "null logic": (Departure.delay > 15).fill_null(False) | Departure.cancelled,
    "clip": Departure.delay.clip(-60, 600),
    "condition": pl.when(Departure.origin == Departure.dest).then(pl.lit("round")).otherwise(pl.lit("one way")),
    "text": pl.concat_str(Departure.origin, pl.lit("-"), Departure.dest),
    "text functions": Departure.origin.str.to_lowercase().str.slice(0, 2).str.strip_chars(),
    "split and take": Departure.origin.str.split("b").list.first(),
    "parts of a time": Departure.at.dt.convert_time_zone("America/New_York").dt.hour().cast(pl.Int32),
    "distance of times": (Departure.at - pl.datetime(2013, 1, 1, time_zone="UTC")).dt.total_seconds(),
    "membership": Departure.origin.is_in(["JFK", "LGA"]),
    "mapping": Departure.kind.replace_strict({"jet": 1, "prop": 2}, return_dtype=pl.Int64),
    "mapping with a default": Departure.origin.replace_strict({"JFK": 1}, default=0, return_dtype=pl.Int64),
    "over several columns": pl.max_horizontal(Departure.number, Departure.number * 2),
    "hash": Departure.origin.hash(seed=1).reinterpret(signed=True),
    "fails on some": Departure.number.cast(pl.Int32),
    "a function of values": Departure.number.map_elements(_hexadecimal, return_dtype=pl.String),
}


NOT_LOCAL_OF_LISTS = {
    "of another event": Basket.items.shift(1),
    "of the first": Basket.wish.first(),
    "gathered": Basket.counts.implode().list.first(),
    "exploded": Basket.counts.explode(),
    "elements of the batch": Basket.shop.is_in(Basket.items.explode().implode()),
    "less the first": Basket.wish - Basket.wish.first(),
    "in another order": Basket.counts.reverse(),
    "how many in the batch": Basket.counts.len().cast(pl.Int64),
    "drawn by chance": Basket.counts.list.sample(fraction=1, shuffle=True),
    "the sign of a zero": pl.when(pl.len() > 5).then(Basket.wish * -0.0).otherwise(Basket.wish * 0.0),
    "a mean beside lists with nulls": Basket.prices.list.eval(
        pl.when(pl.element() > -5).then(pl.element())
    ).list.mean(),
    "a sum beside lists that were too short": Basket.prices.list.gather([0, 1], null_on_oob=True).list.sum(),
    "a sum of what may be null": pl.concat_list(Basket.paid, Basket.owed).list.sum(),
}

LOCAL_OF_LISTS = {
    "the list": Basket.items,
    "the vector": Basket.taste,
    "sorted": Basket.items.list.sort(),
    "of distinct elements": Basket.items.list.unique(maintain_order=True),
    "how many": Basket.items.list.len().cast(pl.Int64),
    "contained": Basket.items.list.contains("a"),
    "joined": Basket.items.list.join(","),
    "one of them": Basket.counts.list.get(2, null_on_oob=True),
    "the last three": Basket.counts.list.tail(3),
    "each changed": Basket.items.list.eval(pl.element().str.to_uppercase()),
    "each ranked": Basket.counts.list.eval(pl.element().rank("dense").cast(pl.Int64)),
    "filtered": Basket.counts.list.eval(pl.element().filter(pl.element() > 0)),
    "filtered in a word": Basket.counts.list.filter(pl.element() > 0),
    "each divided": Basket.prices.list.eval(pl.element() / 3.6),
    "some divided": Basket.prices.list.filter(pl.element() > 50).list.eval(pl.element() / 3.6),
    "their sum divided": Basket.prices.list.agg(pl.element().sum() / 3.6),
    "of one element divided": pl.concat_list(Basket.paid).list.eval(pl.element() / 3.6),
    "their sum": Basket.counts.list.sum(),
    "put together": pl.concat_list(Basket.counts, Basket.counts),
    "split": Basket.shop.str.split(","),
    "a dot product": (Basket.taste * Basket.wish).arr.sum(),
    "the length of a vector": (Basket.wish * Basket.wish).arr.sum().sqrt(),
    "the angle of two": (Basket.taste * Basket.wish).arr.sum()
    / ((Basket.taste * Basket.taste).arr.sum() * (Basket.wish * Basket.wish).arr.sum()).sqrt(),
    "their difference": Basket.taste - Basket.wish,
    "the mean of a vector": Basket.taste.arr.to_list().list.mean(),
    "the nearest": Basket.taste.arr.arg_max().cast(pl.Int64),
    "a vector filled": Basket.taste.fill_null(Basket.wish),
    "in other numbers": Basket.wish.cast(pl.Array(pl.Float64, 200)),
    "as a list": Basket.wish.arr.to_list(),
    "fails on some": Basket.counts.list.to_array(3),
}


@pytest.mark.parametrize("expression", NOT_LOCAL_OF_LISTS.values(), ids=NOT_LOCAL_OF_LISTS)
def test_what_depends_on_other_events_lists_is_refused(expression: pl.Expr) -> None:
    (message,) = problems(with_feature(expression, Baskets.spec))
    assert "a view sees one event at a time" in message
    assert len(message) < 2_000


@pytest.mark.parametrize("expression", LOCAL_OF_LISTS.values(), ids=LOCAL_OF_LISTS)
def test_what_depends_on_the_events_own_lists_is_let_through(expression: pl.Expr) -> None:
    assert problems(with_feature(expression, Baskets.spec)) == ()


def test_made_up_lists_are_empty_of_one_of_several_and_of_equal_elements_and_some_have_a_nan() -> None:
    events = sample_events(Baskets.spec, empty_events(Basket.spec))
    items = [each for each in events.get_column("Basket.items").to_list() if each is not None]
    assert {0, 1, 2, 3} <= {len(each) for each in items}
    assert any(len(set(each)) < len(each) for each in items)
    assert events.get_column("Basket.items").null_count()
    vectors = events.get_column("Basket.wish").to_list()
    assert {len(each) for each in vectors} == {200}
    assert any(math.isnan(value) for each in vectors for value in each)
    assert any(len(set(each)) == 1 for each in vectors)


@pytest.mark.parametrize("expression", NOT_LOCAL.values(), ids=NOT_LOCAL)
@pytest.mark.filterwarnings("ignore")
def test_what_depends_on_other_events_is_refused(expression: pl.Expr) -> None:
    (message,) = problems(with_feature(expression))
    assert "Template.tried" in message
    assert "a view sees one event at a time" in message


@pytest.mark.parametrize("expression", LOCAL.values(), ids=LOCAL)
@pytest.mark.filterwarnings("ignore")
def test_what_depends_on_the_event_alone_is_let_through(expression: pl.Expr) -> None:
    assert problems(with_feature(expression)) == ()


def test_a_constant_of_a_whole_batch_must_not_be_divided_by_another() -> None:
    """Where all events take the same branch Polars divides two constants, whose last bit differs from a column's."""
    constant = pl.when(Departure.cancelled).then(pl.lit(8_297.76)).otherwise(Departure.ratio)
    (message,) = problems(with_feature(constant / 100))
    assert "82.97760000000001 among others but 82.9776 alone" in message
    assert "divide within .then(…)" in message
    within = pl.when(Departure.cancelled).then(pl.lit(8_297.76) / 100).otherwise(Departure.ratio / 100)
    assert problems(with_feature(within)) == ()


def test_where_and_keys_are_held_to_the_same() -> None:
    spec = Template.spec.model_copy(
        update={"where": Departure.delay > Departure.delay.mean(), "keys": (Departure.origin.first(),)}
    )
    where, key = problems(spec)
    assert "Template has a where that gives" in where
    assert "Template has a key airport that gives" in key


def test_the_refusal_shows_an_event_and_both_results() -> None:
    (message,) = problems(with_feature(Departure.number - Departure.number.min()))
    assert "gives" in message
    assert "alone, for Departure.number=" in message


def test_golden_events_are_tried_too() -> None:
    """A case that only an example knows: nothing in the expression names the value."""
    spec = with_feature(pl.when(Departure.dest.str.len_bytes() == 11).then(Departure.number.max()).otherwise(0))
    mistakes = Mistakes(Template)
    golden = (
        empty_events(Departure.spec)
        .clear(2)
        .with_columns(
            pl.lit("a", pl.String).alias("Departure.origin"),
            pl.lit("eleven long", pl.String).alias("Departure.dest"),
            pl.Series("Departure.number", [1, 2]),
        )
    )
    check_row_locality(spec, golden, mistakes)
    assert mistakes.messages
    assert problems(spec) == ()


def view_of(function: Callable[[Any], Rows], source: type[Topic] = Departure) -> ViewSpec:
    class Made(View, source=source, entity=Airport, ttl=timedelta(0)):
        value: Feature[Int64]
        make = rows(function)

    return Made.spec


def _pure(event: Any) -> Rows:
    if event.number > 5:
        yield {"airport": event.origin, "value": event.number}
        yield {"airport": event.dest, "value": -1}


def test_a_rows_function_that_sees_its_event_alone_is_let_through() -> None:
    assert problems(view_of(_pure)) == ()


def _impure_functions() -> Iterator[Any]:
    counter = itertools.count()
    yield pytest.param(lambda event: [{"airport": "a", "value": next(counter)}], id="counts")
    seen: set[str] = set()

    def once(event: Any) -> Rows:
        if event.origin not in seen:
            seen.add(event.origin)
            yield {"airport": event.origin, "value": 1}

    yield pytest.param(once, id="remembers")
    randomness = random.Random(0)
    yield pytest.param(lambda event: [{"airport": "a", "value": randomness.getrandbits(60)}], id="draws")


@pytest.mark.parametrize("function", list(_impure_functions()))
def test_a_rows_function_that_sees_more_than_its_event_is_refused(function: Callable[[Any], Rows]) -> None:
    (message,) = problems(view_of(function))
    assert "Template gives other rows" in message
    assert "no memory of others, no clock, no chance" in message


def over(function: Callable[[pl.DataFrame], pl.DataFrame]) -> ViewSpec:
    class Made(View, source=Departure, entity=Airport, ttl=timedelta(0)):
        value: Feature[Float64]
        make = frame(function)

    return Made.spec


def giving(value: pl.Expr, *, events: Callable[[pl.DataFrame], pl.DataFrame] = lambda events: events) -> ViewSpec:
    """A view by a function over frames whose rows have this value."""
    return over(lambda frame: events(frame).select("_index", airport="origin", value=value))


OVER_FRAMES = {
    "mean": giving(pl.col("ratio") - pl.col("ratio").mean()),
    "shift": giving(pl.col("ratio").shift(1).fill_null(0)),
    "place": giving(pl.col("_index").cast(pl.Float64)),
    "rank within": giving(pl.col("ratio").rank().over("origin")),
    "head": giving(pl.col("ratio"), events=lambda events: events.head(5)),
    "first of each": giving(pl.col("ratio"), events=lambda events: events.unique("origin", keep="first")),
    "height": over(lambda events: events.select("_index", airport="origin", value=pl.lit(float(events.height)))),
    "order": over(
        lambda events: events.sort("ratio").select("_index", airport="origin", value=pl.col("number").cum_max() * 1.0)
    ),
    "a constant divided": giving(pl.when(pl.col("ratio") > 0).then(8297.76).otherwise("ratio") / 100),
}


@pytest.mark.parametrize("spec", OVER_FRAMES.values(), ids=OVER_FRAMES)
def test_a_function_over_frames_that_looks_at_other_events_is_refused(spec: ViewSpec) -> None:
    (message,) = problems(spec)
    assert "Template gives other rows" in message
    assert "take out what looks at others (mean, shift," in message
    assert "Departure.ratio=" in message


def test_a_function_over_frames_whose_events_depend_on_the_one_beside_them_is_refused() -> None:
    """Only two that differ show it, and only side by side: any larger frame is taken by another branch."""

    def two(events: pl.DataFrame) -> pl.DataFrame:
        other = pl.col("ratio").reverse() if events.height == 4 else pl.col("ratio")
        return events.select("_index", airport="origin", value=other)

    (message,) = problems(over(two))
    assert "gives other rows in twos than alone" in message


def test_events_for_a_function_over_frames_are_made_up_around_its_constants() -> None:
    def rarely(events: pl.DataFrame) -> pl.DataFrame:
        value = pl.when(pl.col("number") == 987_654).then(pl.col("number").mean()).otherwise(0.0)
        return events.select("_index", airport="origin", value=value)

    assert problems(over(rarely))


def test_a_function_over_frames_that_sees_each_event_alone_is_let_through() -> None:
    def some(events: pl.DataFrame) -> pl.DataFrame:
        kept = events.filter(pl.col("number") > 5).sort("ratio", "number")
        return kept.select("_index", airport="origin", value=pl.col("ratio") / 3.6)

    def strict(events: pl.DataFrame) -> pl.DataFrame:
        return events.select("_index", airport="origin", value=pl.col("origin").str.to_integer().cast(pl.Float64))

    assert problems(over(some)) == ()
    assert problems(over(strict)) == (), "to fail for a value of an event is a reject, as it is for expressions"


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (lambda events: events.select("_index", value="ratio"), "the frame lacks airport; give _index, airport, value"),
        (lambda events: events.select("_index", airport="orgin", value="ratio"), "ColumnNotFoundError"),
        (
            lambda events: events.select("_index", airport="origin", value="number"),
            "value: expected Float64, got Int64; add .cast(pl.Float64)",
        ),
        (
            lambda events: events.select("_index", airport="origin", value=pl.lit(None)),
            "value: expected Float64, got null",
        ),
    ],
    ids=["a missing key", "a column that is none", "another type", "nothing but null"],
)
def test_frames_of_another_shape_are_refused(function: Callable[[pl.DataFrame], pl.DataFrame], says: str) -> None:
    (message,) = problems(over(function))
    assert "fails for every event that was tried" in message
    assert says in message


def test_frames_that_do_not_fit_for_some_events_are_refused() -> None:
    """All of those would be dead letters, and too few for the gate to stop the worker."""

    def sometimes(events: pl.DataFrame) -> pl.DataFrame:
        given = events.select("_index", airport="origin", value="ratio")
        return given.cast({"value": pl.Float32()}) if (events.get_column("number") == 7).any() else given

    (message,) = problems(over(sometimes))
    assert "Template fails for " in message
    assert "value: expected Float64, got Float32" in message


def test_a_function_over_frames_whose_types_hang_on_the_values_is_refused() -> None:
    """A column of Python values is Float64 where the first of them is a float, and Int64 where all are whole."""

    def guessed(events: pl.DataFrame) -> pl.DataFrame:
        values = [1 if number > 5 else 0.5 for number in events["number"]]
        return events.select("_index", airport="origin").with_columns(pl.Series("value", values, strict=False))

    (message,) = problems(over(guessed))
    assert "gives a row in twos but fails alone" in message
    assert "value: expected Float64, got Int64; add .cast(pl.Float64)" in message


def test_a_null_that_a_function_over_frames_gives_must_be_declared() -> None:
    (message,) = problems(giving(pl.col("delay").cast(pl.Float64)))
    assert "fails where Departure.delay is null: view Made: value: expected Float64, got null" in message


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"airport": "a"}, "value"),
        ({"airport": "a", "value": 1, "valeu": 2}, "valeu"),
        ({"airport": "a", "value": "1"}, "value"),
    ],
    ids=["a missing feature", "an unknown one", "another type"],
)
def test_rows_of_another_shape_are_refused(row: dict[str, object], says: str) -> None:
    (message,) = problems(view_of(lambda event: [row]))
    assert "fails for every event that was tried" in message
    assert says in message


def test_an_int32_extreme_reaches_both_ends() -> None:
    """The made-up events hold what transformations break on."""

    class Extreme(Topic, name="extreme", event_time="at"):
        at: Col[Timestamp]
        small: Col[Int32 | None]
        ratio: Col[Float64]

    class Extremes(View, source=Extreme, entity=Airport, keys={"airport": pl.lit("a")}, ttl=timedelta(0)):
        small: Feature[Int32 | None] = feature(Extreme.small)

    events = sample_events(Extremes.spec, empty_events(Extreme.spec))
    values = events.get_column("Extreme.small").to_list()
    assert {2**31 - 1, -(2**31), 0, None} <= set(values)
    assert {"0.0", "-0.0"} <= set(map(repr, events.get_column("Extreme.ratio")))
    assert events.equals(sample_events(Extremes.spec, empty_events(Extreme.spec)))


def _misspelt(event: Any) -> Rows:
    if event.delay is not None:
        yield {"airport": event.orgin, "value": 1}


def _misnamed(event: Any) -> Rows:
    yield {"airport": event.origin, "value": 1} if event.cancelled else {"airport": event.origin, "valeu": 1}


def _mistyped(event: Any) -> Rows:
    yield {"airport": event.origin, "value": 1 if event.cancelled else "1"}


def _of_nothing(event: Any) -> Rows:
    yield {"airport": event.origin, "value": len(event.tail)}


class Coded(Topic, name="flights.codes", event_time="at"):
    """No made-up code meets its rule."""

    at: Col[Timestamp]
    code: Col[String] = col(regex="[A-Z]{4}-[0-9]{9}")
    note: Col[String | None]


def _coded_of_nothing(event: Any) -> Rows:
    yield {"airport": event.code, "value": len(event.note)}


def _coded_null_feature(event: Any) -> Rows:
    yield {"airport": event.code, "value": None if event.note is None else 1}


def _coded_null_key(event: Any) -> Rows:
    yield {"airport": event.note, "value": 1}


@pytest.mark.parametrize(
    ("function", "says"),
    [
        (_misspelt, "'Departure' object has no attribute 'orgin'"),
        (_misnamed, "valeu"),
        (_mistyped, "Expected `int | null`, got `str`"),
        (_of_nothing, "'NoneType' has no len()"),
        (_coded_of_nothing, "Coded.note is null: view Made: TypeError: object of type 'NoneType' has no len()"),
        (_coded_null_feature, "Coded.note is null: view Made: value: expected Int64, got null"),
        (_coded_null_key, "Coded.note is null: view Made: airport: expected String, got null"),
    ],
)
def test_a_rows_function_that_fails_for_some_events_by_itself_is_refused(
    function: Callable[[Any], Rows], says: str
) -> None:
    """All of them would be dead letters, and too few for the gate to stop the worker."""
    source = Coded if function.__name__.startswith("_coded") else Departure
    (message,) = problems(view_of(function, source))
    assert "Template fails " in message
    assert says in message


def test_a_rows_function_may_fail_for_values_of_an_event() -> None:
    """One out of range, or that is no number, is a reject, as it is for expressions."""

    def parsed(event: Any) -> Rows:
        yield {"airport": event.origin, "value": int(event.origin)}

    def grown(event: Any) -> Rows:
        yield {"airport": event.origin, "value": event.number * 10**9}

    assert problems(view_of(grown)) == ()
    assert problems(view_of(parsed)) == ()
