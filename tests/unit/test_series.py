"""What the encoding of rows leans on Polars for: the bytes of a column are never told too low, and few values are made
into columns as many are."""

import datetime
import random

import polars as pl
import pytest

from stillwell.series import FEW, at_most_bytes
from stillwell.wire import instants

LONG = "x" * 2_000_000
OF_THREE = pl.DataFrame({"at": [1, 2, 3]}).with_columns(text=pl.lit(LONG)).get_column("text")
"""One text that all rows share."""


@pytest.mark.parametrize(
    "column",
    [
        OF_THREE,
        OF_THREE.gather([0, 0]),
        OF_THREE.slice(1, 1),
        OF_THREE.cast(pl.Binary),
        pl.Series(["a", LONG, "b"]).filter(pl.Series([False, True, False])),
        pl.concat([pl.Series(["a"]), pl.Series([LONG])]),
        pl.Series([None, LONG]),
    ],
    ids=["shared", "gathered", "sliced", "binary", "filtered", "in pieces", "beside null"],
)
def test_no_text_is_longer_than_its_column_is_said_to_be(column: pl.Series) -> None:
    """Else a row that is too long would not be rejected, and encoding it would end the worker."""
    assert at_most_bytes(column) >= len(LONG)


def test_few_times_are_made_into_the_column_that_many_are(rng: random.Random) -> None:
    times = [
        None if number % 7 == 0 else datetime.timedelta(microseconds=rng.randrange(-(2**54), 2**54))
        for number in range(FEW + 1)
    ]
    parts = [instants(times[begin : begin + 50]) for begin in range(0, len(times), 50)]
    assert pl.concat(parts).equals(instants(times), check_dtypes=True, null_equal=True)
