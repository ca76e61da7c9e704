"""Functions of frames, called: what an event gives depends on that event alone."""

import itertools
import random
from typing import Any

import polars as pl
import pytest

from stillwell.frame_function import INDEX, FrameFunction


def total(events: pl.DataFrame) -> pl.DataFrame:
    return events.select(INDEX, total=1 + pl.col("xs").arr.sum())


def vectors(*values: list[float] | None) -> pl.DataFrame:
    return pl.DataFrame({"xs": values}, schema={"xs": pl.Array(pl.Float64(), 200)})


def test_lists_are_added_up_alike_whether_or_not_another_events_is_null(rng: random.Random) -> None:
    """Polars adds up 128 elements and more in another order where one of the column is null."""
    function = FrameFunction(total, {"total": pl.Float64()}, ["xs"])
    long = [[rng.uniform(-1e6, 1e6) for _ in range(200)] for _ in range(20)]
    differing = 0
    for numbers in long:
        alone, _ = function.run(vectors(numbers))
        beside, _ = function.run(vectors(numbers, None, numbers))
        assert alone["total"][0] == beside["total"][0]
        assert (alone.height, beside.height) == (1, 3)
        plain = vectors(numbers, numbers).select(1 + pl.col("xs").arr.sum())
        differing += plain.item(0, 0) != beside["total"][0]
    assert differing, "by itself Polars gives the same: nothing is tried here"


@pytest.mark.parametrize(
    "kept", [pl.col("open"), pl.col("open") & pl.col("ys").is_not_null()], ids=["a flag", "a list"]
)
def test_lists_are_added_up_alike_whichever_events_a_function_leaves_out(kept: pl.Expr, rng: random.Random) -> None:
    """What stands beside them for the sake of its null must not be left out with another event."""

    def of_some(events: pl.DataFrame) -> pl.DataFrame:
        return total(events.filter(kept))

    function = FrameFunction(of_some, {"total": pl.Float64()}, ["xs", "ys"])
    differing = 0
    for _ in range(20):
        numbers = [rng.uniform(-1e6, 1e6) for _ in range(200)]
        alone = vectors(numbers).with_columns(open=True, ys=[1])
        out = alone.with_columns(open=False)
        null = vectors(None).with_columns(open=True, ys=[1])
        totals = [
            function.run(frame.clone())[0]["total"][-1]
            for frame in (alone, pl.concat([out, alone]), pl.concat([out, null, alone]))
        ]
        assert len(set(totals)) == 1
        differing += total(pl.concat([alone, alone]).with_row_index(INDEX))["total"][0] != totals[0]
    assert differing, "by itself Polars gives the same: nothing is tried here"


def test_a_column_that_is_never_null_is_not_given_a_null() -> None:
    def refuses_nulls(events: pl.DataFrame) -> pl.DataFrame:
        assert events["xs"].null_count() == 0
        return events.select(INDEX, total=pl.col("xs").list.sum())

    given, failures = FrameFunction(refuses_nulls, {"total": pl.Float64()}).run(pl.DataFrame({"xs": [[1.0], [2.0]]}))
    assert given["total"].to_list() == [1.0, 2.0]
    assert failures == ()


@pytest.mark.parametrize(
    ("values", "kind"),
    [(["a", None, "b"], pl.String()), ([["a"], [], None, ["b", "c"]], pl.List(pl.String()))],
    ids=["nulls", "empty lists"],
)
def test_what_has_no_value_fits_whichever_type_it_would_have(values: list[Any], kind: pl.DataType) -> None:
    """Polars guesses Null for a column of None, and a list of Null for one of empty lists: what stands beside them must
    not tell whether that is the feature's type."""

    def guessed(events: pl.DataFrame) -> pl.DataFrame:
        return events.select(INDEX, pl.Series("value", [values[number] for number in events["number"]]))

    function = FrameFunction(guessed, {"value": kind})
    numbers = range(len(values))
    for places in itertools.chain(itertools.permutations(numbers), itertools.combinations(numbers, 1)):
        given, failures = function.run(pl.DataFrame({"number": places}))
        assert failures == ()
        assert given["value"].to_list() == [values[place] for place in places]
        assert given["value"].dtype == kind


def test_no_rows_fit_whichever_columns_they_would_have() -> None:
    def rows(events: pl.DataFrame) -> pl.DataFrame:
        given = [row for row in events.iter_rows(named=True) if row["number"] > 1]
        return pl.DataFrame(given, schema_overrides={INDEX: pl.UInt32()}) if given else pl.DataFrame(given)

    function = FrameFunction(rows, {"number": pl.Int64()})
    assert function.run(pl.DataFrame({"number": [1, 2]}))[0]["number"].to_list() == [2]
    given, failures = function.run(pl.DataFrame({"number": [1]}))
    assert (given.height, failures) == (0, ())
