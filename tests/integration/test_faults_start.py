"""What a worker does that is started amid an outage: it waits for what does not answer yet, and says so."""

import json
import random
from collections.abc import Callable
from importlib.metadata import version
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


def test_a_worker_says_what_it_is_and_how_it_ends(deploy: Callable[..., Deployment], rng: random.Random) -> None:
    """In its log for people, and in its metrics, whose counters begin at 0: else their first increase shows nowhere."""
    deployment = deploy(log_level="debug")
    worker = deployment.worker()
    worker.environment["STILLWELL_LOG_FORMAT"] = "json"
    worker.start().until_ready()
    page = worker.page("/metrics")[1]
    assert f'stillwell_build_info{{version="{version("stillwell")}"}} 1.0' in page
    for series in (
        f'stillwell_expired_offsets_total{{topic="{deployment.topic}"}}',
        f'stillwell_upserts_total{{result="stale",view="{orders.VIEW}"}}',
        'stillwell_sink_retries_total{sink="offline"}',
    ):
        assert f"{series} 0.0" in page
    sent = orders.produce(deployment.bootstrap, deployment.topic, orders.orders(100, rng))
    until_linked(deployment, sent)
    assert worker.stop() == 0
    told = {line["event"]: line for line in map(json.loads, log(worker).splitlines())}
    namespace = deployment.settings["STILLWELL_NAMESPACE"]
    assert (
        told["worker starts"].items()
        >= {
            "version": version("stillwell"),
            "project": "test",
            "namespace": namespace,
            "group": f"test.{namespace}",
            "web": f"http://127.0.0.1:{worker.port}",
        }.items()
    )
    assert told["linked"].items() >= {"topic": deployment.topic, "partition": 0, "end": 100}.items()
    assert {"partitions assigned", "drained", "worker ended"} <= told.keys()


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


def test_a_worker_whose_port_another_one_has_says_so_and_ends(deploy: Callable[..., Deployment]) -> None:
    """As the second of two that somebody starts on one machine."""
    deployment = deploy()
    first = deployment.start_worker().until_ready()
    second = deployment.worker()
    second.environment["STILLWELL_WEB_PORT"] = str(first.port)
    assert second.start().running.wait(60) == 2
    assert f"STILLWELL_WEB_PORT is {first.port}" in log(second)
    assert "give each on this host a port of its own" in log(second)
    assert "Traceback" not in log(second)
    assert first.page("/healthz")[0] == 200
