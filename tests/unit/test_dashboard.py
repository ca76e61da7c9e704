"""Every query of the dashboard and of the alarms asks for metrics and labels that there are, and shows what it has."""

import itertools
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import promql_parser as promql
import pytest
import yaml

from serving import metrics as serve_metrics
from stillwell.metric import Metric
from streams import metrics as worker_metrics

ROOT = Path(__file__).parent.parent.parent
DASHBOARD: dict[str, Any] = json.loads((ROOT / "deploy/grafana/dashboards/stillwell.json").read_text())
PANELS: list[dict[str, Any]] = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((ROOT / "deploy/prometheus/rules.yml").read_text())["groups"]
    for rule in group["rules"]
]
TRIED: list[dict[str, Any]] = yaml.safe_load((ROOT / "deploy/prometheus/rules.test.yml").read_text())["tests"]
JOBS = [
    job["job_name"] for job in yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())["scrape_configs"]
]
OF_THE_TARGET = {"job", "instance"}
"""What Prometheus itself adds to each series."""
OF_OTHERS = {
    "up": Metric("gauge", "up", "Prometheus' own."),
    "process_resident_memory_bytes": Metric("gauge", "process_resident_memory_bytes", "The client library's."),
    "process_cpu_seconds_total": Metric("counter", "process_cpu_seconds_total", "The client library's."),
}
RATES = {"rate", "increase"}
"""What a counter says only through: by itself it tells when its process began."""


class Misasked(Exception):
    """A query that Prometheus would answer with nothing, or with what is not meant."""


def labels_of(query: str) -> set[str]:
    """The labels of what a query gives. Raises Misasked where it asks for what there is not."""
    return _labels(promql.parse(query.replace("$__rate_interval", "1m")))


def _labels(expression: Any, within: str = "") -> set[str]:
    """within: the function whose argument this is."""
    match expression:
        case promql.MatrixSelector():
            return _labels(expression.vector_selector, within)
        case promql.VectorSelector():
            return _of_series(expression, within)
        case promql.AggregateExpr():
            return _aggregated(expression, _labels(expression.expr))
        case promql.BinaryExpr():
            return _of_both(_labels(expression.lhs), _labels(expression.rhs))
        case promql.ParenExpr():
            return _labels(expression.expr)
        case promql.Call():
            vectors = [each for each in expression.args if not isinstance(each, promql.NumberLiteral)]
            if not vectors:
                return set()  # a number, as time() is
            (found,) = (_labels(each, expression.func.name) for each in vectors)
            if expression.func.name != "histogram_quantile":
                return found
            if "le" not in found:
                raise Misasked("a quantile without le")
            return found - {"le"}
        case promql.NumberLiteral():
            return set()
        case unknown:
            raise Misasked(f"this test does not know {type(unknown).__name__}")


def _of_series(selector: "promql.VectorSelector", within: str) -> set[str]:
    metric, part = _metric(str(selector.name))
    counts = metric.kind == "counter" or bool(part)
    if counts != (within in RATES):
        raise Misasked(f"{selector.name} is a {metric.kind}, within {within or 'nothing'}")
    labels = {*metric.labels, *OF_THE_TARGET, *(["le"] if part == "_bucket" else [])}
    if metric.name.startswith("stillwell_serve_"):
        labels.add("worker")
    if unknown := {matcher.name for matcher in selector.matchers.matchers} - labels:
        raise Misasked(f"{metric.name} has no {unknown}")
    return labels


def _metric(name: str) -> tuple[Metric, str]:
    """The metric of that name, and of a histogram which part."""
    known = {metric.name: metric for metric in (*worker_metrics.METRICS, *serve_metrics.METRICS)} | OF_OTHERS
    for part in ("", "_bucket", "_sum", "_count"):
        metric = known.get(name.removesuffix(part) if part else name)
        if metric and name.endswith(part) and (metric.kind == "histogram") == bool(part):
            return metric, part
    raise Misasked(f"there is no {name}")


def _aggregated(expression: "promql.AggregateExpr", found: set[str]) -> set[str]:
    if expression.modifier is None:
        return set()
    named = set(expression.modifier.labels)
    if unknown := named - found:
        raise Misasked(f"{unknown} is not there to sum by")
    return named if expression.modifier.type == promql.AggModifierType.By else found - named


def _of_both(left: set[str], right: set[str]) -> set[str]:
    """Two vectors whose labels differ match nothing; a number matches whatever there is."""
    if left and right and left != right:
        raise Misasked(f"{left} and {right} do not match")
    return left or right


QUERIES = [(panel["title"], target["expr"], target["legendFormat"]) for panel in PANELS for target in panel["targets"]]


@pytest.mark.parametrize(("query", "legend"), [pytest.param(*each[1:], id=each[0]) for each in QUERIES])
def test_a_panel_asks_for_what_there_is_and_names_its_lines_by_it(query: str, legend: str) -> None:
    found = labels_of(query)
    assert set(re.findall(r"{{(\w+)}}", legend)) == found


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_an_alarm_asks_for_what_there_is_and_names_it(rule: dict[str, Any]) -> None:
    assert set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"])) <= labels_of(rule["expr"])
    assert rule["annotations"].keys() == {"summary", "why", "what"}
    assert rule["labels"]["severity"] in ("page", "ticket")


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("sum(stillwell_lags)", "there is no stillwell_lags"),
        ("sum by (view) (stillwell_lag_records)", "to sum by"),
        ('stillwell_lag_records{view="A"}', "has no"),
        ("sum(stillwell_events_total)", "counter, within nothing"),
        ("rate(stillwell_lag_records[5m])", "gauge, within rate"),
        ("rate(stillwell_servable_seconds[5m])", "there is no"),
        ("rate(stillwell_events_total_bucket[5m])", "there is no"),
        ("histogram_quantile(0.9, sum by (view) (rate(stillwell_servable_seconds_bucket[5m])))", "without le"),
        (
            "sum by (topic) (rate(stillwell_rejected_total[5m])) / sum by (view) (rate(stillwell_rows_total[5m]))",
            "do not match",
        ),
        ("sum by (worker) (rate(stillwell_events_total[5m]))", "to sum by"),
    ],
)
def test_a_query_that_would_show_nothing_is_found(query: str, problem: str) -> None:
    with pytest.raises(Misasked, match=problem):
        labels_of(query)


def test_what_is_asked_of_jobs_is_asked_of_those_that_are_scraped() -> None:
    patterns = re.findall(r'job=~"([^"]+)"', json.dumps(DASHBOARD).replace('\\"', '"') + json.dumps(RULES, default=str))
    patterns += [pattern for rule in RULES for pattern in re.findall(r'job=~"([^"]+)"', rule["expr"])]
    assert set(patterns) == {"stillwell.*"}
    assert len(JOBS) == 2
    assert [job for job in JOBS if not re.fullmatch("stillwell.*", job)] == []


def test_panels_say_what_they_show_by_whichever_prometheus_is_chosen() -> None:
    chosen = {"type": "prometheus", "uid": "${datasource}"}
    assert [variable["name"] for variable in DASHBOARD["templating"]["list"]] == ["datasource"]
    for panel in PANELS:
        assert panel["type"] in ("timeseries", "stat"), panel["title"]
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert [panel["datasource"], *(target["datasource"] for target in panel["targets"])] == [chosen] * (
            1 + len(panel["targets"])
        )
    titles = [panel["title"] for panel in PANELS]
    assert sorted(set(titles)) == sorted(titles)


def test_panels_stand_side_by_side() -> None:
    taken = [(x, y) for panel in DASHBOARD["panels"] for x, y in _cells(panel["gridPos"])]
    assert len(set(taken)) == len(taken)
    assert max(x for x, _ in taken) == 23
    identities = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(identities)) == len(identities)


def _cells(place: dict[str, int]) -> Iterator[tuple[int, int]]:
    return itertools.product(range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"]))


def test_every_alarm_is_tried_silent_and_ringing() -> None:
    tried = [
        [sample["labels"] for sample in each["exp_samples"]] for test in TRIED for each in test["promql_expr_test"]
    ]
    rung = {name for samples in tried for labels in samples for name in re.findall(r'alertname="(\w+)"', labels)}
    assert rung == {rule["alert"] for rule in RULES}
    silent = [any(not each["exp_samples"] for each in test["promql_expr_test"]) for test in TRIED]
    assert all(silent)


def test_the_alarms_are_on_the_page_for_operators(page: Callable[[str, str], None]) -> None:
    begin, end = "<!-- alarms: made by tests/unit/test_dashboard.py -->\n", "<!-- end of alarms -->\n"
    before, _, rest = (ROOT / "docs/howto/operate.md").read_text().partition(begin)
    _, _, after = rest.partition(end)
    rows = ["| alarm | rings | when | then |\n", "|---|---|---|---|\n"]
    for rule in RULES:
        says = rule["annotations"]
        ringing = f"after {rule['for']}" if "for" in rule else "at once"
        rows.append(
            f"| `{rule['alert']}` | {rule['labels']['severity']}, {ringing} | {says['why']} | {says['what']} |\n"
        )
    page("howto/operate.md", before + begin + "".join(rows) + end + after)
