"""A worker's life with one partition on the twins: real opening, preparation, flow and chain; Kafka is a list.

Everything that decides runs as in production. What is left out is aiokafka, Faust and the network.
"""

import asyncio
import contextlib
import dataclasses
import datetime
import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import polars as pl

from sinks.archive import Archive
from stillwell.layout import chain, value
from stillwell.layout.chain import Link, PartitionId, TopicIncarnation
from stillwell.layout.entity_key import entity_key
from stillwell.layout.redis_keys import RedisKeys
from stillwell.pipeline import compile_pipeline
from stillwell.records import Headers, Outcome, Records
from stillwell.registry import register
from stillwell.spec import DefinitionsSpec, ViewSpec
from stillwell.storage import ObjectStore
from stillwell.testing.objects import MemoryStore
from stillwell.testing.online import MemoryOnlineStore, MemoryRedis
from stillwell.types import INT64, STRING
from streams.endings import FlowEnded, TopicReplaced
from streams.flow import Flow, Sinks
from streams.metrics import Metrics
from streams.opening import KafkaPartition, LogFacts, Opening
from streams.prepare import Pipeline, Preparation, Prepared
from streams.retry import Retry
from streams.window import Window
from tests.batches import column, feature, topic, view

_T = TypeVar("_T")

KEYS = RedisKeys("test", "test")
GRACE = datetime.timedelta(hours=1)
SOURCE = topic(column("customer", STRING), column("number", INT64))
VIEW = view(
    SOURCE,
    {"customer": (STRING, pl.col("T.customer"))},
    feature("number", INT64, pl.col("T.number")),
    name="Last",
    where=pl.col("T.number") >= 0,
)
PARTITION = PartitionId("t", 1, 0)


class Crash(BaseException):
    """The process dies here: nothing after it happens."""


@dataclasses.dataclass(slots=True)
class Log:
    """A partition in Kafka: values by offset; None is a gap (aborted, compacted). start moves with retention. headers:
    by offset, of those records that have any."""

    values: list[bytes | None]
    start: int = 0
    topic_id: str = "id-1"
    topic: str = "t"
    headers: Mapping[int, Headers] = dataclasses.field(default_factory=dict)

    @property
    def end(self) -> int:
        """The offset behind the last."""
        return len(self.values)

    def read(self, start: int, count: int) -> Records:
        """The offsets [start, start + count), as a fetch gives them."""
        end = min(start + count, self.end)
        found = [(offset, self.values[offset]) for offset in range(start, end) if self.values[offset] is not None]
        offsets = [offset for offset, _ in found]
        return Records(
            topic=self.topic,
            partition=0,
            start=start,
            end=end,
            offsets=np.array(offsets, np.int64),
            timestamps=np.array([_timestamp(offset) for offset in offsets], np.int64),
            keys=[None] * len(found),
            values=[body for _, body in found],
            headers=[self.headers.get(offset, ()) for offset in offsets],
        )


def _timestamp(offset: int) -> int:
    return 1_767_225_600_000 + offset


def some_log(rng: random.Random, length: int = 40) -> Log:
    """Orders in disorder, with ties, filtered ones, bad ones and gaps."""
    values: list[bytes | None] = []
    kinds = ["filtered", "bad", "gap", *rng.choices(["row", "filtered", "bad", "gap"], [7, 1, 1, 1], k=length - 3)]
    rng.shuffle(kinds)
    for number, kind in enumerate(kinds):
        seconds = rng.randrange(10)
        event: dict[str, object] = {
            "at": f"2026-01-01T00:00:{seconds:02}Z",
            "customer": f"c{rng.randrange(5)}",
            "number": -1 if kind == "filtered" else number,
        }
        values.append({"gap": None, "bad": b"{"}.get(kind, json.dumps(event).encode()))
    return Log(values)


class Objects:
    """The object store as the sinks see it, with a moment before each call in which others run."""

    def __init__(self, store: MemoryStore) -> None:
        self.store = store

    async def call(self, work: Callable[[ObjectStore], _T]) -> _T:
        """What the work returns."""
        await asyncio.sleep(0)
        return work(self.store)


class DeadLetters:
    """A dead-letter topic in memory."""

    def __init__(self) -> None:
        self.offsets: set[int] = set()
        self.faults: Callable[[], None] = lambda: None

    async def send(self, outcome: Outcome, incarnation: int) -> None:
        """Keep the rejects' offsets."""
        await asyncio.sleep(0)
        self.faults()
        self.offsets.update(reject.offset for reject in outcome.rejects)


class _Inline:
    async def call(self, work: Callable[..., _T], *arguments: Any) -> _T:
        return work(*arguments)


@dataclasses.dataclass(slots=True)
class World:
    """What outlives a worker."""

    log: Log
    store: MemoryStore = dataclasses.field(default_factory=MemoryStore)
    server: MemoryRedis = dataclasses.field(default_factory=lambda: MemoryRedis(lambda: _timestamp(0)))
    dead_letters: DeadLetters = dataclasses.field(default_factory=DeadLetters)
    committed: str | None = None


class Worker:
    """One worker that holds the partition; several at once are what zombies are."""

    def __init__(
        self,
        world: World,
        name: str,
        batch: int = 7,
        window_rows: int = 12,
        views: Sequence[ViewSpec] = (VIEW,),
        window_age: float = 1e9,
        pipeline: Pipeline | None = None,
    ) -> None:
        """pipeline: of the world's topic, if that is not the source of the views."""
        self.world = world
        for each in views:
            _register(world, each)
        self.online = MemoryOnlineStore(world.server, KEYS)
        self.metrics = Metrics()
        self._batch = batch
        retry = Retry("any", self.metrics, _no_sleep)
        self.sinks = Sinks(self.online, world.dead_letters, retry, retry, _Inline())
        self._preparation = Preparation(pipeline or compile_pipeline(SOURCE, views), GRACE, _now)
        self._opening = Opening(
            Archive(Objects(world.store), retry.until_done, _now, name),
            self.sinks,
            self._preparation,
            Window(window_rows, 1 << 30, window_age),
            self.metrics,
        )
        self._kafka = KafkaPartition(self._look, self._require_topic, self._commit)
        self.flow: Flow | None = None

    async def work(self) -> None:
        """Read the log to its end, opening the partition anew whenever a flow ends."""
        while True:
            with contextlib.suppress(FlowEnded):
                self.flow = await self.open()
                await self._run(self.flow)
                return

    async def open(self) -> Flow:
        """A flow that begins at the chain's end."""
        return await self._opening.open(0, self._kafka)

    async def _run(self, flow: Flow) -> None:
        running = asyncio.create_task(flow.run())
        feeding = asyncio.create_task(self._feed(flow))
        try:
            await asyncio.wait((running, feeding), return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                running.result()
            await feeding
        finally:
            for task in (feeding, running):
                task.cancel()
            await asyncio.gather(feeding, running, return_exceptions=True)

    async def _feed(self, flow: Flow) -> None:
        while flow.fetched < self.world.log.end:
            records = self.world.log.read(flow.fetched, self._batch)
            flow.expect(records.end, 0)
            flow.take(prepared(flow, records, self._preparation))
            await asyncio.sleep(0)
        await flow.flush()

    async def _look(self) -> LogFacts:
        log = self.world.log
        return LogFacts(log.topic_id, 1, log.start, log.end, self.world.committed)

    async def _require_topic(self, incarnation: TopicIncarnation) -> None:
        if incarnation.topic_id != self.world.log.topic_id:
            raise TopicReplaced("the topic was made anew")

    async def _commit(self, offset: int, metadata: str) -> None:
        self.world.committed = metadata


def _register(world: World, view: ViewSpec) -> None:
    """As a worker does before it starts; the same document each time, since it takes long to make."""
    if (view.name, view.version) not in _DOCUMENTS:
        made = MemoryStore()
        register(made, DefinitionsSpec(topics=(view.source,), views=(view,), entities=(view.entity,)), GRACE)
        _DOCUMENTS[view.name, view.version] = made.objects
    for path, document in _DOCUMENTS[view.name, view.version].items():
        world.store.objects.setdefault(path, document)


_DOCUMENTS: dict[tuple[str, int], dict[str, bytes]] = {}


async def _no_sleep(seconds: float) -> None:
    await asyncio.sleep(0)


def _now() -> datetime.datetime:
    return datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)


def links(world: World) -> list[Link]:
    """The chain's links, by a walk."""
    return list(chain.walk(world.store, PartitionId(world.log.topic, 1, 0))[1])


def expected(log: Log, start: int = 0) -> dict[str, int]:
    """The oracle: each customer's number, by event time, then offset."""
    newest: dict[str, tuple[str, int, int]] = {}
    for offset, body in enumerate(log.values):
        if offset >= start and body not in (None, b"{"):
            event = json.loads(body or b"")
            version = (event["at"], offset, event["number"])
            if event["number"] >= 0 and version > newest.get(event["customer"], ("", 0, 0)):
                newest[event["customer"]] = version
    return {customer: number for customer, (_, _, number) in newest.items()}


def stored(world: World) -> dict[str, int]:
    """What the online store holds of every customer."""
    layout = value.RowLayout.of(VIEW)
    found = {}
    for customer in (f"c{number}" for number in range(5)):
        (place,) = KEYS.rows(VIEW.name, [entity_key(VIEW.entity.keys, {"customer": customer})])
        if row := world.server.read(place):
            found[customer] = value.decode(layout, row).values["number"]
    return found  # type: ignore[return-value]


def bad_offsets(log: Log) -> Iterator[int]:
    """The offsets that must be in the dead letters."""
    return (offset for offset, body in enumerate(log.values) if body == b"{")


PREPARATION = Preparation(compile_pipeline(SOURCE, [VIEW]), GRACE, _now)


def prepared(flow: Flow, records: Records, preparation: Preparation | None = None) -> Prepared:
    """What the agent makes of one batch of a flow's; by default with the one view."""
    (made,) = (preparation or PREPARATION).prepare([(flow.id, records)]).batches
    return made
