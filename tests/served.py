"""A query service over a store in memory, at an instant that the test says, and definitions for it to answer from."""

import asyncio
import datetime
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import polars as pl
from aiohttp import web
from aiohttp.test_utils import BaseTestServer, TestClient
from yarl import URL

from serving import v1
from serving.connections import Server
from serving.features import Features
from serving.limits import Limits
from serving.metrics import Metrics, snapshot
from serving.pages import FeastPages, OwnPages
from serving.predictions import NoPredictionPages
from serving.processes.siblings import Siblings
from serving.pushing.batch import ViewBatches
from serving.pushing.pages import PushPages
from serving.pushing.pusher import Pusher
from serving.pushing.repeated import Repeated
from serving.status_pages import StatusPages
from serving.web import Bounds, Site
from stillwell.layout.chain import PartitionId
from stillwell.layout.encoder import ViewEncoder
from stillwell.layout.redis_keys import RedisKeys
from stillwell.pipeline import compile_pipeline
from stillwell.reading.after import Marks
from stillwell.reading.features import FeatureReader
from stillwell.spec import DefinitionsSpec, EntitySpec, FeatureSpec, KeySpec, ViewSpec
from stillwell.testing.online import MemoryOnlineStore, MemoryRedis
from stillwell.testing.push_log import MemoryPushLog
from stillwell.types import BOOL, BYTES, FLOAT32, FLOAT64, INT64, STRING, TIMESTAMP
from tests.batches import NOW_MS, column, event, feature, records, topic, view
from tests.pushed import Inline, MemoryAnswers, Topics

HOUR = datetime.timedelta(hours=1)
TOPIC = topic(
    column("id", INT64),
    column("name", STRING),
    column("amount", FLOAT64, nullable=True),
    column("seen", TIMESTAMP, nullable=True),
    column("raw", BYTES, nullable=True),
)
USER = EntitySpec(name="User", keys=(KeySpec(name="id", type=INT64),))
PLACE = EntitySpec(name="Place", keys=(KeySpec(name="id", type=INT64), KeySpec(name="name", type=STRING)))


def _view(name: str, entity: EntitySpec, ttl: datetime.timedelta, *features: FeatureSpec) -> ViewSpec:
    made = view(TOPIC, {key.name: (key.type, pl.col(f"T.{key.name}")) for key in entity.keys}, *features, name=name)
    return made.model_copy(update={"entity": entity, "ttl": ttl})


USERS = _view(
    "Users",
    USER,
    HOUR,
    feature("amount", FLOAT64, pl.col("T.amount"), nullable=True),
    feature("small", FLOAT32, pl.col("T.amount").cast(pl.Float32), nullable=True),
    feature("name", STRING, pl.col("T.name")),
    feature("seen", TIMESTAMP, pl.col("T.seen"), nullable=True),
    feature("raw", BYTES, pl.col("T.raw"), nullable=True),
    feature("large", BOOL, (pl.col("T.amount") > 100).fill_null(False)),
)
PLACES = _view("Places", PLACE, datetime.timedelta(0), feature("amount", FLOAT64, pl.col("T.amount"), nullable=True))
DEFINITIONS = DefinitionsSpec(entities=(USER, PLACE), topics=(TOPIC,), views=(USERS, PLACES))
BOUNDS = Bounds(body=100_000)
LIMITS = Limits(rows=50, features=10, values=200)
NOW_US = NOW_MS * 1_000
"""The event time of every row, unless a test says otherwise."""


class Listening(BaseTestServer):
    """A site on a port of its own."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self._connections = Server(site)

    async def start_server(self, loop: asyncio.AbstractEventLoop | None = None, **options: Any) -> None:
        """Called by who asks it."""
        own = socket.create_server(("127.0.0.1", 0))
        self.host, self.port = own.getsockname()
        self._root = URL(f"http://{self.host}:{self.port}")
        await self._connections.listen(own, 100)

    async def close(self) -> None:
        """Called by who has asked."""
        await self._connections.end(10.0)

    async def _make_runner(self, **options: Any) -> NoReturn:
        raise NotImplementedError


class Served:
    """The service, and the store that it reads; and a registry, if there is one."""

    def __init__(
        self,
        bounds: Bounds = BOUNDS,
        registered: Callable[[], Sequence[ViewSpec]] | None = None,
        clock: Callable[[], float] = time.monotonic,
        limits: Limits = LIMITS,
    ) -> None:
        self.server = MemoryRedis(clock=lambda: NOW_MS)
        self.store = MemoryOnlineStore(self.server)
        self.now_us = NOW_US
        keys = RedisKeys("test", "test")
        reader = FeatureReader(self.store, keys, lambda: self.now_us)
        self.metrics = Metrics()
        self.marks = Marks(self.store, keys, "test", DEFINITIONS.views)
        self.features = Features(
            DEFINITIONS, reader, limits, self.metrics, marks=self.marks, registered=registered, clock=clock
        )
        self.log = MemoryPushLog({f"test.push.{view.name}": 2 for view in DEFINITIONS.views})
        batches = {view.name: ViewBatches("test", view, HOUR, max_future=HOUR) for view in DEFINITIONS.views}
        threads = Inline()
        pusher = Pusher(
            DEFINITIONS, batches, self.log, Topics(), self.store, threads, lambda _: threads, lambda: NOW_MS, 1_000
        )
        self.answers = MemoryAnswers()
        push = PushPages(pusher, Repeated(self.answers), limits.rows, self.metrics)
        siblings = Siblings(0, 1, None, lambda: snapshot([self.metrics]))
        status = StatusPages(self.features, siblings, "text/plain", lambda: self.site.ending)
        own = (FeastPages(self.features), OwnPages(self.features), push, NoPredictionPages(self.features), status)
        pages = [page for each in own for page in each.pages()]
        self.site = Site(pages, v1.error_body, bounds, self.metrics.request)
        self.client: TestClient[web.BaseRequest, None] = TestClient(Listening(self.site))

    async def put(self, *events: Mapping[str, object], views: Sequence[ViewSpec] = (USERS, PLACES)) -> None:
        """Have the rows of these events in the store."""
        epoch = await self.store.initialise("epoch")
        made = compile_pipeline(TOPIC, views).run(records([event(**each) for each in events]))
        assert made.rejects == ()
        for each, rows in zip(views, made.rows, strict=True):
            encoded, _ = ViewEncoder(each, HOUR).encode(rows.frame, PartitionId("t", 1, 0))
            await self.store.put(encoded, epoch)

    async def post(self, path: str, **body: object) -> tuple[int, Any]:
        """Status and body of an answer."""
        async with self.client.post(path, json=body) as response:
            assert response.content_type == "application/json"
            return response.status, await response.json()

    async def post_bytes(self, path: str, body: bytes) -> tuple[int, Any]:
        """The same, of a body as it is."""
        async with self.client.post(path, data=body, headers={"Content-Type": "application/json"}) as response:
            return response.status, await response.json()

    async def get(self, path: str) -> tuple[int, Any]:
        """Status and body of an answer."""
        async with self.client.get(path) as response:
            assert response.content_type == "application/json"
            return response.status, await response.json()
