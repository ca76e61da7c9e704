"""Every metric of the query service, in one list, and the page that shows those of all its processes.

Names and labels are a contract with dashboards and alarms; `docs/reference/metrics.md` is made from this list. Each
series carries the label `worker`, the number of the process: a process that starts anew counts from 0, and only by
itself can Prometheus see that; `sum without (worker) (rate(…))` is the whole.
"""

import bisect
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple, Protocol

import msgspec
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.core import Metric as Family

from stillwell import broken
from stillwell.broken import Broken, RuleId
from stillwell.metric import Metric
from stillwell.predictions import watching
from stillwell.predictions.freshness import State
from stillwell.predictions.prediction import Refresh
from stillwell.predictions.watching import Call

_QUICK = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Bounds of buckets for what takes from a tenth of a millisecond to ten seconds."""

REQUESTS = Metric(
    "counter",
    "stillwell_serve_requests_total",
    "Requests answered, by the path of the page and the status; path is `(none)` where there is no page.",
    ("path", "status"),
)
SECONDS = Metric(
    "histogram",
    "stillwell_serve_request_seconds",
    "From a request's head to its answer, written.",
    ("path",),
    _QUICK,
)
IN_FLIGHT = Metric("gauge", "stillwell_serve_in_flight_requests", "Requests that are being answered.")
CONNECTIONS = Metric("gauge", "stillwell_serve_open_connections", "Connections of clients.")
TURNED_AWAY = Metric(
    "counter",
    "stillwell_serve_turned_away_total",
    "Connections and requests refused because there were too many; alarm: more processes are needed.",
)
ENTITIES = Metric("counter", "stillwell_serve_entities_total", "Entities that features were looked up for.")
VALUES = Metric("counter", "stillwell_serve_values_total", "Values looked up for them: entities times features.")
OBJECTIVE_ROWS = Metric(
    "counter",
    "stillwell_serve_objective_rows_total",
    "Rows of views with a `freshness` that were found for requests; what models read by themselves is not among them.",
    ("view",),
)
LATE_ROWS = Metric(
    "counter",
    "stillwell_serve_late_rows_total",
    "Those of them that were LATE: older than their view's `freshness`, or outside its age.",
    ("view",),
)
CALLS = Metric(
    "counter",
    "stillwell_serve_redis_calls_total",
    "Calls to Redis, by what came of them: answered or failed.",
    ("result",),
)
CALL_SECONDS = Metric(
    "histogram",
    "stillwell_serve_redis_call_seconds",
    "From sending a call to Redis to its answer; requests share calls.",
    (),
    _QUICK,
)
KEYS = Metric("counter", "stillwell_serve_redis_keys_total", "Keys asked of Redis.")
READERS = Metric("gauge", "stillwell_serve_waiting_readers", "Reads that wait for Redis.")
LAYOUTS = Metric(
    "counter",
    "stillwell_serve_unknown_layouts_total",
    "Requests that met a row of a version that the service did not know.",
)
RELOADS = Metric(
    "counter",
    "stillwell_serve_version_loads_total",
    "Times that registered versions of views were looked for in the offline store, by result: loaded or failed.",
    ("result",),
)
PUSHED = Metric(
    "counter",
    "stillwell_serve_pushed_rows_total",
    "Rows that were pushed, by view and what became of them: accepted (by Kafka, for a worker), applied, stale, "
    "expired, filtered, offline or rejected.",
    ("view", "result"),
)
EXPECTATIONS_BROKEN = broken.EXPECTATIONS_BROKEN
PUSHING = Metric("gauge", "stillwell_serve_rows_under_way", "Pushed rows that are on their way to Kafka or Redis.")
AFTER = Metric("gauge", "stillwell_serve_reads_after_pushes", "Reads that wait until what was pushed is applied.")
PREDICTIONS = Metric(
    "counter",
    "stillwell_serve_predictions_total",
    "Predictions that were read, by model, what they were worth (FRESH, STALE, MISSING, FAILED), and what the read set "
    "in motion (none, queued, shared, inline).",
    ("model", "state", "refresh"),
)
LEFT_TO_READS = Metric(
    "counter",
    "stillwell_serve_predictions_left_to_reads_total",
    "Predictions that writes to an aliased view refresh no longer, and reads do: more than `max_fan_out` read the same "
    "row, and what was computed for a reader took their place.",
    ("model",),
)
MODEL_CALLS = watching.MODEL_CALLS
MODEL_SECONDS = watching.MODEL_SECONDS
STARTED_ANEW = Metric(
    "gauge", "stillwell_serve_worker_restarts", "How many processes of this number have ended before this one; alarm."
)
UP = Metric("gauge", "stillwell_serve_worker_up", "Whether the process says its metrics (1) or does not (0).")
BUILD_INFO = Metric("gauge", "stillwell_build_info", "Always 1; the label says which version runs.", ("version",))

METRICS: Final[tuple[Metric, ...]] = tuple(value for value in list(globals().values()) if isinstance(value, Metric))


class Sample(NamedTuple):
    """One number on the page."""

    name: str
    labels: dict[str, str]
    value: float


class Shown(NamedTuple):
    """One metric of one process, with all its numbers."""

    name: str
    kind: str
    meaning: str
    samples: list[Sample]


_FRESH = (State.FRESH.value, Refresh.NONE.value)

_encode = msgspec.msgpack.Encoder().encode
_shown = msgspec.msgpack.Decoder(list[Shown])


class Collector(Protocol):
    """Whatever has metrics to show."""

    def collect(self) -> Iterable[Family]:
        """As `prometheus_client` asks for them."""


class Metrics:
    """The values of one process's metrics. Use it from the event loop alone: nothing is locked."""

    def __init__(self, metrics: Sequence[Metric] = METRICS) -> None:
        self._metrics = tuple(metrics)
        self._values: dict[Metric, dict[tuple[str, ...], float]] = {metric: {} for metric in metrics}
        self._histograms: dict[Metric, dict[tuple[str, ...], _Histogram]] = {metric: {} for metric in metrics}
        self._gauges: dict[Metric, Callable[[], float]] = {}
        self._requests: dict[tuple[str, int], int] = {}
        for metric in metrics:
            if not metric.labels:
                self.begin(metric)
        if CALLS in metrics:
            self.begin(CALLS, ["answered", "failed"])
            self.begin(RELOADS, ["loaded", "failed"])

    def begin(self, metric: Metric, *labels: Sequence[str]) -> None:
        """Show 0 for each combination of these labels: Prometheus sees no rise in what first shows when it is 1."""
        for each in itertools.product(*labels):
            if metric.kind == "histogram":
                self._histograms[metric].setdefault(each, _Histogram(metric.buckets))
            else:
                self._values[metric].setdefault(each, 0.0)

    def count(self, metric: Metric, amount: float = 1, *labels: str) -> None:
        """Add to a counter."""
        values = self._values[metric]
        values[labels] = values.get(labels, 0.0) + amount

    def set(self, metric: Metric, value: float, *labels: str) -> None:
        """Set a gauge."""
        self._values[metric][labels] = value

    def read(self, metric: Metric, value: Callable[[], float]) -> None:
        """Ask for a value when it is to be shown."""
        self._gauges[metric] = value

    def observe(self, metric: Metric, value: float, *labels: str) -> None:
        """Add one observation to a histogram."""
        histograms = self._histograms[metric]
        histogram = histograms.get(labels)
        if histogram is None:
            histogram = histograms[labels] = _Histogram(metric.buckets)
        histogram.add(value)

    def request(self, path: str, status: int, seconds: float) -> None:
        """Take in one request: a microsecond of each."""
        key = (path, status)
        self._requests[key] = self._requests.get(key, 0) + 1
        self.observe(SECONDS, seconds, path)

    def redis_call(self, keys: int, seconds: float | None) -> None:
        """Take in one call to Redis. seconds: until it was answered; None where it was not."""
        self.count(KEYS, keys)
        if seconds is None:
            self.count(CALLS, 1, "failed")
        else:
            self.count(CALLS, 1, "answered")
            self.observe(CALL_SECONDS, seconds)

    def prediction(self, model: str, state: State, refresh: Refresh, count: int = 1) -> None:
        """Take in that predictions were read."""
        self.count(PREDICTIONS, count, model, state.value, refresh.value)

    def fresh(self, model: str, count: int) -> None:
        """The same of those that were fresh, as most are: without asking what the words of enumerations are."""
        self.count(PREDICTIONS, count, model, *_FRESH)

    def called(self, model: str, call: Call, seconds: float, entities: int) -> None:
        """Take in that a model was asked; this and the next two are what `stillwell.predictions.watching` wants."""
        watching.count_call(self, model, call, seconds, entities)

    def kept(self, model: str, stored: bool) -> None:
        """Not counted."""

    def left(self, model: str, count: int) -> None:
        """Take in that predictions are no longer refreshed by writes."""
        self.count(LEFT_TO_READS, count, model)

    def begin_model(self, model: str) -> None:
        """Show 0 for what reads of a model's predictions may find, and for what may come of asking it."""
        self.begin(PREDICTIONS, [model], [each.value for each in State], [each.value for each in Refresh])
        self.begin(LEFT_TO_READS, [model])
        self.begin(MODEL_CALLS, [model], [each.value for each in Call])
        self.begin(MODEL_SECONDS, [model])

    def broken(self, topic: str, broken: Iterable[Broken]) -> None:
        """Take in that pushed events broke rules of their topic."""
        for each in broken:
            self.count(EXPECTATIONS_BROKEN, each.count, topic, *each.rule)

    def begin_objectives(self, views: Iterable[str]) -> None:
        """Show 0 for the rows of views that have an objective."""
        for view in views:
            self.begin(OBJECTIVE_ROWS, [view])
            self.begin(LATE_ROWS, [view])

    def begin_rules(self, topic: str, rules: Iterable[RuleId]) -> None:
        """Show 0 for the rules that events of a push topic may break."""
        for each in rules:
            self.count(EXPECTATIONS_BROKEN, 0, topic, *each)

    def version_load(self, loaded: bool) -> None:
        """Take in that registered versions were looked for."""
        self.count(RELOADS, 1, "loaded" if loaded else "failed")

    def begin_pages(self, paths: Iterable[str]) -> None:
        """Show 0 for what may become of requests for these pages."""
        for path in paths:
            self.begin(SECONDS, [path])
            for status in (200, 202, 422, 500, 503, 504):
                self._requests.setdefault((path, status), 0)

    def get(self, metric: Metric, *labels: str) -> float:
        """The value of a counter or gauge; 0 before it was first used."""
        if metric is REQUESTS:
            return float(self._requests.get((labels[0], int(labels[1])), 0))
        return self._values[metric].get(labels, 0.0)

    def collect(self) -> Iterator[Family]:
        """What `prometheus_client` asks of a collector."""
        for metric in self._metrics:
            if metric.kind == "histogram":
                family = HistogramMetricFamily(metric.name, metric.meaning, labels=metric.labels)
                for labels, histogram in self._histograms[metric].items():
                    family.add_metric(labels, histogram.cumulative(), histogram.sum)
                yield family
            else:
                kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
                values = kind(metric.name, metric.meaning, labels=metric.labels)
                for labels, value in self._shown(metric).items():
                    values.add_metric(labels, value)
                yield values

    def _shown(self, metric: Metric) -> Mapping[tuple[str, ...], float]:
        if metric is REQUESTS:
            return {(path, str(status)): float(count) for (path, status), count in self._requests.items()}
        if metric in self._gauges:
            return {(): float(self._gauges[metric]())}
        return self._values[metric]


class _Histogram:
    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        self._counts[bisect.bisect_left(self._bounds, value)] += 1
        self.sum += value

    def cumulative(self) -> list[tuple[str, float]]:
        bounds = [*(str(bound) for bound in self._bounds), "+Inf"]
        return [(bound, float(count)) for bound, count in zip(bounds, itertools.accumulate(self._counts), strict=True)]


def snapshot(collectors: Iterable[Collector]) -> bytes:
    """What this process shows, to be put on a page with others', by `page`."""
    families = [family for each in (*collectors, ProcessCollector(registry=None)) for family in each.collect()]
    return _encode(
        [
            Shown(
                family.name,
                family.type,
                family.documentation,
                [Sample(sample.name, dict(sample.labels), sample.value) for sample in family.samples],
            )
            for family in families
        ]
    )


def page(snapshots: Sequence[bytes | None]) -> bytes:
    """The page of all processes, in Prometheus' text format. snapshots: by their numbers, None where none came."""
    families: dict[str, Family] = {}
    up = GaugeMetricFamily(UP.name, UP.meaning, labels=["worker"])
    for number, each in enumerate(snapshots):
        up.add_metric([str(number)], float(each is not None))
        for shown in _shown.decode(each) if each is not None else ():
            family = families.setdefault(shown.name, Family(shown.name, shown.meaning, shown.kind))
            for sample in shown.samples:
                family.add_sample(sample.name, {**sample.labels, "worker": str(number)}, sample.value)
    families[UP.name] = up
    registry = CollectorRegistry()
    registry.register(_Families(families.values()))
    return generate_latest(registry)


class _Families:
    def __init__(self, families: Iterable[Family]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Family]:
        return self._families
