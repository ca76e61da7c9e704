"""Single steps over a column. Polars plans a query for many a method of a Series, which costs 40 µs before the first
value; these cost 5, and a small batch takes dozens of them."""

import polars as pl

FEW = 200
"""Rows of which some steps are taken in Python: Polars plans a query for each, which takes longer than so many values.
What is pushed at one moment is so few."""


def microseconds(times: pl.Series) -> pl.Series:
    """Times, or durations, in microseconds (since the epoch) as Int64."""
    return times.cast(pl.Int64)


def filled(column: pl.Series, value: object) -> pl.Series:
    """The column with a value in place of its nulls."""
    return column.fill_null(value) if column.null_count() else column


def quiet(floats: pl.Series) -> pl.Series:
    """Floats with every NaN a quiet one: of others, as bytes that were no number may give, the bits do not last. They
    change where a Float32 becomes a float of Python's, and no text of JSON stands for them."""
    nans = floats.is_nan()
    if not nans.any():
        return floats
    width, bit = (pl.UInt32(), 1 << 22) if floats.dtype == pl.Float32() else (pl.UInt64(), 1 << 51)
    bits = floats.reinterpret(dtype=width)
    quieted = (bits | pl.Series([bit], dtype=width)).zip_with(nans.fill_null(False), bits)
    return quieted.reinterpret(dtype=floats.dtype)


def at_most_bytes(column: pl.Series) -> int:
    """A number of bytes that no text or string of bytes in the column exceeds: those of all of them together."""
    return int(column.estimated_size())
