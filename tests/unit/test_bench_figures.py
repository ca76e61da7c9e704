"""The benchmark's statistics, and its judgement of figures."""

import math

import pytest

from tests.benchmarks.figures import LIMITS, PARTS, judge, quantile, ratio, succeeded

BY_KEY = {limit.key: limit for limit in LIMITS}


def test_the_limits_are_those_that_were_promised() -> None:
    """Keys and bounds are a contract with whoever reads a result: a looser one is a change of the promise."""
    promised = {
        "ratio_raw": ("at least", 0.2, 0.3),
        "ratio_raw_unique": ("at least", 0.13, 0.2),
        "ratio_quix": ("at least", 3.5, 6.0),
        "ratio_stock_faust": ("at least", 9.0, None),
        "lww_vs_hset": ("at most", 0.6, 0.4),
        "lww_vs_hset_server_cpu": ("at most", 2.0, 1.5),
        "servable_p99_ms": ("at most", 100.0, 25.0),
        "servable_p999_ms": ("at most", 500.0, 100.0),
        "bytes_per_feature": ("at most", 13.0, 11.0),
        "rss_mb_64_partitions": ("at most", 800.0, 400.0),
        "two_workers_cpu_overhead": ("at most", 0.15, None),
        "ratio_feast_1x10": ("at least", 15.0, 25.0),
        "ratio_feast_100x10": ("at least", 10.0, 20.0),
        "p99_vs_bare_redis": ("at most", 3.0, None),
        "views_1_to_20": ("at most", 1.5, None),
        "push_async_1": ("at least", 10.0, None),
        "push_sync_1": ("at least", 10.0, None),
        "push_async_100": ("at least", 4.0, None),
        "push_sync_100": ("at least", 4.0, None),
        "prediction_vs_feature": ("at most", 1.3, None),
        "p99_beside_ingest": ("at most", 2.0, None),
    }
    assert {limit.key: (limit.sense, limit.limit, limit.goal) for limit in LIMITS} == promised


@pytest.mark.parametrize(
    ("key", "value", "word"),
    [
        ("ratio_raw", 0.1999, "FAIL"),
        ("ratio_raw", 0.2, "PASS"),
        ("ratio_raw", 0.3, "GOAL"),
        ("servable_p99_ms", 100.1, "FAIL"),
        ("servable_p99_ms", 100.0, "PASS"),
        ("servable_p99_ms", 25.0, "GOAL"),
        ("servable_p99_ms", math.inf, "FAIL"),
        ("ratio_stock_faust", 50.0, "PASS"),
        ("two_workers_cpu_overhead", -0.1, "PASS"),
        ("ratio_raw", None, "NONE"),
    ],
)
def test_a_figure_is_judged_on_its_side_of_limit_and_goal(key: str, value: float | None, word: str) -> None:
    assert {verdict.limit.key: verdict.word for verdict in judge({key: value})}[key] == word


def test_only_the_parts_that_were_measured_are_judged() -> None:
    keys = {verdict.limit.key for verdict in judge({}, ["writes"])}
    assert keys == {"lww_vs_hset", "lww_vs_hset_server_cpu"}
    assert {limit.part for limit in LIMITS} == set(PARTS) - {"on-demand"}


GOOD = {limit.key: limit.limit for limit in LIMITS}


@pytest.mark.parametrize(
    ("figures", "skipped", "enforced", "good"),
    [
        (GOOD, [], True, True),
        ({**GOOD, "ratio_raw": 0.1}, [], True, False),
        ({**GOOD, "ratio_raw": 0.1}, [], False, True),
        ({**GOOD, "servable_p999_ms": None}, [], True, False),
        ({**GOOD, "servable_p999_ms": None}, [], False, False),
        ({**GOOD, "servable_p999_ms": None}, ["servable_p999_ms"], True, True),
        ({**GOOD, "servable_p999_ms": 501.0}, ["servable_p999_ms"], True, False),
    ],
)
def test_a_run_succeeds_when_nothing_is_missing_and_every_limit_that_counts_is_kept(
    figures: dict[str, float | None], skipped: list[str], enforced: bool, good: bool
) -> None:
    assert succeeded(judge(figures), skipped, enforced) is good


def test_a_quantile_is_a_value_that_was_measured_and_never_too_low() -> None:
    values = [float(value) for value in range(1, 1001)]
    assert quantile(reversed(values), 0.5) == 500
    assert quantile(values, 0.99) == 990
    assert quantile(values, 0.999) == 999
    assert quantile(values, 1) == 1000
    assert quantile([7.0], 0.001) == 7
    assert quantile([1.0, 2.0], 0.51) == 2


def test_a_probe_that_never_came_counts_as_infinitely_late() -> None:
    values = [1.0] * 98
    assert quantile(values, 0.98, missing=2) == 1
    assert quantile(values, 0.99, missing=2) == math.inf
    assert quantile([], 0.5, missing=1) == math.inf


def test_a_quantile_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no values"):
        quantile([], 0.5)


def test_a_ratio_is_of_medians_so_that_one_disturbed_run_does_not_count() -> None:
    assert ratio([100.0, 1.0, 110.0], [50.0, 400.0, 45.0]) == 2
