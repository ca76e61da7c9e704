"""Rows into Redis: put-if-newer, as the worker's sink writes them, against hashes that are overwritten blindly.

The rows are encoded beforehand. What is timed is packing commands, sending them, the server's work, and reading
replies. Every run writes each row twice: into an empty server, and then a newer one over each.
"""

import asyncio
import contextlib
import dataclasses
import itertools
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

import redis

from sinks.redis import RedisOnlineStore
from stillwell.layout.online import EncodedRows
from stillwell.layout.redis_keys import RedisKeys
from tests.benchmarks import load
from tests.benchmarks.load import Load
from tests.benchmarks.rows import RowMaker, feature_names
from tests.benchmarks.testbed import MeasurementError, Testbed

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
    """The same rows for every contender: so many entities, each twice, the second time newer."""

    def __init__(self, testbed: Testbed, rows: int) -> None:
        self._testbed = testbed
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

    def put_if_newer(self) -> Cost:
        """By the worker's sink, with key expiry."""
        return asyncio.run(self._put_if_newer())

    def hset_packed(self) -> Cost:
        """By redis-py: the same keys and the same packed rows, each the only field of a hash. No expiry."""
        with self._client() as client, self._timed() as cost:
            for batch in self._batches:
                for rows in _cut(zip(batch.keys, batch.encoded.values, strict=True)):
                    pipeline = client.pipeline(transaction=False)
                    for key, value in rows:
                        pipeline.hset(key, "row", value)
                    pipeline.execute()
        return cost()

    def hset_fields(self) -> Cost:
        """By redis-py: a field for each feature, as other feature stores keep them. No expiry."""
        with self._client() as client, self._timed() as cost:
            for batch in self._batches:
                for rows in _cut(zip(batch.keys, batch.features, strict=True)):
                    pipeline = client.pipeline(transaction=False)
                    for key, fields in rows:
                        pipeline.hset(key, mapping=fields)  # type: ignore[arg-type]  # it is invariant
                    pipeline.execute()
        return cost()

    async def _put_if_newer(self) -> Cost:
        self._testbed.redis.flushall()
        online = await RedisOnlineStore.open(self._settings)
        try:
            epoch = await online.initialise(_EPOCH)
            await online.put(self._warm_up.encoded, epoch)  # connects, and loads the script
            with self._timed() as cost:
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
    def _client(self) -> Iterator["redis.Redis"]:
        self._testbed.redis.flushall()
        with redis.Redis.from_url(self._testbed.stack.redis_url) as client:
            client.ping()
            yield client

    @contextlib.contextmanager
    def _timed(self) -> Iterator["_Timed"]:
        timed = _Timed(sum(len(batch.keys) for batch in self._batches))
        server, began = self._testbed.redis_cpu_seconds(), time.perf_counter()
        yield timed
        timed.seconds = time.perf_counter() - began
        timed.server_seconds = self._testbed.redis_cpu_seconds() - server


@dataclasses.dataclass(slots=True)
class _Timed:
    """Calling it gives the cost of a row, once the `with` that made it is left."""

    rows: int
    seconds: float = 0.0
    server_seconds: float = 0.0

    def __call__(self) -> Cost:
        return Cost(self.seconds / self.rows * 1e6, self.server_seconds / self.rows * 1e6)


def _cut(rows: Iterable[_T]) -> Iterator[list[_T]]:
    remaining = iter(rows)
    while part := list(itertools.islice(remaining, PIPELINE)):
        yield part


def _plain(value: float | bool | str) -> float | int | str:
    """As redis-py takes it: it refuses bool."""
    return int(value) if isinstance(value, bool) else value
