"""Lists and vectors through the whole product: what an event brings is what a reader gets, whichever way it goes."""

import asyncio
import base64
import datetime
import json
import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serving import arrow, as_json, feast, v1
from sinks.parquet import ParquetEncoder
from stillwell.client import Client, Features, Retries, answers
from stillwell.client.direct import Direct
from stillwell.client.source import Asked
from stillwell.errors import RequestError
from stillwell.joined import Joined
from stillwell.layout.chain import PartitionId
from stillwell.layout.encoder import ViewEncoder
from stillwell.layout.parquet import frame_of, read_table, view_schema, view_tables
from stillwell.layout.redis_keys import RedisKeys
from stillwell.layout.value import RowLayout, decode
from stillwell.lists import elements_of, rows_of_elements, with_null_elements
from stillwell.pipeline import compile_pipeline
from stillwell.pushing.pipeline import PushPipeline
from stillwell.pushing.record import PushEncoder
from stillwell.reading.after import Marks
from stillwell.reading.catalog import Catalog
from stillwell.reading.entities import typed
from stillwell.reading.features import FeatureReader, Found
from stillwell.spec import DefinitionsSpec, OnDemandSpec, RequestColumnSpec, RequestSpec, ViewSpec
from stillwell.testing.online import MemoryOnlineStore, MemoryRedis
from stillwell.types import (
    FIELD_TYPES,
    FLOAT32,
    INT64,
    MAX_SIZE,
    TIMESTAMP,
    FieldType,
    field_type,
    is_field_type,
    list_of,
    of_polars,
    vector_of,
)
from tests.batches import NOW, NOW_MS, column, feature, records, topic, view
from tests.unit.client.test_direct import NO_MODELS, Opened

UTC = datetime.UTC
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=UTC)
KEYS = RedisKeys("test", "test")
HOUR = datetime.timedelta(hours=1)
VALUES: Mapping[str, st.SearchStrategy[Any]] = {
    "Bool": st.booleans(),
    "Int32": st.integers(-(2**31), 2**31 - 1),
    "Int64": st.integers(-(2**63), 2**63 - 1),
    "Float32": st.floats(width=32, allow_nan=False, allow_infinity=False),
    "Float64": st.floats(allow_nan=False, allow_infinity=False),
    "String": st.text(max_size=9),
    "Bytes": st.binary(max_size=9),
    "Timestamp": st.datetimes(timezones=st.just(UTC)),
}
NOT_NUMBERS = st.sampled_from([math.nan, math.inf, -math.inf])
SCALARS = st.sampled_from(sorted(FIELD_TYPES)).map(FIELD_TYPES.__getitem__)
TYPES = SCALARS.map(list_of) | st.builds(vector_of, SCALARS, st.integers(1, 3)) | SCALARS


def values_of(kind: FieldType, *, finite: bool) -> st.SearchStrategy[Any]:
    single = VALUES[kind.scalar.name]
    if kind.scalar.python is float and not finite:
        single |= NOT_NUMBERS
    return single if kind.element is None else st.lists(single, min_size=kind.size or 0, max_size=kind.size or 4)


@st.composite
def rows_of_views(draw: st.DrawFn, *, finite: bool) -> tuple[ViewSpec, list[list[Any]]]:
    """A view that takes each feature from a column, and what events have in them."""
    kinds = draw(st.lists(TYPES, min_size=1, max_size=6))
    columns = [column(f"f{at}", kind, nullable=True) for at, kind in enumerate(kinds)]
    features = [feature(f"f{at}", kind, pl.col(f"T.f{at}"), nullable=True) for at, kind in enumerate(kinds)]
    made = view(topic(column("id", INT64), *columns), {"id": (INT64, pl.col("T.id"))}, *features)
    count = draw(st.integers(1, 4))
    return made, [[draw(st.none() | values_of(kind, finite=finite)) for kind in kinds] for _ in range(count)]


def in_json(value: Any) -> Any:
    """A value as who sends events writes it."""
    match value:
        case list():
            return list(map(in_json, value))
        case bytes():
            return base64.b64encode(value).decode()
        case datetime.datetime():
            return value.isoformat()
        case float() if math.isnan(value):
            return "NaN"
        case float() if math.isinf(value):
            return "Infinity" if value > 0 else "-Infinity"
    return value


def bits(value: Any) -> Any:
    """A value so that it equals itself alone: floats by their bits, NaN as one."""
    if isinstance(value, list | tuple):
        return list(map(bits, value))
    if isinstance(value, float):
        return "NaN" if math.isnan(value) else struct.pack("d", value)
    return value


def events_of(rows: Sequence[Sequence[Any]]) -> list[bytes]:
    return [
        json.dumps({"at": NOW, "id": number, **{f"f{at}": in_json(value) for at, value in enumerate(row)}}).encode()
        for number, row in enumerate(rows)
    ]


def encoded(of: ViewSpec, frame: pl.DataFrame) -> list[bytes]:
    """The bytes of each row, in the order of the ids."""
    rows, _ = ViewEncoder(of, HOUR).encode(frame, PartitionId("t", 1, 0))
    return [value for _, value in sorted(zip(rows.keys, rows.values, strict=True))]


@settings(deadline=None, max_examples=60)
@given(rows_of_views(finite=True))
def test_what_events_bring_comes_to_rest_the_same_whichever_way_it_comes(given_rows: tuple[ViewSpec, Any]) -> None:
    of, rows = given_rows
    pipeline = compile_pipeline(of.source, [of])
    batch = records(events_of(rows))
    outcome = pipeline.run(batch)
    assert outcome.rejects == ()
    frame = outcome.rows[0].frame
    stored = encoded(of, frame)
    for row, value in zip(rows, stored, strict=True):
        assert bits(list(decode(RowLayout.of(of), value).values.values())) == bits(row)

    joined = Joined([batch])
    (parts,) = joined.rows(pipeline.run(joined.records))
    (table,) = view_tables(parts, view_schema(of), "t", [0], datetime.datetime(2026, 1, 1, tzinfo=UTC))
    table.validate(full=True)
    file = ParquetEncoder()
    file.add(table)
    back = frame_of(read_table(file.finish()))
    assert back.schema == frame.schema
    assert encoded(of, back) == stored

    function = of.model_copy(update={"keys": (), "rows": _the_same})
    made = compile_pipeline(of.source, [function]).run(batch)
    assert made.rejects == ()
    assert encoded(of, made.rows[0].frame) == stored

    finals = records([value for _, value in PushEncoder(of).keys_and_values(frame)])
    pushed = PushPipeline("shop", of).run(finals)
    assert pushed.rejects == ()
    assert encoded(of, pushed.rows[0].frame.drop("_to").with_columns(_sequence=pl.lit(None, pl.Int64))) == stored


def _the_same(event: Any) -> list[dict[str, object]]:
    names = [name for name in event.__struct_fields__ if name != "at"]
    return [{name: getattr(event, name) for name in names}]


@settings(deadline=None, max_examples=60)
@given(rows_of_views(finite=False))
def test_what_is_pushed_is_read_alike_in_json_in_arrow_and_by_the_client(given_rows: tuple[ViewSpec, Any]) -> None:
    of, rows = given_rows
    encoder = PushEncoder(of)
    at = datetime.datetime(2026, 1, 1, tzinfo=UTC)
    pushed = [
        encoder.final({"id": number, "event_timestamp": at, **{f"f{n}": value for n, value in enumerate(row)}})
        for number, row in enumerate(rows)
    ]
    outcome = PushPipeline("shop", of).run(records([each.value for each in pushed]))
    assert outcome.rejects == ()
    stored, _ = ViewEncoder(of, HOUR).encode(outcome.rows[0].frame, PartitionId("t", 1, 0))
    references = [f"V:f{n}" for n in range(len(rows[0]))]
    for ids in ([*range(len(rows)), 99], [0]):
        direct = asyncio.run(_read_directly(of, stored, references, ids))
        expected = [[*(row[n] for row in rows), None] for n in range(len(rows[0]))]
        expected = [[values[number if number < 99 else -1] for number in ids] for values in expected]
        found = asyncio.run(_read(of, stored, references, ids))
        said = answers.features(v1.answer({"id": ids}, found), Asked.of(references, {"id": ids}))
        assert [bits(column.values) for column in said.columns.values()] == list(map(bits, expected))
        assert [bits(column.values) for column in direct.columns.values()] == list(map(bits, expected))
        if len(ids) == 1:
            one = answers.row(v1.answer_for_one({"id": ids}, found))
            assert [bits([value.value]) for value in one.features.values()] == list(map(bits, expected))

        names = as_json.encode(feast.names_of(found.plan, {"id": ids}, False))
        results = json.loads(feast.answer(names, {"id": ids}, found))["results"][1:]
        assert [each["values"] for each in results] == [list(map(of_feast, values)) for values in expected]

        table = pa.ipc.open_stream(arrow.answer({"id": INT64}, {"id": ids}, found)).read_all()
        table.validate(full=True)
        for kind, reference, values in zip((each.type for each in of.features), references, expected, strict=True):
            assert table.schema.field(reference).type == kind.arrow
            assert bits(table.column(reference).to_pylist()) == bits(values)
        frame = said.to_polars()
        for each, reference, values in zip(of.features, references, expected, strict=True):
            assert of_polars(frame.schema[reference]) is each.type
            assert bits(frame.get_column(reference).to_list()) == bits(values)


def of_feast(value: Any) -> Any:
    """A value as Feast's server writes it."""
    if isinstance(value, list):
        return list(map(of_feast, value))
    return (value - EPOCH) // datetime.timedelta(seconds=1) if isinstance(value, datetime.datetime) else in_json(value)


async def _read(of: ViewSpec, stored: Any, references: Sequence[str], ids: Sequence[int]) -> Found:
    catalog = Catalog(_definitions(of))
    plan = catalog.plan(references)
    return await (await _reader(stored)).read(plan, typed(plan, {"id": list(ids)}, catalog.keys))


async def _read_directly(of: ViewSpec, stored: Any, references: Sequence[str], ids: Sequence[int]) -> Features:
    """The same by a client that reads from the store."""
    reader, marks = await _reader(stored), Marks(MemoryOnlineStore(MemoryRedis()), KEYS, "test", (of,))
    source = Direct(
        _definitions(of),
        lambda: Opened(reader, NO_MODELS, marks),
        lambda: (),
        rows=100,
        values=1_000,
        retries=Retries(),
    )
    async with Client.of(source) as client:
        return await client.features(references, {"id": list(ids)})


def _definitions(of: ViewSpec) -> DefinitionsSpec:
    return DefinitionsSpec(entities=(of.entity,), topics=(), views=(of,))


async def _reader(stored: Any) -> FeatureReader:
    store = MemoryOnlineStore(MemoryRedis(clock=lambda: NOW_MS))
    await store.put(stored, await store.initialise("epoch"))
    return FeatureReader(store, KEYS, lambda: NOW_MS * 1_000)


# ---- types by their names ----


def test_a_type_is_one_object_whoever_asks_for_it() -> None:
    for kind in FIELD_TYPES.values():
        for listed in (kind, list_of(kind), vector_of(kind, 1), vector_of(kind, MAX_SIZE)):
            assert field_type(listed.name) is of_polars(listed.polars) is listed
            assert listed.scalar is kind


NO_TYPES = (
    *("", "Float", "List", "List[]", "List[Float]", "List[List[Int64]]", "[Int64]", "List[Int64]\n"),
    *("Vector[Int64]", "Vector[Int64,3]", "Vector[Int64, 0]", "Vector[Int64, 03]", "Vector[Int64, 65537]"),
    *("Vector[Int64, ٣]",),
)


@pytest.mark.parametrize("name", NO_TYPES)
def test_what_is_no_type_has_none(name: str) -> None:
    assert not is_field_type(name)
    with pytest.raises(KeyError):
        field_type(name)


def test_columns_that_no_field_has_are_of_no_type() -> None:
    for dtype in (
        pl.List(pl.Int8()),
        pl.List(pl.List(pl.Int64())),
        pl.Array(pl.Int64(), (2, 2)),
        pl.Array(pl.Int64(), 0),
    ):
        assert of_polars(dtype) is None


# ---- elements ----


@pytest.mark.parametrize("kind", [list_of(INT64), vector_of(INT64, 2)])
def test_lists_that_hold_a_null_are_found(kind: FieldType) -> None:
    lists: list[list[int | None] | None] = [[1, 2], None, [None, 3], [4, 5], [None, None]]
    assert with_null_elements(pl.Series(lists, dtype=kind.polars)) == [2, 4]
    assert with_null_elements(pl.Series(lists, dtype=kind.polars)[1:4]) == [1]
    assert with_null_elements(pl.Series(lists, dtype=kind.polars)[:2]) == []


def test_elements_are_of_their_lists_past_empty_ones() -> None:
    elements = elements_of(pl.Series([[], [1], None, [2, 3], [], [4]]))
    assert rows_of_elements(elements, [0, 2, 3]) == [1, 3, 5]


# ---- requests in a URL, and answers in Arrow ----


def test_a_list_in_a_url_is_what_a_body_would_have() -> None:
    asked = RequestSpec(
        name="Wish",
        columns=(
            RequestColumnSpec(name="taste", type=vector_of(FLOAT32, 2), nullable=False),
            RequestColumnSpec(name="times", type=list_of(TIMESTAMP), nullable=False),
        ),
    )
    features = (
        feature("taste", vector_of(FLOAT32, 2), pl.col("Wish.taste")),
        feature("times", list_of(TIMESTAMP), pl.col("Wish.times")),
    )
    same = OnDemandSpec(name="Same", version=1, inputs=(asked,), features=features)
    catalog = Catalog(DefinitionsSpec(entities=(), topics=(), views=(), requests=(asked,), on_demand=(same,)))
    plan = catalog.plan(["Same:taste", "Same:times"])
    words = {"taste": '[1.5, "NaN"]', "times": '["2026-01-01T00:00:00Z"]'}
    given = v1.entity_of(plan, catalog.keys, words)
    assert given == {"taste": [[1.5, "NaN"]], "times": [["2026-01-01T00:00:00Z"]]}
    columns = typed(plan, given, catalog.keys)
    store = MemoryOnlineStore(MemoryRedis(clock=lambda: NOW_MS))
    asyncio.run(store.initialise("epoch"))
    reader = FeatureReader(store, RedisKeys("test", "test"), lambda: NOW_MS * 1_000)
    found = asyncio.run(reader.read(plan, columns))
    table = pa.ipc.open_stream(arrow.answer(plan.columns, columns, found)).read_all()
    for name, reference in (("taste", "Same:taste"), ("times", "Same:times")):
        assert table.schema.field(name).type == table.schema.field(reference).type == plan.columns[name].arrow
        assert bits(table.column(name).to_pylist()) == bits(table.column(reference).to_pylist())
    for text, says in (("[1]", "must be Vector.*a list of exactly 2"), ("1, 2", "a list in JSON")):
        with pytest.raises(RequestError, match=says):
            v1.entity_of(plan, catalog.keys, {**words, "taste": text})
