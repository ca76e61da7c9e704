"""What Redis can do to a worker: go away, hang, run full, forget everything, forget the last minutes."""

import contextlib
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from stillwell.local import RedisServer
from tests.integration import oracle, orders
from tests.integration.conftest import Deployment
from tests.integration.orders import Feed
from tests.integration.proof import log, metric, prove, until_linked, until_logged
from tests.services import Proxy, Toxiproxy
from tests.waiting import eventually, throughout
from tests.worker import WorkerProcess

WORKERS_LOOK_S = 5
"""How often a worker looks at Redis while it has nothing to write."""

LONGER_THAN_A_CALL_S = 7
"""For so long a call to a silent Redis is amid its next attempt, and a sleep between two has passed as well."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis for one test alone, which keeps what `SAVE` wrote and nothing else."""
    server = RedisServer(tmp_path / "redis", config={"appendonly": "no"})
    server.start()
    yield server
    server.stop()


@pytest.fixture
def proxy(toxiproxy: Toxiproxy, server: RedisServer) -> Iterator[Proxy]:
    """A proxy before it."""
    proxy = toxiproxy.create(f"127.0.0.1:{server.port}")
    yield proxy
    proxy.delete()


@contextlib.contextmanager
def outage(server: RedisServer, proxy: Proxy, how: str) -> Iterator[None]:
    """Redis, which listens behind the proxy, is away for the length of a `with`."""
    if how == "cut off":
        proxy.down()
        yield
        proxy.up()
    elif how == "silent":
        with proxy.toxic("timeout", timeout=0):
            yield
    else:
        client(server).save()
        server.kill()
        yield
        server.start()


def client(server: RedisServer) -> redis.Redis:
    """A client for the test itself."""
    return redis.Redis.from_url(server.url)


def not_ready(worker: WorkerProcess) -> bool:
    """Whether a worker's readiness probe fails."""
    return worker.page("/readyz")[0] == 503


@pytest.mark.parametrize("busy", [True, False], ids=["events come", "no event comes"])
def test_a_redis_that_was_flushed_stops_everything_until_it_is_rebuilt(
    deploy: Callable[..., Deployment], server: RedisServer, rng: random.Random, busy: bool
) -> None:
    """The worker writes nothing into it and links nothing, is not ready, and names the command; after a rebuild it goes
    on by itself."""
    deployment = deploy(redis_url=server.url)
    sent = orders.produce(deployment.bootstrap, deployment.topic, orders.orders(100, rng))
    worker = deployment.start_worker().until_ready()
    until_linked(deployment, sent)
    client(server).flushall()
    if busy:
        sent += orders.produce(deployment.bootstrap, deployment.topic, orders.orders(100, rng, first=100))
    until_logged(worker, "stillwell rebuild", within_s=WORKERS_LOOK_S + 5)
    eventually(lambda: not_ready(worker), what="a worker that is not ready")
    if not busy:
        sent += orders.produce(deployment.bootstrap, deployment.topic, orders.orders(100, rng, first=100))
    assert client(server).keys() == []
    assert oracle.linked(deployment.settings) == 100
    rebuilt = deployment.run("rebuild")
    assert rebuilt.returncode == 0, rebuilt.stderr
    until_linked(deployment, sent)
    assert worker.stop() == 0
    prove(deployment, sent)


def test_a_redis_that_was_flushed_before_the_first_link_is_filled_again(
    deploy: Callable[..., Deployment], server: RedisServer, rng: random.Random
) -> None:
    """Nothing was linked yet, so nothing is lost: all is read again from Kafka, and nobody has to do anything."""
    deployment = deploy(redis_url=server.url, window_age="1h", watchdog_timeout="2h")
    sent = orders.produce(deployment.bootstrap, deployment.topic, orders.orders(1_000, rng))
    worker = deployment.start_worker().until_ready()
    eventually(lambda: metric(worker, "stillwell_durable_lag_records") == len(sent), what="all records taken in")
    client(server).flushall()
    sent += orders.produce(deployment.bootstrap, deployment.topic, orders.orders(100, rng, first=1_000))
    until_logged(worker, "partition stopped")
    eventually(
        lambda: worker.page("/readyz")[0] == 200 and metric(worker, "stillwell_durable_lag_records") == len(sent),
        within_s=20,
        what="all records taken in once more",
    )
    assert worker.stop() == 0
    prove(deployment, sent)


@pytest.mark.parametrize("how", ["killed", "cut off", "silent"])
def test_an_outage_of_redis_is_waited_for_in_bounded_memory(
    deploy: Callable[..., Deployment], server: RedisServer, proxy: Proxy, rng: random.Random, how: str
) -> None:
    """It dies and comes back with what it had saved, refuses connections, or answers no more: the worker says so, is
    not ready, holds no more than its buffer, and goes on by itself."""
    buffer = 1 << 20
    memory = {"buffer_bytes": str(buffer), "window_bytes": "256KiB", "partition_fetch_bytes": "256KiB"}
    deployment = deploy(2, redis_url=f"redis://{proxy.address}/0", **memory)
    worker = deployment.start_worker().until_ready()
    # What compresses well would leave room for all of them.
    values = ({**order, "pad": rng.randbytes(250).hex()} for order in orders.orders(20_000, rng))
    with Feed(deployment.bootstrap, deployment.topic, 2, values, pace=3_000) as feed:
        eventually(lambda: oracle.linked(deployment.settings) > 0, within_s=20, what="a first link")
        with outage(server, proxy, how):
            eventually(
                lambda: metric(worker, "stillwell_buffered_bytes") >= buffer,
                within_s=20,
                what="a worker with no memory",
            )
            until_logged(worker, "a sink does not answer")
            eventually(lambda: not_ready(worker), what="a worker that is not ready")
            throughout(
                lambda: not_ready(worker) and metric(worker, "stillwell_sink_waiting_calls", sink="redis") > 0,
                for_s=LONGER_THAN_A_CALL_S,
                what="a worker that is not ready",
            )
            eventually(
                lambda: metric(worker, "stillwell_lag_records") > 5_000,
                within_s=30,
                what="a lag that grows although nothing is fetched",
            )
            held = metric(worker, "stillwell_buffered_bytes")
        eventually(lambda: worker.page("/readyz")[0] == 200, within_s=20, what="a worker that is ready again")
        assert "a sink answers again" in log(worker)
    assert held <= buffer + 4 * (256 << 10)
    until_linked(deployment, feed.sent)
    assert worker.stop() == 0
    prove(deployment, feed.sent)


@pytest.mark.parametrize("running", [True, False], ids=["under a running worker", "between two workers"])
def test_a_redis_that_comes_back_with_older_data_gets_the_newer_rows_again(
    deploy: Callable[..., Deployment], server: RedisServer, tmp_path: Path, rng: random.Random, running: bool
) -> None:
    """As after a failover, or a start from an older snapshot: rows that were linked since are applied again from their
    files, although no event comes that would touch Redis."""
    deployment = deploy(2, redis_url=server.url)
    sent = orders.produce(deployment.bootstrap, deployment.topic, orders.orders(300, rng), 2)
    worker = deployment.start_worker().until_ready()
    until_linked(deployment, sent)
    client(server).save()
    snapshot = shutil.copy(server.folder / "dump.rdb", tmp_path / "older.rdb")
    sent += orders.produce(deployment.bootstrap, deployment.topic, orders.orders(300, rng, first=300), 2)
    until_linked(deployment, sent)
    if not running:
        assert worker.stop() == 0
    server.kill()
    shutil.copy(snapshot, server.folder / "dump.rdb")
    server.start()
    if not running:
        worker = deployment.start_worker().until_ready()
    until_logged(worker, "applying rows again that Redis lost", within_s=WORKERS_LOOK_S + 10)
    eventually(
        lambda: oracle.rows_in_redis(deployment.settings, orders.VIEW, oracle.newest(sent)) == oracle.newest(sent),
        within_s=20,
        what="rows applied again",
    )
    assert worker.stop() == 0
    prove(deployment, sent)


def test_a_redis_without_memory_is_waited_for(
    deploy: Callable[..., Deployment], server: RedisServer, rng: random.Random
) -> None:
    """It refuses writes and evicts nothing: the worker says what to do, and goes on when it was done."""
    deployment = deploy(redis_url=server.url)
    sent = orders.produce(deployment.bootstrap, deployment.topic, orders.orders(100, rng))
    worker = deployment.start_worker().until_ready()
    until_linked(deployment, sent)
    client(server).config_set("maxmemory", "1mb")
    values = orders.orders(5_000, rng, first=100, customers=5_000)
    sent += orders.produce(deployment.bootstrap, deployment.topic, values)
    until_logged(worker, "its memory is full: raise maxmemory")
    assert not_ready(worker)
    assert oracle.linked(deployment.settings) < len(sent)
    client(server).config_set("maxmemory", "0")
    until_linked(deployment, sent)
    assert worker.stop() == 0
    prove(deployment, sent)
