"""Some features of stored rows: the same as a whole row gives, whichever are asked for."""

import datetime
import math
import random
import struct
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillwell.errors import FormatError
from stillwell.layout.projection import ABSENT, Projection, UnknownLayout, WholeRows
from stillwell.layout.value import HEADER_BYTES, LENGTH_AT, RowLayout, decode, encode
from stillwell.spec import EntitySpec, FeatureSpec, KeySpec, TopicSpec, ViewSpec
from stillwell.types import BOOL, BYTES, FLOAT64, INT32, INT64, STRING, FieldType, list_of, vector_of
from tests.unit.test_value import ROWS, features, frame_of, stamps_of

EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def view_of(*given_features: FeatureSpec) -> ViewSpec:
    key = KeySpec(name="id", type=INT64)
    return ViewSpec(
        name="View",
        version=1,
        entity=EntitySpec(name="User", keys=(key,)),
        source=TopicSpec(name="T", topic="t", columns=(), event_time="at"),
        ttl=datetime.timedelta(0),
        features=given_features,
    )


def rows_of(types: Sequence[FieldType], rows: Sequence[Sequence[object]]) -> tuple[ViewSpec, list[bytes]]:
    view = view_of(*features(types))
    layout = RowLayout.of(view)
    return view, encode(layout, frame_of(layout, rows), stamps_of(len(rows)))


def plain(value: object) -> object:
    """A decoded value as a projection gives it, NaN so that it equals itself."""
    if isinstance(value, datetime.datetime):
        return (value - EPOCH) // datetime.timedelta(microseconds=1)
    if isinstance(value, list):
        return list(map(plain, value))
    return "NaN" if isinstance(value, float) and math.isnan(value) else value


@settings(deadline=None, max_examples=100)
@given(ROWS, st.randoms(use_true_random=False))
def test_any_features_in_any_order_are_what_the_whole_row_says(
    given_rows: tuple[list[FieldType], list[tuple[object, ...]]], chance: random.Random
) -> None:
    view, stored = rows_of(*given_rows)
    layout = RowLayout.of(view)
    wanted = [chance.choice(view.features) for _ in range(chance.randrange(2 * len(view.features)))]
    whole = [decode(layout, value) for value in stored]
    projection = Projection(view, wanted)
    found = projection.read([*stored, None])
    assert found.event_times == [*(row.stamp.event_time for row in whole), None]
    assert len(found.columns) == len(wanted)
    for feature, column in zip(wanted, found.columns, strict=True):
        assert [plain(value) for value in column] == [*(plain(row.values[feature.name]) for row in whole), ABSENT]
    # Together without a row that is missing, and each alone, which are read in other ways.
    for rows in [list(range(len(stored)))] * bool(stored) + [[at] for at in range(len(stored))]:
        found = projection.read([stored[at] for at in rows])
        assert found.event_times == [whole[at].stamp.event_time for at in rows]
        for feature, column in zip(wanted, found.columns, strict=True):
            assert [plain(value) for value in column] == [plain(whole[at].values[feature.name]) for at in rows]


def test_without_entities_there_is_a_column_of_nothing_for_each_feature() -> None:
    view, _ = rows_of([INT32, STRING], [])
    assert Projection(view, view.features).read([])[:2] == ([], [(), ()])


@pytest.mark.parametrize("count", [1, 2, 5])
def test_rows_of_fixed_length_are_read_together_only_where_all_are_whole(count: int) -> None:
    """One that has a null, is missing, of another version with as many bytes, or damaged, is never taken for whole."""
    view, whole = rows_of([INT64, FLOAT64], [(number, number / 2) for number in range(count)])
    _, (null,) = rows_of([INT64, FLOAT64], [(None, 0.5)])
    older = view_of(*features([FLOAT64, INT64]))
    other = encode(RowLayout.of(older), frame_of(RowLayout.of(older), [(2.5, 7)]), stamps_of(1))[0]
    assert len(null) == len(other) == len(whole[0])
    projection = Projection(view, view.features, [older])
    found = projection.read(whole)
    assert found.whole
    assert found.columns == [tuple(range(count)), tuple(number / 2 for number in range(count))]
    for odd, row in ((null, (None, 0.5)), (other, (ABSENT, ABSENT)), (None, (ABSENT, ABSENT))):
        mixed: Sequence[Sequence[bytes | None]] = ([*whole, odd], [odd, *whole], [odd])
        for stored in mixed:
            found = projection.read(stored)
            assert not found.whole
            assert [column[stored.index(odd)] for column in found.columns] == list(row)
    for damaged in (b"\x09" + whole[0][1:], whole[0][:-1], whole[0] + b"\0"):
        for spoiled in ([damaged], [*whole, damaged]):
            with pytest.raises(FormatError):
                projection.read(spoiled)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_whole_rows_with_vectors_and_lists_are_read_together(count: int) -> None:
    types = [vector_of(FLOAT64, 2), INT64, vector_of(STRING, 1), list_of(INT64)]
    rows = [([number, 0.5], number, [f"t{number}"], [1] * number) for number in range(count)]
    view, stored = rows_of(types, rows)
    for wanted in (view.features, view.features[::-1], view.features[:1], view.features[2:]):
        found = Projection(view, wanted).read(stored)
        assert found.whole
        places = [view.features.index(each) for each in wanted]
        assert [list(column) for column in found.columns] == [[row[at] for row in rows] for at in places]


def test_rows_of_several_views_are_read_together_only_where_each_is_whole() -> None:
    """Bytes that one row lacks and the next has too many are no two rows."""
    kinds: list[list[FieldType]] = [[INT64, FLOAT64], [BOOL], [INT64, FLOAT64]]
    views, stored, readers = [], [], []
    for number, of in enumerate(kinds):
        view, (row,) = rows_of(of, [tuple(bool(number) if kind is BOOL else number + 1 for kind in of)])
        views.append(view)
        stored.append(row)
        readers.append(Projection(view, view.features[::-1]).whole)
    assert all(reader.even for reader in readers)
    together = WholeRows.together(readers)
    found = together(stored)
    assert found is not None
    alone = [reader.one(row) for reader, row in zip(readers, stored, strict=True)]
    assert found[0] == [each[0] for each in alone if each]
    assert list(found[1]) == [value for each in alone if each for value in each[1]] == [1.0, 1, True, 3.0, 3]
    _, (null,) = rows_of([INT64, FLOAT64], [(None, 0.5)])
    first, second, third = stored
    for odd in (
        [null, second, third],
        [first, second, null],
        [first, None, third],
        [first[:-1], second, third],
        [first[:-1], first[-1:] + second, third],
        [b"\x09" + first[1:], second, third],
        [second, first, third],
        [changed(first, LENGTH_AT, b"\x01"), second, third],
    ):
        assert together(odd) is None


def test_rows_of_other_versions_lack_what_they_had_not_or_in_another_type() -> None:
    old = view_of(
        FeatureSpec(name="kept", type=INT64, nullable=True, expression=None),
        FeatureSpec(name="changed", type=INT32, nullable=True, expression=None),
    )
    new = view_of(
        FeatureSpec(name="gained", type=STRING, nullable=True, expression=None),
        FeatureSpec(name="changed", type=FLOAT64, nullable=True, expression=None),
        FeatureSpec(name="kept", type=INT64, nullable=True, expression=None),
    )
    by_old, by_new = RowLayout.of(old), RowLayout.of(new)
    stored = [
        *encode(by_old, frame_of(by_old, [(7, 3)]), stamps_of(1)),
        *encode(by_new, frame_of(by_new, [("x", 0.5, 8)]), stamps_of(1)),
    ]
    found = Projection(new, new.features, [old]).read(stored)
    assert [list(column) for column in found.columns] == [[ABSENT, "x"], [ABSENT, 0.5], [7, 8]]
    with pytest.raises(UnknownLayout, match="written by definitions that are newer, or were never registered"):
        Projection(new, new.features).read(stored)


def changed(value: bytes, at: int, to: bytes) -> bytes:
    return value[:at] + to + value[at + len(to) :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda value: value[:-1],
        lambda value: value + b"x",
        lambda value: value[: HEADER_BYTES + 2],
        lambda value: value[:10],
        lambda value: changed(value, 0, b"\2"),
        lambda value: changed(value, LENGTH_AT, b"\0\0\0\1"),
        lambda value: changed(value, LENGTH_AT + 4, b"\2"),
        # The end of the first text, behind that of the second.
        lambda value: changed(value, HEADER_BYTES + 2, struct.pack("<I", 9)),
        # A byte of the first text that is no UTF-8.
        lambda value: changed(value, len(value) - 4, b"\xff"),
    ],
)
def test_damage_is_found(damage: "object") -> None:
    assert callable(damage)
    view, (value,) = rows_of([BOOL, STRING, BYTES], [(True, "ab", b"cd")])
    Projection(view, view.features).read([value])
    with pytest.raises(FormatError):
        Projection(view, view.features).read([damage(value)])
