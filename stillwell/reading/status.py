"""What an answer is worth.

PRESENT            there is a value
NULL_VALUE         the newest event left it null
NOT_FOUND          nobody has ever written it: there is no row, or the row is older than the feature
OUTSIDE_MAX_AGE    the row's event lies further back than the view's TTL; the value is what it was
"""

import enum


class Status(enum.Enum):
    """What an answer is worth."""

    PRESENT = "PRESENT"
    NULL_VALUE = "NULL_VALUE"
    NOT_FOUND = "NOT_FOUND"
    OUTSIDE_MAX_AGE = "OUTSIDE_MAX_AGE"
