"""A query service over a store in memory, at an instant that the test says, and definitions for it to answer from."""

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from serving.limits import Limits
from serving.pages import FeastPages, Features, OwnPages, nowhere
from stillwell.layout.chain import PartitionId
from stillwell.layout.encoder import ViewEncoder
from stillwell.layout.redis_keys import RedisKeys
from stillwell.pipeline import compile_pipeline
from stillwell.reading.features import FeatureReader
from stillwell.reading.query import Catalog
from stillwell.spec import DefinitionsSpec, EntitySpec, FeatureSpec, KeySpec, ViewSpec
from stillwell.testing.online import MemoryOnlineStore, MemoryRedis
from stillwell.types import BOOL, BYTES, FLOAT32, FLOAT64, INT64, STRING, TIMESTAMP
from tests.batches import NOW_MS, column, event, feature, records, topic, view

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
LIMITS = Limits(rows=50, features=10, values=200)
NOW_US = NOW_MS * 1_000
"""The event time of every row, unless a test says otherwise."""


class Served:
    """The service, and the store that it reads."""

    def __init__(self) -> None:
        self.server = MemoryRedis(clock=lambda: NOW_MS)
        self.store = MemoryOnlineStore(self.server)
        self.now_us = NOW_US
        features = Features(
            Catalog(DEFINITIONS), FeatureReader(self.store, RedisKeys("test", "test"), lambda: self.now_us), LIMITS
        )
        app = web.Application(client_max_size=100_000)
        for pages in (FeastPages(features), OwnPages(features)):
            app.add_routes(pages.routes())
        app.router.add_route("*", "/{path:.*}", nowhere)
        self.client: TestClient[web.Request, web.Application] = TestClient(TestServer(app))

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

    async def get(self, path: str) -> tuple[int, Any]:
        """Status and body of an answer."""
        async with self.client.get(path) as response:
            assert response.content_type == "application/json"
            return response.status, await response.json()
