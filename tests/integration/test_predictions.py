"""Cached predictions on real parts: one model call for a thousand readers, fresh soon after a write, none lost."""

import asyncio
import collections
import dataclasses
import json
import math
import random
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import aiohttp
import pyarrow.parquet as pq
import pytest
import redis
from aiohttp import web

from stillwell import SyncClient
from stillwell.client import Input, Prediction
from stillwell.settings import Settings
from tests.integration import oracle, orders
from tests.integration.conftest import Deployment
from tests.integration.proof import log, metric, until_logged
from tests.predicted import OddServer, ThreadedServer, outputs, text
from tests.services import Proxy
from tests.waiting import eventually, throughout
from tests.worker import WorkerProcess

MODELS = """
from stillwell import Model, OpenInference, Output

_SERVER = OpenInference(url="env:WORTH_URL", model="worth", timeout=timedelta(seconds=10))

class Written(Model, entity=Customer, version="1", policy="cached", max_staleness=timedelta(hours=1),
              inputs={"amount": LastOrder.amount}, server=_SERVER,
              refresh_on_write=(LastOrder,), debounce=timedelta(milliseconds=20)):
    worth: Output[Float64]

class Waited(Model, entity=Customer, version="1", policy="wait", max_staleness=timedelta(seconds=12),
             inputs={"amount": LastOrder.amount}, server=_SERVER):
    worth: Output[Float64]

class Hinted(Model, entity=Customer, version="1", policy="refresh", max_staleness=timedelta(hours=1),
             inputs={"amount": LastOrder.amount}, server=_SERVER):
    worth: Output[Float64]

class Gift(Entity):
    giver: Key[String]
    taker: Key[String]

Giver = LastOrder.at(customer=Gift.giver)

class Given(Model, entity=Gift, version="1", policy="cached", max_staleness=timedelta(hours=1),
            inputs={"amount": Giver.amount}, server=_SERVER, refresh_on_write=(Giver,), max_fan_out=2):
    worth: Output[Float64]

class Asked(Model, entity=Gift, version="1", policy="refresh", max_staleness=timedelta(hours=1),
            inputs={"amount": Giver.amount}, server=_SERVER, refresh_on_write=(Giver,), max_fan_out=2):
    worth: Output[Float64]
"""

HINT_PARTITIONS = 6
"""Of the refresh topic."""

BRISK = """
from stillwell import Model, OpenInference, Output

class Brisk(Model, entity=Customer, version="1", policy="wait", max_staleness=timedelta(hours=1),
            inputs={"amount": LastOrder.amount},
            server=OpenInference(url="env:WORTH_URL", model="worth", timeout=timedelta(seconds=1), retries=0)):
    worth: Output[Float64]
"""

BRISK_PATIENCE = 1.7
"""Seconds after which who waits for it is told what there is: its server's timeout, and what is about it."""

WEIGHED = """
from stillwell import Model, OpenInference, Output

class Weighed(Model, entity=Customer, version="1", policy="wait", max_staleness=timedelta(hours=1),
              inputs={"amount": LastOrder.amount},
              server=OpenInference(url="env:WORTH_URL", model="worth", timeout=timedelta(seconds=10))):
    worth: Output[Float64]
    weight: Output[Float64]
"""


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadedServer]:
    """A model server that adds one."""
    with ThreadedServer(OddServer("worth", "amount", "FP64")) as running:
        monkeypatch.setenv("WORTH_URL", running.server.url)
        yield running


@pytest.fixture
def deployment(deploy: Callable[..., Deployment], model: ThreadedServer) -> Deployment:
    return defined(deploy(push="false", serve_timeout="5s"), MODELS)


def defined(deployment: Deployment, models: str, partitions: int = HINT_PARTITIONS) -> Deployment:
    """With these models too, and the topics that they need. partitions: of those that are not there."""
    package = deployment.folder / "orders" / "__init__.py"
    package.write_text(package.read_text() + models)
    deployment.run("topics", "create", "--partitions", str(partitions)).check_returncode()
    return deployment


def order(customer: str, amount: float, number: int) -> dict[str, object]:
    return {"at": orders.time(number), "customer": customer, "amount": amount, "number": number}


def until_up(service: WorkerProcess, processes: int = 1) -> WorkerProcess:
    def up() -> bool:
        return len(re.findall(r"^stillwell_serve_worker_up{.*} 1.0$", service.page("/metrics")[1], re.M)) == processes

    eventually(up, within_s=90, what=f"{service.log}: {processes} processes")
    eventually(lambda: service.page("/health")[0] == 200, within_s=60, what=f"{service.log}: health")
    return service


def prediction(service: WorkerProcess, model: str, customer: str) -> dict[str, Any]:
    """customer: or the query that names an entity."""
    keys = customer if "=" in customer else f"customer={customer}"
    status, body = service.page(f"/v1/predictions?model={model}&{keys}")
    assert status == 200, body
    found: dict[str, Any] = json.loads(body)["prediction"]
    return found


def until_worth(service: WorkerProcess, model: str, customer: str, worth: float) -> dict[str, Any]:
    def found() -> dict[str, Any] | None:
        said = prediction(service, model, customer)
        return said if said["state"] == "FRESH" and said["outputs"] == {"worth": worth} else None

    answer = eventually(found, within_s=60, what=f"{model} of {customer} is {worth}")
    assert answer is not None
    return answer


def asked(service: WorkerProcess) -> float:
    """How many requests are being answered, by all processes."""
    page = service.page("/metrics")[1]
    return sum(map(float, re.findall(r"^stillwell_serve_in_flight_requests{.*} ([0-9.]+)$", page, re.M)))


async def ask_at_once(service: WorkerProcess, readers: int) -> "collections.Counter[str]":
    """So many requests for the same prediction, each over a connection of its own; what they were answered."""
    url = f"http://127.0.0.1:{service.port}/v1/predictions?model=Waited&customer=c1"
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def ask() -> str:
            async with session.get(url) as answer:
                body = await answer.json()
                assert answer.status == 200, body
                return json.dumps([body["prediction"]["state"], body["prediction"]["outputs"]])

        return collections.Counter(await asyncio.gather(*(ask() for _ in range(readers))))


def test_a_thousand_readers_of_an_expired_prediction_over_four_processes_cost_one_call(
    deployment: Deployment, model: ThreadedServer
) -> None:
    orders.produce(deployment.bootstrap, deployment.topic, [order("c1", 30.0, 1)])
    worker = deployment.start_worker().until_ready()
    service = until_up(deployment.service(serve_workers="4", serve_in_flight="2000").start(), 4)
    until_worth(service, "Written", "c1", 31.0)
    first = until_worth(service, "Waited", "c1", 31.0)
    assert first["refresh"] in ("inline", "none")
    read_at = time.time()
    before = model.server.calls
    eventually(lambda: time.time() > read_at + 12.1, within_s=20, what="the prediction had expired")
    model.hold()
    asking = asyncio.new_event_loop()

    async def ask_and_release() -> "collections.Counter[str]":
        task = asyncio.ensure_future(ask_at_once(service, 1_000))
        # All of them come while the one call is under way, which may take ten seconds.
        await asyncio.to_thread(
            eventually, lambda: asked(service) >= 1_000, within_s=9, what="a thousand are being answered"
        )
        model.release()
        return await task

    answers = asking.run_until_complete(ask_and_release())
    asking.close()
    assert answers == {'["FRESH", {"worth": 31.0}]': 1_000}
    assert model.server.calls == before + 1
    page = service.page("/metrics")[1]
    took_part = re.findall(r'^stillwell_serve_predictions_total{model="Waited".*worker="(\d)"} [1-9]', page, re.M)
    assert set(took_part) == {"0", "1", "2", "3"}
    answered = r'^stillwell_model_predictions_total{answer="answered",model="Waited",worker="\d"} (.*)$'
    assert sum(map(float, re.findall(answered, page, re.M))) == 2
    assert service.stop() == worker.stop() == 0
    assert "Traceback" not in log(service) + log(worker)


def assert_within_a_second(seconds: list[float], until: str) -> None:
    """All but one: a machine that runs other tests beside may stand still for that long, once."""
    print(f"from the event's acknowledgement to {until}: {[round(each, 3) for each in sorted(seconds)]}")
    assert sorted(seconds)[-2] < 1.0


def test_a_changed_feature_gives_a_fresh_prediction_within_a_second(
    deployment: Deployment, model: ThreadedServer
) -> None:
    """By the write alone: readers of this model set nothing in motion."""
    worker = deployment.start_worker().until_ready()
    service = until_up(deployment.service().start())
    orders.produce(deployment.bootstrap, deployment.topic, [order("c1", 1.0, 1)])
    until_worth(service, "Written", "c1", 2.0)
    seconds = []
    for number in range(2, 14):
        orders.produce(deployment.bootstrap, deployment.topic, [order("c1", float(number), number)])
        begun = time.monotonic()
        until_worth(service, "Written", "c1", number + 1.0)
        seconds.append(time.monotonic() - begun)
    assert_within_a_second(seconds, "the fresh prediction")
    assert service.stop() == worker.stop() == 0


def left_to_reads(worker: WorkerProcess, model: str) -> float:
    pattern = rf'^stillwell_refresh_left_to_reads_total{{model="{model}"}} (.*)$'
    (found,) = re.findall(pattern, worker.page("/metrics")[1], re.M)
    return float(found)


def test_a_write_to_an_aliased_view_gives_fresh_predictions_within_a_second_and_leaves_the_rest_to_reads(
    deployment: Deployment, model: ThreadedServer
) -> None:
    """One giver, five takers, and no more than two of them are refreshed by what the giver does."""
    worker = deployment.start_worker().until_ready()
    service = until_up(deployment.service().start())
    orders.produce(deployment.bootstrap, deployment.topic, [order("c1", 1.0, 1)])
    until_worth(service, "Written", "c1", 2.0)
    gifts = [f"giver=c1&taker=x{number}" for number in range(5)]
    for gift in gifts:
        deployment.run("predictions", "refresh", "Given", *gift.split("&")).check_returncode()
        until_worth(service, "Given", gift, 2.0)
        until_worth(service, "Asked", gift, 2.0)
    assert left_to_reads(worker, "Given") == left_to_reads(worker, "Asked") == 3
    seconds = []
    for number in range(2, 12):
        orders.produce(deployment.bootstrap, deployment.topic, [order("c1", float(number), number)])
        begun = time.monotonic()
        for gift in gifts[-2:]:
            until_worth(service, "Given", gift, number + 1.0)
        seconds.append(time.monotonic() - begun)
    assert_within_a_second(seconds, "both fresh predictions")
    for gift in gifts[:-2]:
        said = prediction(service, "Given", gift)
        assert (said["state"], said["outputs"]) == ("STALE", {"worth": 2.0})
        # By another policy those, too, are there soon after somebody asked.
        said = prediction(service, "Asked", gift)
        assert (said["state"], said["outputs"], said["refresh"]) == ("STALE", {"worth": 2.0}, "queued")
        until_worth(service, "Asked", gift, 12.0)
    assert left_to_reads(worker, "Given") == 3
    assert left_to_reads(worker, "Asked") == 6
    with redis.Redis.from_url(deployment.settings["STILLWELL_REDIS_URL"]) as client:
        prefix = f"test:{deployment.settings['STILLWELL_NAMESPACE']}:r:"
        lists = client.keys(f"{prefix}*")
        assert len(lists) == 2
        assert all((client.zcard(key), client.pttl(key) > 0) == (2, True) for key in lists)
    assert service.stop() == worker.stop() == 0
    assert "Traceback" not in log(service) + log(worker)


def test_a_read_has_what_is_missing_computed_by_the_worker(deployment: Deployment, model: ThreadedServer) -> None:
    orders.produce(deployment.bootstrap, deployment.topic, [order("c1", 30.0, 1)])
    worker = deployment.start_worker().until_ready()
    service = until_up(deployment.service().start())
    until_worth(service, "Written", "c1", 31.0)
    first = prediction(service, "Hinted", "c1")
    assert (first["state"], first["outputs"], first["refresh"]) == ("MISSING", None, "queued")
    until_worth(service, "Hinted", "c1", 31.0)
    assert service.stop() == worker.stop() == 0


def test_a_command_shows_what_the_service_says_of_a_prediction(deployment: Deployment, model: ThreadedServer) -> None:
    """Also that there is none, as a reader whose asking has it computed."""
    orders.produce(deployment.bootstrap, deployment.topic, [order("c1", 30.0, 1)])
    worker = deployment.start_worker().until_ready()
    service = until_up(deployment.service().start())
    until_worth(service, "Written", "c1", 31.0)
    command = ("predict", "Hinted", "customer=c1", "--url", f"http://127.0.0.1:{service.port}")
    missing = deployment.run(*command)
    assert missing.returncode == 1, missing.stderr
    assert missing.stdout.splitlines()[:2] == ['Hinted version 1 of customer="c1": MISSING', "  worth  null"]
    assert missing.stdout.splitlines()[-1] == "refresh: queued"
    said = until_worth(service, "Hinted", "c1", 31.0)
    shown = deployment.run(*command)
    assert (shown.returncode, shown.stderr) == (0, "")
    head, worth, computed, ages = shown.stdout.splitlines()
    assert (head, worth) == ('Hinted version 1 of customer="c1": FRESH', "  worth  31.0")
    assert computed == f"computed at {said['computed_at']}, from inputs read at {said['read_at']}"
    assert re.fullmatch(f"ages of the inputs: {orders.VIEW} [0-9]+ days .*", ages)
    told = json.loads(deployment.run(*command, "--json").stdout)
    assert 0 <= told.pop("age_s") < 60
    assert list(told.pop("input_ages_s")) == [orders.VIEW]
    assert told == {
        "model": "Hinted",
        "version": "1",
        "entity": {"customer": "c1"},
        "outputs": {"worth": 31.0},
        **{name: said[name] for name in ("state", "computed_at", "read_at", "refresh", "reason")},
    }
    assert service.stop() == worker.stop() == 0


def test_nothing_is_called_queued_while_kafka_is_away(
    deployment: Deployment, model: ThreadedServer, kafka_proxy: Proxy
) -> None:
    orders.produce(deployment.bootstrap, deployment.topic, [order("c1", 30.0, 1)])
    worker = deployment.start_worker().until_ready()
    service = until_up(deployment.service(kafka_bootstrap=kafka_proxy.address).start())
    until_worth(service, "Written", "c1", 31.0)
    kafka_proxy.down()

    def told() -> bool:
        refresh: str = prediction(service, "Hinted", "c1")["refresh"]
        assert refresh in ("none", "queued", "shared")  # it is found out by trying, and reads do not wait
        return refresh == "none"

    eventually(told, within_s=20, what="the reader is told the truth")
    for _ in range(5):
        said = prediction(service, "Hinted", "c1")
        assert (said["state"], said["refresh"]) == ("MISSING", "none")
        assert "no worker can be asked to compute it anew" in said["reason"]
    kafka_proxy.up()
    until_worth(service, "Hinted", "c1", 31.0)
    assert service.stop() == worker.stop() == 0
    assert "Traceback" not in log(service)


def test_a_command_has_all_predictions_of_a_model_computed_or_those_of_one_entity(
    deployment: Deployment, model: ThreadedServer
) -> None:
    """As for a new version, before anybody asks."""
    customers = {f"c{{odd:{number}}}": float(number) for number in range(40)}
    worker = deployment.start_worker().until_ready()
    service = until_up(deployment.service().start())
    made = [order(customer, amount, n) for n, (customer, amount) in enumerate(customers.items())]
    orders.produce(deployment.bootstrap, deployment.topic, made)
    until_worth(service, "Written", "c%7Bodd:39%7D", 40.0)
    done = deployment.run("predictions", "refresh", "Waited", "customer=c{odd:7}", "--json")
    assert json.loads(done.stdout) == {"model": "Waited", "hints": 1}
    done = deployment.run("predictions", "refresh", "Hinted", "--all", "--json")
    assert (done.returncode, json.loads(done.stdout)["hints"] >= 40) == (0, True), done.stderr

    def computed() -> bool:
        with redis.Redis.from_url(deployment.settings["STILLWELL_REDIS_URL"]) as client:
            prefix = f"test:{deployment.settings['STILLWELL_NAMESPACE']}:p:"
            keys = client.keys(f"{prefix}*")
            return [sum(key.endswith(b":%b:1" % name) for key in keys) for name in (b"Hinted", b"Waited")] == [40, 1]

    eventually(computed, within_s=60, what="every customer has a prediction of the one, and one of the other")
    every = json.loads(deployment.run("predictions", "refresh", "--all", "--json").stdout)
    assert [each["model"] for each in every["models"]] == ["Written", "Waited", "Hinted"]
    assert min(each["hints"] for each in every["models"]) >= 40
    assert every["left_out"].keys() == {"Asked", "Given"}
    assert "reads no view of Gift" in every["left_out"]["Given"]
    for arguments, telling in (
        (("Hinted",), "name a model and one entity by its keys, or say --all"),
        ((), "name a model and one entity by its keys, or say --all"),
        (("Hintet", "--all"), "did you mean 'Hinted'"),
        (("Hinted", "number=7"), "number is no key of the entity"),
    ):
        wrong = deployment.run("predictions", "refresh", *arguments)
        assert wrong.returncode == 2
        assert telling in wrong.stderr
    assert service.stop() == worker.stop() == 0


def keys_of(deployment: Deployment, pattern: str) -> list[bytes]:
    """What a deployment has in Redis."""
    with redis.Redis.from_url(deployment.settings["STILLWELL_REDIS_URL"]) as client:
        found: list[bytes] = client.keys(f"test:{deployment.settings['STILLWELL_NAMESPACE']}:{pattern}")
        return found


def test_a_rebuild_says_how_to_have_predictions_computed_that_only_writes_refresh(
    deployment: Deployment, model: ThreadedServer
) -> None:
    """It hints nothing itself, and reads do not where the policy is `cached`."""
    worker = deployment.start_worker().until_ready()
    service = until_up(deployment.service().start())
    orders.produce(deployment.bootstrap, deployment.topic, [order("c1", 1.0, 1), order("c2", 2.0, 2)])
    until_worth(service, "Written", "c1", 2.0)
    until_worth(service, "Written", "c2", 3.0)
    assert worker.stop() == 0
    with redis.Redis.from_url(deployment.settings["STILLWELL_REDIS_URL"]) as client:
        client.delete(*keys_of(deployment, "*"))
    rebuilt = deployment.run("rebuild")
    assert rebuilt.returncode == 0, rebuilt.stderr
    said = re.findall(r"^  stillwell (predictions refresh .*)$", rebuilt.stdout, re.M)
    assert said == ["predictions refresh Written --all"]
    assert json.loads(deployment.run("rebuild", "--yes", "--json").stdout)["models_to_refresh"] == ["Written"]
    worker = deployment.start_worker().until_ready()
    assert prediction(service, "Written", "c1")["state"] == "MISSING"
    for command in said:
        assert deployment.run(*command.split()).returncode == 0
    until_worth(service, "Written", "c1", 2.0)
    until_worth(service, "Written", "c2", 3.0)
    assert service.stop() == worker.stop() == 0


def test_a_hint_that_an_older_worker_does_not_understand_is_done_by_the_newer_one(
    deployment: Deployment, model: ThreadedServer
) -> None:
    """The model is new; nobody reads or writes again when the worker has it too."""
    package = deployment.folder / "orders" / "__init__.py"
    whole = package.read_text()
    package.write_text(whole.replace("class Hinted(", "class Former("))
    older = deployment.start_worker().until_ready()
    package.write_text(whole)
    service = until_up(deployment.service().start())
    orders.produce(deployment.bootstrap, deployment.topic, [order("c1", 30.0, 1)])
    until_worth(service, "Written", "c1", 31.0)
    assert prediction(service, "Hinted", "c1")["refresh"] == "queued"
    until_logged(older, "hints wait for a worker that knows their model")
    assert older.stop() == 0
    assert keys_of(deployment, "p:*:Hinted:1") == []
    newer = deployment.start_worker().until_ready()
    eventually(lambda: keys_of(deployment, "p:*:Hinted:1"), within_s=60, what="a prediction")
    assert service.stop() == newer.stop() == 0


def rows_of(file: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.ParquetFile(file).read().to_pylist()
    return found


def test_what_is_computed_is_at_rest_as_a_dataset_of_the_models_own(
    deploy: Callable[..., Deployment], model: ThreadedServer
) -> None:
    made = defined(deploy(pushed=True, serve_timeout="5s"), MODELS, partitions=1)
    worker = made.start_worker().until_ready()
    orders.produce(made.bootstrap, made.topic, [order(f"c{number}", number + 0.5, number) for number in range(20)])
    root = Path(made.settings["STILLWELL_OFFLINE_URL"])

    def logged() -> list[dict[str, Any]]:
        return [row for file in root.glob("**/Written/**/*.parquet") for row in rows_of(file)]

    def all_of_them() -> bool:
        return len({row["customer"] for row in logged()}) == 20

    eventually(all_of_them, within_s=90, what="every prediction is in a file")
    for row in logged():
        assert row["worth"] == int(row["customer"][1:]) + 1.5
        assert (row["model_version"], row["_to"]) == ("1", "offline")
        assert row["event_timestamp"] <= row["computed_at"]
    service = until_up(made.service().start())
    until_worth(service, "Waited", "c7", 8.5)

    def inline() -> bool:
        return [row["worth"] for file in root.glob("**/Waited/**/*.parquet") for row in rows_of(file)] == [8.5]

    eventually(inline, within_s=90, what="what the service computed is in a file too")
    with redis.Redis.from_url(made.settings["STILLWELL_REDIS_URL"]) as client:
        assert client.keys(f"{made.settings['STILLWELL_PROJECT']}:*:f:*:Written") == []
    assert service.stop() == 0
    assert worker.stop() == 0
    verified = made.run("verify")
    assert verified.returncode == 0
    assert "    predictions of Written (worth): 2" in verified.stdout
    assert "Written version" not in verified.stdout


def hints_not_committed(deployment: Deployment) -> int:
    """How many hints are read again by whoever comes next."""
    topic = ".".join(deployment.settings[f"STILLWELL_{name}"] for name in ("PROJECT", "NAMESPACE")) + ".refresh"
    done = oracle.committed(deployment.settings, topic, of="refresh")
    ends = orders.log_ends(deployment.bootstrap, topic, HINT_PARTITIONS)
    return sum(end - done.get(partition, 0) for partition, end in ends.items())


def test_a_worker_that_is_killed_loses_no_refresh(
    deployment: Deployment, model: ThreadedServer, rng: random.Random
) -> None:
    """Writes alone ask for these. The worker dies while the model is asked and hints wait: first before the writes are
    linked, so that they are read again and hint again; then when they are, and nothing but the hints knows of them."""
    customers = [f"c{number}" for number in range(150)]
    worker = deployment.start_worker().until_ready()
    newest: dict[str, float] = {}
    sent = 0
    for blow in range(3):
        model.hold()
        before = model.server.calls
        chosen = customers if blow == 0 else rng.sample(customers, 60)
        amounts = {customer: round(rng.uniform(0, 100), 2) for customer in chosen}
        newest |= amounts
        made = [order(customer, amount, blow * 1_000 + n) for n, (customer, amount) in enumerate(amounts.items())]
        sent += len(orders.produce(deployment.bootstrap, deployment.topic, made))
        eventually(lambda: model.server.calls > before, within_s=60, what="the model was asked")  # noqa: B023
        if blow > 0:
            eventually(
                lambda: oracle.linked(deployment.settings, deployment.topic) == sent,  # noqa: B023
                within_s=60,
                what=f"{sent} orders are linked",
            )
        if blow == 2:
            # A client of Kafka that commits by itself what has come does so every five seconds.
            linked_at = time.monotonic()
            eventually(lambda: time.monotonic() > linked_at + 6, what="it would have committed")  # noqa: B023
            assert hints_not_committed(deployment) >= len(chosen)
        worker.kill()
        model.release()
        worker = deployment.start_worker().until_ready()
    service = until_up(deployment.service().start())
    for customer in customers:
        until_worth(service, "Written", customer, newest[customer] + 1)
    assert service.stop() == worker.stop() == 0
    assert "Traceback" not in log(worker)


def test_a_server_that_is_down_is_flagged_and_its_return_is_noticed_without_a_storm(
    deployment: Deployment, model: ThreadedServer
) -> None:
    orders.produce(deployment.bootstrap, deployment.topic, [order("c1", 1.0, 1)])
    worker = deployment.start_worker().until_ready()
    service = until_up(deployment.service().start())
    until_worth(service, "Written", "c1", 2.0)
    model.server.answer = text(500, "Internal Server Error")
    orders.produce(deployment.bootstrap, deployment.topic, [order("c1", 5.0, 2)])

    def failed() -> bool:
        said = prediction(service, "Written", "c1")
        return bool(said["state"] == "FAILED" and said["outputs"] == {"worth": 2.0} and "500" in said["reason"])

    eventually(failed, within_s=30, what="the failure is told, with the older value")
    assert worker.page("/readyz")[0] == 200
    model.server.answer = None
    until_worth(service, "Written", "c1", 6.0)

    # Now many wait for it: of the worker by writes, and of the service those who read.
    amounts = {f"d{number}": float(number) for number in range(300)}
    everybody = {"customer": list(amounts)}
    model.server.answer = text(503, "starting")
    before = model.server.calls
    made = [order(customer, amount, 10 + n) for n, (customer, amount) in enumerate(amounts.items())]
    orders.produce(deployment.bootstrap, deployment.topic, made)
    eventually(lambda: metric(worker, "stillwell_refresh_waiting", model="Written") == 300, within_s=60, what="hints")
    for customer in [*amounts][:50]:
        assert prediction(service, "Waited", customer)["state"] in ("FAILED", "MISSING")
    begun, away = time.monotonic(), model.server.calls - before
    throughout(lambda: worker.page("/readyz")[0] == 200, for_s=2, what="readiness while the model is away")
    more = model.server.calls - before - away
    print(f"away: {away} calls, and {more} in the {time.monotonic() - begun:.1f} s after that")
    # Of worker and service each five that open its circuit, with what was under way then, and one after each pause.
    assert away <= 30
    assert more <= 2 * 4
    model.server.batches.clear()
    model.server.answer = None
    with SyncClient(f"http://127.0.0.1:{service.port}", timeout=30) as client:
        for name in ("Written", "Waited"):

            def all_fresh(name: str = name) -> bool:
                found = client.predictions(name, everybody)
                return all(
                    (each.state.value, each["worth"]) == ("FRESH", amounts[each.entity["customer"]] + 1)
                    for each in found
                )

            eventually(all_fresh, within_s=60, what=f"every prediction of {name}")
    batches = [sorted(each) for each in model.server.batches]
    print(f"back: batches of {[len(each) for each in batches]}")
    # Each of the two models asks about each customer once, and in few calls: 64 fit into one.
    assert collections.Counter(each for batch in batches for each in batch) == dict.fromkeys(amounts.values(), 2)
    assert len(batches) <= 2 * 10
    assert service.stop() == worker.stop() == 0


def test_a_model_that_is_not_as_defined_is_told_at_the_start_and_asked_once_it_is_mended(
    deployment: Deployment, model: ThreadedServer
) -> None:
    """The worker sees it before anybody hints, and goes on with what needs no model."""
    declared = model.server.metadata
    assert declared
    wrong = "is Float64, which wants FP64, and BYTES at the server"
    model.server.metadata = {**declared, "inputs": [{**declared["inputs"][0], "datatype": "BYTES"}]}
    worker = deployment.start_worker().until_ready()
    told = [line for line in log(worker).splitlines() if "a model cannot be asked" in line]
    assert len(told) == len(re.findall(r"^class .*\(Model, ", MODELS, re.M))
    assert all(wrong in line for line in told)
    service = until_up(deployment.service().start())
    orders.produce(deployment.bootstrap, deployment.topic, [order("c1", 30.0, 1)])

    def failed() -> bool:
        said = prediction(service, "Written", "c1")
        return bool(said["state"] == "FAILED" and wrong in said["reason"])

    eventually(failed, within_s=60, what="what differs is the reason of a failure")
    eventually(lambda: amount(service, "c1") == 30.0, within_s=30, what="the feature")
    eventually(lambda: oracle.linked(deployment.settings, deployment.topic) == 1, within_s=30, what="the order's link")
    assert worker.page("/readyz")[0] == 200
    assert model.server.calls == 0
    model.server.metadata = declared
    orders.produce(deployment.bootstrap, deployment.topic, [order("c1", 40.0, 2)])
    until_worth(service, "Written", "c1", 41.0)
    until_worth(service, "Waited", "c1", 41.0)
    assert service.stop() == worker.stop() == 0
    assert "Traceback" not in log(service) + log(worker)


def amount(service: WorkerProcess, customer: str) -> float | None:
    """The feature that all these models read."""
    status, body = service.page(f"/v1/features?features={orders.VIEW}:amount&customer={customer}")
    assert status == 200, body
    found: float | None = json.loads(body)["features"][f"{orders.VIEW}:amount"]["value"]
    return found


def test_who_waits_for_a_server_that_hangs_is_told_in_time_what_there_is(
    deploy: Callable[..., Deployment], model: ThreadedServer
) -> None:
    """And who waits for another process that asks it, and dies."""
    deployment = defined(deploy(serve_timeout="5s"), BRISK)
    orders.produce(deployment.bootstrap, deployment.topic, [order("c1", 30.0, 1)])
    worker = deployment.start_worker().until_ready()
    service, other = [deployment.service().start() for _ in range(2)]
    until_worth(until_up(service), "Brisk", "c1", 31.0)
    until_up(other)

    def in_time(customer: str) -> dict[str, Any]:
        begun = time.monotonic()
        said = prediction(service, "Brisk", customer)
        seconds = time.monotonic() - begun
        print(f"{customer}: {said['state']} after {seconds:.2f} s")
        assert seconds < BRISK_PATIENCE + 2  # for all that a busy machine does beside
        return said

    model.hold()
    orders.produce(deployment.bootstrap, deployment.topic, [order("c1", 40.0, 2)])
    eventually(lambda: amount(service, "c1") == 40.0, within_s=30, what="the new order")
    for customer, before in (("c1", {"worth": 31.0}), ("c2", None)):
        said = in_time(customer)
        assert (said["state"], said["outputs"], said["refresh"]) == ("FAILED", before, "inline")
        assert said["reason"].endswith("gave no answer within 1 s")
    orders.produce(deployment.bootstrap, deployment.topic, [order("c1", 50.0, 3)])
    eventually(lambda: amount(service, "c1") == 50.0, within_s=30, what="the newest order")
    calls = model.server.calls
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(other.page, "/v1/predictions?model=Brisk&customer=c1")
        eventually(lambda: model.server.calls > calls, what="the other one asks")
        other.freeze()
        said = in_time("c1")
        assert (said["state"], said["outputs"], said["refresh"]) == ("STALE", {"worth": 31.0}, "shared")
        other.thaw()
        asking.result(30)
    assert model.server.calls == calls + 1
    model.release()
    until_worth(service, "Brisk", "c1", 51.0)
    assert service.stop() == other.stop() == worker.stop() == 0
    assert "Traceback" not in log(service) + log(other)


async def weighed(request: web.Request) -> web.StreamResponse:
    """Outputs in another order than the definition has; for who has spent nothing, one that is no number."""
    data = json.loads(await request.read())["inputs"][0]["data"]
    weight = outputs([each * 2 if each else math.nan for each in data], name="weight")
    worth = outputs([each + 1 for each in data], name="worth")
    return web.json_response({**worth, "outputs": [*weight["outputs"], *worth["outputs"]]})


def test_a_nan_is_the_failure_of_its_own_entity_and_outputs_are_taken_by_name(
    deploy: Callable[..., Deployment], model: ThreadedServer
) -> None:
    tensors = [{"name": name, "datatype": "FP64", "shape": [-1, 1]} for name in ("weight", "worth")]
    assert model.server.metadata
    model.server.metadata["outputs"] = tensors
    model.server.answer = weighed
    deployment = defined(deploy(serve_timeout="5s"), WEIGHED)
    amounts = {"c1": 30.0, "c2": 0.0, "c3": 40.0}
    made = [order(customer, amount, n) for n, (customer, amount) in enumerate(amounts.items())]
    orders.produce(deployment.bootstrap, deployment.topic, made)
    worker = deployment.start_worker().until_ready()
    service = until_up(deployment.service().start())
    eventually(lambda: amount(service, "c3") == 40.0, within_s=30, what="the last order")
    with SyncClient(f"http://127.0.0.1:{service.port}", timeout=30) as client:
        found = client.predictions("Weighed", {"customer": list(amounts)})
    assert [(each.state.value, each.values) for each in found] == [
        ("FRESH", {"worth": 31.0, "weight": 60.0}),
        ("FAILED", {"worth": None, "weight": None}),
        ("FRESH", {"worth": 41.0, "weight": 80.0}),
    ]
    assert found[1].reason == "output weight is nan"
    assert model.server.calls == 1
    assert service.stop() == worker.stop() == 0
    assert "Traceback" not in log(service)


def test_a_row_that_a_push_has_written_gives_a_fresh_prediction_by_the_worker_who_finds_it_there(
    deploy: Callable[..., Deployment], model: ThreadedServer
) -> None:
    """A synchronous push writes its rows itself, and asks for no refresh; nor do readers of this model."""
    deployment = defined(deploy(pushed=True, serve_timeout="5s"), MODELS)
    worker = deployment.start_worker().until_ready()
    service = until_up(deployment.service().start())
    with SyncClient(f"http://127.0.0.1:{service.port}", timeout=30) as client:
        for number, worth, before in ((1, 30.0, ("MISSING", None)), (2, 40.0, ("STALE", {"worth": 31.0}))):
            # So that the worker is the second to write it, whatever the machine is busy with.
            worker.freeze()
            pushed = client.push(orders.VIEW, [order("c1", worth, number)])
            assert [each.status.value for each in pushed.rows] == ["applied"]
            assert amount(service, "c1") == worth
            said = prediction(service, "Written", "c1")
            assert (said["state"], said["outputs"], said["refresh"]) == (*before, "none")
            worker.thaw()
            until_worth(service, "Written", "c1", worth + 1)
    written = {
        result: metric(worker, "stillwell_upserts_total", view=orders.VIEW, result=result)
        for result in ("applied", "duplicate")
    }
    assert (written["applied"], written["duplicate"] >= 2) == (0, True)
    assert service.stop() == worker.stop() == 0
    assert "Traceback" not in log(service) + log(worker)


def timeless(told: Prediction) -> Prediction:
    """Without ages, which were counted at another instant than those of another answer."""
    inputs = {name: Input(each.event_time, None) for name, each in told.inputs.items()}
    return dataclasses.replace(told, age=None, inputs=inputs)


def test_a_client_straight_from_redis_is_told_the_same_and_asks_nobody(
    deployment: Deployment, model: ThreadedServer, settings: Callable[..., Settings]
) -> None:
    """Nor are hints given: a worker is there who would follow them."""
    orders.produce(deployment.bootstrap, deployment.topic, [order("c1", 30.0, 1)])
    worker = deployment.start_worker().until_ready()
    service = until_up(deployment.service().start())
    until_worth(service, "Written", "c1", 31.0)
    until_worth(service, "Waited", "c1", 31.0)
    calls = model.server.calls
    with (
        SyncClient(f"http://127.0.0.1:{service.port}", timeout=30) as through,
        SyncClient.direct(settings(deployment), timeout=30) as direct,
    ):
        for asked in ({"customer": ["c1", "nobody"]}, {"customer": "c1"}):
            one, other = [client.predictions("Written", asked) for client in (through, direct)]
            assert list(map(timeless, one)) == list(map(timeless, other))
            assert (one.version, one.types) == (other.version, other.types)
        missing = direct.predictions("Waited", {"customer": "c2"}).one()
        assert (missing.state.value, missing["worth"], missing.refresh.value) == ("MISSING", None, "none")
        assert direct.predictions("Hinted", {"customer": "c1"}).one().state.value == "MISSING"
        beside = direct.features([f"{orders.VIEW}:amount", "Waited:worth", "Hinted:worth"], {"customer": "c1"}).one()
        assert [(each.value, each.status.value) for each in beside.features.values()] == [
            (30.0, "PRESENT"),
            (31.0, "PRESENT"),
            (None, "NOT_FOUND"),
        ]
        shown = deployment.run("get", "Waited", f"{orders.VIEW}:amount", "customer=c1", "--json")
        features = json.loads(shown.stdout)["features"]
        assert {name: each["value"] for name, each in features.items()} == {
            "Waited:worth": 31.0,
            f"{orders.VIEW}:amount": 30.0,
        }
        # What a worker writes under it is seen by the next read: first that it is of other inputs, then the new one.
        orders.produce(deployment.bootstrap, deployment.topic, [order("c1", 40.0, 2)])
        eventually(
            lambda: direct.predictions("Waited", {"customer": "c1"}).one().state.value == "STALE",
            within_s=60,
            what="a prediction of other inputs",
        )
        eventually(
            lambda: direct.predictions("Written", {"customer": "c1"}).one()["worth"] == 41.0,
            within_s=60,
            what="the prediction that the write has caused",
        )
        assert direct.predictions("Hinted", {"customer": "c1"}).one().state.value == "MISSING"
    assert model.server.calls == calls + 1
    worker.kill()
