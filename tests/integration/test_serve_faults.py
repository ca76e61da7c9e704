"""A query service under many readers while its Redis is emptied, slow, silent, cut off or half open."""

import collections
import concurrent.futures
import contextlib
import itertools
import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis

from stillwell.local import LocalStack
from stillwell.local.redis_server import RedisServer
from tests.integration import orders
from tests.integration.conftest import Deployment
from tests.integration.proof import until_linked
from tests.integration.test_serve import ask, until_healthy
from tests.integration.test_serve_openapi import with_model
from tests.services import Proxy, Toxiproxy
from tests.waiting import eventually
from tests.worker import WorkerProcess

READERS = 8
WRITERS = 3
"""Who pushes, and as many again who have predictions computed."""

ASKED = {"features": [f"{orders.VIEW}:amount"], "entities": {"customer": ["known"]}}
TIMEOUT_S = 0.5
SLACK_S = 4.0
"""What a busy machine may add to a deadline."""

STEPS = 4
"""What is more than a read takes several steps, each of which may last as long as a read: to wait for a connection, to
make one, to get an answer over it; and a read comes before."""

COST = """
from stillwell import Model, Output, Request

class Basket(Request):
    pieces: Col[Int64]

def multiplied(columns):
    return {"cost": [amount * pieces for amount, pieces in zip(columns["amount"], columns["pieces"])]}

class Cost(Model, entity=Customer, version="1", policy="wait", max_staleness=timedelta(hours=1),
           inputs={"amount": LastOrder.amount, "pieces": Basket.pieces}, server=multiplied):
    cost: Output[Float64]
"""


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A server that may be emptied."""
    folder = tmp_path / "redis"
    folder.mkdir()
    server = RedisServer(folder)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def own_proxy(own_redis: RedisServer, toxiproxy: Toxiproxy) -> Iterator[Proxy]:
    """A proxy before it."""
    proxy = toxiproxy.create(f"127.0.0.1:{own_redis.port}")
    yield proxy
    proxy.delete()


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


class Asking:
    """Threads that ask for something, again and again, and keep what they were told.

    ask: told which of them asks; gives what it was told, THERE where that is right.
    """

    def __init__(self, ask: Callable[[int], str], threads: int) -> None:
        self.threads = threads
        self.told: collections.Counter[str] = collections.Counter()
        self.slowest = 0.0
        self._ask = ask
        self._ended = threading.Event()
        self._pool = concurrent.futures.ThreadPoolExecutor(threads)
        self._asking = [self._pool.submit(self._again_and_again, number) for number in range(threads)]

    def _again_and_again(self, number: int) -> None:
        while not self._ended.is_set():
            begun = time.monotonic()
            said = self._ask(number)
            self.slowest = max(self.slowest, time.monotonic() - begun)
            self.told[said] += 1

    def end(self) -> None:
        """Raises what one of them has raised."""
        self._ended.set()
        for each in self._asking:
            each.result(30)
        self._pool.shutdown()


def until(said: str, *everybody: Asking) -> None:
    """Wait until as many more of them have been told this as there are, twice: all see it now."""
    wanted = [(each, each.told[said] + 2 * each.threads) for each in everybody]

    def told() -> bool:
        for each, enough in wanted:
            assert each.told[said] >= enough, each.told
        return True

    eventually(told, within_s=40, what=f"{said} for everybody")


THERE = '[1.5, "PRESENT"]'


@contextlib.contextmanager
def asking(ask: Callable[[int], str], threads: int) -> Iterator[Asking]:
    made = Asking(ask, threads)
    try:
        yield made
    finally:
        made.end()


def reading(service: WorkerProcess) -> Callable[[int], str]:
    """What a read of the known row is told."""

    def read(_: int) -> str:
        status, answer = ask(service, ASKED)
        if status != 200:
            return str(status)
        return json.dumps([answer["results"][1][name][0] for name in ("values", "statuses")])

    return read


def predicting(service: WorkerProcess) -> Callable[[int], str]:
    """What a read of a prediction is told that nobody has asked for before, so that it is computed."""
    numbers = itertools.count(1)

    def predict(_: int) -> str:
        pieces = next(numbers)
        asked = {"model": "Cost", "entities": {"customer": ["known"], "pieces": [pieces]}}
        status, answer = ask(service, asked, "/v1/predictions")
        if status != 200:
            return str(status)
        (found,) = answer["predictions"]
        right = (found["state"], found["outputs"]) == ("FRESH", {"cost": 1.5 * pieces})
        return THERE if right else json.dumps(found)

    return predict


def pushing(service: WorkerProcess) -> Callable[[int], str]:
    """What a push is told, and a read of its row behind it. Each thread has a customer, and pushes newer rows of it."""
    numbers = itertools.count(1)

    def push(thread: int) -> str:
        number, customer = next(numbers), f"of {thread}"
        row = {"at": orders.time(number), "customer": customer, "amount": 1.5, "number": number}
        status, answer = ask(service, {"view": orders.VIEW, "rows": [row]}, "/v1/push")
        if status == 200:
            if answer["statuses"] != ["applied"]:
                return json.dumps(answer)
            features = [f"{orders.VIEW}:number"]
            status, answer = ask(service, {"features": features, "entities": {"customer": [customer]}})
        if status != 200:
            return str(status)
        return THERE if answer["results"][1]["values"] == [number] else json.dumps([number, answer])

    return push


def test_a_redis_that_is_emptied_under_load_is_a_503_and_never_not_found(
    deploy: Callable[..., Deployment], own_redis: RedisServer
) -> None:
    deployment = deploy(redis_url=own_redis.url)
    with_a_known_row(deployment)
    with redis.Redis.from_url(own_redis.url) as client:
        kept = {key: client.get(key) for key in client.scan_iter()}
        service = until_healthy(deployment.service().start())
        ready = f"test:{deployment.settings['STILLWELL_NAMESPACE']}:ready".encode()
        with asking(reading(service), READERS) as readers:
            for _ in range(5):
                until(THERE, readers)
                client.flushall()
                until("503", readers)
                # What a rebuild does: rows first, and that they are all there last of all.
                client.mset({key: value for key, value in kept.items() if key != ready})
                client.set(ready, kept[ready])
            until(THERE, readers)
    assert set(readers.told) == {THERE, "503"}
    assert service.stop() == 0


ROW = {"at": orders.time(2), "customer": "known", "amount": 1.5, "number": 7}
COLUMNS = {name: [value] for name, value in ROW.items()}
KNOWN = {"customer": ["known"], "pieces": [2]}
PATHS: Sequence[tuple[str, object]] = (
    ("/get-online-features", ASKED),
    ("/v1/features", ASKED),
    (f"/v1/features?features={orders.VIEW}:amount&customer=known", None),
    ("/v1/predictions", {"model": "Cost", "entities": KNOWN}),
    ("/v1/predictions?model=Cost&customer=known&pieces=2", None),
    ("/v1/push", {"view": orders.VIEW, "rows": [ROW]}),
    ("/push", {"push_source_name": orders.VIEW, "df": COLUMNS}),
    ("/write-to-online-store", {"feature_view_name": orders.VIEW, "df": COLUMNS}),
)
"""Each that reads from Redis or writes to it, and what is sent there; without a body, by GET."""


def test_whatever_is_asked_of_a_redis_that_forgot_or_is_away_is_a_503_that_says_when_to_come_again(
    deploy: Callable[..., Deployment], own_redis: RedisServer, own_proxy: Proxy
) -> None:
    deployment = with_model(deploy(pushed=True, redis_url=own_redis.url), COST)
    with_a_known_row(deployment)
    through = {"redis_url": f"redis://{own_proxy.address}/0", "serve_timeout": f"{TIMEOUT_S * 1_000:.0f}ms"}
    service = until_healthy(deployment.service(**through).start())

    def told() -> dict[str, int]:
        """The status at each path. `ask` sees to Retry-After."""
        with concurrent.futures.ThreadPoolExecutor(len(PATHS)) as together:
            statuses = together.map(lambda each: ask(service, each[1], each[0])[0], PATHS)
            return {f"{path} {body is None}": status for (path, body), status in zip(PATHS, statuses, strict=True)}

    def all_say(status: int) -> bool:
        assert set((found := told()).values()) == {status}, found
        return True

    assert all_say(200)
    with own_proxy.toxic("timeout", timeout=0):
        assert all_say(503)
    eventually(lambda: all_say(200), what="answers once Redis speaks again")
    own_proxy.down()
    assert all_say(503)
    own_proxy.up()
    eventually(lambda: all_say(200), what="answers once Redis is there again")
    with redis.Redis.from_url(own_redis.url) as client:
        client.flushall()
    assert all_say(503)
    assert service.stop() == 0


def gauge(service: WorkerProcess, name: str) -> float:
    found = re.search(rf"^{name}{{.*}} (\S+)$", service.page("/metrics")[1], re.M)
    assert found
    return float(found[1])


TOXICS: Sequence[tuple[str, Mapping[str, Any]]] = (
    ("latency", {"latency": 5_000}),
    ("timeout", {"timeout": 0}),
    ("timeout", {"timeout": 0, "stream": "upstream"}),
    ("limit_data", {"bytes": 20}),
    ("reset_peer", {"timeout": 0}),
)
"""What becomes of connections to Redis. A timeout of 0 swallows all data: there is no end, and no answer."""


def test_connections_that_fail_in_every_way_hold_nobody_up_and_leave_nothing(
    deploy: Callable[..., Deployment], redis_proxy: Proxy, toxiproxy: Toxiproxy, stack: LocalStack
) -> None:
    """Slow, silent, cut within an answer, refused, ended at once, for who reads, has predictions computed, and pushes:
    each time deadlines hold, answers are right, and it is found again without a restart; in the end as many files are
    open as in the beginning."""
    deployment = with_model(deploy(pushed=True), COST)
    with_a_known_row(deployment)
    url = f"redis://{redis_proxy.address}/0"
    service = until_healthy(deployment.service(redis_url=url, serve_timeout=f"{TIMEOUT_S * 1_000:.0f}ms").start())
    process = psutil.Process(service.running.pid)

    def pooled() -> int:
        """Connections to Redis, of which there are as many as calls have been under way at once."""
        return sum(bool(each.raddr) and each.raddr.port == redis_proxy.port for each in process.net_connections("tcp"))

    with (
        asking(reading(service), READERS) as readers,
        asking(predicting(service), WRITERS) as predictors,
        asking(pushing(service), WRITERS) as pushers,
    ):
        everybody = readers, predictors, pushers
        until(THERE, *everybody)
        files = process.num_fds() - pooled()
        for _ in range(2):
            for kind, attributes in TOXICS:
                redis_proxy.add_toxic(kind, **attributes)
                until("503", *everybody)
                # toxiproxy hangs where a toxic goes while data waits in it for who has given its connection up: so the
                # proxy goes with it, and another comes in its place.
                redis_proxy.delete()
                toxiproxy.create(f"127.0.0.1:{stack.redis.port}", port=redis_proxy.port)
                until(THERE, *everybody)
            redis_proxy.down()
            until("503", *everybody)
            redis_proxy.up()
            until(THERE, *everybody)
    for each in everybody:
        assert set(each.told) == {THERE, "503"}
    assert readers.slowest < TIMEOUT_S + SLACK_S
    assert max(predictors.slowest, pushers.slowest) < STEPS * TIMEOUT_S + SLACK_S
    assert gauge(service, "stillwell_serve_in_flight_requests") == 1  # the page itself
    assert gauge(service, "stillwell_serve_waiting_readers") == 0
    assert gauge(service, "stillwell_serve_rows_under_way") == 0
    # One reads for all; of the rest there is one for each who writes, and one more that a lease is given up by.
    assert pooled() <= 1 + 2 * WRITERS + 1
    eventually(lambda: process.num_fds() - pooled() <= files + 2, what="as many open files as in the beginning")
    assert service.stop() == 0
