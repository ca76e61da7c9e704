"""The records of push topics: `<project>.push.<view>`, one topic for each view.

The value is one JSON object. Headers (UTF-8 text) say what it is:

    transform_on_write   `true`: a raw event, the columns of the view's topic by their names, for this view to
                         transform; absent or `false`: a final row, with every key, `event_timestamp`, the features,
                         and `_sequence` where there is one
    to                   `online`, `offline` or `online_and_offline`, which is meant where it is absent
    version              which version of the view computed a final row, or which one a raw event was written for; a
                         worker of another version leaves out what that has more than its own
    raw                  of a final row: the raw event that it was computed from, for a worker of another version
    idempotency_key      kept, and of no meaning here

Other headers are of no meaning either. Of several of one name the last one counts, and one without a value is absent.
Both forms are ordinary topics to the decoder, closed ones: a field that no column reads is refused. `final_topic` and
`raw_topic` say which columns they have; docs/reference/push-records.md says it to producers.
"""

import dataclasses
import datetime
import enum
import functools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import polars as pl

from stillwell.floats import exactly
from stillwell.instants import instant_us
from stillwell.layout.entity_key import entity_key, entity_keys
from stillwell.lists import elements_of
from stillwell.records import Headers
from stillwell.spec import ColumnSpec, Origin, TopicSpec, ViewSpec, element_of
from stillwell.types import BYTES, FLOAT32, FLOAT64, INT64, TIMESTAMP, FieldType
from stillwell.wire import US_PER_UNIT, python_values

EVENT_TIMESTAMP = "event_timestamp"
SEQUENCE = "_sequence"

TRANSFORM = "transform_on_write"
TO = "to"
VERSION = "version"
RAW = "raw"
IDEMPOTENCY_KEY = "idempotency_key"


class To(enum.StrEnum):
    """Where a pushed row goes. All of them are kept in the offline store; this says who else is to see them."""

    ONLINE = "online"
    OFFLINE = "offline"
    BOTH = "online_and_offline"


_VERSION = re.compile(rb"[1-9][0-9]{0,4}")
_MOST_VERSION = 65_535
_TOS = {each.value.encode(): each for each in To}
_BOOLS = {b"true": True, b"false": False}


def push_topic(project: str, view: str) -> str:
    """Kafka's name of the topic on which rows of a view are pushed."""
    return f"{project}.push.{view}"


def final_topic(project: str, view: ViewSpec) -> TopicSpec:
    """A push topic as final rows have it: the view's keys, event time, features and sequence."""
    columns = [
        *(_column(key.name, key.type, nullable=False) for key in view.entity.keys),
        _column(EVENT_TIMESTAMP, TIMESTAMP, nullable=False),
        *(_column(feature.name, feature.type, nullable=feature.nullable) for feature in view.features),
        _column(SEQUENCE, INT64, nullable=True),
    ]
    return TopicSpec(
        name=view.name,
        topic=push_topic(project, view.name),
        columns=tuple(columns),
        event_time=EVENT_TIMESTAMP,
        sequence=SEQUENCE,
        closed=True,
        pushed=True,
        description=f"Rows of {view.name} that are pushed.",
    )


def raw_topic(project: str, view: ViewSpec) -> TopicSpec:
    """A push topic as raw events have it: the columns of the view's topic, flat and by their names.

    The record's timestamp stays what it is, that of the push.
    """
    source = view.source
    return source.model_copy(
        update={
            "topic": push_topic(project, view.name),
            "columns": tuple(map(_by_name, source.columns)),
            "start": "earliest",
            "closed": True,
            "pushed": True,
        }
    )


def _column(name: str, kind: FieldType, *, nullable: bool) -> ColumnSpec:
    return ColumnSpec(name=name, type=kind, nullable=nullable, path=(name,), spelled=kind.scalar in (FLOAT32, FLOAT64))


def _by_name(column: ColumnSpec) -> ColumnSpec:
    if column.origin is Origin.RECORD_TIMESTAMP:
        return column
    return column.model_copy(update={"origin": Origin.VALUE, "path": (column.name,)})


# ---- headers ----


@dataclasses.dataclass(frozen=True, slots=True)
class Head:
    """What the headers of a record say. version and raw: None where they are absent."""

    transform: bool
    to: To
    version: int | None
    raw: bytes | None


def head_of(headers: Headers) -> Head:
    """Raises ValueError, worded for a person, for a value that a header does not take."""
    found = dict(headers)
    transform, to, version = found.get(TRANSFORM), found.get(TO), found.get(VERSION)
    return Head(
        transform=transform is not None and _one_of(TRANSFORM, transform, _BOOLS),
        to=To.BOTH if to is None else _one_of(TO, to, _TOS),
        version=None if version is None else _version(version),
        raw=found.get(RAW),
    )


def headers_of(
    *,
    transform: bool = False,
    to: To = To.BOTH,
    version: int | None = None,
    raw: bytes | None = None,
    idempotency_key: str | None = None,
) -> Headers:
    """The headers that say so; what is meant without a header gets none."""
    headers: list[tuple[str, bytes | None]] = []
    if transform:
        headers.append((TRANSFORM, b"true"))
    if to is not To.BOTH:
        headers.append((TO, to.value.encode()))
    if version is not None:
        headers.append((VERSION, b"%d" % version))
    if raw is not None:
        headers.append((RAW, raw))
    if idempotency_key is not None:
        headers.append((IDEMPOTENCY_KEY, idempotency_key.encode()))
    return tuple(headers)


def _one_of(name: str, value: bytes, allowed: Mapping[bytes, Any]) -> Any:
    if value not in allowed:
        words = [word.decode() for word in allowed]
        raise ValueError(f"header {name}: expected {', '.join(words[:-1])} or {words[-1]}, got {_shown(value)}")
    return allowed[value]


def _version(value: bytes) -> int:
    if not _VERSION.fullmatch(value) or int(value) > _MOST_VERSION:
        raise ValueError(f"header {VERSION}: expected a whole number from 1 to {_MOST_VERSION}, got {_shown(value)}")
    return int(value)


def _shown(value: bytes) -> str:
    text = value.decode("utf-8", "backslashreplace")
    return repr(text if len(text) <= 60 else f"{text[:60]}…")


# ---- values, for producers ----

LARGEST_RECORD = 900_000
"""Bytes of a record's key, value and headers. A topic takes batches of 1 MiB where nobody says otherwise."""


class PushRecord(NamedTuple):
    """What a producer gives Kafka. key: the entity's; None for a raw event, whose entity only the view can tell."""

    key: bytes | None
    value: bytes
    headers: Headers

    @property
    def nbytes(self) -> int:
        """Of key, value and headers."""
        nbytes = len(self.key or b"") + len(self.value)
        for name, content in self.headers:
            nbytes += len(name) + len(content or b"")
        return nbytes


class PushEncoder:
    """Makes push records of Python values, for one view. Made once; safe from any thread.

    It sees to names, types and keys. Whether nulls, ranges and times will do is judged where the record is taken in
    (`stillwell.pushing.pipeline`).
    """

    def __init__(self, view: ViewSpec) -> None:
        self._view = view
        self._keys = view.entity.keys
        self._final = _Forms(view.name, final_topic("", view).columns)
        raw = [column for column in raw_topic("", view).columns if column.origin is Origin.VALUE]
        self._raw = _Forms(view.source.name, raw)

    def final(self, row: Mapping[str, object], *, to: To = To.BOTH, idempotency_key: str | None = None) -> PushRecord:
        """A final row: keys, `event_timestamp`, features, perhaps `_sequence`. Raises ValueError naming the field."""
        value = self._final.encode(row)
        names = [key.name for key in self._keys]
        key = entity_key(self._keys, {name: row[name] for name in names if name in row})
        return PushRecord(key, value, headers_of(to=to, idempotency_key=idempotency_key))

    def raw(self, event: Mapping[str, object], *, to: To = To.BOTH, idempotency_key: str | None = None) -> PushRecord:
        """A raw event: the columns of the view's topic by their names. Raises ValueError naming the field."""
        headers = headers_of(transform=True, to=to, idempotency_key=idempotency_key)
        return PushRecord(None, self._raw.encode(event), headers)

    def keys_and_values(self, rows: pl.DataFrame) -> list[tuple[bytes, bytes]]:
        """Kafka's key and value for each row that a pipeline gave (`stillwell.records.ViewRows.frame`), as final rows.

        What a worker makes of them has the same bits.
        """
        return list(zip(entity_keys(rows, self._keys), self._final.encode_all(rows), strict=True))


_encode_lines = msgspec.json.Encoder().encode_lines


class _Forms:
    """How the columns of one form are written in JSON."""

    def __init__(self, subject: str, columns: Sequence[ColumnSpec]) -> None:
        self._subject = subject
        self._columns = tuple(columns)
        self._forms = {column.name: _form(column) for column in columns}
        fields = [(f"f{at}", Any, msgspec.field(name=column.name)) for at, column in enumerate(columns)]
        self._row = msgspec.defstruct("Row", fields, gc=False)

    def encode(self, fields: Mapping[str, object]) -> bytes:
        """One object. Raises ValueError."""
        if unknown := fields.keys() - self._forms.keys():
            raise ValueError(
                f"{', '.join(sorted(unknown))}: no field of {self._subject}; there is {', '.join(self._forms)}"
            )
        written = {}
        for name, value in fields.items():
            try:
                written[name] = None if value is None else self._forms[name](value)
            except (TypeError, ValueError) as error:
                raise ValueError(f"{name}: {error}") from None
        try:
            return msgspec.json.encode(written)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{self._subject}: cannot be written in JSON: {error}") from None

    def encode_all(self, rows: pl.DataFrame) -> list[bytes]:
        """Each row of a frame that has these columns, in their types."""
        values = [_written(column, rows.get_column(column.name)) for column in self._columns]
        # A line for each: JSON has line breaks in none. One call for all of them, of structs instead of dictionaries,
        # takes half the time.
        return _encode_lines(list(map(self._row, *values))).split(b"\n")[:-1]


def _written(column: ColumnSpec, values: pl.Series) -> list[Any]:
    found = python_values(column.type, values)
    # A sum is finite if all are; it may overflow without one that is not, which costs no more than a closer look.
    if not column.spelled or math.isfinite(_sum(values)):
        return found
    if column.type.element is None:
        return [None if value is None else exactly(value) for value in found]
    return [None if value is None else list(map(exactly, value)) for value in found]


def _sum(values: pl.Series) -> float:
    """Of numbers, or of the elements of lists; whatever is null adds nothing."""
    if isinstance(values.dtype, pl.List | pl.Array):
        values = elements_of(values).flat
    return float(values.sum())


def _form(column: ColumnSpec) -> Callable[[Any], object]:
    """From a Python value to what JSON is made of; raises ValueError for one of another type."""
    if column.type.element is not None:
        return functools.partial(_listed, column.type.size, _form(element_of(column)))
    if column.spelled:
        return lambda value: exactly(_of_type(value, int, float))
    if column.type.name == TIMESTAMP.name and column.unit is not None:
        return lambda value: _in_unit(value, str(column.unit))
    if column.type.name == TIMESTAMP.name:
        return _with_zone
    if column.type.name == BYTES.name:
        return lambda value: _of_type(value, bytes, str)
    if column.type.name in (FLOAT32.name, FLOAT64.name):
        return lambda value: _finite(_of_type(value, int, float))
    return lambda value: _of_type(value, column.type.python)


def _listed(size: int | None, form: Callable[[Any], object], values: Any) -> list[object]:
    """The elements of a list, a tuple, or what has a `tolist`, as arrays of NumPy's do. form: of each."""
    found = values.tolist() if hasattr(values, "tolist") else values
    if not isinstance(found, list | tuple):
        raise ValueError(f"expected a list, got {type(values).__name__}")
    if size not in (None, len(found)):
        raise ValueError(f"expected a list of exactly {size}, got one of {len(found)}")
    written = []
    for number, value in enumerate(found):
        try:
            written.append(form(value))
        except (TypeError, ValueError) as error:
            raise ValueError(f"element {number}: {error}") from None
    return written


def _of_type(value: Any, *kinds: type) -> Any:
    # `type` and not `isinstance`: True is an int to Python, and must not become 1.
    if type(value) not in kinds:
        raise ValueError(f"expected {' or '.join(kind.__name__ for kind in kinds)}, got {type(value).__name__}")
    return value


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError(f"expected a finite number, got {value}: events are JSON, which has none other")
    return value


def _with_zone(value: Any) -> Any:
    """A time, or ISO-8601 text, whose form the decoder will judge."""
    found = _of_type(value, datetime.datetime, str)
    if isinstance(found, datetime.datetime) and found.utcoffset() is None:
        raise ValueError(f"the time {found} has no zone; say which, as in 2026-01-31T12:00:00Z")
    return found


def _in_unit(value: Any, unit: str) -> int:
    """A whole number as it is; a time as one, which it must give without a rest."""
    if type(value) is int:
        return value
    factor, divisor = US_PER_UNIT[unit]
    time: datetime.datetime = _with_zone(_of_type(value, datetime.datetime))
    microseconds = instant_us(time)
    if microseconds % factor:
        raise ValueError(f"the time {value} is no whole number of {unit}")
    return microseconds // factor * divisor
