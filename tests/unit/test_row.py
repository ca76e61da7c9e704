"""The newest row of an entity is the one that the rule of order says, in whatever order rows come."""

import datetime
import random
from collections.abc import Sequence
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillwell.row import newest

SCHEMA = {
    "carrier": pl.String(),
    "number": pl.Int64(),
    "event_timestamp": pl.Datetime("us", "UTC"),
    "value": pl.Float64(),
    "_sequence": pl.Int64(),
    "_offset": pl.Int64(),
    "_timestamp": pl.Int64(),
    "_row": pl.UInt32(),
}
KEYS = ("carrier", "number")
Row = tuple[Any, ...]


def frame(rows: Sequence[Row]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def oracle(rows: Sequence[Row]) -> set[Row]:
    """The rule, one row at a time."""
    winners: dict[tuple[str, int], Row] = {}
    for row in rows:
        present = winners.get(row[:2])
        if present is None or _age(present) < _age(row):
            winners[row[:2]] = row
    return set(winners.values())


def _age(row: Row) -> tuple[Any, ...]:
    _, _, event_time, _, sequence, offset, timestamp, ordinal = row
    return event_time, sequence is not None, sequence or 0, timestamp, offset, ordinal


def at(second: int) -> datetime.datetime:
    return datetime.datetime(2026, 1, 1, 0, 0, second, tzinfo=datetime.UTC)


@st.composite
def batches(draw: st.DrawFn) -> list[Row]:
    """Rows of few entities and fewer times, so that every part of the rule must decide somewhere."""
    rows: list[Row] = []
    for offset in range(draw(st.integers(0, 12))):
        event_time, timestamp = at(draw(st.integers(0, 2))), draw(st.integers(0, 2))
        sequence = draw(st.none() | st.integers(-1, 1))
        for ordinal in range(draw(st.integers(1, 3))):
            carrier, number = draw(st.sampled_from(["AA", "B6"])), draw(st.integers(1, 2))
            rows.append((carrier, number, event_time, float(len(rows)), sequence, offset, timestamp, ordinal))
    return rows


@settings(deadline=None, derandomize=True, max_examples=200)
@given(batches(), st.randoms(use_true_random=False))
def test_the_newest_rows_are_those_of_the_rule(rows: list[Row], chance: random.Random) -> None:
    result = newest(frame(rows), KEYS)
    assert set(result.rows()) == oracle(rows)
    assert result.height == len(oracle(rows))
    assert result.schema == SCHEMA
    shuffled = chance.sample(rows, len(rows))
    assert set(newest(frame(shuffled), KEYS).rows()) == oracle(rows)


@pytest.mark.parametrize(
    ("decides", "older", "newer"),
    [
        ("event time", (at(1), 9, 9, 9, 9), (at(2), None, 0, 0, 0)),
        ("a sequence against none", (at(1), None, 9, 9, 9), (at(1), 1 - 2**63, 0, 0, 0)),
        ("no sequence, which is the least, as the stamp has it", (at(1), -(2**63), 8, 9, 9), (at(1), None, 9, 0, 0)),
        ("the greater sequence", (at(1), 1, 9, 9, 9), (at(1), 2, 0, 0, 0)),
        ("the record's timestamp", (at(1), 1, 8, 9, 9), (at(1), 1, 9, 0, 0)),
        ("the offset", (at(1), 1, 8, 8, 9), (at(1), 1, 8, 9, 0)),
        ("the ordinal", (at(1), 1, 8, 8, 8), (at(1), 1, 8, 8, 9)),
    ],
)
def test_each_part_of_the_rule_decides_where_those_before_it_are_equal(decides: str, older: Row, newer: Row) -> None:
    rows = [
        ("AA", 1, event_time, value, sequence, offset, timestamp, ordinal)
        for value, (event_time, sequence, timestamp, offset, ordinal) in enumerate((older, newer))
    ]
    for order in (rows, rows[::-1]):
        assert newest(frame(order), KEYS).get_column("value").to_list() == [1.0], decides


def test_rows_come_back_in_the_order_of_the_rule_so_that_the_same_batch_gives_the_same_frame() -> None:
    rows = [("AA", number % 50, at(number * 7 % 60), float(number), None, number, 0, 0) for number in range(500)]
    times = newest(frame(rows), KEYS).get_column("event_timestamp").to_list()
    assert times == sorted(times)
    assert newest(frame(rows), KEYS).equals(newest(frame(rows[::-1]), KEYS))


def test_no_rows_have_no_newest() -> None:
    assert newest(frame([]), KEYS).schema == SCHEMA
