"""`stillwell dlq`: real dead letters, from a real topic."""

import asyncio
import dataclasses
import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sinks.archive import Archive
from stillwell.cli.main import run
from stillwell.layout.chain import PartitionId
from stillwell.layout.dead_letter import DeadLetter, headers_of
from stillwell.layout.parquet import BatchTables, raw_table
from stillwell.local import LocalStack
from stillwell.storage import open_store
from tests.batches import records
from tests.chain_support import Inline, at_once
from tests.integration import orders
from tests.integration.orders import Record

ORDER = DeadLetter(
    topic="orders",
    incarnation=1,
    partition=0,
    offset=7,
    timestamp=1_767_225_600_000,
    view="LastOrder",
    reason="expectation",
    error="amount: expected a number of at least 0, got -1",
    key=b"c1",
    value=b'{"customer":"c1","amount":-1.10}',
    headers=(("trace", b"abc"), ("empty", None)),
)


class DeadLetterTopic:
    """A dead-letter topic of the test's own, of two partitions."""

    def __init__(self, bootstrap: str, name: str) -> None:
        self.bootstrap = bootstrap
        self.name = name

    def put(self, *letters: DeadLetter) -> None:
        """As a worker produces them; partitions in turn."""
        orders.produce(self.bootstrap, self.name, [self.record(letter) for letter in letters], 2)

    @staticmethod
    def record(letter: DeadLetter) -> Record:
        """The record that a letter is."""
        return Record(letter.value, letter.key, tuple(headers_of(letter)))


@pytest.fixture
def dead(
    stack: LocalStack, topic: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> DeadLetterTopic:
    """Settings in the environment for a deployment that has this topic."""
    made = DeadLetterTopic(stack.bootstrap, topic("dead", partitions=2))
    for name, value in {
        **stack.environment,
        "STILLWELL_PROJECT": "test",
        "STILLWELL_NAMESPACE": "prod",
        "STILLWELL_DEFINITIONS": "unused",
        "STILLWELL_OFFLINE_URL": str(tmp_path / "offline"),
        "STILLWELL_DEAD_LETTER_TOPIC": made.name,
    }.items():
        monkeypatch.setenv(name, value)
    return made


def printed(capsys: pytest.CaptureFixture[str]) -> Any:
    """What a command printed as JSON."""
    return json.loads(capsys.readouterr().out)


def listed(capsys: pytest.CaptureFixture[str], *options: str) -> list[int]:
    """The offsets that `dlq list` shows with these options."""
    assert run(["dlq", "list", "--json", *options]) == 0
    return [letter["offset"] for letter in printed(capsys)["letters"]]


def test_an_empty_topic_has_no_letters(dead: DeadLetterTopic, capsys: pytest.CaptureFixture[str]) -> None:
    assert listed(capsys) == []
    assert run(["dlq", "list"]) == 0
    assert f"0 dead letters in {dead.name}" in capsys.readouterr().out


def test_each_reject_is_listed_once_whatever_else_is_in_the_topic(
    dead: DeadLetterTopic, capsys: pytest.CaptureFixture[str]
) -> None:
    """Repeated by a crash, refused by two views, in an aborted transaction, written by strangers."""
    other_view = dataclasses.replace(ORDER, view="OrderTotals")
    again = dataclasses.replace(ORDER, incarnation=2)
    dead.put(ORDER, ORDER, other_view, again, ORDER)
    aborted = dead.record(dataclasses.replace(ORDER, offset=8))
    orders.produce_transaction(dead.bootstrap, dead.name, [aborted, aborted], partitions=2, commit=False)
    orders.produce(dead.bootstrap, dead.name, [b"hello", b"world"], 2)
    assert run(["dlq", "list", "--json"]) == 0
    report = printed(capsys)
    assert (report["matching"], report["repeated"], report["strangers"]) == (3, 2, 2)
    assert sorted((letter["incarnation"], letter["view"]) for letter in report["letters"]) == [
        (1, "LastOrder"),
        (1, "OrderTotals"),
        (2, "LastOrder"),
    ]
    letter = report["letters"][0]
    assert letter["error"] == ORDER.error
    assert letter["record_timestamp"] == "2026-01-01T00:00:00Z"
    assert letter["excerpt"] == '{"customer":"c1","amount":-1.10}'
    assert run(["dlq", "list"]) == 0
    said = capsys.readouterr()
    assert said.out.count("expectation, for view") == 3
    assert "does not know: 2 records there" in said.err


def test_letters_are_chosen_by_topic_reason_and_view_and_the_newest_are_shown(
    dead: DeadLetterTopic, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(5):
        dead.put(dataclasses.replace(ORDER, offset=number))
    dead.put(dataclasses.replace(ORDER, offset=5, topic="returns"))
    dead.put(dataclasses.replace(ORDER, offset=6, reason="decode", view=None))
    dead.put(dataclasses.replace(ORDER, offset=7, view="OrderTotals"))
    assert listed(capsys) == list(range(8))
    assert listed(capsys, "--limit", "2") == [6, 7]
    assert listed(capsys, "--topic", "returns") == [5]
    assert listed(capsys, "--reason", "decode") == [6]
    assert listed(capsys, "--view", "OrderTotals") == [6, 7]
    assert listed(capsys, "--reason", "expectation", "--topic", "orders", "--limit", "3") == [3, 4, 7]
    assert run(["dlq", "list", "--limit", "2"]) == 0
    assert f"\n8 dead letters in {dead.name}; the newest 2 are shown" in capsys.readouterr().out
    assert run(["dlq", "list", "--topic", "orders", "--limit", "2"]) == 0
    assert f"\n7 of 8 dead letters in {dead.name} match; the newest 2 are shown" in capsys.readouterr().out


def test_a_filter_that_nothing_is_known_of_is_told(dead: DeadLetterTopic, capsys: pytest.CaptureFixture[str]) -> None:
    dead.put(ORDER)
    assert run(["dlq", "list", "--reason", "decod"]) == 2
    assert "no record is refused for the reason 'decod'; did you mean 'decode'?" in capsys.readouterr().err
    assert run(["dlq", "list", "--topic", "order", "--view", "Last"]) == 0
    said = capsys.readouterr()
    assert said.out == f"0 of 1 dead letter in {dead.name} match\n"
    assert "stillwell: no dead letter is of the topic 'order'; did you mean 'orders'?" in said.err
    assert "stillwell: no dead letter is of the view 'Last'; did you mean 'LastOrder'?" in said.err
    assert run(["dlq", "list", "--topic", "orders"]) == 0
    assert "no dead letter is" not in capsys.readouterr().err


def test_one_record_is_shown_whole_with_what_every_view_has_against_it(
    dead: DeadLetterTopic, capsys: pytest.CaptureFixture[str]
) -> None:
    dead.put(ORDER, dataclasses.replace(ORDER, view="OrderTotals", error="total: is null"))
    dead.put(dataclasses.replace(ORDER, offset=8))
    assert run(["dlq", "show", "orders", "0", "7", "--json"]) == 0
    whole = printed(capsys)
    assert sorted((reject["view"], reject["error"]) for reject in whole["rejects"]) == [
        ("LastOrder", ORDER.error),
        ("OrderTotals", "total: is null"),
    ]
    assert whole["key"] == {"encoding": "utf-8", "text": "c1"}
    assert whole["headers"] == [
        {"name": "trace", "value": {"encoding": "utf-8", "text": "abc"}},
        {"name": "empty", "value": None},
    ]
    assert whole["value"] == {"encoding": "utf-8", "text": '{"customer":"c1","amount":-1.10}'}
    assert run(["dlq", "show", "orders", "0", "7", "--view", "OrderTotals"]) == 0
    said = capsys.readouterr().out
    assert '  "amount": -1.10\n' in said
    assert "total: is null" in said
    assert ORDER.error not in said


def test_what_is_no_text_does_not_reach_the_terminal(dead: DeadLetterTopic, capsys: pytest.CaptureFixture[str]) -> None:
    dead.put(dataclasses.replace(ORDER, offset=1, value=b"\xff\x07", key=b"\x07ring"))
    # Escape sequences are no proof: click takes them out wherever no terminal reads.
    assert run(["dlq", "show", "orders", "0", "1"]) == 0
    said = capsys.readouterr().out
    assert "\x07" not in said
    assert "key: \\x07ring" in said
    assert "base64: /wc=" in said
    assert run(["dlq", "list"]) == 0
    assert "\x07" not in capsys.readouterr().out


def test_of_several_incarnations_the_newest_is_shown(dead: DeadLetterTopic, capsys: pytest.CaptureFixture[str]) -> None:
    dead.put(dataclasses.replace(ORDER, incarnation=2, value=b"new"), ORDER)
    assert run(["dlq", "show", "orders", "0", "7", "--json"]) == 0
    whole = printed(capsys)
    assert (whole["incarnation"], whole["value"]["text"], len(whole["rejects"])) == (2, "new", 1)


def test_a_record_that_nobody_refused_is_not_shown(dead: DeadLetterTopic, capsys: pytest.CaptureFixture[str]) -> None:
    dead.put(ORDER)
    assert run(["dlq", "show", "orders", "0", "8"]) == 1
    assert "no dead letter is about orders, partition 0, offset 8" in capsys.readouterr().err


def archive(value: bytes, offset: int, folder: str) -> None:
    """Bring three records to rest in links of their own, the second of which has this value and offset."""
    id = PartitionId("orders", 1, 0)

    async def write() -> None:
        partition = Archive(Inline(open_store(folder)), at_once, now, "a-test").partition(id, [])
        await partition.begin(offset - 1, "an-id")
        await partition.find_end(None)
        for at in (offset - 1, offset, offset + 1):
            batch = records([value if at == offset else b"{}"], start=at, keys=[b"c1"], headers=[ORDER.headers])
            taken = dataclasses.replace(batch, topic="orders")
            span = partition.open_span(at)
            raw = raw_table(taken, now())
            span.add(BatchTables(at, at + 1, raw, (), raw.nbytes))
            assert await partition.link(await partition.upload(span), "an-epoch", "replication")

    asyncio.run(write())


def now() -> datetime.datetime:
    """The clock."""
    return datetime.datetime.now(datetime.UTC)


@pytest.mark.parametrize("key", [b"c1", None], ids=["without its value", "without its key and headers too"])
def test_what_was_too_large_is_fetched_from_the_raw_archive(
    key: bytes | None, dead: DeadLetterTopic, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    large = json.dumps({"customer": "x" * 2_000_000}).encode()
    headers = ORDER.headers if key else ()
    dead.put(dataclasses.replace(ORDER, value=None, key=key, headers=headers, by_reference=True))
    assert run(["dlq", "list"]) == 0
    assert "by reference" in capsys.readouterr().out
    assert run(["dlq", "show", "orders", "0", "7", "--json"]) == 0
    before = printed(capsys)
    assert before["value"] is None
    assert before["missing"].startswith("orders@1-0 has no chain")

    archive(large, 7, f"{tmp_path}/offline/test/prod")
    assert run(["dlq", "show", "orders", "0", "7", "--json"]) == 0
    whole = printed(capsys)
    assert whole["source"] == "raw archive"
    assert whole["value"]["text"].encode() == large
    assert whole["key"]["text"] == "c1"
    assert [header["name"] for header in whole["headers"]] == ["trace", "empty"]


def test_a_record_that_is_not_linked_yet_is_said_to_be_on_its_way(
    dead: DeadLetterTopic, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    archive(b"{}", 3, f"{tmp_path}/offline/test/prod")
    dead.put(dataclasses.replace(ORDER, value=None, by_reference=True))
    assert run(["dlq", "show", "orders", "0", "7"]) == 0
    assert "not linked (yet)" in capsys.readouterr().out


def test_a_topic_that_is_not_there_is_a_wrong_set_up(
    dead: DeadLetterTopic, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STILLWELL_DEAD_LETTER_TOPIC", "never-created")
    assert run(["dlq", "list"]) == 2
    assert "stillwell topics create" in capsys.readouterr().err
