"""The entities of a request: columns of JSON values, checked and turned into keys."""

import binascii
import contextlib
import datetime
import functools
import itertools
import math
import types
from base64 import b64decode
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import msgspec

from stillwell.definitions.mistakes import did_you_mean
from stillwell.errors import RequestError
from stillwell.floats import TEXTS, meant
from stillwell.layout.entity_key import WrongKey, keys_of_columns
from stillwell.reading.plan import Lookup, Plan
from stillwell.spec import RequestColumnSpec
from stillwell.types import BYTES, FLOAT32, FLOAT64, STRING, TIMESTAMP, FieldType
from stillwell.wire import FITS, INSTANT, WITHIN_FLOAT32, fits, within_years
from stillwell.wording import say_other, shorten

_FITS: Mapping[str, Any] = {**FITS, FLOAT32.name: WITHIN_FLOAT32}
"""What a request may bring is what an event may: features are computed on write from the same values."""

_SPELLED = Annotated[str, msgspec.Meta(pattern=TEXTS)]
_FITS_ELEMENTS: Mapping[str, Any] = {
    **_FITS,
    **{name: _FITS[name] | _SPELLED for name in (FLOAT32.name, FLOAT64.name)},
}


@functools.cache
def _fits_all(kind: FieldType) -> Any:
    """Whole columns of values, or nulls."""
    return types.GenericAlias(list, (fits(kind, _FITS if kind.element is None else _FITS_ELEMENTS) | None,))


_MOST_SHOWN = 20
"""Columns that an error tells of: a request may bring any number."""

RequestColumns = Mapping[str, Sequence[object]]
"""What a request brings of its entities, as it came."""


def row_count(entities: RequestColumns, most: int) -> int:
    """How many entities a request has. Raises RequestError where columns differ in length, or hold too many."""
    counts = set(map(len, entities.values()))
    if len(counts) > 1:
        lengths = {name: len(column) for name, column in entities.items()}
        shown = ", ".join(f"{shorten(name)} has {length}" for name, length in list(lengths.items())[:_MOST_SHOWN])
        raise RequestError("entities", f"every column must have a value for each entity; {shown}")
    count = counts.pop() if counts else 0
    if count > most:
        raise RequestError("entities", f"{count} entities in one request; at most {most} are allowed: ask in parts")
    return count


def too_many_values(rows: int, outputs: int, most: int) -> RequestError:
    """The error of a request for more values than one may ask for: entities times features."""
    return RequestError(
        "entities",
        f"{rows} entities with {outputs} features are {rows * outputs} values; at most {most} are allowed in one "
        "request: ask in parts",
    )


def typed(plan: Plan, entities: RequestColumns, known: Mapping[str, FieldType]) -> dict[str, Sequence[object]]:
    """The columns that the plan needs, as Python values: times and bytes come as text. What may be null and was left
    out is null.

    known: other columns that may be there. Raises RequestError for a column that is missing, unknown, or cannot be
    read.
    """
    if entities.keys() == plan.join_keys.keys() and not plan.request_columns:  # as nearly always
        return {name: _from_json(name, key.type, entities[name]) for name, key in plan.join_keys.items()}
    for name in entities:  # first: a name that is spelled wrongly is missing as well
        if name not in plan.join_keys and name not in known:
            raise RequestError(
                f"entities.{shorten(name)}", f"is no key of any entity{did_you_mean(name, {*plan.join_keys, *known})}"
            )
    for name in plan.required:
        if name not in entities:
            raise missing(plan, name, f"entities.{name}")
    columns = {name: _from_json(name, key.type, entities[name]) for name, key in plan.join_keys.items()}
    if plan.request_columns:
        count = max(map(len, entities.values()), default=0)
        for name, column in plan.request_columns.items():
            columns[name] = _requested(column, entities[name]) if name in entities else [None] * count
    return columns


def missing(plan: Plan, name: str, field: str) -> RequestError:
    """The error of a request without a column that its plan needs. field: what the request would call it."""
    alone = len(plan.models) == 1 and not plan.lookups and not plan.computations
    what = f"a prediction of {plan.models[0].name} needs" if alone else "the features asked for need"
    return RequestError(field, f"is missing; {what} {', '.join(plan.required)}")


def keys(lookup: Lookup, columns: Mapping[str, Sequence[object]]) -> list[bytes]:
    """The key of each entity in one lookup. Raises RequestError for a value that cannot be one."""
    entity = lookup.view.entity
    try:
        return keys_of_columns(entity.keys, [columns[name] for name in lookup.columns])
    except WrongKey as error:
        name = dict(zip((key.name for key in entity.keys), lookup.columns, strict=True))[error.key]
        raise RequestError(f"entities.{name}[{error.row}]", error.problem) from None


def _requested(column: RequestColumnSpec, values: Sequence[object]) -> list[Any]:
    """A column of request values in its type. Raises RequestError for one that does not fit."""
    if None not in values or column.nullable:
        with contextlib.suppress(msgspec.ValidationError, UnicodeEncodeError):
            fitting: list[Any] = msgspec.convert(values, _fits_all(column.type))
            one_by_one: Iterable[Any] = filter(None, fitting)
            if column.type.element is not None:
                fitting = _with_floats(column.type, fitting)
                one_by_one = itertools.chain.from_iterable(filter(None, fitting))
            if column.type.scalar is STRING:
                "".join(one_by_one).encode()  # a lone surrogate is no text; told below, with its row
            if column.type.scalar is not TIMESTAMP or all(map(within_years, one_by_one)):
                return fitting
    return [_request_value(column, row, value) for row, value in enumerate(values)]


def _with_floats(kind: FieldType, lists: list[Any]) -> list[Any]:
    """Lists of floats with the floats that texts in them stand for; others as they are."""
    if kind.element not in (FLOAT32, FLOAT64):
        return lists
    return [
        None if each is None else [meant(value) if isinstance(value, str) else value for value in each]
        for each in lists
    ]


def _request_value(column: RequestColumnSpec, row: int, value: object) -> object:
    field = f"entities.{column.name}[{row}]"
    if value is None:
        if column.nullable:
            return None
        raise _unfit(field, column.type, None)
    if column.type.element is None:
        return _single(field, column.type, value)
    if not isinstance(value, list) or len(value) != (column.type.size or len(value)):
        raise _unfit(field, column.type, value)
    return [_single(f"{field}[{number}]", column.type.element, each) for number, each in enumerate(value)]


def _single(field: str, kind: FieldType, value: object) -> object:
    """A value that is no list, in its type."""
    if kind in (FLOAT32, FLOAT64):
        if isinstance(value, str) and (number := meant(value)) is not None:
            return number
        if isinstance(value, float) and not math.isfinite(value):  # named so in a URL
            return value
    try:
        fitting: object = msgspec.convert(value, _FITS[kind.name])
        if isinstance(fitting, str):
            fitting.encode()
        if isinstance(fitting, datetime.datetime) and not within_years(fitting):
            raise _unfit(field, kind, value)
    except (msgspec.ValidationError, UnicodeEncodeError):
        raise _unfit(field, kind, value) from None
    return fitting


def _from_json(name: str, kind: FieldType, column: Sequence[object]) -> Sequence[object]:
    if kind is TIMESTAMP:
        return [_instant(name, row, value) for row, value in enumerate(column)]
    if kind is BYTES:
        return [_bytes(name, row, value) for row, value in enumerate(column)]
    return column


def _instant(name: str, row: int, value: object) -> object:
    with contextlib.suppress(msgspec.ValidationError):
        instant: datetime.datetime = msgspec.convert(value, INSTANT)
        if within_years(instant):
            return instant
    raise _unfit(f"entities.{name}[{row}]", TIMESTAMP, value)


def _bytes(name: str, row: int, value: object) -> object:
    try:
        if isinstance(value, str):
            return b64decode(value, validate=True)
    except binascii.Error:
        pass
    raise _unfit(f"entities.{name}[{row}]", BYTES, value)


def _unfit(field: str, kind: FieldType, value: object) -> RequestError:
    return RequestError(field, say_other(kind, value))
