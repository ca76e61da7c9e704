"""What the query service has written of a push, the worker writes again: the same bytes, whoever comes first."""

import json
import random
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stillwell.local import RedisServer
from tests.integration import orders
from tests.integration.conftest import Deployment
from tests.integration.proof import metric, until_linked, verified
from tests.integration.test_rebuild import dump, flush, rebuilt
from tests.integration.test_serve import until_healthy
from tests.worker import WorkerProcess

PARTITIONS = 2

RATIOS = """
from stillwell import Float32

class LastOrder(View, source=Order, entity=Customer, keys={"customer": Order.customer}, where=Order.amount >= 0,
                ttl=timedelta(days=3650)):
    amount: Feature[Float64] = feature(Order.amount)
    number: Feature[Int64] = feature(Order.number)
    ratio: Feature[Float64 | None] = feature(Order.amount / Order.number)
    third: Feature[Float32 | None] = feature((Order.amount / 3).cast(Float32.__metadata__[0]))
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of the test's own: what it forgets is nobody else's."""
    server = RedisServer(tmp_path / "redis")
    server.start()
    yield server
    server.stop()


def push(service: WorkerProcess, rows: list[dict[str, Any]], **more: Any) -> list[str]:
    """What became of each row."""
    body = json.dumps({"view": orders.VIEW, "rows": rows, **more}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{service.port}/v1/push", body)
    with urllib.request.urlopen(request, timeout=30) as answer:
        statuses: list[str] = json.load(answer)["statuses"]
    return statuses


def test_a_worker_finds_every_row_of_a_synchronous_push_there_to_the_bit(
    deploy: Callable[..., Deployment], server: RedisServer, rng: random.Random
) -> None:
    """NaN of either sign, infinities, minus zero and the ends of Int64 among them; a rebuild from the worker's files
    ends in the same bytes too."""
    deployment = deploy(PARTITIONS, pushed=True, redis_url=server.url)
    package = deployment.folder / "orders" / "__init__.py"
    package.write_text(package.read_text().replace("class LastOrder(", "class Unused(") + RATIOS)
    deployment.run("topics", "create", "--partitions", "1").check_returncode()
    assert deployment.start_worker().until_ready().stop() == 0  # makes Redis ready

    events = orders.orders(200, rng)
    ends = [(0.0, 0), (-0.0, 5), (1.0, 0), (0.0, -3), (1e-320, 3), (1.7e308, 2**63 - 1), (0.1, -(2**63))]
    events += [
        {"at": orders.time(7_200), "customer": f"end{place}", "amount": amount, "number": number}
        for place, (amount, number) in enumerate(ends)
    ]
    specials: list[Any] = ["NaN", "Infinity", "-Infinity", "NaN:fff8000000000000", "NaN:7ff8000000000001", -0.0, None]
    finals: list[dict[str, Any]] = [
        {"customer": f"final{place}", "event_timestamp": orders.time(0), "amount": 1, "number": place, "ratio": value}
        for place, value in enumerate(specials)
    ]
    service = until_healthy(deployment.service().start())
    statuses = [
        *push(service, events),
        *push(service, finals, transform_on_write=False),
        *push(service, finals[:3], transform_on_write=False, to="offline"),
    ]
    assert service.stop() == 0
    assert set(statuses) <= {"applied", "stale", "filtered", "offline"}
    written = dump(deployment)
    assert statuses.count("applied") >= len(written.rows) > len(ends) + len(finals)

    worker = deployment.start_worker().until_ready()
    until_linked(deployment, statuses, topic=deployment.pushes)  # type: ignore[arg-type]  # as many records
    assert metric(worker, "stillwell_upserts_total", view=orders.VIEW, result="applied") == 0
    assert metric(worker, "stillwell_upserts_total", view=orders.VIEW, result="duplicate") > 0
    assert worker.stop() == 0
    assert dump(deployment).rows == written.rows
    flush(deployment)
    rebuilt(deployment)
    assert dump(deployment).rows == written.rows
    verified(deployment)
