"""What a push sends, what it makes of the answers, and when it may send the same once more."""

import datetime
import json
import math
from typing import Any

import numpy as np
import polars as pl
import pytest

from stillwell.client import (
    Client,
    NotReady,
    NotWritten,
    Pushed,
    PushStatus,
    RequestError,
    Retries,
    Token,
    Unavailable,
    Unconfirmed,
    WrongAnswer,
)
from stillwell.client.service import Service
from stillwell.client.transport import NoReply, NotSent, Reply
from tests.fake_service import FakeTransport, refusal, reply

ROW = {"id": 1, "amount": 7.5}
TAKEN = reply({"token": "V@1:0-7;epoch", "statuses": ["applied"]})
AWAY = NotSent("connection refused")
CUT = NoReply("server disconnected")
FULL = refusal(503, "StoreUnavailable", "1000 pushed rows are on their way already", retry_after=0.0)
UNKNOWN = refusal(503, "OutcomeUnknown", "Kafka gave no answer")


async def push(transport: FakeTransport, rows: Any = ROW, **options: Any) -> Pushed:
    """What became of rows pushed to `V`."""
    client = Client.of(Service(transport, "http://fake", Retries(attempts=3, first=0.001, longest=0.001)))
    return await client.push("V", rows, **options)


@pytest.mark.parametrize("rows", [ROW, [ROW], (ROW,), pl.DataFrame([ROW]), pl.DataFrame([ROW]).to_arrow()])
async def test_one_row_several_or_a_table_are_sent_alike(rows: Any) -> None:
    transport = FakeTransport(TAKEN)
    pushed = await push(transport, rows)
    assert transport.sent[0].path == "/v1/push"
    assert transport.sent[0].body == {
        "view": "V",
        "rows": [ROW],
        "mode": "sync",
        "to": "online_and_offline",
        "transform_on_write": True,
    }
    assert pushed.token == Token("V", 1, {0: 7}, "epoch")
    assert [row.status for row in pushed.rows] == [PushStatus.APPLIED]


async def test_values_that_json_lacks_are_written_as_the_service_reads_them() -> None:
    transport = FakeTransport(TAKEN)
    await push(
        transport,
        {
            "at": datetime.datetime(2026, 1, 31, 12, tzinfo=datetime.UTC),
            "raw": b"hi",
            "nan": math.nan,
            "least": -math.inf,
            "int": np.int64(7),
            "float": np.float32("inf"),
            "none": None,
        },
    )
    assert transport.sent[0].body["rows"] == [
        {
            "at": "2026-01-31T12:00:00Z",
            "raw": "aGk=",
            "nan": "NaN",
            "least": "-Infinity",
            "int": 7,
            "float": "Infinity",
            "none": None,
        }
    ]


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([ROW, {"id": object()}], r"rows\[1\]: holds a value that JSON has no form for"),
        ([ROW, 7], r"rows\[1\]: must be a mapping"),
        ("text", "rows: must be a row, a list of rows or a table, not str"),
        (7, "rows: must be a row"),
    ],
)
async def test_what_is_no_row_is_refused_before_anything_is_sent(rows: Any, says: str) -> None:
    transport = FakeTransport(TAKEN)
    with pytest.raises(RequestError, match=says):
        await push(transport, rows)
    assert transport.sent == []


async def test_each_row_is_told_what_became_of_it() -> None:
    answer = reply(
        {
            "token": "V@1:0-7",
            "statuses": ["stale", "rejected", "duplicate"],
            "rejects": [{"row": 1, "reason": "expectation", "message": "amount: expected > 0"}],
        }
    )
    pushed = await push(FakeTransport(answer), [ROW] * 3)
    assert [row.status.value for row in pushed.rows] == ["stale", "rejected", "duplicate"]
    assert pushed.rejected == (1,)
    assert (pushed.rows[1].reason, pushed.rows[1].message) == ("expectation", "amount: expected > 0")


async def test_what_kafka_alone_holds_is_accepted() -> None:
    transport = FakeTransport(reply({"token": "V@1:0-7", "accepted": 2}, status=202))
    pushed = await push(transport, [ROW] * 2, mode="async", to="offline", transform_on_write=False)
    assert [row.status for row in pushed.rows] == [PushStatus.ACCEPTED] * 2
    sent = transport.sent[0].body
    assert (sent["mode"], sent["to"], sent["transform_on_write"]) == ("async", "offline", False)


@pytest.mark.parametrize("failure", [AWAY, FULL])
async def test_a_push_of_which_nothing_was_taken_is_sent_again(failure: Reply | NotSent) -> None:
    transport = FakeTransport(failure, failure, TAKEN)
    assert (await push(transport)).rejected == ()
    assert len(transport.sent) == 3


@pytest.mark.parametrize("failure", [CUT, UNKNOWN, Reply(502, b"<html>", "text/html"), Reply(503, b"", "text/html")])
async def test_one_that_may_have_been_taken_is_sent_again_only_under_a_key(failure: Reply | NoReply) -> None:
    transport = FakeTransport(failure, TAKEN)
    with pytest.raises(Unconfirmed):
        await push(transport)
    assert len(transport.sent) == 1
    transport = FakeTransport(failure, TAKEN)
    await push(transport, idempotency_key="once")
    assert [sent.body["idempotency_key"] for sent in transport.sent] == ["once", "once"]


async def test_one_that_is_not_answered_in_time_is_unconfirmed() -> None:
    with pytest.raises(Unconfirmed, match=r"no answer within 0.05 s"):
        await push(FakeTransport(None), timeout=0.05)


@pytest.mark.parametrize(
    ("answer", "error", "says"),
    [
        (refusal(422, "RequestError", "rows[0]: amount is unknown", "rows[0]"), RequestError, "amount is unknown"),
        (refusal(503, "StoreNotReady", "Redis is not ready"), NotReady, "not ready"),
        (refusal(429, "TooMany", "push later", retry_after=9.0), Unavailable, "push later"),
        (reply({"token": "V@1:0-7", "statuses": ["applied"] * 2}), WrongAnswer, "what became of 2 rows, of 1"),
        (reply({"token": "yesterday", "statuses": ["applied"]}), WrongAnswer, "must be a token"),
        (reply({"token": "V@1:0-7", "statuses": ["lost"]}), WrongAnswer, "lost"),
    ],
)
async def test_what_else_is_answered_is_raised_at_once(answer: Reply, error: type[Exception], says: str) -> None:
    transport = FakeTransport(answer)
    with pytest.raises(error, match=says):
        await push(transport, idempotency_key="once")
    assert len(transport.sent) == 1


async def test_rows_that_kafka_holds_and_redis_does_not_are_named_by_their_token() -> None:
    body = {"error": {"kind": "NotWritten", "message": "Kafka holds the rows", "token": "V@1:0-7"}}
    transport = FakeTransport(Reply(503, json.dumps(body).encode()))
    with pytest.raises(NotWritten, match="Kafka holds the rows") as told:
        await push(transport, idempotency_key="once")
    assert told.value.token == Token("V", 1, {0: 7})
    assert len(transport.sent) == 1
