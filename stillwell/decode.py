"""From the bytes of Kafka records to columns: the one place that decides what is accepted as an event.

Every record is decoded alone, by one decoder that is generated for the topic, so that a neighbour cannot change a
record's fate; only then are the columns built. The rules:

- A missing field and a JSON null are both null. Fields that no column reads are skipped: their syntax is checked, their
  meaning and their text encoding are not. Where a field is given twice, both must fit and the last one counts.
- Bool is true or false. Int32 and Int64 are whole numbers in range, written without fraction or exponent. Float32 and
  Float64 are any numbers in range. String is text that is valid Unicode. Bytes is base64 text, padded, of the standard
  alphabet.
- Timestamp is ISO-8601 text with a zone (digits past the sixth of a second are rounded), or a whole number since the
  epoch in the declared unit (nanoseconds are cut towards the past); either way in the years 1 to 9999 in UTC.
- A list is an array of elements, each as its type has it and none of them null; a vector has exactly so many.
- In a topic that is `closed`, a field that no column reads is refused.
- NaN and Infinity are not JSON, nor is an empty value or one that starts with a byte order mark: all are refused. A
  float that may be `spelled` takes the texts `NaN`, `Infinity` and `-Infinity`, and `NaN:` with the 16 hexadecimal
  digits of another quiet NaN than the usual one.
- Objects and arrays may nest `MAX_NESTING` deep. The bound is counted rather than left to the interpreter's stack,
  whose room depends on who calls.
- A column of the Kafka key or of a header (the last one of its name counts) reads the bytes themselves: String as
  UTF-8, Bytes as they are, a Timestamp in ISO-8601 as text without quotes, everything else as a JSON number or word
  (`42`, `true`). No key, no such header and a header without a value are null.
- A column of the record's timestamp is null where Kafka has none (-1).
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import msgspec
import numpy as np
import polars as pl

from stillwell.errors import DefinitionError
from stillwell.evaluate import without
from stillwell.floats import TEXTS, meant
from stillwell.instants import EPOCH
from stillwell.lists import column_of_lists
from stillwell.records import Records, Reject
from stillwell.spec import ColumnSpec, Origin, TopicSpec, element_of
from stillwell.types import BYTES, FLOAT32, STRING, TIMESTAMP
from stillwell.wire import (
    EARLIEST_US,
    FITS,
    INSTANT,
    INT64_RANGE,
    LATEST_US,
    US_PER_UNIT,
    WITHIN_FLOAT32,
    beyond_years,
    instants,
    listed,
)
from stillwell.wording import ValueWording, say_null, say_unfit, shown

MAX_NESTING = 256
NO_TIMESTAMP = -1
"""What Kafka gives as the timestamp of a record that has none."""

_SPELLED = Annotated[str, msgspec.Meta(pattern=TEXTS)]

_Tree = dict[str, "ColumnSpec | _Tree"]
_TEXT = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)
_ESCAPED = re.compile(r'["\\\x00-\x1f]')
"""What a name in JSON holds by an escape alone; msgspec takes no such names of fields."""


@dataclasses.dataclass(frozen=True, slots=True)
class Decoded:
    """The records of a batch that are events of their topic, in offset order, and why the others are not.

    frame: one column per column of the topic, named as expressions name them (`Departure.delay`), then `_offset`
    (Int64) and `_timestamp` (Int64, ms).
    """

    frame: pl.DataFrame
    rejects: tuple[Reject, ...]


class Decoder:
    """Decodes the records of one topic. Made once; holds no state between batches."""

    def __init__(self, topic: TopicSpec) -> None:
        """Raises DefinitionError where two columns cannot be read from the same value."""
        in_value = [column for column in topic.columns if column.origin is Origin.VALUE]
        tree = _tree(topic, in_value)
        self._topic = topic
        self._event: Callable[[Any], Any] = msgspec.json.Decoder(_structure(tree, topic.closed)).decode
        self._attributes = _attributes(tree, in_value)
        self._wording = ValueWording(in_value, pushed=topic.pushed)
        self._beside_value = tuple(
            (topic.qualified(column), _reader(column)) for column in topic.columns if column.origin is not Origin.VALUE
        )
        self._in_value = tuple((topic.qualified(column), _to_series(column)) for column in in_value)
        self._checks = tuple(_Check(column, topic.qualified(column)) for column in topic.columns)

    @property
    def empty(self) -> pl.DataFrame:
        """A frame as `decode` gives it, without rows."""
        types = {self._topic.qualified(column): column.type.polars for column in self._topic.columns}
        return pl.DataFrame(schema={**types, "_offset": pl.Int64(), "_timestamp": pl.Int64()})

    def decode(self, records: Records) -> Decoded:
        """Columns of the records that are events of this topic, and a reject for each of the others."""
        events, rejects = self._events(records)
        if rejects:
            records = _without(records, rejects)
        frame, unfit = self._frame(events, records)
        if unfit:
            frame = without(frame, unfit)
            rejects += [Reject(int(records.offsets[at]), None, "decode", error) for at, error in unfit.items()]
            rejects.sort(key=lambda reject: reject.offset)
        return Decoded(frame, tuple(rejects))

    def _events(self, records: Records) -> tuple[list[Any], list[Reject]]:
        """The values that decode, each as a struct, and a reject for each that does not."""
        events: list[Any] = []
        rejects: list[Reject] = []
        pending = map(self._event, _without_deep_nesting(records.values))
        while True:
            try:
                # On an exception, `extend` keeps what it took before and `map` goes on with the next value: a bad
                # record costs one lap of this loop, not a second decoding of the batch.
                events.extend(pending)
                return events, rejects
            except (ValueError, TypeError) as error:
                position = len(events) + len(rejects)
                rejects.append(self._refusal(int(records.offsets[position]), records.values[position], error))

    def _refusal(self, offset: int, value: bytes | None, error: ValueError | TypeError) -> Reject:
        if value is None:
            said = f"value: {self._topic.name} takes no deletes, got a record without a value"
            return Reject(offset, None, "null_value", said)
        if isinstance(error, TypeError):
            raise error  # bytes never cause one: what came is not a batch of records
        if _nests_too_deep(value):
            said = f"value: objects and arrays may nest {MAX_NESTING} deep, got more"
            return Reject(offset, None, "decode", said)
        return Reject(offset, None, "decode", self._wording.say(value, error))

    def _frame(self, events: list[Any], records: Records) -> tuple[pl.DataFrame, dict[int, str]]:
        """All columns of these records, and by position why a record is unfit after all."""
        unfit: dict[int, str] = {}
        series = {
            name: to_series(values)
            for (name, to_series), values in zip(self._in_value, self._attributes(events), strict=True)
        }
        for name, read in self._beside_value:
            series[name] = read(records, unfit)
        for check in self._checks:
            check.note(series[check.name], unfit)
        columns = [series[check.name].alias(check.name) for check in self._checks]
        columns.append(pl.Series("_offset", records.offsets, dtype=pl.Int64()))
        columns.append(pl.Series("_timestamp", records.timestamps, dtype=pl.Int64()))
        return pl.DataFrame(columns), unfit


class _Check:
    """What only the finished column can show: a null from beside the value, a time that Python could not hold."""

    def __init__(self, column: ColumnSpec, name: str) -> None:
        self.name = name
        self._column = column
        self._is_time = column.type.scalar is TIMESTAMP

    def note(self, values: pl.Series, unfit: dict[int, str]) -> None:
        """Note by position why a record is unfit, unless it is noted already."""
        if not self._column.nullable and values.null_count():
            for position in values.is_null().arg_true().to_list():
                unfit.setdefault(position, say_null(self._column))
        if self._is_time:
            for position in beyond_years(values):
                unfit.setdefault(position, say_unfit(self._column, "a time beyond those years"))


_ToSeries = Callable[[list[Any]], pl.Series]
_Reader = Callable[[Records, dict[int, str]], pl.Series]
"""From records to a column; notes by position why a record is unfit, and leaves its place null."""


def _to_series(column: ColumnSpec) -> _ToSeries:
    """From decoded values to a column: times come as whole numbers, or as distances from the epoch."""
    if column.type.element is not None:
        return functools.partial(column_of_lists, column.type, column=_of_elements(column))
    if column.spelled:
        return functools.partial(_numbers, column.type.polars)
    if column.type.name != TIMESTAMP.name:
        return functools.partial(pl.Series, None, dtype=column.type.polars)
    if column.unit is None:
        return instants
    factor, divisor = US_PER_UNIT[column.unit]
    if factor == divisor:
        return lambda values: pl.Series(values, dtype=pl.Int64()).cast(TIMESTAMP.polars)
    return lambda values: (pl.Series(values, dtype=pl.Int64()) * factor // divisor).cast(TIMESTAMP.polars)


def _of_elements(column: ColumnSpec) -> _ToSeries:
    """From the decoded elements of all lists of a column to one column of them."""
    to_series = _to_series(element_of(column))
    if column.type.element is TIMESTAMP and column.unit is None:
        return lambda times: to_series([time - EPOCH for time in times])
    return to_series


def _numbers(kind: pl.DataType, values: list[Any]) -> pl.Series:
    """Floats, of which some may be texts."""
    if str in set(map(type, values)):
        values = [meant(value) if type(value) is str else value for value in values]
    return pl.Series(values, dtype=kind)


def _reader(column: ColumnSpec) -> _Reader:
    """Reads a column that is not in the record's value."""
    if column.origin is Origin.RECORD_TIMESTAMP:
        return _record_times
    parse, to_series = _parser(column), _to_series(column)

    def read(records: Records, unfit: dict[int, str]) -> pl.Series:
        raw = _key_or_header(column, records)
        try:
            return to_series([None if text is None else parse(text) for text in raw])
        except ValueError:
            return to_series([_parsed_alone(column, parse, at, text, unfit) for at, text in enumerate(raw)])

    return read


def _parsed_alone(
    column: ColumnSpec, parse: Callable[[bytes], Any], position: int, text: bytes | None, unfit: dict[int, str]
) -> Any:
    if text is None:
        return None
    try:
        return parse(text)
    except ValueError:
        unfit.setdefault(position, say_unfit(column, shown(text)))
        return None


def _record_times(records: Records, unfit: dict[int, str]) -> pl.Series:
    """The records' timestamps; the clip keeps a wild one from wrapping round into the years that are allowed."""
    milliseconds = np.clip(records.timestamps, EARLIEST_US // 1_000 - 1, LATEST_US // 1_000 + 1)
    times = pl.Series(milliseconds * 1_000, dtype=pl.Int64())
    return times.set(pl.Series(records.timestamps == NO_TIMESTAMP), None).cast(TIMESTAMP.polars)


def _key_or_header(column: ColumnSpec, records: Records) -> Sequence[bytes | None]:
    if column.origin is Origin.KEY:
        return records.keys
    name = column.path[0]
    return [dict(headers).get(name) for headers in records.headers]


def _parser(column: ColumnSpec) -> Callable[[bytes], Any]:
    """From the bytes of a key or header to what a decoded value holds; raises ValueError where they do not fit."""
    if column.type.name == STRING.name:
        return lambda raw: raw.decode("utf-8")
    if column.type.name == BYTES.name:
        return bytes
    if column.type.name == TIMESTAMP.name and column.unit is None:
        return lambda raw: msgspec.convert(raw.decode("utf-8"), INSTANT) - EPOCH
    return msgspec.json.Decoder(_wire(column)).decode


def _wire(column: ColumnSpec) -> Any:
    """The type that msgspec decodes for a column."""
    if column.type.element is not None:
        return listed(_wire(element_of(column)), column.type.size)
    if column.unit is None:
        kind = WITHIN_FLOAT32 if column.type.name == FLOAT32.name else FITS[column.type.name]
        return kind | _SPELLED if column.spelled else kind
    factor, divisor = US_PER_UNIT[column.unit]
    least = max(INT64_RANGE[0], EARLIEST_US * divisor // factor)
    greatest = min(INT64_RANGE[1], (LATEST_US * divisor + divisor - 1) // factor)
    return Annotated[int, msgspec.Meta(ge=least, le=greatest)]


def _tree(topic: TopicSpec, columns: Sequence[ColumnSpec]) -> _Tree:
    """The columns by the path of fields that leads to them."""
    tree: _Tree = {}
    for column in columns:
        if any(_ESCAPED.search(name) for name in column.path):
            raise DefinitionError(
                f"{topic.name}.{column.name}: the name of a field may hold no quotation mark, backslash or control "
                f"character, got {'.'.join(column.path)!r}; have the producer name it otherwise"
            )
        node = tree
        for name in column.path[:-1]:
            branch = node.setdefault(name, {})
            if isinstance(branch, ColumnSpec):
                raise _clash(topic, column, branch)
            node = branch
        present = node.setdefault(column.path[-1], column)
        if not isinstance(present, ColumnSpec) or _wire_of(present) != _wire_of(column):
            raise _clash(topic, column, present)
    return tree


def _wire_of(column: ColumnSpec) -> tuple[str, str | None, bool, bool]:
    return column.type.name, column.unit, column.nullable, column.spelled


def _clash(topic: TopicSpec, column: ColumnSpec, present: "ColumnSpec | _Tree") -> DefinitionError:
    other = present.name if isinstance(present, ColumnSpec) else "other columns"
    return DefinitionError(
        f"{topic.name}.{column.name}: {other} read{'s' if isinstance(present, ColumnSpec) else ''} the value's "
        f"field {'.'.join(column.path)} otherwise; columns that share a path must agree in type, unit and nullability, "
        "and a path must not lead through another column's value"
    )


def _required(node: "ColumnSpec | _Tree") -> bool:
    if isinstance(node, ColumnSpec):
        return not node.nullable
    return any(_required(child) for child in node.values())


def _structure(tree: _Tree, closed: bool) -> type[msgspec.Struct]:
    """The struct that msgspec fills. Its attributes are numbered, so that any text may be the name of a field."""
    fields: list[Any] = []
    for number, (name, node) in enumerate(tree.items()):
        kind = _wire(node) if isinstance(node, ColumnSpec) else _structure(node, closed)
        if _required(node):
            fields.append((f"f{number}", kind, msgspec.field(name=name)))
        else:
            fields.append((f"f{number}", kind | None, msgspec.field(name=name, default=None)))
    return msgspec.defstruct("Event", fields, kw_only=True, gc=False, forbid_unknown_fields=closed)


def _attributes(tree: _Tree, columns: Sequence[ColumnSpec]) -> Callable[[list[Any]], tuple[list[Any], ...]]:
    """A function from structs to one list per column.

    It is compiled from text made of numbers alone: a comprehension that names its attribute takes half the time of
    `operator.attrgetter`, and with a dozen columns that is a tenth of all the time that a record costs.
    """
    lists = "".join(f"[{_attribute(tree, column)} for event in events], " for column in columns)
    return eval(f"lambda events: ({lists})", {"EPOCH": EPOCH})  # type: ignore[no-any-return]


def _attribute(tree: _Tree, column: ColumnSpec) -> str:
    """The expression that reads a column from a struct: null if anything on the path is."""
    attribute, may_be_null = "event", []
    node: ColumnSpec | _Tree = tree
    for name in column.path:
        assert not isinstance(node, ColumnSpec)
        attribute += f".f{list(node).index(name)}"
        node = node[name]
        if not _required(node):
            may_be_null.append(attribute)
    is_iso = column.type.name == TIMESTAMP.name and column.unit is None
    if not is_iso and may_be_null and may_be_null[-1] == attribute:
        may_be_null.pop()
    value = f"{attribute} - EPOCH" if is_iso else attribute
    return "".join(f"None if {prefix} is None else " for prefix in may_be_null) + value


def _without_deep_nesting(values: Sequence[bytes | None]) -> Sequence[bytes | None]:
    """The values, with nothing in place of those that nest too deep: nothing is refused as well, and costs no stack."""
    longest = max(map(len, filter(None, values)), default=0)
    if longest <= 2 * MAX_NESTING:
        return values
    return [b"" if value is not None and _nests_too_deep(value) else value for value in values]


def _nests_too_deep(value: bytes) -> bool:
    """Whether objects and arrays nest beyond `MAX_NESTING`. Counting the brackets settles it for all but a few."""
    if len(value) <= 2 * MAX_NESTING or value.count(b"{") + value.count(b"[") <= MAX_NESTING:
        return False
    symbols = np.frombuffer(_TEXT.sub(b"", value), dtype=np.uint8)
    opened = np.isin(symbols, np.frombuffer(b"[{", dtype=np.uint8)).astype(np.int64)
    closed = np.isin(symbols, np.frombuffer(b"]}", dtype=np.uint8))
    return bool(np.cumsum(opened - closed).max(initial=0) > MAX_NESTING)


def _without(records: Records, rejects: Sequence[Reject]) -> Records:
    """The records that were not rejected."""
    rejected = {reject.offset for reject in rejects}
    kept = [position for position, offset in enumerate(records.offsets.tolist()) if offset not in rejected]
    return dataclasses.replace(
        records,
        offsets=records.offsets[kept],
        timestamps=records.timestamps[kept],
        keys=[records.keys[position] for position in kept],
        values=[records.values[position] for position in kept],
        headers=[records.headers[position] for position in kept],
    )
