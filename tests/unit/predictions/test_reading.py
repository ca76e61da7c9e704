"""Reading predictions over a store in memory: by policy, once however many want one, and never one that is not so."""

import asyncio
import datetime
import itertools
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import polars as pl
import pytest

from stillwell.errors import ModelError, ModelUnavailable, StoreNotReady
from stillwell.layout.prediction import Record
from stillwell.layout.projection import UnknownLayout
from stillwell.layout.redis_keys import RedisKeys
from stillwell.predictions.columns import ModelReaders
from stillwell.predictions.engine import Engine
from stillwell.predictions.freshness import State
from stillwell.predictions.hint import Hint
from stillwell.predictions.hinting import HintBuffer
from stillwell.predictions.inputs import ModelInputs
from stillwell.predictions.outcome import Entity, Outcome
from stillwell.predictions.prediction import Prediction, Refresh
from stillwell.predictions.reading import ModelReader
from stillwell.predictions.store import StoredAt
from stillwell.reading.catalog import Catalog
from stillwell.reading.features import FeatureReader
from stillwell.reading.status import Freshness, Status
from stillwell.testing.hints import MemoryHints
from stillwell.testing.online import MemoryOnlineStore, MemoryRedis
from stillwell.testing.predictions import MemoryPredictions
from stillwell.types import FLOAT32
from tests.batches import feature
from tests.predicted import DEFINITIONS, Adding, Race, V, encoded_row, model
from tests.waiting import eventually_here

EPOCH = "epoch"
BEGIN_MS = 1_767_225_600_000


class Hinted:
    """Takes hints; those that it was given before are shared."""

    def __init__(self) -> None:
        self.keys: list[bytes] = []
        self.hints: list[Hint] = []
        self.problem = ""

    def put(self, hints: Sequence[Hint]) -> list[bool]:
        new = [each.key not in self.keys for each in hints]
        self.keys += [each.key for each in hints]
        self.hints += hints
        return new


class Site:
    """A store, a model, and readers over both; the time is what the test says."""

    def __init__(self, **changes: Any) -> None:
        self.ms = BEGIN_MS
        self.server = MemoryRedis(clock=lambda: self.ms)
        self.store = MemoryOnlineStore(self.server)
        self.model = Adding()
        self.hinted = Hinted()
        self.spec = model().model_copy(update=changes)
        self.readers: list[ModelReader] = []
        self.told: list[tuple[Entity, Outcome]] = []
        """What the readers' engines have computed."""
        self.offsets = itertools.count(1)

    def reader(
        self,
        lease_ms: int = 5_000,
        chance: Callable[[], float] = lambda: 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> ModelReader:
        """One of another process, as it were. chance: by which it refreshes early. clock: by which its calls last."""
        keys = RedisKeys("test", "test")
        inputs = ModelInputs(self.spec, DEFINITIONS)
        engine = Engine(
            self.spec,
            inputs,
            self.model,
            MemoryPredictions(self.server),
            keys,
            chance=lambda: 0.0,
            lease_ms=lease_ms,
            computed=lambda engine, predictions: self.told.extend(predictions),
            clock=clock,
        )
        self.readers.append(ModelReader(engine, self.store, keys, self.hinted, lambda: self.ms * 1_000, chance=chance))
        return self.readers[-1]

    async def put(self, id: int, delay: float | None, at_ms: int = 0) -> None:
        """A row of an entity, of now or of so many ms later."""
        await self.store.put(encoded_row(id, delay, (self.ms + at_ms) * 1_000), EPOCH)

    def record(self, id: int = 7) -> Record | None:
        """What is stored of an entity's prediction."""
        engine = self.readers[0].engine
        (key,) = engine.record_keys(engine.entities({"id": [id]}))
        stored = self.server.read(key)
        return Record.unpack(stored) if stored else None

    def leases(self) -> list[bytes]:
        return [key for key in self.server.dump() if b":l:" in key]


@pytest.fixture
async def made() -> AsyncIterator[Callable[..., Site]]:
    sites: list[Site] = []

    def make(**changes: Any) -> Site:
        sites.append(Site(**changes))
        sites[-1].server.write(RedisKeys("test", "test").ready, EPOCH.encode())
        return sites[-1]

    yield make
    for site in sites:
        for reader in site.readers:
            await reader.close()


async def read(reader: ModelReader, *ids: int) -> list[Prediction]:
    return await reader.read({"id": list(ids or (7,))})


async def test_who_waits_gets_what_the_model_says_and_the_next_one_finds_it(made: Callable[..., Site]) -> None:
    site = made(policy="wait")
    await site.put(7, 30.0)
    reader = site.reader()
    (first,) = await read(reader)
    assert (first.state, first.values, first.refresh) == (State.FRESH, (31.0,), Refresh.INLINE)
    assert first.event_times == {"V": BEGIN_MS * 1_000}
    site.ms += 10
    (second,) = await read(site.reader())
    assert (second.state, second.values, second.refresh) == (State.FRESH, (31.0,), Refresh.NONE)
    assert second.read_at == BEGIN_MS * 1_000
    assert site.model.calls == 1
    assert site.leases() == []


async def test_what_a_process_has_computed_is_told_once_and_what_it_found_is_not(made: Callable[..., Site]) -> None:
    site = made(policy="wait")
    await site.put(7, 30.0)
    reader = site.reader()
    await read(reader, 7, 8)
    await read(reader, 7)
    assert [(entity.key, outcome.state) for entity, outcome in site.told] == [(b"i1:7", State.FRESH)]


async def test_a_changed_input_makes_it_stale_and_who_waits_gets_the_new_one(made: Callable[..., Site]) -> None:
    site = made(policy="wait")
    await site.put(7, 30.0)
    reader = site.reader()
    await read(reader)
    site.ms += 10
    await site.put(7, 40.0)
    (found,) = await read(reader)
    assert (found.state, found.values) == (State.FRESH, (41.0,))


async def test_failures_in_a_row_are_those_over_the_same_inputs(made: Callable[..., Site]) -> None:
    site = made(policy="wait")
    reader = site.reader()
    site.model.error = ModelError("the shape is wrong")
    attempts = []
    for delay in (30.0, 40.0):
        await site.put(7, delay)
        for _ in range(3):
            site.ms += 10_000
            await read(reader)
            record = site.record()
            assert record
            assert record.failure
            attempts.append(record.failure.attempts)
    assert attempts == [1, 2, 3, 1, 2, 3]


async def test_a_row_that_says_the_same_anew_is_another_input(made: Callable[..., Site]) -> None:
    site = made(policy="cached")
    await site.put(7, 30.0)
    await site.reader().engine.compute(site.readers[0].engine.entities({"id": [7]}), 1.0)
    assert (await read(site.readers[0]))[0].state is State.FRESH
    site.ms += 10
    await site.put(7, 30.0)
    assert (await read(site.readers[0]))[0].state is State.STALE


async def test_nothing_is_called_queued_that_nobody_can_be_asked_for(made: Callable[..., Site]) -> None:
    site = made(policy="refresh")
    await site.put(7, 30.0)
    reader = site.reader()
    site.hinted.problem = "Kafka is away"
    for _ in range(2):  # each read asks again all the same, so that it is noticed when Kafka is back
        (told,) = await read(reader)
        assert (told.state, told.refresh, told.reason) == (State.MISSING, Refresh.NONE, "Kafka is away")
    assert len(site.hinted.keys) == 2
    site.hinted.problem = ""
    (told,) = await read(reader)
    assert (told.refresh, told.reason) == (Refresh.SHARED, "")


async def test_by_the_policy_refresh_a_read_tells_what_there_is_and_hints_once(made: Callable[..., Site]) -> None:
    site = made(policy="refresh")
    await site.put(7, 30.0)
    reader = site.reader()
    first, twice = await read(reader, 7, 7)
    assert (first.state, first.values, first.refresh) == (State.MISSING, None, Refresh.QUEUED)
    assert twice.refresh is Refresh.SHARED or twice.refresh is Refresh.QUEUED
    assert (await read(reader))[0].refresh is Refresh.SHARED
    assert site.model.calls == 0
    await reader.engine.compute(reader.engine.entities({"id": [7]}), 1.0)
    assert (await read(reader))[0].state is State.FRESH
    site.ms += 60_001
    stale = (await read(reader))[0]
    assert (stale.state, stale.values) == (State.STALE, (31.0,))


async def test_a_new_version_of_a_model_has_predictions_of_its_own_and_the_old_ones_stay(
    made: Callable[..., Site],
) -> None:
    """While it is rolled out, who has the old definitions reads and computes beside who has the new ones."""
    site = made(policy="cached")
    await site.put(7, 30.0)
    old = site.reader()
    entities = old.engine.entities({"id": [7]})
    await old.engine.compute(entities, 1.0)
    (place,) = old.engine.record_keys(entities)
    record = site.server.read(place)
    site.spec = site.spec.model_copy(update={"version": "4"})
    site.model = Adding(by=100)
    new = site.reader()
    (found,) = await read(new)
    assert (found.state, found.values, site.model.calls) == (State.MISSING, None, 0)
    await new.engine.compute(entities, 1.0)
    for reader, minutes in ((new, 130.0), (old, 31.0)):
        (found,) = await read(reader)
        assert (found.state, found.values) == (State.FRESH, (minutes,))
    assert site.server.read(place) == record
    site.ms += 10
    await site.put(7, 40.0)
    await old.engine.compute(entities, 1.0)
    for reader, state, minutes in ((new, State.STALE, 130.0), (old, State.FRESH, 41.0)):
        (found,) = await read(reader)
        assert (found.state, found.values) == (state, (minutes,))


async def test_by_the_policy_cached_a_read_sets_nothing_in_motion(made: Callable[..., Site]) -> None:
    site = made(policy="cached")
    await site.put(7, 30.0)
    (found,) = await read(site.reader())
    assert (found.state, found.refresh) == (State.MISSING, Refresh.NONE)
    assert (site.model.calls, site.hinted.keys) == (0, [])


async def test_a_thousand_who_wait_in_four_processes_cost_one_call(made: Callable[..., Site]) -> None:
    site = made(policy="wait")
    await site.put(7, 30.0)
    released = asyncio.Event()

    async def hold(delays: list[Any]) -> None:
        await released.wait()

    site.model.before = hold
    readers = [site.reader() for _ in range(4)]
    waiting = [asyncio.create_task(read(readers[number % 4])) for number in range(1_000)]
    await eventually_here(lambda: site.model.calls == 1, what="the model was asked")
    released.set()
    answers = [found for (found,) in await asyncio.gather(*waiting)]
    assert {(each.state, each.values) for each in answers} == {(State.FRESH, (31.0,))}
    assert {each.refresh for each in answers} <= {Refresh.INLINE, Refresh.SHARED}
    assert site.model.calls == 1


async def test_many_entities_of_one_turn_go_in_one_call(made: Callable[..., Site]) -> None:
    site = made(policy="wait")
    for id in range(30):
        await site.put(id, float(id))
    reader = site.reader()
    answers = await asyncio.gather(*(read(reader, id, 29 - id) for id in range(30)))
    assert [[each.values for each in of_reader] for of_reader in answers] == [
        [(id + 1.0,), (30.0 - id,)] for id in range(30)
    ]
    assert (site.model.calls, len(site.model.asked[0])) == (1, 30)


async def test_what_a_model_takes_longer_over_than_max_staleness_is_stale_as_it_is_told(
    made: Callable[..., Site],
) -> None:
    """And so is by then what was fresh when it was looked at, beside what was waited for."""
    site = made(policy="wait", max_staleness=datetime.timedelta(seconds=10))
    await site.put(7, 30.0)
    await site.put(8, 50.0)
    reader = site.reader()
    await read(reader, 8)

    async def pass_(seconds: float) -> None:
        site.ms += round(seconds * 1_000)

    site.model.before = lambda delays: pass_(10)
    at_once, beside = await read(reader, 7, 8)
    assert [(each.state, each.values, each.refresh) for each in (at_once, beside)] == [
        (State.FRESH, (31.0,), Refresh.INLINE),
        (State.FRESH, (51.0,), Refresh.NONE),
    ]
    site.ms -= 10_000
    await site.put(7, 40.0, at_ms=1)
    site.model.before = lambda delays: pass_(10.001)
    late, beside = await read(reader, 7, 8)
    assert [(each.state, each.values, each.refresh) for each in (late, beside)] == [
        (State.STALE, (41.0,), Refresh.INLINE),
        (State.STALE, (51.0,), Refresh.NONE),
    ]
    await site.put(7, 60.0, at_ms=2)
    readers = ModelReaders({"Delay": reader}, DEFINITIONS, lambda: site.ms * 1_000)
    found = await readers.columns(site.spec, {"id": [7]})
    assert (found.values, found.statuses, found.freshness) == (
        [[61.0]],
        [[Status.OUTSIDE_MAX_AGE]],
        [Freshness.LATE],
    )


async def test_an_entity_of_which_nothing_is_known_is_asked_about_with_nulls(made: Callable[..., Site]) -> None:
    site = made(policy="wait")
    (found,) = await read(site.reader())
    assert site.model.asked == [[None]]
    assert (found.state, found.values, found.reason) == (State.FAILED, None, "delay is unknown")


async def test_what_failed_is_flagged_with_the_older_value_and_not_tried_before_its_pause(
    made: Callable[..., Site],
) -> None:
    site = made(policy="wait")
    await site.put(7, 30.0)
    reader = site.reader()
    await read(reader)
    site.ms += 10
    await site.put(7, 40.0)
    site.model.error = ModelError("the shape is wrong")
    (found,) = await read(reader)
    assert (found.state, found.values, found.reason) == (State.FAILED, (31.0,), "the shape is wrong")
    for _ in range(50):
        (found,) = await read(reader)
        assert (found.state, found.refresh) == (State.FAILED, Refresh.NONE)
    assert site.model.calls == 2
    site.ms += 1_900  # the pause counts from when the call was over, by a real clock
    await read(reader)
    assert site.model.calls == 3
    record = site.record()
    assert record is not None
    assert record.failure is not None
    assert record.failure.attempts == 2
    site.model.error = None
    site.ms += 3_900
    (found,) = await read(reader)
    assert (found.state, found.values) == (State.FRESH, (41.0,))


async def test_other_inputs_are_tried_at_once_though_the_last_ones_failed(made: Callable[..., Site]) -> None:
    site = made(policy="wait")
    reader = site.reader()
    assert (await read(reader))[0].state is State.FAILED
    await site.put(7, 30.0)
    assert (await read(reader))[0].values == (31.0,)


async def test_staleness_ends_at_ten_times_what_counts_as_fresh(made: Callable[..., Site]) -> None:
    site = made(policy="cached", max_staleness=datetime.timedelta(minutes=1))
    await site.put(7, 30.0)
    reader = site.reader()
    await reader.engine.compute(reader.engine.entities({"id": [7]}), 1.0)
    states = []
    for minutes in (1, 2, 10, 11):
        site.ms = BEGIN_MS + minutes * 60_000
        (found,) = await read(reader)
        states.append((found.state, found.values))
    assert states == [
        (State.FRESH, (31.0,)),
        (State.STALE, (31.0,)),
        (State.STALE, (31.0,)),
        (State.MISSING, None),
    ]


async def test_just_before_the_end_a_reader_refreshes_early_and_waits_for_nothing(made: Callable[..., Site]) -> None:
    site = made(policy="wait")
    await site.put(7, 30.0)
    reader = site.reader()
    await read(reader)
    site.ms += 60_000
    (found,) = await read(reader)  # the last instant at which it is fresh
    assert (found.state, found.refresh) == (State.FRESH, Refresh.QUEUED)
    await eventually_here(lambda: site.model.calls == 2, what="it was computed anew")
    await eventually_here(lambda: site.leases() == [], what="the lease was given up")
    record = site.record()
    assert record is not None
    assert record.outputs is not None
    assert record.outputs.read_at == site.ms * 1_000


async def test_just_before_the_end_a_reader_has_the_worker_compute_it_early(made: Callable[..., Site]) -> None:
    """The worker leaves alone what is fresh, unless it is told so."""
    site = made(policy="refresh")
    await site.put(7, 30.0)
    reader = site.reader()
    await reader.engine.compute(reader.engine.entities({"id": [7]}), 1.0)
    site.ms += 60_000
    (found,) = await read(reader)
    assert (found.state, found.refresh) == (State.FRESH, Refresh.QUEUED)
    site.ms += 1
    (found,) = await read(reader)
    assert found.state is State.STALE
    assert [hint.early for hint in site.hinted.hints] == [BEGIN_MS * 1_000, 0]


async def test_who_finds_other_inputs_than_were_hinted_about_a_moment_ago_hints_again(
    made: Callable[..., Site],
) -> None:
    """Else he is told that it is under way, and nobody computes it again."""
    topic = MemoryHints()

    async def connect() -> MemoryHints:
        return topic

    site = made(policy="refresh")
    reader, hints = site.reader(), HintBuffer(connect, lambda: 100.0)
    reader._hints = hints
    told = []
    for delay in (30.0, 30.0, 50.0):
        await site.put(7, delay, at_ms=round(delay))
        told += [found.refresh for found in await read(reader)]
    assert told == [Refresh.QUEUED, Refresh.SHARED, Refresh.QUEUED]
    await eventually_here(lambda: len(topic.hints) == 2, what="both were sent")
    await hints.close()


async def test_what_others_have_computed_meanwhile_is_not_computed_early(made: Callable[..., Site]) -> None:
    site = made(policy="wait")
    await site.put(7, 30.0)
    engine = site.reader().engine
    entities = engine.entities({"id": [7]})
    seen = BEGIN_MS * 1_000
    for early in ([], [seen]):
        await engine.compute(entities, 1.0, early)
        assert site.model.calls == 1
    site.ms += 60_000
    for early, calls in (([], 1), ([seen - 1], 1), ([seen], 2)):
        await engine.compute(entities, 1.0, early)
        assert site.model.calls == calls


async def test_what_was_computed_since_a_reader_saw_its_end_near_is_left_also_where_it_is_near_its_own(
    made: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a slow model it always is; of each end several processes would have made a call."""
    monkeypatch.setattr("stillwell.predictions.freshness.MOST_EARLY", 10**12)
    site = made(policy="wait")
    await site.put(7, 30.0)
    reader, other = site.reader(), site.reader()
    await read(reader)
    site.ms += 60_000
    looked = await other.look(other.asked({"id": [7]}))
    await read(reader)
    await eventually_here(lambda: site.model.calls == 2 and site.leases() == [], what="it was computed anew")
    (found,) = await other.told(looked)
    assert (found.state, found.refresh) == (State.FRESH, Refresh.QUEUED)
    await eventually_here(lambda: not other._flights._flying, what="it was looked at again")
    assert site.model.calls == 2


async def test_who_waits_for_a_turn_at_the_model_holds_no_lease_and_reads_nothing_before(
    made: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lease would end before the model is asked, so that others ask as well; and inputs would be old."""
    monkeypatch.setattr("stillwell.predictions.engine._BATCHES_AT_A_TIME", 1)
    site = made(policy="wait")
    await site.put(7, 30.0)
    await site.put(8, 50.0)
    let = asyncio.Event()

    async def hold(delays: list[Any]) -> None:
        await let.wait()

    site.model.before = hold
    reader, other = site.reader(), site.reader()
    first = asyncio.create_task(read(reader, 7))
    await eventually_here(lambda: site.model.calls == 1, what="a model that is asked")
    second = asyncio.create_task(read(reader, 8))
    await eventually_here(lambda: len(reader._flights._flying) == 2, what="another one that waits")
    await asyncio.wait([second], timeout=0.05)
    assert len(site.leases()) == 1
    site.model.before = None
    assert (await read(other, 8))[0].values == (51.0,)
    await site.put(8, 60.0, at_ms=1)
    let.set()
    assert [(await each)[0].values for each in (first, second)] == [(31.0,), (61.0,)]
    assert site.model.asked == [[30.0], [50.0], [60.0]]


async def test_what_one_prediction_stands_on_costs_others_of_the_same_turn_nothing(made: Callable[..., Site]) -> None:
    site = made(policy="wait")
    newer = V.model_copy(
        update={"version": 2, "features": (*V.features, feature("more", FLOAT32, pl.col("T.delay"), nullable=True))}
    )
    await site.store.put(encoded_row(7, 30.0, site.ms * 1_000, of=newer), EPOCH)
    await site.put(8, 50.0)
    await site.put(9, 70.0)
    reader = site.reader()
    told = await asyncio.gather(*(read(reader, id) for id in (8, 7, 9)), return_exceptions=True)
    assert isinstance(told[1], UnknownLayout)
    assert [each[0].values for each in told if not isinstance(each, BaseException)] == [(51.0,), (71.0,)]
    assert reader._flights._flying == {}


async def test_of_a_thousand_who_read_shortly_before_the_end_one_has_it_computed_anew_and_nobody_waits(
    made: Callable[..., Site], rng: random.Random
) -> None:
    """By the rule somebody does so some lengths of a call before the end. That it is the last of them, so that the call
    is not over in time, or one before the last twenty, has a chance of one in half a million."""
    site = made(policy="wait")
    await site.put(7, 30.0)
    call_ms = 100
    begun: list[int] = []

    async def pass_time(delays: list[Any]) -> None:
        site.ms += call_ms

    async def take_time(delays: list[Any]) -> None:
        begun.append(site.ms)
        over = site.ms + call_ms
        await eventually_here(lambda: site.ms >= over, what="the call is over", pause_s=0)

    site.model.before = pass_time
    readers = [site.reader(chance=rng.random, clock=lambda: site.ms / 1_000) for _ in range(3)]
    await read(readers[0])
    site.model.before = take_time
    end, reading = BEGIN_MS + 60_000, []
    for ms in range(end - 32 * call_ms, end + 2 * call_ms, 3):
        site.ms = ms
        reading.append(asyncio.create_task(read(rng.choice(readers))))
        for _ in range(5):
            await asyncio.sleep(0)
    site.model.before = None
    site.ms += call_ms  # whoever is still asked is done
    told = [found for (found,) in await asyncio.gather(*reading)]
    assert {(each.state, each.refresh) for each in told} == {
        (State.FRESH, Refresh.NONE),
        (State.FRESH, Refresh.QUEUED),
    }
    assert {each.values for each in told} == {(31.0,)}
    assert len(begun) <= 3, "another process may ask once more while the first writes back"
    assert end - 20 * call_ms <= begun[0] <= end - call_ms


async def test_one_entity_alone_is_told_what_it_is_told_among_several(made: Callable[..., Site]) -> None:
    """Alone and fresh, it is told by a shorter way."""
    site = made(policy="refresh", max_staleness=datetime.timedelta(minutes=1))
    reader = site.reader()
    readers = ModelReaders({"Delay": reader}, DEFINITIONS, lambda: site.ms * 1_000)

    async def worth() -> tuple[object, Status, Freshness | None]:
        alone, among = [await readers.columns(site.spec, {"id": ids}) for ids in ([7], [7, 7])]
        told, as_told = [
            (each.values[0][0], each.statuses[0][0], each.freshness[0], each.read_at[0], each.under, len(each.values))
            for each in (alone, among)
        ]
        assert told == as_told
        return told[:3]

    async def compute() -> None:
        await reader.engine.compute(reader.engine.entities({"id": [7]}), 1.0)

    assert await worth() == (None, Status.NOT_FOUND, None)
    await site.put(7, 30.0)
    await compute()
    site.hinted.keys.clear()
    assert await worth() == (31.0, Status.PRESENT, Freshness.FRESH)
    assert site.hinted.keys == []
    await site.put(7, 40.0, at_ms=1)
    assert await worth() == (31.0, Status.PRESENT, Freshness.LATE)
    await compute()
    site.hinted.keys.clear()
    site.ms += 60_000
    # The last instant at which it is fresh, so that it is to be computed anew before it is not.
    await readers.columns(site.spec, {"id": [7]})
    assert site.hinted.keys == [b"i1:7"]
    assert await worth() == (41.0, Status.PRESENT, Freshness.FRESH)
    site.ms += 1
    assert await worth() == (41.0, Status.OUTSIDE_MAX_AGE, Freshness.LATE)


async def test_who_dies_in_the_middle_is_succeeded(made: Callable[..., Site], monkeypatch: pytest.MonkeyPatch) -> None:
    site = made(policy="wait")
    await site.put(7, 30.0)
    forever = asyncio.Event()

    async def die(delays: list[Any]) -> None:
        await forever.wait()

    site.model.before = die
    dead = site.reader()
    task = asyncio.create_task(read(dead))
    await eventually_here(lambda: site.model.calls == 1, what="the model was asked")
    dead.engine._store.release = _nothing  # type: ignore[method-assign,assignment]  # a killed process gives nothing up
    await dead.close()
    await task
    assert len(site.leases()) == 1
    site.model.before = None
    claims = 0
    claim = MemoryPredictions.claim

    async def count(store: MemoryPredictions, *arguments: Any) -> Any:
        nonlocal claims
        claims += 1
        return await claim(store, *arguments)

    monkeypatch.setattr(MemoryPredictions, "claim", count)
    heir = asyncio.create_task(read(site.reader()))
    await eventually_here(lambda: claims >= 3, what="another one wanted the lease again and again")
    assert site.model.calls == 1
    site.ms += 5_001
    ((found,),) = await asyncio.gather(heir)
    assert (found.state, found.values, site.model.calls) == (State.FRESH, (31.0,), 2)


async def _nothing(*arguments: object) -> None:
    pass


async def test_a_store_that_may_have_lost_rows_answers_nobody(made: Callable[..., Site]) -> None:
    site = made(policy="wait")
    reader = site.reader()
    site.server.evict(RedisKeys("test", "test").ready)
    with pytest.raises(StoreNotReady):
        await read(reader)


async def test_a_store_that_loses_its_epoch_in_the_middle_gets_nothing_written(made: Callable[..., Site]) -> None:
    site = made(policy="wait")
    await site.put(7, 30.0)

    async def lose(delays: list[Any]) -> None:
        site.server.write(RedisKeys("test", "test").ready, b"another")

    site.model.before = lose
    with pytest.raises(StoreNotReady):
        await read(site.reader())
    assert site.record() is None


async def test_a_server_that_is_down_is_flagged_and_its_return_is_no_storm(made: Callable[..., Site]) -> None:
    site = made(policy="wait")
    for id in range(20):
        await site.put(id, float(id))
    site.model.error = ModelUnavailable("gone")
    reader = site.reader()
    for _ in range(10):
        found = await read(reader, *range(20))
        assert {(each.state, each.reason) for each in found} == {(State.FAILED, "gone")}
    assert site.model.calls == 1
    site.model.error = None
    site.ms += 1_900  # the pause counts from when the call was over, by a real clock
    found = await read(reader, *range(20))
    assert [each.values for each in found] == [(id + 1.0,) for id in range(20)]
    assert site.model.calls == 2


@pytest.mark.parametrize("policy", ["wait", "cached"])
async def test_whatever_order_completions_have_fresh_is_the_model_over_the_inputs_that_stand_beside_it(
    made: Callable[..., Site], policy: str, rng: random.Random
) -> None:
    """Rows change while the model, which is slow now and then, is asked by several processes at once."""
    site = made(policy=policy)

    def next_us() -> int:
        site.ms += 1
        return site.ms * 1_000

    race = Race((1, 2, 3), lambda rows: site.store.put(rows, EPOCH), next_us, rng)
    site.model.before = race.dawdle
    await race.begin()
    readers, computing = [site.reader(), site.reader()], [site.reader(lease_ms=1) for _ in range(3)]
    await race.run(readers, [each.engine for each in computing], 300)
    assert race.fresh > 20
    site.model.before = None
    await race.settle(site.reader())


async def test_who_saw_newer_inputs_takes_no_prediction_of_older_ones_however_coarse_the_loops_clock_is(
    made: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    """uvloop's counts milliseconds, and stands still for as long as a turn of the loop lasts: what was read before and
    what was read after has the same time by it."""
    loop = asyncio.get_running_loop()
    now = loop.time()
    site = made(policy="wait")
    await site.put(7, 30.0)
    asked, let = asyncio.Event(), asyncio.Event()

    async def held(delays: list[Any]) -> None:
        asked.set()
        await let.wait()

    site.model.before = held
    reader = site.reader()
    monkeypatch.setattr(loop, "time", lambda: now)
    first = asyncio.create_task(read(reader))
    await asked.wait()
    await site.put(7, 40.0, at_ms=1)
    second = asyncio.create_task(read(reader))
    for _ in range(20):
        await asyncio.sleep(0)
    let.set()
    (older,) = await first
    (newer,) = await second
    monkeypatch.undo()
    assert (older.values, newer.values) == ((31.0,), (41.0,))


async def test_what_is_computed_of_other_rows_than_were_looked_at_is_not_said_to_be_of_those(
    made: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else who reads behind a push would take for his own what a Redis that was rebuilt meanwhile had before it."""
    site = made(policy="wait")
    await site.put(7, 40.0)
    reader = site.reader()
    readers = ModelReaders({"Delay": reader}, DEFINITIONS, lambda: site.ms * 1_000)
    read_at = MemoryPredictions.read_at

    async def rebuilt(store: MemoryPredictions, keys: Sequence[bytes]) -> StoredAt:
        if site.server.read(RedisKeys("test", "test").ready) == EPOCH.encode():
            site.server.flush()
            site.server.write(RedisKeys("test", "test").ready, b"another")
            await site.store.put(encoded_row(7, 30.0, site.ms * 1_000), "another")
        return await read_at(store, keys)

    monkeypatch.setattr(MemoryPredictions, "read_at", rebuilt)
    found = await readers.columns(site.spec, {"id": [7]})
    assert found.values == [[31.0]]
    assert found.under == b""
    found = await readers.columns(site.spec, {"id": [7]})
    assert found.under == (await site.store.read([])).under


async def test_what_is_computed_of_rows_that_another_server_lacks_is_not_fresh_beside_those_that_were_seen(
    made: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who reads rows keeps the connection to a primary that was just replaced, for a second at most; who computes has
    one to its successor, which never got the latest row."""
    site = made(policy="wait")
    await site.put(7, 30.0)
    await site.put(7, 40.0, at_ms=1)
    reader = site.reader()
    readers = ModelReaders({"Delay": reader}, DEFINITIONS, lambda: site.ms * 1_000)
    old = MemoryRedis(clock=lambda: site.ms)
    for key in site.server.dump():
        old.write(key, site.server.read(key) or b"")
    site.server.fail_over(lost=1)
    monkeypatch.setattr(reader, "_online", MemoryOnlineStore(old))
    found = await readers.columns(site.spec, {"id": [7]})
    assert found.values == [[31.0]]
    assert found.freshness == [Freshness.LATE]
    assert found.under == b""
    monkeypatch.setattr(reader, "_online", site.store)
    found = await readers.columns(site.spec, {"id": [7]})
    assert (found.values, found.freshness) == ([(31.0,)], (Freshness.FRESH,))
    assert found.under == (await site.store.read([])).under
    await site.put(7, 40.0, at_ms=1)
    found = await readers.columns(site.spec, {"id": [7]})
    assert (found.values, found.freshness) == ([[41.0]], [Freshness.FRESH])
    assert found.under == (await site.store.read([])).under


async def test_rows_and_predictions_of_two_servers_are_said_to_be_of_none(made: Callable[..., Site]) -> None:
    """Else who reads behind a push takes for his own what one of the two lacks."""
    site = made(policy="cached")
    await site.put(7, 30.0)
    reader, keys = site.reader(), RedisKeys("test", "test")
    definitions = DEFINITIONS.model_copy(update={"models": (site.spec,)})
    readers = ModelReaders({"Delay": reader}, definitions, lambda: site.ms * 1_000)
    features = FeatureReader(site.store, keys, lambda: site.ms * 1_000, readers)
    plan = Catalog(definitions).plan(["V:delay", "Delay:minutes"])
    assert (await features.read(plan, {"id": [7]})).under == (await site.store.read([])).under
    before = MemoryRedis(clock=lambda: site.ms)
    before.write(keys.ready, EPOCH.encode())
    reader._online = MemoryOnlineStore(before)
    site.server.fail_over()
    assert (await features.read(plan, {"id": [7]})).under == b""


async def test_a_server_whose_clock_is_behind_takes_over_and_what_is_computed_now_is_kept() -> None:
    """By instants alone the record of the first server would win for as long as the clock takes to come so far; every
    read would ask the model, and none be answered from the store."""
    site = Site()
    site.server.write(RedisKeys("test", "test").ready, EPOCH.encode())
    reader = site.reader()
    await site.put(7, 30.0)
    assert (await reader.read({"id": [7]}))[0].values == (31.0,)
    site.server.fail_over()
    site.ms -= 3_600_000
    (same,) = await reader.read({"id": [7]})
    assert (same.state, site.model.calls) == (State.FRESH, 2), "who knows how old it is"
    site.ms += 10
    await site.put(7, 40.0, at_ms=7_200_000)
    for _ in range(3):
        (prediction,) = await reader.read({"id": [7]})
        assert (prediction.state, prediction.values) == (State.FRESH, (41.0,))
    assert site.model.calls == 3


async def test_a_failure_of_a_clock_that_is_no_more_keeps_nobody_from_asking() -> None:
    site = Site()
    site.server.write(RedisKeys("test", "test").ready, EPOCH.encode())
    reader = site.reader()
    await site.put(7, 30.0)
    site.model.error = ModelError("broken")
    assert (await reader.read({"id": [7]}))[0].state is State.FAILED
    site.model.error = None
    assert (await reader.read({"id": [7]}))[0].state is State.FAILED
    assert site.model.calls == 1
    site.ms -= 3_600_000
    (prediction,) = await reader.read({"id": [7]})
    assert (prediction.state, prediction.values) == (State.FRESH, (31.0,))


async def test_no_more_predictions_are_computed_at_once_than_may_be(
    made: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stillwell.predictions.flights._MOST_AT_ONCE", 2)
    site = made(policy="wait")
    for id in (7, 8, 9):
        await site.put(id, 30.0)
    found = await read(site.reader(), 7, 8, 9)
    assert [each.state for each in found] == [State.FRESH, State.FRESH, State.MISSING]
    assert found[2].reason == "too many predictions are being computed at once"
