"""Microseconds a record costs in the pipeline, by batch size: `python tests/benchmarks/pipeline_timing.py`.

JSON events of 12 fields, one view of 10 features, no disorder; the best of several runs, since the machine may be
shared. Conflation is timed apart, over 20,000 keys.
"""

import datetime
import functools
import json
import random
import time
from collections.abc import Callable

import numpy as np
import polars as pl

from stillwell.pipeline import compile_pipeline
from stillwell.records import Records
from stillwell.row import newest
from stillwell.spec import ColumnSpec, EntitySpec, FeatureSpec, KeySpec, TopicSpec, ViewSpec
from stillwell.types import FLOAT32, FLOAT64, INT64, STRING, TIMESTAMP, FieldType

KEYS = 20_000
BATCH_SIZES = (1, 50, 500, 5_000)


def topic() -> TopicSpec:
    def column(name: str, kind: FieldType, **more: object) -> ColumnSpec:
        return ColumnSpec(name=name, type=kind, nullable=False, path=(name,), **more)  # type: ignore[arg-type]

    return TopicSpec(
        name="Ride",
        topic="rides",
        event_time="at",
        columns=(
            column("rider", INT64),
            column("at", TIMESTAMP, unit="ms"),
            *(column(f"f{number}", FLOAT64) for number in range(8)),
            column("count", INT64),
            column("city", STRING),
        ),
    )


def view() -> ViewSpec:
    def feature(name: str, kind: FieldType, expression: pl.Expr) -> FeatureSpec:
        return FeatureSpec(name=name, type=kind, nullable=False, expression=expression)

    return ViewSpec(
        name="RiderNow",
        version=1,
        entity=EntitySpec(name="Rider", keys=(KeySpec(name="rider", type=INT64),)),
        source=topic(),
        ttl=datetime.timedelta(days=1),
        keys=(pl.col("Ride.rider"),),
        features=(
            *(feature(f"g{number}", FLOAT32, pl.col(f"Ride.f{number}") * 2) for number in range(8)),
            feature("busy", INT64, pl.col("Ride.count").clip(0, 100)),
            feature("city", STRING, pl.col("Ride.city")),
        ),
    )


def batch(size: int) -> Records:
    chance = random.Random(1)
    now = 1_767_000_000_000
    events = [
        {"rider": chance.randrange(KEYS), "at": now + number}
        | {f"f{field}": chance.random() for field in range(8)}
        | {"count": chance.randrange(1000), "city": f"city {chance.randrange(100)}"}
        for number in range(size)
    ]
    return Records(
        topic="rides",
        partition=0,
        start=0,
        end=size,
        offsets=np.arange(size, dtype=np.int64),
        timestamps=np.arange(now, now + size, dtype=np.int64),
        keys=[None] * size,
        values=[json.dumps(event).encode() for event in events],
        headers=[()] * size,
    )


def best_of(work: Callable[[], object], seconds: float = 1.0) -> float:
    """The shortest of the runs that fit into the time, in seconds."""
    shortest, end = float("inf"), time.perf_counter() + seconds
    while (started := time.perf_counter()) < end:
        work()
        shortest = min(shortest, time.perf_counter() - started)
    return shortest


def main() -> None:
    pipeline = compile_pipeline(topic(), (view(),))
    for size in BATCH_SIZES:
        records = batch(size)
        spent = best_of(functools.partial(pipeline.run, records))
        frame = pipeline.run(records).rows[0].frame
        assert frame.height == size
        conflated = best_of(functools.partial(newest, frame, ["rider"]))
        print(
            f"{size:>5} records: run {spent * 1e6:7.0f} µs, {spent / size * 1e6:7.3f} µs a record; "
            f"newest {conflated * 1e6:6.0f} µs, {conflated / size * 1e6:7.3f} µs a row"
        )


if __name__ == "__main__":
    main()
