"""A user's function over frames of events, called so that every event's fate is its own.

The function is given the topic's columns by their own names, and `INDEX`, by which each row that it gives says which
event it is of. It may leave events out, and give rows in any order.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from stillwell.evaluate import Failure, apart, twice

INDEX = "_index"
"""No column, key or feature begins with `_`, so that none can be called this."""

_INDEX_TYPE = pl.UInt32()
_MOST_NAMED = 3


class UnfitFrame(ValueError):
    """What a function gave is no frame of rows, whatever the events were."""


class FrameFunction:
    """Calls one function. Holds no state between batches; what the function itself holds, it cannot know."""

    def __init__(
        self, function: Callable[[Any], Any], columns: Mapping[str, pl.DataType], nullable: Collection[str] = ()
    ) -> None:
        """columns: what the function must give beside the index, by name; nullable: the lists and vectors among the
        topic's columns that may be null."""
        self._function = function
        self._nullable = tuple(nullable)
        self._types = {INDEX: _INDEX_TYPE, **columns}

    def run(self, events: pl.DataFrame) -> tuple[pl.DataFrame, tuple[Failure, ...]]:
        """What the function gives for each event, in the order of the index, which is the event's position; and the
        events for which it raises, or gives what is no row of theirs.

        Costs a call of the function; where it raises, about 2 log2(events) more for each event at fault.
        """
        if not events.height:
            return pl.DataFrame(schema=self._types), ()
        pieces, failures = apart(events.insert_column(0, _places(0, events.height)), self._called)
        given = pl.concat(pieces, rechunk=True) if pieces else pl.DataFrame(schema=self._types)
        return given, failures

    def _called(self, events: pl.DataFrame) -> pl.DataFrame:
        """What the function gives for some of the events. Raises whatever it raises, and UnfitFrame.

        It sees each event twice. Polars takes a column of one row for a constant, and rounds otherwise when it divides
        one (`stillwell.evaluate.select`); and which events a function sets apart, to compute them by themselves, nobody
        else can know: here none is ever alone.
        """
        first, count = int(events.get_column(INDEX)[0]), events.height
        seen = self._beside_null(events)
        given = self._checked(self._function(seen.replace_column(0, _places(first, seen.height))))
        rows = _check_index(given.get_column(INDEX), first, seen.height)
        chosen = np.flatnonzero(rows < first + count)
        chosen = chosen[np.argsort(rows[chosen])]
        in_place = np.array_equal(chosen, np.arange(len(chosen)))
        return given.head(len(chosen)) if in_place else given[chosen]

    def _beside_null(self, events: pl.DataFrame) -> pl.DataFrame:
        """The events, twice, and behind them once more for each column of lists that may be null, with null in it.

        Polars adds up the elements of lists in another order where one of the column is null, whosever that is
        (`stillwell.evaluate.select`). A function may leave events out before it adds up: whatever the other columns say
        of an event, they say of the one with the null too.
        """
        if not self._nullable:
            return twice(events)
        return pl.DataFrame([self._repeated(column) for column in events.get_columns()])

    def _repeated(self, column: pl.Series) -> pl.Series:
        nulls = [column.clear(len(column)) if column.name == name else column for name in self._nullable]
        return pl.concat([column, column, *nulls], rechunk=True)

    def _checked(self, given: object) -> pl.DataFrame:
        """What was given, if it is a frame of the columns that there must be. Raises UnfitFrame.

        What has no value has no type either: functions that make columns of Python values give Null where all of them
        are None, a list of Null where all lists are empty, and a frame of no columns for no rows. Which events are
        together must not tell whether that fits.
        """
        if not isinstance(given, pl.DataFrame):
            more = "; add .collect()" if isinstance(given, pl.LazyFrame) else ""
            raise UnfitFrame(f"expected a pl.DataFrame, got a {type(given).__name__}{more}")
        if not given.height:
            return pl.DataFrame(schema=self._types)
        if missing := [name for name in self._types if name not in given.columns]:
            raise UnfitFrame(f"the frame lacks {_named(missing)}; give {_named(list(self._types))} and nothing else")
        if strangers := [name for name in given.columns if name not in self._types]:
            raise UnfitFrame(
                f"the frame has {_named(strangers)}, which is no key or feature; end with .select({INDEX!r}, …)"
            )
        return pl.DataFrame([_of_type(given.get_column(name), kind) for name, kind in self._types.items()])


def _of_type(given: pl.Series, kind: pl.DataType) -> pl.Series:
    """A column of this type, if it is one, or has no value that would give it another. Raises UnfitFrame."""
    if given.dtype == kind:
        return given
    if given.dtype == pl.Null() or (given.dtype == pl.List(pl.Null()) and isinstance(kind, pl.List)):
        return given.cast(kind)
    raise UnfitFrame(f"{given.name}: expected {kind}, got {given.dtype}; add .cast(pl.{kind!r})")


def _places(first: int, count: int) -> pl.Series:
    return pl.Series(INDEX, np.arange(first, first + count, dtype=np.uint32))


def _check_index(given: pl.Series, first: int, count: int) -> npt.NDArray[np.uint32]:
    """The index of the rows, each of one of so many events from a first one on, and none of an event that has a row
    already. Raises UnfitFrame."""
    if given.null_count():
        raise UnfitFrame(f"the frame has a row whose {INDEX} is null; hand on the {INDEX} of the event that it is of")
    index = given.to_numpy()
    if index.size and (index.min() < first or index.max() >= first + count):
        raise UnfitFrame(f"the frame has a row of no event that was given, by {INDEX}; hand it on as it came")
    if np.bincount(index - first, minlength=1).max() > 1:
        raise UnfitFrame(f"the frame has several rows of one event, by {INDEX}; only a @rows function can give several")
    return index


def _named(names: list[str]) -> str:
    shown = names if len(names) <= _MOST_NAMED else [*names[:_MOST_NAMED], "…"]
    return ", ".join(shown)
