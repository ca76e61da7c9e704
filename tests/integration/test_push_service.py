"""Pushing through the query service, with real parts: read at once, as a worker alone would have it, nothing lost."""

import asyncio
import contextlib
import dataclasses
import json
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import aiohttp
import pytest
import redis

from tests.integration import oracle, orders
from tests.integration.conftest import Deployment
from tests.integration.proof import log, verified
from tests.integration.test_rebuild import dump, rebuilt
from tests.integration.test_serve import until_healthy
from tests.services import Proxy
from tests.waiting import eventually, eventually_async, eventually_here
from tests.worker import WorkerProcess

PARTITIONS = 3
AMOUNT = f"{orders.VIEW}:amount"
NUMBER = f"{orders.VIEW}:number"


@dataclasses.dataclass(frozen=True)
class Caller:
    """Asks a query service."""

    http: aiohttp.ClientSession
    service: WorkerProcess

    async def post(self, path: str, body: Mapping[str, object]) -> tuple[int, Any]:
        """Status and body."""
        async with self.http.post(f"http://127.0.0.1:{self.service.port}{path}", json=body) as answer:
            return answer.status, await answer.json()

    async def push(self, *rows: Mapping[str, object], **more: object) -> tuple[int, Any]:
        """Push orders to their view."""
        return await self.post("/v1/push", {"view": orders.VIEW, "rows": rows, **more})

    async def number(self, customer: str, after: str = "", timeout_ms: int = 30_000) -> object:
        """The number of a customer's newest order, read behind a push."""
        body = {"features": [NUMBER], "entities": {"customer": [customer]}, "after": after, "timeout_ms": timeout_ms}
        status, answer = await self.post("/v1/features", body)
        assert status == 200, (status, answer, after)
        return answer["features"][NUMBER]["values"][0]


@contextlib.asynccontextmanager
async def calling(*services: WorkerProcess) -> AsyncIterator[list[Caller]]:
    """Callers of these services, which are waited for until they answer."""
    timeout = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as http:
        yield [Caller(http, until_healthy(service)) for service in services]


def order(customer: str, number: int, rng: random.Random, **more: object) -> dict[str, object]:
    return {**orders.order(number, rng), "customer": customer, "amount": number + 0.5, **more}


async def test_what_is_pushed_through_two_services_is_as_a_worker_alone_has_it(
    deploy: Callable[..., Deployment], rng: random.Random
) -> None:
    """They race each other and a worker for the same customers; behind them, a rebuild gives the very same bytes."""
    deployment = deploy(PARTITIONS, pushed=True)
    deployment.start_worker().until_ready()
    pushed = 0
    async with calling(*(deployment.service().start() for _ in range(2))) as callers:

        async def push(number: int) -> tuple[int, Any]:
            rows = [order(f"c{rng.randrange(9)}", number, rng) for _ in range(rng.randrange(1, 5))]
            transform = rng.random() < 0.5
            if not transform:
                rows = [{"event_timestamp" if name == "at" else name: row[name] for name in row} for row in rows]
            nonlocal pushed
            pushed += len(rows)
            to = rng.choice(["online", "offline", "online_and_offline"])
            mode = rng.choice(["sync", "sync", "async"])
            return await rng.choice(callers).push(*rows, mode=mode, transform_on_write=transform, to=to)

        answers = await asyncio.gather(*(push(number) for number in range(300)))
        assert {status for status, _ in answers} == {200, 202}, [each for each in answers if each[0] not in (200, 202)]
        seen = {status for _, body in answers for status in body.get("statuses", ())}
        assert {"applied", "stale", "offline"} <= seen <= {"applied", "stale", "offline", "filtered"}
        for _, body in answers:
            await callers[0].number("c0", body["token"])

    def linked() -> bool:
        partitions = verified(deployment)["partitions"]
        ours = [each for each in partitions if each["partition"].rpartition("@")[0] == deployment.pushes]
        return bool(sum(each["records"] for each in ours) >= pushed)

    eventually(linked, within_s=60, what=f"{pushed} pushed records linked")
    for worker in deployment.workers:
        assert worker.stop() == 0
        assert "Traceback" not in log(worker)
    before = dump(deployment)
    assert before.rows
    with redis.Redis.from_url(deployment.settings["STILLWELL_REDIS_URL"]) as client:
        for key in [*before.rows, *client.scan_iter(f"{deployment.settings['STILLWELL_PROJECT']}:*", count=10_000)]:
            client.delete(key)
    rebuilt(deployment)
    assert dump(deployment).rows == before.rows


async def test_rows_that_cannot_be_used_and_those_that_are_too_old_are_told_by_row(
    deploy: Callable[..., Deployment], rng: random.Random
) -> None:
    deployment = deploy(pushed=True)
    deployment.start_worker().until_ready()
    async with calling(deployment.service().start()) as (caller,):
        old = {"at": "1990-01-01T00:00:00Z"}
        status, body = await caller.push(
            order("a", 1, rng),
            order("b", 1, rng, amount=-1.0),
            {**order("c", 1, rng), "number": "one"},
            order("d", 1, rng, **old),
        )
        assert status == 200
        assert body["statuses"] == ["applied", "filtered", "rejected", "expired"]
        again = order("a", 1, rng, **old)
        assert (await caller.push(again))[1]["statuses"] == ["stale"]
        columns = {name: [value] for name, value in order("f", 7, rng).items()}
        columns["at"] = [str(columns["at"][0]).removesuffix("Z")]
        status, body = await caller.post("/push", {"push_source_name": orders.VIEW, "df": columns, "to": "online"})
        assert (status, body["statuses"]) == (200, ["applied"])
        assert await caller.number("f", timeout_ms=0) == 7


async def test_a_kafka_that_is_away_is_a_503_in_time_and_is_found_again(
    deploy: Callable[..., Deployment], kafka_proxy: Proxy, rng: random.Random
) -> None:
    deployment = deploy(PARTITIONS, pushed=True)
    deployment.start_worker().until_ready()
    service = deployment.service(kafka_bootstrap=kafka_proxy.address, push_timeout="1s").start()
    async with calling(service) as (caller,):
        kafka_proxy.down()
        for mode in ("sync", "async"):
            await _refused_in_time(caller.push(order("a", 1, rng), mode=mode))
        assert await caller.number("a", timeout_ms=0) is None
        kafka_proxy.up()
        await _until_taken(caller, "a", 2, rng)
        with kafka_proxy.toxic("timeout", timeout=0):
            pushing = [caller.push(order(f"c{each}", each, rng), mode="async") for each in range(20)]
            await asyncio.gather(*map(_refused_in_time, pushing))
        await _until_taken(caller, "a", 3, rng)
    assert "Traceback" not in log(service)


async def _refused_in_time(pushing: Any) -> None:
    began = time.monotonic()
    status, body = await pushing
    assert status == 503, body
    assert body["error"]["kind"] in ("StoreUnavailable", "OutcomeUnknown")
    assert time.monotonic() - began < 6


async def _until_taken(caller: Caller, customer: str, number: int, rng: random.Random) -> None:
    async def taken() -> bool:
        status, body = await caller.push(order(customer, number, rng, at=orders.time(number * 10_000)))
        return status == 200 and body["statuses"] == ["applied"]

    await eventually_async(taken, within_s=30, what="a push that is taken")
    assert await caller.number(customer) == number


async def test_a_redis_that_goes_behind_kafka_loses_nothing_that_was_acknowledged(
    deploy: Callable[..., Deployment], redis_proxy: Proxy, rng: random.Random
) -> None:
    """The answer is a 503 with the token: the worker has its own way to Redis, and a read by another service waits."""
    deployment = deploy(PARTITIONS, pushed=True)
    deployment.start_worker().until_ready()
    cut_off = deployment.service(redis_url=f"redis://{redis_proxy.address}/0", serve_timeout="300ms").start()
    async with calling(cut_off, deployment.service().start()) as (caller, other):
        assert (await caller.push(order("a", 1, rng)))[0] == 200
        with redis_proxy.toxic("timeout", timeout=0):
            status, body = await caller.push(order("a", 2, rng, at=orders.time(20_000)))
            assert (status, body["error"]["kind"]) == (503, "NotWritten"), body
        assert await other.number("a", body["error"]["token"]) == 2

        async def taken() -> bool:
            return (await caller.push(order("a", 3, rng, at=orders.time(30_000))))[0] == 200

        await eventually_async(taken, within_s=30, what="a push once Redis is back")
        assert await caller.number("a", timeout_ms=0) == 3


async def test_a_service_that_is_killed_between_kafka_and_its_answer_loses_nothing_that_kafka_has(
    deploy: Callable[..., Deployment], rng: random.Random
) -> None:
    """Killed in the midst of pushes: what it has acknowledged is there, and what is in Kafka is in Redis in the end."""
    deployment = deploy(PARTITIONS, pushed=True)
    deployment.start_worker().until_ready()
    acknowledged: dict[str, int] = {}
    async with calling(deployment.service().start(), deployment.service().start()) as (doomed, other):

        async def write(customer: str) -> None:
            for number in range(1_000):
                try:
                    status, body = await doomed.push(order(customer, number, rng, at=orders.time(number)))
                except (aiohttp.ClientError, OSError):
                    return
                assert (status, body["statuses"]) == (200, ["applied"])
                acknowledged[customer] = number

        writing = asyncio.gather(*(write(f"c{each}") for each in range(20)))
        await eventually_async(lambda: _enough(acknowledged), within_s=30, what="pushes of every writer")
        doomed.service.kill()
        await writing
        for customer, number in acknowledged.items():
            found = await other.number(customer)
            assert isinstance(found, int)
            assert number <= found <= number + 1

    async def agree() -> bool:
        return await asyncio.to_thread(_kafka_and_redis_agree, deployment)

    await eventually_async(agree, within_s=30, what="what Kafka has in Redis")


async def _enough(acknowledged: Mapping[str, int]) -> bool:
    return len(acknowledged) == 20 and min(acknowledged.values()) >= 10


def _kafka_and_redis_agree(deployment: Deployment) -> bool:
    newest: dict[str, int] = {}
    for sent in orders.read(deployment.bootstrap, deployment.pushes, PARTITIONS):
        row = json.loads(sent.record.value or b"{}")
        newest[row["customer"]] = max(row["number"], newest.get(row["customer"], -1))
    found = oracle.rows_in_redis(deployment.settings, orders.VIEW, set(newest))
    return {customer: row.number for customer, row in found.items()} == newest


async def test_an_idempotency_key_holds_over_the_services_of_a_namespace(
    deploy: Callable[..., Deployment], rng: random.Random
) -> None:
    deployment = deploy(PARTITIONS, pushed=True)
    deployment.start_worker().until_ready()
    async with calling(*(deployment.service().start() for _ in range(2))) as (one, other):
        body = {"rows": [order("a", 1, rng)], "view": orders.VIEW, "idempotency_key": "once"}
        first = await one.post("/v1/push", body)
        assert await other.post("/v1/push", body) == first
        assert first[0] == 200
    assert len(orders.read(deployment.bootstrap, deployment.pushes, PARTITIONS)) == 1


# ---- read your writes ----


async def test_every_push_is_read_by_who_made_it_while_workers_are_killed_and_rebalanced(
    deploy: Callable[..., Deployment], rng: random.Random, request: pytest.FixtureRequest, record_property: Any
) -> None:
    """Each writer pushes the next number of a customer of its own, then reads it behind its token: exactly that number.
    Half of the pushes are synchronous; push and read go to any of two services."""
    pairs: int = request.config.option.pairs
    writers = 32
    deployment = deploy(PARTITIONS, pushed=True)
    workers = [deployment.start_worker().until_ready(), deployment.start_worker().until_ready()]
    violations: list[str] = []
    done = kills = rebalances = waited = 0
    ended = False

    async def write(callers: list[Caller], customer: str) -> None:
        nonlocal done, waited
        while done < pairs:
            done += 1
            number = done
            row = order(customer, number, rng, at=orders.time(number))
            status, body = await rng.choice(callers).push(row, mode=rng.choice(["sync", "async"]))
            assert status in (200, 202), body
            waited += status == 202
            found = await rng.choice(callers).number(customer, body["token"], timeout_ms=60_000)
            if found != number:
                violations.append(f"{customer}: pushed {number} as {body['token']}, read {found}")

    async def pushed(more: int) -> None:
        wanted = min(done + more, pairs)
        await eventually_here(lambda: ended or done >= wanted, within_s=300, what=f"{more} pushes more")

    async def disturb() -> None:
        nonlocal kills, rebalances
        while not ended:
            await pushed(rng.randint(1, max(1, pairs // 20)))
            gone = workers.pop(rng.randrange(len(workers)))
            if rng.random() < 0.5:
                await asyncio.to_thread(gone.kill)
                kills += 1
            else:
                assert await asyncio.to_thread(gone.stop) == 0
                rebalances += 1
            workers.append(deployment.start_worker())
            # Long: beside the pushes of many writers a busy machine starts a worker slowly.
            await asyncio.to_thread(workers[-1].until_ready, 180)

    async with calling(*(deployment.service().start() for _ in range(2))) as callers:
        disturbing = asyncio.create_task(disturb())
        writing = asyncio.gather(*(write(callers, f"w{number}") for number in range(writers)))
        try:
            first, _ = await asyncio.wait((disturbing, writing), return_when=asyncio.FIRST_COMPLETED)
            for task in first:
                task.result()
            ended = True
            await writing
            await disturbing
        finally:
            report = {"pairs": done, "asynchronous": waited, "kills": kills, "rebalances": rebalances}
            print(f"read your writes: {report}, violations: {len(violations)}")
            record_property("read_your_writes", {**report, "violations": len(violations)})
    assert not violations, violations[:20]
    assert done >= pairs
    assert kills + rebalances > 0
    verified(deployment)
