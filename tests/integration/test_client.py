"""The client against a real service, and straight from a real Redis that a real worker has filled."""

import dataclasses
import datetime
import json
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from stillwell import Client, SyncClient
from stillwell.client import NotReady, Retries, Unavailable
from stillwell.settings import Settings
from tests.integration import orders
from tests.integration.conftest import Deployment
from tests.integration.proof import until_linked
from tests.integration.test_serve import until_healthy
from tests.services import Proxy
from tests.waiting import eventually_async
from tests.worker import WorkerProcess

FEATURES = [f"{orders.VIEW}:amount", f"{orders.VIEW}:number"]


def url(service: WorkerProcess) -> str:
    """A service's root."""
    return f"http://127.0.0.1:{service.port}"


async def test_through_the_service_and_straight_from_redis_every_bit_is_the_same(
    deploy: Callable[..., Deployment], settings: Callable[..., Settings], rng: random.Random
) -> None:
    deployment = deploy()
    sent = orders.produce(deployment.bootstrap, deployment.topic, orders.orders(2_000, rng))
    deployment.start_worker().until_ready()
    until_linked(deployment, sent)
    service = until_healthy(deployment.service().start())
    customers = sorted({json.loads(each.record.value or b"{}")["customer"] for each in sent})
    assert len(customers) > 40
    entities = {"customer": [*customers, "nobody", customers[0]]}
    async with Client(url(service)) as through, Client.direct(settings(deployment)) as direct:
        found = [await client.features(FEATURES, entities) for client in (through, direct)]
    # Ages were counted at two instants; all else is the same.
    timeless = [
        dataclasses.replace(
            each, columns={name: dataclasses.replace(column, ages=()) for name, column in each.columns.items()}
        )
        for each in found
    ]
    assert timeless[0] == timeless[1]
    amounts = [
        [value.hex() if value is not None else None for value in each.column(FEATURES[0]).values] for each in found
    ]
    assert amounts[0] == amounts[1]
    assert any(amounts[0])
    assert [each.columns[FEATURES[0]].ages.count(None) for each in found] == [1, 1]
    now = datetime.datetime.now(datetime.UTC)
    column = found[0].column(FEATURES[0])
    first, age = column.event_times[0], column.ages[0]
    assert first is not None
    assert age is not None
    assert abs(now - first - age) < datetime.timedelta(minutes=1)


async def test_a_redis_that_goes_and_comes_back_is_told_and_found_again_by_both(
    deploy: Callable[..., Deployment], settings: Callable[..., Settings], redis_proxy: Proxy
) -> None:
    deployment = deploy()
    worker = deployment.start_worker().until_ready()
    address = f"redis://{redis_proxy.address}/0"
    service = until_healthy(deployment.service(redis_url=address, serve_timeout="300ms").start())
    retries = Retries(attempts=2)
    made = (
        Client(url(service), retries=retries),
        Client.direct(settings(deployment, redis_url=address, serve_timeout="300ms"), retries=retries),
    )
    for client in made:
        async with client:
            found = await client.features(FEATURES, {"customer": "nobody"})
            assert found.one()[FEATURES[0]].status.value == "NOT_FOUND"
            with redis_proxy.toxic("timeout", timeout=0), pytest.raises(Unavailable) as refused:
                await client.features(FEATURES, {"customer": "nobody"})
            assert not isinstance(refused.value, NotReady)

            async def answered(client: Client = client) -> bool:
                try:
                    return len(await client.features(FEATURES, {"customer": "nobody"})) == 1
                except Unavailable:
                    return False

            await eventually_async(answered, what="an answer once Redis is back")
    worker.kill()


def test_a_script_reads_without_await(deploy: Callable[..., Deployment]) -> None:
    deployment = deploy()
    deployment.start_worker().until_ready()
    service = until_healthy(deployment.service().start())
    with SyncClient(url(service)) as client:
        found = client.features(FEATURES, {"customer": ["nobody"]})
        assert found.to_polars().rows() == [("nobody", None, None)]


def test_the_command_line_shows_the_same_through_the_service_and_from_the_store(
    deploy: Callable[..., Deployment], rng: random.Random
) -> None:
    deployment = deploy()
    sent = orders.produce(deployment.bootstrap, deployment.topic, orders.orders(50, rng, customers=1))
    deployment.start_worker().until_ready()
    until_linked(deployment, sent)
    service = until_healthy(deployment.service().start())

    def said(names: Sequence[str], *options: str) -> Any:
        done = deployment.run("get", *names, "customer=c0", "--json", *options)
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout)
        for feature in answer["features"].values():
            assert feature.pop("age_s") > 0
        return answer

    assert said(FEATURES) == said(FEATURES, "--url", url(service))
    straight = said([orders.VIEW])
    assert straight.pop("view") == orders.VIEW
    assert straight.pop("row")["topic"] == deployment.topic
    assert straight.pop("ttl_s") == 3650 * 24 * 3600
    assert straight == said([orders.VIEW], "--url", url(service))
    no_view = deployment.run("get", "LastOrdr", "customer=c0", "--json", "--url", url(service))
    assert no_view.returncode == 2
    assert (
        json.loads(no_view.stdout)["error"]["message"]
        == "features: there is no view 'LastOrdr'; did you mean 'LastOrder'?"
    )
    wrong = deployment.run("get", f"{orders.VIEW}:amuont", "customer=c0", "--url", url(service))
    assert wrong.returncode == 2
    assert "did you mean 'amount'" in wrong.stderr
    away = deployment.run("get", *FEATURES, "customer=c0", "--url", "http://127.0.0.1:1")
    assert away.returncode == 1
    assert "cannot be reached" in away.stderr


async def test_what_is_pushed_is_read_back_by_its_token_through_the_service_and_straight(
    deploy: Callable[..., Deployment], settings: Callable[..., Settings]
) -> None:
    """Of pushes that are answered at once, of those that a worker is to apply, and of many put together."""
    deployment = deploy(partitions=2, pushed=True)
    deployment.start_worker().until_ready()
    service = until_healthy(deployment.service().start())
    amount = FEATURES[0]

    def order(number: int, customer: str) -> dict[str, object]:
        return {"at": orders.time(number), "customer": customer, "amount": number + 0.5, "number": number}

    async with Client(url(service), timeout=30) as through, Client.direct(settings(deployment), timeout=30) as direct:
        pushed = await through.push(orders.VIEW, order(1, "ada"))
        assert pushed.rows[0].status.value == "applied"
        for client in (through, direct):
            found = await client.features([amount], {"customer": "ada"}, after=pushed.token)
            assert found.one()[amount].value == 1.5

        pushed = await through.push(orders.VIEW, [order(2, "ada"), order(3, "bob")], mode="async")
        assert {row.status.value for row in pushed.rows} == {"accepted"}
        for client in (direct, through):
            found = await client.features([amount], {"customer": ["ada", "bob"]}, after=pushed.token)
            assert found.column(amount).values == (2.5, 3.5)

        final = {"customer": "eve", "event_timestamp": datetime.datetime.now(datetime.UTC), "amount": 0.1, "number": 7}
        assert (await through.push(orders.VIEW, final, transform_on_write=False)).rejected == ()
        assert (await through.features([amount], {"customer": "eve"})).one()[amount].value == 0.1

        late = await through.push(orders.VIEW, [order(1, "ada"), {"customer": "ada"}])
        assert [row.status.value for row in late.rows] == ["stale", "rejected"]
        assert late.rows[1].message is not None

        async with through.pusher(orders.VIEW, max_rows=100) as pusher:
            receipts = [await pusher.push(order(number, f"many{number % 500}")) for number in range(2_000)]
        outcomes = [(await receipt).status.value for receipt in receipts]
        assert outcomes.count("applied") >= 500
        assert set(outcomes) <= {"applied", "stale"}
        everybody = {"customer": [f"many{number}" for number in range(500)]}
        found = await direct.features([amount], everybody, after=pusher.token)
        assert found.column(amount).values == tuple(number + 0.5 for number in range(1_500, 2_000))

    (deployment.folder / "rows.ndjson").write_text(
        "".join(json.dumps(order(number, "typed")) + "\n" for number in range(10)) + "{}\n"
    )
    done = deployment.run("push", orders.VIEW, "rows.ndjson", "--mode", "sync", "--json", "--url", url(service))
    assert done.returncode == 1
    *rows, end = map(json.loads, done.stdout.splitlines())
    assert rows[9]["status"] == "applied"
    assert rows[10]["status"] == "rejected"
    done = deployment.run("push", orders.VIEW, "rows.ndjson", "--mode", "async", "--json", "--url", url(service))
    assert done.returncode == 1
    *rows, _ = map(json.loads, done.stdout.splitlines())
    assert {row["status"] for row in rows[:10]} == {"accepted"}
    assert rows[10]["status"] == "rejected"
    assert "Nothing of the request was taken" not in rows[10]["message"]
    for options in (("--url", url(service)), ()):
        shown = deployment.run("get", amount, "customer=typed", "--after", end["token"], "--json", *options)
        assert json.loads(shown.stdout)["features"][amount]["value"] == 9.5
