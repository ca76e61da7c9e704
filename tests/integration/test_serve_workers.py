"""A query service of several processes: one port, nobody else's; a death is mended, an end is clean."""

import concurrent.futures
import contextlib
import json
import re
import signal
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import redis

from tests.integration import orders
from tests.integration.conftest import Deployment
from tests.integration.proof import log
from tests.processes import still_running
from tests.services import Proxy
from tests.waiting import eventually
from tests.worker import WorkerProcess

ASKED = json.dumps({"features": [f"{orders.VIEW}:amount"], "entities": {"customer": ["a"]}}).encode()


@pytest.fixture
def deployment(deploy: Callable[..., Deployment]) -> Deployment:
    """A deployment whose store is ready and empty."""
    made = deploy(serve_workers="2", serve_timeout="5s")
    with redis.Redis.from_url(made.settings["STILLWELL_REDIS_URL"]) as client:
        client.set(f"test:{made.settings['STILLWELL_NAMESPACE']}:ready", "epoch")
    return made


def ask(service: WorkerProcess) -> int:
    """The status of a request over a connection of its own; 0 where there is no answer."""
    url = f"http://127.0.0.1:{service.port}/get-online-features"
    try:
        with urllib.request.urlopen(urllib.request.Request(url, ASKED), timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def until_all_are_up(service: WorkerProcess, processes: int = 2) -> WorkerProcess:
    def up() -> bool:
        return (
            len(re.findall(r'^stillwell_serve_worker_up{worker="\d"} 1.0$', service.page("/metrics")[1], re.M))
            == processes
        )

    eventually(up, within_s=60, what=f"{service.log}: {processes} processes")
    return service


def answered(service: WorkerProcess) -> Counter[str]:
    """How many requests each process has answered, by its number."""
    pattern = r'^stillwell_serve_requests_total{path="/get-online-features",status="200",worker="(\d)"} (\S+)$'
    return Counter(
        {number: int(float(count)) for number, count in re.findall(pattern, service.page("/metrics")[1], re.M)}
    )


def processes_of(service: WorkerProcess) -> list[psutil.Process]:
    found = []
    for each in psutil.Process(service.running.pid).children():
        with contextlib.suppress(psutil.NoSuchProcess):  # one that has ended, or that nobody has waited for yet
            if "--seat" in each.cmdline():
                found.append(each)
    return found


def until_succeeded(service: WorkerProcess, before: set[int]) -> psutil.Process:
    """The process that takes the place of one that has died."""
    found: list[psutil.Process] = []

    def started() -> bool:
        found[:] = [each for each in processes_of(service) if each.pid not in before]
        return bool(found)

    eventually(started, what="a successor")
    return found[0]


def test_connections_are_spread_over_all_and_one_page_tells_of_all(deployment: Deployment) -> None:
    service = until_all_are_up(deployment.service().start())
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        assert set(threads.map(lambda _: ask(service), range(200))) == {200}
    counts = answered(service)
    assert counts.total() == 200
    assert min(counts["0"], counts["1"]) > 50  # chance alone leaves one of them fewer once in 10^13
    assert len(re.findall(r'^process_resident_memory_bytes{worker="\d"}', service.page("/metrics")[1], re.M)) == 2
    assert service.stop() == 0
    assert "Traceback" not in log(service)


def test_a_process_that_dies_is_started_anew_while_the_others_answer(deployment: Deployment) -> None:
    service = until_all_are_up(deployment.service().start())
    first, second = processes_of(service)
    first.kill()
    successor = until_succeeded(service, {first.pid, second.pid})
    # It cannot take connections: half of all that come would wait for it, if they came to its sockets.
    successor.suspend()
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        assert set(threads.map(lambda _: ask(service), range(40))) == {200}
    assert log(service).count("query service answers") == 2
    successor.resume()
    until_all_are_up(service)
    anew = processes_of(service)
    assert second.pid in {each.pid for each in anew}
    assert len(anew) == 2
    assert "a process of the query service has died, and is started anew" in log(service)
    restarts = re.findall(r"^stillwell_serve_worker_restarts{.*} (\S+)$", service.page("/metrics")[1], re.M)
    assert sorted(restarts) == ["0.0", "1.0"]
    assert service.stop() == 0
    assert still_running(anew, 10) == []


@pytest.mark.parametrize("processes", ["1", "2"])
def test_who_is_told_to_end_answers_what_is_under_way_and_lets_nobody_in(
    deployment: Deployment, redis_proxy: Proxy, processes: str
) -> None:
    service = deployment.service(redis_url=f"redis://{redis_proxy.address}/0", serve_workers=processes).start()
    until_all_are_up(service, int(processes))
    eventually(lambda: ask(service) == 200, what="an answer")
    with redis_proxy.toxic("latency", latency=1_500), concurrent.futures.ThreadPoolExecutor(4) as threads:
        waiting = [threads.submit(ask, service) for _ in range(4)]

        def in_flight() -> bool:
            page = service.page("/metrics")[1]
            counts = re.findall(r"^stillwell_serve_in_flight_requests{.*} (\S+)$", page, re.M)
            return sum(map(float, counts)) >= 5  # and the page itself

        eventually(in_flight, what="four requests under way")
        service.running.send_signal(signal.SIGTERM)
        eventually(lambda: ask(service) == 0, what="a refusal")
        assert [each.result() for each in waiting] == [200] * 4
    assert service.running.wait(30) == 0


@pytest.mark.parametrize(("first", "second"), [("2", "2"), ("2", "1"), ("1", "2")])
def test_a_second_deployment_does_not_join_the_port(deployment: Deployment, first: str, second: str) -> None:
    taken = until_all_are_up(deployment.service(serve_workers=first).start(), int(first))
    late = deployment.service(serve_workers=second)
    late.environment["STILLWELL_SERVE_PORT"] = str(taken.port)
    assert late.start().running.wait(60) == 2
    assert f"STILLWELL_SERVE_PORT is {taken.port}, where 127.0.0.1 cannot be listened at" in log(late)
    assert "Traceback" not in log(late)
    assert ask(taken) == 200


def test_processes_do_not_outlive_the_one_that_started_them(deployment: Deployment) -> None:
    service = until_all_are_up(deployment.service().start())
    children = processes_of(service)
    service.kill()
    assert still_running(children, 30) == []


def test_what_no_process_can_start_with_ends_them_all_and_is_told(deployment: Deployment, tmp_path: Path) -> None:
    (tmp_path / "orders" / "__init__.py").write_text("from stillwell import Nothing\n")
    service = deployment.service().start()
    assert service.running.wait(60) == 1
    assert "Nothing" in log(service)
    assert "started anew" not in log(service)


def test_the_flag_wins_over_the_setting(deployment: Deployment) -> None:
    service = deployment.service(serve_workers="1")
    service.arguments = ("--workers", "2")
    until_all_are_up(service.start())
    assert len(processes_of(service)) == 2
    assert service.stop() == 0
