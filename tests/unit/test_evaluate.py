"""Expressions give the same bits however many rows there are, and however these lie in memory."""

import random

import polars as pl
import pytest

from stillwell.evaluate import describe, evaluate, select

COLUMNS: list[pl.Expr | str] = [(pl.col("a") / 100 + pl.col("b") / 3.6).alias("x"), "n"]
"""Quotients whose last bit shows whether they were divided, or multiplied by the reciprocal."""


def rows(count: int, rng: random.Random) -> pl.DataFrame:
    return pl.DataFrame(
        {"a": [rng.uniform(0, 1e6) for _ in range(count)], "b": [rng.uniform(0, 1e6) for _ in range(count)]}
    ).with_row_index("n")


def put_together(frame: pl.DataFrame, single: int) -> pl.DataFrame:
    """The same rows, the last ones each in a piece of memory of its own, as a frame of series that lie alike."""
    first = frame.height - single
    cuts = [(0, first), *((at, 1) for at in range(first, frame.height))]
    return pl.DataFrame(
        [pl.concat([column.slice(*cut) for cut in cuts], rechunk=False) for column in frame.get_columns()]
    )


@pytest.mark.parametrize("count", [60, 3_000])
def test_rows_that_were_put_together_from_single_ones_give_the_same_bits(count: int, rng: random.Random) -> None:
    frame = rows(count, rng)
    expected = select(frame, COLUMNS)
    pieces = put_together(frame, 50)
    assert pieces.n_chunks() > 10
    assert select(pieces, COLUMNS).equals(expected)
    for place in rng.sample(range(count), 20):
        assert select(frame[[place]], COLUMNS).equals(expected[[place]])


def test_many_rows_are_computed_as_few_are(rng: random.Random) -> None:
    """By threads, or one expression after another."""
    frame = rows(3_000, rng)
    expected, failures = evaluate(frame, COLUMNS)
    assert failures == ()
    assert pl.concat([evaluate(frame[at : at + 100], COLUMNS)[0] for at in range(0, 3_000, 100)]).equals(expected)


@pytest.mark.parametrize("size", [3, 128, 1_536])
@pytest.mark.parametrize("width", [pl.Float32, pl.Float64])
def test_vectors_are_added_up_alike_whether_or_not_another_one_is_null(
    size: int, width: type[pl.DataType], rng: random.Random
) -> None:
    """Polars takes another order where one is, and a batch is cut by chance."""
    vectors = [[rng.gauss(0, 1) for _ in range(size)] for _ in range(40)]
    whole = pl.DataFrame({"a": vectors}, schema={"a": pl.Array(width, size)}).with_row_index("n")
    holes = whole.with_columns(pl.when(pl.col("n") % 4 != 0).then("a").alias("a"))
    sums: list[pl.Expr | str] = [pl.col("a").arr.sum(), pl.col("a").arr.to_list().list.mean().alias("mean"), "n"]
    expected = select(whole, sums)
    assert select(holes, sums).filter(pl.col("n") % 4 != 0).equals(expected.filter(pl.col("n") % 4 != 0))
    assert select(holes, sums).get_column("a").null_count() == 10
    for place in range(40):
        assert select(whole[[place]], sums).equals(expected[[place]])
        assert select(whole[[place, place - 1]], sums).head(1).equals(expected[[place]])


@pytest.mark.parametrize("filled", [False, True])
def test_texts_of_numbers_are_added_up_alike_whether_or_not_another_one_is_null(
    filled: bool, rng: random.Random
) -> None:
    texts = [",".join(str(rng.gauss(0, 1)) for _ in range(200)) for _ in range(20)]
    whole = pl.DataFrame({"a": texts}).with_row_index("n")
    holes = whole.with_columns(pl.when(pl.col("n") % 4 != 0).then("a").alias("a"))
    text = pl.col("a").fill_null(",".join(["0"] * 200)) if filled else pl.col("a")
    vector = text.str.split(",").list.to_array(200).cast(pl.Array(pl.Float64, 200))
    sums: list[pl.Expr | str] = [vector.arr.sum(), "n"]
    expected = select(whole, sums)
    assert select(holes, sums).filter(pl.col("n") % 4 != 0).equals(expected.filter(pl.col("n") % 4 != 0))
    for place in range(20):
        assert select(whole[[place]], sums).equals(expected[[place]])


@pytest.mark.parametrize(
    "expression",
    [
        pl.col("a").list.eval(pl.element() / 3.6).list.first(),
        pl.col("a").list.filter(pl.element() > 500).list.eval(pl.element() / 3.6).list.first(),
        pl.col("a").list.agg(pl.element().sum() / 3.6),
        pl.col("b").str.split(",").list.eval(pl.element().cast(pl.Float64, strict=False) / 3.6).list.first(),
    ],
    ids=str,
)
def test_an_element_gives_the_same_bits_where_it_is_the_only_one_of_a_batch(
    expression: pl.Expr, rng: random.Random
) -> None:
    """Polars takes it for a constant where all other lists of the batch are null or empty, and divides otherwise."""
    numbers = [rng.uniform(600, 1_000) for _ in range(40)]
    lists = [*([each] for each in numbers), None, []]
    whole = pl.DataFrame({"a": lists, "b": [*map(repr, numbers), None, None]}).with_row_index("n")
    frame = whole.select({*expression.meta.root_names()} - {""} | {"n"})
    expected = select(frame, [expression.alias("x"), "n"])
    for place in range(40):
        for other in (40, 41):
            assert select(frame[[place, other]], [expression.alias("x"), "n"]).head(1).equals(expected[[place]])
        assert select(frame[[place]], [expression.alias("x"), "n"]).equals(expected[[place]])


def test_a_frame_with_lists_and_no_rows_gives_none() -> None:
    empty = pl.DataFrame({"a": []}, schema={"a": pl.List(pl.Int64())})
    assert select(empty, [pl.col("a").list.sum()]).height == 0


def test_what_raises_for_a_list_raises_for_its_row_alone() -> None:
    frame = pl.DataFrame({"a": [[1, 2], [1], [3, 4]]}).with_row_index("n")
    computed, failures = evaluate(frame, [pl.col("a").list.to_array(2), "n"])
    assert computed.get_column("n").to_list() == [0, 2]
    assert [failure.position for failure in failures] == [1]


def test_an_error_that_quotes_half_a_character_can_be_written() -> None:
    """Who decodes by surrogateescape gets such texts; dead letters, logs and terminals take them as little as JSON."""
    said = describe(ValueError(b"\xff!".decode(errors="surrogateescape")))
    assert said == "ValueError: \\udcff!"
    assert said.encode()


def test_what_fails_over_the_null_that_it_is_computed_beside_is_told_so() -> None:
    def lengths(column: pl.Series) -> pl.Series:
        return pl.Series([len(each) for each in column])

    frame = pl.DataFrame({"a": [[1, 2], [1]]}).with_row_index("n")
    _, failures = evaluate(frame, [pl.col("a").map_batches(lengths, return_dtype=pl.Int64()), "n"])
    assert [failure.position for failure in failures] == [0, 1]
    assert all(
        "fails where a list, or its text, is null, and lists are computed beside such" in each.error
        for each in failures
    )
