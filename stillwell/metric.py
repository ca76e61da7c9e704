"""What a metric is, for processes that show some: the lists are in `streams/metrics.py` and `serving/metrics.py`."""

import dataclasses
from typing import Literal

FAST = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Bounds of buckets for what takes from half a millisecond to a minute."""


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """One metric, and for a histogram the upper bounds of its buckets. It is only the same as itself: its values are
    looked up by it for every request, and to hash all that it says would take longer than to count."""

    kind: Literal["counter", "gauge", "histogram"]
    name: str
    meaning: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = FAST
