"""Events made up to try definitions on: seeded, with nulls, extremes and equal values.

A transformation is tried on values that it is likely to treat specially: those around each constant that it mentions,
those that the topic's golden examples hold, the ends of each type, and a few of the same again in other columns, so
that comparisons between columns go both ways. Lists are made of the same values: of none, one and several, of equal
ones, of floats with a NaN, which stored lists may hold, and long ones, whose sums show in which order they were added.
"""

import datetime
import math
import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import CodeType
from typing import Any

import numpy as np
import polars as pl

from stillwell.instants import MICROSECOND
from stillwell.spec import AS_OF, ColumnSpec, OnDemandSpec, RequestSpec, TopicSpec, ViewSpec, input_fields
from stillwell.types import BOOL, BYTES, FLOAT32, FLOAT64, INT32, INT64, STRING, TIMESTAMP, FieldType
from stillwell.wire import column as column_of
from stillwell.wire import python_values

FEWEST, MOST = 48, 128
"""Events whose columns are drawn freely: as many as it takes for every value to come up once, within these bounds.
With 32 events some of the mistakes that the tests know go unseen; past the most, every start would be felt."""

_FEWEST_LISTS, _MOST_ELEMENTS = 8, 100_000
"""Vectors of which there are few if they are long, or every start would be felt."""

_LONG = 200
_LONG_LISTS = ((0.0, 1_000.0), (-1_000.0, 0.0), (-1_000.0, 1_000.0))
"""The least and the greatest element of float lists that are so long. Polars adds up 128 elements and more in another
order than fewer, and in another again where any list of the batch holds a null, as an expression can make one of some
elements: only the last bits of a sum of many values, and the sign of a sum of zeros, show it."""

Value = bool | int | float | str | bytes | datetime.datetime
Constant = str | float | datetime.datetime
Values = Mapping[str, Sequence[Value]]
"""For each type, by name: values worth trying."""

_NULLS = 0.2
"""The share of mixed events in which a column that may be null is."""
_SEED = "stillwell"
_ZERO = datetime.timedelta(0)
_TIMES = tuple(
    datetime.datetime.fromisoformat(text)
    for text in (
        "1684-10-01T00:00:00Z",
        "1899-12-31T23:59:59.999999Z",
        "1970-01-01T00:00:00Z",
        "2000-02-29T12:00:00Z",
        "2024-03-10T06:59:59.999999Z",
        "2024-03-10T07:00:00Z",
        "2024-12-31T23:59:59.5Z",
        "2255-01-01T00:00:00Z",
    )
)
_NUMBERS = (0, 1, -1, 2, 7, 60, 100, 1_000, 86_400)
_FRACTIONS = (-0.0, 0.1, 0.5, -2.75, 1 / 3, 1e-30, 1e10, 16_777_217.0)
_COMMON: Values = {
    BOOL.name: (False, True),
    INT32.name: (*_NUMBERS, 2**31 - 1, -(2**31)),
    INT64.name: (*_NUMBERS, 2**31, 2**53 + 1, 2**63 - 1, -(2**63)),
    FLOAT32.name: (*map(float, _NUMBERS), *_FRACTIONS, 3.4028234663852886e38, 1e-45),
    FLOAT64.name: (*map(float, _NUMBERS), *_FRACTIONS, 1.7976931348623157e308, 5e-324),
    STRING.name: ("", "a", "A", "b", " b ", "0", "12", "é", "日本", "x" * 300),
    BYTES.name: (b"", b"\x00", b"a", b"\xff\xfe"),
    TIMESTAMP.name: _TIMES,
}

_TEXT = re.compile(r'"((?:[^"\\]|\\.)*)"')
_COLUMN = re.compile(r'col\("[^"]*"\)')
_INSTANT = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)? UTC")
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e[+-]?\d+)?(?![\w.])")


def sample_events(view: ViewSpec, golden: pl.DataFrame) -> pl.DataFrame:
    """Events to try a view on, the golden ones first, as the decoder gives them; the same at every call.

    Wherever a value that meets the column's expectations is known, only such are drawn.
    """
    nullable = nullable_columns(view.source)
    return numbered(pl.concat([golden, *_with_holes(whole_events(view, golden), nullable, view.name)]))


def sample_inputs(view: OnDemandSpec) -> pl.DataFrame:
    """Rows of inputs to try an on-demand view on, by their qualified names; the same at every call."""
    columns = input_columns(view)
    nullable = [name for name, column in columns.items() if column.nullable]
    return numbered(pl.concat(_with_holes(whole_inputs(view), nullable, view.name)))


def whole_events(view: ViewSpec, golden: pl.DataFrame) -> pl.DataFrame:
    """Events without a null, whose columns are drawn freely from what is worth trying, golden values too."""
    columns = {view.source.qualified(column): column for column in view.source.columns}
    return _whole(columns, list(_constants(view)), golden)


def whole_inputs(view: OnDemandSpec) -> pl.DataFrame:
    """Rows of an on-demand view's inputs without a null, whose columns are drawn freely from what is worth trying."""
    columns = input_columns(view)
    expressions = (feature.expression for feature in view.features)
    constants = [each for expression in expressions for each in _constants_of_text(str(expression))]
    return _whole(columns, constants, pl.DataFrame(schema={name: each.type.polars for name, each in columns.items()}))


def input_columns(view: OnDemandSpec) -> Mapping[str, ColumnSpec]:
    """What an on-demand view's expressions can read, by its qualified name. What is stored may be missing, and then is
    null, whatever its view declares; AS_OF never is."""
    columns = {AS_OF: ColumnSpec(name=AS_OF, type=TIMESTAMP, nullable=False, path=())}
    for given in view.inputs:
        declared = {column.name: column.nullable for column in given.columns} if isinstance(given, RequestSpec) else {}
        for name, kind in input_fields(given).items():
            nullable = declared.get(name.rpartition(".")[2], True)
            columns[name] = ColumnSpec(name=name, type=kind, nullable=nullable, path=())
    return columns


def _with_holes(whole: pl.DataFrame, nullable: Sequence[str], name: str) -> list[pl.DataFrame]:
    """The rows with nulls here and there, the last of them as it is, some with one null, and one with all. name: what
    they are made for."""
    randomness = random.Random(f"{_SEED} nulls {name}")
    holes = {name: pl.Series([randomness.random() < _NULLS for _ in range(whole.height)]) for name in nullable}
    mixed = whole.with_columns(pl.when(~holes[name]).then(name).alias(name) for name in nullable)
    each_null = [with_nulls(whole[place : place + 1], [name]) for place, name in enumerate(nullable)]
    return [mixed, whole[-1:], *each_null, with_nulls(whole[:1], nullable)]


def _whole(columns: Mapping[str, ColumnSpec], constants: Sequence[Constant], golden: pl.DataFrame) -> pl.DataFrame:
    """columns: by their qualified names."""
    domains = {}
    for name, column in columns.items():
        bounds = [bound for rule in column.expectations for bound in _constants_of_text(str(rule.holds))]
        of_type = column.type.scalar.name
        worth, common = _worth_trying([*constants, *bounds])[of_type], _COMMON[of_type]
        known = python_values(column.type, golden.get_column(name).drop_nulls())
        if column.type.element is None:
            domains[name] = _domain(column, [*worth, *known, *common])
        else:
            domains[name] = _lists(column.type, [*worth, *common], known, random.Random(f"{_SEED} lists {name}"))
    height = min(MOST, max(FEWEST, *map(len, domains.values())))
    drawn = [_drawn(domain, height, random.Random(f"{_SEED} {name}")).alias(name) for name, domain in domains.items()]
    return numbered(_with_zeros(pl.DataFrame(drawn), domains))


def _with_zeros(events: pl.DataFrame, domains: Mapping[str, pl.Series]) -> pl.DataFrame:
    """The events, and one more whose floats are all the negative zero, where they may be."""
    zeros = [
        pl.Series(name, [-0.0], dtype=domain.dtype)
        for name, domain in domains.items()
        if domain.dtype.is_float() and "-0.0" in map(repr, domain)
    ]
    return pl.concat([events, events.head(1).with_columns(zeros)]) if zeros else events


def empty_events(topic: TopicSpec) -> pl.DataFrame:
    """A frame of the topic's events as the decoder gives it, without rows."""
    columns = {topic.qualified(column): column.type.polars for column in topic.columns}
    return pl.DataFrame(schema={**columns, "_offset": pl.Int64(), "_timestamp": pl.Int64()})


def numbered(events: pl.DataFrame) -> pl.DataFrame:
    """The events with the offsets 0, 1, 2, …, all of one record timestamp."""
    return events.with_columns(
        pl.int_range(events.height, dtype=pl.Int64).alias("_offset"), pl.lit(0, pl.Int64).alias("_timestamp")
    )


def nullable_columns(topic: TopicSpec) -> list[str]:
    """The columns that may be null, as expressions name them."""
    return [topic.qualified(column) for column in topic.columns if column.nullable]


def with_nulls(events: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
    """The events with null in each of these columns."""
    return events.with_columns(pl.lit(None, dtype=events.schema[name]).alias(name) for name in columns)


def _domain(column: ColumnSpec, values: Iterable[Value]) -> pl.Series:
    """Those of the values that meet the column's expectations, each once; all of them where none does."""
    distinct = {repr(value): value for value in values}.values()  # by ==, 0.0 and -0.0 would be one
    series = pl.Series(column.name, list(distinct), dtype=column.type.polars)
    meeting = series.to_frame().filter(*(rule.holds for rule in column.requirements))
    return meeting.to_series() if meeting.height else series


def _lists(
    kind: FieldType, values: Sequence[Value], known: Sequence[Sequence[Value]], randomness: random.Random
) -> pl.Series:
    """Lists or vectors of these values, those that are known first.

    Each is of a few of the values alone: with the greatest of them in every list, no sum would tell anything."""
    distinct = list({repr(value): value for value in values}.values())
    count = min(2 * len(distinct), MOST, max(_FEWEST_LISTS, _MOST_ELEMENTS // (kind.size or 1)))
    made = [
        _list(kind, randomness.sample(distinct, min(len(distinct), 1 + number % 5)), number, randomness)
        for number in range(count)
    ]
    if kind.size is None:
        made.insert(0, [])
    if kind.element in (FLOAT32, FLOAT64):
        made.insert(1, [math.nan, *made[1][1:]])
        made[2:2] = ([randomness.uniform(*ends) for _ in range(kind.size or _LONG)] for ends in _LONG_LISTS)
        made.insert(2, [-0.0] * (kind.size or 2))
    return column_of(kind, [*known, *made])


def _list(kind: FieldType, values: Sequence[Value], number: int, randomness: random.Random) -> list[Value]:
    """One list of some of the values: each once or so in a list of any length, as often as it comes in a vector."""
    if kind.size is not None:
        return randomness.choices(values, k=kind.size)
    return [*values, values[0]] if number % 4 == 3 else list(values)


def _drawn(domain: pl.Series, height: int, randomness: random.Random) -> pl.Series:
    """So many values: each of the domain about equally often, in any order; the first ones if there are too many."""
    places = [number % min(len(domain), height) for number in range(height)]
    randomness.shuffle(places)
    return domain.gather(places)


def _worth_trying(constants: Iterable[Constant]) -> Values:
    """Constants that a definition mentions, and their neighbours: for each type, by name."""
    numbers: list[float] = []
    texts: list[str] = []
    instants: list[datetime.datetime] = []
    for constant in constants:
        match constant:
            case str():
                texts.append(constant)
            case datetime.datetime():
                instants.append(constant)
            case _:
                numbers.append(constant)
    return {
        BOOL.name: [],
        INT32.name: [near for number in numbers for near in _whole_neighbours(number, 31)],
        INT64.name: [near for number in numbers for near in _whole_neighbours(number, 63)],
        FLOAT32.name: [float(near) for number in numbers for near in _neighbours(number, np.float32)],
        FLOAT64.name: [float(near) for number in numbers for near in _neighbours(number, np.float64)],
        STRING.name: texts,
        BYTES.name: [text.encode() for text in texts],
        TIMESTAMP.name: [instant + step for instant in instants for step in (-MICROSECOND, _ZERO, MICROSECOND)],
    }


def _whole_neighbours(number: float, bits: int) -> Iterator[int]:
    if abs(number) < 2**62:
        yield from (near for near in range(int(number) - 1, int(number) + 2) if -(2**bits) <= near < 2**bits)


def _neighbours(number: float, width: type[np.floating[Any]]) -> Iterator[np.floating[Any]]:
    """A float, those next to it, and those one further: a bound that moves by the least is seen."""
    here = width(number)
    if np.isfinite(here):
        yield from (here, np.nextafter(here, width(-np.inf)), np.nextafter(here, width(np.inf)), here - 1, here + 1)


def _constants(view: ViewSpec) -> Iterator[Constant]:
    if view.function is not None:
        yield from _constants_of_code(getattr(view.function, "__code__", None))
    expressions = [*view.keys, view.where, *(feature.expression for feature in view.features)]
    for expression in expressions:
        if expression is not None:
            yield from _constants_of_text(str(expression))


def _constants_of_text(text: str) -> Iterator[Constant]:
    """What looks like a constant in an expression as Polars prints it. Too much does no harm, nor does too little."""
    text = _COLUMN.sub("", text)
    for found in _INSTANT.findall(text):
        yield datetime.datetime.fromisoformat(found.replace(" UTC", "Z"))
    for found in _TEXT.findall(text):
        yield found
    for found in _NUMBER.findall(_TEXT.sub("", _INSTANT.sub("", text))):
        yield float(found) if set(found) & set(".e") else int(found)


def _constants_of_code(code: CodeType | None) -> Iterator[Constant]:
    for constant in code.co_consts if code else ():
        if isinstance(constant, CodeType):
            yield from _constants_of_code(constant)
        elif isinstance(constant, str | int | float) and not isinstance(constant, bool):
            yield constant
