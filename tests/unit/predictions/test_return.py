"""A model server that comes back while a thousand predictions wait for it is not stormed: each is asked about once, in
full batches, after one call has found that it is back. The server is a real one, over HTTP; so is the time."""

import asyncio
import collections
import contextlib
import datetime
import json
import time
from collections.abc import AsyncIterator

import msgspec
import polars as pl
from aiohttp import web

from stillwell.layout.chain import PartitionId
from stillwell.layout.encoder import ViewEncoder
from stillwell.layout.redis_keys import RedisKeys
from stillwell.pipeline import compile_pipeline
from stillwell.predictions.breaker import BreakerPolicy
from stillwell.predictions.engine import Engine
from stillwell.predictions.freshness import State
from stillwell.predictions.hint import NoHints
from stillwell.predictions.inference import ServedModel
from stillwell.predictions.inputs import ModelInputs
from stillwell.predictions.reading import ModelReader
from stillwell.spec import OpenInferenceSpec
from stillwell.testing.online import MemoryOnlineStore, MemoryRedis
from stillwell.testing.predictions import MemoryPredictions
from streams.metrics import Metrics
from streams.refresh import RefreshAgent
from streams.refresh_hints import RefreshBatch, RefreshHint
from streams.retry import Retry
from tests.batches import records
from tests.predicted import DEFINITIONS, TOPIC, OddServer, V, model, outputs
from tests.waiting import eventually_async

EPOCH = "epoch"
KEYS = RedisKeys("test", "test")
ENTITIES = 1_000
POLICY = BreakerPolicy(failures=5, pause=0.2, longest=1.0)


class Returning:
    """A server that answers 503 until it is back, and what it was asked, when, and by how many at once."""

    def __init__(self, server: OddServer) -> None:
        self.server = server
        self.url = server.url
        self.back = False
        self.refused: list[float] = []
        self.answered: list[float] = []
        self.asked: collections.Counter[float] = collections.Counter()
        self.before_an_answer = 0
        self.at_once = self.most_at_once = 0
        server.answer = self._answer

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        if not self.back:
            self.refused.append(time.monotonic())
            return web.Response(status=503, text="starting")
        if not self.answered:
            self.before_an_answer += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0.02)
        self.at_once -= 1
        data = json.loads(await request.read())["inputs"][0]["data"]
        self.asked.update(data)
        self.answered.append(time.monotonic())
        return web.json_response(outputs([each + 1 for each in data]))

    def in_the_first_second(self) -> int:
        return sum(at < self.answered[0] + 1.0 for at in self.answered)


@contextlib.asynccontextmanager
async def returning() -> AsyncIterator[Returning]:
    async with OddServer().running() as server:
        yield Returning(server)


async def filled() -> MemoryRedis:
    """A store with a row of every entity; its delay is its number."""
    redis = MemoryRedis()
    redis.write(KEYS.ready, EPOCH.encode())
    events = [
        json.dumps({"at": "2026-01-01T00:00:00Z", "id": id, "delay": float(id)}).encode() for id in range(ENTITIES)
    ]
    made = compile_pipeline(TOPIC, [V], max_future=datetime.timedelta(days=1)).run(records(events))
    frame: pl.DataFrame = made.rows[0].frame
    rows, _ = ViewEncoder(V, datetime.timedelta(hours=1)).encode(frame, PartitionId("t", 1, 0))
    await MemoryOnlineStore(redis).put(rows, EPOCH)
    return redis


def engine_of(redis: MemoryRedis, url: str) -> Engine:
    """One process's, with a circuit of its own."""
    server = OpenInferenceSpec(url=url, model="delay", timeout=datetime.timedelta(seconds=5), retries=2)
    spec = model().model_copy(update={"server": server})
    inference = ServedModel(spec, server, url, policy=POLICY)
    return Engine(spec, ModelInputs(spec, DEFINITIONS), inference, MemoryPredictions(redis), KEYS)


async def test_an_agent_with_a_thousand_hints_that_wait() -> None:
    async with returning() as server:
        engine, metrics = engine_of(await filled(), server.url), Metrics()
        agent = RefreshAgent({"Delay": engine}, metrics, Retry("refresh", metrics))
        value = [msgspec.json.encode({"model": "Delay", "entity": {"id": id}}) for id in range(ENTITIES)]
        agent.take(RefreshBatch(agent.life, [RefreshHint("p0", at, each, 0) for at, each in enumerate(value)]))
        running = asyncio.create_task(agent.run())
        began = time.monotonic()

        async def while_it_is_away() -> bool:
            return time.monotonic() > began + 3.0

        await eventually_async(while_it_is_away, what="it was away for a while")
        # Five that open the circuit, and then one after each pause, which grows to a second.
        assert 6 <= len(server.refused) <= 16
        server.back = True

        async def done() -> bool:
            return agent.commits() == {"p0": ENTITIES}

        await eventually_async(done, within_s=60, what="every hint is done")
        running.cancel()
        await asyncio.wait([running])
        await engine.inference.close()
    print(f"away: {len(server.refused)} calls in 3 s; back: {server.in_the_first_second()} in the first second")
    assert server.asked == collections.Counter(map(float, range(ENTITIES)))
    assert (server.before_an_answer, server.most_at_once) == (1, 1)
    assert server.in_the_first_second() <= ENTITIES // engine.batch + 4
    assert len(server.answered) <= 2 * ENTITIES // engine.batch


async def test_readers_of_a_thousand_predictions_in_four_processes() -> None:
    """Who come again and again, and would wait for the model each time."""
    async with returning() as server:
        redis = await filled()
        engines = [engine_of(redis, server.url) for _ in range(4)]
        store = MemoryOnlineStore(redis)
        readers = [ModelReader(each, store, KEYS, NoHints(), lambda: time.time_ns() // 1_000) for each in engines]
        fresh: set[int] = set()

        async def read_on(number: int) -> None:
            """Of one process: all of its entities, until each is there."""
            mine = range(number, ENTITIES, len(readers))
            while not fresh.issuperset(mine):
                found = await readers[number].read({"id": list(mine)})
                fresh.update(id for id, each in zip(mine, found, strict=True) if each.state is State.FRESH)
                await asyncio.sleep(0.1)

        reading = [asyncio.create_task(read_on(number)) for number in range(len(readers))]
        began = time.monotonic()

        async def while_it_is_away() -> bool:
            return time.monotonic() > began + 3.0

        await eventually_async(while_it_is_away, what="it was away for a while")
        # Of each process those calls that were under way when its circuit opened, and then one after each pause.
        assert len(server.refused) <= len(readers) * 24
        server.back = True
        await asyncio.wait_for(asyncio.gather(*reading), 60)
        for reader in readers:
            await reader.close()
            await reader.engine.inference.close()
    print(f"away: {len(server.refused)} calls in 3 s; back: {server.in_the_first_second()} in the first second")
    assert server.asked == collections.Counter(map(float, range(ENTITIES)))
    assert server.before_an_answer <= len(readers)
    assert server.in_the_first_second() <= ENTITIES // engines[0].batch + 3 * len(readers)
