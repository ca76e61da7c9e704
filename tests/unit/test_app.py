"""How the worker's parts are put together: what no other test would miss."""

import threading
from typing import Any

import pytest

from sinks.redis import RedisOnlineStore
from stillwell.definitions.loading import load_definitions
from stillwell.errors import StoreUnavailable
from stillwell.settings import Settings
from stillwell.starting import Starting
from stillwell.storage import ObjectStore
from stillwell.testing.objects import MemoryStore
from stillwell.threads import ThreadedStore
from streams import app


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings whose Kafka, Redis and object store are not there."""
    for name, value in {
        "PROJECT": "test",
        "DEFINITIONS": "schemas",
        "KAFKA_BOOTSTRAP": "127.0.0.1:1",
        "REDIS_URL": "redis://127.0.0.1:1",
        "OFFLINE_URL": "/nowhere",
    }.items():
        monkeypatch.setenv(f"STILLWELL_{name}", value)
    return Settings.load()


@pytest.mark.parametrize(
    ("partition_fetch_bytes", "least"), [("4MiB", 1 << 20), ("256KiB", 256 << 10)], ids=["much", "less than a megabyte"]
)
def test_kafka_waits_for_more_as_long_as_it_is_told_and_never_for_what_cannot_come(
    partition_fetch_bytes: str, least: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A partition that may bring less than a megabyte would be waited for at each of its fetches, backlog or not."""
    made: dict[str, Any] = {}
    monkeypatch.setattr(app, "AIOKafkaConsumer", lambda **options: made.update(options))
    monkeypatch.setenv("STILLWELL_FETCH_WAIT", "70ms")
    monkeypatch.setenv("STILLWELL_PARTITION_FETCH_BYTES", partition_fetch_bytes)
    monkeypatch.setenv("STILLWELL_PROJECT", "test")
    monkeypatch.setenv("STILLWELL_DEFINITIONS", "schemas")
    monkeypatch.setenv("STILLWELL_KAFKA_BOOTSTRAP", "127.0.0.1:1")
    monkeypatch.setenv("STILLWELL_REDIS_URL", "redis://127.0.0.1:1")
    monkeypatch.setenv("STILLWELL_OFFLINE_URL", "/nowhere")
    app._consumer(Settings(), {})  # type: ignore[call-arg]  # all of it is in the environment
    assert made["fetch_max_wait_ms"] == 70
    assert made["fetch_min_bytes"] == least
    assert made["max_partition_fetch_bytes"] >= least


async def test_an_object_store_that_cannot_be_opened_yet_is_waited_for_and_holds_up_nobody(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bucket's credentials may come some seconds after the worker, and to ask for them takes as long."""
    store, asked_by = MemoryStore(), list[threading.Thread]()

    def open_store(url: str) -> ObjectStore:
        asked_by.append(threading.current_thread())
        if len(asked_by) < 3:
            raise StoreUnavailable("no credentials yet")
        return store

    class Opened(Exception):
        """Far enough."""

    async def register(objects: ThreadedStore, *_: object) -> None:
        assert await objects.call(lambda opened: opened) is store
        raise Opened

    async def nothing(*_: object) -> None:
        pass

    class Connected:
        close = stop = nothing

    async def connected(*_: object) -> Connected:
        return Connected()

    monkeypatch.setattr(app, "_started", connected)
    monkeypatch.setattr(app, "_require_topics", nothing)
    monkeypatch.setattr(RedisOnlineStore, "open", connected)
    monkeypatch.setattr(app, "open_store", open_store)
    monkeypatch.setattr(app, "_register", register)
    definitions = load_definitions(settings.definitions)
    line = app._Line(app.make_app(settings, definitions), settings, definitions, Starting())
    with pytest.raises(Opened):
        await line._connect()
    assert len(asked_by) == 3
    assert threading.main_thread() not in asked_by


def test_the_page_shows_from_the_start_how_old_rows_may_be_and_which_rules_may_be_broken(settings: Settings) -> None:
    """Before anything has come: or no alarm would compare with the one, or see a rise of the other."""
    made: Any = app.make_app(settings, load_definitions(settings.definitions))
    (line,) = [each for each in made._extra_service_instances or made._extra_services if isinstance(each, app._Line)]
    page = line.metrics.text().decode()
    assert 'stillwell_freshness_objective_seconds{view="AirportWeather"} 7200.0' in page
    rule = 'action="reject",column="miles",rule="> 0",topic="flights.arrivals"'
    assert f"stillwell_expectations_broken_total{{{rule}}} 0.0" in page


def test_the_web_server_answers_our_pages_and_an_index_and_nothing_else(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Faust would show its own router and tables on the port of the metrics, and to debug even more."""
    monkeypatch.setenv("APP_DEBUG", "1")
    web: Any = app.make_app(settings, load_definitions(settings.definitions)).web
    web.init_server()
    served = {route.resource.canonical for route in web.web_app.router.routes()}
    assert served == {"/", "/metrics", "/healthz", "/readyz"}
