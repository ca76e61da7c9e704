"""Metrics: what each tells, and that the numbers on the page are those of a plain count."""

import bisect
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import Metric as Family
from prometheus_client.parser import text_string_to_metric_families

from serving import metrics as serve_metrics
from stillwell.broken import RuleId
from stillwell.metric import Metric
from stillwell.records import TopicReason, ViewReason
from streams.metrics import (
    ASSIGNED,
    BATCH,
    BUFFERED,
    EXPIRED,
    LAG,
    METRICS,
    NEWEST,
    OBJECTIVE,
    REJECTED,
    SERVABLE,
    STAGE,
    UPSERTS,
    WAITING,
    Metrics,
    Stage,
)
from streams.retry import Retries

COUNTERS = [metric for metric in METRICS if metric.kind == "counter"]
HISTOGRAMS = [metric for metric in METRICS if metric.kind == "histogram"]
LABEL = st.text(st.characters(codec="utf-8"), max_size=8)
BOUNDS = sorted({bound for metric in HISTOGRAMS for bound in metric.buckets})
OBSERVATION = st.one_of(st.sampled_from(BOUNDS), st.floats(0, 100_000, allow_nan=False))
NEGATIVE = st.one_of(st.floats(max_value=0, exclude_max=True), st.just(float("nan")))


def shown(metrics: Metrics) -> dict[str, Family]:
    """What the page says of the worker, as Prometheus reads it, by the names of metrics as we declare them."""
    families = text_string_to_metric_families(metrics.text().decode())
    named = {family.name + ("_total" if family.type == "counter" else ""): family for family in families}
    return {name: family for name, family in named.items() if name.startswith("stillwell_")}


def value(metrics: Metrics, metric: Metric, *labels: str) -> float:
    """What the page says of one counter or gauge."""
    wanted = dict(zip(metric.labels, labels, strict=True))
    (found,) = [sample.value for sample in shown(metrics)[metric.name].samples if sample.labels == wanted]
    return found


def histogram(metrics: Metrics, metric: Metric, *labels: str) -> dict[str, float]:
    """What the page says of one histogram: `sum`, `count`, and by its bound each bucket."""
    wanted = dict(zip(metric.labels, labels, strict=True))
    found = {}
    for sample in shown(metrics)[metric.name].samples:
        bound = sample.labels.get("le")
        if {name: label for name, label in sample.labels.items() if name != "le"} == wanted:
            found[bound or sample.name.rpartition("_")[2]] = sample.value
    return found


@pytest.mark.parametrize("metrics", [METRICS, serve_metrics.METRICS])
def test_every_metric_says_what_it_tells(metrics: Sequence[Metric]) -> None:
    assert len({metric.name for metric in metrics}) == len(metrics)
    for metric in metrics:
        assert re.fullmatch(r"[A-Z].*[^ .]\.", metric.meaning), metric
        assert re.fullmatch(r"stillwell_[a-z]+(_[a-z]+)*", metric.name), metric
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric


def test_every_metric_is_on_the_page_before_it_was_used() -> None:
    """A dashboard that asks for a name finds it, and Prometheus knows its type."""
    page = shown(Metrics())
    assert {name: family.type for name, family in page.items()} == {metric.name: metric.kind for metric in METRICS}
    assert {name: family.documentation for name, family in page.items()} == {
        metric.name: metric.meaning for metric in METRICS
    }


def test_every_counter_is_0_before_anything_has_happened() -> None:
    """What first shows when it is 1 already never rose, as Prometheus sees it, and no alarm would ring."""
    metrics = Metrics()
    Retries.of(metrics)
    metrics.begin("orders", ["Last", "First"], [RuleId("amount", "> 0", "reject")])
    metrics.begin_model("Delay")
    page = shown(metrics)
    for metric in (*COUNTERS, *HISTOGRAMS, BUFFERED, ASSIGNED, WAITING):
        assert page[metric.name].samples, metric
        assert all(sample.value == 0 for sample in page[metric.name].samples), metric
    assert value(metrics, REJECTED, "orders", "*", "decode") == value(metrics, EXPIRED, "orders") == 0
    assert value(metrics, REJECTED, "orders", "Last", "transform") == value(metrics, UPSERTS, "First", "stale") == 0
    assert {sample.labels["sink"] for sample in page[WAITING.name].samples} == {
        "redis",
        "offline",
        "dead_letters",
        "kafka",
        "refresh",
    }


def test_no_view_begins_with_a_row_of_1970_or_an_objective_that_nothing_meets() -> None:
    """An alarm compares the two: it would ring of every view without an objective, and after each restart."""
    metrics = Metrics()
    metrics.begin("orders", ["Last"])
    page = shown(metrics)
    assert page[NEWEST.name].samples == page[OBJECTIVE.name].samples == []


def test_what_begins_again_keeps_its_count() -> None:
    metrics = Metrics()
    metrics.count(EXPIRED, 3, "orders")
    metrics.observe(BATCH, 10, "orders")
    metrics.begin("orders", ["Last"])
    assert value(metrics, EXPIRED, "orders") == 3
    assert histogram(metrics, BATCH, "orders")["count"] == 1


def test_the_page_tells_of_the_process() -> None:
    """Its memory and time, under the names that every dashboard knows."""
    page = Metrics().text().decode()
    for name in ("process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds", "python_info"):
        assert f"\n{name}" in page, name


@given(st.lists(st.tuples(st.sampled_from(COUNTERS), st.integers(0, 1000), st.sampled_from(["a", "b"]))))
def test_counters_add_up_by_their_labels(added: Sequence[tuple[Metric, int, str]]) -> None:
    metrics, oracle = Metrics(), Counter[tuple[Metric, tuple[str, ...]]]()
    for metric, amount, label in added:
        labels = (label,) * len(metric.labels)
        metrics.count(metric, amount, *labels)
        oracle[metric, labels] += amount
    for (metric, labels), amount in oracle.items():
        assert value(metrics, metric, *labels) == metrics.get(metric, *labels) == amount
    assert sum(len(family.samples) for family in shown(metrics).values()) == len(oracle)


@given(st.sampled_from(HISTOGRAMS), st.lists(st.one_of(OBSERVATION, st.lists(OBSERVATION, max_size=20))))
def test_a_bucket_counts_the_observations_up_to_its_bound(
    metric: Metric, observed: Sequence[float | list[float]]
) -> None:
    """One by one or in arrays, and an observation that equals a bound lies within it."""
    metrics, labels = Metrics(), ("x",) * len(metric.labels)
    plain: list[float] = []
    for each in observed:
        metrics.observe(metric, np.array(each, np.float64) if isinstance(each, list) else each, *labels)
        plain += each if isinstance(each, list) else [each]
    found = histogram(metrics, metric, *labels)
    if not observed:
        assert found == {}
        return
    plain.sort()
    assert found.pop("sum") == pytest.approx(sum(plain))
    assert found.pop("count") == len(plain)
    assert {float(bound): count for bound, count in found.items()} == {
        bound: bisect.bisect_right(plain, bound) for bound in (*metric.buckets, float("inf"))
    }


@given(st.sampled_from(HISTOGRAMS), st.lists(OBSERVATION, max_size=5), NEGATIVE, st.randoms())
def test_the_sum_of_a_histogram_cannot_fall(
    metric: Metric, observed: list[float], negative: float, random: random.Random
) -> None:
    """Prometheus takes a counter that falls for one that began anew; sum, count and buckets are such counters."""
    metrics, labels = Metrics(), ("x",) * len(metric.labels)
    metrics.observe(metric, 1.0, *labels)
    before = histogram(metrics, metric, *labels)
    mixed = [*observed, negative]
    random.shuffle(mixed)
    with pytest.raises(ValueError, match=rf"{metric.name} must be observed at 0 or more"):
        metrics.observe(metric, np.array(mixed), *labels)
    assert histogram(metrics, metric, *labels) == before


@given(LABEL, LABEL, LABEL)
def test_labels_come_back_whatever_is_in_them(topic: str, view: str, reason: str) -> None:
    metrics = Metrics()
    metrics.count(REJECTED, 3, topic, view, reason)
    assert value(metrics, REJECTED, topic, view, reason) == 3


def test_a_gauge_shows_what_was_set_last_until_it_is_forgotten() -> None:
    metrics = Metrics()
    metrics.set(LAG, 7, "orders", "0")
    metrics.set(LAG, 5, "orders", "0")
    metrics.set(LAG, 2, "orders", "1")
    assert (value(metrics, LAG, "orders", "0"), value(metrics, LAG, "orders", "1")) == (5, 2)
    metrics.forget(LAG, "orders", "0")
    metrics.forget(LAG, "orders", "2")
    assert [sample.labels["partition"] for sample in shown(metrics)[LAG.name].samples] == ["1"]
    assert metrics.get(LAG, "orders", "0") == 0


def test_histograms_of_different_labels_are_kept_apart() -> None:
    metrics = Metrics()
    metrics.observe(SERVABLE, np.array([0.002, 0.004]), "A")
    metrics.observe(SERVABLE, 0.1, "B")
    metrics.observe(BATCH, 10, "orders")
    assert histogram(metrics, SERVABLE, "A")["count"] == 2
    assert histogram(metrics, SERVABLE, "B")["count"] == 1


def test_the_reference_lists_every_metric(page: Callable[[str, str], None]) -> None:
    page("reference/metrics.md", reference())


def reference() -> str:
    """docs/reference/metrics.md, as the code says."""
    lines = [
        "# Metrics",
        "",
        "What a worker shows under `/metrics`, on the address and port of the settings `STILLWELL_WEB_HOST` and",
        "`STILLWELL_WEB_PORT`, in Prometheus' text format. Names and labels are a contract: a change to one is told in",
        "the changelog. Counters and histograms begin at 0 when the process does, for every topic, view and sink that",
        "it knows. Beside these there are those of the process itself, `process_*` and `python_info`.",
        "",
        "This page is made from `streams/metrics.py`.",
        "",
        "| metric | kind | labels | what it tells |",
        "|---|---|---|---|",
    ]
    for metric in METRICS:
        labels = ", ".join(f"`{label}`" for label in metric.labels) or "none"
        lines.append(f"| `{metric.name}` | {metric.kind} | {labels} | {metric.meaning} |")
    lines += ["", "The upper bounds of the histograms' buckets:", "", "| metric | bounds |", "|---|---|"]
    lines += [_bounds(metric) for metric in HISTOGRAMS]
    lines += ["", f"The stages of `{STAGE.name}`: {_listed(Stage)}."]
    lines += ["", f"The sinks: {_listed(_sinks())}."]
    lines += ["", f"The reasons of `{REJECTED.name}`, for all views: {_listed(get_args(TopicReason))};"]
    lines += [f"for one of them: {_listed(get_args(ViewReason))}.", "", *PAGES]
    lines += ["", "## The query service", "", *OF_THE_SERVICE]
    lines += ["", "| metric | kind | labels | what it tells |", "|---|---|---|---|"]
    for metric in serve_metrics.METRICS:
        labels = ", ".join(f"`{label}`" for label in metric.labels) or "none"
        lines.append(f"| `{metric.name}` | {metric.kind} | {labels} | {metric.meaning} |")
    lines += ["", "The upper bounds of its histograms' buckets:", "", "| metric | bounds |", "|---|---|"]
    lines += [_bounds(metric) for metric in serve_metrics.METRICS if metric.kind == "histogram"]
    return "\n".join(lines) + "\n"


def _bounds(metric: Metric) -> str:
    return f"| `{metric.name}` | {', '.join(f'{bound:g}' for bound in metric.buckets)} |"


def _listed(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)


def _sinks() -> list[str]:
    metrics = Metrics()
    Retries.of(metrics)
    return [sample.labels["sink"] for sample in shown(metrics)[WAITING.name].samples]


PAGES = (
    "Beside `/metrics` there are `/healthz`, 200 for as long as the process answers, and `/readyz`, 200 while every",
    "partition that the worker holds flows and every sink answers; otherwise 503, with a line for each thing that is",
    "amiss. `/` says that the web server runs, and nothing else is served. No page asks who is there: let nobody reach",
    "the port but probes and whoever collects metrics.",
)

OF_THE_SERVICE = (
    "`stillwell serve` shows these under `/metrics` at its own port, `STILLWELL_SERVE_PORT`. With several processes",
    "(`STILLWELL_SERVE_WORKERS`) whichever is asked asks the others, and the page shows all of them: each series has,",
    "besides the labels below, `worker`, the number of the process, and so have those of the processes themselves,",
    "`process_*`. A process that starts anew begins at 0 by itself, as Prometheus wants it; add them up by",
    "`sum without (worker) (rate(…))`. What is of one name here and above says the same of workers and of the service.",
    "This list is made from `serving/metrics.py`.",
)
