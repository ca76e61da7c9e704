"""What a push sends, what it makes of the answers, and when it may send the same once more."""

import datetime
import json
import math
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from stillwell.client import (
    Client,
    NotReady,
    NotWritten,
    PartlyPushed,
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
from stillwell.client.transport import JSON, NoReply, NotSent, Reply
from tests.fake_service import FakeTransport, refusal, reply

ROW = {"id": 1, "amount": 7.5}
TAKEN = reply({"token": "V@1:0-7;epoch", "statuses": ["applied"]})
AWAY = NotSent("connection refused")
CUT = NoReply("server disconnected")
FULL = refusal(503, "StoreUnavailable", "1000 pushed rows are on their way already", retry_after=0.0)
UNKNOWN = refusal(503, "OutcomeUnknown", "Kafka gave no answer")
MISTAKE = refusal(500, "StillwellError", "Stillwell made a mistake; its log says where")
UNREADABLE_ROW = refusal(500, "FormatError", "a row is of a format that is unknown")


async def push(transport: FakeTransport, rows: Any = ROW, **options: Any) -> Pushed:
    """What became of rows pushed to `V`."""
    client = Client.of(Service(transport, "http://fake", Retries(attempts=3, first=0.001, longest=0.001)))
    return await client.push("V", rows, **options)


@pytest.mark.parametrize(
    "rows",
    [
        ROW,
        [ROW],
        (ROW,),
        iter([ROW]),
        pl.DataFrame([ROW]),
        pl.DataFrame([ROW]).to_arrow(),
        pa.RecordBatch.from_pylist([ROW]),
        pd.DataFrame([ROW]),
        pd.DataFrame([ROW]).set_index("id"),
        pd.DataFrame([ROW]).convert_dtypes(dtype_backend="pyarrow"),
    ],
)
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
            "list": [math.nan, -math.inf],
            "vector": np.array([0.5, math.nan], np.float32),
            "scalars": (np.float32("inf"), np.int64(3)),
            "times": [datetime.datetime(2026, 1, 31, 12, tzinfo=datetime.UTC)],
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
            "list": ["NaN", "-Infinity"],
            "vector": [0.5, "NaN"],
            "scalars": ["Infinity", 3],
            "times": ["2026-01-31T12:00:00Z"],
        }
    ]


LISTED = {"id": 1, "tags": ["a", "b"], "taste": [0.5, 1.5]}


@pytest.mark.parametrize(
    "rows",
    [
        LISTED,
        pl.DataFrame([LISTED], schema_overrides={"taste": pl.Array(pl.Float32, 2)}),
        pa.Table.from_pylist([LISTED]),
        pa.table(
            {
                **{name: [each] for name, each in LISTED.items()},
                "taste": pa.array([[0.5, 1.5]], pa.list_(pa.float32(), 2)),
            }
        ),
        pd.DataFrame([LISTED]),
        pd.DataFrame({"id": [1], "tags": [np.array(["a", "b"])], "taste": [np.array([0.5, 1.5], np.float32)]}),
        pd.DataFrame([LISTED]).convert_dtypes(dtype_backend="pyarrow"),
    ],
)
async def test_lists_are_sent_alike_from_wherever_they_come(rows: Any) -> None:
    transport = FakeTransport(TAKEN)
    await push(transport, rows)
    assert transport.sent[0].body["rows"] == [LISTED]


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
            "statuses": ["stale", "rejected", "expired"],
            "rejects": [{"row": 1, "reason": "expectation", "message": "amount: expected > 0"}],
        }
    )
    pushed = await push(FakeTransport(answer), [ROW] * 3)
    assert [row.status.value for row in pushed.rows] == ["stale", "rejected", "expired"]
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


@pytest.mark.parametrize(
    "failure",
    [
        CUT,
        UNKNOWN,
        MISTAKE,
        UNREADABLE_ROW,
        Reply(500, b"oops", "text/plain"),
        Reply(502, b"<html>", "text/html"),
        Reply(503, b"", "text/html"),
        reply({"token": "V@1:0-7"}, status=201),
    ],
)
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
        (refusal(408, "RequestError", "body: did not come", "body", 9.0), Unavailable, "did not come"),
        (reply({"token": "V@1:0-7", "statuses": ["applied"] * 2}), Unconfirmed, "what became of 2 rows, of 1"),
        (reply({"token": "yesterday", "statuses": ["applied"]}), Unconfirmed, "must be a token"),
        (reply({"token": "V@1:0-7", "statuses": ["lost"]}), Unconfirmed, "lost"),
        (Reply(200, b"<html>", "text/html"), Unconfirmed, "root of a query service"),
        (Reply(404, b"nothing here", "text/plain"), WrongAnswer, "root of a query service"),
        (Reply(308, b"", "text/html"), WrongAnswer, "308"),
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


async def test_they_are_so_named_also_where_the_token_is_of_a_form_that_nobody_here_knows() -> None:
    body = {"error": {"kind": "NotWritten", "message": "Kafka holds the rows", "token": "of tomorrow"}}
    with pytest.raises(NotWritten, match="Kafka holds the rows") as told:
        await push(FakeTransport(Reply(503, json.dumps(body).encode())))
    assert told.value.token is None


async def test_what_pandas_takes_for_missing_is_null_and_its_times_keep_their_zone() -> None:
    noon = "2026-01-31T12:00:00.123456789+01:00"
    frame = pd.DataFrame(
        {
            "at": [pd.Timestamp(noon), pd.NaT],
            "amount": [math.nan, 0.5],
            "number": pd.array([None, 7], dtype="Int64"),
            "name": ["a", None],
        }
    )
    transport = FakeTransport(reply({"token": "V@1:0-7", "statuses": ["applied"] * 2}))
    await push(transport, frame)
    first, second = transport.sent[0].body["rows"]
    at = datetime.datetime.fromisoformat(first.pop("at"))
    assert (at, at.utcoffset()) == (datetime.datetime.fromisoformat(noon), datetime.timedelta(hours=1))
    assert first == {"amount": None, "number": None, "name": "a"}
    assert second == {"at": None, "amount": 0.5, "number": 7, "name": None}


async def test_a_table_that_cannot_be_read_is_refused_with_what_to_do() -> None:
    transport = FakeTransport(TAKEN)
    with pytest.raises(RequestError, match=r"push what its collect\(\) gives"):
        await push(transport, pl.LazyFrame([ROW]))
    with pytest.raises(RequestError, match="rows: holds a column that has no one type"):
        await push(transport, pd.DataFrame({"id": [1, "a"]}))
    assert transport.sent == []


class Kafka(FakeTransport):
    """Takes every push: each row of a request in its own partition, from 0 on, behind what was there."""

    def __init__(self, *failures: Reply | NotSent | None, incarnation: int = 1) -> None:
        super().__init__(TAKEN)
        self.failures = list(failures)
        self.offset = 0
        self.incarnation = incarnation

    async def send(self, method: str, path: str, body: bytes | None, accept: str = JSON) -> Reply:
        await super().send(method, path, body, accept)
        failure = self.failures.pop(0) if self.failures else None
        if isinstance(failure, Reply):
            return failure
        if failure is not None:
            raise failure
        rows = len(self.sent[-1].body["rows"])
        self.offset += 1
        token = f"V@{self.incarnation}:{self.offset % 2}-{self.offset};epoch"
        return reply({"token": token, "statuses": ["applied"] * rows})


TABLE = pl.DataFrame({"id": range(1_300)})


@pytest.mark.parametrize(
    "rows", [TABLE, TABLE.to_arrow(), TABLE.to_arrow().to_batches()[0], TABLE.to_dicts(), iter(TABLE.to_dicts())]
)
async def test_many_rows_go_in_parts_and_have_one_token(rows: Any) -> None:
    kafka = Kafka()
    pushed = await push(kafka, rows)
    assert [len(each.body["rows"]) for each in kafka.sent] == [500, 500, 300]
    assert [row["id"] for each in kafka.sent for row in each.body["rows"]] == list(range(1_300))
    assert len(pushed.rows) == 1_300
    assert pushed.token == Token("V", 1, {1: 3, 0: 2}, "epoch")


async def test_large_rows_go_in_parts_that_a_service_takes() -> None:
    kafka = Kafka()
    await push(kafka, [{"text": "x" * 200_000}] * 5)
    assert [len(each.body["rows"]) for each in kafka.sent] == [2, 2, 1]


async def test_a_frame_of_pandas_goes_in_parts_too() -> None:
    kafka = Kafka()
    pushed = await push(kafka, pd.DataFrame({"id": range(600)}))
    assert [len(each.body["rows"]) for each in kafka.sent] == [500, 100]
    assert len(pushed.rows) == 600


async def test_each_part_has_a_key_of_its_own_which_is_the_same_when_all_is_pushed_again() -> None:
    kafka = Kafka()
    for _ in range(2):
        await push(kafka, TABLE, idempotency_key="today")
    keys = [each.body["idempotency_key"] for each in kafka.sent]
    assert keys[:3] == keys[3:]
    assert (keys[0], len(set(keys))) == ("today", 3)
    await push(kafka, TABLE, idempotency_key="x" * 256)
    assert max(len(each.body["idempotency_key"]) for each in kafka.sent) == 256


async def test_a_part_that_fails_tells_what_became_of_those_before_it() -> None:
    refused = refusal(422, "RequestError", "rows[7]: amount is unknown", "rows[7]")
    kafka = Kafka(None, refused)
    with pytest.raises(
        PartlyPushed, match=r"the first 500 rows were pushed; then: rows\[507\]: amount is unknown"
    ) as told:
        await push(kafka, TABLE)
    assert len(kafka.sent) == 2
    assert len(told.value.pushed.rows) == 500
    assert told.value.pushed.token == Token("V", 1, {1: 1}, "epoch")
    assert isinstance(told.value.error, RequestError)
    assert told.value.error.field == "rows[507]"
    with pytest.raises(RequestError, match=r"^rows\[7\]: amount is unknown"):
        await push(Kafka(refused), TABLE)
    with pytest.raises(PartlyPushed, match=r"rows\[1200\]: holds a value that JSON has no form for"):
        await push(Kafka(), [*TABLE.to_dicts()[:1_200], {"id": object()}])


async def test_a_part_of_which_nothing_was_taken_is_sent_again() -> None:
    kafka = Kafka(None, AWAY, FULL)
    assert len((await push(kafka, TABLE)).rows) == 1_300
    assert [len(each.body["rows"]) for each in kafka.sent] == [500, 500, 500, 500, 300]
