"""The query service over what a worker has written: the same values, honest where it cannot read, gone when told."""

import json
import random
import re
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis

from tests.integration import orders
from tests.integration.conftest import Deployment
from tests.integration.proof import log, until_linked
from tests.services import Proxy
from tests.waiting import eventually
from tests.worker import WorkerProcess

FEATURES = [f"{orders.VIEW}:amount", f"{orders.VIEW}:number"]


def ask(service: WorkerProcess, body: object, path: str = "/get-online-features") -> tuple[int, Any]:
    """Status and body of an answer; without a body to send, to a GET. Who is refused for now must be told when to come
    again."""
    sent = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{service.port}{path}", sent, {"Content-Type": "application/json"}
    )
    try:
        answer = urllib.request.urlopen(request, timeout=10)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        assert answer.headers["Retry-After"] == ("1" if answer.status == 503 else None), (path, answer.status)
        return answer.status, json.load(answer)


def until_healthy(service: WorkerProcess) -> WorkerProcess:
    eventually(lambda: service.page("/health")[0] == 200, within_s=30, what=f"{service.log}: health")
    return service


def test_what_a_worker_writes_can_be_read(deploy: Callable[..., Deployment], rng: random.Random) -> None:
    """As `stillwell get` says it, entity by entity."""
    deployment = deploy()
    sent = orders.produce(deployment.bootstrap, deployment.topic, orders.orders(500, rng))
    worker = deployment.start_worker().until_ready()
    until_linked(deployment, sent)
    service = until_healthy(deployment.service().start())
    known = sorted({json.loads(each.record.value or b"{}").get("customer", "") for each in sent})[:5]
    status, answer = ask(service, {"features": FEATURES, "entities": {"customer": [*known, "nobody"]}})
    assert status == 200
    assert answer["metadata"]["feature_names"] == ["customer", "amount", "number"]
    for place, customer in enumerate([*known, "nobody"]):
        said = json.loads(deployment.run("get", orders.VIEW, f"customer={customer}", "--json").stdout)["features"]
        for feature, column in zip(("amount", "number"), answer["results"][1:], strict=True):
            shown = said[f"{orders.VIEW}:{feature}"]
            assert column["statuses"][place] == shown["status"]
            assert column["values"][place] == shown["value"]
    assert answer["results"][1]["statuses"][-1] == "NOT_FOUND"
    status, answer = ask(service, {"view": orders.VIEW, "rows": []}, "/v1/push")
    assert (status, answer["error"]["kind"]) == (404, "NotDefined")
    assert "/v1/push takes nothing here: STILLWELL_PUSH is false" in answer["error"]["message"]
    assert service.stop() == worker.stop() == 0
    assert "Traceback" not in log(service)


def test_a_redis_that_forgot_or_is_away_is_a_503_and_found_again_without_a_restart(
    deploy: Callable[..., Deployment], redis_proxy: Proxy
) -> None:
    deployment = deploy()
    worker = deployment.start_worker().until_ready()
    service = until_healthy(deployment.service(redis_url=f"redis://{redis_proxy.address}/0").start())
    asked = {"features": FEATURES, "entities": {"customer": ["a"]}}
    assert ask(service, asked)[0] == 200
    for toxic in (redis_proxy.toxic("timeout", timeout=0), redis_proxy.toxic("latency", latency=3_000)):
        with toxic:
            status, text = ask(service, asked)
            assert status == 503
            assert json.loads(text)["class"] == "FeastError"
        eventually(lambda: ask(service, asked)[0] == 200, what="an answer once Redis is back")
    worker.kill()
    with redis.Redis.from_url(deployment.settings["STILLWELL_REDIS_URL"]) as client:
        client.delete(f"test:{deployment.settings['STILLWELL_NAMESPACE']}:ready")
    status, text = ask(service, asked)
    assert status == 503
    assert "stillwell rebuild" in json.loads(text)["message"]
    assert service.page("/health")[0] == 503
    assert service.stop() == 0


def test_a_port_that_is_taken_is_told_in_a_sentence(deploy: Callable[..., Deployment]) -> None:
    deployment = deploy()
    first = deployment.service().start()
    eventually(lambda: first.page("/health")[0] == 503, within_s=30, what=f"{first.log}: an answer")
    second = deployment.service()
    second.environment["STILLWELL_SERVE_PORT"] = str(first.port)
    assert second.start().running.wait(60) == 2
    assert f"STILLWELL_SERVE_PORT is {first.port}" in log(second)
    assert "Traceback" not in log(second)


def test_a_service_that_polls_does_not_sleep_between_requests(deploy: Callable[..., Deployment]) -> None:
    """As the system counts it; without polling it sleeps twice in each, for the next request and for Redis."""
    asked = {"features": FEATURES, "entities": {"customer": ["a"]}}
    deployment = deploy()
    deployment.start_worker().until_ready()
    slept = {}
    for microseconds in ("0", "10000"):
        service = until_healthy(deployment.service(serve_busy_poll_us=microseconds).start())
        before = _sleeps(service)
        for _ in range(100):
            assert ask(service, asked)[0] == 200
        slept[microseconds] = _sleeps(service) - before
        assert service.stop() == 0
    assert slept["0"] > 100
    assert slept["10000"] < slept["0"] / 2


def _sleeps(service: WorkerProcess) -> int:
    """How often the process's first thread has gone to sleep."""
    status = Path(f"/proc/{service.running.pid}/status").read_text()
    return int(re.findall(r"^voluntary_ctxt_switches:\s*(\d+)", status, re.MULTILINE)[0])
