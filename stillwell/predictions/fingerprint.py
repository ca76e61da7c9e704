"""Which inputs a prediction is of: a hash over the stamps of the stored rows that it was computed from.

Two readings of the same rows have the same fingerprint, and a new row another one, even if it has the same values. For
each row also counts whether it was within its view's TTL: past it the model is given nulls. What else depends on the
clock alone (a feature on demand that counts from AS_OF) stays outside: with it no prediction would ever be fresh.
"""

import hashlib
from collections.abc import Sequence

from stillwell.layout.prediction import FINGERPRINT_BYTES
from stillwell.layout.stamp import STAMP_BYTES
from stillwell.layout.value import LENGTH_AT, STAMP_AT

_ABSENT = b"\0"
_CURRENT = b"\1"
_PAST_TTL = b"\2"
_TIME_END = STAMP_AT + 8

OF_NO_ROWS = bytes(FINGERPRINT_BYTES)
"""The fingerprint of a model that reads no rows."""


def fingerprint(rows: Sequence[bytes | None], earliest: Sequence[bytes | None]) -> bytes:
    """Of one entity's rows as they are stored, one for each view that the model reads, in the order of its plan.

    earliest: for each view, the first 8 bytes of the least stamp within its TTL, None where it has none.
    """
    return hashlib.sha256(
        b"".join(
            [
                _ABSENT
                if row is None
                else (_PAST_TTL if least is not None and row[STAMP_AT:_TIME_END] < least else _CURRENT)
                + row[STAMP_AT:LENGTH_AT]
                for row, least in zip(rows, earliest, strict=True)
            ]
        )
    ).digest()[:FINGERPRINT_BYTES]


def request_digest(values: Sequence[object]) -> bytes:
    """What stands for request values in a key: the same for the same values of the same types."""
    said = "\0".join(f"{type(value).__name__}\1{value!r}" for value in values)
    return hashlib.sha256(said.encode()).hexdigest()[:32].encode()


assert LENGTH_AT - STAMP_AT == STAMP_BYTES
