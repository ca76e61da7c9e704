"""What an agent does with a batch: the gate is asked before anything of it reaches a sink."""

import datetime
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

import polars as pl
import pytest
import structlog

from stillwell.broken import Broken, RuleId
from stillwell.layout.chain import PartitionId
from stillwell.pipeline import compile_pipeline
from stillwell.spec import Expectation, ViewSpec
from stillwell.types import INT64, STRING
from streams.consumer import Batch
from streams.flow import Flow
from streams.gate import RejectGate, RejectLimit, StopRuleBroken, TooManyRejects
from streams.ingest import Ingest, Warnings
from streams.metrics import EXPECTATIONS_BROKEN, REJECTED, ROWS, Metrics
from streams.prepare import Preparation, Prepared
from tests.batches import column, event, feature, records, topic, view

_T = TypeVar("_T")

TOPIC = topic(column("customer", STRING))
KEYS = {"customer": (STRING, pl.col("T.customer"))}
HEALTHY = view(TOPIC, KEYS, feature("name", STRING, pl.col("T.customer")), name="Healthy")


def _numbers(event: Any) -> Iterator[dict[str, object]]:
    yield {"customer": event.customer, "number": int(event.customer)}


BY_EXPRESSION = view(TOPIC, KEYS, feature("number", INT64, pl.col("T.customer").str.to_integer()), name="ByExpression")
BY_ROWS = view(TOPIC, {"customer": (STRING, None)}, feature("number", INT64, None), name="ByRows", rows=_numbers)
"""Views that raise where the customer is no number."""


class _Inline:
    async def call(self, work: Callable[..., _T], *arguments: Any) -> _T:
        return work(*arguments)


class _Flow:
    """Stands in for the partition's flow: what it has taken would go to the sinks."""

    def __init__(self, partition: int = 0) -> None:
        self.id = PartitionId("t", 1, partition)
        self.ended = False
        self.taken: list[Prepared] = []

    def take(self, prepared: Prepared) -> None:
        self.taken.append(prepared)

    def batch(self, customers: str) -> Batch:
        """One record a letter."""
        return Batch(cast(Flow, self), records([event(customer=customer) for customer in customers]), 0)


def preparation(*views: ViewSpec) -> Preparation:
    """Of the topic and these views."""
    noon = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC)
    return Preparation(compile_pipeline(TOPIC, views), datetime.timedelta(hours=1), lambda: noon)


@pytest.mark.parametrize("broken", [BY_EXPRESSION, BY_ROWS], ids=["expression", "rows"])
async def test_a_view_that_raises_on_every_record_ends_the_worker(broken: ViewSpec) -> None:
    """Though every record can be read, and gives a row in another view."""
    metrics = Metrics()
    ingest = Ingest(preparation(HEALTHY, broken), RejectGate("t", RejectLimit(0.2, 100)), _Inline(), metrics)
    flow = _Flow()
    await ingest.take([flow.batch("x" * 60)])
    assert metrics.get(REJECTED, "t", broken.name, "transform") == 60
    with pytest.raises(TooManyRejects, match="120 of the last 120 records were rejected"):
        await ingest.take([flow.batch("x" * 60)])
    assert len(flow.taken) == 1, "nothing of the batch that went too far leaves the process"


async def test_nothing_is_counted_under_a_label_that_was_not_there_from_the_start() -> None:
    """Or an alarm on its increase would not ring the first time."""
    metrics = Metrics()
    metrics.begin("t", [HEALTHY.name, BY_EXPRESSION.name])
    before = series(metrics)
    prepares = preparation(HEALTHY, BY_EXPRESSION)
    ingest = Ingest(prepares, RejectGate("t", RejectLimit(1, 100)), _Inline(), metrics)
    await ingest.take([_Flow().batch("x1" * 5)])
    assert metrics.get(REJECTED, "t", BY_EXPRESSION.name, "transform") == 5
    assert metrics.get(ROWS, HEALTHY.name) == 10
    assert series(metrics) == before


def series(metrics: Metrics) -> set[tuple[str, ...]]:
    """Every series that a page shows: the name and labels of its samples."""
    return {(sample.name, *sample.labels.values()) for family in metrics.collect() for sample in family.samples}


async def test_a_record_counts_once_however_many_views_refuse_it() -> None:
    """Or the ratio that is allowed would fall with the number of views."""
    prepares = preparation(BY_EXPRESSION, BY_ROWS)
    ingest = Ingest(prepares, RejectGate("t", RejectLimit(0.5, 10)), _Inline(), Metrics())
    flow = _Flow()
    await ingest.take([flow.batch("x1" * 5)])
    assert len(flow.taken) == 1
    assert len(flow.taken[0].rejects) == 10
    with pytest.raises(TooManyRejects, match="6 of the last 11 records"):
        await ingest.take([flow.batch("x")])


async def test_batches_of_one_round_are_judged_before_any_of_them_leaves_the_process() -> None:
    """Though those before the one that goes too far would do by themselves."""
    ingest = Ingest(preparation(BY_EXPRESSION), RejectGate("t", RejectLimit(0.5, 10)), _Inline(), Metrics())
    good, bad = _Flow(0), _Flow(1)
    with pytest.raises(TooManyRejects, match="20 of the last 20 records"):
        await ingest.take([good.batch("1" * 10), bad.batch("x" * 20)])
    assert (good.taken, bad.taken) == ([], [])


GRADED = topic(
    column(
        "customer",
        STRING,
        expectations=(
            Expectation(rule="no x", action="warn", holds=pl.col("customer") != "x"),
            Expectation(rule="no y", action="stop", holds=pl.col("customer") != "y"),
            Expectation(rule="no z", holds=pl.col("customer") != "z"),
        ),
    )
)


def graded(metrics: Metrics) -> Ingest:
    """Of a topic with a rule of each action; begun as the worker begins it."""
    noon = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC)
    prepares = Preparation(compile_pipeline(GRADED, []), datetime.timedelta(hours=1), lambda: noon)
    metrics.begin("t", [], prepares.rules)
    return Ingest(prepares, RejectGate("t", RejectLimit(1, 100)), _Inline(), metrics)


async def test_a_record_that_breaks_a_rule_that_stops_ends_the_worker_before_anything_leaves_the_process() -> None:
    """Nor does what came in the same round of another partition."""
    ingest, good, bad = graded(Metrics()), _Flow(0), _Flow(1)
    await ingest.take([good.batch("ab")])
    with pytest.raises(
        StopRuleBroken,
        match=r"^topic t, partition 0, offset 101: customer: expected no y, got 'y', and the column's stop=rule\(…\) "
        r"says that the worker ends there \(and 1 more in the same batches .*\)\. Nothing is lost: the offset has not "
        r"moved.* mend its producer, and let the rule warn or reject until the worker has passed it; .* mend the rule$",
    ):
        await ingest.take([good.batch("cd"), bad.batch("eyy")])
    assert (len(good.taken), bad.taken) == (1, [])


async def test_broken_rules_are_counted_each_under_its_action_and_none_that_was_not_there_from_the_start() -> None:
    metrics = Metrics()
    ingest, flow = graded(metrics), _Flow()
    before = series(metrics)
    await ingest.take([flow.batch("axzx")])
    await ingest.take([flow.batch("xb")])
    counted = {each: metrics.get(EXPECTATIONS_BROKEN, "t", "customer", *each) for each in RULES}
    assert counted == {("no x", "warn"): 3, ("no y", "stop"): 0, ("no z", "reject"): 1}
    assert series(metrics) == before
    assert [len(each.rejects) for each in flow.taken] == [1, 0]


RULES = (("no x", "warn"), ("no y", "stop"), ("no z", "reject"))


def test_a_rule_that_warns_is_told_at_once_and_then_once_a_minute_with_all_that_broke_it_meanwhile() -> None:
    clock = iter([0.0, 1.0, 2.0, 60.0])
    warnings = Warnings("t", lambda: next(clock))
    rule, other = RuleId("x", "<= 5", "warn"), RuleId("x", "<= 9", "warn")
    with structlog.testing.capture_logs() as lines:
        warnings.tell([Broken(rule, 3, partition=1, offset=7, value="6")])
        warnings.tell([Broken(rule, 4, 1, 17, "8"), Broken(other, 1, 1, 18, "11")])
        warnings.tell([Broken(rule, 2, 2, 27, "9"), Broken(RuleId("x", "<= 1", "reject"), 9, 0, 0, "2")])
    assert [(each["rule"], each["records"], each["partition"], each["offset"], each["value"]) for each in lines] == [
        ("<= 5", 3, 1, 7, "6"),
        ("<= 9", 1, 1, 18, "11"),
        ("<= 5", 6, 2, 27, "9"),
    ]


async def test_of_a_round_the_flows_that_have_ended_get_nothing() -> None:
    """Before their batches are prepared or while they are, which is in a thread."""
    ended, ends, lives = _Flow(0), _Flow(1), _Flow(2)
    ended.ended = True

    class _Meanwhile:
        async def call(self, work: Callable[..., _T], *arguments: Any) -> _T:
            ends.ended = True
            return work(*arguments)

    ingest = Ingest(preparation(HEALTHY), RejectGate("t", RejectLimit(1, 10)), _Meanwhile(), Metrics())
    await ingest.take([ended.batch("1"), ends.batch("2"), lives.batch("3")])
    assert (ended.taken, ends.taken) == ([], [])
    assert [each.tables.raw.column("_partition").to_pylist() for each in lives.taken] == [[0]]
    await ingest.take([ended.batch("1")])
