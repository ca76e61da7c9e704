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


def at_most_bytes(column: pl.Series) -> int:
    """A number of bytes that no text or string of bytes in the column exceeds: those of all of them together."""
    return int(column.estimated_size())
