"""From measurements to figures: statistics, the limits, and whether they are kept. Pure."""

import dataclasses
import math
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal


@dataclasses.dataclass(frozen=True, slots=True)
class Limit:
    """What one key of the result must keep to, and what it should reach.

    sense: whether the figure must be at least, or at most, the limit. part: which part of the run measures it.
    """

    key: str
    sense: Literal["at least", "at most"]
    limit: float
    goal: float | None
    unit: str
    meaning: str
    part: str

    def keeps(self, value: float) -> bool:
        """Whether a figure is within the limit."""
        return self._within(value, self.limit)

    def reaches(self, value: float) -> bool:
        """Whether a figure is at the goal; without a goal, whether it is within the limit."""
        return self._within(value, self.limit if self.goal is None else self.goal)

    def _within(self, value: float, bound: float) -> bool:
        return value >= bound if self.sense == "at least" else value <= bound


INGEST: tuple[Limit, ...] = (
    Limit("ratio_raw", "at least", 0.2, 0.3, "x", "worker, 20 k keys, to a bare aiokafka consumer", "throughput"),
    Limit("ratio_raw_unique", "at least", 0.13, 0.2, "x", "the same with near-unique keys", "throughput"),
    Limit(
        "ratio_quix", "at least", 3.5, 6.0, "x", "worker, 20 k keys, to Quix Streams with its RedisSink", "throughput"
    ),
    Limit(
        "ratio_stock_faust", "at least", 9.0, None, "x", "worker, 20 k keys, to an idle stock Faust agent", "throughput"
    ),
    Limit("lww_vs_hset", "at most", 0.6, 0.4, "x", "put-if-newer to a blind HSET, wall time a row", "writes"),
    Limit("lww_vs_hset_server_cpu", "at most", 2.0, 1.5, "x", "the same, server CPU a row", "writes"),
    Limit("servable_p99_ms", "at most", 100.0, 25.0, "ms", "produced → servable, steady rate, p99", "freshness"),
    Limit("servable_p999_ms", "at most", 500.0, 100.0, "ms", "the same with a slow object store, p99.9", "freshness"),
    Limit("bytes_per_feature", "at most", 13.0, 11.0, "B", "Redis memory a feature, 50 floats a row", "memory"),
    Limit("rss_mb_64_partitions", "at most", 800.0, 400.0, "MB", "peak memory of a worker, 64 partitions", "memory"),
    Limit("two_workers_cpu_overhead", "at most", 0.15, None, "x", "more CPU an event over two workers", "splitting"),
)

SERVE: tuple[Limit, ...] = (
    Limit("ratio_feast_1x10", "at least", 15.0, 25.0, "x", "one row of 10 features, to Feast's server", "reading"),
    Limit("ratio_feast_100x10", "at least", 10.0, 20.0, "x", "a hundred rows of 10, to Feast's server", "reading"),
    Limit(
        "p99_vs_bare_redis", "at most", 3.0, None, "x", "p99 at half of saturation, to bare pipelined MGETs", "latency"
    ),
    Limit("views_1_to_20", "at most", 1.5, None, "x", "40 features of twenty views, to those of one", "views"),
    Limit("push_async_1", "at least", 10.0, None, "x", "pushes of a row, acknowledged by Kafka, to Feast's", "pushing"),
    Limit("push_sync_1", "at least", 10.0, None, "x", "pushes of a row that can be read back, to Feast's", "pushing"),
    Limit("push_async_100", "at least", 4.0, None, "x", "the first for a hundred rows a request", "pushing"),
    Limit("push_sync_100", "at least", 4.0, None, "x", "the second for a hundred rows a request", "pushing"),
    Limit(
        "prediction_vs_feature",
        "at most",
        1.3,
        None,
        "x",
        "a cached prediction, to the ten features of the view it is of",
        "prediction",
    ),
    Limit("p99_beside_ingest", "at most", 2.0, None, "x", "read p99 beside a worker at half of its rate", "ingest"),
)

LIMITS = (*INGEST, *SERVE)

INGEST_PARTS = tuple(dict.fromkeys(limit.part for limit in INGEST))
SERVE_PARTS = (*dict.fromkeys(limit.part for limit in SERVE), "on-demand")
PARTS = (*INGEST_PARTS, *SERVE_PARTS)
"""What a run is made of; one has no limit."""


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """A limit and the figure that came; None where it could not be measured."""

    limit: Limit
    value: float | None

    @property
    def word(self) -> Literal["GOAL", "PASS", "FAIL", "NONE"]:
        """GOAL, PASS or FAIL; NONE where there is no figure."""
        if self.value is None:
            return "NONE"
        if not self.limit.keeps(self.value):
            return "FAIL"
        return "GOAL" if self.limit.goal is not None and self.limit.reaches(self.value) else "PASS"


def judge(figures: Mapping[str, float | None], parts: Iterable[str] = PARTS) -> list[Verdict]:
    """A verdict for each limit of these parts."""
    chosen = set(parts)
    return [Verdict(limit, figures.get(limit.key)) for limit in LIMITS if limit.part in chosen]


def succeeded(verdicts: Iterable[Verdict], skipped: Collection[str], enforced: bool) -> bool:
    """Whether every limit is kept, or need not be, and every figure is there but those that could not be measured here.

    skipped: keys for which this machine lacks a tool.
    """
    return not any(
        (verdict.word == "FAIL" and enforced) or (verdict.word == "NONE" and verdict.limit.key not in skipped)
        for verdict in verdicts
    )


def median(values: Sequence[float]) -> float:
    """The middle one, or the mean of the two in the middle."""
    return float(statistics.median(values))


def ratio(of: Sequence[float], to: Sequence[float]) -> float:
    """Median against median."""
    return median(of) / median(to)


def quantile(values: Iterable[float], part: float, missing: int = 0) -> float:
    """The smallest value that at least this part of all do not exceed (the nearest rank, nothing interpolated).

    missing: how many more there were that never came; each counts as infinite. Raises ValueError where there are none.
    """
    ordered = sorted(values)
    count = len(ordered) + missing
    if not count:
        raise ValueError("a quantile of no values")
    rank = max(1, math.ceil(part * count))
    return ordered[rank - 1] if rank <= len(ordered) else math.inf
