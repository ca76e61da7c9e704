"""What can be seen from outside at one moment: the workers' /metrics, the chains, and Redis.

Counters come from /metrics and die with their process: the last ones seen of it are kept. How far the rows in Redis and
in Parquet have come is read where it cannot be lost: from the applied marks, and from the chains.
"""

import asyncio
import dataclasses
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import aiohttp
import redis.asyncio
from prometheus_client.parser import text_string_to_metric_families

from scripts.flights.model import MODEL
from scripts.flights.replay import PARTITIONS
from scripts.flights.scene import Command
from sinks.redis import RedisOnlineStore
from stillwell.errors import StoreNotReady
from stillwell.layout import chain
from stillwell.layout.chain import ChainEnd, PartitionId
from stillwell.layout.online import MarkKey
from stillwell.layout.redis_keys import RedisKeys
from stillwell.spec import DefinitionsSpec
from stillwell.storage import ObjectStore

Labels = frozenset[tuple[str, str]]
Series = Mapping[tuple[str, Labels], float]
"""Values by the name of a metric and its labels."""

_EVENTS = "stillwell_events_total"
_ASSIGNED = "stillwell_assigned_partitions"
_SERVABLE = "stillwell_servable_seconds_bucket"
_HINTS = "stillwell_refresh_hints_total"
_REFRESHES = "stillwell_refreshes_total"
_ASKED = "stillwell_model_predictions_total"
_CALLS = "stillwell_model_seconds_count"
_REFRESHED = "stillwell_refreshed_seconds_bucket"
_SHOWN = (_EVENTS, _ASSIGNED, _SERVABLE, _HINTS, _REFRESHES, _ASKED, _CALLS, _REFRESHED)

_PATIENCE = aiohttp.ClientTimeout(total=3)
_SCANNED_AT_A_TIME = 2_000


@dataclasses.dataclass(frozen=True, slots=True)
class CommandLook:
    """A worker or the service: what its process does, and how many partitions it holds. pid is None where there is no
    process."""

    name: str
    pid: int | None
    ready: bool
    partitions: int


@dataclasses.dataclass(frozen=True, slots=True)
class TopicLook:
    """A topic: records taken in by workers (some again after a kill), in Redis, and linked; of the latter, refused."""

    taken_in: int
    served: int
    linked: int
    rejected: int


@dataclasses.dataclass(frozen=True, slots=True)
class ViewLook:
    """A view: entities in Redis, rows in Parquet. servable: counts by upper bound in seconds, from 0 and cumulative."""

    entities: int
    rows: int
    servable: Mapping[float, float]


@dataclasses.dataclass(frozen=True, slots=True)
class ModelLook:
    """The model, as the workers count: hints taken in; predictions looked at, by what became of them (computed, fresh,
    given_up); calls; entities that it had no answer of use for; predictions in Parquet. refreshed: counts by upper
    bound in seconds, from 0 and cumulative, from a hint to its prediction."""

    hints: int
    became: Mapping[str, int]
    calls: int
    failed: int
    rows: int
    refreshed: Mapping[float, float]


@dataclasses.dataclass(frozen=True, slots=True)
class Look:
    """Everything at one moment; at: seconds of a clock that does not jump. files: in Parquet, raw archive included."""

    at: float
    workers: tuple[CommandLook, ...]
    service: CommandLook
    topics: Mapping[str, TopicLook]
    views: Mapping[str, ViewLook]
    model: ModelLook
    files: int

    @property
    def linked(self) -> int:
        """Records that the chains cover."""
        return sum(topic.linked for topic in self.topics.values())


class Observer:
    """Looks at the scene."""

    def __init__(
        self,
        workers: Sequence[Command],
        service: Command,
        definitions: DefinitionsSpec,
        online: RedisOnlineStore,
        client: "redis.asyncio.Redis",
        keys: RedisKeys,
        objects: ObjectStore,
    ) -> None:
        self._workers = workers
        self._service = service
        self._views = {view.name: view.source.topic for view in definitions.views}
        self._versions = {view.name: view.version for view in definitions.views}
        self._online = online
        self._client = client
        self._keys = keys
        self._chains = _Chains(objects)
        self._marks = {
            id: [MarkKey(id, view, self._versions[view]) for view, source in self._views.items() if source == id.topic]
            for topic, count in PARTITIONS.items()
            for id in (PartitionId(topic, 1, number) for number in range(count))
        }
        self._seen: dict[tuple[str, int], Series] = {}
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close the connections of its own."""
        if self._session is not None:
            await self._session.close()

    async def served(self) -> int:
        """How many records have all their rows in Redis."""
        return sum((await self._served()).values())

    async def _served(self) -> dict[str, int]:
        """The same for each topic."""
        served = dict.fromkeys(PARTITIONS, 0)
        flat = [mark for marks in self._marks.values() for mark in marks]
        try:
            positions = iter(await self._online.read_marks(flat))
        except StoreNotReady:  # nobody has ever opened a partition
            return served
        for id, marks in self._marks.items():
            served[id.topic] += min(next(positions) or 0 for _ in marks)
        return served

    async def look(self) -> Look:
        """Everything, now."""
        service, *workers = await asyncio.gather(*map(self._look_at, [self._service, *self._workers]))
        served, entities = await self._served(), await self._entities()
        await asyncio.to_thread(self._chains.follow)
        counters: Counter[tuple[str, Labels]] = Counter()
        for series in self._seen.values():
            counters.update(series)
        return Look(
            at=time.monotonic(),
            workers=tuple(workers),
            service=service,
            topics={
                topic: TopicLook(
                    taken_in=_count(counters, _EVENTS, topic=topic),
                    served=served[topic],
                    linked=self._chains.records[topic],
                    rejected=self._chains.rejected[topic],
                )
                for topic in PARTITIONS
            },
            views={
                view: ViewLook(entities[view], self._chains.rows[view], _buckets(counters, _SERVABLE, view=view))
                for view in self._views
            },
            model=ModelLook(
                hints=_count(counters, _HINTS, model=MODEL),
                became={
                    became: _count(counters, _REFRESHES, model=MODEL, became=became)
                    for became in ("computed", "fresh", "given_up")
                },
                calls=_count(counters, _CALLS, model=MODEL),
                failed=_count(counters, _ASKED, model=MODEL) - _count(counters, _ASKED, model=MODEL, answer="answered"),
                rows=self._chains.rows[MODEL],
                refreshed=_buckets(counters, _REFRESHED, model=MODEL),
            ),
            files=self._chains.files,
        )

    async def _look_at(self, worker: Command) -> CommandLook:
        process = worker.process
        if process is None:
            return CommandLook(worker.name, None, False, 0)
        ready, text = await asyncio.gather(self._page(worker, "readyz"), self._page(worker, "metrics"))
        partitions = 0
        if text is not None:
            series = _parse(text)
            self._seen[worker.name, worker.generation] = series
            partitions = int(sum(value for _, value in _find(series, _ASSIGNED)))
        return CommandLook(worker.name, process.pid, ready is not None, partitions)

    async def _page(self, worker: Command, path: str) -> str | None:
        """A page of a worker's; None where it says no, or nothing."""
        self._session = self._session or aiohttp.ClientSession(timeout=_PATIENCE)
        try:
            async with self._session.get(f"{worker.url}/{path}") as answer:
                return await answer.text() if answer.status == 200 else None
        except (aiohttp.ClientError, TimeoutError):
            return None

    async def _entities(self) -> Counter[str]:
        """How many entities each view has in Redis."""
        found: Counter[str] = Counter()
        async for key in self._client.scan_iter(match=self._keys.prefix + b"f:*", count=_SCANNED_AT_A_TIME):
            found[key.rpartition(b":")[2].decode()] += 1
        return found


class _Chains:
    """What the chains cover, followed from where they ended when they were last looked at."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._ends: dict[PartitionId, ChainEnd] = {}
        self.records: Counter[str] = Counter()
        self.rejected: Counter[str] = Counter()
        self.rows: Counter[str] = Counter()
        self.files = 0

    def follow(self) -> None:
        for id in chain.partitions(self._objects):
            if id not in self._ends:
                data = self._objects.read(id.genesis_path)
                self._ends[id] = ChainEnd(chain.decode_genesis(data, id.genesis_path).start, chain.digest(data))
            for link in chain.follow(self._objects, id, self._ends[id]):
                self._ends[id] = chain.end_at(link)
                self.records[id.topic] += link.records
                self.rejected[id.topic] += max((account.rejected for account in link.views), default=0)
                self.files += len(link.files)
                for account in link.views:
                    self.rows[account.view] += account.rows


def _parse(text: str) -> Series:
    """The metrics that are shown; to parse all of them twice a second would cost several per cent of a core."""
    text = "".join(line for line in text.splitlines(keepends=True) if line.startswith(_SHOWN))
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def _find(series: Series, name: str, **labels: str) -> Iterator[tuple[Mapping[str, str], float]]:
    """The labels and values of a metric, of those that have these labels among theirs."""
    for (found, its_labels), value in series.items():
        if found == name and labels.items() <= its_labels:
            yield dict(its_labels), value


def _count(series: Series, name: str, **labels: str) -> int:
    return int(sum(value for _, value in _find(series, name, **labels)))


def _buckets(series: Series, name: str, **labels: str) -> dict[float, float]:
    return {float(found["le"]): value for found, value in _find(series, name, **labels)}
