"""Why a record is not an event of its topic, in a sentence: the column, what it takes, what came and where.

The sentences are worded from msgspec's own errors, which carry path and rule; what came is looked up in the value once
more. A second validator, asked for the wording alone, could contradict the decoder.
"""

import difflib
import json
import re
from collections.abc import Mapping, Sequence

import msgspec

from stillwell.spec import ColumnSpec, Origin
from stillwell.types import BOOL, BYTES, FLOAT32, FLOAT64, INT32, INT64, STRING, TIMESTAMP

_EVENT_TIMESTAMP = "event_timestamp"
"""The event time of a final row. No column of a topic, and no feature, may have this name."""

_EXCERPT = 60
"""Characters of what came that a sentence shows: enough to recognise it, too few to fill the dead-letter topic."""

_TAKES: Mapping[str, str] = {
    BOOL.name: "true or false",
    INT32.name: "a whole number from -2147483648 to 2147483647, without fraction or exponent",
    INT64.name: "a whole number from -9223372036854775808 to 9223372036854775807, without fraction or exponent",
    FLOAT32.name: "a number within ±3.4028235e38",
    FLOAT64.name: "a number within ±1.7976931e308",
    STRING.name: "Unicode text",
    BYTES.name: "base64 text",
    TIMESTAMP.name: "ISO-8601 text with a zone in the years 1 to 9999, such as 2026-01-31T12:00:00Z",
}
_UNITS = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
_KINDS = {
    "str": "string",
    "int": "number",
    "float": "number",
    "bool": "boolean",
    "null": "null",
    "object": "object",
    "array": "array",
}
"""The words that msgspec has for what it got, and those that people have."""

_ERROR = re.compile(r"(?P<rule>.*?)(?: - at `\$(?P<place>.*)`)?", re.DOTALL)
_GOT = re.compile(r".*, got `(?P<kind>\w+)`")
_MISSING = re.compile(r"Object missing required field `(?P<name>.*)`", re.DOTALL)

_UNKNOWN = re.compile(r"Object contains unknown field `(?P<name>.*)`", re.DOTALL)


class _Number(str):
    """A JSON number, kept as it was written."""


class ValueWording:
    """Words the errors of one topic's values."""

    def __init__(self, columns: Sequence[ColumnSpec]) -> None:
        self._columns = {_place(column.path): column for column in columns}
        self._branches: dict[str, tuple[str, ...]] = {}
        for column in columns:
            for length in range(len(column.path)):
                self._branches[_place(column.path[:length])] = column.path[:length]

    def say(self, value: bytes, error: Exception) -> str:
        """The sentence for a value that the decoder refused with this error (a DecodeError or UnicodeDecodeError)."""
        if not isinstance(error, msgspec.ValidationError):
            return f"value: expected one JSON object in UTF-8, got {shown(value)} ({error})"
        match = _ERROR.fullmatch(str(error))
        rule, place = (match["rule"], match["place"] or "") if match else (str(error), "")
        if unknown := _UNKNOWN.fullmatch(rule):
            return self._say_unknown(f"{place}.{unknown['name']}"[1:])
        missing = _MISSING.fullmatch(rule)
        if missing:
            place += f".{missing['name']}"
        column = self._columns.get(place)
        if column is not None:
            return say_null(column) if missing else say_unfit(column, _came(value, rule, column.path))
        path = self._branches.get(place, ())
        subject = ".".join(path) or "value"
        return f"{subject}: expected an object, got {'nothing' if missing else _came(value, rule, path)} (at ${place})"

    def _say_unknown(self, name: str) -> str:
        known = [place[1:] for place in self._columns]
        near = difflib.get_close_matches(name[: 2 * _EXCERPT], known, n=1)
        meant = f"; did you mean {near[0]!r}?" if near else _other_form(name, known)
        return f"value: expected the fields of its columns alone, got a field {shorten(name)!r} as well{meant}"


def _other_form(name: str, known: Sequence[str]) -> str:
    """What to do where an event was pushed as a final row, or a final row as an event: the event time tells them."""
    if _EVENT_TIMESTAMP in known:
        return "; an event of the view's topic is pushed with transform_on_write true"
    if name == _EVENT_TIMESTAMP:
        return "; a final row, which has one, is pushed with transform_on_write false"
    return ""


def say_unfit(column: ColumnSpec, came: str) -> str:
    """The sentence for a column's value that does not fit its type."""
    kind = f"{column.type.name} or null" if column.nullable else column.type.name
    return f"{column.name}: expected {kind} ({_takes(column)}), got {came} ({where(column)})"


def say_null(column: ColumnSpec) -> str:
    """The sentence for a column that takes no null, in a record that does not have it."""
    return f"{say_unfit(column, 'nothing')}; send it, or declare the column nullable"


def where(column: ColumnSpec) -> str:
    """Where in a record a column comes from."""
    if column.origin is Origin.VALUE:
        return f"at ${_place(column.path)}"
    if column.origin is Origin.HEADER:
        return f"in header {column.path[0]}"
    return "in the record's key" if column.origin is Origin.KEY else "as the record's timestamp"


def shorten(text: str) -> str:
    """The text, cut to what a sentence has room for."""
    return text if len(text) <= _EXCERPT else f"{text[:_EXCERPT]}…"


def shown(value: bytes) -> str:
    """The first of the bytes, as Python writes them; a value of megabytes is cut before it is written."""
    return repr(value) if len(value) <= _EXCERPT else f"{value[:_EXCERPT]!r}…"


def _place(path: Sequence[str]) -> str:
    return "".join(f".{name}" for name in path)


def _takes(column: ColumnSpec) -> str:
    if column.origin is Origin.RECORD_TIMESTAMP:
        return "a time in the years 1 to 9999"
    if column.unit is not None:
        return f"a whole number of {_UNITS[column.unit]} since 1970, in the years 1 to 9999"
    if column.type.name == BYTES.name and column.origin is not Origin.VALUE:
        return "bytes"
    return _TAKES[column.type.name] + (', or "NaN", "Infinity" or "-Infinity"' if column.spelled else "")


def _came(value: bytes, rule: str, path: Sequence[str]) -> str:
    """What the value holds at the path: kind and excerpt, or the kind alone where a field given twice leaves doubt."""
    got = _GOT.fullmatch(rule)
    kind = _KINDS.get(got["kind"], got["kind"]) if got else None
    try:
        found = json.loads(value.decode("utf-8", "replace"), parse_int=_Number, parse_float=_Number)
        for name in path:
            found = found[name]
    except (ValueError, LookupError, TypeError):
        return kind or shown(value)
    found_kind, excerpt = _described(found)
    if kind not in (None, found_kind):
        return kind or found_kind
    return f"{found_kind} {shorten(excerpt)}".strip()


def _described(found: object) -> tuple[str, str]:
    if isinstance(found, _Number):
        return "number", found
    if isinstance(found, str):
        return "string", json.dumps(found[: _EXCERPT + 1], ensure_ascii=False)
    if isinstance(found, bool):
        return "boolean", json.dumps(found)
    if isinstance(found, dict):
        return "object", ""
    return ("array", "") if isinstance(found, list) else ("null", "")
