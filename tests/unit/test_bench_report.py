"""The benchmark's result, as JSON and as a page."""

import json
import math
from pathlib import Path

import pytest

from tests.benchmarks.__main__ import PAGE
from tests.benchmarks.figures import LIMITS
from tests.benchmarks.report import BEGIN, BEGIN_SERVE, END, page_with, shown, write_json
from tests.benchmarks.workers import Ingested

RESULT = {
    "bench": "ingest",
    "measured_at": "2026-01-02T03:04:05+00:00",
    "machine": {"cores": 2, "processor": "a processor"},
    "versions": {"python": "3.11.7", "kafka": "4.1.2", "redis_server": "6.2.14"},
    "medians": {"worker: events a second": 123_456.7},
    "ratio_raw": 0.2345,
}


def test_the_page_takes_the_figures_in_and_keeps_all_else() -> None:
    page = f"before\n{BEGIN}old\n{END}after\n"
    made = page_with(page, RESULT)
    assert made.startswith(f"before\n{BEGIN}")
    assert made.endswith(f"{END}after\n")
    assert "old" not in made
    assert "| `ratio_raw` | 0.23 x | ≥ 0.20 x | 0.30 x |" in made
    assert "| `ratio_quix` | not measured |" in made
    assert "| worker: events a second | 123,457 |" in made
    assert page_with(made, RESULT) == made


def test_each_benchmark_has_a_table_of_its_own() -> None:
    page = f"{BEGIN}ingest\n{END}between\n{BEGIN_SERVE}serve\n{END}"
    made = page_with(page, {**RESULT, "bench": "serve", "views_1_to_20": 1.25})
    assert made.startswith(f"{BEGIN}ingest\n{END}between\n{BEGIN_SERVE}\nMeasured")
    assert "| `views_1_to_20` | 1.25 x | ≤ 1.50 x |" in made
    assert "ratio_raw" not in made


def test_a_page_without_a_place_for_figures_is_refused() -> None:
    with pytest.raises(ValueError, match="no place for figures"):
        page_with("nothing", RESULT)


def test_every_key_is_explained_on_the_page() -> None:
    text = PAGE.read_text().partition(BEGIN)[0]
    assert [limit.key for limit in LIMITS if f"`{limit.key}`" not in text] == []


def test_a_result_is_json_that_every_parser_takes(tmp_path: Path) -> None:
    """Infinite latencies, where probes are missing, are null: JSON has no word for them."""
    taken = Ingested(10, 1.0, 0.5, 1.0, 1.0, 1.0, 100.0, 1, 10, {"prepare": 1.0})
    write_json({"servable_p99_ms": math.inf, "runs": {"worker": [taken]}}, tmp_path / "deep" / "run.json")
    read = json.loads((tmp_path / "deep" / "run.json").read_text(), parse_constant=pytest.fail)
    assert read["servable_p99_ms"] is None
    assert read["runs"]["worker"][0]["stage_seconds"] == {"prepare": 1.0}


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("ratio_raw", 0.2049, "0.20 x"),
        ("ratio_stock_faust", 9.06, "9.1 x"),
        ("servable_p999_ms", 1234.5, "1,234 ms"),
        ("two_workers_cpu_overhead", -0.046, "-0.05 x"),
        ("ratio_raw", None, "not measured"),
    ],
)
def test_a_figure_is_shown_as_precisely_as_its_limit(key: str, value: float | None, text: str) -> None:
    (limit,) = (limit for limit in LIMITS if limit.key == key)
    assert shown(value, limit) == text
