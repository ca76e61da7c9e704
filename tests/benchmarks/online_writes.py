"""Rows into Redis: put-if-newer, as the worker's sink writes them, against hashes that are overwritten blindly.

The rows are encoded beforehand. What is timed is packing commands, sending them, the server's work, and reading
replies. Every run writes each row twice: into an empty server, and then a newer one over each.
"""

import asyncio
import contextlib
import dataclasses
import functools
import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Self, TypeVar

import redis
from pydantic import SecretStr

from sinks.redis import RedisOnlineStore
from stillwell.layout.online import EncodedRows
from stillwell.layout.redis_keys import RedisKeys
from stillwell.local import RedisServer
from tests.benchmarks import load
from tests.benchmarks.load import Load
from tests.benchmarks.rows import RowMaker, feature_names
from tests.benchmarks.testbed import REDIS, MeasurementError, Testbed, cpu_seconds

PIPELINE = 1_000
"""Commands of one pipeline of redis-py. 200 or 5,000 are no faster."""

_EPOCH = "bench"
_BETWEEN_GENERATIONS_US = 1_000_000
_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True, slots=True)
class Cost:
    """Microseconds a row: wall time, and processor time of the server."""

    wall_us: float
    server_us: float

    def __str__(self) -> str:
        return f"{self.wall_us:5.2f} µs a row, {self.server_us:5.2f} µs of server CPU"


@dataclasses.dataclass(frozen=True, slots=True)
class Batch:
    """Rows in each of the forms in which they are written: encoded, their keys in Redis, and their features."""

    encoded: EncodedRows
    keys: list[bytes]
    features: list[dict[str, float | int | str]]


class Writes:
    """The same rows for every contender: so many entities, each twice, the second time newer.

    Every contender has a Redis of its own: memory that another has used lies in pieces of other sizes, which costs
    whoever comes next up to a fifth. Starting a `with` starts them.
    """

    def __init__(self, testbed: Testbed, rows: int) -> None:
        deployment = testbed.deploy("writes")
        self._settings = deployment.loaded_settings()
        self._names = RedisKeys(self._settings.project, self._settings.namespace)
        maker = RowMaker(load.PACKAGE, deployment.folder)
        now_us = time.time_ns() // 1_000
        older, newer = (
            Load(rows, load.ALWAYS_NEW, first_ts=now_us + generation * _BETWEEN_GENERATIONS_US)
            for generation in (-1, 0)
        )
        (self._warm_up,) = self._made(maker, Load(1, load.ALWAYS_NEW, first_ts=now_us, seed=2))
        self._batches = [*self._made(maker, older), *self._made(maker, newer)]
        self._servers = {
            write: RedisServer(deployment.folder / write.__name__, config=REDIS)
            for write in (self._put_if_newer, self._hset_packed, self._hset_fields)
        }
        self.contenders: Mapping[str, Callable[[], Cost]] = {
            write.__name__.removeprefix("_"): functools.partial(write, server)
            for write, server in self._servers.items()
        }

    def __enter__(self) -> Self:
        for server in self._servers.values():
            server.start()
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers.values():
            server.stop()

    def _put_if_newer(self, server: RedisServer) -> Cost:
        """By the worker's sink, with key expiry."""
        return asyncio.run(self._put(server))

    def _hset_packed(self, server: RedisServer) -> Cost:
        """By redis-py: the same keys and the same packed rows, each the only field of a hash. No expiry."""
        with self._timed(server) as (client, cost):
            for batch in self._batches:
                for rows in _cut(zip(batch.keys, batch.encoded.values, strict=True)):
                    pipeline = client.pipeline(transaction=False)
                    for key, value in rows:
                        pipeline.hset(key, "row", value)
                    pipeline.execute()
        return cost()

    def _hset_fields(self, server: RedisServer) -> Cost:
        """By redis-py: a field for each feature, as other feature stores keep them. No expiry."""
        with self._timed(server) as (client, cost):
            for batch in self._batches:
                for rows in _cut(zip(batch.keys, batch.features, strict=True)):
                    pipeline = client.pipeline(transaction=False)
                    for key, fields in rows:
                        pipeline.hset(key, mapping=fields)  # type: ignore[arg-type]  # it is invariant
                    pipeline.execute()
        return cost()

    async def _put(self, server: RedisServer) -> Cost:
        settings = self._settings.model_copy(update={"redis_url": SecretStr(server.url)})
        online = await RedisOnlineStore.open(settings)
        try:
            with self._timed(server) as (_, cost):
                epoch = await online.initialise(_EPOCH)
                await online.put(self._warm_up.encoded, epoch)  # connects, and loads the script
                cost.begin()
                for batch in self._batches:
                    counts = await online.put(batch.encoded, epoch)
                    if counts.applied != len(batch.keys):
                        raise MeasurementError(f"{len(batch.keys)} rows are newer than what is stored, but: {counts}")
            return cost()
        finally:
            await online.close()

    def _made(self, maker: RowMaker, what: Load) -> Iterator[Batch]:
        names = feature_names(maker.view)
        bodies = (value for _, value in what.bodies())
        for encoded, frame in maker.batches(bodies, timestamp_ms=time.time_ns() // 1_000_000):
            rows = [{name: _plain(value) for name, value in row.items()} for row in frame.select(names).to_dicts()]
            yield Batch(encoded, self._names.rows(encoded.view, encoded.keys), rows)

    @contextlib.contextmanager
    def _timed(self, server: RedisServer) -> Iterator[tuple["redis.Redis", "_Timed"]]:
        """A client of the server, which is emptied first, and the time until the end of the `with`."""
        with redis.Redis.from_url(server.url) as client:
            client.flushall()
            timed = _Timed(sum(len(batch.keys) for batch in self._batches), client)
            timed.begin()
            yield client, timed
            timed.end()


@dataclasses.dataclass(slots=True)
class _Timed:
    """Calling it gives the cost of a row, once the `with` that made it is left."""

    rows: int
    client: "redis.Redis"
    seconds: float = 0.0
    server_seconds: float = 0.0

    def begin(self) -> None:
        """Count from here."""
        self.server_seconds = -cpu_seconds(self.client)
        self.seconds = -time.perf_counter()

    def end(self) -> None:
        """Count up to here."""
        self.seconds += time.perf_counter()
        self.server_seconds += cpu_seconds(self.client)

    def __call__(self) -> Cost:
        return Cost(self.seconds / self.rows * 1e6, self.server_seconds / self.rows * 1e6)


def _cut(rows: Iterable[_T]) -> Iterator[list[_T]]:
    remaining = iter(rows)
    while part := list(itertools.islice(remaining, PIPELINE)):
        yield part


def _plain(value: float | bool | str) -> float | int | str:
    """As redis-py takes it: it refuses bool."""
    return int(value) if isinstance(value, bool) else value
