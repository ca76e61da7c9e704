"""What becomes of a batch: rows and rejects for every view, each record by itself, and an account that adds up."""

import dataclasses
import datetime
import fractions
import json
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillwell.broken import Broken, RuleId
from stillwell.errors import DefinitionError
from stillwell.evaluate import evaluate
from stillwell.pipeline import Pipeline, compile_pipeline
from stillwell.records import Outcome, Records, Reject, ViewRows
from stillwell.spec import Action, Expectation, RowsFunction, TopicSpec, ViewSpec
from stillwell.transform import MAX_ROWS
from stillwell.types import BOOL, BYTES, FLOAT32, FLOAT64, INT32, INT64, STRING, TIMESTAMP, FieldType
from tests.batches import NOW, NOW_MS, column, event, feature, reasons, records, take, topic, view

UTC = datetime.UTC
HOUR = datetime.timedelta(hours=1)


def x(name: str = "x") -> pl.Expr:
    return pl.col(f"T.{name}")


PLAIN = topic(column("key", STRING, nullable=True), column("x", INT64, nullable=True))
KEYED = {"key": (STRING, x("key"))}


def run(source: TopicSpec, views: Sequence[ViewSpec], batch: Records) -> Outcome:
    """The outcome of a batch, whose account adds up."""
    outcome = compile_pipeline(source, views).run(batch)
    check_account(outcome)
    return outcome


def check_account(outcome: Outcome) -> None:
    """Every offset is counted once for each view, and what is counted is there."""
    assert [reject.offset for reject in outcome.rejects] == sorted(reject.offset for reject in outcome.rejects)
    for rows in outcome.rows:
        assert rows.offsets_with_rows + rows.filtered + rows.rejected == len(outcome.records)
        with_rows = rows.frame.get_column("_offset").unique().to_list()
        rejected = [reject.offset for reject in outcome.rejects if reject.view in (None, rows.view)]
        assert len(with_rows) == rows.offsets_with_rows
        assert len(rejected) == len(set(rejected)) == rows.rejected
        assert not set(rejected) & set(with_rows)
        assert rows.frame.select("_offset", "_row").rows() == sorted(rows.frame.select("_offset", "_row").rows())


def account(rows: ViewRows) -> tuple[int, int, int]:
    return rows.offsets_with_rows, rows.filtered, rows.rejected


# Rows


def test_a_view_gives_keys_event_time_features_and_coordinates_in_this_order() -> None:
    source = topic(column("carrier", STRING), column("number", INT32), column("step", INT64), sequence="step")
    keys = {"carrier": (STRING, x("carrier")), "number": (INT32, x("number"))}
    v = view(source, keys, feature("double", INT64, x("number").cast(pl.Int64) * 2), feature("one", FLOAT32, pl.lit(1)))
    batch = records([event(carrier="AA", number=7, step=3), event(carrier="B6", number=8, step=-1)], timestamps=[5, 6])
    compiled = compile_pipeline(source, [v], max_future=datetime.timedelta(days=30_000))
    assert (compiled.topic, compiled.views) == (source, (v,))
    (rows,) = compiled.run(batch).rows
    assert dict(rows.frame.schema) == {
        "carrier": pl.String(),
        "number": pl.Int32(),
        "event_timestamp": pl.Datetime("us", "UTC"),
        "double": pl.Int64(),
        "one": pl.Float32(),
        "_sequence": pl.Int64(),
        "_offset": pl.Int64(),
        "_timestamp": pl.Int64(),
        "_row": pl.UInt32(),
    }
    now = datetime.datetime(2026, 1, 1, tzinfo=UTC)
    assert rows.frame.rows() == [("AA", 7, now, 14, 1.0, 3, 100, 5, 0), ("B6", 8, now, 16, 1.0, -1, 101, 6, 0)]
    assert (rows.view, rows.version, *account(rows)) == ("V", 1, 2, 0, 0)


def test_without_a_declared_sequence_there_is_none() -> None:
    (rows,) = run(PLAIN, [view(PLAIN, KEYED)], records([event(key="a")])).rows
    assert rows.frame.get_column("_sequence").to_list() == [None]
    assert rows.frame.schema["_sequence"] == pl.Int64()


@pytest.mark.parametrize("values", [[], [None], [event(key="a", x=1)]])
def test_a_batch_that_gives_no_rows_gives_a_frame_of_the_same_columns(values: list[bytes | None]) -> None:
    views = [
        view(PLAIN, KEYED, feature("x", INT32, x() + 1), where=x() > 5),
        view(PLAIN, {"key": (STRING, None)}, feature("x", INT32, None), name="F", rows=lambda _: []),
    ]
    names = ["key", "event_timestamp", "x", "_sequence", "_offset", "_timestamp", "_row"]
    for rows in run(PLAIN, views, records(values)).rows:
        assert rows.frame.height == 0
        assert rows.frame.columns == names
        assert rows.frame.schema["x"] == pl.Int32()


def test_a_topic_without_views_still_tells_what_is_refused() -> None:
    outcome = run(PLAIN, [], records([event(), b"?"]))
    assert outcome.rows == ()
    assert reasons(outcome) == [(101, None, "decode")]


def test_each_view_has_rows_and_rejects_of_its_own_in_the_order_of_offsets() -> None:
    views = [
        view(PLAIN, KEYED, feature("x", INT64, x()), name="A"),
        view(PLAIN, {"key": (STRING, x("key").fill_null("none"))}, feature("x", INT64, x() * 10), name="B"),
    ]
    batch = records([event(key="a", x=1), event(x=None), b"?", event(x=4), event(key="e")])
    outcome = run(PLAIN, views, batch)
    first, second = outcome.rows
    assert first.frame.get_column("x").to_list() == [1]
    assert second.frame.select("key", "x").rows() == [("a", 10), ("none", 40)]
    assert [account(first), account(second)] == [(1, 0, 4), (2, 0, 3)]
    assert reasons(outcome) == [
        (101, "A", "null_key"),
        (101, "B", "null_feature"),
        (102, None, "decode"),
        (103, "A", "null_key"),
        (104, "A", "null_feature"),
        (104, "B", "null_feature"),
    ]


def test_nan_is_a_value() -> None:
    v = view(PLAIN, KEYED, feature("ratio", FLOAT64, x() / x()))
    outcome = run(PLAIN, [v], records([event(key="a", x=0)]))
    assert outcome.rejects == ()
    assert outcome.rows[0].frame.get_column("ratio").is_nan().to_list() == [True]


def test_a_null_is_refused_by_name_where_the_feature_takes_none() -> None:
    v = view(PLAIN, KEYED, feature("x", INT64, x()), feature("maybe", INT64, x(), nullable=True))
    outcome = run(PLAIN, [v], records([event(key="a")]))
    error = "view V: x: expected Int64, got null; fill it, or filter such events by where"
    assert outcome.rejects == (Reject(100, "V", "null_feature", error),)


def test_a_null_key_is_refused_by_name_before_any_feature() -> None:
    v = view(PLAIN, KEYED, feature("x", INT64, x()))
    (reject,) = run(PLAIN, [v], records([event()])).rejects
    assert (reject.reason, reject.error[:42]) == ("null_key", "view V: key: expected String, got null; fi")


# Where


def test_where_counts_false_and_null_as_filtered() -> None:
    v = view(PLAIN, KEYED, feature("x", INT64, x()), where=x() > 1)
    outcome = run(PLAIN, [v], records([event(key="a", x=1), event(key="b"), event(key="c", x=2)]))
    assert outcome.rows[0].frame.get_column("key").to_list() == ["c"]
    assert account(outcome.rows[0]) == (1, 2, 0)


def test_where_comes_before_key_and_features_so_that_what_it_filters_cannot_fail() -> None:
    failing = x("key").str.to_integer(strict=True)
    v = view(PLAIN, KEYED, feature("n", INT64, failing), where=x() == 1)
    outcome = run(PLAIN, [v], records([event(key="no number", x=0), event(key="5", x=1), event(x=0)]))
    assert outcome.rejects == ()
    assert outcome.rows[0].frame.get_column("n").to_list() == [5]
    assert account(outcome.rows[0]) == (1, 2, 0)


def test_a_constant_where_is_no_exception() -> None:
    views = [view(PLAIN, KEYED, name=str(keeps), where=pl.lit(keeps)) for keeps in (True, False)]
    outcome = run(PLAIN, views, records([event(key="a"), event(key="b")]))
    assert [account(rows) for rows in outcome.rows] == [(2, 0, 0), (0, 2, 0)]


def test_a_where_that_fails_rejects_that_event_alone() -> None:
    v = view(PLAIN, KEYED, where=x("key").str.to_integer(strict=True) > 1)
    outcome = run(PLAIN, [v], records([event(key="1"), event(key="a"), event(key="2"), event(key="b"), event(key="3")]))
    assert outcome.rows[0].frame.get_column("key").to_list() == ["2", "3"]
    assert account(outcome.rows[0]) == (2, 1, 2)
    assert reasons(outcome) == [(101, "V", "transform"), (103, "V", "transform")]


# Expressions that fail


def test_an_expression_that_fails_rejects_its_own_events_and_names_the_feature() -> None:
    v = view(PLAIN, KEYED, feature("x", INT64, x()), feature("small", INT32, x()))
    values = [event(key="a", x=number if number % 7 else 2**40 + number) for number in range(100)]
    outcome = run(PLAIN, [v], records(values, start=0))
    assert outcome.rows[0].frame.get_column("small").to_list() == [number for number in range(100) if number % 7]
    assert reasons(outcome) == [(number, "V", "transform") for number in range(0, 100, 7)]
    assert outcome.rejects[1].error.startswith("view V: small: InvalidOperationError: conversion from `i64` to `i32`")
    assert "[1099511627783]" in outcome.rejects[1].error


@pytest.mark.parametrize("divisor", [100, 1_000, 3.6, 7, 0.1])
@pytest.mark.parametrize("kind", [INT64, FLOAT64])
def test_a_division_by_a_constant_gives_the_same_bits_however_many_events_come_together(
    kind: FieldType, divisor: float
) -> None:
    """Polars divides a row that is alone otherwise than several; it is alone in a batch, behind where, or among others
    that fail."""
    source = topic(column("key", STRING), column("x", kind))
    views = [
        view(source, KEYED, feature("share", FLOAT64, x() / divisor), name="All"),
        view(source, KEYED, feature("share", FLOAT64, x() / divisor), where=x("key") == "kept", name="Kept"),
        view(
            source,
            KEYED,
            feature("share", FLOAT64, x() / divisor + x("key").replace({"kept": "0"}).str.to_integer(strict=True)),
            name="Failing",
        ),
    ]
    pipeline = compile_pipeline(source, views)
    rng = random.Random(7)
    drawn = [rng.randrange(10**6) if kind == INT64 else rng.uniform(0, 1e6) for _ in range(50)]

    def shares(*batches: list[tuple[str, float]]) -> dict[str, list[float]]:
        found: dict[str, list[float]] = {each.name: [] for each in views}
        for batch in batches:
            for given_rows in pipeline.run(records([event(key=key, x=number) for key, number in batch])).rows:
                kept = given_rows.frame.filter(pl.col("key") == "kept")
                found[given_rows.view] += kept.get_column("share").to_list()
        return found

    whole = shares([("kept", number) for number in drawn])
    assert all(len(of) == len(drawn) for of in whole.values())
    assert shares(*([("kept", number)] for number in drawn)) == whole
    assert shares(*([("other", 1), ("kept", number), ("other", 2)] for number in drawn)) == whole


def test_a_batch_in_which_everything_fails_is_rejected_record_by_record() -> None:
    v = view(PLAIN, KEYED, feature("small", INT32, x()))
    outcome = run(PLAIN, [v], records([event(key="a", x=2**40)] * 33))
    assert account(outcome.rows[0]) == (0, 0, 33)
    assert outcome.rows[0].frame.schema["small"] == pl.Int32()


def test_a_python_function_within_an_expression_fails_for_its_own_events_alone() -> None:
    def reciprocal(value: int) -> float:
        return float(fractions.Fraction(1, value))

    v = view(PLAIN, KEYED, feature("r", FLOAT64, x().map_elements(reciprocal, return_dtype=pl.Float64())))
    outcome = run(PLAIN, [v], records([event(key="a", x=2), event(key="a", x=0), event(key="a", x=4)]))
    assert outcome.rows[0].frame.get_column("r").to_list() == [0.5, 0.25]
    (reject,) = outcome.rejects
    assert (reject.offset, reject.reason) == (101, "transform")
    assert "ZeroDivisionError" in reject.error


def test_a_function_over_columns_may_refuse_one_without_rows() -> None:
    def first_doubled(values: pl.Series) -> pl.Series:
        return values * 2 if values[0] is not None else values

    doubled = x().map_batches(first_doubled, return_dtype=pl.Int64())
    v = view(PLAIN, KEYED, feature("x", INT64, doubled), where=x() > 1)
    outcome = run(PLAIN, [v], records([event(key="a", x=0)]))
    assert account(outcome.rows[0]) == (0, 1, 0)
    assert outcome.rows[0].frame.schema["x"] == pl.Int64()


def test_memory_that_runs_out_is_nobodys_reject() -> None:
    def exhaust(_: int) -> float:
        raise MemoryError

    frame = pl.DataFrame({"x": [1, 2]})
    with pytest.raises(MemoryError):
        evaluate(frame, [pl.col("x").map_elements(exhaust, return_dtype=pl.Float64())])


def test_a_time_that_no_reader_could_hold_is_rejected() -> None:
    v = view(PLAIN, KEYED, feature("t", TIMESTAMP, x().cast(pl.Datetime("us", "UTC"))))
    outcome = run(PLAIN, [v], records([event(key="a", x=0), event(key="a", x=253_402_300_800_000_000)]))
    assert outcome.rows[0].frame.height == 1
    error = "view V: t: expected a time in the years 1 to 9999, got one beyond"
    assert outcome.rejects == (Reject(101, "V", "transform", error),)


# Expectations


def expected(rule: str, holds: pl.Expr) -> tuple[Expectation, ...]:
    return (Expectation(rule=rule, holds=holds),)


RULED = topic(
    column("x", FLOAT32, nullable=True, expectations=expected("<= 5", pl.col("x") <= 5)),
    column("name", STRING, nullable=True, expectations=expected("a number", pl.col("name").str.to_integer() > 0)),
    column("y", INT64, nullable=True, expectations=expected("> 0", pl.col("y") > 0)),
)


def test_the_first_rule_that_is_broken_rejects_for_all_views_and_null_breaks_none() -> None:
    views = [view(RULED, {"y": (INT64, x("y").fill_null(1))}, name=name) for name in ("A", "B")]
    batch = records([event(x=5), event(x=6, y=0), event(), event(y=0), event(x=None, y=1)])
    outcome = run(RULED, views, batch)
    assert outcome.rejects == (
        Reject(101, None, "expectation", "x: expected <= 5, got 6.0 (at $.x)"),
        Reject(103, None, "expectation", "y: expected > 0, got 0 (at $.y)"),
    )
    assert [account(rows) for rows in outcome.rows] == [(3, 0, 2)] * 2


def test_a_time_that_breaks_a_rule_is_told_whole_and_as_producers_write_it() -> None:
    after = pl.col("since") > datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    source = topic(column("since", TIMESTAMP, unit="ms", expectations=expected("> 2020", after)))
    outcome = run(source, [view(source, {"since": (TIMESTAMP, x("since"))})], records([event(since=-5)]))
    (reject,) = outcome.rejects
    assert reject.error == "since: expected > 2020, got 1969-12-31T23:59:59.995000+00:00 (at $.since)"


def test_a_rule_that_fails_rejects_its_own_events_and_is_named_unless_one_before_it_is_broken() -> None:
    v = view(RULED, {"y": (INT64, x("y"))})
    batch = records(
        [event(name="1", y=1), event(name="a", y=0), event(name="b", x=6, y=1), event(y=0), event(name="0", y=1)]
    )
    outcome = run(RULED, [v], batch)
    assert outcome.rows[0].frame.get_column("_offset").to_list() == [100]
    failed, first, third, false = outcome.rejects
    assert failed.error.startswith("name: expected a number, got 'a' (at $.name): ComputeError: strict integer")
    assert first.error == "x: expected <= 5, got 6.0 (at $.x)"
    assert third.error == "y: expected > 0, got 0 (at $.y)"
    assert false.error == "name: expected a number, got '0' (at $.name)"
    assert {reject.reason for reject in outcome.rejects} == {"expectation"}


def rule_of(action: Action, most: float) -> Expectation:
    return Expectation(rule=f"<= {most}", action=action, holds=pl.col("x") <= most)


GRADED = topic(
    column("x", FLOAT32, nullable=True, expectations=(rule_of("reject", 50), rule_of("warn", 5), rule_of("stop", 500))),
    column(
        "name",
        STRING,
        nullable=True,
        expectations=(
            Expectation(rule="a number", action="warn", holds=pl.col("name").str.to_integer() > 0),
            Expectation(rule="short", holds=pl.col("name").str.len_bytes() < 5),
        ),
    ),
)


def test_a_record_that_only_breaks_a_rule_that_warns_gives_its_rows() -> None:
    v = view(GRADED, {"x": (INT64, x("x").fill_null(0).cast(pl.Int64()))})
    outcome = run(GRADED, [v], records([event(x=6), event(x=1), event(x=7, name="a"), event(x=9, name="0")]))
    assert outcome.rejects == ()
    assert outcome.rows[0].frame.get_column("x").to_list() == [6, 1, 7, 9]
    assert outcome.broken == (
        Broken(RuleId("x", "<= 5", "warn"), 3, 0, 100, "6.0"),
        Broken(RuleId("name", "a number", "warn"), 2, 0, 102, "'a'"),
    )


def test_a_record_counts_for_every_rule_that_it_breaks_whatever_became_of_it() -> None:
    """Or how often a rule is broken would hang on the others."""
    outcome = run(GRADED, [], records([event(x=1), event(x=60, name="toolong"), event(x=600), event(x=70)]))
    assert {(each.rule, each.count, each.offset) for each in outcome.broken} == {
        (RuleId("x", "<= 50", "reject"), 3, 101),
        (RuleId("x", "<= 5", "warn"), 3, 101),
        (RuleId("x", "<= 500", "stop"), 1, 102),
        (RuleId("name", "a number", "warn"), 1, 101),
        (RuleId("name", "short", "reject"), 1, 101),
    }
    assert [reject.offset for reject in outcome.rejects] == [101, 102, 103]


def test_a_record_that_breaks_a_rule_that_stops_is_refused_and_told_so() -> None:
    """By who goes on nevertheless, as the query service does."""
    source = topic(column("x", FLOAT32, expectations=(rule_of("stop", 500),)))
    outcome = run(source, [], records([event(x=501), event(x=500)]))
    says = "x: expected <= 500, got 501.0 (at $.x), by a rule that stops workers"
    assert outcome.rejects == (Reject(100, None, "expectation", says),)


def test_what_breaks_a_rule_is_shortened() -> None:
    source = topic(column("x", STRING, expectations=expected("short", pl.col("x").str.len_bytes() < 5)))
    (reject,) = run(source, [], records([event(x="y" * 100_000)])).rejects
    assert len(reject.error) < 120


# Event time


def after(seconds: float) -> str:
    return (datetime.datetime(2026, 1, 1, tzinfo=UTC) + datetime.timedelta(seconds=seconds)).isoformat()


def test_an_event_may_lie_an_hour_past_its_record_and_no_microsecond_more() -> None:
    v = view(PLAIN, KEYED)
    batch = records([event(key="a", at=after(3_600)), event(key="a", at=after(3_600.000001)), event(key="a")])
    outcome = run(PLAIN, [v], batch)
    assert outcome.rows[0].frame.get_column("_offset").to_list() == [100, 102]
    (reject,) = outcome.rejects
    assert (reject.offset, reject.view, reject.reason) == (101, None, "future")
    assert reject.error == (
        "at: an event time lies at most 1 hour past the timestamp of its record, when it was produced or pushed; got "
        "2026-01-01T01:00:00.000001+00:00, 1 hour 0.000001 seconds past 2026-01-01T00:00:00+00:00. Set right the clock "
        "or the zone of what makes the events, or allow more by STILLWELL_MAX_FUTURE"
    )


def test_how_far_ahead_an_event_may_lie_is_a_parameter() -> None:
    batch = records([event(at=after(1))])
    assert compile_pipeline(PLAIN, [], max_future=datetime.timedelta(seconds=1)).run(batch).rejects == ()
    assert reasons(compile_pipeline(PLAIN, [], max_future=datetime.timedelta(0)).run(batch)) == [(100, None, "future")]


def test_the_past_has_no_bound_but_the_one_of_all_event_times() -> None:
    times = ["1684-07-28T00:12:25.259008Z", "1684-07-28T00:12:25.259007Z", "2255-06-05T23:47:34.740993Z"]
    outcome = run(PLAIN, [], records([event(at=at) for at in times], timestamps=[NOW_MS, NOW_MS, 2**52]))
    assert reasons(outcome) == [(101, None, "event_time"), (102, None, "event_time")]
    assert outcome.rejects[0].error == (
        "at: an event time lies within the years 1684 to 2255, got 1684-07-28T00:12:25.259007+00:00"
    )


def test_only_the_event_time_is_bound_more_closely_than_the_calendar() -> None:
    """The online store counts with it; any other time is kept as it came."""
    source = topic(column("key", STRING), column("until", TIMESTAMP))
    v = view(source, {"key": (STRING, pl.col("T.key"))}, feature("until", TIMESTAMP, pl.col("T.until")))
    ends = ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"]
    untimely = [event(key="a", at=end, until=NOW) for end in ends]
    outcome = run(source, [v], records([*(event(key="a", until=end) for end in ends), *untimely]))
    assert reasons(outcome) == [(102, None, "event_time"), (103, None, "event_time")]
    until = outcome.rows[0].frame.get_column("until").to_list()
    assert [time.isoformat() for time in until] == [end.replace("Z", "+00:00") for end in ends]


@pytest.mark.parametrize(
    ("timestamp", "reason"), [(2**63 - 1, None), (2**52, None), (-1, "future"), (-(2**63), "future")]
)
def test_a_wild_timestamp_of_a_record_neither_wraps_round_nor_stops_the_batch(
    timestamp: int, reason: str | None
) -> None:
    outcome = run(PLAIN, [], records([event(at="1684-07-28T00:12:26Z"), event()], timestamps=[timestamp] * 2))
    refused = {each.offset: each.reason for each in outcome.rejects}
    assert refused.get(101) == reason
    assert refused.get(100) == ("future" if timestamp == -(2**63) else None)


def test_a_record_is_refused_for_the_first_reason_there_is() -> None:
    source = topic(column("x", INT64, nullable=True, expectations=expected("> 0", pl.col("x") > 0)))
    late = after(9_000)
    batch = records([event(at=late, x="a"), event(at=late, x=0), event(at=late, x=1)])
    v = view(source, {"x": (INT64, x().cast(pl.Int64) // 0)})
    outcome = run(source, [v], batch)
    assert reasons(outcome) == [(100, None, "decode"), (101, None, "expectation"), (102, None, "future")]


# Rows by a function


def by(function: RowsFunction, *, source: TopicSpec = PLAIN, where: pl.Expr | None = None) -> ViewSpec:
    """A view of one key and three features, whose rows this function makes."""
    features = (
        feature("n", INT32, None),
        feature("t", TIMESTAMP, None, nullable=True),
        feature("r", FLOAT32, None, nullable=True),
    )
    return view(source, {"key": (STRING, None)}, *features, where=where, rows=function)


def row(**changed: object) -> dict[str, object]:
    return {"key": "a", "n": 1, "t": None, "r": None, **changed}


def rows_of(function: Callable[[Any], Iterable[Mapping[str, object]]], *values: bytes) -> tuple[ViewRows, Outcome]:
    outcome = run(PLAIN, [by(function)], records(values or [event(key="a", x=1)]))
    return outcome.rows[0], outcome


def test_a_function_gives_numbered_rows_and_an_event_without_rows_is_filtered() -> None:
    def count(each: Any) -> Iterable[Mapping[str, object]]:
        for number in range(each.x):
            yield {"n": number, "key": f"{each.key}{number}", "t": each.at, "r": None}

    rows, outcome = rows_of(count, event(key="a", x=2), event(key="b", x=0), event(key="c", x=1))
    now = datetime.datetime(2026, 1, 1, tzinfo=UTC)
    assert rows.frame.rows() == [
        ("a0", now, 0, now, None, None, 100, NOW_MS, 0),
        ("a1", now, 1, now, None, None, 100, NOW_MS, 1),
        ("c0", now, 0, now, None, None, 102, NOW_MS, 0),
    ]
    assert account(rows) == (2, 1, 0)
    assert outcome.rejects == ()


def test_a_function_sees_typed_values_by_name_and_cannot_change_them() -> None:
    source = topic(
        column("flag", BOOL),
        column("single", FLOAT32),
        column("blob", BYTES),
        column("text", STRING, nullable=True),
        column("tick", TIMESTAMP, unit="ns", nullable=True),
    )
    seen: list[Any] = []

    def keep(each: Any) -> Iterable[Mapping[str, object]]:
        seen.append(each)
        with pytest.raises(AttributeError):
            each.flag = False
        return []

    batch = records([event(flag=True, single=0.1, blob="/w==", tick=-1), event(flag=False, single=1, blob="")])
    run(source, [by(keep, source=source)], batch)
    first, second = seen
    at = datetime.datetime(2026, 1, 1, tzinfo=UTC)
    assert (first.at, first.flag, first.blob, first.text) == (at, True, b"\xff", None)
    assert first.tick == datetime.datetime(1969, 12, 31, 23, 59, 59, 999_999, UTC)
    assert first.single == pl.Series([0.1], dtype=pl.Float32())[0] != 0.1
    assert (second.flag, second.blob, second.tick) == (False, b"", None)


def test_where_comes_before_the_function() -> None:
    seen: list[int] = []

    def note(each: Any) -> Iterable[Mapping[str, object]]:
        seen.append(each.x)
        return [row()]

    outcome = run(PLAIN, [by(note, where=x() > 1)], records([event(x=1), event(x=2), event()]))
    assert seen == [2]
    assert account(outcome.rows[0]) == (1, 2, 0)


@pytest.mark.parametrize(
    ("given_rows", "phrase"),
    [
        (None, "TypeError: 'NoneType' object is not iterable"),
        ([None], "Expected `object`, got `null`"),
        ([{"key": "a", "n": 1, "t": None}], "Object missing required field `r`"),
        ([row(extra=1)], "Object contains unknown field `extra`"),
        ([row(), row(n="1")], "Expected `int | null`, got `str` - at `$.n`"),
        ([row(n=True)], "Expected `int | null`, got `bool`"),
        ([row(n=1.0)], "Expected `int | null`, got `float`"),
        ([row(n=2**31)], "Expected `int` <= 2147483647"),
        ([row(key=b"a")], "Expected `str | null`, got `bytes`"),
        ([row(key="\ud800")], "UnicodeEncodeError"),
        ([row(t=NOW)], "Expected `datetime | null`, got `str`"),
        ([row(t=datetime.datetime(2026, 1, 1))], "with a timezone component"),
        ([row(t=datetime.datetime.min.replace(tzinfo=datetime.timezone(HOUR)))], "t: expected a time in the years"),
        ([row(r="1")], "Expected `float | null`, got `str`"),
    ],
)
def test_rows_that_do_not_fit_reject_their_event_alone(given_rows: Any, phrase: str) -> None:
    rows, outcome = rows_of(
        lambda each: given_rows if each.x else [row()], event(x=0), event(x=1), event(x=0), event(x=0)
    )
    assert rows.frame.get_column("_offset").to_list() == [100, 102, 103]
    (reject,) = outcome.rejects
    assert (reject.offset, reject.view, reject.reason) == (101, "V", "transform")
    assert reject.error.startswith("view V: ")
    assert phrase in reject.error


def test_a_function_that_raises_rejects_its_event_even_after_its_first_rows() -> None:
    def fail(each: Any) -> Iterable[Mapping[str, object]]:
        yield row()
        if each.x:
            raise RuntimeError("so it goes")

    rows, outcome = rows_of(fail, event(x=1), event(x=0))
    assert rows.frame.get_column("_offset").to_list() == [101]
    assert outcome.rejects == (Reject(100, "V", "transform", "view V: RuntimeError: so it goes"),)


@pytest.mark.parametrize(("changed", "reason"), [({"key": None}, "null_key"), ({"n": None}, "null_feature")])
def test_a_null_in_one_of_its_rows_rejects_the_whole_event_once(changed: dict[str, object], reason: str) -> None:
    rows, outcome = rows_of(
        lambda each: [row(), row(**changed), row(**changed)] if each.x else [row()], event(x=1), event(x=0)
    )
    assert rows.frame.get_column("_offset").to_list() == [101]
    assert reasons(outcome) == [(100, "V", reason)]


def test_any_mapping_will_do_and_whole_numbers_are_floats_too() -> None:
    class Lazy(Mapping[str, object]):
        def __getitem__(self, name: str) -> object:
            return row(r=3)[name]

        def __iter__(self) -> Any:
            return iter(row())

        def __len__(self) -> int:
            return len(row())

    rows, _ = rows_of(lambda _: (Lazy(),))
    assert rows.frame.get_column("r").to_list() == [3.0]


def test_an_endless_generator_ends_as_a_reject_and_the_bound_is_allowed() -> None:
    def repeat(each: Any) -> Iterable[Mapping[str, object]]:
        number = 0
        while each.x is None or number < each.x:
            yield row()
            number += 1

    rows, outcome = rows_of(repeat, event(), event(x=MAX_ROWS))
    assert rows.frame.height == MAX_ROWS
    error = f"view V: ValueError: an event gives at most {MAX_ROWS} rows, got more"
    assert outcome.rejects == (Reject(100, "V", "transform", error),)


# Functions over frames


def over(function: Callable[[pl.DataFrame], Any], **words: Any) -> ViewSpec:
    """A view by a function over frames of a topic with a key, a number and a float."""
    return view(
        FRAMED, {"key": (STRING, None)}, feature("half", FLOAT64, None), feature("n", INT64, None, nullable=True),
        frame=function, **words,
    )  # fmt: skip


FRAMED = topic(column("key", STRING), column("x", INT64, nullable=True), column("f", FLOAT64), column("at2", INT64))
GIVEN = [pl.col("_index"), pl.col("key"), (pl.col("f") / 2).alias("half"), pl.col("x").alias("n")]


def events_of(*numbers: int | None) -> list[bytes]:
    return [event(key=f"k{number}", x=number, f=number or 0, at2=1) for number in numbers]


def given_of(function: Callable[[pl.DataFrame], Any], *numbers: int | None, **words: Any) -> tuple[ViewRows, Outcome]:
    outcome = run(FRAMED, [over(function, **words)], records(events_of(*numbers)))
    return outcome.rows[0], outcome


def test_a_function_over_frames_gives_rows_in_the_order_of_events_and_events_that_it_leaves_out_are_filtered() -> None:
    def some(events: pl.DataFrame) -> pl.DataFrame:
        return events.filter(pl.col("x") != 2).select(reversed(GIVEN)).reverse()

    rows, outcome = given_of(some, 1, 2, 3)
    now = datetime.datetime(2026, 1, 1, tzinfo=UTC)
    assert rows.frame.rows() == [
        ("k1", now, 0.5, 1, None, 100, NOW_MS, 0),
        ("k3", now, 1.5, 3, None, 102, NOW_MS, 0),
    ]
    assert rows.frame.columns == ["key", "event_timestamp", "half", "n", "_sequence", "_offset", "_timestamp", "_row"]
    assert (account(rows), outcome.rejects) == ((2, 1, 0), ())


def test_a_function_over_frames_sees_columns_by_their_names_of_the_events_that_where_lets_through() -> None:
    seen: list[pl.DataFrame] = []

    def note(events: pl.DataFrame) -> pl.DataFrame:
        seen.append(events)
        return events.select(GIVEN)

    rows, _ = given_of(note, 1, 2, 3, where=x() > 1)
    assert seen[0].schema == {
        "_index": pl.UInt32(),
        "at": pl.Datetime("us", "UTC"),
        "key": pl.String(),
        "x": pl.Int64(),
        "f": pl.Float64(),
        "at2": pl.Int64(),
    }
    assert seen[0].get_column("x").to_list() == [2, 3] * 2, "each twice, so that none is ever alone"
    assert account(rows) == (2, 1, 0)
    seen.clear()
    assert account(given_of(note, 1, where=x() > 1)[0]) == (0, 1, 0)
    assert seen == [], "nobody writes a function for no events"


def test_a_function_over_frames_that_raises_rejects_its_own_events_alone() -> None:
    def strict(events: pl.DataFrame) -> pl.DataFrame:
        for bad in events.filter(pl.col("x") < 0).get_column("x"):
            raise RuntimeError(f"{bad} is too little")
        return events.select(GIVEN)

    rows, outcome = given_of(strict, 1, -2, 3, 4, -5, 6)
    assert rows.frame.get_column("n").to_list() == [1, 3, 4, 6]
    assert [(each.offset, each.reason, each.error) for each in outcome.rejects] == [
        (101, "transform", "view V: RuntimeError: -2 is too little"),
        (104, "transform", "view V: RuntimeError: -5 is too little"),
    ]
    assert account(rows) == (4, 0, 2)


def spoilt(change: Callable[[pl.DataFrame], Any]) -> Callable[[pl.DataFrame], Any]:
    """A function that gives something else where there is an event with x = 0."""

    def give(events: pl.DataFrame) -> Any:
        given = events.select(GIVEN)
        return change(given) if (given.get_column("n") == 0).any() else given

    return give


@pytest.mark.parametrize(
    ("change", "phrase"),
    [
        (lambda given: None, "UnfitFrame: expected a pl.DataFrame, got a NoneType"),
        (lambda given: given.lazy(), "expected a pl.DataFrame, got a LazyFrame; add .collect()"),
        (lambda given: given.drop("half"), "the frame lacks half; give _index, key, half, … and nothing else"),
        (lambda given: given.drop("_index"), "the frame lacks _index; give"),
        (lambda given: given.with_columns(more=1), "the frame has more, which is no key or feature; end with .select("),
        (
            lambda given: given.cast({"half": pl.Float32()}),
            "half: expected Float64, got Float32; add .cast(pl.Float64)",
        ),
        (lambda given: given.with_columns(n="key"), "n: expected Int64, got String; add .cast(pl.Int64)"),
        (lambda given: given.cast({"_index": pl.Int64()}), "_index: expected UInt32, got Int64"),
        (lambda given: pl.concat([given, given]), "the frame has several rows of one event, by _index; only a @rows"),
        (
            lambda given: given.with_columns(_index=pl.col("_index") + 1_000),
            "the frame has a row of no event that was given, by _index",
        ),
        (
            lambda given: given.with_columns(_index=pl.lit(None, pl.UInt32())),
            "the frame has a row whose _index is null",
        ),
        (
            lambda given: given.with_columns(key=pl.when(pl.col("n") != 0).then("key")),
            "key: expected String, got null; fill it",
        ),
    ],
)
def test_a_frame_that_does_not_fit_rejects_the_events_that_it_comes_of_alone(
    change: Callable[[pl.DataFrame], Any], phrase: str
) -> None:
    rows, outcome = given_of(spoilt(change), 1, 0, 3, 4)
    assert rows.frame.get_column("n").to_list() == [1, 3, 4]
    (reject,) = outcome.rejects
    assert (reject.offset, reject.view) == (101, "V")
    assert reject.reason in ("transform", "null_key")
    assert phrase in reject.error


def test_a_function_over_frames_divides_alike_however_many_events_come_together(rng: random.Random) -> None:
    """Polars takes a column of one row for a constant, and divides a constant by another."""
    numbers = [rng.randrange(10**6) for _ in range(200)]

    def divide(events: pl.DataFrame) -> pl.DataFrame:
        return events.select("_index", "key", n="x", half=pl.col("f") / 100)

    whole = given_of(divide, *numbers)[0].frame.get_column("half").to_list()
    assert [given_of(divide, each)[0].frame.get_column("half")[0] for each in numbers] == whole


def test_a_function_that_changes_what_it_was_given_changes_nothing_for_others() -> None:
    def spoil(events: pl.DataFrame) -> pl.DataFrame:
        given = events.select(GIVEN)
        events.get_column("f").scatter(list(range(events.height)), 77.0)
        events.replace_column(events.get_column_index("x"), pl.Series("x", [77] * events.height))
        events.drop_in_place("key")
        return given

    other = view(FRAMED, {"key": (STRING, x("key"))}, feature("x", INT64, x()), feature("f", FLOAT64, x("f")), name="O")
    outcome = run(FRAMED, [over(spoil), other], records(events_of(1, 2)))
    assert outcome.rejects == ()
    assert outcome.rows[1].frame.select("x", "f").rows() == [(1, 1.0), (2, 2.0)]


def test_memory_that_runs_out_in_a_function_over_frames_is_nobodys_reject() -> None:
    def greedy(events: pl.DataFrame) -> pl.DataFrame:
        raise MemoryError

    with pytest.raises(MemoryError):
        given_of(greedy, 1)


# Definitions that cannot be computed


@pytest.mark.parametrize(
    ("wrong", "phrase"),
    [
        (view(PLAIN, KEYED, feature("x", INT64, pl.col("x"))), r"view V: x is not an expression over"),
        (view(PLAIN, KEYED, feature("x", INT64, pl.col("U.x"))), r"view V: x is not an expression over"),
        (view(PLAIN, KEYED, feature("x", INT64, x().str.len_bytes())), r"view V: x is not an expression over"),
        (view(PLAIN, KEYED, feature("x", INT64, pl.all())), r"view V: x must be an expression of one result, got 5"),
        (view(PLAIN, KEYED, where=x()), r"view V: where must be an expression of Bool"),
        (view(PLAIN, KEYED, where=x("y") > 1), r"view V: where is not an expression over"),
        (view(PLAIN, {"key": (STRING, None)}), r"view V: expected an expression for each key of E"),
        (view(PLAIN, KEYED, feature("x", INT64, None)), r"view V: x needs an expression, or the view a function"),
        (view(PLAIN, KEYED, feature("key", INT64, x())), r"view V: key is the name of another key, feature or coord"),
        (view(PLAIN, KEYED, feature("_row", INT64, x())), r"view V: _row is the name of another key, feature or"),
        (view(topic().model_copy(update={"name": "U"}), KEYED), r"view V is computed from U, got the topic T"),
    ],
)
def test_a_view_that_cannot_be_computed_is_refused_before_any_record(wrong: ViewSpec, phrase: str) -> None:
    with pytest.raises(DefinitionError, match=phrase):
        compile_pipeline(PLAIN, [wrong])


@pytest.mark.parametrize(
    ("holds", "phrase"),
    [
        (pl.col("x") + 1, r"T\.x: expectation 'rule' must be an expression of Bool"),
        (pl.col("T.x") > 1, r"T\.x: expectation 'rule' is not an expression over \['x', '_offset'\]"),
    ],
)
def test_an_expectation_that_cannot_be_evaluated_is_refused_before_any_record(holds: pl.Expr, phrase: str) -> None:
    source = topic(column("x", INT64, expectations=expected("rule", holds)))
    with pytest.raises(DefinitionError, match=phrase):
        compile_pipeline(source, [])


@pytest.mark.parametrize(
    ("changed", "phrase"),
    [
        ({"event_time": "when"}, "the event time 'when' must be a column of Timestamp, not null"),
        ({"event_time": "x"}, "the event time 'x' must be a column of Timestamp, not null"),
        ({"event_time": "maybe"}, "the event time 'maybe' must be a column of Timestamp, not null"),
        ({"sequence": "step"}, "the sequence 'step' must be a column of Int64"),
        ({"sequence": "at"}, "the sequence 'at' must be a column of Int64"),
    ],
)
def test_a_topic_whose_events_nothing_orders_is_refused_before_any_record(changed: dict[str, str], phrase: str) -> None:
    source = topic(column("x", INT64), column("maybe", TIMESTAMP, nullable=True)).model_copy(update=changed)
    with pytest.raises(DefinitionError, match=phrase):
        compile_pipeline(source, [])


# Every record by itself

WHOLE = topic(
    column("key", STRING, nullable=True),
    column("x", INT64, nullable=True, expectations=expected("!= 13", pl.col("x") != 13)),
    column("f", FLOAT64, nullable=True),
    column("step", INT64, nullable=True),
    sequence="step",
)


def split(each: Any) -> Iterable[Mapping[str, object]]:
    """Rows, none, too few names, a null, or an exception, by the event."""
    for number in range(each.x % 4):
        yield {"key": each.key, "half": each.f / 2 if number < 2 else None} | ({} if each.x % 5 else {"odd": 1})


def halves(events: pl.DataFrame) -> pl.DataFrame:
    """A row, none, an exception or a null, by the event; and numbers whose last bit hangs on how they are divided."""
    if (events.get_column("x") == 4).any():
        raise ValueError("x is 4")
    some = events.filter(pl.col("x") != 7)
    return some.select("_index", "key", half=pl.col("f") / 3.6)


VIEWS = (
    view(WHOLE, {"key": (STRING, None)}, feature("half", FLOAT64, None), name="Frames", frame=halves),
    view(
        WHOLE,
        {"key": (STRING, x("key"))},
        feature("small", INT32, x(), nullable=True),
        feature("ratio", FLOAT32, x("f") / x()),
        feature("percent", FLOAT64, x("f") / 100),
        where=x("f") > -1e10,
        name="Expressions",
    ),
    view(
        WHOLE,
        {"key": (INT64, x("key").str.to_integer(strict=True))},
        where=x("key").str.to_integer(strict=True) != 2,
        name="Failing",
    ),
    view(WHOLE, {"key": (STRING, None)}, feature("half", FLOAT64, None), where=x() != 3, name="Rows", rows=split),
)


@st.composite
def batches(draw: st.DrawFn) -> Records:
    """Events that are filtered, rejected for every reason there is, or good."""
    count = draw(st.integers(0, 14))
    values: list[bytes | None] = []
    for _ in range(count):
        fields = {
            "at": draw(st.sampled_from([NOW, NOW, NOW, after(7_200), "1600-01-01T00:00:00Z", "no time"])),
            "key": draw(st.sampled_from([None, "a", "1", "2", "-3"])),
            "x": draw(st.sampled_from([None, 0, 1, 2, 3, 4, 5, 7, 11, 13, -6, 2**40])),
            "f": draw(st.none() | st.floats(allow_nan=False, allow_infinity=False)),
            "step": draw(st.none() | st.integers(-2, 2)),
        }
        values.append(draw(st.sampled_from([json.dumps(fields).encode()] * 9 + [None, b"?"])))
    return records(values)


def fates(pipeline: Pipeline, *parts: Records) -> tuple[dict[str, list[tuple[Any, ...]]], list[Reject]]:
    """All rows of each view, floats by their bits, and all rejects, whatever the parts."""
    rows: dict[str, list[tuple[Any, ...]]] = {each.name: [] for each in pipeline.views}
    rejects: list[Reject] = []
    for part in parts:
        outcome = pipeline.run(part)
        check_account(outcome)
        rejects += outcome.rejects
        for given_rows in outcome.rows:
            bits = given_rows.frame.with_columns(
                pl.col(pl.Float32).reinterpret(dtype=pl.UInt32), pl.col(pl.Float64).reinterpret(dtype=pl.UInt64)
            )
            rows[given_rows.view] += bits.rows()
    return rows, rejects


@settings(deadline=None, derandomize=True, max_examples=80)
@given(batches(), st.integers(0, 14), st.randoms(use_true_random=False))
def test_no_cut_of_a_partition_and_no_neighbour_changes_a_row_a_reject_or_the_account(
    batch: Records, cut: int, chance: random.Random
) -> None:
    pipeline = compile_pipeline(WHOLE, VIEWS)
    whole = fates(pipeline, batch)
    positions = range(len(batch))
    assert fates(pipeline, *(take(batch, [position]) for position in positions)) == whole
    assert fates(pipeline, take(batch, positions[:cut]), take(batch, positions[cut:])) == whole
    dealt_anew = dataclasses.replace(take(batch, chance.sample(positions, len(batch))), offsets=batch.offsets)
    assert fates(pipeline, *(take(dealt_anew, [position]) for position in positions)) == fates(pipeline, dealt_anew)


@pytest.mark.parametrize(
    ("key", "text", "error"),
    [
        ("k" * 600, "fits", "the entity key has more than 512 bytes"),
        ("fits", "t" * (1 << 20), "the row has more than 1048576 bytes"),
    ],
)
def test_a_row_that_the_online_store_cannot_hold_is_refused_alone(key: str, text: str, error: str) -> None:
    """It would stop the partition for ever, so it never gets beyond the pipeline; its neighbours are unaffected."""
    source = topic(column("key", STRING), column("text", STRING))
    of = view(source, {"key": (STRING, pl.col("T.key"))}, feature("text", STRING, pl.col("T.text")))
    outcome = run(source, [of], records([event(key="a", text="x"), event(key=key, text=text)]))
    assert outcome.rejects == (Reject(101, "V", "too_long", f"view V: {error}"),)
    assert outcome.rows[0].frame["key"].to_list() == ["a"]
