"""What lies in Parquet files is what was computed, to the bit, however it was cut, in the columns of its page."""

import datetime
import struct

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sinks import parquet
from sinks.parquet import ParquetEncoder
from stillwell.joined import Joined, JoinedRows
from stillwell.layout.parquet import (
    RAW_SCHEMA,
    batch_tables,
    event_time_range,
    frame_of,
    memory_of,
    raw_table,
    read_table,
    view_schema,
    view_tables,
)
from stillwell.pipeline import compile_pipeline
from stillwell.records import Headers, Records
from stillwell.types import FIELD_TYPES, FLOAT64, INT64, STRING, FieldType, list_of, vector_of
from stillwell.wire import column as column_of
from tests import batches

UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A busy machine is no failure."""

AT = datetime.datetime(2026, 3, 1, 12, 0, 0, 123_457, tzinfo=datetime.UTC)
KEY_TYPES = [kind for kind in FIELD_TYPES.values() if kind.key_tag]
SOURCE = batches.topic()

TYPES = [
    *FIELD_TYPES.values(),
    *map(list_of, FIELD_TYPES.values()),
    *(vector_of(kind, 2) for kind in FIELD_TYPES.values()),
]

EVERY_TYPE = batches.view(
    SOURCE,
    {f"key_{kind.name}": (kind, None) for kind in KEY_TYPES},
    *(batches.feature(f"sure_{kind.name}", kind, None) for kind in TYPES),
    *(batches.feature(f"maybe_{kind.name}", kind, None, nullable=True) for kind in TYPES),
    rows=lambda event: [],
)
"""A view with every type: as key where it can be one, as feature, and as feature that may be null."""

# ---- any rows ----

int64s = st.integers(-(2**63), 2**63 - 1)
VALUES: dict[str, st.SearchStrategy[object]] = {
    "Bool": st.booleans(),
    "Int32": st.integers(-(2**31), 2**31 - 1),
    "Int64": int64s,
    "Float32": st.floats(width=32),
    "Float64": st.floats(),
    "String": st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    "Bytes": st.binary(max_size=8),
    "Timestamp": st.datetimes(timezones=st.just(datetime.UTC)),
}


def values_of(kind: FieldType) -> st.SearchStrategy[object]:
    """Of a single value, or lists of them."""
    if kind.element is None:
        return VALUES[kind.name]
    return st.lists(VALUES[kind.element.name], min_size=kind.size or 0, max_size=kind.size or 2)


def columns_of_every_type() -> dict[str, FieldType]:
    """The frame's columns for `EVERY_TYPE`, but for its tail."""
    return {
        **{f"key_{kind.name}": kind for kind in KEY_TYPES},
        "event_timestamp": FIELD_TYPES["Timestamp"],
        **{f"{form}_{kind.name}": kind for form in ("sure", "maybe") for kind in TYPES},
    }


@st.composite
def frames(draw: st.DrawFn) -> pl.DataFrame:
    """Rows of `EVERY_TYPE` as a pipeline gives them."""
    height = draw(st.integers(0, 4))

    def column(values: st.SearchStrategy[object]) -> list[object]:
        return draw(st.lists(values, min_size=height, max_size=height))

    series = [
        column_of(kind, column(st.none() | values_of(kind) if name.startswith("maybe") else values_of(kind))).alias(
            name
        )
        for name, kind in columns_of_every_type().items()
    ]
    tail = [
        pl.Series("_sequence", column(st.none() | int64s), pl.Int64),
        pl.Series("_offset", column(st.integers(0, 2**63 - 1)), pl.Int64),
        pl.Series("_timestamp", column(int64s), pl.Int64),
        pl.Series("_row", column(st.integers(0, 2**32 - 1)), pl.UInt32),
    ]
    return pl.DataFrame([*series, *tail])


def table_of(frame: pl.DataFrame, version: int = 1, partition: int = 0) -> pa.Table:
    """One batch's rows in the view `EVERY_TYPE`."""
    none = np.zeros(1, np.int64)
    rows = JoinedRows("V", version, frame, np.array([0, frame.height]), none, none, none)
    (table,) = view_tables(rows, view_schema(EVERY_TYPE), "t", [partition], AT)
    return table


def in_a_file(*tables: pa.Table) -> bytes:
    """The bytes of a file of these tables."""
    encoder = ParquetEncoder()
    for table in tables:
        encoder.add(table)
    return encoder.finish()


def bits(frame: pl.DataFrame) -> list[tuple[object, ...]]:
    """Rows whose floats are compared by their bits, so that NaN is itself and minus zero is not zero."""
    return [tuple(map(bits_of, row)) for row in frame.rows()]


def bits_of(value: object) -> object:
    """One value, or the elements of a list."""
    if isinstance(value, list):
        return list(map(bits_of, value))
    return struct.pack(">d", value) if isinstance(value, float) else value


@UNHURRIED
@given(frame=frames(), version=st.integers(0, 2**16 - 1), partition=st.integers(0, 2**32 - 1))
def test_rows_come_back_from_a_file_to_the_bit(frame: pl.DataFrame, version: int, partition: int) -> None:
    """Redis is rebuilt from them, and must end in the same bytes."""
    schema = view_schema(EVERY_TYPE)
    table = table_of(frame, version, partition)
    assert table.schema == schema
    table.validate(full=True)
    if not frame.height:
        return
    read = read_table(in_a_file(table))
    assert read.schema.equals(schema)
    back = frame_of(read)
    assert back.schema == frame.schema
    assert bits(back) == bits(frame)
    constants = read.select(["_op", "_version", "_topic", "_partition", "_ingested_at"]).to_pylist()
    assert constants == [
        {"_op": "upsert", "_version": version, "_topic": "t", "_partition": partition, "_ingested_at": AT}
    ] * len(frame)


headers = st.lists(st.tuples(st.text(max_size=5), st.none() | st.binary(max_size=5)), max_size=3).map(tuple)
anything = st.none() | st.binary(max_size=10)


@UNHURRIED
@given(
    contents=st.lists(st.tuples(anything, anything, headers, st.integers(-1, 2**50)), min_size=1, max_size=5),
    start=st.integers(0, 2**62),
)
def test_records_come_back_from_the_raw_archive_as_they_came(
    contents: list[tuple[bytes | None, bytes | None, Headers, int]], start: int
) -> None:
    """A feature invented tomorrow may need any of it: null and empty are two things, and headers repeat."""
    values, keys, own_headers, timestamps = zip(*contents, strict=True)
    batch = batches.records(values, keys=keys, headers=own_headers, timestamps=timestamps, start=start)
    read = read_table(in_a_file(raw_table(batch, AT)))
    assert read.schema.equals(RAW_SCHEMA)
    assert read.column("value").to_pylist() == list(values)
    assert read.column("key").to_pylist() == list(keys)
    found = read.column("headers").to_pylist()
    assert found == [[{"name": name, "value": value} for name, value in own] or None for own in own_headers]
    assert read.column("_offset").to_pylist() == list(range(start, start + len(contents)))
    assert read.column("_timestamp").to_pylist() == list(timestamps)
    assert read.column("_ingested_at").to_pylist() == [AT] * len(contents)


def test_the_raw_archive_takes_the_largest_record_that_a_broker_does() -> None:
    value = bytes(16 << 20)
    read = read_table(in_a_file(raw_table(batches.records([value, b"x"]), AT)))
    assert read.column("value").to_pylist() == [value, b"x"]


# ---- the columns of the page ----


def test_a_views_file_has_the_columns_of_its_page() -> None:
    flights = batches.view(
        SOURCE,
        {"airport": (STRING, None)},
        batches.feature("delay", FLOAT64, None, nullable=True),
        batches.feature("flights", INT64, None),
        rows=lambda event: [],
    )
    assert [f"{field.name}: {field.type}{'' if field.nullable else '!'}" for field in view_schema(flights)] == [
        "airport: string!",
        "event_timestamp: timestamp[us, tz=UTC]!",
        "delay: double",
        "flights: int64!",
        "_sequence: int64",
        "_offset: int64!",
        "_timestamp: int64!",
        "_row: uint32!",
        "_op: dictionary<values=string, indices=int8, ordered=0>!",
        "_version: uint16!",
        "_topic: dictionary<values=string, indices=int8, ordered=0>!",
        "_partition: uint32!",
        "_ingested_at: timestamp[us, tz=UTC]!",
    ]


def logical_types(data: bytes) -> dict[str, str]:
    """What a reader without Arrow sees: physical type and annotation of each leaf column."""
    schema = pq.ParquetFile(pa.BufferReader(data)).schema
    leaves = (schema.column(index) for index in range(len(schema)))
    return {leaf.path: f"{leaf.physical_type} {leaf.logical_type}" for leaf in leaves}


ONE: dict[str, object] = {
    **dict.fromkeys(("Int32", "Int64"), 0),
    **dict.fromkeys(("Float32", "Float64"), 0.0),
    "Bool": False,
    "String": "x",
    "Bytes": b"x",
    "Timestamp": AT,
}


def test_types_in_the_file_are_parquets_own() -> None:
    """Readers in other languages know nothing of Arrow."""
    every = pl.DataFrame(
        [
            column_of(kind, [one if kind.element is None else [one] * (kind.size or 1)]).alias(name)
            for name, kind in columns_of_every_type().items()
            for one in [ONE[kind.scalar.name]]
        ]
        + [pl.Series(name, [0], pl.Int64) for name in ("_sequence", "_offset", "_timestamp")]
        + [pl.Series("_row", [0], pl.UInt32)]
    )
    found = logical_types(in_a_file(table_of(every)))
    instant = "INT64 Timestamp(isAdjustedToUTC=true, timeUnit=microseconds, is_from_converted_type=false, " \
        "force_set_converted_type=false)"  # fmt: skip
    assert {name: found[f"sure_{name}"] for name in FIELD_TYPES} == {
        "Bool": "BOOLEAN None",
        "Int32": "INT32 None",
        "Int64": "INT64 None",
        "Float32": "FLOAT None",
        "Float64": "DOUBLE None",
        "String": "BYTE_ARRAY String",
        "Bytes": "BYTE_ARRAY None",
        "Timestamp": instant,
    }
    for name in FIELD_TYPES:
        for listed in (f"List[{name}]", f"Vector[{name}, 2]"):
            assert found[f"sure_{listed}.list.element"] == found[f"sure_{name}"]
    assert {name: found[name] for name in found if name.startswith("_")} == {
        "_sequence": "INT64 None",
        "_offset": "INT64 None",
        "_timestamp": "INT64 None",
        "_row": "INT32 Int(bitWidth=32, isSigned=false)",
        "_op": "BYTE_ARRAY String",
        "_version": "INT32 Int(bitWidth=16, isSigned=false)",
        "_topic": "BYTE_ARRAY String",
        "_partition": "INT32 Int(bitWidth=32, isSigned=false)",
        "_ingested_at": instant,
    }
    raw = logical_types(in_a_file(raw_table(batches.records([b"x"], headers=[(("a", b"b"),)]), AT)))
    assert list(raw.items())[:4] == [
        ("value", "BYTE_ARRAY None"),
        ("key", "BYTE_ARRAY None"),
        ("headers.list.element.name", "BYTE_ARRAY String"),
        ("headers.list.element.value", "BYTE_ARRAY None"),
    ]


# ---- batches ----


def test_a_batch_gives_its_records_and_the_rows_of_each_view() -> None:
    """With the account of each: rows, filtered, rejected."""
    amount = batches.column("amount", INT64)
    source = batches.topic(amount)
    keys = {"id": (INT64, pl.col("T.amount"))}
    positive = batches.view(source, keys, name="Positive", where=pl.col("T.amount") > 0)
    every = batches.view(source, keys, batches.feature("amount", INT64, pl.col("T.amount")), name="Every")
    pipeline = compile_pipeline(source, [positive, every])
    values = [batches.event(amount=1), batches.event(amount=-1), b"no JSON"]
    tables = batches.tables(pipeline, batches.records(values), AT)
    assert (tables.start, tables.end) == (100, 103)
    assert tables.raw.column("value").to_pylist() == values
    accounts = [(view.view, view.offsets_with_rows, view.filtered, view.rejected) for view in tables.views]
    assert accounts == [("Positive", 1, 1, 1), ("Every", 2, 0, 1)]
    assert [view.table.column("_offset").to_pylist() for view in tables.views] == [[100], [100, 101]]
    assert tables.nbytes == memory_of(tables.raw) + sum(memory_of(view.table) for view in tables.views)
    of_columns = tables.raw.nbytes + sum(view.table.nbytes for view in tables.views)
    assert tables.nbytes == pytest.approx(of_columns, rel=0.1)
    joined = Joined([batches.records(values)])
    rows = list(joined.rows(pipeline.run(joined.records)))
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        batch_tables(joined.batches, rows, [view_schema(positive)], AT)


@UNHURRIED
@given(times=st.lists(VALUES["Timestamp"], min_size=1, max_size=5))
def test_event_times_span_from_the_least_to_the_greatest(times: list[datetime.datetime]) -> None:
    table = pa.table({"event_timestamp": pa.array(times, pa.timestamp("us", "UTC"))})
    epoch = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    microseconds = [(time - epoch) // datetime.timedelta(microseconds=1) for time in times]
    assert event_time_range(table) == (min(microseconds), max(microseconds))


@UNHURRIED
@given(at=VALUES["Timestamp"])
def test_the_moment_of_taking_in_is_kept_to_the_microsecond(at: datetime.datetime) -> None:
    table = raw_table(batches.records([b"x"]), at)
    assert table.column("_ingested_at").to_pylist() == [at]


# ---- files ----


def numbered(first: int, count: int, width: int = 8) -> pa.Table:
    """Raw records with consecutive offsets and values that do not compress."""
    rng = np.random.default_rng(first)
    offsets = np.arange(first, first + count, dtype=np.int64)
    batch = Records(
        topic="t", partition=0, start=first, end=first + count, offsets=offsets, timestamps=offsets,
        keys=[None] * count, values=[rng.bytes(width) for _ in range(count)], headers=[()] * count,
    )  # fmt: skip
    return raw_table(batch, AT)


@UNHURRIED
@given(sizes=st.lists(st.integers(1, 20), min_size=1, max_size=40), group=st.integers(1, 5_000))
def test_a_file_holds_all_rows_in_order_however_they_came(sizes: list[int], group: int) -> None:
    """Many tables are merged on the way, and groups are written on the way."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet, "ROW_GROUP_BYTES", group)
        encoder = ParquetEncoder()
        tables = []
        for size in sizes:
            tables.append(numbered(encoder.rows, size))
            encoder.add(tables[-1])
        assert encoder.rows == sum(sizes)
        assert read_table(encoder.finish()).equals(pa.concat_tables(tables))


def test_a_thousand_small_tables_come_out_in_order() -> None:
    """They are merged by sixteens, and those by sixteens again."""
    encoder = ParquetEncoder()
    for number in range(1_000):
        encoder.add(numbered(number, 1))
    read = read_table(encoder.finish())
    assert read.column("_offset").to_pylist() == list(range(1_000))


def test_row_groups_are_written_when_they_are_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a long window costs the memory of its compressed bytes, and a reader can skip by statistics."""
    monkeypatch.setattr(parquet, "ROW_GROUP_BYTES", 100_000)
    encoder = ParquetEncoder()
    most = 0
    for number in range(100):
        encoder.add(numbered(number * 100, 100, width=100))
        compressed = encoder._output.tell() if encoder._writer else 0
        most = max(most, encoder.nbytes - compressed)
    assert most < 100_000
    data = encoder.finish()
    assert encoder.nbytes == len(data)
    metadata = pq.ParquetFile(pa.BufferReader(data)).metadata
    assert metadata.num_row_groups > 5
    offset = RAW_SCHEMA.names.index("_offset") + 1  # headers are two columns of the file
    column = metadata.row_group(1).column(offset)
    assert column.path_in_schema == "_offset"
    assert column.compression == "ZSTD"
    assert column.statistics.min > 0


def test_a_file_without_rows_is_not_written() -> None:
    with pytest.raises(ValueError, match="leave it out of the link"):
        ParquetEncoder().finish()


def test_other_bytes_are_no_file() -> None:
    for data in (b"", b"PAR1", in_a_file(numbered(0, 1))[:-1]):
        with pytest.raises(pa.ArrowInvalid):
            read_table(data)
