"""What the object store can do to a worker: refuse, hang, lose answers, be missing."""

import random
from collections.abc import Callable

import pytest

from tests.integration import orders
from tests.integration.conftest import Deployment
from tests.integration.orders import Feed
from tests.integration.proof import log, metric, prove, until_linked, until_logged
from tests.services import Proxy
from tests.waiting import eventually


@pytest.mark.parametrize("how", ["down", "silent"])
def test_an_outage_of_the_object_store_is_waited_for(
    deploy: Callable[..., Deployment], proxied_gcs: tuple[str, Proxy], rng: random.Random, how: str
) -> None:
    """It refuses connections, or answers no more: rows reach Redis all the same, nothing is linked, the worker says so,
    and goes on by itself."""
    url, proxy = proxied_gcs
    deployment = deploy(2, offline_url=url)
    worker = deployment.start_worker()
    with Feed.of_orders(deployment.bootstrap, deployment.topic, 2, rng) as feed:
        worker.until_ready()
        eventually(lambda: metric(worker, "stillwell_linked_records_total") > 0, within_s=20, what="a first link")
        if how == "down":
            proxy.down()
        else:
            proxy.add_toxic("timeout", timeout=0)
        until_logged(worker, "a sink does not answer")
        eventually(lambda: worker.page("/readyz")[0] == 503, what="a worker that is not ready")
        known = metric(worker, "stillwell_upserts_total")
        eventually(lambda: metric(worker, "stillwell_upserts_total") > known, what="rows in Redis during the outage")
        if how == "down":
            proxy.up()
        else:
            proxy.remove_toxic("timeout-downstream")
        eventually(lambda: worker.page("/readyz")[0] == 200, within_s=30, what="a worker that is ready again")
    until_linked(deployment, feed.sent)
    assert worker.stop() == 0
    prove(deployment, feed.sent)


def test_links_whose_answers_are_lost_are_found_to_be_ones_own(
    deploy: Callable[..., Deployment], proxied_gcs: tuple[str, Proxy], rng: random.Random
) -> None:
    """Every request arrives at the store, most answers do not: what was created is read back and counted once."""
    url, proxy = proxied_gcs
    deployment = deploy(2, offline_url=url)
    worker = deployment.start_worker()
    with Feed.of_orders(deployment.bootstrap, deployment.topic, 2, rng, pace=500) as feed:
        worker.until_ready()
        # Each connection gives two or three answers, and ends in the midst of the next.
        with proxy.toxic("limit_data", bytes=2_000):
            known = metric(worker, "stillwell_links_total")
            eventually(
                lambda: metric(worker, "stillwell_links_total") >= known + 10, within_s=60, what="links without answers"
            )
    assert "another writer" not in log(worker)
    until_linked(deployment, feed.sent)
    assert worker.stop() == 0
    prove(deployment, feed.sent, left_behind=0)


def test_a_worker_waits_for_an_object_store_that_is_not_there_yet(
    deploy: Callable[..., Deployment], proxied_gcs: tuple[str, Proxy], rng: random.Random
) -> None:
    """It starts before its store: alive, not ready, loud; then it works."""
    url, proxy = proxied_gcs
    deployment = deploy(offline_url=url)
    sent = orders.produce(deployment.bootstrap, deployment.topic, orders.orders(100, rng))
    proxy.down()
    worker = deployment.start_worker()
    until_logged(worker, "a sink does not answer")
    assert worker.page("/healthz")[0] == 200
    assert worker.page("/readyz")[0] == 503
    proxy.up()
    until_linked(deployment, sent)
    assert worker.stop() == 0
    prove(deployment, sent)
