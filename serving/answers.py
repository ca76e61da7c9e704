"""How values are written in JSON: what Feast's feature server and our own interface share.

Floats that JSON cannot write are texts, as protobuf writes them: "NaN", "Infinity", "-Infinity". Bytes are base64. The
event time of what is not there is the epoch, to Feast's clients.
"""

import datetime
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from stillwell.reading.features import FeatureColumn, present
from stillwell.reading.status import Status
from stillwell.types import FLOAT32, FLOAT64, TIMESTAMP, FieldType
from stillwell.wire import EPOCH

encode: Callable[[Any], bytes] = msgspec.json.Encoder().encode


def instant(us: int) -> datetime.datetime:
    """A time from µs since the epoch."""
    return EPOCH + datetime.timedelta(microseconds=us)


def written(kind: FieldType, values: Sequence[Any], times: Callable[[int], object]) -> Sequence[Any]:
    """Values of a type as JSON can have them. times: how a Timestamp is written, from µs since the epoch."""
    if kind in (FLOAT32, FLOAT64):
        # A sum is finite if all are; it may overflow without one that is not, which costs no more than a closer look.
        if None not in values and math.isfinite(sum(values)):
            return values
        return [value if value is None or math.isfinite(value) else _unwritable(value) for value in values]
    if kind is TIMESTAMP:
        return [None if value is None else times(value) for value in values]
    return values


def _unwritable(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def statuses(column: FeatureColumn) -> msgspec.Raw | list[str]:
    """A column's statuses in JSON."""
    given = column.statuses
    if given is present(len(given)):
        return all_present(len(given))
    return [status.value for status in given]


@functools.lru_cache(maxsize=1024)
def all_present(count: int) -> msgspec.Raw:
    """The statuses of so many values that are there, in JSON."""
    return msgspec.Raw(encode([Status.PRESENT.value] * count))


class EventTimes:
    """Event times of one answer in JSON: those that several columns share are written once."""

    def __init__(self, absent: object) -> None:
        """absent: what stands where there is no row."""
        self._absent = absent
        self._written: dict[int, msgspec.Raw] = {}

    def of(self, column: FeatureColumn) -> msgspec.Raw:
        """A column's event times."""
        times = column.event_times
        written = self._written.get(id(times))
        if written is None:
            shown = [self._absent if us is None else instant(us) for us in times]
            written = self._written[id(times)] = msgspec.Raw(encode(shown))
        return written
