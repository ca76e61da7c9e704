"""Columns of lists and vectors as all of their elements in one column, and back: so that what is done to single values
is done to elements by the same code, and never in a loop over lists."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from stillwell.types import FieldType


class Elements(NamedTuple):
    """flat: the elements of all lists, one behind the other. lengths: of each list; a null has none."""

    flat: pl.Series
    lengths: npt.NDArray[np.int64]


def elements_of(lists: pl.Series) -> Elements:
    """The elements of a column of lists or vectors."""
    flat, lengths = arrow_elements(lists)
    return Elements(_series(flat), lengths)


def arrow_elements(lists: pl.Series) -> tuple[pa.Array, npt.NDArray[np.int64]]:
    """The same as Arrow has it."""
    arrow = lists.to_arrow()
    if isinstance(lists.dtype, pl.Array):
        lengths = np.full(len(lists), lists.dtype.size, np.int64)
    else:
        lengths = np.diff(arrow.offsets.to_numpy()).astype(np.int64)
    if arrow.null_count:
        lengths[lists.is_null().to_numpy()] = 0
    return arrow.flatten(), lengths  # without what lies under nulls


def rows_of_elements(elements: Elements, places: Iterable[int]) -> list[int]:
    """The lists that have an element at one of these places among all, each once."""
    ends = np.cumsum(elements.lengths)
    found: list[int] = np.unique(np.searchsorted(ends, np.fromiter(places, np.int64), side="right")).tolist()
    return found


def with_null_elements(lists: pl.Series) -> list[int]:
    """The positions of lists that hold a null."""
    elements = elements_of(lists)
    if not elements.flat.null_count():
        return []
    return rows_of_elements(elements, elements.flat.is_null().arg_true())


def column_of_lists(
    kind: FieldType, values: Sequence[Sequence[Any] | None], column: Callable[[list[Any]], pl.Series]
) -> pl.Series:
    """Python lists, or nulls, as a column of their type. column: makes one of elements."""
    flat = column(list(itertools.chain.from_iterable(filter(None, values))))
    return column_of_elements(kind, flat, [None if value is None else len(value) for value in values])


def column_of_elements(kind: FieldType, flat: pl.Series, lengths: Sequence[int | None]) -> pl.Series:
    """A column of lists or vectors from all of their elements. lengths: of each list, None for a null; those of vectors
    are their size."""
    elements = flat.to_arrow()
    if kind.size is not None:
        vectors = pa.FixedSizeListArray.from_arrays(elements, kind.size)
        if None in lengths:
            numbers = itertools.count()
            vectors = vectors.take(
                pa.array([None if length is None else next(numbers) for length in lengths], pa.int64())
            )
        return _series(vectors).cast(kind.polars)
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum([length or 0 for length in lengths], out=offsets[1:])
    nulls = pa.array([length is None for length in lengths]) if None in lengths else None
    return _series(pa.LargeListArray.from_arrays(offsets, elements, mask=nulls)).cast(kind.polars)


def with_elements(lists: pl.Series, change: Callable[[pl.Series], pl.Series], kind: FieldType) -> pl.Series:
    """The lists with other elements of their type, one for each."""
    flat, lengths = elements_of(lists)
    there = [None if null else length for null, length in zip(lists.is_null(), lengths.tolist(), strict=True)]
    return column_of_elements(kind, change(flat), there).alias(lists.name)


def _series(array: pa.Array) -> pl.Series:
    found = pl.from_arrow(array)
    assert isinstance(found, pl.Series)  # a table gives a frame
    return found
