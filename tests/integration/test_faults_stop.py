"""How a worker ends: told to while a sink is dead, and by itself when it stands still."""

import contextlib
import random
import time
from collections.abc import Callable, Iterator

import pytest

from tests.integration import oracle, orders
from tests.integration.conftest import Deployment
from tests.integration.proof import log, metric, prove, until_linked
from tests.services import Proxy
from tests.waiting import eventually

DRAIN_S = 3
CLOSING_S = 7
"""What a worker may need beyond its deadline to close its connections and end, on a busy machine."""


@contextlib.contextmanager
def dead(proxy: Proxy, how: str) -> Iterator[None]:
    """A service refuses connections, or answers no more."""
    if how == "refuses":
        proxy.down()
        yield
        proxy.up()
    else:
        with proxy.toxic("timeout", timeout=0):
            yield


@pytest.mark.parametrize("how", ["refuses", "silent"])
@pytest.mark.parametrize("sink", ["redis", "store", "kafka"])
def test_a_worker_that_is_told_to_end_while_a_sink_is_dead_ends_in_time_and_loses_nothing(
    deploy: Callable[..., Deployment],
    proxied_gcs: tuple[str, Proxy],
    redis_proxy: Proxy,
    kafka_proxy: Proxy,
    rng: random.Random,
    sink: str,
    how: str,
) -> None:
    """It ends within the drain deadline, whether what it has in hand can be written or not; the next worker does again
    what was not."""
    url, gcs_proxy = proxied_gcs
    proxy, setting = {
        "redis": (redis_proxy, {"redis_url": f"redis://{redis_proxy.address}/0"}),
        "store": (gcs_proxy, {"offline_url": url}),
        "kafka": (kafka_proxy, {"kafka_bootstrap": kafka_proxy.address}),
    }[sink]
    deployment = deploy(2, drain_timeout=f"{DRAIN_S}s", window_age="1h", watchdog_timeout="2h", **setting)
    sent = orders.produce(deployment.bootstrap, deployment.topic, orders.orders(1_000, rng), 2)
    worker = deployment.start_worker().until_ready()
    eventually(lambda: metric(worker, "stillwell_durable_lag_records") == len(sent), what="all records taken in")
    with dead(proxy, how):
        started = time.monotonic()
        code = worker.stop(deadline=DRAIN_S + 30)
        took = time.monotonic() - started
    assert took < DRAIN_S + CLOSING_S
    assert code == 0
    worker = deployment.start_worker(window_age="500ms").until_ready()
    until_linked(deployment, sent)
    assert worker.stop() == 0
    prove(deployment, sent)


def test_a_worker_that_ends_links_all_that_it_has_taken_in_and_commits_it(
    deploy: Callable[..., Deployment], rng: random.Random
) -> None:
    """Told to end while events come, with a window that is far from full: what was taken in is linked, and the offset
    that the group has committed is the chain's end."""
    deployment = deploy(2, window_age="1h", watchdog_timeout="2h")
    with orders.Feed.of_orders(deployment.bootstrap, deployment.topic, 2, rng) as feed:
        worker = deployment.start_worker().until_ready()
        eventually(lambda: metric(worker, "stillwell_durable_lag_records") > 500, within_s=20, what="records in hand")
        started = time.monotonic()
        assert worker.stop() == 0
        took = time.monotonic() - started
    assert took < 10
    assert "with work in hand" not in log(worker)
    assert oracle.ends(deployment.settings, deployment.topic) == oracle.committed(deployment.settings, deployment.topic)
    worker = deployment.start_worker(window_age="500ms").until_ready()
    until_linked(deployment, feed.sent)
    assert worker.stop() == 0
    prove(deployment, feed.sent)


def test_a_partition_that_stands_still_although_every_sink_answers_ends_the_process(
    deploy: Callable[..., Deployment], proxied_gcs: tuple[str, Proxy], rng: random.Random
) -> None:
    """The store takes a minute for what the watchdog allows two seconds: the process says where it stands and ends with
    exit code 1; a new one, on a healthy store, does the work."""
    url, proxy = proxied_gcs
    deployment = deploy(offline_url=url)
    sent = orders.produce(deployment.bootstrap, deployment.topic, orders.orders(100, rng))
    worker = deployment.start_worker(watchdog_timeout="2s").until_ready()
    until_linked(deployment, sent)
    with proxy.toxic("latency", latency=60_000):
        sent += orders.produce(deployment.bootstrap, deployment.topic, orders.orders(100, rng, first=100))
        assert worker.running.wait(20) == 1
    assert "no progress" in log(worker)
    worker = deployment.start_worker().until_ready()
    until_linked(deployment, sent)
    assert worker.stop() == 0
    prove(deployment, sent)
