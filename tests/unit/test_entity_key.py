"""Entity keys: one for each entity, the same from every writer, and never two entities of one key."""

import datetime
from collections.abc import Sequence

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillwell.layout.entity_key import MAX_KEY_BYTES, WrongKey, entity_key, entity_keys, keys_of_columns, too_long
from stillwell.series import FEW
from stillwell.spec import KeySpec
from stillwell.types import BOOL, BYTES, FLOAT64, INT32, INT64, STRING, TIMESTAMP, FieldType

UTC = datetime.UTC
VALUES: dict[str, st.SearchStrategy[object]] = {
    "Bool": st.booleans(),
    "Int32": st.integers(-(2**31), 2**31 - 1),
    "Int64": st.integers(-(2**63), 2**63 - 1),
    "String": st.text(max_size=20),
    "Bytes": st.binary(max_size=20),
    "Timestamp": st.datetimes(timezones=st.just(UTC)),
}
TYPES = [BOOL, INT32, INT64, STRING, BYTES, TIMESTAMP]


def specs(*types: FieldType) -> list[KeySpec]:
    return [KeySpec(name=f"key{at}", type=each) for at, each in enumerate(types)]


def read_back(key: bytes) -> list[tuple[bytes, bytes]]:
    """Tag and payload of each field, from the key alone, as the reference page says."""
    fields = []
    while key:
        head, _, rest = key.partition(b":")
        tag, length = head[:1], int(head[1:])
        fields.append((tag, rest[:length]))
        key = rest[length:]
    return fields


ENTITIES = st.lists(st.sampled_from(TYPES), min_size=1, max_size=4).flatmap(
    lambda types: st.tuples(
        st.just(specs(*types)), st.lists(st.tuples(*(VALUES[each.name] for each in types)), max_size=12)
    )
)


@settings(deadline=None, max_examples=50)
@given(ENTITIES)
def test_columns_give_the_keys_that_single_values_give(
    entities: tuple[list[KeySpec], list[tuple[object, ...]]],
) -> None:
    keys, rows = entities
    names = [key.name for key in keys]
    frame = pl.DataFrame(rows, schema={key.name: key.type.polars for key in keys}, orient="row")
    expected = [entity_key(keys, dict(zip(names, row, strict=True))) for row in rows]
    assert entity_keys(frame, keys) == expected
    if rows:
        times = FEW // len(rows) + 1
        assert entity_keys(pl.concat([frame] * times), keys) == expected * times
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(keys)
    assert keys_of_columns(keys, columns) == expected
    assert not too_long(frame, keys).any()


@settings(deadline=None, max_examples=50)
@given(ENTITIES)
def test_two_entities_never_share_a_key(entities: tuple[list[KeySpec], list[tuple[object, ...]]]) -> None:
    keys, rows = entities
    names = [key.name for key in keys]
    packed = {row: entity_key(keys, dict(zip(names, row, strict=True))) for row in rows}
    assert len(set(packed.values())) == len(packed)


@settings(deadline=None, max_examples=50)
@given(ENTITIES)
def test_a_key_can_be_read_back_without_knowing_the_entity(
    entities: tuple[list[KeySpec], list[tuple[object, ...]]],
) -> None:
    keys, rows = entities
    for row in rows:
        packed = entity_key(keys, {key.name: value for key, value in zip(keys, row, strict=True)})
        assert [tag.decode() for tag, _ in read_back(packed)] == [key.type.key_tag for key in keys]
        assert b"".join(b"%b%d:%b" % (tag, len(payload), payload) for tag, payload in read_back(packed)) == packed


@pytest.mark.parametrize(
    ("type_", "value", "expected"),
    [
        (STRING, "JFK", b"s3:JFK"),
        (STRING, "", b"s0:"),
        (STRING, "Zürich", "s7:Zürich".encode()),
        (STRING, "1001", b"s4:1001"),
        (INT64, 1001, b"i4:1001"),
        (INT64, -5, b"i2:-5"),
        (INT64, -(2**63), b"i20:-9223372036854775808"),
        (BOOL, True, b"t1:1"),
        (BOOL, False, b"t1:0"),
        (BYTES, b"\0:", b"x2:\0:"),
        (TIMESTAMP, datetime.datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC), b"d16:1700000000000000"),
        (TIMESTAMP, datetime.datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), b"d2:-1"),
    ],
)
def test_keys_are_written_as_the_reference_says(type_: FieldType, value: object, expected: bytes) -> None:
    keys = specs(type_)
    assert entity_key(keys, {"key0": value}) == expected
    assert entity_keys(pl.DataFrame({"key0": [value]}, schema={"key0": type_.polars}), keys) == [expected]


def test_the_fields_of_a_key_follow_each_other() -> None:
    keys = [KeySpec(name="dest", type=STRING), KeySpec(name="origin", type=STRING)]
    assert entity_key(keys, {"origin": "JFK", "dest": "LAX"}) == b"s3:LAXs3:JFK"


def test_widening_an_integer_moves_no_key() -> None:
    narrow = pl.DataFrame({"key0": [7, -7]}, schema={"key0": pl.Int32})
    wide = narrow.cast(pl.Int64)
    assert entity_keys(narrow, specs(INT32)) == entity_keys(wide, specs(INT64))


def test_a_timestamp_of_another_zone_is_the_same_instant() -> None:
    there = datetime.timezone(datetime.timedelta(hours=2))
    here = datetime.datetime(2026, 1, 1, 12, tzinfo=UTC)
    assert entity_key(specs(TIMESTAMP), {"key0": here.astimezone(there)}) == entity_key(
        specs(TIMESTAMP), {"key0": here}
    )


@pytest.mark.parametrize(
    ("keys", "values", "message"),
    [
        (specs(STRING, STRING), {"key0": "JFK"}, "key1: is missing or null"),
        (specs(STRING), {"key0": None}, "key0: is missing or null"),
        (specs(STRING), {"key0": "JFK", "airport": "JFK"}, "airport is no key of the entity; its keys are: key0"),
        (
            specs(INT64),
            {"key0": "1001"},
            r'key0: must be Int64 \(a whole number\), not the text "1001"; write 1001, without quotes',
        ),
        (specs(INT64), {"key0": True}, r"key0: must be Int64 \(a whole number\), not true"),
        (specs(BOOL), {"key0": 1}, r"key0: must be Bool \(true or false\), not the number 1"),
        (specs(STRING), {"key0": b"JFK"}, r"key0: must be String \(a text\), not b'JFK'"),
        (specs(FLOAT64), {"key0": 1.5}, "key0: Float64 cannot be a key"),
        (specs(TIMESTAMP), {"key0": datetime.datetime(2026, 1, 1)}, "has no zone"),
        (specs(STRING), {"key0": "x" * MAX_KEY_BYTES}, "at most 512 are allowed"),
    ],
)
def test_what_cannot_be_a_key_is_refused_by_name(
    keys: Sequence[KeySpec], values: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        entity_key(keys, values)


@pytest.mark.parametrize(("length", "refused"), [(0, False), (507, False), (508, True), (4000, True)])
def test_rows_of_too_long_a_key_are_found_exactly_and_beside_others(length: int, refused: bool) -> None:
    """`s507:` are 5 bytes: with 507 more they are the 512 that are allowed."""
    for type_, value in ((STRING, "x" * length), (BYTES, b"x" * length)):
        empty = value[:0]
        frame = pl.DataFrame({"key0": [empty, value, empty]}, schema={"key0": type_.polars})
        assert too_long(frame, specs(type_)).tolist() == [False, refused, False]


def test_length_counts_in_bytes_and_over_all_fields() -> None:
    frame = pl.DataFrame({"key0": ["é" * 251, "é" * 251], "key1": [1, 100]})
    assert too_long(frame, specs(STRING, INT64)).tolist() == [False, True]


def test_no_rows_have_no_keys() -> None:
    empty = pl.DataFrame(schema={"key0": pl.String, "key1": pl.Binary})
    assert entity_keys(empty, specs(STRING, BYTES)) == []
    assert too_long(empty, specs(STRING, BYTES)).tolist() == []


@pytest.mark.parametrize("wrong", ["1", True, 1.0, None])
def test_of_a_column_the_first_wrong_value_is_named_with_its_row(wrong: object) -> None:
    with pytest.raises(WrongKey) as error:
        keys_of_columns(specs(STRING, INT64), [["a", "b", "c"], [1, wrong, wrong]])
    assert (error.value.key, error.value.row) == ("key1", 1)


def test_a_text_that_has_no_bytes_is_named_with_its_row() -> None:
    with pytest.raises(WrongKey) as error:
        keys_of_columns(specs(STRING), [["a", "\ud800"]])
    assert (error.value.key, error.value.row) == ("key0", 1)
