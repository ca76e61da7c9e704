"""What a view makes of events, written down so that another process, machine or version of Polars can compare.

Values are JSON by their declared types: Bool as it is, integers as numbers, a float as C's `%a` writes it (the exact
bits, but for NaN, which is one), String as it is, Bytes in base64, a Timestamp in microseconds since the epoch, a list
or vector as a list of such.
Nothing of Polars' or Arrow's memory shows.
"""

import base64
import datetime
import functools
import hashlib
import itertools
import json
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import polars as pl

from stillwell.definitions.samples import empty_events, numbered, sample_events, whole_events
from stillwell.evaluate import root_names
from stillwell.lists import column_of_lists, elements_of
from stillwell.spec import Spec, ViewSpec
from stillwell.transform import Transformation
from stillwell.types import BYTES, FLOAT32, FLOAT64, INT64, TIMESTAMP, FieldType, field_type
from stillwell.wire import python_values

_One = bool | int | str | None
Encoded = _One | tuple[_One, ...]
"""One value as this module writes it."""

_MOST_ELEMENTS = 200_000
"""Of vectors that are recorded, some megabytes: of long ones there are fewer events, which prove less."""


class Column(Spec):
    """One column of recorded events, or one key or feature: its name and type."""

    name: str
    type: str
    nullable: bool


class Row(Spec):
    """One row that a view gave, in the order of its keys and features."""

    key: tuple[Encoded, ...]
    event_time: int
    sequence: int | None
    features: tuple[Encoded, ...]


class Outcome(Spec):
    """What one event gave a view: rows, none, or the reason for which it was refused."""

    rows: tuple[Row, ...] = ()
    refused: str | None = None


class Behaviour(Spec):
    """What a view makes of some events."""

    columns: tuple[Column, ...]
    events: tuple[tuple[Encoded, ...], ...]
    outcomes: tuple[Outcome, ...]


def observe(view: ViewSpec, golden: pl.DataFrame) -> Behaviour:
    """What a view makes of the golden and the made-up events, each once."""
    samples = sample_events(view, golden)
    events = numbered(samples.unique(samples.columns[:-2], maintain_order=True))
    sizes = [column.type.size or 1 for column in view.source.columns]
    if any(size > 1 for size in sizes):
        events = events.head(max(1, _MOST_ELEMENTS // sum(sizes)))
    columns = tuple(Column(name=each.name, type=each.type.name, nullable=each.nullable) for each in view.source.columns)
    encoded = (_encoded(each.type, events.get_column(view.source.qualified(each))) for each in view.source.columns)
    return Behaviour(columns=columns, events=tuple(zip(*encoded, strict=True)), outcomes=_outcomes(view, events))


def observe_again(view: ViewSpec, earlier: Behaviour) -> tuple[Outcome, ...]:
    """What a view makes now of the events that were recorded earlier."""
    if not earlier.events:
        return ()
    return _outcomes(view, _decoded(view, earlier))


def columns_read(view: ViewSpec) -> tuple[str, ...]:
    """The columns of its topic that a view's expressions read; all of them for a view with a function."""
    if view.function is not None:
        return tuple(column.name for column in view.source.columns)
    return columns_of(view, [*view.keys, view.where, *(feature.expression for feature in view.features)])


def columns_of(view: ViewSpec, expressions: Iterable[pl.Expr | None]) -> tuple[str, ...]:
    """The columns of its topic that some of a view's expressions read."""
    names = {view.source.qualified(column): column.name for column in view.source.columns}
    read = (name for each in expressions if each is not None for name in root_names(each))
    return tuple(dict.fromkeys(names[name] for name in read))


def shown(kind: str, value: Encoded) -> str:
    """A value of the named type, as a reader would write it."""
    of_type = field_type(kind)
    (decoded,) = python_values(of_type, _decoded_values(of_type, [value]))
    return _shown(decoded)


def _shown(value: object) -> str:
    """Of a long list its beginning."""
    if isinstance(value, list):
        more = ", …" if len(value) > _MOST_SHOWN else ""
        return f"[{', '.join(map(_shown, value[:_MOST_SHOWN]))}{more}]"
    return value.isoformat() if isinstance(value, datetime.datetime) else repr(value)


_MOST_SHOWN = 8


def canonical(value: Any) -> bytes:
    """JSON in one way of writing it: keys sorted, no spaces, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def sha256(value: Any) -> str:
    """The SHA-256 of a value's canonical JSON, in hex."""
    return hashlib.sha256(canonical(value)).hexdigest()


def _outcomes(view: ViewSpec, events: pl.DataFrame) -> tuple[Outcome, ...]:
    transformed = Transformation(view, empty_events(view.source)).run(events)
    rows: list[list[Row]] = [[] for _ in range(events.height)]
    for offset, row in zip(transformed.frame.get_column("_offset"), _rows(view, transformed.frame), strict=True):
        rows[offset].append(row)
    refused = {reject.offset: reject.reason for reject in transformed.rejects}
    return tuple(Outcome(rows=tuple(rows[offset]), refused=refused.get(offset)) for offset in range(events.height))


def _rows(view: ViewSpec, frame: pl.DataFrame) -> Iterator[Row]:
    keys = [_encoded(key.type, frame.get_column(key.name)) for key in view.entity.keys]
    features = [_encoded(feature.type, frame.get_column(feature.name)) for feature in view.features]
    times = _encoded(TIMESTAMP, frame.get_column("event_timestamp"))
    sequences = _encoded(INT64, frame.get_column("_sequence"))
    for place, (event_time, sequence) in enumerate(zip(times, sequences, strict=True)):
        yield Row(
            key=tuple(values[place] for values in keys),
            event_time=event_time,
            sequence=sequence,
            features=tuple(values[place] for values in features),
        )


def _encoded(kind: FieldType, values: pl.Series) -> list[Any]:
    if kind.element is not None:
        flat, lengths = elements_of(values)
        elements = iter(_encoded(kind.element, flat))
        there = zip(values.is_null(), lengths.tolist(), strict=True)
        return [None if null else tuple(itertools.islice(elements, length)) for null, length in there]
    if kind is TIMESTAMP:
        return values.to_physical().to_list()
    if kind in (FLOAT32, FLOAT64):
        return [None if value is None else "nan" if math.isnan(value) else value.hex() for value in values]
    if kind is BYTES:
        return [None if value is None else base64.b64encode(value).decode() for value in values]
    return values.to_list()


def _decoded_values(kind: FieldType, values: Sequence[Any]) -> pl.Series:
    if kind.element is not None:
        return column_of_lists(kind, values, functools.partial(_decoded_values, kind.element))
    if kind is TIMESTAMP:
        return pl.Series(values, dtype=pl.Int64()).cast(TIMESTAMP.polars)
    if kind in (FLOAT32, FLOAT64):
        values = [None if value is None else float.fromhex(value) for value in values]
    if kind is BYTES:
        values = [None if value is None else base64.b64decode(value) for value in values]
    return pl.Series(values, dtype=kind.polars)


def _decoded(view: ViewSpec, earlier: Behaviour) -> pl.DataFrame:
    """Recorded events as a frame of the topic as it is now; what it has gained since is null, or one and the same."""
    recorded = {
        each.name: _decoded_values(field_type(each.type), values)
        for each, values in zip(earlier.columns, zip(*earlier.events, strict=True), strict=True)
    }
    made_up = whole_events(view, empty_events(view.source))[[0] * len(earlier.events)]
    series = []
    for each in view.source.columns:
        name = view.source.qualified(each)
        if each.name in recorded:
            values = recorded[each.name].cast(each.type.polars, strict=False)
        elif each.nullable:
            values = pl.repeat(None, len(earlier.events), dtype=each.type.polars, eager=True)
        else:
            values = made_up.get_column(name)
        series.append(values.alias(name))
    return numbered(pl.DataFrame(series))
