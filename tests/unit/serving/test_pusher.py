"""Pushes: what becomes of each row, on twins; and that a worker who follows finds nothing left to do."""

import asyncio
import dataclasses
import json
import math
import random
import threading
from collections.abc import Awaitable, Sequence
from typing import Any

import polars as pl
import pytest

from serving.pushing.batch import FEW_ROWS, Push
from serving.pushing.pusher import Pusher, Written
from stillwell.broken import Broken
from stillwell.errors import NotDefined, NotWritten, OutcomeUnknown, RequestError, StoreNotReady, StoreUnavailable
from stillwell.layout.online import Answer
from stillwell.pushing.log import Place
from stillwell.pushing.record import LARGEST_RECORD, RAW, PushRecord, To
from stillwell.pushing.status import PushStatus
from stillwell.spec import Expectation, Origin, TopicSpec, ViewSpec
from stillwell.threads import ThreadPool
from stillwell.types import FLOAT64, INT64, STRING, TIMESTAMP
from tests.batches import column, event, feature, view
from tests.pushed import HOUR, INCARNATION, LAST, SOURCE, SPLIT, FasterWorker, World, raw, together
from tests.waiting import eventually_async


def final(customer: str, **fields: object) -> bytes:
    return json.dumps({"customer": customer, "event_timestamp": "2026-01-01T00:00:00Z", "step": 1, **fields}).encode()


async def test_each_row_is_told_what_became_of_it() -> None:
    world = await World().ready()
    pusher = world.pusher()
    written = await pusher.write(
        together(
            raw("a", amount=1.5),
            raw("b", step=-1),
            raw("c", amount="much"),
            raw("d", at="2025-12-31T20:00:00Z"),
            raw("a", at="2025-12-31T23:00:00Z"),
            raw("e", at="2026-01-01T02:00:00Z"),
        )
    )
    assert written.statuses == ["applied", "filtered", "rejected", "expired", "stale", "rejected"]
    assert [(refusal.row, refusal.reason) for refusal in written.refusals] == [(2, "decode"), (5, "future")]
    assert "amount: expected Float64" in written.refusals[0].error
    assert (await pusher.write(raw("a", at="2025-12-31T23:59:00Z"))).statuses == ["stale"]
    assert (await pusher.write(raw("a", step=2))).statuses == ["applied"]


async def test_what_a_worker_was_first_to_write_is_applied_all_the_same() -> None:
    """Who pushes has pushed once, and does not care who wrote it."""
    world = await World().ready()
    world.topics = worker = FasterWorker(world)
    pusher = world.pusher()
    written = await pusher.write(together(raw("a"), raw("b"), raw("a", at="2025-12-31T23:59:00Z")))
    assert worker.answers == [Answer.APPLIED] * 2
    assert written.statuses == ["applied", "applied", "stale"]


async def test_what_is_pushed_again_is_applied_again() -> None:
    """In the place of the same: which of two records Redis has must not depend on who came first."""
    world = await World().ready()
    pusher = world.pusher()
    assert [(await pusher.write(raw("a"))).statuses for _ in range(2)] == [["applied"], ["applied"]]


async def test_the_worker_finds_the_very_bytes_that_were_written(rng: random.Random) -> None:
    """In Redis stands what a worker alone would have written: of raw events and final rows, by several processes."""
    world = await World().ready()
    pushers = [world.pusher() for _ in range(3)]
    pushes = [
        Push(
            "Last",
            [_some_event(rng) if transform else final(f"c{rng.randrange(5)}", step=rng.randrange(3)) for _ in range(9)],
            transform=transform,
            to=rng.choice(list(To)),
        )
        for transform in rng.choices([True, False], k=40)
    ]
    await asyncio.gather(*(rng.choice(pushers).write(push) for push in pushes))
    before = world.rows()
    assert before
    assert set(await world.work()) <= {Answer.DUPLICATE, Answer.STALE, Answer.EXPIRED}
    assert world.rows() == before
    world.server.flush()
    await world.ready()
    await world.work()
    assert world.rows() == before


def _some_event(rng: random.Random) -> bytes:
    at = f"2025-12-31T2{rng.randrange(2, 4)}:{rng.randrange(60):02}:00Z"
    return event(customer=f"c{rng.randrange(5)}", at=at, amount=rng.random(), step=rng.randrange(-1, 4))


async def test_an_event_that_gives_several_rows_is_written_as_the_worker_does_it() -> None:
    world = await World().ready()
    pusher = world.pusher()
    written = await pusher.write(
        Push("Split", [event(customer="a+b", step=1), event(customer="", step=1)], True, To.BOTH)
    )
    assert written.statuses == ["applied", "filtered"]
    rows = world.rows()
    assert len(rows) == 2
    assert await world.work("Split") == [Answer.DUPLICATE, Answer.DUPLICATE]
    as_row = await pusher.write(Push("Split", [final("z")], False, To.BOTH))
    assert as_row.statuses == ["applied"]
    assert set(await world.work("Split")) == {Answer.DUPLICATE}


async def test_an_event_is_applied_if_any_of_its_rows_is() -> None:
    world = await World().ready()
    pusher = world.pusher()

    async def pushed(customer: str, step: int) -> Sequence[PushStatus]:
        return (await pusher.write(Push("Split", [event(customer=customer, step=step)], True, To.BOTH))).statuses

    assert await pushed("a", 5) == ["applied"]
    assert [await pushed(customer, 1) for customer in ("a+b", "c+a", "a")] == [["applied"], ["applied"], ["stale"]]


async def test_the_token_names_the_last_record_of_each_partition_and_the_epoch() -> None:
    world = await World().ready()
    token = (await world.pusher().write(together(*(raw(f"c{number}") for number in range(20))))).token
    assert token
    assert (token.view, token.incarnation, token.epoch) == ("Last", INCARNATION, "epoch-000000000000")
    ends = {kept.place.partition: kept.place.offset for kept in world.log.records("test.push.Last")}
    assert token.offsets == ends


async def test_what_is_appended_is_in_kafka_and_not_in_redis_until_a_worker_comes() -> None:
    world = await World().ready()
    written = await world.pusher().append(raw("a"))
    assert written.token
    assert written.token.epoch is None
    assert world.rows() == {}
    assert await world.work() == [Answer.APPLIED]


async def test_what_a_function_over_frames_makes_of_a_pushed_event_is_written_as_the_worker_would_write_it() -> None:
    """And goes to Kafka as a finished row, since an event has no more than one."""

    def double(events: pl.DataFrame) -> pl.DataFrame:
        some = events.filter(pl.col("step") >= 0)
        return some.select("_index", "customer", amount=pl.col("amount") / 3.6)

    framed = view(
        SOURCE, {"customer": (STRING, None)}, feature("amount", FLOAT64, None), name="Framed", frame=double
    ).model_copy(update={"ttl": HOUR})
    world = await World([framed]).ready()
    pusher = world.pusher()
    events = [event(customer=f"c{number}", step=number, amount=number * 0.1) for number in range(-1, 20)]
    written = await pusher.write(Push("Framed", [*events, event(customer="a", step=1)], transform=True, to=To.BOTH))
    assert list(written.statuses) == ["filtered", *["applied"] * 20, "rejected"]
    final = [each for each in world.log.records("test.push.Framed") if b"event_timestamp" in each.record.value]
    assert len(final) == 20
    assert all(RAW in dict(each.record.headers) for each in final)
    before = world.rows()
    assert set(await world.work("Framed")) == {Answer.DUPLICATE}
    assert world.rows() == before
    await pusher.write(Push("Framed", events[:2], transform=True, to=To.BOTH))
    assert not pusher.view("Framed").quick, "a user's function is called by a thread"


async def test_rows_that_are_appended_do_not_wait_for_redis_with_those_that_go_in_the_same_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = await World().ready()
    pusher = world.pusher()
    away = asyncio.Event()
    put_each = world.store.put_each

    async def late(rows: Any, epoch: str) -> Any:
        await away.wait()
        return await put_each(rows, epoch)

    monkeypatch.setattr(world.store, "put_each", late)
    writing = asyncio.create_task(pusher.write(raw("a")))
    appending = asyncio.create_task(pusher.append(Push("Last", [final("b")], False, To.BOTH)))
    async with asyncio.timeout(5):
        written = await appending
    assert written.token
    assert written.statuses == ()
    assert not writing.done()
    away.set()
    assert (await writing).statuses == ["applied"]


async def test_final_rows_that_are_appended_are_judged_before() -> None:
    """Nobody would be told later."""
    world = await World().ready()
    push = Push("Last", [final("a"), b'{"customer":"b"}', final("c", other=1)], False, To.BOTH, whole=True)
    with pytest.raises(RequestError, match=r"rows\[1\]: event_timestamp.*1 others are refused") as caught:
        await world.pusher().append(push)
    assert caught.value.field == "rows[1]"
    assert world.log.records("test.push.Last") == []


_RULE = Expectation(rule="at least 0", holds=pl.col("amount") >= 0)


def _with_rules(*rules: Expectation) -> ViewSpec:
    columns = tuple(
        each.model_copy(update={"expectations": rules}) if each.name == "amount" else each for each in SOURCE.columns
    )
    return LAST.model_copy(update={"source": SOURCE.model_copy(update={"columns": columns})})


_WITH_RULE = _with_rules(_RULE)


async def test_an_event_that_would_stop_a_worker_is_refused_and_one_that_breaks_a_rule_that_warns_is_counted() -> None:
    """Here, since a worker gets what is made of it."""
    warns = Expectation(rule="at most 5", action="warn", holds=pl.col("amount") <= 5)
    stops = Expectation(rule="at most 50", action="stop", holds=pl.col("amount") <= 50)
    world = await World([_with_rules(warns, stops)]).ready()
    counted: list[tuple[str, Broken]] = []
    pusher = world.pusher(broken=lambda topic, broken: counted.extend((topic, each) for each in broken))
    events = [event(customer=f"c{amount}", step=1, amount=amount) for amount in (1, 6, 51, 7)]
    with pytest.raises(RequestError, match=r"rows\[2\]: amount: expected at most 50, got 51.0"):
        await pusher.append(Push("Last", events, transform=True, to=To.BOTH))
    assert counted == []
    written = await pusher.write(Push("Last", events, transform=True, to=To.BOTH))
    assert [(each.row, each.reason) for each in written.refusals] == [(2, "expectation")]
    assert "by a rule that stops workers" in written.refusals[0].error
    assert {(topic, each.rule.action, each.count) for topic, each in counted} == {
        ("test.push.Last", "warn", 3),
        ("test.push.Last", "stop", 1),
    }


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (b'{"at":"2026-01-01T00:00:00Z","customer":"b","step":"1"}', r"rows\[1\]: step: expected Int64"),
        (b"{", r"rows\[1\]: value: "),
        (event(customer="b", step=1, amount=-1.0), r"rows\[1\]: amount: expected at least 0, got -1.0"),
        (event(at="2026-01-01T02:00:00Z", customer="b", step=1), r"rows\[1\]: at: an event time lies at most"),
    ],
)
async def test_raw_events_that_are_appended_are_checked_before(bad: bytes, said: str) -> None:
    """A record that is none fills the log with what no worker can use, and at worst stops it, again at every start."""
    world = await World([_WITH_RULE]).ready()
    pusher = world.pusher()
    good = event(customer="a", step=1)
    for few in (1, 2 * FEW_ROWS):  # by the event loop, and in a thread
        with pytest.raises(RequestError, match=said) as caught:
            await pusher.append(Push("Last", [good, bad, *[good] * few, bad], transform=True, to=To.BOTH))
        assert caught.value.field == "rows[1]"
        assert "1 others are refused too. Nothing of the request was taken" in str(caught.value)
        assert world.log.records("test.push.Last") == []
    assert (await pusher.append(Push("Last", [good], transform=True, to=To.BOTH))).token
    assert world.rows() == {}
    assert await world.work() == [Answer.APPLIED]


async def test_events_of_pushes_of_one_moment_are_checked_together_and_each_is_told_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = await World().ready()
    pusher = world.pusher()
    await pusher.append(raw("first"))  # by a thread: that it goes quickly is known behind it
    batches = pusher.view("Last")
    together_of: list[int] = []
    check = batches.check

    def counted(pushes: Sequence[Push], now_ms: int) -> Any:
        together_of.append(len(pushes))
        return check(pushes, now_ms)

    monkeypatch.setattr(batches, "check", counted)
    good, bad = event(customer="a", step=1), event(customer="a", step="1")
    pushes = [Push("Last", values, True, To.BOTH) for values in ([good], [good, bad], [good] * 3, [bad], [good] * 199)]
    told = await asyncio.gather(*(pusher.append(each) for each in pushes), return_exceptions=True)
    assert together_of == [4, 1]
    assert [each.field if isinstance(each, RequestError) else None for each in told] == [
        None,
        "rows[1]",
        None,
        "rows[0]",
        None,
    ]
    assert len(world.log.records("test.push.Last")) == 1 + 1 + 3 + 199


async def test_what_the_view_makes_of_events_that_are_appended_is_left_to_the_worker() -> None:
    strict = _WITH_RULE.model_copy(update={"features": (feature("amount", FLOAT64, pl.col("T.amount")),)})
    world = await World([strict]).ready()
    pusher = world.pusher()
    missing = Push("Last", [event(customer="a", step=1)], transform=True, to=To.BOTH)
    assert (await pusher.write(missing)).statuses == ["rejected"]
    assert (await pusher.append(missing)).token


async def test_a_push_that_is_whole_is_refused_whole_and_its_neighbours_are_not() -> None:
    world = await World().ready()
    pusher = world.pusher()
    bad = Push("Last", [event(customer="x", step=1), b"{"], True, To.BOTH, whole=True)
    good, refused, also_good = await asyncio.gather(
        pusher.write(raw("a")), pusher.write(bad), pusher.write(raw("b")), return_exceptions=True
    )
    assert isinstance(refused, RequestError)
    assert "Nothing of the request was taken" in str(refused)
    assert [good.statuses, also_good.statuses] == [["applied"], ["applied"]]  # type: ignore[union-attr]
    assert {kept.record.key for kept in world.log.records("test.push.Last")} == {b"s1:a", b"s1:b"}


async def test_rejected_rows_are_nowhere_and_filtered_ones_in_kafka_alone() -> None:
    world = await World().ready()
    none = await world.pusher().write(together(raw("a", amount="much"), raw("b", at="late")))
    assert none.token is None
    assert world.log.records("test.push.Last") == []
    filtered = await world.pusher().write(raw("a", step=-1))
    assert filtered.token
    assert filtered.statuses == ["filtered"]
    (kept,) = world.log.records("test.push.Last")
    assert json.loads(kept.record.value)["step"] == -1
    assert world.rows() == {}


async def test_rows_for_the_offline_store_alone_never_come_into_redis() -> None:
    world = await World().ready()
    written = await world.pusher().write(raw("a", to=To.OFFLINE))
    assert written.statuses == ["offline"]
    await world.work()
    assert world.rows() == {}


async def test_pushes_of_one_moment_share_a_transformation_and_each_round_trip() -> None:
    world = await World().ready()
    pusher = world.pusher()
    calls = {"kafka": 0, "redis": 0}
    world.log.faults = lambda topic: _count(calls, "kafka")
    world.store.faults = lambda operation: _count(calls, "redis") if operation == "put" else None
    written = await asyncio.gather(*(pusher.write(raw("a", step=step)) for step in range(50)))
    assert [each.statuses for each in written].count([PushStatus.APPLIED]) == 1
    assert [each.statuses for each in written].count([PushStatus.STALE]) == 49
    assert calls == {"kafka": 1, "redis": 1}


def _count(calls: dict[str, int], name: str) -> None:
    calls[name] += 1


def _held_up(world: World) -> tuple[asyncio.Event, list[int]]:
    """A Kafka that acknowledges nothing before the event; and the records of each batch that it was given."""
    acknowledged, appended = asyncio.Event(), world.log.append
    batches: list[int] = []

    async def held(topic: str, records: Sequence[PushRecord], timestamp: int) -> list[Place]:
        batches.append(len(records))
        await acknowledged.wait()
        return await appended(topic, records, timestamp)

    world.log.append = held  # type: ignore[method-assign]
    return acknowledged, batches


async def test_while_two_batches_are_on_their_way_the_next_gathers_and_a_whole_one_waits_for_nobody() -> None:
    world = await World().ready()
    pusher = world.pusher(most_rows=100_000)
    acknowledged, batches = _held_up(world)
    pushes = []
    for number in range(20):
        pushes.append(asyncio.ensure_future(pusher.write(raw(f"c{number}"))))
        for _ in range(20):  # turns of the event loop, in which it could go on its way
            await asyncio.sleep(0)
    assert batches == [1, 1]
    whole = together(*(raw(f"w{number}") for number in range(1_000)))
    pushes.append(asyncio.ensure_future(pusher.write(whole)))

    async def all_are_on_their_way() -> bool:
        return len(batches) == 4

    await eventually_async(all_are_on_their_way, what="a whole batch to be on its way")
    assert batches == [1, 1, 18, 1_000]
    acknowledged.set()
    assert {status for written in await asyncio.gather(*pushes) for status in written.statuses} == {"applied"}
    assert (await pusher.write(raw("later"))).statuses == ["applied"]


async def test_behind_a_batch_gather_as_many_rows_before_a_second_one_goes() -> None:
    """Two of one and thirty-one rows would cost what two of sixteen do, and the one row would be there no sooner."""
    world = await World().ready()
    pusher = world.pusher()
    acknowledged, batches = _held_up(world)
    pushes = [asyncio.ensure_future(pusher.write(together(*(raw(f"w{number}") for number in range(5)))))]
    for number in range(5):
        for _ in range(20):  # turns of the event loop, in which it could go on its way
            await asyncio.sleep(0)
        assert batches == [5]
        pushes.append(asyncio.ensure_future(pusher.write(raw(f"c{number}"))))
    for _ in range(20):
        await asyncio.sleep(0)
    assert batches == [5, 5]
    pushes.append(asyncio.ensure_future(pusher.write(raw("last"))))
    acknowledged.set()
    assert {status for written in await asyncio.gather(*pushes) for status in written.statuses} == {"applied"}
    assert batches == [5, 5, 1]


@pytest.mark.parametrize(("turn", "calls"), [(math.inf, 1), (0.0, 4)])
async def test_few_rows_are_judged_by_the_event_loop_once_it_is_known_that_they_are_judged_quickly(
    turn: float, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A function of the user's that takes long must hold nobody up but its own view."""
    monkeypatch.setattr("serving.pushing.batch._TURN", turn)
    world = await World().ready()
    pusher = world.pusher()
    for number in range(4):
        assert (await pusher.write(raw(f"c{number}"))).statuses == ["applied"]
    assert world.threads.calls == calls
    await pusher.write(together(*(raw(f"w{number}") for number in range(FEW_ROWS + 1))))
    assert world.threads.calls == calls + 2  # many are never judged there, nor encoded


async def test_a_function_of_the_users_is_never_called_by_the_event_loop() -> None:
    world = await World().ready()
    pusher = world.pusher()
    for number in range(3):
        split = Push("Split", [event(customer=f"a{number}+b", step=number)], transform=True, to=To.BOTH)
        assert (await pusher.write(split)).statuses == ["applied"]
    assert world.threads.calls == 3


async def test_a_function_that_never_ends_holds_up_its_own_view_alone_and_that_is_told() -> None:
    going = threading.Event()

    def stuck(event: Any) -> list[dict[str, object]]:
        going.wait(30)
        return _each(event)

    world = await World([LAST, SPLIT.model_copy(update={"rows": stuck})]).ready()
    threads, functions = ThreadPool("push", 1), ThreadPool("push Split", 1)
    world.threads, world.functions = threads, functions  # type: ignore[assignment]
    pusher = world.pusher(patience=0.1)
    split = Push("Split", [event(customer="a", step=1)], transform=True, to=To.BOTH)
    try:
        for _ in range(3):  # the first waits, and the others are told at once: they would only stand behind it
            with pytest.raises(
                StoreUnavailable, match=r"Split: what it computes of pushed rows has not ended in 0\.1 s"
            ):
                await pusher.write(split)
        many = together(*(raw(f"c{number}") for number in range(2 * FEW_ROWS)))
        async with asyncio.timeout(10):
            assert (await pusher.append(split)).token  # which is computed by a worker
            assert set((await pusher.write(many)).statuses) == {"applied"}
            assert (await pusher.append(many)).token
    finally:
        going.set()

    async def taken() -> bool:
        try:
            return (await pusher.write(split)).statuses == ["applied"]
        except StoreUnavailable:
            return False

    await eventually_async(taken, what="the view takes pushes again")
    assert len(world.log.records("test.push.Split")) == 2
    threads.close()
    functions.close()


async def test_few_rows_that_are_large_are_left_to_a_thread() -> None:
    """They would hold up everybody for as long as many do."""
    world = await World().ready()
    pusher = world.pusher()
    await pusher.write(raw("small"))
    before = world.threads.calls
    large = dataclasses.replace(raw("large"), values=[raw("large").values[0] + b" " * 300_000])
    assert (await pusher.write(large)).statuses == ["applied"]
    assert world.threads.calls == before + 1  # what is written of it is small again


async def test_a_push_larger_than_what_is_taken_together_goes_alone() -> None:
    world = await World().ready()
    pusher = world.pusher()
    large = together(*(raw(f"c{number}") for number in range(1_500)))
    written = await asyncio.gather(pusher.write(large), pusher.write(raw("z")), pusher.write(large))
    assert [len(each.statuses) for each in written] == [1_500, 1, 1_500]
    assert len(world.rows()) == 1_501


async def test_a_redis_that_is_away_behind_kafka_is_told_with_the_token() -> None:
    world = await World().ready()
    world.store.faults = lambda operation: "lost call" if operation == "put" else None
    with pytest.raises(NotWritten, match="Kafka holds the rows") as caught:
        await world.pusher().write(raw("a"))
    assert caught.value.token.startswith(f"Last@{INCARNATION}:")
    world.store.faults = lambda operation: None
    assert await world.work() == [Answer.APPLIED]


async def test_nothing_is_published_where_redis_is_not_ready() -> None:
    world = World()
    says = "the same STILLWELL_PROJECT and STILLWELL_NAMESPACE.* If there have been rows, run `stillwell rebuild`"
    with pytest.raises(StoreNotReady, match=says):
        await world.pusher().write(raw("a"))
    assert world.log.records("test.push.Last") == []


async def test_a_rebuild_between_two_pushes_is_noticed() -> None:
    world = await World().ready()
    pusher = world.pusher()
    await pusher.write(raw("a"))
    world.server.flush()
    world.epoch = await world.store.initialise("another")
    written = await pusher.write(raw("b"))
    assert written.statuses == ["applied"]
    assert written.token
    assert written.token.epoch == "another-000000000000"


@pytest.mark.parametrize(("fault", "error"), [("refused", StoreUnavailable), ("lost call", OutcomeUnknown)])
async def test_what_kafka_does_not_acknowledge_is_in_no_redis(fault: Any, error: type[Exception]) -> None:
    world = await World().ready()
    world.log.faults = lambda topic: fault
    pusher = world.pusher()
    for pushing in (pusher.write(raw("a")), pusher.append(raw("a"))):
        with pytest.raises(error):
            await pushing
    assert world.rows() == {}


async def test_the_process_may_die_between_kafka_and_redis() -> None:
    """What was acknowledged by Kafka is written by the worker, though nobody was answered."""
    world = await World().ready()
    world.store.faults = lambda operation: "lost call" if operation == "put" else None
    with pytest.raises(NotWritten):
        await world.pusher().write(raw("a", amount=2.5))
    world.store.faults = lambda operation: None
    await world.work()
    once = world.rows()
    assert len(once) == 1
    assert set(await world.work()) == {Answer.DUPLICATE}
    assert world.rows() == once


async def test_more_rows_than_may_be_on_their_way_are_refused_and_later_taken() -> None:
    world = await World().ready()
    pusher = world.pusher(most_rows=10)
    first = asyncio.ensure_future(pusher.write(together(*(raw(f"c{number}") for number in range(8)))))
    await asyncio.sleep(0)
    with pytest.raises(StoreUnavailable, match="8 pushed rows are on their way already, of 10"):
        await pusher.write(together(*(raw(f"c{number}") for number in range(3))))
    await first
    assert (await pusher.write(raw("z"))).statuses == ["applied"]


async def test_a_row_too_large_for_kafka_is_rejected_and_the_others_are_not() -> None:
    world = await World().ready()
    pusher = world.pusher()
    padded = Push("Last", [event(customer="b", step=1) + b" " * LARGEST_RECORD], True, To.BOTH)
    written = await pusher.write(together(raw("a"), padded))
    assert written.statuses == ["applied", "rejected"]
    assert written.refusals[0].reason == "too_long"
    with pytest.raises(RequestError, match=r"rows\[0\]: is too large for Kafka"):
        await pusher.append(padded)


async def test_a_view_that_is_not_there_is_told_with_the_nearest() -> None:
    with pytest.raises(NotDefined, match=r"no view 'Lost'.*Last"):
        World().pusher().view("Lost")


async def test_a_topic_without_incarnation_refuses_and_a_mistake_of_ours_ends_in_an_error() -> None:
    world = await World().ready()
    pusher = world.pusher()
    for error in (StoreUnavailable("no topic"), RuntimeError("a mistake")):
        world.topics.error = error
        for pushing in (pusher.write(raw("a")), pusher.append(raw("a"))):
            await _raises(type(error), pushing)
    world.topics.error = None
    assert (await pusher.write(raw("a"))).statuses == ["applied"]


async def _raises(error: type[Exception], pushing: Awaitable[Written]) -> None:
    with pytest.raises(error):
        await asyncio.wait_for(pushing, 5)


@pytest.mark.parametrize("error", [pl.exceptions.PanicException("a panic"), asyncio.CancelledError()])
@pytest.mark.parametrize("step", ["judge", "as_kept", "encode"])
async def test_what_is_no_exception_ends_in_an_error_too_and_the_next_push_is_taken(
    step: str, error: BaseException
) -> None:
    """Else everybody who pushes to the view waits for ever, and holds what may be under way at once."""
    world = await World().ready()
    world.log.clock = lambda: world.now_ms + 1  # a topic that stamps its records itself, which are judged once more
    pusher = world.pusher()
    view = pusher.view("Last")
    right = getattr(view, step)

    def wrong(*arguments: object) -> None:
        raise error

    setattr(view, step, wrong)
    for each in await asyncio.gather(
        *(asyncio.wait_for(pusher.write(raw(customer)), 5) for customer in "ab"), return_exceptions=True
    ):
        assert isinstance(each, RuntimeError)
        assert each.__cause__ is error
    assert pusher.rows == 0
    setattr(view, step, right)
    assert (await asyncio.wait_for(pusher.write(raw("a")), 5)).statuses == ["applied"]


async def test_an_event_over_which_polars_panics_is_rejected_and_its_neighbours_are_not() -> None:
    def panics(event: Any) -> Sequence[dict[str, object]]:
        if event.step > 1:
            raise pl.exceptions.PanicException("index out of bounds")
        return [{"customer": event.customer, "step": event.step}]

    world = await World([SPLIT.model_copy(update={"rows": panics})]).ready()
    split = Push("Split", [event(customer="a", step=1), event(customer="b", step=2)], transform=True, to=To.BOTH)
    written = await asyncio.wait_for(world.pusher().write(split), 5)
    assert written.statuses == ["applied", "rejected"]
    assert "index out of bounds" in written.refusals[0].error


async def test_an_empty_push_is_nothing() -> None:
    world = await World().ready()
    pusher: Pusher = world.pusher()
    nothing = Push("Last", [], True, To.BOTH)
    for written in (await pusher.write(nothing), await pusher.append(nothing)):
        assert written == Written(None, written.statuses, ())


async def test_rows_are_judged_by_the_timestamps_that_a_topic_gives_its_records() -> None:
    """Such a topic keeps the broker's time. By ours, half an hour ahead of it, an event is not too far in the future; a
    worker says that it is, and its row must not be in Redis."""
    world = await World().ready()
    world.log.clock = lambda: world.now_ms - 1_800_000
    pusher = world.pusher()
    written = await pusher.write(
        together(raw("a", amount="much"), raw("b", at="2026-01-01T00:45:00Z"), raw("c", step=-1), raw("d"))
    )
    assert written.statuses == ["rejected", "rejected", "filtered", "applied"]
    assert [(refusal.row, refusal.reason) for refusal in written.refusals] == [(0, "decode"), (1, "future")]
    before = world.rows()
    assert len(before) == 1
    await world.work()
    world.server.flush()
    await world.ready()
    await world.work()
    assert world.rows() == before


async def test_what_depends_on_a_records_timestamp_is_computed_from_the_one_in_the_log(
    rng: random.Random,
) -> None:
    """A function of one event to many rows is run again by the worker, from the event: it sees the broker's time."""
    at = column("at", TIMESTAMP, origin=Origin.RECORD_TIMESTAMP)
    columns = (at, column("customer", STRING), column("step", INT64))
    source = TopicSpec(name="T", topic="t", columns=columns, event_time="at")
    split = view(source, {"customer": (STRING, None)}, feature("step", INT64, None), name="Split", rows=_each)
    world = await World((split,)).ready()
    world.log.clock = lambda: world.now_ms + rng.randrange(-5_000, 5_000)
    for _ in range(5):
        value = json.dumps({"customer": "a+b", "step": 1}).encode()
        await world.pusher().write(Push("Split", [value], True, To.BOTH))
        before = world.rows()
        assert len(before) == 2
        assert set(await world.work("Split")) <= {Answer.DUPLICATE, Answer.STALE}
        assert world.rows() == before


def _each(event: Any) -> list[dict[str, object]]:
    return [{"customer": part, "step": event.step} for part in event.customer.split("+")]


async def test_the_token_names_the_incarnation_that_has_its_records() -> None:
    """It was made anew, and adopted, a moment ago. What a token of the one before waits for is passed long since."""
    world = await World().ready()
    pusher = world.pusher()

    def find_out(topic: str) -> None:
        world.topics.number = INCARNATION + 1

    world.log.made_anew = find_out
    for push in (pusher.append, pusher.write):
        for _ in range(2):
            token = (await push(Push("Last", [final("a")], transform=False, to=To.BOTH))).token
            assert token
            assert token.incarnation == INCARNATION
        world.log.make_anew("test.push.Last")
        token = (await push(Push("Last", [final("a")], transform=False, to=To.BOTH))).token
        assert token
        assert (token.incarnation, set(token.offsets.values())) == (INCARNATION + 1, {0})
        world.topics.number = INCARNATION


async def test_rows_in_a_topic_that_nobody_has_adopted_are_told_to_be_there() -> None:
    world = await World().ready()
    pusher = world.pusher()

    def find_out(topic: str) -> None:
        world.topics.error = StoreUnavailable("run `stillwell topics adopt`")

    world.log.made_anew = find_out
    await pusher.append(Push("Last", [final("a")], transform=False, to=To.BOTH))
    world.log.make_anew("test.push.Last")
    with pytest.raises(OutcomeUnknown, match="nobody reads yet: run `stillwell topics adopt`"):
        await pusher.append(Push("Last", [final("a")], transform=False, to=To.BOTH))


async def test_what_is_only_appended_says_nothing_of_redis_whoever_shares_its_batch() -> None:
    world = await World().ready()
    pusher = world.pusher()
    row = Push("Last", [final("a")], transform=False, to=To.BOTH)
    other = Push("Last", [final("b")], transform=False, to=To.BOTH)
    await pusher.write(row)  # or it would look for the epoch first, and come a batch later
    written, appended = await asyncio.gather(pusher.write(row), pusher.append(other))
    assert written.token
    assert appended.token
    assert (written.token.epoch, appended.token.epoch) == ("epoch-000000000000", None)
    assert len(world.rows()) == 1


async def test_a_redis_that_is_away_concerns_only_those_who_wait_for_it() -> None:
    world = await World().ready()
    pusher = world.pusher()
    await pusher.write(raw("a"))
    world.store.faults = lambda operation: "refused" if operation == "put" else None
    row = Push("Last", [final("a")], transform=False, to=To.BOTH)
    written, appended = await asyncio.gather(pusher.write(row), pusher.append(row), return_exceptions=True)
    assert isinstance(written, NotWritten)
    assert isinstance(appended, Written)
    assert appended.token


async def test_the_token_names_the_server_that_has_taken_the_rows() -> None:
    world = await World().ready()
    pusher = world.pusher()
    for server in range(3):
        token = (await pusher.write(raw("a", step=server))).token
        assert token
        assert token.epoch == f"epoch-{server:012x}"
        world.server.fail_over()
