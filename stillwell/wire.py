"""Which Python values fit a type, and how a list of them becomes a column.

Shared by what comes in from outside (decoding) and what users' functions give back, so that both accept the same.
"""

import datetime
import functools
import types
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, cast

import msgspec
import polars as pl

from stillwell.instants import EPOCH, MICROSECOND, instant, instant_us
from stillwell.lists import column_of_lists, elements_of, rows_of_elements
from stillwell.series import FEW, microseconds
from stillwell.types import BOOL, BYTES, FLOAT32, FLOAT64, INT32, INT64, STRING, TIMESTAMP, FieldType

EARLIEST_US = -62_135_596_800_000_000
"""0001-01-01T00:00:00Z in microseconds since the epoch: the first instant that Python can hold."""
LATEST_US = 253_402_300_799_999_999
"""9999-12-31T23:59:59.999999Z, the last one."""
INT64_RANGE = (-(2**63), 2**63 - 1)

US_PER_UNIT: Mapping[str, tuple[int, int]] = {"s": (1_000_000, 1), "ms": (1_000, 1), "us": (1, 1), "ns": (1, 1_000)}
"""Microseconds of one unit, as a factor and a divisor."""

INSTANT = Annotated[datetime.datetime, msgspec.Meta(tz=True)]
"""A time with a zone."""

_BEYOND_FLOAT32 = 3.4028235677973366e38
"""Halfway between the greatest Float32 and the next power of two: from here on, rounding gives infinity."""
WITHIN_FLOAT32 = Annotated[float, msgspec.Meta(gt=-_BEYOND_FLOAT32, lt=_BEYOND_FLOAT32)]
"""A number that comes from outside as a Float32: one that is too large is a mistake, and no infinity."""

FITS: Mapping[str, Any] = {
    BOOL.name: bool,
    INT32.name: Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)],
    INT64.name: Annotated[int, msgspec.Meta(ge=INT64_RANGE[0], le=INT64_RANGE[1])],
    FLOAT32.name: float,
    FLOAT64.name: float,
    STRING.name: str,
    BYTES.name: bytes,
    TIMESTAMP.name: INSTANT,
}
"""For msgspec, by the name of the type of single values. A float past Float32's range becomes infinite, as in any
Float32 arithmetic."""


def listed(element: Any, size: int | None) -> Any:
    """For msgspec: lists of what it knows by this. size: of a vector; None for any number."""
    of_any_length = types.GenericAlias(list, (element,))
    return of_any_length if size is None else Annotated[of_any_length, msgspec.Meta(min_length=size, max_length=size)]


def fits(kind: FieldType, scalars: Mapping[str, Any] = FITS) -> Any:
    """For msgspec, which values fit a type. scalars: as FITS."""
    return scalars[kind.name] if kind.element is None else listed(scalars[kind.element.name], kind.size)


def instants(times: Sequence[datetime.timedelta | None]) -> pl.Series:
    """A Timestamp column from distances to the epoch: Polars takes a tenth of the time that zoned datetimes cost."""
    if len(times) <= FEW:
        us = [None if each is None else each // MICROSECOND for each in times]
        return pl.Series(us, dtype=pl.Int64()).cast(TIMESTAMP.polars)
    return microseconds(pl.Series(times, dtype=pl.Duration("us"))).cast(TIMESTAMP.polars)


def column(kind: FieldType, values: Sequence[Any]) -> pl.Series:
    """Python values that fit a type, or nulls, as a column of it."""
    if kind.element is not None:
        return column_of_lists(kind, values, functools.partial(column, kind.element))
    if kind.name == TIMESTAMP.name:
        return instants([None if value is None else value - EPOCH for value in values])
    return pl.Series(values, dtype=kind.polars)


def stored_column(kind: FieldType, values: Sequence[Any]) -> pl.Series:
    """The same of values as they are stored: a Timestamp is µs since the epoch."""
    if kind.element is not None:
        return column_of_lists(kind, values, functools.partial(stored_column, kind.element))
    if kind is TIMESTAMP:
        return pl.Series(values, dtype=pl.Int64()).cast(TIMESTAMP.polars)
    return pl.Series(values, dtype=kind.polars)


def python_values(kind: FieldType, values: pl.Series) -> list[Any]:
    """A column as Python values; times in UTC."""
    if kind.name == TIMESTAMP.name:
        return [None if us is None else instant(us) for us in microseconds(values)]
    if kind.scalar is TIMESTAMP:
        return [None if each is None else list(map(instant, each)) for each in stored_values(kind, values)]
    return values.to_list()


def stored_values(kind: FieldType, values: pl.Series) -> list[Any]:
    """The same as values are stored: a Timestamp is µs since the epoch."""
    if kind is TIMESTAMP:
        return microseconds(values).to_list()
    if kind.scalar is TIMESTAMP:
        of_numbers = pl.List(pl.Int64()) if kind.size is None else pl.Array(pl.Int64(), kind.size)
        return values.cast(of_numbers).to_list()
    return values.to_list()


def within_years(time: datetime.datetime) -> bool:
    """Whether a time with a zone is within the years 1 to 9999 in UTC, too."""
    return EARLIEST_US <= instant_us(time) <= LATEST_US


def beyond_years(times: pl.Series) -> list[int]:
    """The positions of times, or of lists with times, outside the years 1 to 9999, which Python and many a reader could
    not hold."""
    if isinstance(times.dtype, pl.List | pl.Array):
        elements = elements_of(times)
        return rows_of_elements(elements, beyond_years(elements.flat))
    us = microseconds(times)
    least, greatest = cast("int | None", us.min()), cast("int | None", us.max())
    if least is None or greatest is None or (least >= EARLIEST_US and greatest <= LATEST_US):
        return []
    return (~us.is_between(EARLIEST_US, LATEST_US)).arg_true().to_list()
