"""The refresh agent over a store in memory: hints become predictions, and only then their offsets are done."""

import asyncio
import contextlib
import datetime
import itertools
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import msgspec
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillwell.errors import ModelError, ModelFailed, ModelUnavailable, StoreUnavailable
from stillwell.layout.prediction import Outputs, Record
from stillwell.layout.redis_keys import RedisKeys
from stillwell.predictions.engine import Engine
from stillwell.predictions.freshness import State
from stillwell.predictions.hint import Cause, Hint
from stillwell.predictions.inputs import ModelInputs
from stillwell.predictions.outcome import Entity, Outcome
from stillwell.spec import OpenInferenceSpec
from stillwell.testing.online import MemoryOnlineStore, MemoryRedis
from stillwell.testing.predictions import MemoryPredictions
from stillwell.types import FLOAT32
from streams import refresh, refresh_hints
from streams.metrics import BAD_HINTS, REFRESHES, Metrics
from streams.refresh import RefreshAgent
from streams.refresh_hints import HELD_FOR, Offsets, RefreshBatch, RefreshHint
from streams.refresh_jobs import Jobs
from streams.retry import Retry
from tests.batches import feature
from tests.predicted import DEFINITIONS, Adding, V, encoded_row, model
from tests.waiting import eventually_here

EPOCH = "epoch"
KEYS = RedisKeys("test", "test")


class Logged:
    """A log of predictions; faults: raised by each call."""

    def __init__(self) -> None:
        self.kept: list[bytes] = []
        self.fault: Exception | None = None
        self.asked = 0

    async def append(self, engine: Engine, predictions: Sequence[tuple[Entity, Outcome]]) -> None:
        await asyncio.sleep(0)
        self.asked += 1
        if self.fault:
            raise self.fault
        self.kept += [entity.key for entity, _ in predictions]


class Site:
    """An agent that runs, and all round it."""

    def __init__(self, **changes: Any) -> None:
        self.server = MemoryRedis()
        self.server.write(KEYS.ready, EPOCH.encode())
        self.store = MemoryOnlineStore(self.server)
        self.model = Adding()
        self.spec = model().model_copy(update=changes)
        self.metrics = Metrics()
        self.log = Logged()
        inputs = ModelInputs(self.spec, DEFINITIONS)
        self.engine = Engine(
            self.spec, inputs, self.model, MemoryPredictions(self.server), KEYS, chance=lambda: 1.0, lease_ms=1_000
        )
        retry = Retry("refresh", self.metrics, _soon)
        self.agent = RefreshAgent({"Delay": self.engine}, self.metrics, retry, self.log, clock=lambda: self.seconds())
        self.seconds: Callable[[], float] = time.monotonic
        """The clock of the agent."""
        self._offsets = itertools.count(100)
        self._times = itertools.count(1_767_225_600_000_000, 1_000)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Site"]:
        task = asyncio.create_task(self.agent.run())
        async with asyncio.timeout(20):
            yield self
        task.cancel()
        await asyncio.wait([task])

    async def put(self, id: int, delay: float | None) -> None:
        await self.store.put(encoded_row(id, delay, next(self._times)), EPOCH)

    def hint(self, *ids: int, cause: str = "read") -> None:
        self.take(*({"model": "Delay", "entity": {"id": id}, "cause": cause} for id in ids))

    def take(self, *values: object) -> None:
        self.agent.take(
            RefreshBatch(
                self.agent.life,
                [RefreshHint("p0", next(self._offsets), msgspec.json.encode(each), 0) for each in values],
            )
        )

    async def until(self, condition: Callable[[], object], what: str) -> None:
        await eventually_here(condition, within_s=15, what=what)

    async def until_committable(self, offset: int) -> None:
        await self.until(lambda: self.agent.commits().get("p0") == offset, f"the commit of {offset}")

    def outputs(self, id: int) -> Outputs | None:
        (key,) = self.engine.record_keys(self.engine.entities({"id": [id]}))
        stored = self.server.read(key)
        return Record.unpack(stored).outputs if stored else None

    def value(self, id: int) -> object:
        outputs = self.outputs(id)
        return self.engine.layout.decode(outputs)[0] if outputs else None

    def early(self, id: int) -> dict[str, Any]:
        """The hint of a reader who has seen what there is now, and would have it computed before its end."""
        outputs = self.outputs(id)
        assert outputs
        hint = {"model": "Delay", "entity": {"id": id}, "cause": "read"}
        return {**hint, "early": True, "read_at": outputs.read_at}

    def results(self) -> dict[str, float]:
        return {labels[1]: count for labels, count in self.metrics._values[REFRESHES].items()}


async def _soon(seconds: float) -> None:
    await asyncio.sleep(0)


async def test_hints_of_one_prediction_cost_one_call_and_all_their_offsets_are_done() -> None:
    async with Site().running() as site:
        await site.put(7, 30.0)
        await site.put(8, 50.0)
        site.hint(*[7] * 50, 8, *[7] * 49)
        assert site.agent.commits() == {"p0": 100}
        await site.until_committable(200)
        assert (site.value(7), site.value(8)) == (31.0, 51.0)
        assert (site.model.calls, sorted(site.model.asked[0])) == (1, [30.0, 50.0])
        assert len(site.log.kept) == 2
        site.hint(7)
        await site.until_committable(201)
        assert site.model.calls == 1
        assert site.results() == {"computed": 2, "fresh": 1}


async def test_what_is_fresh_is_computed_for_a_hint_that_is_early_near_its_end_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Site().running() as site:
        await site.put(7, 30.0)
        site.hint(7)
        await site.until_committable(101)
        early = site.early(7)
        site.take(early)
        await site.until_committable(102)
        assert site.model.calls == 1
        monkeypatch.setattr("stillwell.predictions.freshness.MOST_EARLY", 10**12)
        site.hint(7)
        await site.until_committable(103)
        assert site.model.calls == 1
        site.take(early)
        await site.until_committable(104)
        assert site.model.calls == 2
        assert site.results() == {"computed": 2, "fresh": 2}


async def test_one_end_costs_one_call_though_hints_to_be_early_come_while_it_lasts_and_after_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a slow model what was just computed is near its end already, by its cost; the hints are about what was before.
    Readers of other processes have seen that, and draw by chance whether they hint."""
    monkeypatch.setattr("stillwell.predictions.freshness.MOST_EARLY", 10**12)
    async with Site().running() as site:
        await site.put(7, 30.0)
        site.hint(7)
        await site.until_committable(101)
        early = site.early(7)
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def hold(delays: list[Any]) -> None:
            begun.set()
            await go_on.wait()

        site.model.before = hold
        site.take(early)
        await begun.wait()
        site.take(early, early)
        go_on.set()
        await site.until_committable(104)
        site.take(early)
        await site.until_committable(105)
        assert site.model.calls == 2
        site.take(site.early(7))
        await site.until_committable(106)
        assert site.model.calls == 3


async def test_a_hint_to_be_early_has_no_other_computed_early_that_is_due_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("stillwell.predictions.freshness.MOST_EARLY", 10**12)
    async with Site().running() as site:
        await site.put(7, 30.0)
        await site.put(8, 50.0)
        site.hint(7, 8)
        await site.until_committable(102)
        site.take(site.early(7), {"model": "Delay", "entity": {"id": 8}, "cause": "read"})
        await site.until_committable(104)
        assert sorted(site.model.asked[0]) == [30.0, 50.0]
        assert site.model.asked[1:] == [[30.0]]


async def test_a_hint_to_be_early_that_names_no_prediction_is_about_what_was_read_before_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("stillwell.predictions.freshness.MOST_EARLY", 10**12)
    async with Site().running() as site:
        await site.put(7, 30.0)
        site.hint(7)
        await site.until_committable(101)
        early = site.early(7)
        read_at = early.pop("read_at")
        for offset, made_ms, calls in ((101, read_at // 1_000 - 1, 1), (102, read_at // 1_000, 2)):
            hint = RefreshHint("p0", offset, msgspec.json.encode(early), made_ms)
            site.agent.take(RefreshBatch(site.agent.life, [hint]))
            await site.until_committable(offset + 1)
            assert site.model.calls == calls


async def test_hints_that_come_within_five_milliseconds_go_in_one_call_and_a_full_batch_waits_for_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = OpenInferenceSpec(url="http://127.0.0.1:1", model="delay", max_batch=3)
    async with Site(server=server).running() as site:
        for id in range(5):
            await site.put(id, float(id))
        loop = asyncio.get_running_loop()
        now = loop.time()

        async def turns() -> None:
            """All that waits for no time is done."""
            for _ in range(100):
                await asyncio.sleep(0)

        with monkeypatch.context() as frozen:
            frozen.setattr(loop, "time", lambda: now)
            site.hint(0)
            await turns()
            now += 0.0049
            site.hint(1)
            await turns()
            assert site.model.asked == []
            now += 0.0002
            await turns()
            assert site.model.asked == [[0.0, 1.0]]
            site.hint(2, 3, 4)
            await turns()
            assert site.model.asked == [[0.0, 1.0], [2.0, 3.0, 4.0]]
        await site.until_committable(105)


async def test_a_hint_for_a_model_that_is_not_known_yet_waits_for_a_worker_that_knows_it() -> None:
    """Definitions are rolled out: a worker of the old ones has the partition when a new one's write or read hints."""
    new = Site()
    now = 1_000_000_000
    old = RefreshAgent({}, Metrics(), Retry("refresh", Metrics(), _soon), wall_ms=lambda: now)
    known = msgspec.json.encode({"model": "Delay", "entity": {"id": 7}, "cause": "write"})
    other_shape = msgspec.json.encode({"model": "Delay", "entity": {"number": 7}, "cause": "write"})
    of_old = [RefreshHint("p0", 100, b"?", now), RefreshHint("p0", 101, known, now), RefreshHint("p0", 102, b"?", now)]
    old.take(RefreshBatch(old.life, of_old))
    assert old.commits() == {"p0": 101}
    old.forget()
    async with new.running() as site:
        await site.put(7, 30.0)
        site.agent.take(RefreshBatch(site.agent.life, of_old[1:]))
        await site.until_committable(103)
        assert site.value(7) == 31.0
        wall = time.time_ns() // 1_000_000
        site.agent.take(RefreshBatch(site.agent.life, [RefreshHint("p0", 103, other_shape, wall)]))
        assert site.agent.commits() == {"p0": 103}


async def test_hints_for_models_that_nobody_knows_are_held_so_long_and_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000_000_000
    agent = RefreshAgent({}, Metrics(), Retry("refresh", Metrics(), _soon), wall_ms=lambda: now)
    unknown = msgspec.json.encode({"model": "Gone", "entity": {"id": 7}, "cause": "write"})

    def take(offset: int, timestamp: int) -> None:
        agent.take(RefreshBatch(agent.life, [RefreshHint("p0", offset, unknown, timestamp)]))

    take(100, now - round(HELD_FOR * 1_000) + 1)
    take(101, now + 10**12)  # by a clock that is ahead
    assert agent.commits() == {"p0": 100}
    now += 1
    agent._release()
    assert agent.commits() == {"p0": 101}
    now += round(HELD_FOR * 1_000)
    agent._release()
    assert agent.commits() == {"p0": 102}
    monkeypatch.setattr(refresh_hints, "MOST_HELD", 3)
    for offset in range(102, 112):
        take(offset, now)
    assert agent.commits() == {"p0": 109}
    assert agent.waiting == 3
    assert agent._metrics._values[BAD_HINTS] == {(): 9}


async def test_what_is_held_waits_behind_nothing_that_is_newer() -> None:
    """Partitions are read from where each was left: an old hint of one may come behind a new one of another."""
    now = 1_000_000_000
    agent = RefreshAgent({}, Metrics(), Retry("refresh", Metrics(), _soon), wall_ms=lambda: now)
    unknown = msgspec.json.encode({"model": "Gone", "entity": {"id": 7}, "cause": "write"})
    almost_over = now - round(HELD_FOR * 1_000) + 1
    hints = [RefreshHint("p0", 100, unknown, now), RefreshHint("p1", 200, unknown, almost_over)]
    agent.take(RefreshBatch(agent.life, hints))
    assert agent.commits() == {"p0": 100, "p1": 200}
    now += 1
    agent._release()
    assert agent.commits() == {"p0": 100, "p1": 201}


async def test_what_is_held_is_let_go_though_no_hint_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refresh, "_RELEASE_EVERY", 0.01)
    monkeypatch.setattr(refresh_hints, "HELD_FOR", 0.2)
    async with Site().running() as site:
        unknown = msgspec.json.encode({"model": "Gone", "entity": {"id": 7}})
        hint = RefreshHint("p0", 100, unknown, time.time_ns() // 1_000_000)
        site.agent.take(RefreshBatch(site.agent.life, [hint]))
        assert site.agent.commits() == {"p0": 100}
        await site.until_committable(101)


async def test_a_write_waits_for_others_up_to_a_maximum_and_a_reader_for_none() -> None:
    changes = {"debounce": datetime.timedelta(seconds=30), "max_debounce": datetime.timedelta(seconds=0.3)}
    async with Site(**changes).running() as site:
        now = 0.0
        site.seconds = lambda: now
        await site.put(7, 30.0)
        await site.put(8, 50.0)
        site.hint(7, cause="write")
        now = 0.29
        site.hint(7, cause="write")
        site.hint(8)
        await site.until(lambda: site.value(8) == 51.0, "what a reader wants")
        assert site.model.asked == [[50.0]]
        now = 0.31
        site.hint(7, cause="write")
        await site.until_committable(104)
        assert site.model.asked == [[50.0], [30.0]]
        await site.put(7, 31.0)
        site.hint(7, cause="write")
        site.hint(7)
        await site.until_committable(106)
        assert site.value(7) == 32.0


async def test_a_write_does_not_put_off_what_a_reader_has_asked_for() -> None:
    async with Site(debounce=datetime.timedelta(seconds=30)).running() as site:
        now = 0.0
        site.seconds = lambda: now
        await site.put(7, 30.0)
        site.hint(7)
        site.hint(7, cause="write")
        await site.until_committable(102)
        assert site.value(7) == 31.0


async def test_nor_what_he_has_asked_for_while_it_was_computed_in_vain() -> None:
    async with Site(debounce=datetime.timedelta(seconds=30)).running() as site:
        now = 0.0
        site.seconds = lambda: now
        await site.put(7, 30.0)

        async def ask(delays: list[Any]) -> None:
            site.model.before = None
            site.hint(7)

        site.model.before, site.model.error = ask, ModelUnavailable("gone")
        site.hint(7, cause="write")
        now, jobs = 31.0, site.agent._work["Delay"].jobs
        jobs.arrived.set()  # who waits, waits by a real clock
        await site.until(lambda: (jobs.next_due or 0.0) > 31.0, "it is to be tried again")
        site.hint(7, cause="write")
        site.model.error, now = None, 40.0
        await site.until_committable(103)
        assert site.value(7) == 31.0


async def test_a_server_that_is_down_keeps_its_offsets_and_nothing_is_lost_when_it_returns() -> None:
    async with Site().running() as site:
        for id in range(5):
            await site.put(id, float(id))
        site.model.error = ModelUnavailable("gone")
        site.hint(*range(5))
        await site.until(lambda: site.model.calls >= 2, "it was tried again")
        assert site.agent.commits() == {"p0": 100}
        site.model.error = None
        await site.until_committable(105)
        assert [site.value(id) for id in range(5)] == [1.0, 2.0, 3.0, 4.0, 5.0]
        assert site.results() == {"computed": 5}


async def test_a_model_that_answers_with_nothing_of_use_is_given_up_and_others_go_on() -> None:
    async with Site().running() as site:
        await site.put(7, None)
        await site.put(8, 50.0)
        site.hint(7, 8)
        await site.until_committable(102)
        assert (site.value(7), site.value(8)) == (None, 51.0)
        assert site.results() == {"computed": 1, "given_up": 1}
        assert sum(None in delays for delays in site.model.asked) == 3


async def test_what_changes_while_the_model_is_asked_is_computed_again_without_another_hint() -> None:
    async with Site().running() as site:
        await site.put(7, 30.0)

        async def change(delays: list[Any]) -> None:
            site.model.before = None
            await site.put(7, 40.0)

        site.model.before = change
        site.hint(7)
        await site.until_committable(101)
        await site.until(lambda: site.value(7) == 41.0, "the newer inputs were predicted")
        assert site.model.calls == 2


async def test_what_a_model_takes_longer_over_than_max_staleness_is_not_computed_again_before_somebody_asks() -> None:
    """It has aged out when it comes: each computation would ask for the next, without end and without a reader."""
    async with Site(max_staleness=datetime.timedelta(seconds=1)).running() as site:
        ms = time.time_ns() // 1_000_000
        site.server.clock = lambda: ms

        async def slowly(delays: list[Any]) -> None:
            nonlocal ms
            ms += 1_200

        site.model.before = slowly
        await site.put(7, 30.0)
        site.hint(7)
        await site.until_committable(101)
        assert (site.value(7), site.model.calls) == (31.0, 1)
        assert len(site.agent._work["Delay"].jobs) == 0
        site.hint(7)
        await site.until_committable(102)
        assert site.model.calls == 2


async def test_nothing_is_done_before_redis_and_the_log_have_it() -> None:
    async with Site().running() as site:
        await site.put(7, 30.0)
        site.log.fault = StoreUnavailable("the log is gone")
        site.hint(7)
        await site.until(lambda: site.log.asked >= 3, "the log was asked again and again")
        assert site.value(7) == 31.0
        assert site.agent.commits() == {"p0": 100}
        site.log.fault = None
        await site.until_committable(101)
        assert len(site.log.kept) == 1


async def test_a_store_that_may_have_lost_rows_is_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    async with Site().running() as site:
        await site.put(7, 30.0)
        site.server.evict(KEYS.ready)
        told = capsys.readouterr().out
        site.hint(7)

        def waits() -> bool:
            nonlocal told
            told += capsys.readouterr().out
            return "predictions wait for Redis" in told

        await site.until(waits, "the agent found it not ready")
        assert site.agent.commits() == {"p0": 100}
        site.server.write(KEYS.ready, b"another")
        await site.until_committable(101)
        assert site.value(7) == 31.0


async def test_what_is_no_hint_is_counted_and_left_out() -> None:
    async with Site().running() as site:
        site.take(
            7,
            {"model": "Other", "entity": {"id": 7}},
            {"model": "Delay", "entity": {"id": "seven"}},
            {"model": "Delay", "entity": {"id": None}},
            {"model": "Delay", "entity": {}},
            {"model": "Delay", "entity": {"id": 7}, "cause": "boredom"},
        )
        site.agent.take(
            RefreshBatch(site.agent.life, [RefreshHint("p0", 106, None, 0), RefreshHint("p0", 107, b"\xff", 0)])
        )
        await site.until_committable(108)
        assert site.metrics._values[BAD_HINTS] == {(): 8.0}
        assert site.model.calls == 0


async def test_hints_of_an_assignment_that_is_over_are_dropped() -> None:
    async with Site().running() as site:
        await site.put(7, 30.0)
        old = RefreshBatch(site.agent.life, [RefreshHint("p0", 5, b'{"model":"Delay","entity":{"id":7}}', 0)])
        site.agent.forget()
        site.agent.take(old)
        assert old.taken.is_set()
        assert site.agent.commits() == {}
        assert site.agent.waiting == 0


async def test_who_loses_its_partitions_in_the_middle_commits_nothing_of_them() -> None:
    async with Site().running() as site:
        await site.put(7, 30.0)
        released = asyncio.Event()

        async def hold(delays: list[Any]) -> None:
            await released.wait()

        site.model.before = hold
        site.hint(7)
        await site.until(lambda: site.model.calls == 1, "the model was asked")
        site.agent.forget()
        released.set()
        await site.until(lambda: site.value(7) == 31.0, "the prediction was kept all the same")
        assert site.agent.commits() == {}


async def test_who_loses_its_partitions_in_the_middle_leaves_what_failed_to_their_new_owner() -> None:
    async with Site().running() as site:
        await site.put(7, 30.0)
        await site.put(8, 50.0)

        async def lose(delays: list[Any]) -> None:
            site.model.before = None
            site.agent.forget()
            site.model.error = ModelUnavailable("gone")

        site.model.before = lose
        site.hint(7)
        await site.until(lambda: site.model.error, "the model was asked")
        site.model.error = None
        site.hint(8)
        await site.until_committable(102)
        assert site.model.asked == [[30.0], [50.0]]
        assert len(site.agent._work["Delay"].jobs) == 0


async def test_one_alone_that_a_server_breaks_over_is_given_up_once_the_server_is_known_to_answer_others() -> None:
    """Its offset would be committed never, and with it those of all hints behind it."""
    async with Site().running() as site:
        await site.put(7, 30.0)

        async def break_over_it(delays: list[Any]) -> None:
            if 30.0 in delays:
                raise ModelFailed("500")

        site.model.before = break_over_it
        site.hint(7)

        async def tried() -> None:
            calls = site.model.calls
            await site.until(
                lambda: site.model.calls > calls or site.agent.commits() != {"p0": 100}, "it was tried again"
            )

        async def answered(other: int) -> None:
            await site.put(other, 1.0)
            site.hint(other)
            await site.until(lambda: site.value(other) == 2.0, "another one was answered")

        for other in itertools.count(8):
            await tried()
            if site.results().get("given_up"):
                break
            await answered(other)
        assert site.results()["given_up"] == 1
        await site.until_committable(100 + int(site.results()["computed"]) + 1)


async def test_a_server_that_breaks_over_everything_loses_no_refresh() -> None:
    async with Site().running() as site:
        await site.put(7, 30.0)
        site.model.error = ModelFailed("500")
        site.hint(7)
        await site.until(lambda: site.model.calls >= 4, "it was tried again and again")
        assert site.agent.commits() == {"p0": 100}
        site.model.error = None
        await site.until_committable(101)
        assert site.value(7) == 31.0


@given(st.lists(st.integers(0, 30), unique=True), st.integers(0, 30), st.randoms(use_true_random=False))
def test_an_offset_is_committable_when_nothing_before_it_waits(done: list[int], end: int, rng: random.Random) -> None:
    offsets = Offsets()
    assert offsets.commit is None
    for offset in range(end):
        offsets.take(offset)
    rng.shuffle(done)
    for offset in done:
        offsets.done(offset)
    waiting = [offset for offset in range(end) if offset not in done]
    assert len(offsets) == len(waiting)
    assert offsets.commit == (min(waiting) if waiting else end or None)


def test_jobs_that_are_put_off_or_done_before_they_are_due_take_no_memory_until_then() -> None:
    changes = {"debounce": datetime.timedelta(minutes=10), "max_debounce": datetime.timedelta(hours=1)}
    jobs = Jobs(model().model_copy(update=changes))
    offsets = itertools.count()

    def ask(id: int, cause: Cause, now: float) -> None:
        entity = Entity(b"%d" % id, b"", {"id": id})
        jobs.ask(Hint.of("Delay", entity, cause), RefreshHint("p0", next(offsets), b"", 0), now)

    for id in range(10):
        ask(id, Cause.WRITE, id / 100)
    for number in range(1_000):
        now = 1 + number / 100
        ask(10, Cause.WRITE, now)
        ask(10, Cause.READ, now)
        assert [job.entity.values for job in jobs.take_due(now, 10)] == [{"id": 10}]
        assert jobs.next_due == 600.0
        ask(11, Cause.WRITE, now)
        assert len(jobs._by_due) < 100
    assert [job.entity.values["id"] for job in jobs.take_due(now + 600, 20)] == [*range(10), 11]
    assert (jobs.next_due, len(jobs)) == (None, 0)


@pytest.mark.parametrize("error", [ModelError("the shape is wrong"), ModelUnavailable("gone")])
async def test_an_error_of_the_model_stops_no_agent(error: ModelError) -> None:
    async with Site().running() as site:
        await site.put(7, 30.0)
        site.model.error = error
        site.hint(7)
        await site.until(lambda: site.model.calls >= 2, "it was tried again")
        site.model.error = None
        site.hint(7)
        await site.until_committable(102)
        assert site.value(7) == 31.0


async def test_what_one_prediction_stands_on_costs_the_others_nothing() -> None:
    async with Site().running() as site:
        await site.put(7, 30.0)
        await site.put(8, 50.0)
        (key,) = site.engine.record_keys(site.engine.entities({"id": [7]}))
        site.server.write(key, b"no record")
        site.hint(7, 8)
        await site.until_committable(102)
        assert site.value(8) == 51.0
        assert site.results() == {"given_up": 1, "computed": 1}


async def test_a_row_of_a_version_that_nobody_has_told_of_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A newer worker has written it, which has registered the version first. Given up, its refresh would be lost."""
    monkeypatch.setattr("streams.refresh_work._UNKNOWN_PAUSE", 0.01)
    newer = V.model_copy(
        update={"version": 2, "features": (*V.features, feature("more", FLOAT32, pl.col("T.delay"), nullable=True))}
    )
    site, looks = Site(), 0

    async def look() -> None:
        nonlocal looks
        looks += 1
        if looks == 3:
            site.engine.inputs = ModelInputs(site.spec, DEFINITIONS, [newer])

    site.agent = RefreshAgent({"Delay": site.engine}, site.metrics, Retry("refresh", site.metrics, _soon), None, look)
    async with site.running():
        await site.store.put(encoded_row(7, 30.0, 1_767_225_600_000_000, of=newer), EPOCH)
        await site.put(8, 50.0)
        site.hint(7, 8)
        assert site.agent.commits() == {"p0": 100}
        await site.until_committable(102)
        assert (site.value(7), site.value(8), looks) == (31.0, 51.0, 3)
        assert site.results() == {"computed": 2}


async def test_hints_that_cannot_be_read_are_told_of_once_a_batch(capsys: pytest.CaptureFixture[str]) -> None:
    site = Site()
    site.take(*[{"entity": {}}] * 1_000)
    assert capsys.readouterr().out.count("hints are left out") == 1
    assert site.metrics.get(BAD_HINTS) == 1_000


async def test_with_so_many_hints_in_memory_no_more_are_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streams.refresh_hints.MOST_WAITING", 3)
    site = Site()
    site.hint(7, 7)
    assert site.agent.has_room
    site.hint(8)
    assert not site.agent.has_room
    async with site.running():
        await site.put(7, 30.0)
        await site.put(8, 50.0)
        await site.until_committable(103)
    assert site.agent.has_room


async def test_what_was_begun_in_another_assignment_acknowledges_nothing_in_this_one() -> None:
    """The same record was taken again; whoever is killed now must be succeeded by one who reads it."""
    async with Site(debounce=datetime.timedelta(seconds=30)).running() as site:
        await site.put(7, 30.0)
        await site.put(8, 50.0)
        asked, go_on = asyncio.Event(), asyncio.Event()

        async def before(delays: list[Any]) -> None:
            asked.set()
            await go_on.wait()

        site.model.before = before
        site.hint(7)
        await asked.wait()
        site.agent.forget()
        value = msgspec.json.encode({"model": "Delay", "entity": {"id": 7}, "cause": "write"})
        site.agent.take(RefreshBatch(site.agent.life, [RefreshHint("p0", 100, value, 0)]))
        site.model.before = None
        go_on.set()
        await site.until(lambda: site.value(7) == 31.0, "what was begun")
        # Done in its turn, when nothing is left to do for what was begun before.
        site.take({"model": "Delay", "entity": {"id": 8}, "cause": "read"})
        await site.until(lambda: site.value(8) == 51.0, "the next")
        assert site.agent.commits() == {"p0": 100}


async def test_who_claims_late_takes_the_answer_that_is_there_instead_of_asking_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Between its read and its claim another process had the model answer, and gave its lease up."""
    site = Site()
    await site.put(7, 30.0)
    entities = site.engine.entities({"id": [7]})
    store = MemoryPredictions(site.server)
    late = Engine(site.spec, site.engine.inputs, site.model, store, KEYS)
    claim = store.claim

    async def after_another(*arguments: Any) -> Any:
        await site.engine.compute(entities, 1.0)
        return await claim(*arguments)

    monkeypatch.setattr(store, "claim", after_another)
    (outcome,) = await late.compute(entities, 1.0)
    assert (outcome.state, outcome.asked, site.model.calls) == (State.FRESH, False, 1)


async def test_who_waits_for_the_call_of_another_does_so_by_the_clock_that_it_is_given() -> None:
    site = Site()
    await site.put(7, 30.0)
    entities = site.engine.entities({"id": [7]})
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def slowly(delays: list[Any]) -> None:
        asked.set()
        await go_on.wait()

    site.model.before = slowly
    first = asyncio.create_task(site.engine.compute(entities, 60.0))
    await asked.wait()
    seconds = iter([0.0, 59.9, 60.0])
    other = Engine(
        site.spec, site.engine.inputs, site.model, MemoryPredictions(site.server), KEYS, clock=lambda: next(seconds)
    )
    async with asyncio.timeout(10):
        (outcome,) = await other.compute(entities, 60.0)
    assert (outcome.state, outcome.asked, site.model.calls) == (State.MISSING, False, 1)
    go_on.set()
    assert (await first)[0].state is State.FRESH


async def test_a_model_that_has_just_failed_over_the_same_inputs_is_left_for_a_while() -> None:
    site = Site()
    await site.put(7, 30.0)
    site.model.error = ModelError("broken")
    entities = site.engine.entities({"id": [7]})
    for _ in range(3):
        (outcome,) = await site.engine.compute(entities, 1.0)
        assert outcome.state is State.FAILED
    assert site.model.calls == 1


async def test_a_lease_is_held_for_as_long_as_the_model_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    site = Site()
    await site.put(7, 30.0)
    entities = site.engine.entities({"id": [7]})
    store, renewed = MemoryPredictions(site.server), 0
    renew = store.renew

    async def count(*arguments: Any) -> list[bool]:
        nonlocal renewed
        renewed += 1
        return await renew(*arguments)

    monkeypatch.setattr(store, "renew", count)
    engines = [Engine(site.spec, site.engine.inputs, site.model, store, KEYS, lease_ms=150) for _ in range(2)]

    async def slowly(delays: list[Any]) -> None:
        await eventually_here(lambda: renewed >= 9, what="thrice as long as a lease lives")

    site.model.before = slowly
    outcomes = await asyncio.gather(*(each.compute(entities, 5.0) for each in engines))
    assert [outcome.state for (outcome,) in outcomes] == [State.FRESH] * 2
    assert site.model.calls == 1
