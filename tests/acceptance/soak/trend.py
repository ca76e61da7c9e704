"""Whether what a process holds grows: robust against steps, noise and what comes back. Pure.

Memory is no straight line. A cache fills, an allocator takes a piece and keeps it, a collection frees much at once. So
a series is cut into pieces of equal time, of each its median is taken, and the slope is the median of those of all
pairs (Theil and Sen): a quarter of the pieces may be anything.
"""

import dataclasses
import itertools
import statistics
from collections.abc import Sequence

_PIECES = 60

Sample = tuple[float, float]
"""Seconds since the beginning, and the value."""


@dataclasses.dataclass(frozen=True, slots=True)
class Trend:
    """How a series went. first, last: the medians of its second and of its last fifth; the first one is left to
    settle. most: the largest value. per_minute: the slope."""

    first: float
    last: float
    most: float
    per_minute: float

    @property
    def grown(self) -> float:
        """By how much."""
        return self.last - self.first


@dataclasses.dataclass(frozen=True, slots=True)
class Limit:
    """What may not be passed both at once: a slope alone may be an accident of a short run, a step alone is no leak."""

    per_minute: float
    grown: float

    def passed_by(self, trend: Trend) -> bool:
        """Whether a series grows."""
        return trend.per_minute > self.per_minute and trend.grown > self.grown


def trend(samples: Sequence[Sample]) -> Trend:
    """The trend of a series, in the order of its times. Of fewer than five samples there is none."""
    if len(samples) < 5:
        raise ValueError(f"{len(samples)} samples have no trend")
    begin, end = samples[0][0], samples[-1][0]
    values = [value for _, value in samples]

    def between(first: float, last: float) -> list[float]:
        low, high = begin + first * (end - begin), begin + last * (end - begin)
        return [value for at, value in samples if low <= at <= high] or values

    pieces = []
    for _, piece in itertools.groupby(
        samples, lambda sample: int(_PIECES * (sample[0] - begin) / (end - begin + 1e-9))
    ):
        times, found = zip(*piece, strict=True)
        pieces.append((statistics.median(times), statistics.median(found)))
    slopes = [(y2 - y1) / (x2 - x1) for (x1, y1), (x2, y2) in itertools.combinations(pieces, 2)]
    return Trend(
        first=statistics.median(between(0.2, 0.4)),
        last=statistics.median(between(0.8, 1.0)),
        most=max(values),
        per_minute=60 * statistics.median(slopes),
    )
