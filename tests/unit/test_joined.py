"""Batches that are prepared together give what each gives alone: nothing of one shows in another."""

import dataclasses
import datetime
import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillwell.broken import Broken, RuleId
from stillwell.joined import Joined
from stillwell.layout.chain import PartitionId
from stillwell.pipeline import Pipeline, compile_pipeline
from stillwell.records import Outcome, Records
from stillwell.spec import Expectation, TopicSpec
from stillwell.types import INT64, STRING
from streams.prepare import Preparation, Prepared
from tests.batches import NOW_MS, column, event, feature, records, topic, view

NOON = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC)
COLUMNS = (column("customer", STRING, nullable=True), column("amount", INT64))


def _halves(of: Any) -> Iterator[dict[str, object]]:
    """No row for some events, two for others; on a few it raises."""
    for half in range(of.amount % 3):
        yield {"customer": of.customer, "half": 10 // (of.amount - 7) + half}


def pipeline(source: TopicSpec) -> Pipeline:
    """With a view by expressions and one by a function: both filter, and both reject."""
    expressions = view(
        source,
        {"customer": (STRING, pl.col("T.customer"))},
        feature("amount", INT64, pl.col("T.amount")),
        feature("name", STRING, pl.col("T.customer").str.to_uppercase()),
        name="Amounts",
        where=pl.col("T.amount") > 0,
    )
    rows = view(source, {"customer": (STRING, None)}, feature("half", INT64, None), name="Halves", rows=_halves)
    return compile_pipeline(source, [expressions, rows])


def preparation(pipeline: Pipeline) -> Preparation:
    return Preparation(pipeline, datetime.timedelta(hours=1), lambda: NOON)


PIPELINE = pipeline(topic(*COLUMNS))
SEQUENCED = pipeline(topic(*COLUMNS, column("number", INT64, nullable=True), sequence="number"))
PLAIN = preparation(PIPELINE)


def bodies(chance: random.Random, count: int) -> list[bytes | None]:
    """Few customers and fewer times, so that each part of the order decides somewhere."""

    def body() -> bytes | None:
        kind = chance.random()
        if kind < 0.1:
            return chance.choice([b"no JSON", None])
        return event(
            at=f"2026-01-01T00:00:0{chance.randrange(3)}Z",
            customer=chance.choice(["a", "b", "c", None]),
            amount=chance.randrange(-2, 9),
            number=chance.choice([None, 1, 2]),
        )

    return [body() for _ in range(count)]


@st.composite
def rounds(draw: st.DrawFn) -> list[tuple[PartitionId, Records]]:
    """A few batches, some of one partition, some empty but for gaps; timestamps that mostly ascend."""
    chance = draw(st.randoms(use_true_random=False))
    made = []
    for _ in range(draw(st.integers(1, 4))):
        count, start = draw(st.integers(0, 12)), draw(st.sampled_from([0, 5, 2**40]))
        end = start + count + draw(st.integers(0 if count else 1, 3))
        offsets = sorted(chance.sample(range(start, end), count))
        stamps = sorted(NOW_MS + 60_000 + chance.randrange(5) for _ in range(count))
        if draw(st.booleans()):
            chance.shuffle(stamps)
        whole = records(bodies(chance, count), timestamps=stamps)
        id = PartitionId("t", draw(st.integers(1, 2)), draw(st.integers(0, 2)))
        batch = Records(
            "t", id.partition, start, end, np.array(offsets, np.int64), whole.timestamps, whole.keys, whole.values,
            whole.headers,
        )  # fmt: skip
        made.append((id, batch))
    return made


def shown(prepared: Prepared) -> dict[str, object]:
    """All of it, in terms that compare. Memory is left out: a slice may count otherwise than a whole."""
    tables, online = prepared.tables, prepared.online
    return {
        "span": (tables.start, tables.end, online.start, online.end),
        "raw": tables.raw.to_pylist(),
        "views": [
            (each.view, each.version, each.offsets_with_rows, each.filtered, each.rejected, each.table.to_pylist())
            for each in tables.views
        ],
        "rows": online.rows,
        "produced": [each.tolist() for each in online.produced_at],
        "newest": online.newest,
        "rejects": prepared.rejects,
        "letters": prepared.letters and prepared.letters.outcome.records.values,
    }


@pytest.mark.parametrize("pipeline", [PIPELINE, SEQUENCED], ids=["no sequence", "sequence"])
@settings(deadline=None, derandomize=True, max_examples=150)
@given(batches=rounds())
def test_batches_together_give_what_each_gives_alone(
    pipeline: Pipeline, batches: Sequence[tuple[PartitionId, Records]]
) -> None:
    prepares = preparation(pipeline)
    together = prepares.prepare(batches).batches
    alone = [each for batch in batches for each in prepares.prepare([batch]).batches]
    assert [shown(each) for each in together] == [shown(each) for each in alone]
    for prepared, (_, batch) in zip(together, batches, strict=True):
        check_account(prepared, pipeline.run(batch))


def check_account(prepared: Prepared, outcome: Outcome) -> None:
    """The counts that the pipeline gives for a batch that was never joined with anything."""
    assert prepared.rejects == outcome.rejects
    for table, rows in zip(prepared.tables.views, outcome.rows, strict=True):
        assert table.table.column("_offset").to_pylist() == rows.frame.get_column("_offset").to_list()
        assert (table.offsets_with_rows, table.filtered, table.rejected) == (
            rows.offsets_with_rows,
            rows.filtered,
            rows.rejected,
        )


def test_the_batches_of_the_test_before_have_rows_and_rejects_of_every_kind() -> None:
    """Or it would compare nothing with nothing."""
    chance = random.Random(1)
    made = [(PartitionId("t", 1, number), records(bodies(chance, 200), start=number)) for number in range(3)]
    for each in PLAIN.prepare(made).batches:
        assert {reject.reason for reject in each.rejects} >= {"decode", "null_value", "null_key", "transform"}
        for rows, sent in zip(each.tables.views, each.online.rows, strict=True):
            assert 0 < len(sent.keys) < rows.table.num_rows
            assert min(rows.offsets_with_rows, rows.filtered, rows.rejected) > 0
            assert rows.offsets_with_rows + rows.filtered + rows.rejected == 200


def test_each_batch_tells_the_newest_event_time_of_each_views_rows() -> None:
    """Of entities' newest rows, wherever it stands in the batch; none of a batch without rows."""
    times = ["2026-01-01T00:00:01Z", "2026-01-01T00:00:03Z", "2026-01-01T00:00:02Z"]
    some = records([event(at=at, customer=str(number), amount=1) for number, at in enumerate(times)])
    none = dataclasses.replace(records([b"{"], start=7), partition=1)
    prepared, empty = PLAIN.prepare([(PartitionId("t", 1, 0), some), (PartitionId("t", 1, 1), none)]).batches
    assert set(prepared.online.newest) == {NOW_MS * 1_000 + 3_000_000}
    assert set(empty.online.newest) == {None}


def test_each_partitions_rows_are_its_own_memory() -> None:
    """A quiet partition's few rows wait for minutes, and must not hold those of a busy one that were with them."""
    quiet = (PartitionId("t", 1, 0), records([event(customer="a", amount=1)]))
    busy = (PartitionId("t", 1, 1), records([event(customer="b", amount=1)] * 10_000))
    alone, _ = PLAIN.prepare([quiet, busy]).batches
    for each in alone.tables.views:
        assert each.table.num_rows == 1
        assert each.table.get_total_buffer_size() < 1_000
    assert alone.tables.nbytes < 2_000


def test_a_broken_rule_names_the_partition_and_the_offset_of_the_first_record_that_broke_it() -> None:
    rule = Expectation(rule="<= 5", action="warn", holds=pl.col("amount") <= 5)
    source = topic(column("amount", INT64, expectations=(rule,)))
    batches = [
        dataclasses.replace(records([event(amount=each) for each in amounts], start=7), partition=partition)
        for partition, amounts in ((3, [1, 2]), (5, []), (4, [3, 9, 8]), (6, [7]))
    ]
    joined = Joined(batches)
    (broken,) = joined.broken(compile_pipeline(source, []).run(joined.records))
    assert broken == Broken(RuleId("amount", "<= 5", "warn"), 3, 4, 8, "9")


def test_what_is_joined_goes_by_places() -> None:
    """The pipeline is told nothing of the offsets, which two partitions may share."""
    joined = Joined([records([b"x", b"y"], start=7), records([b"z"], start=7)])
    assert joined.records.offsets.tolist() == [0, 1, 2]
    assert joined.records.values == [b"x", b"y", b"z"]
