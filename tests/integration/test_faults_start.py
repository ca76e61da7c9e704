"""What a worker does that is started amid an outage: it waits for what does not answer yet, and says so."""

import random
from collections.abc import Callable

import pytest

from tests.integration import orders
from tests.integration.conftest import Deployment
from tests.integration.proof import log, prove, until_linked, until_logged
from tests.services import Proxy

SERVICES = pytest.mark.parametrize(
    ("service", "setting"), [("kafka", "STILLWELL_KAFKA_BOOTSTRAP"), ("redis", "STILLWELL_REDIS_URL")]
)


@SERVICES
def test_a_worker_waits_for_a_service_that_is_not_there_yet(
    deploy: Callable[..., Deployment],
    kafka_proxy: Proxy,
    redis_proxy: Proxy,
    rng: random.Random,
    service: str,
    setting: str,
) -> None:
    """Alive, not ready, and loud, naming the setting that may be wrong; when the service is there it works."""
    proxy = {"kafka": kafka_proxy, "redis": redis_proxy}[service]
    deployment = deploy(redis_url=f"redis://{redis_proxy.address}/0", kafka_bootstrap=kafka_proxy.address)
    sent = orders.produce(deployment.bootstrap, deployment.topic, orders.orders(100, rng))
    proxy.down()
    worker = deployment.start_worker()
    until_logged(worker, "a sink does not answer")
    assert setting in log(worker)
    assert f"sink={service}" in log(worker)
    assert worker.page("/healthz")[0] == 200
    assert worker.page("/readyz")[0] == 503
    proxy.up()
    worker.until_ready()
    until_linked(deployment, sent)
    assert worker.stop() == 0
    prove(deployment, sent)


@SERVICES
def test_a_worker_that_waits_at_its_start_ends_when_it_is_told(
    deploy: Callable[..., Deployment], kafka_proxy: Proxy, redis_proxy: Proxy, service: str, setting: str
) -> None:
    """At once, for it holds nothing."""
    deployment = deploy(redis_url=f"redis://{redis_proxy.address}/0", kafka_bootstrap=kafka_proxy.address)
    {"kafka": kafka_proxy, "redis": redis_proxy}[service].down()
    worker = deployment.start_worker()
    until_logged(worker, "a sink does not answer")
    assert setting in log(worker)
    assert worker.stop(deadline=10) == 0
