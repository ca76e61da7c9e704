"""The worker, put together: settings in, a Faust app out. The only place that knows the real sinks.

Started in this order, and stopped in the reverse:

    web pages     first, so that a probe is answered from the start: alive, not yet ready
    agents        before the consumer, or its first batches would have no subscriber
    the worker    Redis, object store, Kafka's facts and the dead-letter producer, then the consumer; it stops first,
                  so that it flushes what is in hand while all the others still work
"""

import asyncio
import contextlib
import datetime
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Any, Protocol, TypeVar

import faust
import structlog
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError
from faust.app.base import BootStrategy

from sinks.archive import Archive
from sinks.push_log import KafkaPushLog
from sinks.push_producer import push_producer
from sinks.redis import RedisOnlineStore
from sinks.redis_link import RedisLink
from sinks.redis_predictions import RedisPredictions
from sinks.refresh_topic import RefreshTopic, hint_producer
from stillwell.counting import lasting
from stillwell.errors import ModelError, SettingsError
from stillwell.instants import duration_ms, now, now_ms
from stillwell.kafka_connection import connection, unreachable
from stillwell.known_views import known_views
from stillwell.layout.redis_keys import RedisKeys
from stillwell.listening import cannot_listen
from stillwell.pipeline import compile_pipeline
from stillwell.predictions.engine import Engine
from stillwell.predictions.hint import refresh_topic
from stillwell.predictions.inference import open_inference
from stillwell.predictions.inputs import ModelInputs
from stillwell.predictions.keeping import PredictionLog
from stillwell.predictions.triggers import Triggers
from stillwell.pushing.pipeline import PushPipeline
from stillwell.pushing.topics import push_topics, pushed_views
from stillwell.redaction import hide_password
from stillwell.registry import register
from stillwell.settings import Settings
from stillwell.spec import DefinitionsSpec, ModelSpec, ViewSpec
from stillwell.starting import Starting
from stillwell.storage import open_store
from stillwell.threads import ThreadedStore, ThreadPool
from streams import web
from streams.cluster import Cluster
from streams.consumer import Batch, Limits
from streams.dead_letters import KafkaDeadLetters, dead_letter_producer
from streams.engine_metrics import EngineMetrics
from streams.flow import RefreshOnWrite
from streams.gate import RejectGate, RejectLimit
from streams.ingest import Ingest, Told, unseen
from streams.metrics import BUILD_INFO, OBJECTIVE, Metrics
from streams.prepare import Pipeline, Preparation
from streams.refresh import RefreshAgent
from streams.refresh_consumer import RefreshConsumer
from streams.refresh_hints import RefreshBatch
from streams.retry import Retries, Retry
from streams.tuning import settle
from streams.watch import Watchdog
from streams.window import Window
from streams.worker import Services, Worker

_log = structlog.get_logger(__name__)

_METADATA_MAX_AGE_MS = 10_000
"""How soon new partitions are noticed. With Kafka's own five minutes they would be left unread for so long."""

_NO_POLL_LIMIT_MS = 2**31 - 1
"""A consumer that waits for a sink must not be thrown out of its group: the watchdog judges instead (aiokafka never
lets one back in that idled past this)."""

_FETCH_MIN_BYTES = 1 << 20
"""What is worth an answer of Kafka's before `fetch_wait` is over. A batch costs some milliseconds however few records
it has: better to let the broker wait for more than to fetch a few."""

_UPLOADS_AT_A_TIME = 16
_UPLOADS_NICENESS = 10
"""Files are compressed all at once when a window closes, and nobody waits for them; batches come meanwhile."""

_SUBSCRIBED_POLL = 0.01

_REFRESH_TIMEOUT = 5.0
"""Seconds for a call of Redis, as for the worker's other ones: who waits for a refresh has time, and asks again."""
_REFRESH_CONNECTIONS = 8
"""Calls of Redis at once, of all models: each carries a batch, and mostly one or two models compute."""

_CLOSING_PATIENCE = 1.0
"""Seconds for each connection to say goodbye. They come on top of the drain deadline, while the platform counts to its
own; a worker that could not leave its group is missed when its session has timed out."""


class _Connection(Protocol):
    """What can be connected, and closed."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


_Client = TypeVar("_Client", bound=_Connection)


class _NoKafka(BootStrategy):
    """Faust without its own consumer, producer and tables: the worker brings what feeds the agents."""

    enable_kafka_consumer = False
    enable_kafka_producer = False

    def tables(self) -> list[Any]:
        return []


class _App(faust.App):
    BootStrategy = _NoKafka
    logger = logging.getLogger("faust.app")

    async def on_first_start(self) -> None:
        """Here Faust makes folders for tables, in the working directory. There are none, and it may be read-only."""


def make_app(
    settings: Settings,
    definitions: DefinitionsSpec,
    starting: Starting | None = None,
    told: Told = unseen,
) -> faust.App:
    """A Faust app that consumes the topics of these definitions. Raises SettingsError where there are none.

    starting: told what is waited for until partitions flow; told: what became of each batch.
    """
    app = _App(
        f"{settings.project}-{settings.namespace}",
        broker="kafka://unused",
        store="memory://",
        autodiscover=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        table_standby_replicas=0,
        agent_supervisor="mode.CrashingSupervisor",
        web_bind=settings.web_host,
        web_port=settings.web_port,
        # Faust's own pages would stand open beside ours: of partitions and tables, and in an environment with APP_DEBUG
        # of its agents and topics.
        web_router_enabled=False,
        web_tables_enabled=False,
        web_stats_enabled=False,
        web_graph_enabled=False,
    )
    line = _Line(app, settings, definitions, starting or Starting(), told)
    app.service(line)  # type: ignore[arg-type]  # an instance will do as well as a class, on_init_extra_service says
    for path, page in web.pages(line.metrics, line.health).items():
        _add_page(app, path, page)
    return app


class _Line(faust.Service):
    """The worker and all that it uses. Faust starts it after the agents, and stops it before them."""

    logger = logging.getLogger("faust.worker")

    def __init__(
        self,
        app: faust.App,
        settings: Settings,
        definitions: DefinitionsSpec,
        starting: Starting,
        told: Told = unseen,
    ) -> None:
        """Makes the agents. Raises SettingsError."""
        super().__init__()
        self.metrics = Metrics()
        self._starting = starting
        self._app = app
        self._settings = settings
        self._definitions = definitions
        self._connection = connection(settings)
        self._retries = Retries.of(self.metrics)
        self._preparations = [
            Preparation(pipeline, settings.redis_grace, now) for pipeline in _pipelines(settings, definitions)
        ]
        # One for each topic, whose agent prepares one round at a time: a slow transformation holds up its own alone.
        self._preparing = ThreadPool("prepare", len(self._preparations))
        self._filling = ThreadPool("archive", 1)
        self._channels = {each.topic.topic: app.channel(maxsize=0) for each in self._preparations}
        for each in self._preparations:
            topic = each.topic.topic
            gate = RejectGate(topic, RejectLimit(settings.reject_ratio, settings.reject_min_count))
            _add_agent(app, self._channels[topic], Ingest(each, gate, self._preparing, self.metrics, told))
            self.metrics.begin(topic, [view.name for view in each.views], each.rules)
            for view in each.views:
                if view.freshness:
                    self.metrics.set(OBJECTIVE, view.freshness.total_seconds(), view.name)
        self.metrics.set(BUILD_INFO, 1, version("stillwell"))
        self._refreshing = _Refresh(app, settings, definitions, self.metrics) if definitions.models else None
        self._worker: Worker | None = None
        self._closing = contextlib.AsyncExitStack()

    def health(self) -> web.Health:
        """How the worker does, for the probes."""
        return self._worker.health() if self._worker else web.Health(ready=False, details=("starting",))

    async def on_start(self) -> None:
        _log.info(
            "worker starts",
            version=version("stillwell"),
            project=self._settings.project,
            namespace=self._settings.namespace,
            group=self._settings.kafka_group,
            web=f"http://{self._settings.web_host}:{self._settings.web_port}",
        )
        self._app.flow_control.resume()  # once: until then channels hold back, and each time it clears them
        # Whoever is told to end while Faust still starts does so only afterwards: what may wait goes on its own.
        self.add_future(self._run())

    async def on_stop(self) -> None:
        """Close everything in reverse order, after draining within the deadline.

        Not to be drained is a worker that has failed: of what is in hand, something may never come to its end.
        """
        self._starting.end()
        worker, self._worker = self._worker, None
        if worker:
            await (worker.drop() if self._app.crashed else worker.drain())
        if self._refreshing and not self._app.crashed:
            await self._refreshing.stop()
        await self._closing.aclose()
        for threads in (self._preparing, self._filling):
            threads.close()
        _log.info("worker ended")

    async def _run(self) -> None:
        try:
            # A batch that is sent to a channel without a subscriber vanishes, and Faust has no event to wait for.
            channels = [*self._channels.values(), *([self._refreshing.channel] if self._refreshing else [])]
            while not all(channel.subscriber_count for channel in channels):  # noqa: ASYNC110
                await asyncio.sleep(_SUBSCRIBED_POLL)
            self._starting.at("the transformations, which are tried out")
            for each in self._preparations:
                await self._preparing.call(each.warm_up)
            self._worker = self._worker_over(await self._connect())
            self._starting.waits_for = self._waits_for
            async with asyncio.TaskGroup() as tasks:
                running = tasks.create_task(self._worker.run())
                if self._refreshing:
                    refreshing = tasks.create_task(self._refreshing.run())
                    running.add_done_callback(lambda _: refreshing.cancel())
        except BaseExceptionGroup as group:
            await self.crash(group.exceptions[0])
        except Exception as error:
            await self.crash(error)

    def _waits_for(self) -> str | None:
        """What a worker that is connected still waits for; None where it takes records in."""
        health, settings = self.health(), self._settings
        share = (
            f"its share of partitions in the group {settings.kafka_group}, which misses a worker that was killed after "
            f"{lasting(settings.session_timeout)}"
        )
        return None if health.ready else "; ".join(health.details) or share

    async def _connect(self) -> Services:
        """Connect to everything, in order; what was connected is closed again if a later step fails.

        What does not answer is waited for, as it is later on: a worker may be started, again and again, amid an outage.
        """
        settings, retries = self._settings, self._retries
        kafka_at = f"Kafka at {settings.kafka_bootstrap}"
        async with contextlib.AsyncExitStack() as opened:
            self._starting.at(kafka_at)
            cluster = await self._cluster(opened)
            self._starting.at(f"Redis at {hide_password(settings.redis_url.get_secret_value())}")
            online = await self._online(opened)
            self._starting.at(f"the offline store at {settings.offline_root}, where views are registered")
            objects = await self._objects(opened)
            self._starting.at(kafka_at)
            dead_letters = await self._dead_letters(opened)
            refresh = await self._refresh(opened, objects)
            kafka = await _connected(opened, retries.kafka, lambda: _consumer(settings, self._connection))
            self._closing = opened.pop_all()
        return Services(
            kafka=kafka,
            group=settings.kafka_group,
            cluster=cluster,
            online=online,
            archive=Archive(objects, retries.archive.until_done, now, f"{socket.gethostname()}:{os.getpid()}"),
            dead_letters=dead_letters,
            threads=self._filling,
            refresh=refresh,
        )

    async def _cluster(self, opened: contextlib.AsyncExitStack) -> Cluster:
        """What tells of Kafka, which has every topic that is read from or written to."""
        settings, retry = self._settings, self._retries.kafka
        cluster = await _connected(opened, retry, lambda: Cluster(self._connection))
        topics = [*self._channels, settings.dead_letter_topic]
        if self._refreshing:
            topics.append(self._refreshing.topic)
        pushes = push_topics(settings.project, self._definitions)
        await retry.until_done(lambda: _require_topics(cluster, topics, pushes))
        return cluster

    async def _online(self, opened: contextlib.AsyncExitStack) -> RedisOnlineStore:
        online = await self._retries.online.until_done(lambda: RedisOnlineStore.open(self._settings))
        opened.push_async_callback(_close, online.close)
        return online

    async def _objects(self, opened: contextlib.AsyncExitStack) -> ThreadedStore:
        """The offline store, with these definitions registered there."""
        settings, retry = self._settings, self._retries.archive
        uploads = ThreadPool("store", _UPLOADS_AT_A_TIME, _UPLOADS_NICENESS)
        opened.callback(uploads.close)
        # Not by a thread for uploads: gcsfs begins its own here, which would give way as they do.
        store = await retry.until_done(lambda: self._filling.call(open_store, settings.offline_root))
        objects = ThreadedStore(store, uploads)
        await retry.until_done(lambda: _register(objects, self._definitions, settings.redis_grace))
        return objects

    async def _dead_letters(self, opened: contextlib.AsyncExitStack) -> KafkaDeadLetters:
        producer = await _connected(opened, self._retries.dead_letters, lambda: dead_letter_producer(self._connection))
        return KafkaDeadLetters(producer, self._settings.dead_letter_topic)

    async def _refresh(self, opened: contextlib.AsyncExitStack, objects: ThreadedStore) -> RefreshOnWrite | None:
        """What asks for refreshes on writes, if there are models."""
        if self._refreshing is None:
            return None
        definitions = self._definitions

        async def versions() -> list[ViewSpec]:
            return list((await objects.call(lambda store: known_views(store, definitions))).values())

        return await self._refreshing.connect(opened, self._connection, self._retries, versions)

    def _worker_over(self, services: Services) -> Worker:
        settings = self._settings
        return Worker(
            services=services,
            preparations=self._preparations,
            deliver=self._deliver,
            retries=self._retries,
            window=Window(settings.window_rows, settings.window_bytes, settings.window_age.total_seconds()),
            limits=Limits(
                buffer_bytes=settings.buffer_bytes,
                rebalance_timeout=settings.rebalance_timeout.total_seconds(),
                drain_timeout=settings.drain_timeout.total_seconds(),
            ),
            watchdog=Watchdog(settings.watchdog_timeout.total_seconds()),
            metrics=self.metrics,
        )

    async def _deliver(self, batches: Sequence[Batch]) -> None:
        await self._channels[batches[0].records.topic].send(value=batches)


class _Refresh:
    """The refresh of predictions: hints that writes cause, and the agent that hints are for."""

    def __init__(self, app: faust.App, settings: Settings, definitions: DefinitionsSpec, metrics: Metrics) -> None:
        self.channel = app.channel(maxsize=0)
        self.topic = refresh_topic(settings.project, settings.namespace)
        self._settings = settings
        self._definitions = definitions
        self._metrics = metrics
        self._consumer: RefreshConsumer | None = None
        self._agent: RefreshAgent | None = None
        for model in definitions.models:
            metrics.begin_model(model.name)
        _add_refresh_agent(app, self.channel, self._take)

    async def connect(
        self,
        opened: contextlib.AsyncExitStack,
        connection: Mapping[str, Any],
        retries: Retries,
        versions: Callable[[], Awaitable[list[ViewSpec]]],
    ) -> RefreshOnWrite:
        """Everything that it needs, closed by `opened`; gives what asks for refreshes on writes.

        versions: every registered version of views, whose rows may be in Redis.
        """
        known = await retries.archive.until_done(versions)
        settings, definitions = self._settings, self._definitions
        producer = await _connected(opened, retries.refresh, lambda: hint_producer(connection))
        link = RedisLink(settings.redis_url.get_secret_value(), _REFRESH_TIMEOUT, _REFRESH_CONNECTIONS)
        opened.push_async_callback(_close, link.close)
        keys = RedisKeys(settings.project, settings.namespace)
        store = RedisPredictions(link, keys)
        engines = {model.name: await self._engine(opened, model, store, keys, known) for model in definitions.models}

        async def look_for_versions() -> None:
            found = await versions()
            for engine in engines.values():
                engine.inputs = ModelInputs(engine.model, definitions, found)

        log = self._keeping(opened, connection) if settings.push else None
        self._agent = RefreshAgent(engines, self._metrics, retries.refresh, log, look_for_versions)
        kafka = await _connected(opened, retries.kafka, lambda: _hint_consumer(settings, connection))
        self._consumer = RefreshConsumer(kafka, self.topic, self._agent, self._deliver)
        topic = RefreshTopic(producer, self.topic)
        return RefreshOnWrite(Triggers(definitions, keys), store, topic, retries.refresh)

    async def _engine(
        self,
        opened: contextlib.AsyncExitStack,
        model: ModelSpec,
        store: RedisPredictions,
        keys: RedisKeys,
        known: Sequence[ViewSpec],
    ) -> Engine:
        """What computes a model's predictions. known: every registered version of views."""
        inference = open_inference(model, os.environ)
        opened.push_async_callback(_close, inference.close)
        try:
            await inference.check()
        except ModelError as error:
            # Features do not depend on it, and it may come: who asks for its predictions is told why there is none.
            _log.warning("a model cannot be asked", model=model.name, error=str(error))
        inputs = ModelInputs(model, self._definitions, known)
        return Engine(model, inputs, inference, store, keys, EngineMetrics(self._metrics))

    def _keeping(self, opened: contextlib.AsyncExitStack, connection: Mapping[str, Any]) -> PredictionLog:
        """Where predictions go that were computed."""
        settings, timeout = self._settings, self._settings.push_timeout.total_seconds()
        pushed = KafkaPushLog(lambda: push_producer(connection, timeout), timeout, settings.push_bytes)
        opened.push_async_callback(_close, pushed.close)
        return PredictionLog(pushed, settings.project, self._definitions.models, now_ms)

    async def run(self) -> None:
        """Once connected, until cancelled or stopped."""
        assert self._consumer is not None
        await self._consumer.run()

    async def stop(self) -> None:
        """Tell Kafka what is done."""
        if self._consumer:
            await self._consumer.stop()

    async def _deliver(self, batch: RefreshBatch) -> None:
        await self.channel.send(value=batch)

    def _take(self, batch: RefreshBatch) -> None:
        assert self._agent is not None
        self._agent.take(batch)


def _add_refresh_agent(app: faust.App, channel: Any, taken: Callable[[RefreshBatch], None]) -> None:
    @app.agent(channel, name="refresh")
    async def take(batches: Any) -> None:
        async for batch in batches:
            taken(batch)


def _hint_consumer(settings: Settings, connection: Mapping[str, Any]) -> AIOKafkaConsumer:
    return AIOKafkaConsumer(
        **connection,
        group_id=f"{settings.kafka_group}.refresh",
        enable_auto_commit=False,
        auto_offset_reset="earliest",  # of hints that retention took, the next read or write says the same again
        isolation_level="read_committed",
        session_timeout_ms=duration_ms(settings.session_timeout),
        heartbeat_interval_ms=duration_ms(settings.session_timeout) // 5,
        rebalance_timeout_ms=duration_ms(settings.rebalance_timeout),
        max_poll_interval_ms=_NO_POLL_LIMIT_MS,
        metadata_max_age_ms=_METADATA_MAX_AGE_MS,
    )


def _pipelines(settings: Settings, definitions: DefinitionsSpec) -> list[Pipeline]:
    pipelines: list[Pipeline] = [
        compile_pipeline(topic, views, max_future=settings.max_future)
        for topic in definitions.topics
        if (views := definitions.views_of(topic))
    ]
    if settings.push:
        views = pushed_views(definitions)
        pipelines += [PushPipeline(settings.project, view, max_future=settings.max_future) for view in views]
    if not pipelines:
        raise SettingsError(f"{settings.definitions} defines no view: there is nothing to consume")
    return pipelines


def topics_of(settings: Settings, definitions: DefinitionsSpec) -> Mapping[str, Sequence[ViewSpec]]:
    """The topics that a worker consumes, and the views that each has rows for. Raises SettingsError for none."""
    return {each.topic.topic: each.views for each in _pipelines(settings, definitions)}


def _add_page(app: faust.App, path: str, page: Callable[[], web.Page]) -> None:
    @app.page(path, name=path)
    async def answer(view: Any, request: Any) -> Any:
        shown = page()
        return view.bytes(shown.body, headers={"Content-Type": shown.content_type}, status=shown.status)


def _add_agent(app: faust.App, channel: Any, ingest: Ingest) -> None:
    @app.agent(channel, name=f"ingest.{ingest.topic}")
    async def take(rounds: Any) -> None:
        async for batches in rounds:
            await ingest.take(batches)


def _consumer(settings: Settings, connection: Mapping[str, Any]) -> AIOKafkaConsumer:
    return AIOKafkaConsumer(
        **connection,
        group_id=settings.kafka_group,
        enable_auto_commit=False,
        auto_offset_reset="none",
        isolation_level="read_committed",
        max_partition_fetch_bytes=settings.partition_fetch_bytes,
        fetch_min_bytes=min(_FETCH_MIN_BYTES, settings.partition_fetch_bytes),
        fetch_max_wait_ms=duration_ms(settings.fetch_wait),
        session_timeout_ms=duration_ms(settings.session_timeout),
        heartbeat_interval_ms=duration_ms(settings.session_timeout) // 5,
        rebalance_timeout_ms=duration_ms(settings.rebalance_timeout),
        max_poll_interval_ms=_NO_POLL_LIMIT_MS,
        metadata_max_age_ms=_METADATA_MAX_AGE_MS,
    )


async def _connected(opened: contextlib.AsyncExitStack, retry: Retry, make: Callable[[], _Client]) -> _Client:
    """A client of Kafka's, connected, however long that takes; closed by `opened`."""
    client = await retry.until_done(lambda: _started(make))
    opened.push_async_callback(_close, client.stop)
    return client


async def _started(make: Callable[[], _Client]) -> _Client:
    """A fresh client of Kafka's, connected. Raises StoreUnavailable, and leaves nothing open, if that fails."""
    async with contextlib.AsyncExitStack() as failed:
        client = make()
        failed.push_async_callback(_close, client.stop)
        try:
            await client.start()
        except (KafkaError, OSError) as error:
            raise unreachable(error) from error
        failed.pop_all()
    return client


async def _close(stop: Callable[[], Awaitable[None]]) -> None:
    """Close a connection, or leave it open where its other end does not answer: the process ends anyway."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_CLOSING_PATIENCE):
            await stop()


async def _require_topics(cluster: Cluster, names: Sequence[str], pushes: Sequence[str]) -> None:
    missing = sorted(set(names) - (await cluster.topics(names)).keys())
    if missing:
        without = "; where nothing is pushed, set STILLWELL_PUSH=false" if set(missing) <= set(pushes) else ""
        raise SettingsError(
            f"Kafka has no topic {', '.join(missing)}; `stillwell topics create` creates all that the definitions, "
            f"their pushes and the dead letters need, or mend the name{without}"
        )


async def _register(objects: ThreadedStore, definitions: DefinitionsSpec, grace: datetime.timedelta) -> None:
    """Before a record is read: raises DefinitionError for a view that does otherwise than its version is registered."""
    cautions = await objects.call(lambda store: register(store, definitions, grace))
    for caution in cautions:
        _log.warning("caution", view=caution.view, version=caution.version, reason=caution.message)


def _require_port(settings: Settings) -> None:
    """Raises SettingsError where somebody listens already at the port of the web pages: Faust would end over it, later
    and in words of its own."""
    family = socket.AF_INET6 if ":" in settings.web_host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.web_host, settings.web_port))
        except OSError as error:
            taken = "Another worker, perhaps: give each on this host a port of its own"
            raise cannot_listen("WEB", settings.web_host, settings.web_port, error, taken) from error


def run_worker(
    settings: Settings,
    definitions: DefinitionsSpec,
    starting: Starting,
    told: Told = unseen,
) -> None:
    """Run until SIGTERM or SIGINT; drain, close, and return. Raises what no retry could mend.

    told: what became of each batch, in the order in which they are taken in.
    """
    _require_port(settings)
    # Not uvloop: to write into a connection that the other end has closed raises a RuntimeError there, which neither
    # aiokafka nor redis-py takes for a lost connection; and the worker is no faster by it.
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    if settings.log_level != "debug":
        # What these call errors is the exception that we raise, with a page of their own frames.
        for name in ("faust", "mode"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    worker = faust.Worker(
        make_app(settings, definitions, starting, told),
        loop=loop,
        redirect_stdouts=False,
        override_logging=False,
        quiet=True,
    )
    worker.spinner = None
    settle()
    try:
        loop.run_until_complete(worker.start())
    finally:
        worker.stop_and_shutdown()
