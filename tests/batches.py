"""Topics, views and batches of records made by hand, for tests of what is done to them."""

import datetime
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from stillwell.joined import Joined
from stillwell.layout.parquet import BatchTables, batch_tables, view_schema
from stillwell.pipeline import Pipeline
from stillwell.pushing.pipeline import PushPipeline
from stillwell.records import Headers, Outcome, Records
from stillwell.spec import (
    ColumnSpec,
    EntitySpec,
    FeatureSpec,
    FrameFunction,
    KeySpec,
    Origin,
    RowsFunction,
    TopicSpec,
    ViewSpec,
)
from stillwell.types import TIMESTAMP, FieldType

NOW_MS = 1_767_225_600_000
NOW = "2026-01-01T00:00:00Z"
"""The timestamp of every record, unless a test says otherwise."""

AT = ColumnSpec(name="at", type=TIMESTAMP, nullable=False, path=("at",))


def column(name: str, kind: FieldType, *, nullable: bool = False, **more: Any) -> ColumnSpec:
    """A column that is read from the value's field of its name, unless told otherwise."""
    in_value = more.get("origin", Origin.VALUE) is Origin.VALUE
    return ColumnSpec(name=name, type=kind, nullable=nullable, **{"path": (name,) if in_value else (), **more})


def topic(*columns: ColumnSpec, sequence: str | None = None) -> TopicSpec:
    """A topic named `T` of these columns, and the event time `at`."""
    return TopicSpec(name="T", topic="t", columns=(AT, *columns), event_time="at", sequence=sequence)


def feature(name: str, kind: FieldType, expression: pl.Expr | None, *, nullable: bool = False) -> FeatureSpec:
    """A feature, by expression or, in a view with a function, without."""
    return FeatureSpec(name=name, type=kind, nullable=nullable, expression=expression)


def view(
    source: TopicSpec,
    keys: Mapping[str, tuple[FieldType, pl.Expr | None]],
    *features: FeatureSpec,
    name: str = "V",
    where: pl.Expr | None = None,
    rows: RowsFunction | None = None,
    frame: FrameFunction | None = None,
) -> ViewSpec:
    """A view of the entity that these keys make."""
    entity = EntitySpec(name="E", keys=tuple(KeySpec(name=key, type=kind) for key, (kind, _) in keys.items()))
    return ViewSpec(
        name=name,
        version=1,
        entity=entity,
        source=source,
        ttl=datetime.timedelta(0),
        features=features,
        keys=tuple(expression for _, expression in keys.values() if expression is not None),
        where=where,
        rows=rows,
        frame=frame,
    )


def records(
    values: Sequence[bytes | None],
    *,
    keys: Sequence[bytes | None] | None = None,
    headers: Sequence[Headers] | None = None,
    timestamps: Sequence[int] | None = None,
    start: int = 100,
) -> Records:
    """A batch of the partition 0 of `t`, from an offset on."""
    count = len(values)
    return Records(
        topic="t",
        partition=0,
        start=start,
        end=start + count,
        offsets=np.arange(start, start + count, dtype=np.int64),
        timestamps=np.array([NOW_MS] * count if timestamps is None else timestamps, dtype=np.int64),
        keys=[None] * count if keys is None else keys,
        values=values,
        headers=[()] * count if headers is None else headers,
    )


def take(batch: Records, positions: Sequence[int]) -> Records:
    """The records at these positions, in this order, each with all that belongs to it."""
    return Records(
        topic=batch.topic,
        partition=batch.partition,
        start=batch.start,
        end=batch.end,
        offsets=batch.offsets[list(positions)],
        timestamps=batch.timestamps[list(positions)],
        keys=[batch.keys[position] for position in positions],
        values=[batch.values[position] for position in positions],
        headers=[batch.headers[position] for position in positions],
    )


def event(**fields: object) -> bytes:
    """The JSON of an event at the time of its record, with these fields."""
    return json.dumps({"at": NOW, **fields}).encode()


def tables(pipeline: Pipeline | PushPipeline, batch: Records, at: datetime.datetime) -> BatchTables:
    """What a batch is at rest, as a worker makes it."""
    joined = Joined([batch])
    rows = list(joined.rows(pipeline.run(joined.records)))
    (made,) = batch_tables(
        [batch], rows, [view_schema(view, pushed=isinstance(pipeline, PushPipeline)) for view in pipeline.views], at
    )
    return made


def reasons(outcome: Outcome) -> list[tuple[int, str | None, str]]:
    """Each reject without its sentence."""
    return [(reject.offset, reject.view, reject.reason) for reject in outcome.rejects]
