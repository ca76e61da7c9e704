"""The query service, put together: settings in, an aiohttp application out. The only place that knows real stores."""

import asyncio
import contextlib
import signal
import time

import structlog
from aiohttp import web

from serving.limits import Limits
from serving.pages import FeastPages, Features, OwnPages, nowhere
from sinks.redis_link import RedisLink
from sinks.redis_reader import RedisReader
from stillwell.errors import SettingsError
from stillwell.layout.redis_keys import RedisKeys
from stillwell.reading.features import FeatureReader
from stillwell.reading.query import Catalog
from stillwell.settings import Settings
from stillwell.spec import DefinitionsSpec

_log = structlog.get_logger(__name__)

_LAST_ANSWERS = 10.0
"""Seconds that requests under way have when the service is told to end."""


def serve(settings: Settings, definitions: DefinitionsSpec) -> None:
    """Answer requests until SIGTERM or SIGINT. Raises SettingsError where it cannot listen."""
    asyncio.run(_serve(settings, definitions))


async def _serve(settings: Settings, definitions: DefinitionsSpec) -> None:
    ended = asyncio.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(each, ended.set)
    timeout = settings.serve_timeout.total_seconds()
    async with contextlib.AsyncExitStack() as closing:
        link = RedisLink(settings.redis_url.get_secret_value(), timeout, connections=1)
        keys = RedisKeys(settings.project, settings.namespace)
        rows = RedisReader(link, keys.ready, timeout)
        closing.push_async_callback(rows.close)
        runner = web.AppRunner(
            _application(settings, definitions, FeatureReader(rows, keys, lambda: time.time_ns() // 1_000)),
            access_log=None,
            handle_signals=False,
            shutdown_timeout=_LAST_ANSWERS,
        )
        await runner.setup()
        closing.push_async_callback(runner.cleanup)
        try:
            await web.TCPSite(runner, settings.serve_host, settings.serve_port).start()
        except OSError as error:
            raise SettingsError(
                f"STILLWELL_SERVE_PORT is {settings.serve_port}, where {settings.serve_host} cannot be listened at: "
                f"{error.strerror}. Give the service a port of its own"
            ) from error
        _log.info("query service answers", url=f"http://{settings.serve_host}:{settings.serve_port}")
        await ended.wait()
        _log.info("query service ends")


def _application(settings: Settings, definitions: DefinitionsSpec, reader: FeatureReader) -> web.Application:
    limits = Limits(settings.serve_rows, settings.serve_features, settings.serve_values)
    features = Features(Catalog(definitions), reader, limits)
    app = web.Application(client_max_size=settings.serve_body_bytes)
    for pages in (FeastPages(features), OwnPages(features)):
        app.add_routes(pages.routes())
    app.router.add_route("*", "/{path:.*}", nowhere)
    return app
