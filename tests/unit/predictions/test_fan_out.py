"""Rows that many predictions read through aliases: which ones, as who computes them keeps it, up to a bound."""

import asyncio
import datetime
from collections.abc import Sequence
from typing import Any

import pytest

from stillwell.layout.redis_keys import PredictionsOf, RedisKeys
from stillwell.predictions.engine import Engine
from stillwell.predictions.freshness import State
from stillwell.predictions.hint import Cause, Hint
from stillwell.predictions.inputs import ModelInputs
from stillwell.predictions.reading import ModelReader
from stillwell.predictions.watching import Unwatched
from stillwell.testing.online import MemoryOnlineStore, MemoryRedis
from stillwell.testing.predictions import MemoryPredictions
from streams.metrics import Metrics
from streams.refresh import RefreshAgent
from streams.refresh_hints import RefreshBatch, RefreshHint
from streams.retry import Retry
from tests.predicted import ALIASES, DEFINITIONS, Adding, encoded_row, of_routes
from tests.waiting import eventually_async

EPOCH = "epoch"
KEYS = RedisKeys("test", "test")
BEGIN_MS = 1_767_225_600_000
OF_ROUTES = of_routes("delay", "other", refresh_on_write=("Origin",), max_fan_out=2)


class Counted(Unwatched):
    def __init__(self) -> None:
        self.count = 0

    def left(self, model: str, count: int) -> None:
        self.count += count


class Hinted:
    problem = ""

    def __init__(self) -> None:
        self.hints: list[Hint] = []

    def put(self, hints: Sequence[Hint]) -> list[bool]:
        self.hints += hints
        return [True] * len(hints)


class Site:
    """A store, a model of routes, and one who reads and computes it."""

    def __init__(self, **changes: Any) -> None:
        self.server = MemoryRedis(clock=lambda: self.ms)
        self.ms = BEGIN_MS
        self.server.write(KEYS.ready, EPOCH.encode())
        self.store = MemoryOnlineStore(self.server)
        self.predictions = MemoryPredictions(self.server)
        self.model, self.counted, self.hinted = Adding(), Counted(), Hinted()
        spec = OF_ROUTES.model_copy(update=changes)
        inputs = ModelInputs(spec, DEFINITIONS.model_copy(update={"aliases": ALIASES, "models": (spec,)}))
        self.engine = Engine(spec, inputs, self.model, self.predictions, KEYS, self.counted, chance=lambda: 1.0)
        self.reader = ModelReader(self.engine, self.store, KEYS, self.hinted, lambda: self.ms * 1_000)

    async def put(self, id: int, delay: float) -> None:
        """A row of an airport; time goes on."""
        self.ms += 10
        await self.store.put(encoded_row(id, delay, self.ms * 1_000), EPOCH)

    async def compute(self, origin: int, dest: int) -> None:
        self.ms += 10
        await self.engine.compute(self.engine.entities({"origin": [origin], "dest": [dest]}), 1.0)

    async def readers(self, id: int) -> list[bytes]:
        """Who is known to read the row of an airport."""
        places = KEYS.readers(PredictionsOf("Delay", "3"), "V", [b"i1:%d" % id])
        return (await self.predictions.readers(places, 99, 99, EPOCH.encode())).keys[0]


async def test_what_is_computed_is_listed_where_it_reads_through_an_alias_that_refreshes_it() -> None:
    site = Site()
    await site.put(1, 5.0)
    await site.compute(1, 2)
    await site.compute(1, 3)
    assert await site.readers(1) == [b"i1:1i1:3", b"i1:1i1:2"]
    assert await site.readers(2) == [], "nothing is refreshed by writes to its destination"
    assert site.counted.count == 0


async def test_a_model_that_no_alias_refreshes_lists_nothing() -> None:
    site = Site(refresh_on_write=(), max_fan_out=0)
    await site.put(1, 5.0)
    await site.compute(1, 2)
    assert not [key for key in site.server.dump() if b":r:" in key]


async def test_of_too_many_readers_those_stay_that_were_computed_last_and_the_others_are_counted() -> None:
    site = Site()
    await site.put(1, 5.0)
    for dest in (2, 3, 4, 5):
        await site.compute(1, dest)
    assert await site.readers(1) == [b"i1:1i1:5", b"i1:1i1:4"]
    assert site.counted.count == 2
    await site.put(1, 6.0)
    (left_out,) = await site.reader.read({"origin": [1], "dest": [2]})
    assert (left_out.state, left_out.values) == (State.FRESH, (7.0,)), "who reads it has it computed, by its policy"
    assert await site.readers(1) == [b"i1:1i1:2", b"i1:1i1:5"]
    await site.reader.close()


async def test_a_prediction_that_fails_is_listed_too() -> None:
    """Other inputs may be of more use."""
    site = Site()
    await site.compute(1, 2)
    assert await site.readers(1) == [b"i1:1i1:2"]


@pytest.mark.parametrize("known", [False, True])
async def test_who_was_not_listed_yet_when_its_row_changed_looks_again(known: bool) -> None:
    """Whoever wrote the row could not know of it. Once it is listed, the writer asks for it."""
    site = Site()
    await site.put(1, 5.0)
    if known:
        await site.compute(1, 2)
        await site.put(1, 5.5)

    async def change(delays: list[Any]) -> None:
        site.model.before = None
        await site.put(1, 6.0)

    site.model.before = change
    await site.reader.read({"origin": [1], "dest": [2]})

    async def landed() -> bool:
        return not site.reader._flights._tasks

    await eventually_async(landed, what="the computation is over")
    assert [(hint.key, hint.cause) for hint in site.hinted.hints] == ([] if known else [(b"i1:1i1:2", Cause.WRITE)])
    await site.reader.close()


async def test_who_dies_before_it_has_computed_anew_what_nobody_hints_for_has_not_committed_its_hint() -> None:
    """The row was written after it was read, and before its reader was listed: no other hint comes."""
    site = Site(debounce=datetime.timedelta(minutes=1))
    await site.put(1, 5.0)
    now = 1_000.0

    async def change(delays: list[Any]) -> None:
        site.model.before = None
        await site.put(1, 6.0)

    async def soon(seconds: float) -> None:
        await asyncio.sleep(0)

    site.model.before = change
    metrics = Metrics()
    agent = RefreshAgent({"Delay": site.engine}, metrics, Retry("refresh", metrics, soon), clock=lambda: now)
    value = b'{"model":"Delay","entity":{"origin":1,"dest":2},"cause":"read"}'
    running = asyncio.create_task(agent.run())
    agent.take(RefreshBatch(agent.life, [RefreshHint("p0", 100, value, 0)]))

    async def listed() -> bool:
        return await site.readers(1) == [b"i1:1i1:2"]

    await eventually_async(listed, what="the first prediction")
    for _ in range(50):
        await asyncio.sleep(0)
    assert agent.commits() == {"p0": 100}
    now += 60.0
    agent._work["Delay"].jobs.arrived.set()

    async def committed() -> bool:
        return agent.commits() == {"p0": 101}

    await eventually_async(committed, what="the commit")
    (found,) = await site.reader.read({"origin": [1], "dest": [2]})
    assert (found.state, found.values, site.model.calls) == (State.FRESH, (7.0,), 2)
    running.cancel()
    await asyncio.wait([running])
    await site.reader.close()
