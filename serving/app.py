"""The query service, put together: settings in, a site that answers out. The only place that knows real stores."""

import asyncio
import contextlib
import datetime
import functools
import gc
import logging
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from typing import TypeVar

import structlog
import uvloop
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from serving import metrics as shown
from serving import v1
from serving.limits import Limits
from serving.metrics import Metrics
from serving.pages import FeastPages, Features, OwnPages
from serving.predictions import PredictionPages
from serving.processes.place import Place
from serving.processes.siblings import Siblings
from serving.processes.sockets import BACKLOG, bind
from serving.pushing.batch import ViewBatches
from serving.pushing.pages import PushPages
from serving.pushing.pusher import Pusher
from serving.pushing.repeated import Repeated
from serving.pushing.topics import PushTopics
from serving.status_pages import StatusPages, openapi_page
from serving.versions import Versions
from serving.web import NOWHERE, Bounds, Server, Site
from sinks.archive import Archive
from sinks.push_log import KafkaPushLog, push_producer
from sinks.redis import RedisOnlineStore
from sinks.redis_answers import RedisAnswers
from sinks.redis_link import RedisLink
from sinks.redis_predictions import RedisPredictions
from sinks.redis_reader import RedisReader
from sinks.refresh_topic import RefreshTopic
from stillwell.kafka_connection import connection
from stillwell.kafka_topics import KafkaTopics, TopicsWhenAsked
from stillwell.known_views import known_views
from stillwell.layout.redis_keys import RedisKeys
from stillwell.layout.stamp import topic_digest
from stillwell.predictions.columns import ModelReaders
from stillwell.predictions.engine import Engine, Unwatched
from stillwell.predictions.hint import refresh_topic
from stillwell.predictions.hinting import HintBuffer
from stillwell.predictions.inference import open_inference
from stillwell.predictions.inputs import ModelInputs
from stillwell.predictions.keeping import LogBuffer, PredictionLog
from stillwell.predictions.reading import ModelReader
from stillwell.pushing.record import push_topic
from stillwell.reading.after import Marks
from stillwell.reading.features import FeatureReader
from stillwell.settings import Settings
from stillwell.spec import DefinitionsSpec
from stillwell.storage import ObjectStore, open_store
from stillwell.threads import ThreadPool

_log = structlog.get_logger(__name__)

_CONNECTIONS = 8
"""To Redis, for writes that are under way at once: each carries what was pushed at one moment."""

_MOST_ROWS = 100_000
"""Pushed rows that may be under way at once; memory: some hundred megabytes at the most."""

_T = TypeVar("_T")

_LAST_ANSWERS = 10.0
"""Seconds that requests under way have when the service is told to end."""


def serve(settings: Settings, definitions: DefinitionsSpec, place: Place | None = None) -> None:
    """Answer requests until SIGTERM or SIGINT. place: of this process among those of a service of several.

    Raises SettingsError where it cannot listen.
    """
    # aiohttp writes a traceback for every client that speaks something else than HTTP.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    uvloop.run(_serve(settings, definitions, place))


async def _serve(settings: Settings, definitions: DefinitionsSpec, place: Place | None) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for told in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(told, ended.set)
    if place:
        # Its other end is held by the process that started us, and closes with it.
        loop.add_reader(place.leash, ended.set)
    timeout = settings.serve_timeout.total_seconds()
    metrics = Metrics()
    async with contextlib.AsyncExitStack() as closing:
        link = RedisLink(settings.redis_url.get_secret_value(), timeout, connections=1)
        keys = RedisKeys(settings.project, settings.namespace)
        rows = RedisReader(link, keys.ready, timeout, metrics.redis_call)
        closing.push_async_callback(rows.close)
        metrics.read(shown.READERS, lambda: rows.waiting)
        reader = FeatureReader(rows, keys, _now_us)
        features = Features(definitions, reader, _limits(settings), metrics)
        readers = await _models(settings, definitions, rows, keys, closing, metrics)
        if readers:
            features.models = reader.predictions = readers
        features.versions = Versions(
            lambda: list(known_views(open_store(settings.offline_root), definitions).values()),
            features.know,
            metrics.version_load,
        )
        closing.push_async_callback(features.versions.close)
        marks = Marks(rows, keys, settings.project, definitions.views)
        pushing: list[PushPages] = []
        if settings.push:
            pusher = await _pusher(settings, definitions, keys, closing)
            answers = RedisAnswers(_link(settings, closing), keys)
            pushing.append(PushPages(pusher, Repeated(answers), settings.serve_push_rows, metrics))
            features.marks = marks
            metrics.read(shown.PUSHING, lambda: pusher.rows)
            metrics.read(shown.AFTER, lambda: marks.waiting)
        siblings = Siblings(
            place.number if place else 0,
            place.of if place else 1,
            place.folder if place else None,
            lambda: shown.snapshot([metrics]),
        )
        status = StatusPages(features, siblings, CONTENT_TYPE_LATEST)
        pages = [page for each in (FeastPages(features), OwnPages(features), status) for page in each.pages()]
        pages += [page for each in pushing for page in each.pages()]
        if readers:
            pages += PredictionPages(features, readers, _now_us).pages()
        names = [push_topic(settings.project, view.name) for view in definitions.views]
        features.topics = {**features.topics, **{topic_digest(name): name for name in names}}
        pages.append(openapi_page(pages, features.names))
        site = Site(pages, v1.error_body, _bounds(settings), metrics.request)
        status.ending = lambda: site.ending
        metrics.begin_pages([*(page.path for page in pages), NOWHERE])
        metrics.read(shown.IN_FLIGHT, lambda: site.in_flight)
        metrics.read(shown.CONNECTIONS, lambda: site.open)
        metrics.read(shown.TURNED_AWAY, lambda: site.turned_away)
        metrics.set(shown.STARTED_ANEW, place.restarts if place else 0)
        metrics.set(shown.BUILD_INFO, 1, version("stillwell"))

        features.versions.begin()
        runner = web.ServerRunner(Server(site), shutdown_timeout=_LAST_ANSWERS)
        await runner.setup()
        closing.push_async_callback(runner.cleanup)
        for each in _sockets(settings, place):
            await web.SockSite(runner, each, backlog=BACKLOG).start()
        await siblings.start()
        closing.push_async_callback(siblings.close)
        url = f"http://{settings.serve_host}:{settings.serve_port}"
        _log.info("query service answers", url=url, process=os.getpid())
        # What is there by now stays: to look at all of it again and again would hold requests up for 50 ms.
        gc.collect()
        gc.freeze()
        await ended.wait()
        site.ending = True
        await marks.close()
        _log.info("query service ends", in_flight=site.in_flight)


async def _pusher(
    settings: Settings, definitions: DefinitionsSpec, keys: RedisKeys, closing: contextlib.AsyncExitStack
) -> Pusher:
    """What carries out pushes. Neither Kafka nor the offline store are asked before the first one."""
    timeout = settings.serve_push_timeout.total_seconds()
    kafka = connection(settings)
    topics = TopicsWhenAsked(lambda: KafkaTopics(kafka, patience=timeout / 2))
    store = functools.cache(lambda: open_store(settings.offline_root))
    opening = ThreadPool("offline", threads=2)
    archive = Archive(_Objects(store, opening), _once, lambda: datetime.datetime.now(datetime.UTC), _name())
    known = PushTopics(archive, topics, timeout)
    log = KafkaPushLog(lambda: push_producer(kafka, timeout), timeout, settings.serve_push_bytes, known.forget)
    threads = ThreadPool("push", threads=1)
    views = {
        view.name: ViewBatches(settings.project, view, settings.redis_grace, settings.max_future)
        for view in definitions.views
    }
    link = _link(settings, closing)
    pusher = Pusher(
        views, log, known, RedisOnlineStore(link, keys), threads, lambda: time.time_ns() // 1_000_000, _MOST_ROWS
    )
    for each in (opening, threads):
        closing.callback(each.close)
    for close in (topics.stop, known.close, log.close, pusher.close):
        closing.push_async_callback(close)
    return pusher


async def _models(
    settings: Settings,
    definitions: DefinitionsSpec,
    rows: RedisReader,
    keys: RedisKeys,
    closing: contextlib.AsyncExitStack,
    metrics: Metrics,
) -> ModelReaders | None:
    """What reads predictions, and computes them; None where the definitions have no model. Neither Kafka nor a model's
    server is asked before the first read that needs it."""
    if not definitions.models:
        return None
    kafka = connection(settings)
    connected: list[RefreshTopic] = []

    async def connect() -> RefreshTopic:
        topic = await RefreshTopic.connect(kafka, refresh_topic(settings.project, settings.namespace))
        connected.append(topic)
        return topic

    hints = HintBuffer(connect)
    kept = None
    if settings.push:
        timeout = settings.serve_push_timeout.total_seconds()
        log = KafkaPushLog(lambda: push_producer(kafka, timeout), timeout, settings.serve_push_bytes)
        closing.push_async_callback(log.close)
        kept = LogBuffer(PredictionLog(log, settings.project, definitions.models, lambda: time.time_ns() // 1_000_000))
        closing.push_async_callback(kept.close)

    async def close() -> None:
        """Send no more hints, and then end what sends them."""
        await hints.close()
        for topic in connected:
            await topic.stop()

    store = RedisPredictions(_link(settings, closing), keys)
    made = {}
    for model in definitions.models:
        metrics.begin_model(model.name)
        inference = open_inference(model, os.environ)
        closing.push_async_callback(inference.close)
        engine = Engine(model, ModelInputs(model, definitions), inference, store, keys, _Watching(metrics))
        if kept:
            engine.computed = functools.partial(kept.put, engine)
        made[model.name] = ModelReader(engine, rows, keys, hints, _now_us, metrics)
    readers = ModelReaders(made, definitions, _now_us)
    closing.push_async_callback(close)
    closing.push_async_callback(readers.close)
    return readers


class _Watching(Unwatched):
    """Counts of what engines do what reads do not tell."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def left(self, model: str, count: int) -> None:
        """Writes do not refresh some any longer."""
        self._metrics.left(model, count)


def _now_us() -> int:
    return time.time_ns() // 1_000


def _link(settings: Settings, closing: contextlib.AsyncExitStack) -> RedisLink:
    """Connections for what is not read by all together."""
    link = RedisLink(settings.redis_url.get_secret_value(), settings.serve_timeout.total_seconds(), _CONNECTIONS)
    closing.push_async_callback(link.close)
    return link


class _Objects:
    """The offline store, opened by the first call: a service that is only read from needs none."""

    def __init__(self, store: Callable[[], ObjectStore], threads: ThreadPool) -> None:
        self._store = store
        self._threads = threads

    async def call(self, work: Callable[[ObjectStore], _T]) -> _T:
        """What the work returns."""
        return await self._threads.call(lambda: work(self._store()))


async def _once(call: Callable[[], Awaitable[_T]]) -> _T:
    """Asks no second time: a client waits, and may come again."""
    return await call()


def _name() -> str:
    return f"{socket.gethostname()}-{os.getpid()}"


def _sockets(settings: Settings, place: Place | None) -> tuple[socket.socket, ...]:
    if place is None:
        (sockets,) = bind(settings.serve_host, settings.serve_port, 1)
        return sockets
    return tuple(socket.socket(fileno=each) for each in place.sockets)


def _limits(settings: Settings) -> Limits:
    return Limits(settings.serve_rows, settings.serve_features, settings.serve_values)


def _bounds(settings: Settings) -> Bounds:
    return Bounds(
        body=settings.serve_body_bytes,
        in_flight=settings.serve_in_flight,
        connections=settings.serve_connections,
        patience=settings.serve_client_timeout.total_seconds(),
        idle=settings.serve_idle_timeout.total_seconds(),
    )
