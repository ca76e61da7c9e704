"""Pushing on twins: real batches, pusher and tokens; Kafka and Redis are in memory, and a worker may follow the log."""

import datetime
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import polars as pl

from serving.pushing.batch import Push, ViewBatches
from serving.pushing.pusher import PATIENCE_S, Pusher, Threads
from stillwell.layout.chain import PartitionId
from stillwell.layout.encoder import ViewEncoder
from stillwell.layout.online import Answer, MarkKey, MarkMove
from stillwell.layout.redis_keys import RedisKeys
from stillwell.pushing.pipeline import PushPipeline
from stillwell.pushing.record import To
from stillwell.records import Records
from stillwell.spec import DefinitionsSpec, ViewSpec
from stillwell.testing.online import MemoryOnlineStore, MemoryRedis
from stillwell.testing.push_log import MemoryPushLog
from stillwell.types import FLOAT64, INT64, STRING
from tests.batches import NOW_MS, column, event, feature, topic, view

_T = TypeVar("_T")

HOUR = datetime.timedelta(hours=1)
INCARNATION = 3
PARTITIONS = 4
SOURCE = topic(
    column("customer", STRING), column("amount", FLOAT64, nullable=True), column("step", INT64), sequence="step"
)
LAST = view(
    SOURCE,
    {"customer": (STRING, pl.col("T.customer"))},
    feature("amount", FLOAT64, pl.col("T.amount") * 2, nullable=True),
    feature("step", INT64, pl.col("T.step")),
    name="Last",
    where=pl.col("T.step") >= 0,
).model_copy(update={"ttl": HOUR})


def _split(event: Any) -> Sequence[dict[str, object]]:
    return [{"customer": part, "step": event.step} for part in event.customer.split("+") if part]


SPLIT = view(SOURCE, {"customer": (STRING, None)}, feature("step", INT64, None), name="Split", rows=_split)


class Inline:
    """Threads that are none. calls: how many they were given."""

    def __init__(self) -> None:
        self.calls = 0

    async def call(self, work: Callable[..., _T], *arguments: Any) -> _T:
        self.calls += 1
        return work(*arguments)


class Topics:
    """All push topics are of one incarnation."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.number = INCARNATION

    async def incarnation(self, topic: str) -> int:
        if self.error:
            raise self.error
        return self.number


class FasterWorker(Topics):
    """Asked by who has just appended to Kafka: by the time of the answer a worker has taken it in."""

    def __init__(self, world: "World") -> None:
        super().__init__()
        self.answers: list[Answer] = []
        self._world = world

    async def incarnation(self, topic: str) -> int:
        self.answers += await self._world.work()
        return await super().incarnation(topic)


def raw(customer: str = "c1", *, to: To = To.BOTH, whole: bool = False, **fields: object) -> Push:
    """A push of one event of `SOURCE` to `LAST`."""
    return Push("Last", [event(**{"customer": customer, "step": 1, **fields})], transform=True, to=to, whole=whole)


def together(*pushes: Push) -> Push:
    """One push of all that these push."""
    first = pushes[0]
    return Push(first.view, [value for push in pushes for value in push.values], first.transform, first.to)


class World:
    """Kafka, Redis, and one or several processes that push."""

    def __init__(self, views: Sequence[ViewSpec] = (LAST, SPLIT)) -> None:
        self.now_ms = NOW_MS
        self.keys = RedisKeys("test", "test")
        self.server = MemoryRedis(clock=lambda: self.now_ms)
        self.store = MemoryOnlineStore(self.server, self.keys)
        self.log = MemoryPushLog({f"test.push.{each.name}": PARTITIONS for each in views})
        self.topics = Topics()
        self.threads = Inline()
        self.functions: Threads = self.threads
        self.views = {each.name: each for each in views}
        self.epoch = ""

    async def ready(self) -> "World":
        self.epoch = await self.store.initialise("epoch")
        return self

    def pusher(self, most_rows: int = 1_000_000, patience: float = PATIENCE_S, **more: Any) -> Pusher:
        """Another process."""
        batches = {name: ViewBatches("test", each, HOUR, max_future=HOUR) for name, each in self.views.items()}
        definitions = DefinitionsSpec(entities=(), topics=(SOURCE,), views=tuple(self.views.values()))
        return Pusher(
            definitions,
            batches,
            self.log,
            self.topics,
            self.store,
            self.threads,
            lambda view: self.functions,
            lambda: self.now_ms,
            most_rows,
            patience,
            **more,
        )

    async def work(self, name: str = "Last") -> list[Answer]:
        """What a worker does with the whole log of a view; what became of its rows."""
        view, topic = self.views[name], f"test.push.{name}"
        pipeline, encoder = PushPipeline("test", view), ViewEncoder(view, HOUR)
        answers: list[Answer] = []
        for partition in range(PARTITIONS):
            kept = [each for each in self.log.records(topic) if each.place.partition == partition]
            id = PartitionId(topic, INCARNATION, partition)
            records = Records(
                topic=topic,
                partition=partition,
                start=0,
                end=len(kept),
                offsets=np.array([each.place.offset for each in kept], np.int64),
                timestamps=np.array([each.place.timestamp for each in kept], np.int64),
                keys=[each.record.key for each in kept],
                values=[each.record.value for each in kept],
                headers=[each.record.headers for each in kept],
            )
            rows, _ = encoder.encode(pipeline.run(records).rows[0].frame, id)
            (found,) = (await self.store.put_each([rows], self.epoch)).answers
            answers += found
            mark = MarkKey(id, name, view.version)
            await self.store.set_marks([MarkMove(mark, 0, 0)], self.epoch)
            await self.store.apply([], [MarkMove(mark, 0, max(1, len(kept)))], self.epoch)
        return answers

    def rows(self) -> dict[bytes, bytes]:
        """All rows in Redis."""
        return {key: value for key, (value, _) in self.server.dump().items() if b":f:{" in key}


class MemoryAnswers:
    """Where answers to pushes are kept, without end."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], bytes] = {}
        self.error: Exception | None = None

    async def find(self, view: str, digest: str) -> bytes | None:
        if self.error:
            raise self.error
        return self.kept.get((view, digest))

    async def keep(self, view: str, digest: str, answer: bytes, seconds: int) -> None:
        if self.error:
            raise self.error
        self.kept[view, digest] = answer
