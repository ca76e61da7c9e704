"""Models made by hand, and model servers that misbehave on cue, for tests of those who ask them."""

import asyncio
import contextlib
import datetime
import json
import random
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

import polars as pl
from aiohttp import web
from aiohttp.test_utils import TestServer

from stillwell.errors import ModelError
from stillwell.layout.chain import PartitionId
from stillwell.layout.encoder import ViewEncoder
from stillwell.layout.online import EncodedRows
from stillwell.pipeline import compile_pipeline
from stillwell.predictions.engine import Engine
from stillwell.predictions.freshness import State
from stillwell.predictions.reading import ModelReader
from stillwell.predictions.tensors import Said, Unusable
from stillwell.spec import (
    AliasSpec,
    DefinitionsSpec,
    EntitySpec,
    InputSpec,
    KeySpec,
    ModelSpec,
    OpenInferenceSpec,
    OutputSpec,
    ViewSpec,
)
from stillwell.types import FLOAT32, INT64, FieldType
from tests.batches import column, feature, records, topic, view

MINUTES = OutputSpec(name="minutes", type=FLOAT32)


def model(
    inputs: Mapping[str, FieldType] | None = None, outputs: tuple[OutputSpec, ...] = (MINUTES,), version: str = "3"
) -> ModelSpec:
    """A model of one output, its inputs named as the features of a view V."""
    return ModelSpec(
        name="Delay",
        version=version,
        entity=EntitySpec(name="E", keys=(KeySpec(name="id", type=INT64),)),
        inputs=tuple(
            InputSpec(name=name, reference=f"V:{name}", type=kind)
            for name, kind in (inputs or {"delay": FLOAT32}).items()
        ),
        outputs=outputs,
        server=OpenInferenceSpec(url="http://127.0.0.1:1", model="delay"),
        policy="wait",
        max_staleness=datetime.timedelta(minutes=1),
    )


TOPIC = topic(column("id", INT64), column("delay", FLOAT32, nullable=True))
V = view(TOPIC, {"id": (INT64, pl.col("T.id"))}, feature("delay", FLOAT32, pl.col("T.delay"), nullable=True))
DEFINITIONS = DefinitionsSpec(entities=(V.entity,), topics=(TOPIC,), views=(V,))

ROUTE = EntitySpec(name="Route", keys=(KeySpec(name="origin", type=INT64), KeySpec(name="dest", type=INT64)))
ALIASES = tuple(
    AliasSpec(name=name, view=V, entity=ROUTE, keys={"id": key})
    for name, key in (("Origin", "origin"), ("Dest", "dest"))
)


def of_routes(origin: str, dest: str, **changes: Any) -> ModelSpec:
    """A model that reads the delay at both ends of a route, by inputs of these names."""
    inputs = tuple(
        InputSpec(name=name, reference=f"{alias}:delay", type=FLOAT32)
        for name, alias in ((origin, "Origin"), (dest, "Dest"))
    )
    return model().model_copy(update={"entity": ROUTE, "inputs": inputs, **changes})


def encoded_row(id: int, delay: float | None, at_us: int, of: ViewSpec = V) -> EncodedRows:
    """The row of an entity, whose event happened then."""
    return encoded_rows({id: delay}, at_us, of)


def encoded_rows(delays: Mapping[int, float | None], at_us: int, of: ViewSpec = V) -> EncodedRows:
    """The rows of entities, whose events happened at one time."""
    at = datetime.datetime.fromtimestamp(0, datetime.UTC) + datetime.timedelta(microseconds=at_us)
    made = compile_pipeline(TOPIC, [of], max_future=datetime.timedelta(days=36_500)).run(
        records([json.dumps({"at": at.isoformat(), "id": id, "delay": delay}).encode() for id, delay in delays.items()])
    )
    assert made.rejects == ()
    rows, _ = ViewEncoder(of, datetime.timedelta(hours=1)).encode(made.rows[0].frame, PartitionId("t", 1, 0))
    return rows


class Adding:
    """A model that adds one, told what else to do: an `Inference` of the tests.

    by: what it adds instead; calls: how often it was asked; asked: about which inputs; before: awaited with the inputs
    before it answers.
    """

    def __init__(self, by: float = 1) -> None:
        self.by = by
        self.calls = 0
        self.asked: list[list[Any]] = []
        self.before: Callable[[list[Any]], Awaitable[None]] | None = None
        self.error: ModelError | None = None

    async def check(self) -> None:
        """It is right."""

    async def infer(self, columns: Mapping[str, Sequence[Any]], count: int) -> list[Said]:
        """So much more than the delay, and nothing for an unknown one."""
        self.calls += 1
        delays = list(columns["delay"])
        self.asked.append(delays)
        if self.before:
            await self.before(delays)
        if self.error:
            raise self.error
        return [Unusable("delay is unknown") if each is None else {"minutes": each + self.by} for each in delays]

    async def close(self) -> None:
        """Nothing is open."""


class Race:
    """Rows change while several processes, as it were, read predictions of them and compute some.

    What is read as FRESH must be the word of the model, which adds one, on the very row that stands beside it; and no
    write that was acknowledged before the read may be missing. fresh: how often that was so.
    """

    def __init__(
        self,
        ids: Sequence[int],
        put: Callable[[EncodedRows], Awaitable[object]],
        next_us: Callable[[], int],
        rng: random.Random,
    ) -> None:
        """put: writes rows. next_us: the time of the next event, after all others."""
        self.fresh = 0
        self._ids = ids
        self._put = put
        self._next_us = next_us
        self._rng = rng
        self._written: dict[tuple[int, int], float] = {}
        self._newest: dict[int, int] = {}
        """Of each entity, when the event of its last acknowledged row happened."""
        self._ended = False

    async def begin(self) -> None:
        """There is a row of each."""
        at = self._next_us()
        await self._put(encoded_rows(dict.fromkeys(self._ids, 0.0), at))
        self._written = {(id, at): 0.0 for id in self._ids}
        self._newest = dict.fromkeys(self._ids, at)

    async def dawdle(self, delays: list[Any]) -> None:
        """What the model does before it answers, so that completions change their order."""
        for _ in range(self._rng.choice((0, 1, 5, 40))):
            await asyncio.sleep(0)

    async def run(self, readers: Sequence[ModelReader], engines: Sequence[Engine], times: int, least: int = 1) -> None:
        """Change rows so many times. engines: of those who compute and do not read. least: entities of a read."""
        async with asyncio.TaskGroup() as tasks:
            for reader in readers:
                for _ in range(3):
                    tasks.create_task(self._look(reader, least))
            for engine in engines:
                tasks.create_task(self._compute(engine))
            await self._change(times)
            self._ended = True

    async def settle(self, reader: ModelReader) -> None:
        """Nothing changes any more: what is computed now is of the newest rows."""
        self._next_us()  # of two predictions of one instant either may stay
        columns = {"id": list(self._ids)}
        await reader.engine.compute(reader.engine.entities(columns), 5.0)
        for id, found in zip(self._ids, await reader.read(columns), strict=True):
            assert (found.state, found.values) == (State.FRESH, (self._written[id, self._newest[id]] + 1,))

    async def _change(self, times: int) -> None:
        for number in range(times):
            id, at = self._rng.choice(self._ids), self._next_us()
            self._written[id, at] = float(number)
            await self._put(encoded_row(id, float(number), at))
            self._newest[id] = at
            for _ in range(self._rng.randrange(12)):
                await asyncio.sleep(0)

    async def _look(self, reader: ModelReader, least: int) -> None:
        while not self._ended:
            ids = self._rng.sample(self._ids, self._rng.randint(least, len(self._ids)))
            newest = [self._newest[id] for id in ids]
            for id, at_least, found in zip(ids, newest, await reader.read({"id": ids}), strict=True):
                if found.state is State.FRESH:
                    self.fresh += 1
                    at = found.event_times["V"]
                    assert at is not None
                    assert found.values == (self._written[id, at] + 1,)
                    assert at >= at_least
            await asyncio.sleep(0)

    async def _compute(self, engine: Engine) -> None:
        while not self._ended:
            some = self._rng.sample(self._ids, max(1, len(self._ids) // 4))
            await engine.compute(engine.entities({"id": some}), 1.0)
            await asyncio.sleep(0)


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class OddServer:
    """Speaks the Open Inference Protocol for a model that adds one to its only input, unless it is told otherwise.

    answer: in place of its own; calls: how many it was asked; batches: the inputs of each; hold: cleared, it keeps who
    asks waiting.
    """

    def __init__(self, model: str = "delay", input: str = "delay", datatype: str = "FP32") -> None:
        self.model = model
        self.metadata: dict[str, Any] | None = {
            "name": model,
            "versions": [],
            "inputs": [{"name": input, "datatype": datatype, "shape": [-1, 1]}],
            "outputs": [{"name": "predict", "datatype": "FP64", "shape": [-1, 1]}],
        }
        self.answer: Handler | None = None
        self.calls = 0
        self.batches: list[list[Any]] = []
        self.paths: list[str] = []
        self.hold = asyncio.Event()
        self.hold.set()
        self.url = ""

    @contextlib.asynccontextmanager
    async def running(self, port: int | None = None) -> AsyncIterator["OddServer"]:
        """Running for the length of a `with`."""
        app = web.Application()
        app.router.add_get("/v2/models/{model}", self._tell)
        app.router.add_post("/v2/models/{model}/infer", self._infer)
        app.router.add_post("/v2/models/{model}/versions/{version}/infer", self._infer)
        async with TestServer(app, port=port) as server:
            self.url = str(server.make_url("")).rstrip("/")
            yield self

    async def _tell(self, request: web.Request) -> web.Response:
        return web.json_response(self.metadata) if self.metadata else web.Response(status=404, text="no such model")

    async def _infer(self, request: web.Request) -> web.StreamResponse:
        self.calls += 1
        self.paths.append(request.path)
        body = await request.read()
        await self.hold.wait()
        if self.answer:
            return await self.answer(request)
        data = json.loads(body)["inputs"][0]["data"]
        self.batches.append(data)
        answer = web.json_response(outputs([None if each is None else each + 1 for each in data]))
        answer.enable_compression()  # if it is asked for
        return answer


def outputs(data: list[Any], datatype: str = "FP64", name: str = "predict") -> dict[str, Any]:
    """The body of an answer."""
    return {
        "model_name": "delay",
        "outputs": [{"name": name, "datatype": datatype, "shape": [len(data), 1], "data": data}],
    }


def text(status: int, said: str) -> Handler:
    """Answers so."""

    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(status=status, text=said)

    return answer


class ThreadedServer:
    """An `OddServer` in a thread of its own, for tests that wait in theirs; `on` runs something beside it."""

    def __init__(self, server: OddServer, port: int | None = None) -> None:
        self.server = server
        self.loop = asyncio.new_event_loop()
        self._port = port
        self._ended: asyncio.Event | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "ThreadedServer":
        self._thread.start()
        assert self._ready.wait(20)
        return self

    def __exit__(self, *raised: object) -> None:
        assert self._ended is not None
        self.loop.call_soon_threadsafe(self.server.hold.set)
        self.loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(20)

    def hold(self) -> None:
        """Keep who asks waiting."""
        self.loop.call_soon_threadsafe(self.server.hold.clear)

    def release(self) -> None:
        """Answer them."""
        self.loop.call_soon_threadsafe(self.server.hold.set)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(self._serve())
        self.loop.close()

    async def _serve(self) -> None:
        self._ended = asyncio.Event()
        async with self.server.running(self._port):
            self._ready.set()
            await self._ended.wait()
