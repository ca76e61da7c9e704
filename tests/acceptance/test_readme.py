"""The README, typed by somebody who has it, an installed Stillwell, and a Kafka with a topic of their own."""

import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from stillwell.instants import now_ms
from stillwell.local import LocalStack
from tests.acceptance import purchases
from tests.acceptance.reader import Reader, Step, steps

README = Path(__file__).parent.parent.parent / "README.md"

FIVE_MINUTES = 300


@pytest.fixture
def theirs(stack: LocalStack, admin: AdminClient, rng: random.Random) -> Iterator[LocalStack]:
    """The servers of somebody whose purchases are in Kafka."""
    new = NewTopic(purchases.TOPIC, num_partitions=3, replication_factor=1)
    admin.create_topics([new])[purchases.TOPIC].result(30)
    purchases.send(stack.environment, purchases.purchases(rng, now_ms()))
    yield stack
    ours = [name for name in admin.list_topics(timeout=30).topics if name.startswith("acme.")]
    admin.delete_topics(ours)


def test_the_readme_works_by_copy_and_paste_in_five_minutes(reader: Reader, theirs: LocalStack, tmp_path: Path) -> None:
    """In an empty home. What it takes is time of commands alone: whoever types them also reads."""
    reader.elsewhere["localhost:9092"] = theirs.bootstrap
    reader.elsewhere["redis://localhost:6379/0"] = theirs.redis_url
    reader.elsewhere["gs://BUCKET/features"] = str(tmp_path / "bucket")
    marked = steps(README.read_text())
    assert Counter(step.kind for step in marked) == {
        "shell": 6,
        "until": 4,
        "output": 8,
        "dev": 2,
        "service": 1,
        "worker": 1,
        "stop": 3,
        "end": 1,
        "terminal": 2,
    }
    began = time.monotonic()
    for step in marked:
        reader.take(step)
    assert time.monotonic() - began < FIVE_MINUTES
    leftover = {path.name for path in tmp_path.rglob("*.json") if "state" in path.parts}
    assert leftover == set()


def test_a_marked_output_that_differs_is_found(tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    reader.seen = "4 records, 17 bytes\n"
    reader.take(Step("output", "4 records, … bytes\n"))
    reader.take(Step("output", "…\n4 records, … bytes\n"))
    reader.seen = "one\ntwo\n4 records, 17 bytes\n"
    reader.take(Step("output", "…\n4 records, … bytes\n"))
    reader.seen = "4 records, 17 bytes\n"
    for wrong in ("5 records, … bytes\n", "4 records, … bytes\nmore\n", "records, … bytes\n"):
        with pytest.raises(AssertionError, match="expected"):
            reader.take(Step("output", wrong))
