"""The forms of a transformation that are functions: `@rows` makes any number of rows from one event, `@frame` at most
one row for each event of a frame."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import polars as pl

Rows = Iterable[Mapping[str, object]]


class RowsMethod:
    """A function in a view's body, marked as the one that makes its rows. Called through the class, as it stands."""

    word = "@rows"

    def __init__(self, function: Callable[[Any], Rows]) -> None:
        self.function = function
        self.__doc__ = function.__doc__

    def __call__(self, event: Any) -> Rows:
        return self.function(event)


def rows(function: Callable[[Any], Rows]) -> RowsMethod:
    """Mark the function of a view's body that turns one event into rows:

        @rows
        @staticmethod
        def ends(event: Arrival) -> Iterable[Mapping[str, object]]:
            yield {"airport": event.origin, "role": "origin"}
            yield {"airport": event.dest, "role": "dest"}

    Each row maps every key and every feature to a value. The function sees one event and nothing else: no clock, no
    chance, no memory of other events. Its rows are numbered in the order in which it gives them. (`@staticmethod` is
    for type checkers, which otherwise take the event for the view itself.)
    """
    return RowsMethod(function.__func__ if isinstance(function, staticmethod) else function)


class FrameMethod:
    """A function in a view's body, marked as the one that makes its rows. Called through the class, as it stands."""

    word = "@frame"

    def __init__(self, function: Callable[[pl.DataFrame], pl.DataFrame]) -> None:
        self.function = function
        self.__doc__ = function.__doc__

    def __call__(self, events: pl.DataFrame) -> pl.DataFrame:
        return self.function(events)


def frame(function: Callable[[pl.DataFrame], pl.DataFrame]) -> FrameMethod:
    """Mark the function of a view's body that turns a frame of events into one of rows:

        @frame
        @staticmethod
        def scores(events: pl.DataFrame) -> pl.DataFrame:
            return events.select("_index", "customer", score=pl.col("amount") * 2)

    It is given the topic's columns by their own names, and `_index`, which it hands on: each row that it gives is that
    of one event, and an event without a row is filtered. A row has every key and every feature, in their types to the
    bit. What it gives for an event depends on that event alone, however many stand beside it: nothing is kept from call
    to call. (`@staticmethod` is for type checkers, which otherwise take the frame for the view itself.)
    """
    return FrameMethod(function.__func__ if isinstance(function, staticmethod) else function)


Maker = RowsMethod | FrameMethod
"""What may make a view's rows."""
