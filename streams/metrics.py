"""Every metric of the worker, in one list: its name, its labels, and a sentence that says what it tells.

Names and labels are a contract with dashboards and alarms; `docs/reference/metrics.md` is made from this list.
Counters end in `_total`, times are in seconds, sizes in bytes.
"""

import dataclasses
import enum
import itertools
from collections.abc import Collection, Iterator
from typing import get_args

import numpy as np
import numpy.typing as npt
from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.core import Metric as PrometheusMetric

from stillwell import broken
from stillwell.broken import RuleId
from stillwell.layout.online import PutCounts
from stillwell.metric import Metric
from stillwell.predictions import watching
from stillwell.predictions.hint import Cause
from stillwell.predictions.watching import Call
from stillwell.records import TopicReason, ViewReason

_COUNTS = (1, 10, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000)


class Stage(enum.StrEnum):
    """The stages of a batch whose times are measured."""

    PREPARE = "prepare"
    ONLINE = "online"
    DEAD_LETTERS = "dead_letters"
    REFRESH = "refresh"
    ARCHIVE = "archive"
    UPLOAD = "upload"
    LINK = "link"
    COMMIT = "commit"


EVENTS = Metric("counter", "stillwell_events_total", "Records taken in from Kafka.", ("topic",))
EVENT_BYTES = Metric("counter", "stillwell_event_bytes_total", "Bytes of their keys and values.", ("topic",))
ROWS = Metric("counter", "stillwell_rows_total", "Rows that records gave a view.", ("view",))
FILTERED = Metric(
    "counter", "stillwell_filtered_total", "Records that a view's `where` or function left out.", ("view",)
)
REJECTED = Metric(
    "counter",
    "stillwell_rejected_total",
    "Records refused, by reason; view is `*` for all views.",
    ("topic", "view", "reason"),
)
EXPECTATIONS_BROKEN = broken.EXPECTATIONS_BROKEN
UPSERTS = Metric(
    "counter",
    "stillwell_upserts_total",
    "Rows sent to Redis by what became of them: applied, stale, duplicate, expired.",
    ("view", "result"),
)
CONFLATED = Metric(
    "counter",
    "stillwell_conflated_total",
    "Rows not sent to Redis: the same batch had a newer one of that entity.",
    ("view",),
)
LAG = Metric("gauge", "stillwell_lag_records", "Records behind the last stable offset.", ("topic", "partition"))
DURABLE_LAG = Metric(
    "gauge", "stillwell_durable_lag_records", "Offsets taken in that no link covers yet.", ("topic", "partition")
)
UNLINKED = Metric(
    "gauge",
    "stillwell_unlinked_seconds",
    "How long the oldest record has been in hand that no link covers yet; alarm at several windows.",
    ("topic", "partition"),
)
BATCH = Metric("histogram", "stillwell_batch_records", "Records in one batch.", ("topic",), _COUNTS)
STAGE = Metric("histogram", "stillwell_stage_seconds", "Time that a batch or span spends in a stage.", ("stage",))
SERVABLE = Metric(
    "histogram",
    "stillwell_servable_seconds",
    "From the record's timestamp to the acknowledgement of its row by Redis; one observation a row sent, 0 where the "
    "producer's clock is ahead, none where the record has no timestamp.",
    ("view",),
)
NEWEST = Metric(
    "gauge",
    "stillwell_newest_event_timestamp_seconds",
    "The newest event time of a view's rows that this worker has brought to Redis since it started, in seconds since "
    "1970; of all workers' the greatest counts.",
    ("view",),
)
OBJECTIVE = Metric(
    "gauge",
    "stillwell_freshness_objective_seconds",
    "The `freshness` of a view that has one: how old its rows may be.",
    ("view",),
)
BUFFERED = Metric(
    "gauge", "stillwell_buffered_bytes", "Memory held by records and spans that are not linked.", ("topic",)
)
RETRIES = Metric(
    "counter", "stillwell_sink_retries_total", "Calls to a sink that failed and were made again.", ("sink",)
)
WAITING = Metric(
    "gauge",
    "stillwell_sink_waiting_calls",
    "Calls that have failed and are made again until the sink answers.",
    ("sink",),
)
LINKS = Metric("counter", "stillwell_links_total", "Spans put on the chain.", ("topic",))
LINKED_RECORDS = Metric("counter", "stillwell_linked_records_total", "Records that links cover.", ("topic",))
OVERTAKEN = Metric(
    "counter", "stillwell_overtaken_total", "Spans given up because another writer's link was there first.", ("topic",)
)
EXPIRED = Metric(
    "counter",
    "stillwell_expired_offsets_total",
    "Offsets that retention took before they were read: lost, alarm.",
    ("topic",),
)
REBALANCES = Metric("counter", "stillwell_rebalances_total", "Times that the group's partitions were shared out anew.")
ASSIGNED = Metric("gauge", "stillwell_assigned_partitions", "Partitions that this worker holds.", ("topic",))
STOPPED = Metric(
    "gauge",
    "stillwell_partition_stopped",
    "Whether the partition waits (1) for a person's decision, and the log says which command, or not (0).",
    ("topic", "partition"),
)
FAILED_COMMITS = Metric(
    "counter",
    "stillwell_commit_failures_total",
    "Commits of the group's offset that Kafka did not take. Nothing is lost by it: the offset is a hint.",
    ("topic",),
)
TRIGGERS = Metric(
    "counter", "stillwell_refresh_triggers_total", "Hints to predict anew that writes have caused.", ("model",)
)
LEFT_TO_READS = Metric(
    "counter",
    "stillwell_refresh_left_to_reads_total",
    "Predictions that writes to an aliased view do not refresh, and reads do: more than `max_fan_out` read the same "
    "row (counted when one makes room for another), or one batch of writes concerned more than 10,000.",
    ("model",),
)
HINTS = Metric("counter", "stillwell_refresh_hints_total", "Hints taken in, by what caused them.", ("model", "cause"))
BAD_HINTS = Metric(
    "counter",
    "stillwell_refresh_bad_hints_total",
    "Hints that could not be read, or whose model nobody knew for ten minutes, and that were left out.",
)
HINTS_HELD = Metric(
    "gauge",
    "stillwell_refresh_hints_held",
    "Hints for models that this worker does not know, which hold their offsets back for one that does.",
)
HINTS_WAITING = Metric(
    "gauge", "stillwell_refresh_waiting", "Predictions that are to be looked at, debounced ones included.", ("model",)
)
REFRESHES = Metric(
    "counter",
    "stillwell_refreshes_total",
    "Predictions looked at by what came of it: computed, fresh (nothing was to be done), given_up (the model had no "
    "answer of use, several times).",
    ("model", "became"),
)
MODEL_CALLS = watching.MODEL_CALLS
MODEL_SECONDS = watching.MODEL_SECONDS
REFRESHED = Metric(
    "histogram",
    "stillwell_refreshed_seconds",
    "From a hint's timestamp to the acknowledgement of the prediction by Redis, debouncing included.",
    ("model",),
)
BUILD_INFO = Metric("gauge", "stillwell_build_info", "Always 1; the label says which version runs.", ("version",))

_RESULTS = tuple(field.name for field in dataclasses.fields(PutCounts))

METRICS: tuple[Metric, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Metric))


_NOT_ZERO = (NEWEST, OBJECTIVE)
"""Gauges of which 0 would be untrue: a row of 1970, and an objective that nothing meets."""


class Metrics:
    """The values of one worker's metrics. Use it from the event loop alone: nothing is locked.

    Histograms take whole arrays, since an observation for each row in a call of its own would cost as much as the row.
    """

    def __init__(self) -> None:
        self._values: dict[Metric, dict[tuple[str, ...], float]] = {metric: {} for metric in METRICS}
        self._histograms: dict[Metric, dict[tuple[str, ...], _Histogram]] = {metric: {} for metric in METRICS}
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)

    def begin(self, topic: str, views: Collection[str], rules: Collection[RuleId] = ()) -> None:
        """Show 0 for everything that may happen to a topic and its views. rules: those on its columns.

        Prometheus sees no increase in a counter that first shows when it is 1 already, and no alarm would ring.
        """
        self._begin(stage=list(Stage), topic=[topic], view=views, result=_RESULTS, reason=get_args(ViewReason))
        for reason in get_args(TopicReason):
            self.count(REJECTED, 0, topic, "*", reason)
        for rule in rules:
            self.count(EXPECTATIONS_BROKEN, 0, topic, *rule)

    def begin_model(self, model: str) -> None:
        """Show 0 for everything that may happen to a model's predictions."""
        self._begin(model=[model], cause=list(Cause), became=("computed", "fresh", "given_up"), answer=list(Call))

    def begin_sink(self, sink: str) -> None:
        """Show 0 for everything that may happen to a sink."""
        self._begin(sink=[sink])

    def _begin(self, **known: Collection[str]) -> None:
        for metric in METRICS:
            if known.keys() >= set(metric.labels) and metric not in _NOT_ZERO:
                for labels in itertools.product(*(known[label] for label in metric.labels)):
                    if metric.kind == "histogram":
                        self._histograms[metric].setdefault(labels, _Histogram(metric.buckets))
                    else:
                        self._values[metric].setdefault(labels, 0.0)

    def count(self, metric: Metric, amount: float, *labels: str) -> None:
        """Add to a counter, or raise or lower a gauge."""
        values = self._values[metric]
        values[labels] = values.get(labels, 0.0) + amount

    def set(self, metric: Metric, value: float, *labels: str) -> None:
        """Set a gauge."""
        self._values[metric][labels] = value

    def forget(self, metric: Metric, *labels: str) -> None:
        """Stop showing a gauge, of a partition that was given away."""
        self._values[metric].pop(labels, None)

    def get(self, metric: Metric, *labels: str) -> float:
        """The value of a counter or gauge; 0 before it was first used."""
        return self._values[metric].get(labels, 0.0)

    def observe(self, metric: Metric, values: float | npt.NDArray[np.float64], *labels: str) -> None:
        """Add one observation, or many, to a histogram.

        Raises ValueError, and takes in none, where one is negative or NaN: to Prometheus a sum that falls is a restart.
        """
        observed = np.atleast_1d(values)
        if not (observed >= 0).all():
            raise ValueError(f"{metric.name} must be observed at 0 or more, not at {observed.min()}")
        histograms = self._histograms[metric]
        if labels not in histograms:
            histograms[labels] = _Histogram(metric.buckets)
        histograms[labels].add(observed)

    def text(self) -> bytes:
        """All of them in Prometheus' text format, and what there is to say of the process itself."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[PrometheusMetric]:
        """What `prometheus_client` asks of a collector."""
        for metric in METRICS:
            if metric.kind == "histogram":
                family = HistogramMetricFamily(metric.name, metric.meaning, labels=metric.labels)
                for labels, histogram in self._histograms[metric].items():
                    family.add_metric(labels, histogram.cumulative(), histogram.sum)
                yield family
            else:
                kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
                values = kind(metric.name, metric.meaning, labels=metric.labels)
                for labels, value in self._values[metric].items():
                    values.add_metric(labels, value)
                yield values


class _Histogram:
    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = np.array(bounds)
        self._counts = np.zeros(len(bounds) + 1, np.int64)
        self.sum = 0.0

    def add(self, values: npt.NDArray[np.float64]) -> None:
        places = np.searchsorted(self._bounds, values)
        self._counts += np.bincount(places, minlength=len(self._counts))
        self.sum += float(values.sum())

    def cumulative(self) -> list[tuple[str, float]]:
        bounds = [*(str(bound) for bound in self._bounds), "+Inf"]
        return [(bound, float(count)) for bound, count in zip(bounds, self._counts.cumsum(), strict=True)]
