"""How values are written in JSON: what Feast's feature server and our own interface share.

Floats that JSON cannot write are texts, as protobuf writes them: "NaN", "Infinity", "-Infinity". Bytes are base64. The
event time of what is not there is the epoch, to Feast's clients.

Answers are put together from pieces of JSON: columns of one view's rows share their event times and mostly all else but
the values, and that is written once. With a hundred entities and ten features it saves two thirds of the writing.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from stillwell.floats import writable
from stillwell.instants import SECOND_US, instant
from stillwell.reading.features import FeatureColumn, present
from stillwell.reading.status import Status
from stillwell.types import FLOAT32, FLOAT64, TIMESTAMP, FieldType

encode: Callable[[Any], bytes] = msgspec.json.Encoder().encode


def age(at_us: int | None, now_us: int) -> float | None:
    """Seconds since a time; None where there is none."""
    return None if at_us is None else (now_us - at_us) / SECOND_US


def written(kind: FieldType, values: Sequence[Any], times: Callable[[int], object], whole: bool) -> Sequence[Any]:
    """Values of a type as JSON can have them. times: how a Timestamp is written, from µs since the epoch. whole: none
    of them is null."""
    if kind.element is not None:
        element = kind.element
        if element not in (FLOAT32, FLOAT64, TIMESTAMP):
            return values
        return [None if value is None else written(element, value, times, whole=True) for value in values]
    if kind is FLOAT32 or kind is FLOAT64:
        # A sum is finite if all are; it may overflow without one that is not, which costs no more than a closer look.
        if whole and math.isfinite(sum(values)):
            return values
        return [value if value is None or math.isfinite(value) else writable(value) for value in values]
    if kind is TIMESTAMP:
        return [None if value is None else times(value) for value in values]
    return values


@functools.lru_cache(maxsize=1024)
def all_present(count: int) -> bytes:
    """The statuses of so many values that are there, in JSON."""
    return encode([Status.PRESENT.value] * count)


class Rests:
    """What stands behind the values of each column of one answer."""

    def __init__(self, count: int, rest: Callable[[FeatureColumn, bytes, bytes], bytes], absent: object) -> None:
        """count: of entities. rest: makes it from a column, and its statuses and event times in JSON. absent: the event
        time of what is not there."""
        self._rest = rest
        self._absent = absent
        self._whole = present(count)
        self._times: dict[int, bytes] = {}
        self._of_whole: dict[int, bytes] = {}

    def of(self, column: FeatureColumn) -> bytes:
        """That of a column: one and the same for all columns of the same rows whose values are all there."""
        rows = id(column.event_times)  # which the answer's columns keep alive
        if column.statuses is not self._whole:
            return self._rest(column, encode([status.value for status in column.statuses]), self._times_of(column))
        rest = self._of_whole.get(rows)
        if rest is None:
            rest = self._rest(column, all_present(len(column.values)), self._times_of(column))
            self._of_whole[rows] = rest
        return rest

    def _times_of(self, column: FeatureColumn) -> bytes:
        rows = id(column.event_times)
        times = self._times.get(rows)
        if times is None:
            shown = [self._absent if us is None else instant(us) for us in column.event_times]
            times = self._times[rows] = encode(shown)
        return times
