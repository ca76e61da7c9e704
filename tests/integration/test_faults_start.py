"""What a worker does that is started amid an outage: it waits for what does not answer yet, and says so."""

import random
from collections.abc import Callable
from pathlib import Path

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


def test_a_worker_writes_no_file_but_those_of_the_offline_store(
    deploy: Callable[..., Deployment], rng: random.Random, tmp_path: Path
) -> None:
    """Neither where it stands, nor at home, nor among temporary files: all may be read-only in a container."""
    deployment = deploy()
    sent = orders.produce(deployment.bootstrap, deployment.topic, orders.orders(100, rng))
    home, temporary = tmp_path / "home", tmp_path / "temporary"
    worker = deployment.worker()
    worker.environment |= {"HOME": str(home), "TMPDIR": str(temporary), "PYTHONDONTWRITEBYTECODE": "1"}
    home.mkdir()
    temporary.mkdir()
    before = files(tmp_path)
    worker.start().until_ready()
    until_linked(deployment, sent)
    assert worker.stop() == 0
    written = {path for path in files(tmp_path) - before if path.relative_to(tmp_path).parts[0] != "offline"}
    assert written == {worker.log}
    prove(deployment, sent)


def files(folder: Path) -> set[Path]:
    """All that is below a folder."""
    return set(folder.rglob("*"))


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
