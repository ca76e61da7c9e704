"""Values on the command line: what is taken for a key, and what of the outside world reaches a terminal."""

import datetime
import math

import pytest

from stillwell.cli.values import instant, jsonable, parse, printable, shown, text_of
from stillwell.types import BOOL, BYTES, FLOAT32, INT32, INT64, STRING, TIMESTAMP, FieldType, list_of, vector_of

NOON = datetime.datetime(2026, 1, 31, 12, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (STRING, "JFK", "JFK"),
        (STRING, "", ""),
        (STRING, "a=b", "a=b"),
        (INT32, "-7", -7),
        (INT64, str(2**63 - 1), 2**63 - 1),
        (BOOL, "true", True),
        (BOOL, "false", False),
        (BYTES, "aGk=", b"hi"),
        (TIMESTAMP, "2026-01-31T12:00:00Z", NOON),
        (TIMESTAMP, "2026-01-31T13:00:00+01:00", NOON),
        (list_of(INT64), " [1, -2]", [1, -2]),
        (list_of(INT64), "[]", []),
        (list_of(STRING), '["a,b", "\\u00e9"]', ["a,b", "é"]),
        (list_of(TIMESTAMP), '["2026-01-31T12:00:00Z"]', [NOON]),
        (vector_of(FLOAT32, 3), '[1, 2.5, "-Infinity"]', [1.0, 2.5, -math.inf]),
        (vector_of(BYTES, 1), '["aGk="]', [b"hi"]),
    ],
)
def test_a_key_is_read_by_its_type(kind: FieldType, text: str, value: object) -> None:
    parsed = parse(kind, text)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("kind", "text", "says"),
    [
        (INT32, str(2**31), "a whole number that fits Int32"),
        (INT64, "1.0", "a whole number"),
        (INT64, "007", "a whole number"),
        (INT64, "seven", "a whole number"),
        (BOOL, "yes", "true or false"),
        (BYTES, "???", "base64"),
        (TIMESTAMP, "2026-01-31T12:00:00", "a time with its zone"),
        (TIMESTAMP, "1700000000", "a time with its zone"),
        (list_of(INT64), "1, 2", r"List\[Int64\]: a list in JSON, as \[1, 2\]"),
        (list_of(INT64), '{"a": 1}', "a list in JSON"),
    ],
)
def test_anything_else_is_refused_with_what_is_taken(kind: FieldType, text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says) as refused:
        parse(kind, text)
    assert repr(text) in str(refused.value)


@pytest.mark.parametrize(
    ("kind", "text", "says"),
    [
        (list_of(INT64), "[1, null]", r"has an element 1 that must be a whole number that fits Int64, got 'null'"),
        (list_of(INT64), '["1"]', r"has an element 0 that must be Int64, got \"1\""),
        (list_of(STRING), "[1]", "has an element 0 that must be String, got 1"),
        (list_of(FLOAT32), '["x"]', "has an element 0 that must be Float32"),
        (list_of(FLOAT32), "[[1]]", "has an element 0 that must be a number"),
        (vector_of(FLOAT32, 2), "[1]", r"must be Vector\[Float32, 2\], a list of exactly 2, not of 1"),
    ],
)
def test_a_list_of_other_elements_is_refused_with_the_place(kind: FieldType, text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse(kind, text)


def test_json_has_every_value() -> None:
    assert jsonable(NOON) == "2026-01-31T12:00:00Z"
    assert jsonable(b"hi") == "aGk="
    assert [jsonable(value) for value in (math.nan, math.inf, -math.inf)] == ["NaN", "Infinity", "-Infinity"]
    assert [jsonable(value) for value in (1.5, 7, True, None, "x")] == [1.5, 7, True, None, "x"]
    assert jsonable([math.nan, b"hi", NOON]) == ["NaN", "aGk=", "2026-01-31T12:00:00Z"]
    assert shown([1, 2, 3]) == "[1, 2, 3]"
    assert shown(list(range(1_000))) == "[0, 1, 2, 3, 4, 5, 6, 7, …] (1,000 elements)"
    assert shown("é\x9b") == '"é\\x9b"'


def test_nothing_that_a_terminal_obeys_is_printed() -> None:
    assert printable("plain, é, 日本\n\t") == "plain, é, 日本\n\t"
    assert printable("\x1b[31mred\x07\r\x7f\x9b\u202e") == "\\x1b[31mred\\x07\\r\\x7f\\x9b\\u202e"


def test_bytes_are_text_where_they_can_be() -> None:
    assert text_of("é".encode()) == ("é", "utf-8")
    assert text_of(b"\xff") == ("/w==", "base64")


def test_a_time_of_kafka_is_shown_even_where_no_calendar_has_it() -> None:
    assert instant(1_769_860_800_000) == "2026-01-31T12:00:00Z"
    assert instant(-1) == "1969-12-31T23:59:59.999000Z"
    assert instant(2**62) == str(2**62)
