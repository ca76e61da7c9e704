"""A worker that stands still for no reason ends; one that waits for a sink, or has nothing to do, does not."""

import dataclasses
from typing import Any

import pytest

from streams.watch import Progress, StandsStill, Watchdog

BEHIND = Progress("orders-0", position=50, durable=40, linked=30, has_work=True)


def test_a_partition_that_has_work_and_stands_still_ends_the_process() -> None:
    watchdog = Watchdog(60)
    for now in (0, 30, 60):
        watchdog.look(now, [BEHIND], sinks_healthy=True)
    with pytest.raises(StandsStill, match="orders-0: no progress for 61 s at offset 50"):
        watchdog.look(61, [BEHIND], sinks_healthy=True)


@pytest.mark.parametrize("moved", ["position", "durable", "linked"])
def test_any_progress_counts(moved: str) -> None:
    watchdog = Watchdog(60)
    for minute in range(10):
        position: dict[str, Any] = {moved: 100 + minute}
        watchdog.look(minute * 59, [dataclasses.replace(BEHIND, **position)], sinks_healthy=True)


def test_whoever_waits_for_a_sink_or_has_nothing_to_do_may_stand_still() -> None:
    """And has his full time once the sink is back."""
    watchdog = Watchdog(60)
    idle = dataclasses.replace(BEHIND, partition="orders-1", has_work=False)
    for now in range(0, 600, 10):
        watchdog.look(now, [BEHIND, idle], sinks_healthy=False)
    for now in range(600, 660, 10):
        watchdog.look(now, [BEHIND, idle], sinks_healthy=True)


def test_a_partition_that_comes_back_begins_anew() -> None:
    watchdog = Watchdog(60)
    watchdog.look(0, [BEHIND], sinks_healthy=True)
    watchdog.look(50, [], sinks_healthy=True)
    watchdog.look(100, [BEHIND], sinks_healthy=True)
    watchdog.look(150, [BEHIND], sinks_healthy=True)
