"""Why a record is not an event of its topic, in a sentence: the column, what it takes, what came and where.

The sentences are worded from msgspec's own errors, which carry path and rule; what came is looked up in the value once
more. A second validator, asked for the wording alone, could contradict the decoder.
"""

import collections
import datetime
import difflib
import itertools
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from stillwell.spec import ColumnSpec, Origin
from stillwell.types import BOOL, BYTES, FLOAT32, FLOAT64, INT32, INT64, STRING, TIMESTAMP, FieldType

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
_WRITTEN: Mapping[str, str] = {
    BOOL.name: "true or false",
    INT32.name: "a whole number from -2147483648 to 2147483647",
    INT64.name: "a whole number",
    FLOAT32.name: "a number within ±3.4028235e38",
    FLOAT64.name: "a number",
    STRING.name: "a text",
    BYTES.name: "a text in base64",
    TIMESTAMP.name: "a time with a zone in the years 1 to 9999, as 2026-01-31T12:00:00Z",
}
"""What each type is in the JSON of a request."""

_NUMBERS = collections.defaultdict(
    lambda: re.compile("(?!)"),
    dict.fromkeys((INT32.name, INT64.name), re.compile(r"-?(0|[1-9]\d{0,18})"))
    | dict.fromkeys((FLOAT32.name, FLOAT64.name), re.compile(r"-?(0|[1-9]\d{0,18})(\.\d{1,18})?")),
)
"""Texts that hold what each type is written as."""

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

_ELEMENT = re.compile(r"(?P<column>.*)\[(?P<number>\d+)\]", re.DOTALL)
"""The place of an element of a list."""

_LENGTH = re.compile(r"Expected `array` of length .*")
_ERROR = re.compile(r"(?P<rule>.*?)(?: - at `\$(?P<place>.*)`)?", re.DOTALL)
_GOT = re.compile(r".*, got `(?P<kind>\w+)`")
_MISSING = re.compile(r"Object missing required field `(?P<name>.*)`", re.DOTALL)

_UNKNOWN = re.compile(r"Object contains unknown field `(?P<name>.*)`", re.DOTALL)


class _Number(str):
    """A JSON number, kept as it was written."""


class ValueWording:
    """Words the errors of one topic's values."""

    def __init__(self, columns: Sequence[ColumnSpec], *, pushed: bool = False) -> None:
        """pushed: whether they are those of a push, which is flat and has no fields beside them."""
        self._pushed = pushed
        self._columns = {_place(column.path): column for column in columns}
        self._branches: dict[str, tuple[str, ...]] = {}
        for column in columns:
            for length in range(len(column.path)):
                self._branches[_place(column.path[:length])] = column.path[:length]

    def say(self, value: bytes, error: Exception) -> str:
        """The sentence for a value that the decoder refused with this error (a DecodeError or UnicodeDecodeError)."""
        if not isinstance(error, msgspec.ValidationError):
            return f"value: expected one JSON object in UTF-8, got {shown(value)} ({error}){_near_fault(value, error)}"
        match = _ERROR.fullmatch(str(error))
        rule, place = (match["rule"], match["place"] or "") if match else (str(error), "")
        if unknown := _UNKNOWN.fullmatch(rule):
            return self._say_unknown(f"{place}.{unknown['name']}"[1:], value)
        missing = _MISSING.fullmatch(rule)
        if missing:
            place += f".{missing['name']}"
        column = self._columns.get(place)
        if column is not None:
            if missing:
                elsewhere = self._elsewhere(value, column)
                return f"{say_unfit(column, 'nothing')}{elsewhere}" if elsewhere else say_null(column)
            came = _came(value, rule, column.path)
            fix = self._elsewhere(value, column) if came == "object" else _time_meant(column, came, self._pushed)
            return f"{say_unfit(column, came)}{fix}"
        element = _ELEMENT.fullmatch(place)
        if element and (column := self._columns.get(element["column"])) is not None:
            number = int(element["number"])
            return _say_element(column, number, _came(value, rule, (*column.path, number)))
        path = self._branches.get(place, ())
        subject = ".".join(path) or "value"
        came = "nothing" if missing else _came(value, rule, path)
        return f"{subject}: expected an object, got {came} (at ${place}){self._flat(value, path)}"

    def _say_unknown(self, name: str, value: bytes) -> str:
        known = [place[1:] for place in self._columns]
        near = difflib.get_close_matches(name[: 2 * _EXCERPT], known, n=1)
        if self._pushed and isinstance(_parsed(value).get(name), dict):
            meant = self._say_flat()
        else:
            meant = f"; did you mean {near[0]!r}?" if near else _other_form(name, known)
        return f"value: expected the fields of its columns alone, got a field {shorten(name)!r} as well{meant}"

    # ---- the same event in another shape ----

    def _elsewhere(self, value: bytes, *columns: ColumnSpec) -> str:
        """Where the value of the first of these columns came that did not come in its own place, and what to do; empty
        where none came elsewhere."""
        found = _parsed(value)
        if self._pushed:
            return self._say_flat() if any(isinstance(each, dict) for each in found.values()) else ""
        taken = {each.path for each in self._columns.values()}
        places = [path for path in _paths(found) if path not in taken]
        for column in columns:
            names = _names_of(column)
            place = next((path for path in places if path[-1] in names), None)
            if place is not None:
                came = f"; it came at ${_place(place)}: "
                if len(place) < len(column.path):
                    return f"{came}send it nested, as {_nested(column.path)}"
                return f"{came}send it at ${_place(column.path)}, or define the column with path={'.'.join(place)!r}"
        return ""

    def _flat(self, value: bytes, branch: Sequence[str]) -> str:
        """The same of the columns of a branch, where all of it is missing."""
        columns = [each for each in self._columns.values() if each.path[: len(branch)] == tuple(branch)]
        return self._elsewhere(value, *columns) if branch else ""

    def _say_flat(self) -> str:
        names = ", ".join(column.name for column in list(self._columns.values())[:_MOST_NAMED])
        return f"; rows are pushed flat, whatever paths their topic has: columns by their names alone, as {names}"


_BYTE = re.compile(r".*\(byte (?P<number>\d+)\)", re.DOTALL)
_NO_NUMBER = re.compile(rb"-?(?:NaN|Infinity)\b")


def _near_fault(value: bytes, error: Exception) -> str:
    """What stands where a value stops being JSON, as far as the excerpt from its beginning does not show it."""
    found = _BYTE.fullmatch(str(error))
    at = int(found["number"]) if found else 0
    # The fault of `-Infinity` is its second byte.
    start = at - 1 if value[at - 1 : at] == b"-" else at
    word = _NO_NUMBER.match(value, start)
    if word:
        return f"; {word[0].decode()} is no JSON: have null written in its place"
    return f"; there it goes on as {shown(value[at : at + _EXCERPT // 2])}" if at >= _EXCERPT else ""


def _parsed(value: bytes) -> dict[str, Any]:
    """The object that a value is; empty where it is none."""
    try:
        found = json.loads(value.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _paths(found: object) -> Iterator[tuple[str, ...]]:
    """The paths to an object's values that are no objects, outer ones before inner ones; the first of a large one's."""
    waiting: collections.deque[tuple[tuple[str, ...], object]] = collections.deque([((), found)])
    for _ in range(_MOST_FIELDS):
        if not waiting:
            return
        path, value = waiting.popleft()
        if isinstance(value, dict):
            waiting.extend(((*path, name), each) for name, each in itertools.islice(value.items(), _MOST_FIELDS))
        elif path:
            yield path


def _names_of(column: ColumnSpec) -> Collection[str]:
    """What a field may be called that holds a column in another shape of its event."""
    return {column.name, column.path[-1], "_".join(column.path), ".".join(column.path)}


def _nested(path: Sequence[str]) -> str:
    """An object that has something at a path, for a sentence."""
    opened = "".join(f"{{{json.dumps(name, ensure_ascii=False)}: " for name in path)
    return f"{opened}…{'}' * len(path)}"


_MOST_FIELDS = 1_000
"""Of a value that are looked at, to find one that came in another place."""

_MOST_NAMED = 5


def _other_form(name: str, known: Sequence[str]) -> str:
    """What to do where a field is unknown, or an event was pushed as a final row, or a final row as an event."""
    if name == _EVENT_TIMESTAMP:
        return "; a final row, which has one, is pushed with transform_on_write false"
    there = f"; there is {', '.join(known[:_MOST_NAMED])}{', …' if len(known) > _MOST_NAMED else ''}"
    if _EVENT_TIMESTAMP in known:
        return f"{there}; an event of the view's topic is pushed with transform_on_write true"
    return there


def say_other(kind: FieldType, value: object) -> str:
    """What is said of a value in a request that is not of its type: what it must be, what came, and what to write."""
    written = _WRITTEN[kind.scalar.name]
    written = written if kind.element is None else _of_each(kind, written)
    return f"must be {kind.name} ({written}), not {_said(value)}{_rewritten(kind, value)}"


def _said(value: object) -> str:
    """A value, as who writes JSON speaks of it."""
    if isinstance(value, str):
        return f"the text {_quoted(value)}"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, int | float):
        return f"the number {shorten(str(value))}"
    return (
        "an object"
        if isinstance(value, dict)
        else f"a list of {len(value)}"
        if isinstance(value, list)
        else shorten(repr(value))
    )


def _rewritten(kind: FieldType, value: object) -> str:
    """How the value is written that was meant; empty where that is not plain."""
    if isinstance(value, str):
        is_plain = value in ("true", "false") if kind is BOOL else _NUMBERS[kind.name].fullmatch(value)
        return f"; write {value}, without quotes" if is_plain else ""
    if kind is STRING and isinstance(value, bool | int | float):
        return f"; write {_quoted(json.dumps(value))}, in quotes"
    if kind in (INT32, INT64) and isinstance(value, float) and value.is_integer():
        return f"; write {int(value)}, without a fraction" if abs(value) < 2**53 else ""
    return ""


def _quoted(text: str) -> str:
    """As JSON has it; a lone surrogate, which is in no text, by its code."""
    quoted = json.dumps(shorten(text), ensure_ascii=False)
    return quoted if quoted.isprintable() else json.dumps(shorten(text))


def say_unfit(column: ColumnSpec, came: str) -> str:
    """The sentence for a column's value that does not fit its type."""
    kind = f"{column.type.name} or null" if column.nullable else column.type.name
    return f"{column.name}: expected {kind} ({_takes(column)}), got {came} ({where(column)})"


def _time_meant(column: ColumnSpec, came: str, pushed: bool) -> str:
    """What to do about what is a time to people, but not to the column; empty where it is none. came: kind and excerpt.

    pushed: whether it came as a push, where who is told has written the time, and not the definition.
    """
    if column.type is not TIMESTAMP:
        return ""
    kind, _, excerpt = came.partition(" ")
    if column.unit is None and kind == "number" and (unit := _unit_of(excerpt)):
        return "; write it as text" if pushed else f"; a column of numbers says what they count, as col(unit={unit!r})"
    time = _time_of(excerpt.strip('"')) if kind == "string" else None
    if time is None:
        return ""
    if column.unit is not None:
        return "" if pushed else "; a column takes times as text without unit=…"
    return "" if time.tzinfo else "; it has no zone: add that which is meant, as Z for UTC"


def _unit_of(number: str) -> str | None:
    """The unit in which a number is a time of 1973 to 2286, as the definition writes it; None where in none."""
    digits = len(number) if number.isdecimal() else 0
    units = {10: "s", 13: "ms", 16: "us", 19: "ns"}
    return units.get(digits) or units.get(digits + 1)


def _time_of(text: str) -> datetime.datetime | None:
    """The time that a text is, with or without a zone; a date alone is none."""
    try:
        return datetime.datetime.fromisoformat(text) if len(text) > len("2026-01-31") else None
    except ValueError:
        return None


def _say_element(column: ColumnSpec, number: int, came: str) -> str:
    """The sentence for an element of a column's list that does not fit its type."""
    kind = column.type.scalar.name
    fix = "; no element is null: leave it out" if came == "null" else ""
    there = f"{where(column)}[{number}]"
    return f"{column.name}[{number}]: expected {kind} ({_takes_one(column)}), got {came} ({there}){fix}"


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
    return _takes_one(column) if column.type.element is None else _of_each(column.type, _takes_one(column))


def _takes_one(column: ColumnSpec) -> str:
    """What one value takes: the column's, or an element of its list."""
    if column.origin is Origin.RECORD_TIMESTAMP:
        return "a time in the years 1 to 9999"
    if column.unit is not None:
        return f"a whole number of {_UNITS[column.unit]} since 1970, in the years 1 to 9999"
    if column.type.name == BYTES.name and column.origin is not Origin.VALUE:
        return "bytes"
    return _TAKES[column.type.scalar.name] + (', or "NaN", "Infinity" or "-Infinity"' if column.spelled else "")


def _of_each(kind: FieldType, taken: str) -> str:
    """What a list takes, whose elements take this."""
    return f"a list{'' if kind.size is None else f' of exactly {kind.size}'}, each {taken}"


def _came(value: bytes, rule: str, path: Sequence[str | int]) -> str:
    """What the value holds at the path: kind and excerpt, or the kind alone where a field given twice leaves doubt."""
    got = _GOT.fullmatch(rule)
    kind = _KINDS.get(got["kind"], got["kind"]) if got else None
    try:
        found = json.loads(value.decode("utf-8", "replace"), parse_int=_Number, parse_float=_Number)
        for name in path:
            found = found[name]
    except (ValueError, LookupError, TypeError):
        return kind or shown(value)
    if isinstance(found, list) and _LENGTH.fullmatch(rule):
        return f"a list of {len(found)}"
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
