"""`@rows`: the form of transformation that makes any number of rows from one event."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

Rows = Iterable[Mapping[str, object]]


class RowsMethod:
    """A function in a view's body, marked as the one that makes its rows. Called through the class, as it stands."""

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
