"""The columns of Parquet files: a dataset for each view, and one for each topic's records as they came.

A view's file:  <key> …  event_timestamp  <feature> …  _sequence  _offset  _timestamp  _row  _op  _version  _topic
                _partition  _ingested_at
… of pushed rows: the same, with _to behind _row
A raw file:     value  key  headers  _offset  _timestamp  _topic  _partition  _ingested_at

Names that begin with an underscore are Stillwell's; a definition cannot use them. With the incarnation, which is in the
file's name and in its link, they hold all that a row's stamp is made of, so that Redis can be rebuilt from the files to
the same bytes.
"""

import dataclasses
import datetime
import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stillwell.instants import instant_us
from stillwell.joined import JoinedRows
from stillwell.records import Records
from stillwell.spec import ViewSpec

TO = "_to"
TO_TYPE = pl.Enum(["online", "offline", "online_and_offline"])
"""In frames; where a pushed row goes."""
OFFLINE = "offline"

UPSERT = "upsert"
EVENT_TIMESTAMP = "event_timestamp"

_INSTANT = pa.timestamp("us", "UTC")
TO_FIELD = pa.field(TO, pa.dictionary(pa.int8(), pa.string()), nullable=False)
_TAIL = (
    pa.field("_op", pa.dictionary(pa.int8(), pa.string()), nullable=False),
    pa.field("_version", pa.uint16(), nullable=False),
    pa.field("_topic", pa.dictionary(pa.int8(), pa.string()), nullable=False),
    pa.field("_partition", pa.uint32(), nullable=False),
    pa.field("_ingested_at", _INSTANT, nullable=False),
)

RAW_SCHEMA = pa.schema(
    [
        pa.field("value", pa.large_binary()),
        pa.field("key", pa.binary()),
        pa.field(
            "headers", pa.list_(pa.struct([pa.field("name", pa.string(), nullable=False), ("value", pa.binary())]))
        ),
        pa.field("_offset", pa.int64(), nullable=False),
        pa.field("_timestamp", pa.int64(), nullable=False),
        *_TAIL[2:],
    ]
)


def view_schema(view: ViewSpec, *, pushed: bool = False) -> pa.Schema:
    """The columns of a view's files, in order. pushed: of those of its push topic."""
    return pa.schema(
        [
            *(pa.field(key.name, key.type.arrow, nullable=False) for key in view.entity.keys),
            pa.field(EVENT_TIMESTAMP, _INSTANT, nullable=False),
            *(pa.field(feature.name, feature.type.arrow, nullable=feature.nullable) for feature in view.features),
            pa.field("_sequence", pa.int64()),
            pa.field("_offset", pa.int64(), nullable=False),
            pa.field("_timestamp", pa.int64(), nullable=False),
            pa.field("_row", pa.uint32(), nullable=False),
            *([TO_FIELD] if pushed else []),
            *_TAIL,
        ]
    )


def view_tables(
    rows: JoinedRows, schema: pa.Schema, topic: str, partitions: Sequence[int], at: datetime.datetime
) -> list[pa.Table]:
    """Each batch's rows as a table of `view_schema`; partitions: which one each batch is of; at: when they were taken
    in."""
    count = rows.frame.height
    arrow = rows.frame.to_arrow()
    columns = [_as_field(arrow.column(name), field) for name, field in zip(arrow.column_names, schema, strict=False)]
    version = _repeated(rows.version, count, pa.uint16())
    partition = np.repeat(np.array(partitions, np.uint32), np.diff(rows.cuts))
    table = pa.Table.from_arrays(
        [*columns, _constant(UPSERT, count), version, *_where_from(topic, partition, at)], schema=schema
    )
    if len(partitions) == 1:
        return [table]
    # Copies: one partition's rows wait for their file for minutes, and must not hold those of all the others.
    return [table.take(np.arange(begin, end)) for begin, end in itertools.pairwise(rows.cuts)]


def raw_table(records: Records, at: datetime.datetime) -> pa.Table:
    """A batch of records as they came."""
    count = len(records)
    return pa.Table.from_arrays(
        [
            _values(records.values),
            pa.array(records.keys, pa.binary()),
            _headers(records),
            pa.array(records.offsets),
            pa.array(records.timestamps),
            *_where_from(records.topic, np.full(count, records.partition, np.uint32), at),
        ],
        schema=RAW_SCHEMA,
    )


def frame_of(table: pa.Table) -> pl.DataFrame:
    """Back from a view's file to the frame that it was made of (see `ViewRows.frame`), for writing it to Redis anew."""
    kept = [name for name in table.column_names if name not in {field.name for field in _TAIL}]
    frame = pl.from_arrow(table.select(kept))
    assert isinstance(frame, pl.DataFrame)  # a table gives a frame, a single array would give a series
    return frame


@dataclasses.dataclass(frozen=True, slots=True)
class ViewTable:
    """The rows of one batch in one version of a view, and the account of its records (see `ViewRows`).

    offline_only: how many of the rows were pushed for the offline store alone.
    """

    view: str
    version: int
    table: pa.Table
    offsets_with_rows: int
    filtered: int
    rejected: int
    offline_only: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class BatchTables:
    """One batch as it goes to rest: the offsets [start, end), its records as they came, its rows view by view.

    nbytes: memory that the tables take.
    """

    start: int
    end: int
    raw: pa.Table
    views: tuple[ViewTable, ...]
    nbytes: int


def batch_tables(
    batches: Sequence[Records], rows: Sequence[JoinedRows], schemas: Sequence[pa.Schema], at: datetime.datetime
) -> list[BatchTables]:
    """Each batch's tables.

    rows: what the pipeline's views got of the batches, joined; schemas: those of the views, in the same order; at: when
    the batches were taken in.
    """
    partitions = [records.partition for records in batches]
    of_views = [
        _view_tables(joined, view_tables(joined, schema, batches[0].topic, partitions, at))
        for joined, schema in zip(rows, schemas, strict=True)
    ]
    return [
        _batch_tables(records, raw_table(records, at), tuple(views[number] for views in of_views))
        for number, records in enumerate(batches)
    ]


def memory_of(table: pa.Table) -> int:
    """Bytes of a table that was made as a whole. Its own `nbytes` also tells those of a slice, and takes 50 µs."""
    return int(table.get_total_buffer_size())


def read_table(data: bytes) -> pa.Table:
    """All rows of a file's bytes. Raises pyarrow.ArrowInvalid for bytes that are no Parquet file."""
    return pq.read_table(pa.BufferReader(data))


def event_time_range(table: pa.Table) -> tuple[int, int]:
    """The least and the greatest event time of a table that has rows, in microseconds since the epoch."""
    times = table.column(EVENT_TIMESTAMP).cast(pa.int64()).to_numpy()
    return int(times.min()), int(times.max())


def _view_tables(joined: JoinedRows, tables: Sequence[pa.Table]) -> list[ViewTable]:
    accounts = zip(joined.offsets_with_rows.tolist(), joined.filtered.tolist(), joined.rejected.tolist(), strict=True)
    return [
        ViewTable(joined.view, joined.version, table, *account, _offline_only(table))
        for table, account in zip(tables, accounts, strict=True)
    ]


def _offline_only(table: pa.Table) -> int:
    if TO not in table.column_names:
        return 0
    return int(pc.sum(pc.equal(table.column(TO), OFFLINE)).as_py() or 0)


def _batch_tables(records: Records, raw: pa.Table, views: tuple[ViewTable, ...]) -> BatchTables:
    nbytes = memory_of(raw) + sum(memory_of(view.table) for view in views)
    return BatchTables(start=records.start, end=records.end, raw=raw, views=views, nbytes=nbytes)


def _as_field(column: pa.ChunkedArray, field: pa.Field) -> pa.ChunkedArray:
    # Polars hands strings over in its own view layout, and numbers categories by a width of its own.
    return column if column.type == field.type else column.cast(field.type)


def _values(values: Sequence[bytes | None]) -> pa.Array:
    # An array from Python objects grows as they come, and is copied each time: a tenth of the time of a batch.
    lengths = np.fromiter((len(value) if value else 0 for value in values), np.int64, len(values))
    offsets = np.zeros(len(values) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    content = pa.py_buffer(b"".join(filter(None, values)))
    there = pa.array([value is not None for value in values]) if None in values else None
    validity = there.buffers()[1] if there is not None else None
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(values), [validity, pa.py_buffer(offsets), content])


def _headers(records: Records) -> pa.Array:
    field = RAW_SCHEMA.field("headers").type
    if not any(records.headers):
        return pa.nulls(len(records), field)
    return pa.array(
        [[{"name": name, "value": value} for name, value in headers] or None for headers in records.headers], field
    )


def _where_from(topic: str, partitions: npt.NDArray[np.uint32], at: datetime.datetime) -> list[pa.Array]:
    count, instant = len(partitions), instant_us(at)
    return [
        _constant(topic, count),
        pa.array(partitions),
        pa.array(np.full(count, instant, np.int64)).cast(_INSTANT),
    ]


def _constant(text: str, count: int) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(np.zeros(count, np.int8), [text])


def _repeated(number: int, count: int, kind: pa.DataType) -> pa.Array:
    return pa.array(np.full(count, number, kind.to_pandas_dtype()))
