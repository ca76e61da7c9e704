"""The entities of a request: columns of JSON values, checked and turned into keys."""

import binascii
from base64 import b64decode
from collections.abc import Mapping, Sequence

import msgspec

from stillwell.definitions.mistakes import did_you_mean
from stillwell.errors import RequestError
from stillwell.layout.entity_key import WrongKey, keys_of_columns
from stillwell.reading.query import Lookup, Plan
from stillwell.types import BYTES, TIMESTAMP, FieldType
from stillwell.wire import INSTANT

Columns = Mapping[str, Sequence[object]]


def row_count(entities: Columns, most: int) -> int:
    """How many entities a request has. Raises RequestError where columns differ in length, or hold too many."""
    lengths = {name: len(column) for name, column in entities.items()}
    counts = set(lengths.values())
    if len(counts) > 1:
        shown = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise RequestError("entities", f"every column must have a value for each entity; {shown}")
    count = counts.pop() if counts else 0
    if count > most:
        raise RequestError("entities", f"{count} entities in one request; at most {most} are allowed: ask in parts")
    return count


def typed(plan: Plan, entities: Columns, known: Mapping[str, FieldType]) -> dict[str, Sequence[object]]:
    """The columns that the plan needs, as Python values: times and bytes come as text.

    known: other columns that may be there. Raises RequestError for a column that is missing, unknown, or cannot be
    read.
    """
    for name in plan.join_keys.keys() - entities.keys():
        needed = ", ".join(plan.join_keys)
        raise RequestError(f"entities.{name}", f"is missing; the features asked for need {needed}")
    for name in entities.keys() - plan.join_keys.keys() - known.keys():
        raise RequestError(
            f"entities.{name}", f"is no key of any entity{did_you_mean(name, {*plan.join_keys, *known})}"
        )
    return {name: _from_json(name, key.type, entities[name]) for name, key in plan.join_keys.items()}


def keys(lookup: Lookup, columns: Mapping[str, Sequence[object]]) -> list[bytes]:
    """The key of each entity in one lookup. Raises RequestError for a value that cannot be one."""
    entity = lookup.view.entity
    try:
        return keys_of_columns(entity.keys, [columns[name] for name in lookup.columns])
    except WrongKey as error:
        name = dict(zip((key.name for key in entity.keys), lookup.columns, strict=True))[error.key]
        raise RequestError(f"entities.{name}[{error.row}]", error.problem) from None


def _from_json(name: str, kind: FieldType, column: Sequence[object]) -> Sequence[object]:
    if kind is TIMESTAMP:
        return [_instant(name, row, value) for row, value in enumerate(column)]
    if kind is BYTES:
        return [_bytes(name, row, value) for row, value in enumerate(column)]
    return column


def _instant(name: str, row: int, value: object) -> object:
    try:
        return msgspec.convert(value, INSTANT)
    except msgspec.ValidationError:
        raise RequestError(
            f"entities.{name}[{row}]", f"must be a time with a zone, as 2026-01-31T12:00:00Z, not {value!r}"
        ) from None


def _bytes(name: str, row: int, value: object) -> object:
    try:
        if isinstance(value, str):
            return b64decode(value, validate=True)
    except binascii.Error:
        pass
    raise RequestError(f"entities.{name}[{row}]", f"must be bytes in base64, not {value!r}")
