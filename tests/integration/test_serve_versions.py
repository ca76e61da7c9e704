"""A service reads what workers of other versions write: older rows that are still there, and newer ones that come."""

import json
import random
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path

from stillwell.local import free_port
from tests.integration import orders
from tests.integration.conftest import Deployment
from tests.integration.proof import until_linked, verified
from tests.integration.test_serve import ask, until_healthy
from tests.waiting import eventually
from tests.worker import WorkerProcess


def second_version(folder: Path, double: str = "Float64") -> Path:
    """A folder with the definitions as they are, and the view at version 2: it has twice the amount, and no number."""
    there = folder / "second"
    (there / "orders").mkdir(parents=True)
    text = (folder / "orders" / "__init__.py").read_text()
    assert "ttl=timedelta(days=3650)):" in text
    text = text.replace("ttl=timedelta(days=3650)):", "ttl=timedelta(days=3650), version=2):")
    text = text.replace("    number: Feature[Int64] = feature(Order.number)\n", "")
    text += f"    double: Feature[{double}] = feature(Order.amount * 2)\n"
    (there / "orders" / "__init__.py").write_text(text)
    return there


def beside(deployment: Deployment, folder: Path, command: str) -> WorkerProcess:
    """A process that has the definitions of another folder."""
    process = WorkerProcess(folder, deployment.settings, f"{command}-2", command)
    deployment.workers.append(process)
    return process


def read(service: WorkerProcess, customer: str, *features: str) -> Mapping[str, tuple[object, str]]:
    """Value and status of each feature of a customer, by its name."""
    asked = {"features": [f"{orders.VIEW}:{name}" for name in features], "entities": {"customer": [customer]}}
    status, answer = ask(service, asked)
    assert status == 200, answer
    columns = zip(answer["metadata"]["feature_names"][1:], answer["results"][1:], strict=True)
    return {name: (column["values"][0], column["statuses"][0]) for name, column in columns}


def test_rows_of_older_and_of_newer_versions_are_read_without_a_restart(
    deploy: Callable[..., Deployment], tmp_path: Path
) -> None:
    deployment = deploy()
    sent = orders.produce(
        deployment.bootstrap,
        deployment.topic,
        [{"at": orders.time(1), "customer": "old", "amount": 1.5, "number": 7}],
    )
    first = deployment.start_worker().until_ready()
    until_linked(deployment, sent)
    assert first.stop() == 0
    of_the_first = until_healthy(deployment.service().start())
    folder = second_version(tmp_path)
    of_the_second = until_healthy(beside(deployment, folder, "serve").start())

    # What version 1 has written, read by the definitions of version 2.
    assert read(of_the_second, "old", "amount", "double") == {"amount": (1.5, "PRESENT"), "double": (None, "NOT_FOUND")}

    second = beside(deployment, folder, "worker").start().until_ready()
    sent += orders.produce(
        deployment.bootstrap,
        deployment.topic,
        [{"at": orders.time(2), "customer": "new", "amount": 2.5, "number": 8}],
    )
    until_linked(deployment, sent)
    assert read(of_the_second, "new", "amount", "double") == {"amount": (2.5, "PRESENT"), "double": (5.0, "PRESENT")}
    # And what version 2 has written, by a service that was there before anybody knew of it.
    assert read(of_the_first, "new", "amount", "number") == {"amount": (2.5, "PRESENT"), "number": (None, "NOT_FOUND")}
    assert read(of_the_first, "old", "amount", "number") == {"amount": (1.5, "PRESENT"), "number": (7, "PRESENT")}
    assert second.stop() == of_the_first.stop() == of_the_second.stop() == 0


def pushed(service: WorkerProcess, row: Mapping[str, object], **more: object) -> Mapping[str, object]:
    """What a push of an order is answered."""
    body = json.dumps({"view": orders.VIEW, "rows": [row], **more}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{service.port}/v1/push", body)
    with urllib.request.urlopen(request, timeout=30) as answer:
        found: Mapping[str, object] = json.load(answer)
    return found


def read_after(service: WorkerProcess, customer: str, token: object) -> object:
    """The amount of a customer's newest order, read behind a push."""
    name = f"{orders.VIEW}:amount"
    body = {"features": [name], "entities": {"customer": [customer]}, "after": token, "timeout_ms": 30_000}
    request = urllib.request.Request(f"http://127.0.0.1:{service.port}/v1/features", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)["features"][name]["values"][0]


def test_a_push_is_read_back_and_comes_to_rest_whichever_version_works_and_whichever_is_served(
    deploy: Callable[..., Deployment], tmp_path: Path
) -> None:
    """Services of both versions, and a worker of one of them: first of the older one, then of the newer."""
    deployment = deploy(pushed=True)
    folder = second_version(tmp_path, "Float64 | None")
    worker = deployment.start_worker().until_ready()
    older, newer = deployment.service().start(), beside(deployment, folder, "serve").start()
    number = 0
    for version in (1, 2):
        if version == 2:
            assert worker.stop() == 0
            worker = beside(deployment, folder, "worker").start().until_ready()
        for service in (until_healthy(older), until_healthy(newer)):
            number += 1
            event = {"at": orders.time(number), "customer": "c", "amount": number, "number": 7}
            token = pushed(service, event, mode="async")["token"]
            assert [read_after(each, "c", token) for each in (older, newer)] == [number, number]
        # What version 1 has computed: version 2 has no number, and more that may be null.
        number += 1
        row = {"event_timestamp": orders.time(number), "customer": "c", "amount": number, "number": 7}
        answer = pushed(older, row, mode="sync", transform_on_write=False)
        assert answer["statuses"] == ["applied"]
        of_the_worker = str(answer["token"]).partition(";")[0]
        assert [read_after(each, "c", of_the_worker) for each in (older, newer)] == [number, number]
    assert worker.stop() == 0
    assert [service.stop() for service in (older, newer)] == [0, 0]
    (totals,) = (each for each in verified(deployment)["partitions"] if each["partition"].startswith(deployment.pushes))
    assert {name: (views["rows"], views["rejected"]) for name, views in totals["views"].items()} == {
        f"{orders.VIEW}@{version}": (3, 0) for version in (1, 2)
    }


def test_a_service_starts_without_the_offline_store_and_reads_what_is_defined(
    deploy: Callable[..., Deployment], rng: random.Random
) -> None:
    """A bucket at an address where nobody listens."""
    deployment = deploy()
    sent = orders.produce(deployment.bootstrap, deployment.topic, orders.orders(50, rng, customers=1))
    worker = deployment.start_worker().until_ready()
    until_linked(deployment, sent)
    service = deployment.service(offline_url="gs://nowhere")
    service.environment["STORAGE_EMULATOR_HOST"] = f"http://127.0.0.1:{free_port()}"
    until_healthy(service.start())
    assert read(service, "c0", "amount")["amount"][1] == "PRESENT"
    eventually(
        lambda: "rows of other versions cannot be read until the offline store can" in service.log.read_text(),
        within_s=30,
        what="a warning",
    )
    assert read(service, "c0", "amount")["amount"][1] == "PRESENT"
    assert service.stop() == worker.stop() == 0
