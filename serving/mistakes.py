"""What is wrong with a request's body: the field, what it must be, and what to write. Pure.

The decoder's own words name types of another language, and no key of an object. What it refuses is looked through once
more, for the mistakes that are usual: of people who come from Feast's SDK, and of everybody else. Only bodies that are
refused pay for it.
"""

import enum
import json
import re
import typing
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from stillwell.definitions.mistakes import did_you_mean
from stillwell.errors import RequestError
from stillwell.wording import shorten

_MOST_ROWS = 3
"""Rows, and columns of them, that an example is made of."""

_MOST_SHOWN = 120
"""Characters of an example: a line."""

_FEAST_ROWS: Final = "entity_rows"
"""What Feast's SDK calls the entities, and takes as rows."""

_COLUMNS: Final[Mapping[str, tuple[str, str, str]]] = {
    "entities": ("key", "entity", '{"user_id": [1, 2]}'),
    "df": ("column", "row", '{"user_id": [1, 2]}'),
}
"""Fields that take columns: a list for each of what, with a value for each of what, as for example."""

_WRITE: Final[Mapping[str, str]] = {
    "features": 'a list of names, as ["<view>:<feature>"]',
    "rows": 'a list of rows, as [{"user_id": 1}], or columns, as {"user_id": [1]}',
}

_KINDS: Final[Mapping[type, str]] = {
    dict: "an object",
    list: "a list",
    str: "a text",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    type(None): "null",
}

_TAKES: Final[Mapping[object, str]] = {
    str: "a text",
    bool: "true or false",
    int: "a whole number",
    type(None): "null",
}

_CHOICE: Final = re.compile(r"Invalid enum value (?P<got>.*) - at `\$\.(?P<name>\w+)`", re.DOTALL)
"""What msgspec says of a word that is none of those that a field takes: not which those are."""

_PLACE: Final = re.compile(r"(?P<rule>.*) - at `\$\.(?P<place>.*)`", re.DOTALL)


def mistake(takes: Any, body: bytes, error: Exception) -> RequestError:
    """What is wrong with a body. takes: the Struct that its decoder makes; error: what it raised."""
    if choice := _CHOICE.fullmatch(str(error)):
        name = choice["name"]
        return RequestError(name, f"must be {_choices(takes, name)}, not {choice['got']}")
    if isinstance(error, msgspec.ValidationError):
        try:
            found = _looked_through(takes, msgspec.json.decode(body))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            found = None
        if found:
            return found
        if place := _PLACE.fullmatch(str(error)):
            return RequestError(shorten(place["place"]), place["rule"])
    return RequestError("body", f"{error}")


def _looked_through(takes: Any, given: object) -> RequestError | None:
    """The first mistake that is found; None where it is a rare one."""
    fields = {field.name: field for field in msgspec.structs.fields(takes)}
    required = [name for name, field in fields.items() if field.required]
    if not isinstance(given, dict):
        return RequestError("body", f"must be an object with {' and '.join(required)}, not {_kind(given)}")
    if _FEAST_ROWS in given and "entities" in fields and "entities" not in given:
        return RequestError(_FEAST_ROWS, f"is of Feast's SDK; write entities, as {_as_columns(given[_FEAST_ROWS])}")
    if takes.__struct_config__.forbid_unknown_fields:
        unknown = next((name for name in given if name not in fields), None)
        if unknown is not None:
            return RequestError(shorten(unknown), f"is no word of this request{did_you_mean(unknown, fields)}")
    for name in required:
        if name not in given:
            return RequestError(name, f"is missing; write {_written(name, fields[name].type)}")
    wrong = (_wrong_field(takes, name, fields[name].type, given[name]) for name in fields if name in given)
    return next(filter(None, wrong), None)


def _wrong_field(takes: Any, name: str, of: Any, value: object) -> RequestError | None:
    if name in _COLUMNS:
        return _wrong_columns(name, value)
    if name == "features":
        return _wrong_features(value)
    if name == "rows":
        return _wrong_rows(value)
    if not isinstance(value, str) and _is_choice(of):
        return RequestError(name, f"must be {_choices(takes, name)}, not {_kind(value)}")
    taken = _simple(of)
    if taken and value.__class__ not in taken:
        return RequestError(name, f"must be {_written(name, of)}, not {_kind(value)}")
    return None


def _wrong_columns(field: str, value: object) -> RequestError | None:
    key, entity, example = _COLUMNS[field]
    if not isinstance(value, dict):
        shown = _as_columns(value) if isinstance(value, list) and value else example
        return RequestError(field, f"must be an object with a list for each {key}, as {shown}, not {_kind(value)}")
    for name, column in value.items():
        if not isinstance(column, list):
            single = isinstance(column, str | int | float)
            shown = _short([column]) if single else "[1]"
            return RequestError(
                f"{field}.{shorten(name)}",
                f"must be a list with a value for each {entity}, as {shown}, not {_kind(column)}",
            )
    return None


def _wrong_features(value: object) -> RequestError | None:
    if isinstance(value, str):
        shown = _short([each.strip() for each in value[: 2 * _MOST_SHOWN].split(",")])
        return RequestError("features", f"must be a list, as {shown}, not a text")
    if not isinstance(value, list):
        return RequestError("features", f"must be {_WRITE['features']}, not {_kind(value)}")
    for number, each in enumerate(value):
        if not isinstance(each, str):
            return RequestError(f"features[{number}]", f"must be a text, <view>:<feature>, not {_kind(each)}")
    return None


def _wrong_rows(value: object) -> RequestError | None:
    if isinstance(value, list):
        return None
    if not isinstance(value, dict):
        return RequestError("rows", f"must be {_WRITE['rows']}, not {_kind(value)}")
    for name, column in value.items():
        if not isinstance(column, list):
            what = f"must be a list with a value for each row, not {_kind(column)}"
            return RequestError(f"rows.{shorten(name)}", f"{what}; rows that are objects stand in a list, as [{{…}}]")
    return None


def _written(name: str, of: Any) -> str:
    """What to write into a field."""
    if name in _COLUMNS:
        key, _, example = _COLUMNS[name]
        return f"a list for each {key}, as {example}"
    return _WRITE.get(name) or " or ".join(_TAKES[each] for each in _simple(of) or ()) or "it"


def _simple(of: Any) -> tuple[Any, ...] | None:
    """The types of a field that takes single values; None for other fields."""
    types = typing.get_args(of) or (of,)
    return types if all(isinstance(each, type) and each in _TAKES for each in types) else None


def _is_choice(of: Any) -> bool:
    return typing.get_origin(of) is typing.Literal or (isinstance(of, type) and issubclass(of, enum.Enum))


def _as_columns(rows: object) -> str:
    """Rows, written as the columns that are wanted; an example where they are none."""
    listed = rows if isinstance(rows, list) else [rows]
    first = listed[0] if listed else None
    if not isinstance(first, dict) or not first:
        return _COLUMNS["entities"][2]
    some = [each for each in listed[:_MOST_ROWS] if isinstance(each, dict)]
    return _short({name: [each.get(name) for each in some] for name in list(first)[:_MOST_ROWS]})


def _short(value: object) -> str:
    """JSON that is short enough for a sentence, or an ellipsis in its place."""
    shown = json.dumps(value, ensure_ascii=False)
    return shown if len(shown) <= _MOST_SHOWN else "[…]" if isinstance(value, list) else "{…}"


def _kind(value: object) -> str:
    return _KINDS[value.__class__]


def _choices(takes: Any, name: str) -> str:
    """The words that a field takes, as a sentence has them."""
    field = typing.get_type_hints(takes)[name]
    *others, last = [str(each) for each in typing.get_args(field) or (each.value for each in field)]
    return f"{', '.join(others)} or {last}"
