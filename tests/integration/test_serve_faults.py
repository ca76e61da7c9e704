"""A query service under many readers while its Redis is emptied, slow, silent, cut off or half open."""

import collections
import concurrent.futures
import contextlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import redis

from stillwell.local.redis_server import RedisServer
from tests.integration import orders
from tests.integration.conftest import Deployment
from tests.integration.proof import until_linked
from tests.integration.test_serve import ask, until_healthy
from tests.services import Proxy
from tests.waiting import eventually
from tests.worker import WorkerProcess

READERS = 8
ASKED = {"features": [f"{orders.VIEW}:amount"], "entities": {"customer": ["known"]}}
TIMEOUT_S = 0.5
SLACK_S = 4.0
"""What a busy machine may add to a deadline."""


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A server that may be emptied."""
    folder = tmp_path / "redis"
    folder.mkdir()
    server = RedisServer(folder)
    server.start()
    yield server
    server.stop()


def with_a_known_row(deployment: Deployment) -> None:
    """Have a worker write the row of the customer `known`, and end."""
    worker = deployment.start_worker().until_ready()
    sent = orders.produce(
        deployment.bootstrap,
        deployment.topic,
        [{"at": orders.time(1), "customer": "known", "amount": 1.5, "number": 7}],
    )
    until_linked(deployment, sent)
    assert worker.stop() == 0


class Readers:
    """Threads that ask for the same row, again and again, and keep what they were told."""

    def __init__(self, service: WorkerProcess) -> None:
        self._service = service
        self._ended = threading.Event()
        self.told: collections.Counter[str] = collections.Counter()
        self.slowest = 0.0
        self._threads = concurrent.futures.ThreadPoolExecutor(READERS)
        self._reading = [self._threads.submit(self._read) for _ in range(READERS)]

    def _read(self) -> None:
        while not self._ended.is_set():
            begun = time.monotonic()
            status, answer = ask(self._service, ASKED)
            self.slowest = max(self.slowest, time.monotonic() - begun)
            said = (
                str(status)
                if status != 200
                else json.dumps([answer["results"][1][k][0] for k in ("values", "statuses")])
            )
            self.told[said] += 1

    def until(self, said: str) -> None:
        """Wait until as many more have been told this as there are readers, twice: all see it now."""
        wanted = self.told[said] + 2 * READERS
        eventually(lambda: self.told[said] >= wanted, within_s=40, what=f"{said} for all readers")

    def end(self) -> None:
        """Raises what a reader has raised."""
        self._ended.set()
        for each in self._reading:
            each.result(30)
        self._threads.shutdown()


@contextlib.contextmanager
def reading(service: WorkerProcess) -> Iterator[Readers]:
    readers = Readers(service)
    try:
        yield readers
    finally:
        readers.end()


THERE = '[1.5, "PRESENT"]'


def test_a_redis_that_is_emptied_under_load_is_a_503_and_never_not_found(
    deploy: Callable[..., Deployment], own_redis: RedisServer
) -> None:
    deployment = deploy(redis_url=own_redis.url)
    with_a_known_row(deployment)
    with redis.Redis.from_url(own_redis.url) as client:
        kept = {key: client.get(key) for key in client.scan_iter()}
        service = until_healthy(deployment.service().start())
        ready = f"test:{deployment.settings['STILLWELL_NAMESPACE']}:ready".encode()
        with reading(service) as readers:
            for _ in range(5):
                readers.until(THERE)
                client.flushall()
                readers.until("503")
                # What a rebuild does: rows first, and that they are all there last of all.
                client.mset({key: value for key, value in kept.items() if key != ready})
                client.set(ready, kept[ready])
            readers.until(THERE)
    assert set(readers.told) == {THERE, "503"}
    assert service.stop() == 0


def gauge(service: WorkerProcess, name: str) -> float:
    found = re.search(rf"^{name}{{.*}} (\S+)$", service.page("/metrics")[1], re.M)
    assert found
    return float(found[1])


def test_connections_that_fail_in_every_way_hold_nobody_up_and_leave_nothing(
    deploy: Callable[..., Deployment], redis_proxy: Proxy
) -> None:
    """Slow, silent, cut within an answer, refused, ended at once: each time deadlines hold, answers are right, and it
    is found again without a restart; in the end as many files are open as in the beginning."""
    deployment = deploy()
    with_a_known_row(deployment)
    url = f"redis://{redis_proxy.address}/0"
    service = until_healthy(deployment.service(redis_url=url, serve_timeout=f"{TIMEOUT_S * 1_000:.0f}ms").start())
    with reading(service) as readers:
        readers.until(THERE)
        process = psutil.Process(service.running.pid)
        files = process.num_fds()
        for _ in range(2):
            for toxic in (
                redis_proxy.toxic("latency", latency=5_000),
                redis_proxy.toxic("timeout", timeout=0),
                redis_proxy.toxic("timeout", stream="upstream", timeout=0),
                redis_proxy.toxic("limit_data", bytes=20),
                redis_proxy.toxic("reset_peer", timeout=0),
            ):
                with toxic:
                    readers.until("503")
                readers.until(THERE)
            redis_proxy.down()
            readers.until("503")
            redis_proxy.up()
            readers.until(THERE)
    assert set(readers.told) == {THERE, "503"}
    assert readers.slowest < TIMEOUT_S + SLACK_S
    assert gauge(service, "stillwell_serve_in_flight_requests") == 1  # the page itself
    assert gauge(service, "stillwell_serve_waiting_readers") == 0
    eventually(lambda: process.num_fds() <= files + 2, what="as many open files as in the beginning")
    assert service.stop() == 0
