"""Predictions and rows that are too many for one call of the store: they come by several, and anything may be written
between two of them. FRESH is the model over the rows that came all the same, and those have stood together."""

import collections
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from stillwell.layout.redis_keys import RedisKeys
from stillwell.predictions.engine import Engine
from stillwell.predictions.freshness import State
from stillwell.predictions.hint import NoHints
from stillwell.predictions.inputs import ModelInputs
from stillwell.predictions.prediction import Prediction
from stillwell.predictions.reading import ModelReader
from stillwell.predictions.tensors import Said
from stillwell.reading.online import Stored
from stillwell.testing.online import MemoryOnlineStore, MemoryRedis
from stillwell.testing.predictions import MemoryPredictions
from tests.predicted import ALIASES, DEFINITIONS, Adding, encoded_row, of_routes

EPOCH = "epoch"
KEYS = RedisKeys("test", "test")
OF_ROUTES = of_routes("here", "there", policy="cached")
Route = tuple[int, int]


class Both(Adding):
    """A model whose word says of which two rows it is."""

    async def infer(self, columns: Mapping[str, Sequence[Any]], count: int) -> list[Said]:
        return [{"minutes": said(*each)} for each in zip(columns["here"], columns["there"], strict=True)]


def said(here: float, there: float) -> float:
    """Of rows that are numbered below a thousand; a Float32 has room for it."""
    return 1_000 * here + there


class InParts:
    """A store that is read so many keys at a time, as Redis is 250 at a time. between: awaited before each further
    part."""

    def __init__(self, store: MemoryOnlineStore, most: int, between: Callable[[], Awaitable[None]]) -> None:
        self._store = store
        self._most = most
        self._between = between

    async def read(self, keys: Sequence[bytes]) -> Stored:
        found: list[bytes | None] = []
        for begin in range(0, len(keys), self._most):
            if begin:
                await self._between()
            part = await self._store.read(keys[begin : begin + self._most])
            found += part.values
        return Stored(part.epoch, found, part.replication_id)


class Airports:
    """Rows of three airports, and predictions of the routes between them.

    between: done between two calls of a read. written: the number of each row, by airport and event time. stood: of
    each route, the pairs of rows that were there at one instant.
    """

    def __init__(self, most: int) -> None:
        self.ms = 1_767_225_600_000
        self.between: Callable[[], Awaitable[None]] | None = None
        server = MemoryRedis(clock=lambda: self.ms)
        server.write(KEYS.ready, EPOCH.encode())
        self._store = MemoryOnlineStore(server)
        definitions = DEFINITIONS.model_copy(update={"aliases": ALIASES, "models": (OF_ROUTES,)})
        inputs = ModelInputs(OF_ROUTES, definitions)
        self._engine = Engine(OF_ROUTES, inputs, Both(), MemoryPredictions(server), KEYS, chance=lambda: 1.0)
        self._reader = ModelReader(
            self._engine, InParts(self._store, most, self._meanwhile), KEYS, NoHints(), lambda: self.ms * 1_000
        )
        self.written: dict[tuple[int, int], int] = {}
        self.stood: dict[Route, set[tuple[int, int]]] = collections.defaultdict(set)
        self._now: dict[int, int] = {}

    async def put(self, id: int) -> None:
        """The next row of an airport."""
        self.ms += 1
        number = len(self.written)
        await self._store.put(encoded_row(id, float(number), self.ms * 1_000), EPOCH)
        self.written[id, self.ms * 1_000] = self._now[id] = number
        for origin, here in self._now.items():
            for dest, there in self._now.items():
                self.stood[origin, dest].add((here, there))

    async def compute(self, *routes: Route) -> None:
        self.ms += 1
        await self._engine.compute(self._engine.entities(_columns(routes)), 1.0)

    async def read(self, *routes: Route) -> list[Prediction]:
        return await self._reader.read(_columns(routes))

    def rows(self, route: Route, found: Prediction) -> tuple[int, int]:
        """The numbers of the rows that a prediction was judged by."""
        here, there = (found.event_times[name] for name in ("Origin", "Dest"))
        assert here is not None
        assert there is not None
        return self.written[route[0], here], self.written[route[1], there]

    async def _meanwhile(self) -> None:
        if self.between:
            await self.between()


def _columns(routes: Sequence[Route]) -> dict[str, list[int]]:
    return {"origin": [origin for origin, _ in routes], "dest": [dest for _, dest in routes]}


async def test_a_prediction_that_is_computed_anew_between_two_calls_is_called_stale_and_then_fresh() -> None:
    site = Airports(most=1)
    for id in (0, 1):
        await site.put(id)
    await site.compute((0, 1))

    async def once() -> None:
        site.between = None
        await site.put(1)
        await site.compute((0, 1))

    site.between = once
    (found,) = await site.read((0, 1))
    assert (found.state, found.values) == (State.STALE, (said(0, 1),))
    assert site.rows((0, 1), found) == (0, 2)
    (found,) = await site.read((0, 1))
    assert (found.state, found.values) == (State.FRESH, (said(0, 2),))


async def test_whatever_happens_between_two_calls_fresh_is_the_model_over_rows_that_have_stood_together(
    rng: random.Random,
) -> None:
    site = Airports(most=2)
    routes = [(origin, dest) for origin in range(3) for dest in range(3) if origin != dest]
    for id in range(3):
        await site.put(id)

    async def something() -> None:
        for _ in range(rng.choice((0, 0, 0, 0, 1, 3))):
            if rng.random() < 0.5:
                await site.put(rng.randrange(3))
            else:
                await site.compute(*rng.sample(routes, rng.randrange(1, len(routes))))

    site.between = something
    fresh = mixed = 0
    for _ in range(200):
        await something()
        asked = rng.sample(routes, rng.randrange(1, len(routes)))
        for route, found in zip(asked, await site.read(*asked), strict=True):
            rows = site.rows(route, found)
            mixed += rows not in site.stood[route]
            if found.state is State.FRESH:
                fresh += 1
                assert found.values == (said(*rows),)
                assert rows in site.stood[route]
    assert fresh > 50
    assert mixed > 5, "rows were read that never stood together"
