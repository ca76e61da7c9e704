"""The query service, put together: settings in, a site that answers out. The only place that knows real stores."""

import asyncio
import contextlib
import dataclasses
import functools
import gc
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Sequence
from importlib.metadata import version
from typing import Protocol, TypeVar

import structlog
import uvloop
from prometheus_client import CONTENT_TYPE_LATEST

from serving import metrics as shown
from serving import v1
from serving.busy_poll import BusyPoll
from serving.connections import Server
from serving.features import Features
from serving.limits import Limits
from serving.metrics import Metrics
from serving.openapi import Names
from serving.pages import FeastPages, OwnPages
from serving.predictions import NoPredictionPages, PredictionPages
from serving.processes.seat import Seat
from serving.processes.siblings import Siblings
from serving.processes.sockets import BACKLOG, bind
from serving.pushing.batch import ViewBatches
from serving.pushing.pages import NoPushPages, PushPages
from serving.pushing.pusher import Pusher
from serving.pushing.repeated import Repeated
from serving.pushing.topics import PushTopics
from serving.status_pages import StatusPages, openapi_page
from serving.web import NOWHERE, Bounds, Page, Site
from sinks.archive import Archive
from sinks.push_log import KafkaPushLog
from sinks.push_producer import push_producer
from sinks.redis import RedisOnlineStore
from sinks.redis_answers import RedisAnswers
from sinks.redis_link import RedisLink
from sinks.redis_predictions import RedisPredictions
from sinks.redis_reader import RedisReader
from sinks.refresh_topic import RefreshTopic
from stillwell.instants import now, now_ms, now_us
from stillwell.kafka_connection import connection
from stillwell.kafka_topics import KafkaTopics, TopicsWhenAsked
from stillwell.known_views import known_views
from stillwell.layout.redis_keys import RedisKeys
from stillwell.predictions.columns import ModelReaders
from stillwell.predictions.engine import Engine
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
from stillwell.spec import DefinitionsSpec, ModelSpec
from stillwell.storage import ObjectStore, open_store
from stillwell.threads import ThreadPool

_log = structlog.get_logger(__name__)

_CONNECTIONS = 8
"""To Redis, for writes that are under way at once: each carries what was pushed at one moment. Redis does one call
after the other: some are there while answers travel, and more would wait there instead of here."""

_MOST_ROWS = 100_000
"""Pushed rows that may be under way at once: a hundred pushes as large as may be (1,000 rows in 1 MiB), which take
some times the 100 MiB of their bodies in memory. Small ones reach STILLWELL_SERVE_IN_FLIGHT first."""

_LAST_ANSWERS = 10.0
"""Seconds that requests under way have when the service is told to end. The sum of all that its end may take is in
docs/reference/serving.md, for the platform's own patience."""

_T = TypeVar("_T")


def serve(
    settings: Settings,
    definitions: DefinitionsSpec,
    seat: Seat | None = None,
    started: Callable[[], None] = lambda: None,
) -> None:
    """Answer requests until SIGTERM or SIGINT. seat: of this process among those of a service of several. started:
    called once it answers.

    Raises SettingsError where it cannot listen.
    """
    uvloop.run(_serve(settings, definitions, seat, started))


async def _serve(
    settings: Settings, definitions: DefinitionsSpec, seat: Seat | None, started: Callable[[], None]
) -> None:
    """Build, listen, and answer until told to end. What was built is closed in the opposite order: the last requests
    are answered before anything that they need is gone."""
    ended = _told_to_end(seat)
    async with contextlib.AsyncExitStack() as closing:
        building = _Building(settings, definitions, RedisKeys(settings.project, settings.namespace), Metrics(), closing)
        rows = _rows(building)
        marks = Marks(rows, building.keys, settings.project, definitions.views)
        models = _models(building, rows)
        features = _features(building, rows, models, marks)
        pushing = _push_pages(building, marks, features.names) if settings.push else NoPushPages()
        siblings = _siblings(building, seat)
        site = _site(
            building,
            features,
            [
                FeastPages(features),
                OwnPages(features),
                StatusPages(features, siblings, CONTENT_TYPE_LATEST, ended.is_set),
                pushing,
                PredictionPages(features, models, now_us, features.names) if models else NoPredictionPages(features),
            ],
        )
        features.known.begin()
        await _listen(building, site, seat)
        await siblings.start()
        closing.push_async_callback(siblings.close)
        started()
        url = f"http://{settings.serve_host}:{settings.serve_port}"
        _log.info("query service answers", url=url, process=os.getpid())
        # What is there by now stays: to look at all of it again and again would hold requests up for 50 ms.
        gc.collect()
        gc.freeze()
        await ended.wait()
        site.ending = True
        await marks.close()
        _log.info("query service ends", in_flight=site.in_flight)


@dataclasses.dataclass(frozen=True, slots=True)
class _Building:
    """What each part is built of. closing: where it says how it is closed."""

    settings: Settings
    definitions: DefinitionsSpec
    keys: RedisKeys
    metrics: Metrics
    closing: contextlib.AsyncExitStack


class _Pages(Protocol):
    """Some paths of the service."""

    def pages(self) -> list[Page]:
        """For a site."""


def _told_to_end(seat: Seat | None) -> asyncio.Event:
    """Set by SIGTERM, by SIGINT, and by the end of the process that started us."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for told in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(told, ended.set)
    if seat:
        loop.add_reader(seat.leash, ended.set)  # its other end is held by that process, and closes with it
    return ended


def _rows(building: _Building) -> RedisReader:
    """What reads rows, predictions and marks, for all requests together."""
    settings, metrics = building.settings, building.metrics
    timeout = settings.serve_timeout.total_seconds()
    link = RedisLink(settings.redis_url.get_secret_value(), timeout, connections=1)
    rows = RedisReader(link, building.keys.ready, timeout, metrics.redis_call)
    building.closing.push_async_callback(rows.close)
    metrics.read(shown.READERS, lambda: rows.waiting)
    return rows


def _features(building: _Building, rows: RedisReader, models: ModelReaders | None, marks: Marks) -> Features:
    settings, definitions = building.settings, building.definitions
    features = Features(
        definitions,
        FeatureReader(rows, building.keys, now_us, models),
        Limits(settings.serve_rows, settings.serve_features, settings.serve_values, settings.serve_push_rows),
        building.metrics,
        models=models,
        # Also where nothing is pushed by way of here: a token may come from another service of the same store.
        marks=marks,
        pushed=[push_topic(settings.project, view.name) for view in definitions.views],
        registered=lambda: list(known_views(open_store(settings.offline_root), definitions).values()),
    )
    building.closing.push_async_callback(features.known.close)
    return features


def _push_pages(building: _Building, marks: Marks, names: Names) -> PushPages:
    pusher = _pusher(building)
    answers = RedisAnswers(_link(building), building.keys)
    building.metrics.read(shown.PUSHING, lambda: pusher.rows)
    building.metrics.read(shown.AFTER, lambda: marks.waiting)
    return PushPages(pusher, Repeated(answers), building.settings.serve_push_rows, building.metrics, names)


def _siblings(building: _Building, seat: Seat | None) -> Siblings:
    """The other processes of the service. Started when this one answers."""
    metrics = building.metrics
    metrics.set(shown.STARTED_ANEW, seat.restarts if seat else 0)
    metrics.set(shown.BUILD_INFO, 1, version("stillwell"))
    number, of, folder = (seat.number, seat.of, seat.folder) if seat else (0, 1, None)
    return Siblings(number, of, folder, lambda: shown.snapshot([metrics]))


def _site(building: _Building, features: Features, paths: Sequence[_Pages]) -> Site:
    """All pages, and the document that describes them."""
    pages = [page for each in paths for page in each.pages()]
    pages.append(openapi_page(pages, features.names))
    metrics = building.metrics
    site = Site(pages, v1.error_body, _bounds(building.settings), metrics.request)
    metrics.begin_pages([*(page.path for page in pages), NOWHERE])
    metrics.read(shown.IN_FLIGHT, lambda: site.in_flight)
    metrics.read(shown.CONNECTIONS, lambda: site.open)
    metrics.read(shown.TURNED_AWAY, lambda: site.turned_away)
    return site


async def _listen(building: _Building, site: Site, seat: Seat | None) -> None:
    """Answer from now on."""
    microseconds = building.settings.serve_busy_poll_us
    server = Server(site, BusyPoll(microseconds / 1e6) if microseconds else None)
    building.closing.push_async_callback(server.end, _LAST_ANSWERS)
    for each in _sockets(building.settings, seat):
        await server.listen(each, BACKLOG)


def _pusher(building: _Building) -> Pusher:
    """What carries out pushes. Neither Kafka nor the offline store are asked before the first one."""
    settings, closing = building.settings, building.closing
    known = _push_topics(building)
    log = _push_log(building, known.forget)
    online = RedisOnlineStore(_link(building), building.keys)
    threads = ThreadPool("push", threads=1)
    closing.callback(threads.close)
    views = {
        view.name: ViewBatches(settings.project, view, settings.redis_grace, settings.max_future)
        for view in building.definitions.views
    }

    def functions(view: str) -> ThreadPool:
        own = ThreadPool(f"push {view}", threads=1)
        closing.callback(own.close)
        return own

    pusher = Pusher(
        building.definitions,
        views,
        log,
        known,
        online,
        threads,
        functions,
        now_ms,
        _MOST_ROWS,
        broken=building.metrics.broken,
    )
    for view in views.values():
        building.metrics.begin_rules(view.topic, view.rules)
    closing.push_async_callback(pusher.close)
    return pusher


def _push_topics(building: _Building) -> PushTopics:
    """Which incarnation of each push topic is in force, as the offline store has it."""
    settings, closing = building.settings, building.closing
    opening = ThreadPool("offline", threads=2)
    closing.callback(opening.close)
    kafka, timeout = connection(settings), settings.push_timeout.total_seconds()
    topics = TopicsWhenAsked(lambda: KafkaTopics(kafka, patience=timeout / 2))
    closing.push_async_callback(topics.stop)
    store = functools.cache(lambda: open_store(settings.offline_root))
    known = PushTopics(Archive(_Objects(store, opening), _once, now, _name()), topics, timeout)
    closing.push_async_callback(known.close)
    return known


def _push_log(building: _Building, made_anew: Callable[[str], None] = lambda topic: None) -> KafkaPushLog:
    """A way to the push topics. made_anew: told of a topic whose offsets begin again."""
    settings = building.settings
    kafka, timeout = connection(settings), settings.push_timeout.total_seconds()
    log = KafkaPushLog(lambda: push_producer(kafka, timeout), timeout, settings.push_bytes, made_anew)
    building.closing.push_async_callback(log.close)
    return log


def _models(building: _Building, rows: RedisReader) -> ModelReaders | None:
    """What reads predictions, and computes them; None where the definitions have no model. Neither Kafka nor a model's
    server is asked before the first read that needs it."""
    definitions, keys = building.definitions, building.keys
    if not definitions.models:
        return None
    kept = _predictions_kept(building) if building.settings.push else None
    store = RedisPredictions(_link(building), keys)
    hints, close_hints = _hints(building)
    made = {
        model.name: ModelReader(_engine(building, model, store, kept), rows, keys, hints, now_us, building.metrics)
        for model in definitions.models
    }
    readers = ModelReaders(made, definitions, now_us)
    building.closing.push_async_callback(close_hints)
    building.closing.push_async_callback(readers.close)
    return readers


def _engine(building: _Building, model: ModelSpec, store: RedisPredictions, kept: LogBuffer | None) -> Engine:
    """What computes a model's predictions. kept: told of them."""
    building.metrics.begin_model(model.name)
    inference = open_inference(model, os.environ)
    building.closing.push_async_callback(inference.close)
    inputs = ModelInputs(model, building.definitions)
    return Engine(model, inputs, inference, store, building.keys, building.metrics, computed=kept.put if kept else None)


def _hints(building: _Building) -> tuple[HintBuffer, Callable[[], Awaitable[None]]]:
    """Hints for the workers, and what ends them: after who puts them, and before what computes."""
    settings = building.settings
    kafka = connection(settings)
    connected: list[RefreshTopic] = []

    async def connect() -> RefreshTopic:
        topic = await RefreshTopic.connect(kafka, refresh_topic(settings.project, settings.namespace))
        connected.append(topic)
        return topic

    hints = HintBuffer(connect)

    async def close() -> None:
        """Send no more hints, and then end what sends them."""
        await hints.close()
        for topic in connected:
            await topic.stop()

    return hints, close


def _predictions_kept(building: _Building) -> LogBuffer:
    """What is told of completed predictions, so that they come to rest."""
    log = PredictionLog(_push_log(building), building.settings.project, building.definitions.models, now_ms)
    kept = LogBuffer(log)
    building.closing.push_async_callback(kept.close)
    return kept


def _link(building: _Building) -> RedisLink:
    """Connections for what is not read by all together."""
    settings = building.settings
    link = RedisLink(settings.redis_url.get_secret_value(), settings.serve_timeout.total_seconds(), _CONNECTIONS)
    building.closing.push_async_callback(link.close)
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


def _sockets(settings: Settings, seat: Seat | None) -> tuple[socket.socket, ...]:
    if seat is None:
        (sockets,) = bind(settings.serve_host, settings.serve_port, 1)
        return sockets
    return tuple(socket.socket(fileno=each) for each in seat.sockets)


def _bounds(settings: Settings) -> Bounds:
    return Bounds(
        body=settings.serve_body_bytes,
        in_flight=settings.serve_in_flight,
        connections=settings.serve_connections,
        patience=settings.serve_client_timeout.total_seconds(),
        idle=settings.serve_idle_timeout.total_seconds(),
    )
