"""Memory: of rows in Redis, and of a worker that has many partitions and a backlog."""

import asyncio
import dataclasses
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path

from sinks.redis import RedisOnlineStore
from stillwell.layout.redis_keys import RedisKeys
from tests.benchmarks import load
from tests.benchmarks.load import Load
from tests.benchmarks.rows import RowMaker
from tests.benchmarks.testbed import Testbed
from tests.benchmarks.workers import Ingested, Workers

FEATURES = 50
PARTITIONS = 64

_WIDE_PACKAGE = "bench_wide_definitions"
_EPOCH = "bench"

_WIDE_DEFINITIONS = """\
from datetime import timedelta

from stillwell import Col, Entity, Feature, Float64, Int64, Key, Timestamp, Topic, View, col, feature


class User(Entity, owner="benchmarks"):
    user_id: Key[Int64]


class Event(Topic, name="wide", event_time="ts", start="earliest"):
    user_id: Col[Int64]
    ts: Col[Timestamp] = col(unit="us")
{columns}


class UserNow(View, source=Event, entity=User, keys={{"user_id": Event.user_id}}, ttl=timedelta(days=7)):
{features}
"""


@dataclasses.dataclass(frozen=True, slots=True)
class RowMemory:
    """Bytes a feature: what MEMORY USAGE says of a row's key, and how the server's whole memory grew (with the table
    of expiry times, and what the allocator rounds up)."""

    memory_usage: float
    server_growth: float

    def __str__(self) -> str:
        return f"{self.memory_usage:.2f} B a feature, {self.server_growth:.2f} B of all memory"


def of_rows(testbed: Testbed, rows: int) -> RowMemory:
    """Rows of a view of 50 floats, put by the worker's sink."""
    return asyncio.run(_of_rows(testbed, rows))


async def _of_rows(testbed: Testbed, rows: int) -> RowMemory:
    deployment = testbed.deploy("wide")
    _write_wide_definitions(deployment.folder)
    settings = deployment.loaded_settings()
    maker = RowMaker(_WIDE_PACKAGE, deployment.folder)
    online = await RedisOnlineStore.open(settings)
    try:
        epoch = await online.initialise(_EPOCH)
        before = int(testbed.redis.info("memory")["used_memory"])
        keys: list[bytes] = []
        for encoded, _ in maker.batches(_wide_events(rows), timestamp_ms=time.time_ns() // 1_000_000):
            await online.put(encoded, epoch)
            keys += RedisKeys(settings.project, settings.namespace).rows(encoded.view, encoded.keys)
    finally:
        await online.close()
    growth = int(testbed.redis.info("memory")["used_memory"]) - before
    pipeline = testbed.redis.pipeline(transaction=False)
    for key in keys:
        pipeline.memory_usage(key)
    used = sum(int(usage) for usage in pipeline.execute())
    return RowMemory(used / len(keys) / FEATURES, growth / len(keys) / FEATURES)


def of_a_worker(testbed: Testbed, events: int) -> Ingested:
    """A worker with 64 partitions that reads a backlog, all settings as they come."""
    now_us = time.time_ns() // 1_000
    filled = testbed.fill(Load(events, load.ALWAYS_NEW, first_ts=now_us - events), partitions=PARTITIONS)
    with Workers(testbed, testbed.deploy(filled.topic, PARTITIONS)) as workers:
        taken = workers.follow(filled, workers.until_first_event())
    testbed.remove(filled.topic)
    return taken


def _write_wide_definitions(folder: Path) -> None:
    columns = "\n".join(f"    f{number}: Col[Float64]" for number in range(FEATURES))
    features = "\n".join(f"    f{number}: Feature[Float64] = feature(Event.f{number})" for number in range(FEATURES))
    (folder / _WIDE_PACKAGE).mkdir()
    (folder / _WIDE_PACKAGE / "__init__.py").write_text(_WIDE_DEFINITIONS.format(columns=columns, features=features))


def _wide_events(count: int) -> Iterator[bytes]:
    chance = random.Random(1)
    now_us = time.time_ns() // 1_000
    for number in range(count):
        floats = {f"f{field}": chance.random() for field in range(FEATURES)}
        yield json.dumps({"user_id": chance.randrange(load.ALWAYS_NEW), "ts": now_us + number, **floats}).encode()
