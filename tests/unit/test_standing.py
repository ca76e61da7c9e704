"""What people see of a partition, flowing or not, is where it stands."""

from typing import cast

from aiokafka import TopicPartition

from streams.ledger import Ledger, Span
from streams.log_ends import LogEnds
from streams.metrics import ASSIGNED, DURABLE_LAG, LAG, UNLINKED, Metrics
from streams.standing import Standing
from streams.watch import Progress

FLOWS, STOPPED = TopicPartition("orders", 0), TopicPartition("orders", 1)
BOTH = {FLOWS, STOPPED}


class _Ends:
    """Where the logs end, as a test says."""

    def __init__(self, ends: dict[TopicPartition, int]) -> None:
        self.ends = ends

    def of(self, partition: TopicPartition, flows: bool) -> int | None:
        return self.ends.get(partition)


class _Flow:
    def __init__(self, position: int, linked: int = 0, unlinked_seconds: float = 0.0) -> None:
        self.unlinked_seconds = unlinked_seconds
        self.ledger = Ledger(linked, ("redis",))
        if position > linked:
            self.ledger.take(Span(linked, position))


class Shown:
    """A standing, and what is shown of it."""

    def __init__(self, ends: dict[TopicPartition, int]) -> None:
        self.ends = ends
        self.metrics = Metrics()
        self.standing = Standing(["orders", "returns"], cast(LogEnds, _Ends(ends)), self.metrics)

    def lags(self, partition: TopicPartition) -> tuple[float | None, float | None]:
        """Records behind the log, and records that no link covers; None where nothing is shown."""
        shown = {
            (family.name, sample.labels["partition"]): sample.value
            for family in self.metrics.collect()
            for sample in family.samples
            if "partition" in sample.labels
        }
        number = str(partition.partition)
        return shown.get((LAG.name, number)), shown.get((DURABLE_LAG.name, number))


def test_a_partition_that_flows_is_behind_by_what_it_has_not_taken_in() -> None:
    shown = Shown({FLOWS: 100})
    assert shown.standing.report(BOTH, {FLOWS: _Flow(70, linked=60)}) == [Progress("orders-0", 70, 60, 60, True)]
    assert shown.lags(FLOWS) == (30, 10)
    assert shown.standing.report(BOTH, {FLOWS: _Flow(100, linked=60)}) == [Progress("orders-0", 100, 60, 60, False)]
    assert shown.lags(FLOWS) == (0, 40)


def test_a_partition_that_has_stopped_is_behind_by_all_that_is_not_linked() -> None:
    """What it held is dropped, and will be read again; and the log goes on without it."""
    shown = Shown({FLOWS: 100})
    shown.standing.report(BOTH, {FLOWS: _Flow(90, linked=60)})
    shown.ends[FLOWS] = 150
    assert shown.standing.report(BOTH, {}) == []
    assert shown.lags(FLOWS) == (90, 0)


def test_a_partition_that_never_flowed_is_behind_what_its_group_has_committed() -> None:
    shown = Shown({STOPPED: 100})
    shown.standing.report(BOTH, {})
    assert shown.lags(STOPPED) == (None, None)
    shown.standing.was_linked(STOPPED, 40)
    shown.standing.report(BOTH, {})
    assert shown.lags(STOPPED) == (60, 0)


def test_an_unknown_end_is_not_shown_as_no_lag() -> None:
    shown = Shown({})
    assert shown.standing.report(BOTH, {FLOWS: _Flow(70)}) == [Progress("orders-0", 70, 0, 0, False)]
    assert shown.lags(FLOWS) == (None, 70)


def test_how_long_records_wait_for_their_link_is_shown_as_long_as_they_are_in_hand() -> None:
    """What was dropped is read again, and waits anew; until then the partition's other gauges tell of it."""
    shown = Shown({FLOWS: 100})
    shown.standing.report(BOTH, {FLOWS: _Flow(90, linked=60, unlinked_seconds=7.5)})
    assert shown.metrics.get(UNLINKED, "orders", "0") == 7.5
    shown.standing.report(BOTH, {})
    assert shown.metrics.get(UNLINKED, "orders", "0") == 0


def test_what_was_given_away_is_shown_no_more() -> None:
    """Whoever gives it away forgets it; it must not come back."""
    shown = Shown({FLOWS: 100})
    shown.standing.report(BOTH, {FLOWS: _Flow(90)})
    assert shown.metrics.get(ASSIGNED, "orders") == 2
    shown.standing.report(set(), {})
    for gauge in (LAG, DURABLE_LAG):
        shown.metrics.forget(gauge, "orders", "0")
    shown.standing.report(set(), {})
    assert shown.lags(FLOWS) == (None, None)
    assert shown.metrics.get(ASSIGNED, "orders") == shown.metrics.get(ASSIGNED, "returns") == 0


def test_a_closed_span_without_its_link_is_work_though_there_is_no_lag() -> None:
    """Or the watchdog would overlook a link that hangs at the log's end."""
    shown, flow = Shown({FLOWS: 100}), _Flow(100, linked=60)
    flow.ledger.close(100)
    (progress,) = shown.standing.report(BOTH, {FLOWS: flow})
    assert progress.has_work
