"""What a stored row is worth, feature by feature, at an instant."""

import datetime
from collections.abc import Sequence

import polars as pl
import pytest

from stillwell.errors import DefinitionError
from stillwell.layout.chain import PartitionId
from stillwell.layout.encoder import ViewEncoder
from stillwell.layout.projection import UnknownLayout
from stillwell.layout.redis_keys import RedisKeys
from stillwell.layout.value import RowLayout
from stillwell.pipeline import compile_pipeline
from stillwell.reading.catalog import Catalog
from stillwell.reading.features import FeatureReader
from stillwell.reading.online import Stored
from stillwell.reading.predicted import PredictedColumns, of_the_same_rows
from stillwell.reading.status import Freshness, Status
from stillwell.spec import DefinitionsSpec, ViewSpec
from stillwell.types import FLOAT64, INT64, STRING
from tests.batches import NOW_MS, column, event, feature, records, topic, view

EVENT = datetime.datetime.fromtimestamp(NOW_MS / 1000, datetime.UTC)
EVENT_US = NOW_MS * 1_000
HOUR = datetime.timedelta(hours=1)
MICROSECOND = datetime.timedelta(microseconds=1)

TOPIC = topic(column("k", STRING), column("amount", INT64), column("note", STRING, nullable=True))
AMOUNT = feature("amount", INT64, pl.col("T.amount"))
NOTE = feature("note", STRING, pl.col("T.note"), nullable=True)
FIRST = view(TOPIC, {"k": (STRING, pl.col("T.k"))}, AMOUNT, NOTE).model_copy(update={"ttl": HOUR})
TWICE = feature("twice", INT64, pl.col("T.amount") * 2)
SECOND = FIRST.model_copy(update={"version": 2, "features": (TWICE, AMOUNT)})


def stored(by: ViewSpec, **fields: object) -> bytes:
    """The row that an event gives a view."""
    rows = compile_pipeline(TOPIC, [by]).run(records([event(k="a", **fields)])).rows[0]
    (value,) = ViewEncoder(by, HOUR).encode(rows.frame, PartitionId("t", 3, 0))[0].values
    return value


class Holding:
    """A store that has one value, or none, under every key."""

    def __init__(self, value: bytes | None) -> None:
        self._value = value

    async def read(self, keys: Sequence[bytes]) -> Stored:
        return Stored(b"epoch", [self._value for _ in keys])


async def read(
    value: bytes | None, view: ViewSpec = FIRST, older: Sequence[ViewSpec] = (), at: datetime.datetime = EVENT
) -> dict[str, tuple[object, str]]:
    """Value and status of every feature of a view, where this is stored."""
    definitions = DefinitionsSpec(entities=(view.entity,), topics=(TOPIC,), views=(view,))
    plan = Catalog(definitions, older).plan([f"{view.name}:{feature.name}" for feature in view.features])
    now_us = (at - EVENT) // MICROSECOND + EVENT_US
    found = await FeatureReader(Holding(value), RedisKeys("p", "n"), lambda: now_us).read(plan, {"k": ["a"]})
    assert {time for column in found.columns for time in column.event_times} == {None if value is None else EVENT_US}
    return {column.output.name: (column.values[0], column.statuses[0].name) for column in found.columns}


async def test_a_value_is_present_and_a_null_is_a_null() -> None:
    assert await read(stored(FIRST, amount=7)) == {"amount": (7, "PRESENT"), "note": (None, "NULL_VALUE")}


async def test_without_a_row_nothing_is_found() -> None:
    assert await read(None) == {"amount": (None, "NOT_FOUND"), "note": (None, "NOT_FOUND")}


@pytest.mark.parametrize(
    ("ttl", "age", "status"),
    [
        (HOUR, HOUR, Status.PRESENT),
        (HOUR, HOUR + MICROSECOND, Status.OUTSIDE_MAX_AGE),
        (HOUR, -HOUR, Status.PRESENT),
        (datetime.timedelta(0), 1_000_000 * HOUR, Status.PRESENT),
    ],
)
async def test_the_ttl_counts_from_event_time_and_its_end_is_within(
    ttl: datetime.timedelta, age: datetime.timedelta, status: Status
) -> None:
    row = stored(FIRST, amount=7, note="x")
    found = await read(row, FIRST.model_copy(update={"ttl": ttl}), at=EVENT + age)
    assert found == {"amount": (7, status.name), "note": ("x", status.name)}


async def test_a_null_of_a_row_past_its_ttl_is_past_its_ttl() -> None:
    found = await read(stored(FIRST, amount=7), at=EVENT + 2 * HOUR)
    assert found == {"amount": (7, "OUTSIDE_MAX_AGE"), "note": (None, "OUTSIDE_MAX_AGE")}


async def test_a_row_of_an_older_version_lacks_what_came_later() -> None:
    row = stored(FIRST, amount=7, note="gone since")
    assert await read(row, SECOND, [FIRST]) == {"twice": (None, "NOT_FOUND"), "amount": (7, "PRESENT")}
    late = await read(row, SECOND, [FIRST], at=EVENT + 2 * HOUR)
    assert late == {"twice": (None, "NOT_FOUND"), "amount": (7, "OUTSIDE_MAX_AGE")}


async def test_a_feature_of_another_type_is_another_feature() -> None:
    changed = SECOND.model_copy(update={"features": (feature("amount", FLOAT64, pl.col("T.amount")),)})
    assert await read(stored(FIRST, amount=7), changed, [FIRST]) == {"amount": (None, "NOT_FOUND")}


async def test_a_row_of_an_unknown_layout_is_refused() -> None:
    with pytest.raises(UnknownLayout, match="a row has the unknown layout"):
        await read(stored(FIRST, amount=7), SECOND)


async def test_two_versions_whose_layouts_share_an_id_by_chance_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of one would be read as rows of the other."""
    of = RowLayout.of

    def of_one_id(view: ViewSpec) -> RowLayout:
        layout = of(view)
        layout.id = b"same"
        return layout

    monkeypatch.setattr(RowLayout, "of", of_one_id)
    with pytest.raises(DefinitionError, match="the same layout id"):
        await read(None, SECOND, [FIRST])


# ---- beside predictions ----

ROWS = {"none": None, "older": stored(FIRST, amount=7), "newer": stored(FIRST, amount=8, at="2026-01-01T00:00:00.001Z")}
PLACE = ("V", ("k",))


def predictions(worth: Freshness, *rows: str, place: tuple[str, tuple[str, ...]] = PLACE) -> PredictedColumns:
    """Those of a model for some entities, of whose only view these are the rows."""
    many = len(rows)
    return PredictedColumns(
        b"",
        [[1.0] * many],
        [[Status.PRESENT] * many],
        [1] * many,
        [worth] * many,
        [place],
        [ROWS[row] for row in rows],
    )


@pytest.mark.parametrize(
    ("read", "of_models", "shown", "worth"),
    [
        ("older", "FRESH older", "older", "FRESH"),
        ("older", "FRESH newer", "newer", "FRESH"),
        ("newer", "FRESH older", "older", "FRESH"),
        ("none", "FRESH newer", "newer", "FRESH"),
        ("older", "FRESH none", "none", "FRESH"),
        ("older", "LATE newer", "older", "LATE"),
        ("older", "FRESH older, FRESH newer", "newer", "LATE FRESH"),
        ("older", "FRESH newer, FRESH older", "newer", "FRESH LATE"),
        ("older", "FRESH newer, FRESH none", "newer", "FRESH LATE"),
        ("older", "FRESH newer, LATE older", "newer", "FRESH LATE"),
        ("older", "FRESH newer, FRESH newer", "newer", "FRESH FRESH"),
    ],
)
def test_what_is_fresh_is_of_the_rows_beside_it_and_of_several_the_newest_stay(
    read: str, of_models: str, shown: str, worth: str
) -> None:
    predicted = [predictions(Freshness(said), row) for said, row in map(str.split, of_models.split(", "))]
    rows, told = of_the_same_rows({PLACE: 0}, [ROWS[read]], predicted)
    assert rows == [ROWS[shown]]
    assert [each.freshness for each in told] == [[Freshness(said)] for said in worth.split()]


@pytest.mark.parametrize(
    ("of_models", "worth"),
    [
        ("FRESH older, FRESH newer", "LATE FRESH"),
        ("FRESH newer, FRESH none", "FRESH LATE"),
        ("FRESH older, FRESH newer, FRESH older", "LATE FRESH LATE"),
        ("FRESH newer, LATE older", "FRESH LATE"),
        ("FRESH older, FRESH older", "FRESH FRESH"),
        ("FRESH older", "FRESH"),
    ],
)
def test_of_models_that_share_a_row_only_those_of_the_newest_are_fresh_though_no_feature_of_it_is_asked_for(
    of_models: str, worth: str
) -> None:
    predicted = [predictions(Freshness(said), row) for said, row in map(str.split, of_models.split(", "))]
    others: dict[tuple[str, tuple[str, ...]], int] = {("Other", ("k",)): 0}
    for places, read in (({}, []), (others, [ROWS["none"]])):
        rows, told = of_the_same_rows(places, list(read), predicted)
        assert rows == read
        assert [list(each.freshness) for each in told] == [[Freshness(said)] for said in worth.split()]
    assert of_the_same_rows({}, [], [predictions(Freshness.FRESH)] * 2)[0] == []


def test_each_entity_and_view_has_the_rows_of_its_own_predictions() -> None:
    """The model reads the second of two views, of two entities, of which the second has changed; the same view by other
    columns has other rows."""
    elsewhere = predictions(Freshness.FRESH, "older", "older", place=("V", ("other",)))
    rows, told = of_the_same_rows(
        {("Other", ("k",)): 0, PLACE: 1},
        [ROWS[row] for row in ("newer", "none", "older", "older")],
        [predictions(Freshness.FRESH, "older", "newer"), elsewhere],
    )
    assert rows == [ROWS[row] for row in ("newer", "none", "older", "newer")]
    assert {worth for each in told for worth in each.freshness} == {Freshness.FRESH}
