"""What is accepted as an event, what is not and why, and that no record decides about another."""

import datetime
import json
import math
import random
import struct
import threading
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillwell.decode import MAX_NESTING, Decoder
from stillwell.errors import DefinitionError
from stillwell.records import Records
from stillwell.spec import ColumnSpec, Origin, TopicSpec
from stillwell.types import (
    BOOL,
    BYTES,
    FLOAT32,
    FLOAT64,
    INT32,
    INT64,
    STRING,
    TIMESTAMP,
    FieldType,
    list_of,
    vector_of,
)
from tests.batches import NOW, NOW_MS, column, event, records, take, topic

UTC = datetime.UTC


def text(value: str) -> bytes:
    """An event whose field `x` is written like this."""
    return f'{{"at": "{NOW}", "x": {value}}}'.encode()


def decoded(x: ColumnSpec, batch: Records) -> list[Any]:
    """The column `x` of a batch in which everything is accepted."""
    outcome = Decoder(topic(x)).decode(batch)
    assert outcome.rejects == ()
    return outcome.frame.get_column("T.x").to_list()


def refusal(source: TopicSpec, batch: Records) -> tuple[str, str]:
    """The reason why the only record of a batch is refused."""
    outcome = Decoder(source).decode(batch)
    assert outcome.frame.height == 0
    (reject,) = outcome.rejects
    assert (reject.offset, reject.view) == (int(batch.offsets[0]), None)
    return reject.reason, reject.error


# What fits a type, and what does not

ACCEPTED: list[tuple[ColumnSpec, str, object]] = [
    (column("x", BOOL), "true", True),
    (column("x", INT32), "2147483647", 2147483647),
    (column("x", INT32), "-2147483648", -2147483648),
    (column("x", INT32), "-0", 0),
    (column("x", INT64), "9223372036854775807", 2**63 - 1),
    (column("x", INT64), "-9223372036854775808", -(2**63)),
    (column("x", FLOAT32), "1", 1.0),
    (column("x", FLOAT32), "0.1", struct.unpack("f", struct.pack("f", 0.1))[0]),
    (column("x", FLOAT32), "3.4028235e38", 3.4028234663852886e38),
    (column("x", FLOAT32), "3.40282356e38", 3.4028234663852886e38),
    (column("x", FLOAT64), "-1e-320", -1e-320),
    (column("x", FLOAT64), "9" * 300, 1e300),
    (column("x", STRING), '""', ""),
    (column("x", STRING), r'"\u0000\n\ud83d\ude00"', "\0\n😀"),
    (column("x", BYTES), '"/+8="', b"\xff\xef"),
    (column("x", BYTES), '""', b""),
    (column("x", TIMESTAMP), '"2026-01-01T01:00:00+01:00"', datetime.datetime(2026, 1, 1, tzinfo=UTC)),
    (column("x", TIMESTAMP), '"2026-01-01 00:00:00.5z"', datetime.datetime(2026, 1, 1, 0, 0, 0, 500_000, UTC)),
    (
        column("x", TIMESTAMP),
        '"1969-12-31T23:59:59.9999994Z"',
        datetime.datetime(1969, 12, 31, 23, 59, 59, 999_999, UTC),
    ),
    (column("x", TIMESTAMP), '"1969-12-31T23:59:59.9999995Z"', datetime.datetime(1970, 1, 1, tzinfo=UTC)),
    (column("x", TIMESTAMP), '"0001-01-01T00:00:00Z"', datetime.datetime(1, 1, 1, tzinfo=UTC)),
    (
        column("x", TIMESTAMP),
        '"9999-12-31T23:59:59.999999Z"',
        datetime.datetime(9999, 12, 31, 23, 59, 59, 999_999, UTC),
    ),
    (column("x", TIMESTAMP, unit="s"), "-62135596800", datetime.datetime(1, 1, 1, tzinfo=UTC)),
    (column("x", TIMESTAMP, unit="s"), "253402300799", datetime.datetime(9999, 12, 31, 23, 59, 59, 0, UTC)),
    (column("x", TIMESTAMP, unit="ms"), "-1", datetime.datetime(1969, 12, 31, 23, 59, 59, 999_000, UTC)),
    (column("x", TIMESTAMP, unit="us"), "1", datetime.datetime(1970, 1, 1, 0, 0, 0, 1, UTC)),
    (column("x", TIMESTAMP, unit="us"), "253402300799999999", datetime.datetime.max.replace(tzinfo=UTC)),
    (column("x", TIMESTAMP, unit="ns"), "1999", datetime.datetime(1970, 1, 1, 0, 0, 0, 1, UTC)),
    (column("x", TIMESTAMP, unit="ns"), "-1", datetime.datetime(1969, 12, 31, 23, 59, 59, 999_999, UTC)),
    (
        column("x", TIMESTAMP, unit="ns"),
        "9223372036854775807",
        datetime.datetime(2262, 4, 11, 23, 47, 16, 854775, UTC),
    ),
]


@pytest.mark.parametrize(("x", "written", "value"), ACCEPTED)
def test_a_value_that_fits_becomes_itself(x: ColumnSpec, written: str, value: object) -> None:
    assert decoded(x, records([text(written)])) == [value]


REFUSED: list[tuple[ColumnSpec, str, str]] = [
    (column("x", BOOL), "1", "x: expected Bool (true or false), got number 1 (at $.x)"),
    (column("x", BOOL), '"true"', 'got string "true" (at $.x)'),
    (column("x", INT32), "2147483648", "expected Int32 (a whole number from -2147483648 to 2147483647"),
    (column("x", INT32), "-2147483649", "got number -2147483649"),
    (column("x", INT32), "1.0", "without fraction or exponent), got number 1.0"),
    (column("x", INT32), "1e3", "got number 1e3"),
    (column("x", INT32), "true", "got boolean true"),
    (column("x", INT64), "9223372036854775808", "got number 9223372036854775808"),
    (column("x", INT64), "-9223372036854775809", "got number -9223372036854775809"),
    (column("x", FLOAT32), '"abc"', 'x: expected Float32 (a number within ±3.4028235e38), got string "abc" (at $.x)'),
    (column("x", FLOAT32), "3.4028235677973366e38", "got number 3.4028235677973366e38"),
    (column("x", FLOAT32), "-3.4028235677973366e38", "got number -3.4028235677973366e38"),
    (column("x", FLOAT32), "-1e39", "got number -1e39"),
    (column("x", FLOAT32), "false", "got boolean false"),
    (column("x", FLOAT64), "1e309", "expected Float64 (a number within ±1.7976931e308), got number 1e309"),
    (column("x", FLOAT64), "NaN", "JSON is malformed"),
    (column("x", FLOAT64), "-Infinity", "JSON is malformed"),
    (column("x", FLOAT64), '"NaN"', 'got string "NaN"'),
    (column("x", STRING), "5", "expected String (Unicode text), got number 5"),
    (column("x", STRING), '["a"]', "got array (at $.x)"),
    (column("x", STRING), '{"a": 1}', "got object (at $.x)"),
    (column("x", STRING), r'"\ud800"', "value: expected one JSON object in UTF-8"),
    (column("x", STRING), r'"\udc00 and more text"', "value: expected one JSON object in UTF-8"),
    (column("x", STRING), r'"\ud800\ud800 and more"', "value: expected one JSON object in UTF-8"),
    (column("x", BYTES), '"abc"', "expected Bytes (base64 text)"),
    (column("x", BYTES), '"_-8="', "expected Bytes (base64 text)"),
    (column("x", TIMESTAMP), '"2026-01-01T00:00:00"', "ISO-8601 text with a zone"),
    (column("x", TIMESTAMP), '"2026-01-01"', 'got string "2026-01-01"'),
    (column("x", TIMESTAMP), '"2026-01-01T24:00:00Z"', "expected Timestamp"),
    (column("x", TIMESTAMP), '"2026-02-29T00:00:00Z"', "expected Timestamp"),
    (column("x", TIMESTAMP), "1767225600", "expected Timestamp (ISO-8601 text with a zone"),
    (column("x", TIMESTAMP), '"0001-01-01T00:00:00+01:00"', "in the years 1 to 9999"),
    (column("x", TIMESTAMP), '"9999-12-31T23:59:59-01:00"', "in the years 1 to 9999"),
    (column("x", TIMESTAMP, unit="s"), "1767225600.5", "a whole number of seconds since 1970, in the years 1 to 9999"),
    (column("x", TIMESTAMP, unit="s"), "1.7672256e9", "got number 1.7672256e9"),
    (column("x", TIMESTAMP, unit="s"), '"1767225600"', 'got string "1767225600"'),
    (column("x", TIMESTAMP, unit="s"), "253402300800", "got number 253402300800"),
    (column("x", TIMESTAMP, unit="s"), "-62135596801", "got number -62135596801"),
    (column("x", TIMESTAMP, unit="ms"), "253402300800000", "a whole number of milliseconds"),
    (column("x", TIMESTAMP, unit="us"), "253402300800000000", "a whole number of microseconds"),
    (column("x", TIMESTAMP, unit="ns"), "9223372036854775808", "a whole number of nanoseconds"),
]


@pytest.mark.parametrize(("x", "written", "phrase"), REFUSED)
def test_a_value_that_does_not_fit_is_refused_with_what_came_and_where(
    x: ColumnSpec, written: str, phrase: str
) -> None:
    reason, error = refusal(topic(x), records([text(written)]))
    assert reason == "decode"
    assert phrase in error


@pytest.mark.parametrize(
    ("value", "phrase"),
    [
        (b"", "got b'' (Input data was truncated)"),
        (b" ", "truncated"),
        (b"{", "truncated"),
        (b"null", "value: expected an object, got null (at $)"),
        (b"[]", "value: expected an object, got array (at $)"),
        (b"5", "value: expected an object, got number 5 (at $)"),
        (b"\xef\xbb\xbf" + event(x="a"), "invalid character (byte 0)"),
        (event(x="a") + event(x="a"), "trailing characters"),
        (event(x="a") + b"\n" + event(x="a"), "trailing characters"),
        (event(x="a").decode().encode("utf-16"), "JSON is malformed"),
        (event(x="\udcff").replace(b"\\udcff", b"\xff"), "can't decode byte 0xff"),
        (event(x="\udcff").replace(b"\\udcff", b"\xed\xa0\x80"), "can't decode byte 0xed"),
        (event(x="a").replace(b'"a"', b'"a\nb"'), "JSON is malformed"),
        (event(x="a", more=1).replace(b"1}", b"01}"), "JSON is malformed"),
        (event(x="a", more="\udc00, which no column reads"), "JSON is malformed"),
        (event(x="a", more=1).replace(b"1}", b"1,}"), "trailing comma"),
        (b"{'at': 1}", "object keys must be strings"),
    ],
)
def test_what_is_not_one_json_object_is_refused_as_a_whole(value: bytes, phrase: str) -> None:
    reason, error = refusal(topic(column("x", STRING)), records([value]))
    assert reason == "decode"
    assert error.startswith("value: expected ")
    assert phrase in error


def test_fields_that_no_column_reads_are_skipped_whatever_they_hold() -> None:
    odd = text('7, "X": "no", "big": 1e999, "deep": [[{"a": [null]}]], "bytes": "?"').replace(b"?", b"\xff\xfe")
    assert decoded(column("x", INT32), records([odd])) == [7]


def test_of_a_field_that_is_given_twice_the_last_counts_and_each_must_fit() -> None:
    x = column("x", INT32)
    assert decoded(x, records([text('1, "x": 2')])) == [2]
    for written in ('1, "x": "a"', '"a", "x": 1'):
        reason, error = refusal(topic(x), records([text(written)]))
        assert reason == "decode"
        assert error.endswith(('got string "a" (at $.x)', "got string (at $.x)"))


def test_a_record_without_a_value_is_refused_with_a_reason_of_its_own() -> None:
    reason, error = refusal(topic(), records([None]))
    assert reason == "null_value"
    assert error == "value: T takes no deletes, got a record without a value"


@pytest.mark.parametrize("kind", [BOOL, INT32, INT64, FLOAT32, FLOAT64, STRING, BYTES, TIMESTAMP])
def test_a_missing_field_and_null_are_both_null_and_refused_only_where_null_may_not_be(kind: Any) -> None:
    batch = records([event(), event(x=None)])
    assert decoded(column("x", kind, nullable=True), batch) == [None, None]
    missing, null = Decoder(topic(column("x", kind))).decode(batch).rejects
    assert f"x: expected {kind.name} (" in missing.error
    assert missing.error.endswith("got nothing (at $.x); send it, or declare the column nullable")
    assert null.error.endswith("got null (at $.x)")


@pytest.mark.parametrize(
    ("unit", "came", "fix"),
    [
        (None, "1796198535", "; a column of numbers says what they count, as col(unit='s')"),
        (None, "1796198535574", "; a column of numbers says what they count, as col(unit='ms')"),
        (None, "1796198535574000", "; a column of numbers says what they count, as col(unit='us')"),
        (None, "796198535574000000", "; a column of numbers says what they count, as col(unit='ns')"),
        (None, "5", ""),
        (None, "1796198535.5", ""),
        (None, '"2026-01-01T00:00:00"', "; it has no zone: add that which is meant, as Z for UTC"),
        (None, '"2026-01-01"', ""),
        (None, '"soon, but not yet"', ""),
        ("ms", '"2026-01-01T00:00:00+02:00"', "; a column takes times as text without unit=…"),
        ("ms", "1796198535574.0", ""),
    ],
)
def test_what_is_a_time_to_people_but_not_to_the_column_says_what_to_do(unit: Any, came: str, fix: str) -> None:
    _, error = refusal(topic(column("x", TIMESTAMP, unit=unit)), records([text(came)]))
    assert error.endswith(f"(at $.x){fix}")


@pytest.mark.parametrize(
    ("unit", "came", "fix"),
    [(None, "1796198535574", "; write it as text"), ("ms", '"2026-01-01T00:00:00Z"', "")],
)
def test_who_pushes_is_not_told_to_change_the_definition(unit: Any, came: str, fix: str) -> None:
    pushed = topic(column("x", TIMESTAMP, unit=unit)).model_copy(update={"pushed": True})
    _, error = refusal(pushed, records([text(came)]))
    assert error.endswith(f"(at $.x){fix}")


def test_a_fault_in_the_middle_of_a_value_is_shown() -> None:
    long = "y" * 500
    for wrong, told in (
        ("NaN", "; NaN is no JSON: have null written in its place"),
        ("-Infinity", "; -Infinity is no JSON: have null written in its place"),
        ("?!", "; there it goes on as b'?!}'"),
    ):
        _, error = refusal(
            topic(column("x", STRING)), records([f'{{"at": "{NOW}", "a": "{long}", "x": {wrong}}}'.encode()])
        )
        assert error.endswith(told)
        assert len(error) < 300
    _, error = refusal(topic(), records([b"no JSON"]))
    assert error.endswith("(byte 4))")


def test_a_nullable_column_says_so_when_it_refuses() -> None:
    _, error = refusal(topic(column("x", INT32, nullable=True)), records([text('"a"')]))
    assert error.startswith("x: expected Int32 or null (")


def test_only_the_beginning_of_what_came_is_shown() -> None:
    _, error = refusal(topic(column("x", INT32)), records([event(x="y" * 1_000_000)]))
    assert "yyy…" in error
    assert len(error) < 300
    _, error = refusal(topic(), records([b"?" * 1_000_000]))
    assert len(error) < 300


# Nesting


def nested(depth: int) -> bytes:
    """An event whose objects and arrays nest so deep, itself included."""
    arrays = depth - 1
    return f'{{"at": "{NOW}", "deep": {"[" * arrays}{"]" * arrays}}}'.encode()


def test_objects_and_arrays_may_nest_to_the_bound_and_not_beyond() -> None:
    outcome = Decoder(topic()).decode(records([nested(MAX_NESTING), nested(MAX_NESTING + 1), nested(100_000)]))
    assert outcome.frame.get_column("_offset").to_list() == [100]
    assert [(reject.offset, reject.reason) for reject in outcome.rejects] == [(101, "decode"), (102, "decode")]
    assert {reject.error for reject in outcome.rejects} == {"value: objects and arrays may nest 256 deep, got more"}


def test_brackets_in_text_and_side_by_side_do_not_nest() -> None:
    many = MAX_NESTING * 4
    for field in (json.dumps("[{" * many), json.dumps('\\"[{' * many), json.dumps([[{}]] * many), '"\\\\", "y": []'):
        assert Decoder(topic()).decode(records([f'{{"at": "{NOW}", "x": {field}}}'.encode()])).rejects == ()


def test_what_nests_too_deep_does_not_depend_on_the_stack_of_the_caller() -> None:
    decoder = Decoder(topic())
    batch = records([nested(MAX_NESTING), nested(MAX_NESTING + 1)])

    def from_below(frames: int) -> object:
        return from_below(frames - 1) if frames else decoder.decode(batch).rejects

    assert len(decoder.decode(batch).rejects) == 1
    assert from_below(400) == decoder.decode(batch).rejects


# Paths


def test_columns_are_read_along_paths_where_a_missing_or_null_object_makes_them_null() -> None:
    source = topic(
        column("lat", FLOAT64, nullable=True, path=("position", "lat")),
        column("level", INT32, nullable=True, path=("position", "height", "level")),
        column("seen", TIMESTAMP, nullable=True, path=("position", "height", "seen")),
    )
    batch = records(
        [
            event(position={"lat": 1.5, "height": {"level": 3, "seen": NOW}}),
            event(position={"height": {}}),
            event(position={"lat": 2, "height": None}),
            event(position=None),
            event(),
        ]
    )
    outcome = Decoder(source).decode(batch)
    assert outcome.rejects == ()
    assert outcome.frame.get_column("T.lat").to_list() == [1.5, None, 2.0, None, None]
    assert outcome.frame.get_column("T.level").to_list() == [3, None, None, None, None]
    seen = datetime.datetime(2026, 1, 1, tzinfo=UTC)
    assert outcome.frame.get_column("T.seen").to_list() == [seen, None, None, None, None]


def test_an_object_on_the_way_to_a_column_that_takes_no_null_must_be_there() -> None:
    source = topic(
        column("lat", FLOAT64, path=("position", "lat")),
        column("name", STRING, nullable=True, path=("position", "name")),
    )
    batch = records(
        [event(), event(position=None), event(position={}), event(position=[1]), event(position={"lat": "north"})]
    )
    errors = [reject.error for reject in Decoder(source).decode(batch).rejects]
    assert errors == [
        "position: expected an object, got nothing (at $.position)",
        "position: expected an object, got null (at $.position)",
        "lat: expected Float64 (a number within ±1.7976931e308), got nothing (at $.position.lat); "
        "send it, or declare the column nullable",
        "position: expected an object, got array (at $.position)",
        'lat: expected Float64 (a number within ±1.7976931e308), got string "north" (at $.position.lat)',
    ]


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"lat": 1.5, "id": 7}, 'it came at $.lat: send it nested, as {"position": {"lat": …}}'),
        ({"position_lat": 1.5, "id": 7}, "it came at $.position_lat: send it nested"),
        ({"position.lat": 1.5, "id": 7}, "it came at $.position.lat: send it nested"),
        ({"position": {"lat": 1.5}, "car": {"id": 7}}, "id: expected Int64"),
        (
            {"position": {"lat": 1.5}, "car": {"id": 7}},
            "it came at $.car.id: send it at $.id, or define the column with ",
        ),
        ({"position": {"lat": 1.5}, "id": {"id": 7}}, "got object (at $.id); it came at $.id.id: send it at $.id, or "),
    ],
)
def test_an_event_in_another_shape_is_told_where_its_column_came(fields: dict[str, object], says: str) -> None:
    source = topic(column("lat", FLOAT64, path=("position", "lat")), column("id", INT64))
    (reject,) = Decoder(source).decode(records([event(**fields)])).rejects
    assert says in reject.error


def test_a_field_that_another_column_reads_is_not_taken_for_one_in_another_shape() -> None:
    source = topic(column("id", INT64), column("car", INT64, path=("car", "id")))
    (reject,) = Decoder(source).decode(records([event(car={"id": 7})])).rejects
    assert reject.error.endswith("got nothing (at $.id); send it, or declare the column nullable")


def test_any_text_may_be_the_name_of_a_field() -> None:
    names = ["", "a b", "class", "a.b", "'", "`", "naïve", "__init__", "f0", "x); import os; ("]
    source = topic(*(column(f"c{number}", INT32, path=("of", name)) for number, name in enumerate(names)))
    outcome = Decoder(source).decode(records([event(of={name: number for number, name in enumerate(names)})]))
    assert outcome.rejects == ()
    assert [outcome.frame.get_column(f"T.c{number}")[0] for number in range(len(names))] == list(range(len(names)))


@pytest.mark.parametrize("name", ['quote"', "back\\slash", "line\n"])
def test_a_field_whose_name_json_must_escape_is_refused_when_the_topic_is_made(name: str) -> None:
    with pytest.raises(DefinitionError, match=r"T\.x: .* quotation mark, backslash or control character"):
        Decoder(topic(column("x", INT32, path=("of", name))))


def test_two_columns_may_read_one_field_alike() -> None:
    source = topic(column("x", INT32), column("same", INT32, path=("x",)))
    frame = Decoder(source).decode(records([event(x=4)])).frame
    assert frame.select("T.x", "T.same").rows() == [(4, 4)]


@pytest.mark.parametrize(
    "other",
    [
        column("other", INT64, path=("x",)),
        column("other", INT32, nullable=True, path=("x",)),
        column("other", INT32, path=("x", "y")),
    ],
)
def test_two_columns_that_read_one_field_differently_are_refused(other: ColumnSpec) -> None:
    for columns in ((column("x", INT32), other), (other, column("x", INT32))):
        with pytest.raises(DefinitionError, match=r"T\.(other|x): .* otherwise; columns that share a path must agree"):
            Decoder(topic(*columns))


# Key, headers and timestamp


@pytest.mark.parametrize("origin", [Origin.KEY, Origin.HEADER])
@pytest.mark.parametrize(
    ("kind", "unit", "raw", "value"),
    [
        (STRING, None, "ünï".encode(), "ünï"),
        (STRING, None, b"", ""),
        (BYTES, None, b"\xff\x00", b"\xff\x00"),
        (INT64, None, b"-42", -42),
        (INT32, None, b"2147483647", 2147483647),
        (FLOAT32, None, b"1e2", 100.0),
        (BOOL, None, b"true", True),
        (TIMESTAMP, None, b"2026-01-01T00:00:00+00:00", datetime.datetime(2026, 1, 1, tzinfo=UTC)),
        (TIMESTAMP, "ms", b"1", datetime.datetime(1970, 1, 1, 0, 0, 0, 1_000, UTC)),
        (STRING, None, None, None),
        (INT64, None, None, None),
    ],
)
def test_key_and_headers_are_read_as_text_or_bytes(
    origin: Origin, kind: Any, unit: str | None, raw: bytes | None, value: object
) -> None:
    x = column("x", kind, nullable=True, origin=origin, unit=unit, path=("h",) if origin is Origin.HEADER else ())
    assert decoded(x, records([event()], keys=[raw], headers=[(("h", raw),)])) == [value]


@pytest.mark.parametrize(
    ("kind", "raw"),
    [
        (STRING, b"\xff"),
        (INT64, b""),
        (INT64, b"null"),
        (INT64, b"4.0"),
        (INT32, b"2147483648"),
        (INT64, b"\x00\x00\x00\x2a"),
        (FLOAT64, b"NaN"),
        (BOOL, b"True"),
        (TIMESTAMP, b"2026-01-01T00:00:00"),
        (TIMESTAMP, b'"2026-01-01T00:00:00Z"'),
        (TIMESTAMP, b"\xff"),
        (TIMESTAMP, b"0001-01-01T00:00:00+01:00"),
    ],
)
def test_a_key_or_header_that_does_not_fit_is_refused_alone(kind: Any, raw: bytes) -> None:
    for origin, place in ((Origin.KEY, "in the record's key"), (Origin.HEADER, "in header h")):
        x = column("x", kind, nullable=True, origin=origin, path=("h",) if origin is Origin.HEADER else ())
        batch = records([event()] * 3, keys=[None, raw, None], headers=[(), (("h", raw),), ()])
        outcome = Decoder(topic(x)).decode(batch)
        assert outcome.frame.get_column("_offset").to_list() == [100, 102]
        (reject,) = outcome.rejects
        assert (reject.offset, reject.reason) == (101, "decode")
        assert reject.error.startswith(f"x: expected {kind.name} or null (")
        assert f"({place})" in reject.error


def test_of_headers_with_one_name_the_last_counts_even_without_a_value() -> None:
    x = column("x", STRING, nullable=True, origin=Origin.HEADER, path=("h",))
    headers = [(("h", b"1"), ("other", b"9"), ("h", b"2")), (("h", b"1"), ("h", None)), (("H", b"1"),)]
    assert decoded(x, records([event()] * 3, headers=headers)) == ["2", None, None]


def test_a_key_that_may_not_be_null_is_asked_for() -> None:
    _, error = refusal(topic(column("x", STRING, origin=Origin.KEY)), records([event()]))
    assert "got nothing (in the record's key)" in error


def test_the_records_timestamp_is_a_column_and_null_where_kafka_has_none() -> None:
    times = [NOW_MS, 0, -1]
    x = column("x", TIMESTAMP, nullable=True, origin=Origin.RECORD_TIMESTAMP)
    first, epoch, none = decoded(x, records([event()] * 3, timestamps=times))
    assert first == datetime.datetime(2026, 1, 1, tzinfo=UTC)
    assert epoch == datetime.datetime(1970, 1, 1, tzinfo=UTC)
    assert none is None


@pytest.mark.parametrize("timestamp", [2**63 - 1, -(2**63), 253_402_300_800_000, -62_135_596_800_001])
def test_a_records_timestamp_beyond_the_calendar_is_refused_where_it_is_read(timestamp: int) -> None:
    x = column("x", TIMESTAMP, nullable=True, origin=Origin.RECORD_TIMESTAMP)
    reason, error = refusal(topic(x), records([event()], timestamps=[timestamp]))
    assert reason == "decode"
    assert error.endswith("got a time beyond those years (as the record's timestamp)")
    assert Decoder(topic()).decode(records([event()], timestamps=[timestamp])).rejects == ()


# The batch


def test_the_columns_are_those_of_the_topic_by_their_qualified_names_and_types() -> None:
    source = topic(column("x", FLOAT32), column("k", BYTES, nullable=True, origin=Origin.KEY))
    decoder = Decoder(source)
    expected = {
        "T.at": pl.Datetime("us", "UTC"),
        "T.x": pl.Float32(),
        "T.k": pl.Binary(),
        "_offset": pl.Int64(),
        "_timestamp": pl.Int64(),
    }
    for batch in (records([event(x=1)]), records([]), records([b"?", None])):
        assert dict(decoder.decode(batch).frame.schema) == expected
    assert dict(decoder.empty.schema) == expected


def test_rejects_come_in_offset_order_whatever_found_them() -> None:
    source = topic(column("x", INT32), column("k", INT32, origin=Origin.KEY))
    batch = records([event(x=1), b"?", event(x=2), None, event(x=3)], keys=[b"a", b"1", b"2", b"3", b"b"])
    outcome = Decoder(source).decode(batch)
    assert [(reject.offset, reject.reason) for reject in outcome.rejects] == [
        (100, "decode"),
        (101, "decode"),
        (103, "null_value"),
        (104, "decode"),
    ]
    assert outcome.frame.select("T.x", "T.k", "_offset", "_timestamp").rows() == [(2, 2, 102, NOW_MS)]


def test_a_batch_that_is_not_of_bytes_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(TypeError):
        Decoder(topic()).decode(records([event(), 5]))  # type: ignore[list-item]


def test_one_decoder_serves_several_threads() -> None:
    decoder = Decoder(topic(column("x", INT64)))
    results: dict[int, list[int]] = {}

    def decode(worker: int) -> None:
        batch = records([event(x=worker * 1_000 + number) for number in range(500)])
        results[worker] = [x for _ in range(5) for x in decoder.decode(batch).frame.get_column("T.x")]

    threads = [threading.Thread(target=decode, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {worker: [worker * 1_000 + number for number in range(500)] * 5 for worker in range(4)}


# No record decides about another

MIXED = topic(
    column("flag", BOOL, nullable=True),
    column("small", INT32, nullable=True),
    column("whole", INT64),
    column("single", FLOAT32, nullable=True),
    column("double", FLOAT64, nullable=True, path=("in", "double")),
    column("name", STRING, nullable=True, path=("in", "name")),
    column("blob", BYTES, nullable=True),
    column("seen", TIMESTAMP, nullable=True),
    column("tick", TIMESTAMP, nullable=True, unit="ns"),
    column("key", INT64, nullable=True, origin=Origin.KEY),
    column("trace", STRING, nullable=True, origin=Origin.HEADER, path=("trace",)),
    column("stored", TIMESTAMP, nullable=True, origin=Origin.RECORD_TIMESTAMP),
)

ZONES = st.integers(-1_439, 1_439).map(lambda minutes: datetime.timezone(datetime.timedelta(minutes=minutes)))
TIMES = st.datetimes(timezones=ZONES)
JSON_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=5),
    st.lists(st.integers(), max_size=2),
    st.just({}),
    TIMES.map(datetime.datetime.isoformat),
    st.datetimes().map(datetime.datetime.isoformat),
)


HEADERS = st.tuples(st.sampled_from(["trace", "other"]), st.none() | st.binary(max_size=2))


@st.composite
def values(draw: st.DrawFn) -> bytes | None:
    """An event of the topic above, mostly right, somewhat wrong, or not even JSON."""
    kind = draw(st.integers(0, 9))
    if kind == 0:
        return draw(st.one_of(st.none(), st.binary(max_size=20)))
    document: dict[str, Any] = {
        "at": NOW,
        "flag": draw(st.booleans()),
        "small": draw(st.integers(-(2**31), 2**31 - 1)),
        "whole": draw(st.integers(-(2**63), 2**63 - 1)),
        "single": draw(st.floats(width=32, allow_nan=False, allow_infinity=False)),
        "in": {"double": draw(st.floats(allow_nan=False, allow_infinity=False)), "name": draw(st.text(max_size=8))},
        "seen": draw(TIMES).isoformat(),
        "tick": draw(st.integers(-(2**63), 2**63 - 1)),
    }
    for name in draw(st.lists(st.sampled_from([*document, "blob"]), max_size=2 if kind < 5 else 0)):
        document[name] = draw(JSON_VALUES)
    for name in draw(st.lists(st.sampled_from(sorted(document)), max_size=1)):
        del document[name]
    encoded = json.dumps(document, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
    if kind == 1:
        cut = draw(st.integers(0, len(encoded)))
        return encoded[:cut] + draw(st.binary(max_size=2)) + encoded[cut + draw(st.integers(0, 2)) :]
    return encoded


@st.composite
def batches(draw: st.DrawFn) -> Records:
    """A batch of such records."""
    count = draw(st.integers(0, 12))
    return records(
        [draw(values()) for _ in range(count)],
        keys=[draw(st.one_of(st.none(), st.integers().map(lambda key: b"%d" % key))) for _ in range(count)],
        headers=[tuple(draw(st.lists(HEADERS, max_size=2))) for _ in range(count)],
        timestamps=[draw(st.sampled_from([NOW_MS, 0, -1, 2**62])) for _ in range(count)],
    )


def fates(decoder: Decoder, *parts: Records) -> dict[int, object]:
    """What became of each offset: every value, floats by their bits, or the reason against it."""
    result: dict[int, object] = {}
    for part in parts:
        outcome = decoder.decode(part)
        assert len(outcome.rejects) + outcome.frame.height == len(part)
        bits = outcome.frame.with_columns(
            pl.col(pl.Float32).reinterpret(dtype=pl.UInt32), pl.col(pl.Float64).reinterpret(dtype=pl.UInt64)
        )
        result |= {row["_offset"]: row for row in bits.with_columns(pl.col(pl.Datetime).to_physical()).to_dicts()}
        result |= {reject.offset: reject for reject in outcome.rejects}
        assert len(result) >= len(part)
    return result


@settings(deadline=None, derandomize=True, max_examples=100)
@given(batches(), st.randoms(use_true_random=False), st.integers(0, 12))
def test_a_records_fate_is_its_own(batch: Records, chance: random.Random, cut: int) -> None:
    """One by one, in any order and however the batch is cut, every record gives the same values or the same reason."""
    decoder = Decoder(MIXED)
    whole = fates(decoder, batch)
    positions = list(range(len(batch)))
    assert fates(decoder, *(take(batch, [position]) for position in positions)) == whole
    assert fates(decoder, take(batch, positions[:cut]), take(batch, positions[cut:])) == whole
    chance.shuffle(positions)
    assert fates(decoder, take(batch, positions)) == whole


@settings(deadline=None, derandomize=True, max_examples=100)
@given(
    whole=st.integers(-(2**63), 2**63 - 1),
    single=st.floats(width=32, allow_nan=False, allow_infinity=False),
    double=st.floats(allow_nan=False, allow_infinity=False),
    name=st.text(),
    seen=TIMES,
    tick=st.integers(-(2**63), 2**63 - 1),
)
def test_values_arrive_to_the_bit(
    whole: int, single: float, double: float, name: str, seen: datetime.datetime, tick: int
) -> None:
    inner = {"double": double, "name": name}
    value = event(whole=whole, single=single, seen=seen.isoformat(), tick=tick, **{"in": inner})
    outcome = Decoder(MIXED).decode(records([value]))
    microseconds = (seen - datetime.datetime(1970, 1, 1, tzinfo=UTC)) // datetime.timedelta(microseconds=1)
    if not -62_135_596_800_000_000 <= microseconds <= 253_402_300_799_999_999:
        assert "a time beyond those years (at $.seen)" in outcome.rejects[0].error
        return
    frame = outcome.frame
    assert frame.get_column("T.whole")[0] == whole
    assert struct.pack("d", frame.get_column("T.single")[0]) == struct.pack("d", single)
    assert struct.pack("d", frame.get_column("T.double")[0]) == struct.pack("d", double)
    assert frame.get_column("T.name")[0] == name
    assert frame.get_column("T.seen").to_physical()[0] == microseconds
    assert frame.get_column("T.tick").to_physical()[0] == math.floor(tick // 1_000)


# Lists and vectors


def of_lists(x: ColumnSpec, size: int | None = None) -> ColumnSpec:
    """The column of lists, or vectors, of what a column has."""
    kind = list_of(x.type) if size is None else vector_of(x.type, size)
    return x.model_copy(update={"type": kind})


@pytest.mark.parametrize(("x", "written", "value"), ACCEPTED)
def test_an_element_fits_where_a_value_of_its_type_does(x: ColumnSpec, written: str, value: object) -> None:
    batch = records([text(f"[{written}]"), text("[]"), text(f"[{written}, {written}]")])
    assert decoded(of_lists(x), batch) == [[value], [], [value, value]]
    assert decoded(of_lists(x, 2), take(batch, [2])) == [[value, value]]
    maybe = of_lists(x, 1).model_copy(update={"nullable": True})
    assert decoded(maybe, records([text("null"), text(f"[{written}]"), event()])) == [None, [value], None]


@pytest.mark.parametrize(("x", "written", "says"), REFUSED)
def test_an_element_is_refused_where_a_value_of_its_type_is_and_its_place_is_told(
    x: ColumnSpec, written: str, says: str
) -> None:
    reason, error = refusal(topic(of_lists(x, 1)), records([text(f"[{written}]")]))
    assert reason == "decode"
    if not error.startswith("value: "):
        kind = x.type.name if error.startswith("x[0]: ") else f"Vector[{x.type.name}, 1]"  # a time beyond the years
        assert error.startswith(("x[0]: expected ", "x: expected "))
        assert kind in error
        assert "$.x" in error


@pytest.mark.parametrize(
    ("kind", "written", "says"),
    [
        (
            list_of(STRING),
            '["a", null]',
            "x[1]: expected String (Unicode text), got null (at $.x[1]); no element is null",
        ),
        (list_of(STRING), '"a"', 'x: expected List[String] (a list, each Unicode text), got string "a" (at $.x)'),
        (list_of(STRING), '{"0": "a"}', "got object (at $.x)"),
        (list_of(STRING), "null", "x: expected List[String]"),
        (list_of(INT64), "[1, 2.0]", "x[1]: expected Int64"),
        (list_of(INT64), "[[1]]", "x[0]: expected Int64"),
        (vector_of(FLOAT32, 3), "[1, 2]", "x: expected Vector[Float32, 3] (a list of exactly 3, each a number within"),
        (vector_of(FLOAT32, 3), "[1, 2]", "got a list of 2 (at $.x)"),
        (vector_of(FLOAT32, 3), "[1, 2, 3, 4]", "got a list of 4 (at $.x)"),
        (vector_of(FLOAT32, 3), "[1, null, 3]", "x[1]: expected Float32"),
    ],
)
def test_what_is_no_such_list_is_refused_with_its_lengths_or_its_elements_place(
    kind: FieldType, written: str, says: str
) -> None:
    reason, error = refusal(topic(column("x", kind)), records([text(written)]))
    assert reason == "decode"
    assert says in error


def test_the_place_of_an_element_is_told_by_its_path_and_a_name_may_look_like_one() -> None:
    nested = column("x", list_of(INT64), path=("a", "b[0]"))
    record = json.dumps({"at": NOW, "a": {"b[0]": [1, "x"]}}).encode()
    _, error = refusal(topic(nested), records([record]))
    assert error.startswith("x[1]: expected Int64")
    assert error.endswith('got string "x" (at $.a.b[0][1])')
    _, error = refusal(
        topic(column("x", INT64, path=("b[0]",))), records([json.dumps({"at": NOW, "b[0]": "x"}).encode()])
    )
    assert error.startswith("x: expected Int64")
