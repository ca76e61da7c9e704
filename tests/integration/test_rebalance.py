"""Workers that share a group: they join, leave, die, freeze and wake while events flow, and nothing is lost or doubled.

Each test ends with the same proof (`prove`): `stillwell verify`, and an oracle over all that was sent.
"""

import random
from collections.abc import Callable

import pytest

from tests.integration import orders
from tests.integration.conftest import Deployment
from tests.integration.orders import Feed
from tests.integration.proof import log, metric, prove, until_linked, until_logged
from tests.services import Proxy
from tests.waiting import eventually
from tests.worker import WorkerProcess

PARTITIONS = 4


def assigned(worker: WorkerProcess) -> float:
    """How many partitions a worker holds."""
    return metric(worker, "stillwell_assigned_partitions")


def until_shared(*workers: WorkerProcess, within_s: float = 20) -> None:
    """Wait until these workers hold all partitions in equal parts, and all of them flow."""
    share = PARTITIONS / len(workers)
    eventually(
        lambda: all(assigned(worker) == share and worker.page("/readyz")[0] == 200 for worker in workers),
        within_s=within_s,
        what=f"{len(workers)} workers with {share:g} partitions each",
    )


def test_workers_that_join_leave_and_die_under_load_lose_and_double_nothing(
    deploy: Callable[..., Deployment], rng: random.Random
) -> None:
    """One joins late, one leaves by SIGTERM (exit code 0, within its deadline), one is killed; the last one ends it."""
    deployment = deploy(PARTITIONS)
    first = deployment.start_worker()
    with Feed.of_orders(deployment.bootstrap, deployment.topic, PARTITIONS, rng) as feed:
        first.until_ready()
        second = deployment.start_worker()
        until_shared(first, second)
        assert first.stop(deadline=10) == 0
        third = deployment.start_worker()
        until_shared(second, third)
        second.kill()
        until_shared(third)
    until_linked(deployment, feed.sent)
    assert third.stop() == 0
    prove(deployment, feed.sent)


@pytest.mark.parametrize("latency_s", [1, 4], ids=["in time", "too late"])
def test_a_rebalance_amid_a_slow_upload(
    deploy: Callable[..., Deployment], proxied_gcs: tuple[str, Proxy], rng: random.Random, latency_s: int
) -> None:
    """A second worker joins while the first one's span is on its way to a slow store: the span is linked before its
    partitions are given away, or, past half of the rebalance timeout, dropped and read again by whoever gets them."""
    url, proxy = proxied_gcs
    # Nothing but the rebalance closes a span, so that the upload that it meets is its own.
    deployment = deploy(PARTITIONS, offline_url=url, window_age="1h", watchdog_timeout="2h", rebalance_timeout="12s")
    first = deployment.start_worker().until_ready()
    sent = orders.produce(deployment.bootstrap, deployment.topic, orders.orders(1_000, rng), PARTITIONS)
    eventually(
        lambda: metric(first, "stillwell_durable_lag_records") == len(sent), within_s=20, what="all records taken in"
    )
    with proxy.toxic("latency", stream="upstream", latency=latency_s * 1000):
        second = deployment.start_worker()
        until_logged(
            second, "partitions assigned", within_s=120
        )  # it registers its definitions in the slow store first
    until_shared(first, second)
    gave_up = "with work in hand" in log(first)
    assert gave_up == (latency_s == 4)
    assert first.stop() == 0
    assert second.stop() == 0
    until_linked(deployment, sent)
    prove(deployment, sent)


def test_frozen_writers_that_wake_past_their_session_do_no_harm(
    deploy: Callable[..., Deployment], rng: random.Random
) -> None:
    """Two writers freeze with work in hand, a third does it again and links it. Awake, they find another's links in
    their places: their spans are lost, their files removed, and they take part in the group again."""
    # Long, because the group must not wait for zombies until half of it is over.
    deployment = deploy(PARTITIONS, rebalance_timeout="60s")
    in_hand = {"window_age": "1h", "watchdog_timeout": "2h"}
    zombies = [deployment.start_worker(**in_hand) for _ in range(2)]
    until_shared(*zombies)
    sent = orders.produce(deployment.bootstrap, deployment.topic, orders.orders(1_000, rng), PARTITIONS)
    eventually(
        lambda: sum(metric(zombie, "stillwell_durable_lag_records") for zombie in zombies) == len(sent),
        within_s=20,
        what="all records taken in",
    )
    for zombie in zombies:
        zombie.freeze()
    third = deployment.start_worker()
    until_linked(deployment, sent)
    for zombie in zombies:
        zombie.thaw()
    for zombie in zombies:
        until_logged(zombie, "another writer has linked")
    sent += orders.produce(deployment.bootstrap, deployment.topic, orders.orders(1_000, rng, first=1_000), PARTITIONS)
    eventually(
        lambda: (
            sum(assigned(worker) for worker in (*zombies, third)) == PARTITIONS
            and all(worker.page("/readyz")[0] == 200 for worker in (*zombies, third))
        ),
        within_s=15,
        what="three workers that share the partitions",
    )
    for worker in (*zombies, third):
        assert worker.stop() == 0
    until_linked(deployment, sent)
    prove(deployment, sent, left_behind=0)
