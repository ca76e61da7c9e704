"""Values: what a row is in Redis, to the byte, and back."""

import datetime
import hashlib
import math
import struct
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillwell.errors import DefinitionError, FormatError
from stillwell.layout.projection import Projection
from stillwell.layout.stamp import STAMP_BYTES, Stamp, topic_digest
from stillwell.layout.value import (
    HEADER_BYTES,
    KIND_AT,
    LAYOUT_AT,
    LENGTH_AT,
    MAX_FEATURES,
    MAX_VALUE_BYTES,
    LayoutSet,
    RowLayout,
    decode,
    encode,
    layout_id,
    stamp_of,
    too_long,
)
from stillwell.spec import EntitySpec, FeatureSpec, TopicSpec, ViewSpec
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
from stillwell.wire import column

UTC = datetime.UTC
TYPES = [BOOL, INT32, INT64, FLOAT32, FLOAT64, STRING, BYTES, TIMESTAMP]
VALUES: dict[str, st.SearchStrategy[object]] = {
    "Bool": st.booleans(),
    "Int32": st.sampled_from([-(2**31), 0, 2**31 - 1]) | st.integers(-(2**31), 2**31 - 1),
    "Int64": st.sampled_from([-(2**63), 0, 2**63 - 1]) | st.integers(-(2**63), 2**63 - 1),
    "Float32": st.floats(width=32),
    "Float64": st.floats(),
    "String": st.text(max_size=20),
    "Bytes": st.binary(max_size=20),
    "Timestamp": st.datetimes(timezones=st.just(UTC)),
}


def values_of(kind: FieldType) -> st.SearchStrategy[object]:
    if kind.element is None:
        return VALUES[kind.name]
    return st.lists(VALUES[kind.element.name], min_size=kind.size or 0, max_size=kind.size or 4)


EVERY_TYPE = (
    st.sampled_from(TYPES)
    | st.sampled_from(TYPES).map(list_of)
    | st.builds(vector_of, st.sampled_from(TYPES), st.integers(1, 4))
)


def features(types: Sequence[FieldType]) -> list[FeatureSpec]:
    return [FeatureSpec(name=f"f{at}", type=each, nullable=True, expression=None) for at, each in enumerate(types)]


def layout_of(*types: FieldType, view: str = "View") -> RowLayout:
    return RowLayout(view, features(types))


def stamp_at(offset: int) -> Stamp:
    return Stamp(1_700_000_000_000_000 + offset, None, 0, topic_digest("departures"), 1, 0, offset, 1, 0)


def stamps_of(count: int) -> npt.NDArray[np.uint8]:
    packed = b"".join(stamp_at(offset).pack() for offset in range(count))
    return np.frombuffer(packed, np.uint8).reshape(count, STAMP_BYTES)


def frame_of(layout: RowLayout, rows: Sequence[Sequence[object]]) -> pl.DataFrame:
    if not rows or not layout.features:
        return pl.DataFrame(rows, schema={each.name: each.type.polars for each in layout.features}, orient="row")
    columns = zip(layout.features, zip(*rows, strict=True), strict=True)
    return pl.DataFrame([column(each.type, values).alias(each.name) for each, values in columns])


def encode_one(layout: RowLayout, *row: object) -> bytes:
    return encode(layout, frame_of(layout, [row]), stamps_of(1))[0]


def slot_of(type_: str, value: object) -> bytes:
    """One single value."""
    match value:
        case str():
            return value.encode()
        case bytes():
            return value
        case datetime.datetime():
            since = value - datetime.datetime(1970, 1, 1, tzinfo=UTC)
            return struct.pack("<q", since // datetime.timedelta.resolution)
    return struct.pack({"Bool": "<?", "Int32": "<i", "Int64": "<q", "Float32": "<f", "Float64": "<d"}[type_], value)


def by_the_reference(types: Sequence[FieldType], row: Sequence[object], stamp: Stamp, id: bytes) -> bytes:
    """A second writer, that follows the reference page one value at a time."""
    bitmap = bytearray(-(-len(types) // 8))
    body, tail = b"", b""
    for at, (type_, value) in enumerate(zip(types, row, strict=True)):
        if value is None:
            bitmap[at // 8] |= 1 << at % 8
        of_elements = type_.scalar.name
        is_text = of_elements in ("String", "Bytes")
        match value:
            case None:
                body += struct.pack("<I", len(tail)) if is_text or type_.name.startswith("List") else bytes(type_.width)
            case list() if is_text:
                written = [slot_of(of_elements, each) for each in value]
                ends = [sum(map(len, written[: number + 1])) for number in range(len(written))]
                tail += struct.pack(f"<{1 + len(ends)}I", len(ends), *ends) + b"".join(written)
                body += struct.pack("<I", len(tail))
            case list() if type_.name.startswith("List"):
                tail += b"".join(slot_of(of_elements, each) for each in value)
                body += struct.pack("<I", len(tail))
            case list():
                body += b"".join(slot_of(of_elements, each) for each in value)
            case _ if is_text:
                tail += slot_of(of_elements, value)
                body += struct.pack("<I", len(tail))
            case _:
                body += slot_of(of_elements, value)
    rest = b"\x01" + id + bytes(bitmap) + body + tail
    head = b"\x01" + stamp.pack()
    return head + struct.pack(">I", len(head) + 4 + len(rest)) + rest


def same(one: object, other: object) -> bool:
    """Equal to the bit; all NaNs are equal here."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return (math.isnan(one) and math.isnan(other)) or struct.pack("d", one) == struct.pack("d", other)
    return type(one) is type(other) and one == other


ROWS = st.lists(EVERY_TYPE, min_size=1, max_size=20).flatmap(
    lambda types: st.tuples(
        st.just(types),
        st.lists(st.tuples(*(st.none() | values_of(each) for each in types)), min_size=1, max_size=6),
    )
)


@settings(deadline=None, max_examples=50)
@given(ROWS)
def test_every_row_is_read_back_with_its_nulls_and_its_stamp(
    given_rows: tuple[list[FieldType], list[tuple[object, ...]]],
) -> None:
    types, rows = given_rows
    layout = layout_of(*types)
    for offset, value in enumerate(encode(layout, frame_of(layout, rows), stamps_of(len(rows)))):
        read = decode(layout, value)
        assert read.stamp == stamp_at(offset)
        assert list(read.values) == [each.name for each in layout.features]
        assert all(same(found, put) for found, put in zip(read.values.values(), rows[offset], strict=True))


@settings(deadline=None, max_examples=50)
@given(ROWS)
def test_columns_are_written_as_a_writer_of_the_reference_page_would(
    given_rows: tuple[list[FieldType], list[tuple[object, ...]]],
) -> None:
    types, rows = given_rows
    layout = layout_of(*types)
    expected = [by_the_reference(types, row, stamp_at(offset), layout.id) for offset, row in enumerate(rows)]
    assert encode(layout, frame_of(layout, rows), stamps_of(len(rows))) == expected


@settings(deadline=None, max_examples=50)
@given(ROWS)
def test_a_row_is_the_same_bytes_however_the_batch_is_cut(
    given_rows: tuple[list[FieldType], list[tuple[object, ...]]],
) -> None:
    types, rows = given_rows
    layout = layout_of(*types)
    frame, stamps = frame_of(layout, rows), stamps_of(len(rows))
    apart = [encode(layout, frame[at : at + 1], stamps[at : at + 1])[0] for at in range(len(rows))]
    chunked = pl.concat([frame[at : at + 1] for at in range(len(rows))], rechunk=False)
    assert encode(layout, frame, stamps) == apart == encode(layout, chunked, stamps)


def test_a_value_of_the_reference_page() -> None:
    """Written out by hand, so that a change of format cannot pass unseen."""
    layout = RowLayout(
        "RouteDepartures",
        [
            FeatureSpec(name="delay", type=FLOAT32, nullable=True, expression=None),
            FeatureSpec(name="carrier", type=STRING, nullable=True, expression=None),
            FeatureSpec(name="cancelled", type=BOOL, nullable=True, expression=None),
        ],
    )
    assert layout.description == "RouteDepartures\ndelay Float32\ncarrier String\ncancelled Bool\n"
    assert layout.id == hashlib.sha256(layout.description.encode()).digest()[:4] == bytes.fromhex("17c57b58")
    assert encode_one(layout, None, "UA", True).hex() == (
        "01"  # format
        "80060a24181e400000000000000000008000000000000000"  # event time, no sequence, record timestamp
        "6cb2266c1d72161c" "0001" "00000000" "0000000000000000" "0001" "00000000"  # coordinates, version, row
        "0000004a"  # length
        "01"  # a row
        "17c57b58"  # layout
        "01"  # the first feature is null
        "00000000" "02000000" "01"  # delay, end of carrier, cancelled
        "5541"  # UA
    )  # fmt: skip


@pytest.mark.parametrize(
    ("type_", "format_", "bits"),
    [(FLOAT64, "<Q", 0x7FF4DEADBEEF0001), (FLOAT64, "<Q", 0xFFF8000000000000), (FLOAT32, "<I", 0x7FA12345)],
)
def test_the_payload_of_a_nan_is_kept(type_: FieldType, format_: str, bits: int) -> None:
    column = pl.Series(np.frombuffer(struct.pack(format_, bits), type_.numpy))
    of_lists = {vector_of(type_, 1): column.reshape((1, 1)), list_of(type_): column.implode()}
    for kind, values in {type_: column, **of_lists}.items():
        (value,) = encode(layout_of(kind), pl.DataFrame({"f0": values}), stamps_of(1))
        assert value[-type_.width :] == struct.pack(format_, bits)


def test_zero_keeps_its_sign() -> None:
    read = decode(layout_of(FLOAT32, FLOAT64), encode_one(layout_of(FLOAT32, FLOAT64), -0.0, -0.0))
    assert [math.copysign(1, number) for number in read.values.values()] == [-1, -1]  # type: ignore[arg-type]


def test_an_empty_text_is_not_null() -> None:
    layout = layout_of(STRING, BYTES, STRING)
    assert decode(layout, encode_one(layout, "", b"", None)).values == {"f0": "", "f1": b"", "f2": None}


def test_a_view_may_have_no_features() -> None:
    value = encode_one(layout_of())
    assert len(value) == HEADER_BYTES
    assert decode(layout_of(), value).values == {}


def test_no_rows_have_no_values() -> None:
    for layout in (layout_of(INT64), layout_of(STRING)):
        assert encode(layout, frame_of(layout, []), stamps_of(0)) == []


def test_columns_besides_the_features_do_not_matter() -> None:
    layout = layout_of(INT64)
    frame = pl.DataFrame({"key": ["JFK"], "f0": [7], "_offset": [0]})
    assert encode(layout, frame, stamps_of(1)) == [encode_one(layout, 7)]


def test_event_time_and_stamp_are_found_without_a_layout() -> None:
    value = encode_one(layout_of(INT64), 7)
    assert stamp_of(value) == stamp_at(0).pack()
    assert decode(layout_of(INT64), value).event_time == datetime.datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)


# ---- layouts ----


def test_a_layout_is_known_by_its_view_and_by_names_types_and_order_of_its_features() -> None:
    ids = {
        layout_of(INT32, INT64).id,
        layout_of(INT64, INT32).id,
        layout_of(INT32).id,
        layout_of(INT32, INT64, view="Other").id,
        RowLayout("View", features([INT32, INT64])[::-1]).id,
    }
    assert len(ids) == 5
    assert layout_of(INT32, INT64).id == layout_of(INT32, INT64).id


def test_what_does_not_change_bytes_does_not_change_the_layout() -> None:
    strict = [each.model_copy(update={"nullable": False, "description": "other"}) for each in features([INT32])]
    assert RowLayout("View", strict).id == layout_of(INT32).id


def test_a_layout_is_that_of_its_view() -> None:
    view = ViewSpec(
        name="View",
        version=3,
        entity=EntitySpec(name="Airport", keys=()),
        source=TopicSpec(name="Departure", topic="departures", columns=(), event_time="at"),
        ttl=datetime.timedelta(0),
        features=tuple(features([INT32, STRING])),
    )
    assert RowLayout.of(view).id == layout_of(INT32, STRING).id


def test_rows_of_old_and_new_layouts_are_read_side_by_side() -> None:
    old, new = layout_of(INT64), layout_of(INT64, STRING)
    both = LayoutSet([old, new, layout_of(INT64)])
    for layout, values in ((old, {"f0": 1}), (new, {"f0": 2, "f1": "x"})):
        row = encode_one(layout, *values.values())
        assert both.knows(row)
        assert decode(both.of(row), row).values == values


def test_an_unknown_layout_is_refused_with_what_to_do() -> None:
    with pytest.raises(FormatError, match=r"unknown layout .* read it with the definitions that wrote it"):
        LayoutSet([layout_of(INT64)]).of(encode_one(layout_of(INT32), 1))


def test_two_layouts_that_share_an_id_by_chance_are_refused() -> None:
    one, other = layout_of(INT64), layout_of(INT32)
    other.id = one.id
    with pytest.raises(DefinitionError, match="the same layout id"):
        LayoutSet([one, other])


def test_so_many_features_are_allowed_and_no_more() -> None:
    assert len(encode_one(layout_of(*[BOOL] * MAX_FEATURES), *[True] * MAX_FEATURES)) == HEADER_BYTES + 512 + 4096
    with pytest.raises(DefinitionError, match="has 4097 features, at most 4096"):
        layout_of(*[BOOL] * (MAX_FEATURES + 1))


# ---- sizes ----


@pytest.mark.parametrize(("more", "refused"), [(0, False), (1, True)])
def test_rows_beyond_the_limit_are_found_exactly_and_cannot_be_encoded(more: int, refused: bool) -> None:
    layout = layout_of(STRING, BYTES)
    fixed = HEADER_BYTES + 1 + 8
    largest = ("é" * 10, b"x" * (MAX_VALUE_BYTES - fixed - 20 + more))
    frame = frame_of(layout, [("", b""), largest, (None, None)])
    assert too_long(layout, frame).tolist() == [False, refused, False]
    if refused:
        with pytest.raises(ValueError, match="reject what is too long"):
            encode(layout, frame, stamps_of(3))
    else:
        assert max(map(len, encode(layout, frame, stamps_of(3)))) == MAX_VALUE_BYTES


def test_rows_of_fixed_width_are_never_too_long() -> None:
    layout = layout_of(INT64)
    assert not too_long(layout, frame_of(layout, [(1,), (None,)])).any()


# ---- what cannot be read ----

LAYOUT = layout_of(INT64, STRING, TIMESTAMP)
GOOD = encode_one(LAYOUT, 1, "text", datetime.datetime(2026, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize(
    ("damaged", "message"),
    [
        (b"", "at least 62 bytes, not 0; something else wrote"),
        (GOOD[: HEADER_BYTES - 1], "at least 62 bytes, not 61"),
        (b"\x02" + GOOD[1:], "format 2, this version reads 1: upgrade"),
        (GOOD[:KIND_AT] + b"\x02" + GOOD[KIND_AT + 1 :], "of kind 2, this version reads 1"),
        (GOOD[:LAYOUT_AT] + b"none" + GOOD[HEADER_BYTES:], "another layout, 6e6f6e65"),
        (GOOD[:HEADER_BYTES], "has 62 bytes, its layout at least 83"),
        (GOOD[:-1], "do not end where its layout says"),
        (GOOD + b"x", "do not end where its layout says"),
        (GOOD[:LENGTH_AT] + bytes(4) + GOOD[KIND_AT:], "do not end where its layout says"),
        (GOOD[:-1] + b"\xff", "f1 is not UTF-8"),
        (GOOD[:75] + struct.pack("<q", 2**62) + GOOD[83:], "f2: .* is outside the years 1 to 9999"),
    ],
)
def test_damaged_bytes_are_refused_and_never_guessed_at(damaged: bytes, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        decode(LAYOUT, damaged)


def test_ends_that_go_backwards_are_refused() -> None:
    layout = layout_of(STRING, STRING)
    good = encode_one(layout, "ab", "cd")
    at = HEADER_BYTES + 1
    with pytest.raises(FormatError, match="do not end"):
        decode(layout, good[:at] + struct.pack("<II", 5, 4) + good[at + 8 :])


@pytest.mark.parametrize(
    ("type_", "data"),
    [
        (list_of(INT32), b"\0\0\0\0\0"),
        (list_of(STRING), b""),
        (list_of(STRING), b"\1\0\0"),
        (list_of(STRING), struct.pack("<I", 1)),
        (list_of(STRING), struct.pack("<II", 1, 2) + b"a"),
        (list_of(STRING), struct.pack("<II", 1, 1) + b"ab"),
        (list_of(BYTES), struct.pack("<III", 2, 2, 1) + b"a"),
        (list_of(STRING), struct.pack("<II", 1, 1) + b"\xff"),
        (list_of(STRING), struct.pack("<I", 2**32 - 1) + b"abcd"),
        (vector_of(STRING, 2), struct.pack("<II", 1, 1) + b"a"),
    ],
)
def test_damaged_lists_are_refused_however_they_are_read(type_: FieldType, data: bytes) -> None:
    layout = layout_of(type_)
    (good,) = encode(layout, pl.DataFrame({"f0": [None]}, schema={"f0": type_.polars}), stamps_of(1))
    length = struct.pack(">I", HEADER_BYTES + 5 + len(data))
    damaged = good[:LENGTH_AT] + length + good[KIND_AT:HEADER_BYTES] + b"\0" + struct.pack("<I", len(data)) + data
    with pytest.raises(FormatError, match="f0 is no list"):
        decode(layout, damaged)
    view = ViewSpec(
        name="View",
        version=1,
        entity=EntitySpec(name="Airport", keys=()),
        source=TopicSpec(name="Departure", topic="departures", columns=(), event_time="at"),
        ttl=datetime.timedelta(0),
        features=layout.features,
    )
    for stored in ([damaged], [damaged, damaged]):
        with pytest.raises(FormatError, match=r"a (list|text) in the row"):
            Projection(view, view.features).read(stored)


def test_a_null_list_is_not_an_empty_one_and_neither_has_elements() -> None:
    types = [list_of(INT64), list_of(INT64), list_of(STRING), list_of(STRING)]
    value = encode_one(layout_of(*types), [], None, [], None)
    assert decode(layout_of(*types), value).values == {"f0": [], "f1": None, "f2": [], "f3": None}
    assert len(value) == HEADER_BYTES + 1 + 4 * 4 + 4  # of the empty list of texts its count alone


def test_elements_under_a_null_do_not_come_to_rest() -> None:
    """Polars keeps what lay under a list that was made null."""
    for type_ in (list_of(INT64), list_of(STRING), vector_of(INT64, 2), vector_of(STRING, 2)):
        values: list[object] = [1, 2] if type_.element is INT64 else ["a", "b"]
        whole = pl.DataFrame({"f0": [values, values], "keep": [True, False]}, schema_overrides={"f0": type_.polars})
        hidden = whole.select(pl.when("keep").then("f0"))
        said = encode(layout_of(type_), hidden, stamps_of(2))
        plain = pl.DataFrame({"f0": [values, None]}, schema={"f0": type_.polars})
        assert said == encode(layout_of(type_), plain, stamps_of(2))


@pytest.mark.parametrize("kind", [BOOL, FLOAT64, STRING])
@pytest.mark.parametrize(("more", "refused"), [(0, False), (1, True)])
def test_lists_beyond_the_limit_are_found_exactly(kind: FieldType, more: int, refused: bool) -> None:
    layout = layout_of(list_of(kind))
    room = MAX_VALUE_BYTES - HEADER_BYTES - 1 - 4
    match kind.name:
        case "Bool":
            longest: list[object] = [True] * (room + more)
        case "Float64":
            longest = [0.5] * (room // 8 + more)
        case _:
            longest = ["é" * 500] * ((room - 4) // 1004)
            longest.append("x" * (room - 8 - len(longest) * 1004 + more))
    frame = frame_of(layout, [([],), (longest,), (None,)])
    assert too_long(layout, frame).tolist() == [False, refused, False]
    if not refused:
        assert MAX_VALUE_BYTES - 8 < max(map(len, encode(layout, frame, stamps_of(3)))) <= MAX_VALUE_BYTES


def test_vectors_that_make_every_row_too_long_are_refused_by_their_view() -> None:
    layout_of(vector_of(FLOAT64, 65_536))
    with pytest.raises(DefinitionError, match="more than 1048576 bytes, most of them of its vectors"):
        layout_of(vector_of(FLOAT64, 65_536), vector_of(FLOAT64, 65_536))


def test_a_tombstone_is_no_row() -> None:
    with pytest.raises(FormatError, match="kind 2"):
        layout_id(b"\x01" + stamp_at(0).pack() + b"\0\0\0\x3e" + b"\x02" + bytes(4))


def test_an_event_time_outside_the_calendar_is_told_and_not_guessed() -> None:
    late = Stamp(2**63 - 1, None, 0, bytes(8), 0, 0, 0, 1, 0)
    packed = np.frombuffer(late.pack(), np.uint8).reshape(1, STAMP_BYTES)
    (value,) = encode(layout_of(INT64), frame_of(layout_of(INT64), [(1,)]), packed)
    read = decode(layout_of(INT64), value)
    assert read.stamp.event_time == 2**63 - 1
    with pytest.raises(FormatError, match="outside the years 1 to 9999"):
        _ = read.event_time
