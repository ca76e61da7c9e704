"""Rows one by one, sent together: bounded, flushed in the end, and no failure that nobody hears of."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from stillwell.client import (
    Client,
    NotWritten,
    Pushed,
    PushedRow,
    Pusher,
    PushFailed,
    PushStatus,
    RequestError,
    Retries,
    RowRejected,
    SyncClient,
    Unavailable,
)
from stillwell.client.service import Service
from stillwell.client.transport import JSON, NotSent, Reply
from stillwell.errors import StillwellError
from tests.fake_service import refusal, reply
from tests.waiting import eventually_async

Answer = Callable[[list[dict[str, Any]]], Reply]


class Taking:
    """A service that answers each push as `answer` says of its rows; holds them back while `held`."""

    def __init__(self, answer: Answer | None = None) -> None:
        self._answer = answer or applied
        self.batches: list[list[dict[str, Any]]] = []
        self.keys: list[str] = []
        self.under_way = 0
        self.most_under_way = 0
        self.free = asyncio.Event()
        self.free.set()

    async def send(self, method: str, path: str, body: bytes | None, accept: str = JSON) -> Reply:
        asked = json.loads(body or b"")
        self.batches.append(asked["rows"])
        self.keys.append(asked["idempotency_key"])
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await self.free.wait()
            return self._answer(asked["rows"])
        finally:
            self.under_way -= 1

    async def close(self) -> None:
        """Nothing is held."""


def applied(rows: list[dict[str, Any]]) -> Reply:
    return reply({"token": "V@1:0-7", "statuses": ["applied"] * len(rows)})


def away(rows: list[dict[str, Any]]) -> Reply:
    raise NotSent("connection refused")


async def hand_over(service: Taking, *numbers: int, then: Exception | None = None) -> None:
    """Push these rows in a block, which ends by an error if one is given."""
    async with client(service).pusher("V") as pusher:
        for number in numbers:
            await pusher.push({"n": number})
        if then is not None:
            raise then


def client(service: Taking) -> Client:
    return Client.of(Service(service, "http://fake", Retries(attempts=2, first=0.001)))


async def test_the_token_names_rows_that_kafka_holds_and_redis_does_not() -> None:
    """They will be read, and who waits for the token must see them."""
    answers = [
        reply({"token": "V@1:0-7;e-1", "statuses": ["applied"]}),
        reply({"error": {"kind": "NotWritten", "field": None, "message": "Redis is away", "token": "V@1:0-8"}}, 503),
    ]
    taking = Taking(lambda rows: answers.pop(0))
    async with client(taking).pusher("V", max_rows=1) as pusher:
        await (await pusher.push({"id": 1}))
        with pytest.raises(NotWritten):
            await (await pusher.push({"id": 2}))
    assert str(pusher.token) == "V@1:0-8"


async def test_under_a_key_of_the_callers_no_clock_cuts_batches_and_who_waits_sends_his() -> None:
    sent: list[tuple[str, int]] = []

    async def send(rows: tuple[msgspec.Raw, ...], key: str) -> Pushed:
        sent.append((key, len(rows)))
        return Pushed(None, tuple(PushedRow(PushStatus.APPLIED) for _ in rows))

    limits = {"max_rows": 3, "max_bytes": 10_000, "max_waiting": 100, "concurrent": 4}
    async with Pusher(send, max_delay=0.0, idempotency_key="k", **limits) as pusher:
        receipts = [await pusher.push({"n": number}) for number in range(4)]
        await receipts[0]
        assert sent == [("k/0/0", 3)]
        await receipts[3]
        assert sent == [("k/0/0", 3), ("k/1/0", 1)]
        await pusher.push({"n": 4})
    assert sent[2:] == [("k/2/0", 1)]


async def test_rows_go_together_when_there_are_enough_or_the_block_ends() -> None:
    service = Taking()
    async with client(service).pusher("V", max_rows=3, max_delay=60) as pusher:
        receipts = [await pusher.push({"n": number}) for number in range(7)]
        assert [(await receipt).status for receipt in receipts[:6]] == [PushStatus.APPLIED] * 6
        assert [len(batch) for batch in service.batches] == [3, 3]
    assert sorted(row["n"] for batch in service.batches for row in batch) == list(range(7))
    assert len(set(service.keys)) == 3


async def test_a_lone_row_waits_no_longer_than_it_may() -> None:
    service = Taking()
    async with client(service).pusher("V", max_rows=1_000, max_delay=0.01) as pusher:
        assert (await (await pusher.push({"n": 1}))).status is PushStatus.APPLIED


async def test_large_rows_make_small_batches() -> None:
    service = Taking()
    async with client(service).pusher("V", max_bytes=1_000, max_delay=60) as pusher:
        for _ in range(5):
            await pusher.push({"text": "x" * 400})
    assert [len(batch) for batch in service.batches] == [2, 2, 1]


async def test_who_pushes_faster_than_rows_are_taken_waits() -> None:
    service = Taking()
    service.free.clear()
    handed = 0

    async with client(service).pusher("V", max_rows=5, max_delay=0.001, max_waiting=20, concurrent=2) as pusher:

        async def produce() -> None:
            nonlocal handed
            for number in range(100):
                await pusher.push({"n": number})
                handed += 1

        producing = asyncio.create_task(produce())

        async def stalled() -> bool:
            return handed == 20 and service.under_way == 2

        await eventually_async(stalled, what="a full pusher")
        service.free.set()
        await producing
    assert service.most_under_way == 2
    assert sum(map(len, service.batches)) == 100


async def test_a_row_may_be_changed_once_it_is_handed_over() -> None:
    service = Taking()
    row = {"n": 1}
    async with client(service).pusher("V", max_delay=60) as pusher:
        await pusher.push(row)
        row["n"] = 2
    assert service.batches == [[{"n": 1}]]


async def test_a_failure_that_nobody_awaits_is_raised_with_the_rows_when_the_block_ends() -> None:
    with pytest.raises(PushFailed, match=r"not pushed: 2 rows: .*refused") as failed:
        await hand_over(Taking(away), 1, 2)
    assert [failure.row for failure in failed.value.failures] == [{"n": 1}, {"n": 2}]
    assert {type(failure.error) for failure in failed.value.failures} == {Unavailable}


async def test_a_failure_that_is_awaited_is_raised_there_and_not_again() -> None:
    async with client(Taking(away)).pusher("V", max_delay=0.001) as pusher:
        receipt = await pusher.push({"n": 1})
        with pytest.raises(Unavailable):
            await receipt
        late = await pusher.push({"n": 2})
        with pytest.raises(PushFailed):
            await pusher.flush()
        with pytest.raises(Unavailable):
            await late


async def test_failures_that_nobody_looks_at_do_not_pile_up() -> None:
    async with client(Taking(away)).pusher("V", max_rows=1, max_waiting=10) as pusher:

        async def push_on() -> None:
            for number in range(100):
                await pusher.push({"n": number})

        with pytest.raises(PushFailed) as failed:
            await push_on()
        assert 10 <= len(failed.value.failures) <= 20
        with pytest.raises(PushFailed):
            await pusher.flush()


async def test_an_error_within_the_block_comes_first_and_what_was_handed_over_is_sent() -> None:
    service = Taking()
    with pytest.raises(KeyError):
        await hand_over(service, 1, then=KeyError())
    assert service.batches == [[{"n": 1}]]
    with pytest.raises(KeyError) as both:
        await hand_over(Taking(away), 1, then=KeyError())
    assert "not pushed: 1 row: " in both.value.__notes__[0]


async def test_a_row_that_is_rejected_takes_no_other_with_it() -> None:
    """Whether the service answers row by row, or refuses all for the first that is wrong."""

    def one_by_one(rows: list[dict[str, Any]]) -> Reply:
        wrong = [number for number, row in enumerate(rows) if row["n"] < 0]
        statuses = ["rejected" if number in wrong else "applied" for number in range(len(rows))]
        refusals = [{"row": number, "reason": "expectation", "message": "n: expected > 0"} for number in wrong]
        return reply({"token": "V@1:0-7", "statuses": statuses, "rejects": refusals})

    def all_or_none(rows: list[dict[str, Any]]) -> Reply:
        for number, row in enumerate(rows):
            if row["n"] < 0:
                return refusal(422, "RequestError", f"rows[{number}]: n: expected > 0", f"rows[{number}]")
        return applied(rows)

    for answer in (one_by_one, all_or_none):
        service = Taking(answer)
        async with client(service).pusher("V", max_rows=20) as pusher:
            receipts = [await pusher.push({"n": -number if number in (3, 8) else number}) for number in range(20)]
            for number, receipt in enumerate(receipts):
                if number in (3, 8):
                    with pytest.raises(RowRejected, match="n: expected > 0"):
                        await receipt
                else:
                    assert (await receipt).status is PushStatus.APPLIED
        assert len(service.batches) == (1 if answer is one_by_one else 3)


async def test_a_batch_full_of_wrong_rows_ends_too() -> None:
    def refuse_the_first(rows: list[dict[str, Any]]) -> Reply:
        return refusal(422, "RequestError", "rows[0]: n: expected > 0", "rows[0]")

    service = Taking(refuse_the_first)
    with pytest.raises(PushFailed, match="not pushed: 10 rows"):
        await hand_over(service, *range(10))
    assert len(service.batches) == 10


async def test_what_is_wrong_with_the_whole_request_is_told_to_every_row() -> None:
    def refuse(rows: list[dict[str, Any]]) -> Reply:
        return refusal(404, "NotDefined", "view: there is no view 'V'", "view")

    async with client(Taking(refuse)).pusher("V") as pusher:
        receipts = [await pusher.push({"n": number}) for number in range(2)]
        for receipt in receipts:
            with pytest.raises(RequestError, match="there is no view"):
                await receipt


async def test_a_waiter_that_is_cancelled_takes_no_row_with_it() -> None:
    service = Taking()
    service.free.clear()
    async with client(service).pusher("V", max_delay=0.001) as pusher:
        receipts = [await pusher.push({"n": number}) for number in range(2)]

        async def wait() -> object:
            return await receipts[0]

        waiting = asyncio.create_task(wait())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        service.free.set()
        assert (await receipts[1]).status is PushStatus.APPLIED


async def test_after_its_block_a_pusher_takes_nothing_more() -> None:
    pusher = client(Taking()).pusher("V")
    async with pusher:
        pass
    with pytest.raises(StillwellError, match="the pusher is closed"):
        await pusher.push({"n": 1})


def test_the_synchronous_pusher_does_the_same() -> None:
    service = Taking()
    with SyncClient.around(client(service)) as sync:
        with sync.pusher("V", max_rows=2, max_delay=60) as pusher:
            receipts = [pusher.push({"n": number}) for number in range(3)]
            assert receipts[0].result().status is PushStatus.APPLIED
        assert receipts[2].result().status is PushStatus.APPLIED
    assert [len(batch) for batch in service.batches] == [2, 1]
    with SyncClient.around(client(Taking(away))) as sync, pytest.raises(PushFailed), sync.pusher("V") as pusher:
        pusher.push({"n": 1})
