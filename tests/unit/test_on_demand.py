"""An on-demand view computes the same bits of a row alone, among others, and in any cut."""

import datetime
import random
from typing import Any

import polars as pl
import pytest

from stillwell.definitions.samples import sample_inputs
from stillwell.errors import DefinitionError
from stillwell.on_demand import Computed, OnDemand, at_one_instant
from stillwell.spec import AS_OF, OnDemandSpec
from stillwell.types import FLOAT64, INT32, INT64, TIMESTAMP, FieldType
from tests.batches import feature
from tests.computed import AGE_US, ASKED, OTHER, STORED


def on_demand(*features: tuple[str, FieldType, pl.Expr | None]) -> OnDemandSpec:
    return OnDemandSpec(
        name="Computed",
        version=1,
        inputs=(STORED, OTHER, ASKED),
        features=tuple(feature(name, kind, expression, nullable=True) for name, kind, expression in features),
    )


MIXED = on_demand(
    ("ratio", FLOAT64, pl.col("Stored.amount") / 100 + pl.col("Asked.price") / 3.6),
    ("apart", FLOAT64, pl.col("Stored.amount") - pl.col("Stored[id=Pair.left].amount")),
    ("age_h", FLOAT64, AGE_US / 3_600_000_000),
    ("length", INT64, pl.col("Asked.text").str.len_chars().cast(pl.Int64)),
    ("due", TIMESTAMP, pl.col(AS_OF) + pl.duration(microseconds=pl.col("Asked.price").clip(0, 1e9).cast(pl.Int64))),
    ("one", INT32, pl.lit(1, pl.Int32)),
)


def bits(computed: Computed) -> list[tuple[Any, ...]]:
    assert computed.failures == ()
    return [tuple(value.hex() if isinstance(value, float) else value for value in row) for row in computed.frame.rows()]


def cuts(count: int, randomness: random.Random) -> list[list[int]]:
    places = randomness.sample(range(count), count)
    pieces = []
    while places:
        size = randomness.randint(1, 7)
        pieces.append(places[:size])
        places = places[size:]
    return pieces


@pytest.mark.parametrize("instants", ["each its own", "one for all"])
def test_alone_in_a_batch_and_in_any_cut_agree_to_the_bit(instants: str, rng: random.Random) -> None:
    rows = sample_inputs(MIXED)
    as_of = rows.get_column(AS_OF)
    if instants == "one for all":
        as_of = at_one_instant(1_767_225_600_123_457, rows.height)
    computed = OnDemand(MIXED)
    whole = bits(computed.compute(rows, as_of))
    assert len(whole) == rows.height
    assert len({row[0] for row in whole}) > 10
    for place in range(rows.height):
        assert bits(computed.compute(rows[[place]], as_of[[place]])) == [whole[place]]
    for piece in cuts(rows.height, rng):
        assert bits(computed.compute(rows[piece], as_of[piece])) == [whole[place] for place in piece]


def test_rows_that_were_put_together_from_single_ones_give_the_same_bits() -> None:
    """Polars computes chunk by chunk, and takes a chunk of one row for a constant."""
    rows = sample_inputs(MIXED).rechunk()
    chunked = pl.concat([rows[[place]] for place in range(rows.height)], rechunk=False)
    assert chunked.n_chunks() > 40
    computed = OnDemand(MIXED)
    expected = bits(computed.compute(rows, rows.get_column(AS_OF)))
    assert bits(computed.compute(chunked, chunked.get_column(AS_OF))) == expected


def test_a_part_of_the_features_is_what_it_is_among_all(rng: random.Random) -> None:
    rows = sample_inputs(MIXED)
    whole = OnDemand(MIXED).compute(rows, rows.get_column(AS_OF)).frame
    some = OnDemand(MIXED, ["age_h", "ratio"])
    assert [each.name for each in some.features] == ["age_h", "ratio"]
    assert set(some.columns) == {"Stored.seen", "Stored.amount", "Asked.price"}
    assert some.reads == {"age_h": ("Stored.seen",), "ratio": ("Stored.amount", "Asked.price")}
    assert some.compute(rows, rows.get_column(AS_OF)).frame.equals(whole.select("age_h", "ratio"))


def test_columns_have_the_declared_types_even_without_rows() -> None:
    rows = sample_inputs(MIXED).head(0)
    frame = OnDemand(MIXED).compute(rows, rows.get_column(AS_OF)).frame
    assert frame.schema == {each.name: each.type.polars for each in MIXED.features}


def test_a_constant_is_there_for_every_row_though_nothing_is_read() -> None:
    computed = OnDemand(MIXED, ["one"])
    for count in (0, 1, 3):
        assert (
            computed.compute(pl.DataFrame(), at_one_instant(0, count)).frame.get_column("one").to_list() == [1] * count
        )


def test_a_row_that_fails_is_named_and_leaves_the_others_alone() -> None:
    parsing = on_demand(
        ("fine", FLOAT64, pl.col("Asked.price") * 2), ("number", INT64, pl.col("Asked.text").cast(pl.Int64))
    )
    rows = pl.DataFrame({"Asked.price": [1.0, 2.0, 3.0], "Asked.text": ["7", "x", None]})
    computed = OnDemand(parsing).compute(rows, at_one_instant(0, 3))
    assert computed.frame.rows() == [(2.0, 7), (6.0, None)]
    (failure,) = computed.failures
    assert failure.position == 1
    assert failure.error.startswith("number: InvalidOperationError")


def test_a_time_that_few_could_hold_fails() -> None:
    far = on_demand(("far", TIMESTAMP, pl.col(AS_OF) + pl.duration(days=pl.col("Asked.price").cast(pl.Int64))))
    rows = pl.DataFrame({"Asked.price": [1.0, 4e6, 2.0]})
    computed = OnDemand(far).compute(rows, at_one_instant(0, 3))
    day = datetime.datetime(1970, 1, 2, tzinfo=datetime.UTC)
    assert computed.frame.get_column("far").to_list() == [day, day + datetime.timedelta(1)]
    assert [(each.position, each.error[:24]) for each in computed.failures] == [(1, "far: expected a time in ")]


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        (None, "Computed: wrong needs an expression"),
        (pl.col("T.id"), "reads T.id, which is of none of its inputs"),
        (pl.col("Asked.price"), "Computed: wrong is declared Int64 but computes Float64"),
        (pl.col("Asked.price").dt.year(), "Computed: wrong is not an expression"),
    ],
)
def test_what_cannot_be_computed_is_refused_before_it_is_tried(expression: pl.Expr | None, says: str) -> None:
    with pytest.raises(DefinitionError, match=says):
        OnDemand(on_demand(("wrong", INT64, expression)))
