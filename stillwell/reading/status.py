"""What an answer is worth.

PRESENT            there is a value
NULL_VALUE         the newest event left it null
NOT_FOUND          nobody has ever written it: there is no row, or the row is older than the feature
OUTSIDE_MAX_AGE    the row's event lies further back than the view's TTL; the value is what it was

And whether it is as new as its view is meant to be:

FRESH              the row's event lies no further back than the view's `freshness`
LATE               it lies further back: the objective is missed
"""

import enum
import functools


class Status(enum.Enum):
    """What an answer is worth."""

    PRESENT = "PRESENT"
    NULL_VALUE = "NULL_VALUE"
    NOT_FOUND = "NOT_FOUND"
    OUTSIDE_MAX_AGE = "OUTSIDE_MAX_AGE"


class Freshness(enum.Enum):
    """Whether a row meets its view's objective."""

    FRESH = "FRESH"
    LATE = "LATE"


@functools.lru_cache(maxsize=1024)
def present(count: int) -> tuple[Status, ...]:
    """So many values that are there: one and the same tuple each time."""
    return (Status.PRESENT,) * count
