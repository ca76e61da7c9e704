"""What becomes of batches is told to who reads it, and holds nobody up if nobody does."""

import json
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import BinaryIO

import pytest
from structlog.testing import capture_logs

from stillwell.cli.dev.tally import Tally
from stillwell.layout.chain import PartitionId
from streams.prepare import Prepared
from streams.telling import SAMPLE, Telling
from tests.batches import NOW, event, records
from tests.unit.test_ingest import BY_EXPRESSION, preparation
from tests.waiting import eventually

TOPICS = {"t": [BY_EXPRESSION]}


@pytest.fixture
def pipe() -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """Where lines are read, and where they are written."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as read, os.fdopen(writing, "wb", buffering=0) as write:
        yield read, write


def a_round() -> Sequence[Prepared]:
    """Of three records of which one gives no row."""
    batch = records([event(customer=customer) for customer in "1x2"])
    return preparation(BY_EXPRESSION).prepare([(PartitionId("t", 1, 0), batch)]).batches


def test_rounds_that_nobody_reads_yet_are_told_as_one_and_hold_up_nobody(pipe: tuple[BinaryIO, BinaryIO]) -> None:
    read, write = pipe
    prepared = a_round()

    def tell(told: Telling) -> None:
        for _ in range(2_000):  # a pipe holds a few hundred of the lines
            told("t", prepared)

    with Telling(write, TOPICS) as told:
        # In a thread: what is held up for ever would hold up the test instead of failing it.
        telling = threading.Thread(target=tell, args=[told], daemon=True)
        telling.start()
        telling.join(60)
        assert not telling.is_alive()
        reader = ThreadPoolExecutor(1).submit(read.readlines)
    write.close()
    first, *rounds = map(json.loads, reader.result())
    assert first["views"]["ByExpression"]["topic"] == "t"
    assert len(rounds) < 2_000
    counts = [line["views"]["ByExpression"] for line in rounds]
    assert [sum(count[what] for count in counts) for what in ("rows", "rejected")] == [4_000, 2_000]
    assert sum(line["reasons"]["ByExpression"]["transform"] for line in rounds) == 2_000
    assert [row["number"] for row in counts[0]["sample"]][:2] == [1, 2]
    assert (
        max(max(len(line["rejects"]), len(count["sample"])) for line, count in zip(rounds, counts, strict=True))
        == SAMPLE
    )


def test_who_has_gone_is_told_nothing_more_and_ends_nothing(pipe: tuple[BinaryIO, BinaryIO]) -> None:
    read, write = pipe
    prepared = a_round()
    with capture_logs() as logs, Telling(write, TOPICS) as told:
        read.close()
        for _ in range(3):
            told("t", prepared)
        eventually(lambda: logs, within_s=5, what="a line of the log")
        told("t", prepared)
    assert [each["event"] for each in logs] == ["nobody reads what becomes of records; nothing more is told"]


@pytest.mark.parametrize(
    ("ttl", "old"),
    [
        (timedelta(days=1), 0),  # as old as may be
        (timedelta(days=1) - timedelta(microseconds=1), 2),
        (timedelta(days=999_999), 0),  # from before the year 1 on
        (timedelta(0), 0),
    ],
)
def test_rows_that_have_outlived_their_ttl_are_counted_and_explained_where_there_are_no_others(
    pipe: tuple[BinaryIO, BinaryIO], ttl: timedelta, old: int
) -> None:
    read, write = pipe
    view = BY_EXPRESSION.model_copy(update={"ttl": ttl})
    with Telling(write, {"t": [view]}, lambda: datetime.fromisoformat(NOW) + timedelta(days=1)) as told:
        told("t", a_round())
    write.close()
    first, line = map(json.loads, read.readlines())
    assert line["views"]["ByExpression"]["too_old"] == old
    tally = Tally(first["views"])
    tally.take(line, now=0)
    assert tally.explanations(now=1) == []
    said = "No row counts any more, by at and ByExpression's ttl of 23 hours 59 minutes 59.999999 seconds: who reads"
    assert [each[: len(said)] for each in tally.explanations(now=10)] == ([said] if old else [])
    assert tally.explanations(now=11) == []
