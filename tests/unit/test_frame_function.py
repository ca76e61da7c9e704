"""Functions of frames, called: what an event gives depends on that event alone."""

import random

import polars as pl

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


def test_a_column_that_is_never_null_is_not_given_a_null() -> None:
    def refuses_nulls(events: pl.DataFrame) -> pl.DataFrame:
        assert events["xs"].null_count() == 0
        return events.select(INDEX, total=pl.col("xs").list.sum())

    given, failures = FrameFunction(refuses_nulls, {"total": pl.Float64()}).run(pl.DataFrame({"xs": [[1.0], [2.0]]}))
    assert given["total"].to_list() == [1.0, 2.0]
    assert failures == ()
