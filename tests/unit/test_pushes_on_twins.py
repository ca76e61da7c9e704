"""Laws 1 to 3 on the twins, for a push topic: a fault at every call that a worker makes, crashes, zombies."""

import asyncio
import json
import random
from collections.abc import Sequence

import pytest

from stillwell.layout.parquet import read_table
from stillwell.pushing.pipeline import PushPipeline
from stillwell.records import Headers
from tests.twin_faults import PLANTS, Nth, assert_linked, calls_until_the_end, run, work_until_crash
from tests.twin_line import VIEW, Log, Worker, World, stored

PIPELINE = PushPipeline("shop", VIEW)


def some_pushes(rng: random.Random, length: int = 40) -> Log:
    """Final rows and raw events in disorder, with ties; some for one store alone; bad ones, filtered ones and gaps."""
    values: list[bytes | None] = []
    headers: dict[int, Headers] = {}
    kinds = [
        "filtered",
        "bad",
        "gap",
        "final",
        *rng.choices(["final", "raw", "bad", "gap"], [5, 3, 1, 1], k=length - 4),
    ]
    rng.shuffle(kinds)
    for number, kind in enumerate(kinds):
        at, customer = f"2026-01-01T00:00:{rng.randrange(10):02}Z", f"c{rng.randrange(5)}"
        raw = {"at": at, "customer": customer, "number": -1 if kind == "filtered" else number}
        final = {
            "event_timestamp": at,
            "customer": customer,
            "number": number,
            "_sequence": rng.choice([None, None, 1]),
        }
        said: list[tuple[str, bytes | None]] = []
        if to := rng.choice([None, None, b"online", b"offline"]):
            said.append(("to", to))
        if kind in ("raw", "filtered"):
            said.append(("transform_on_write", b"true"))
        headers[number] = tuple(said)
        body = json.dumps(final if kind == "final" else raw).encode()
        values.append({"gap": None, "bad": b"{"}.get(kind, body))
    return Log(values, topic=PIPELINE.topic.topic, headers=headers)


def expected(log: Log) -> dict[str, int]:
    """The oracle: each customer's number, of the rows that are not for the offline store alone."""
    newest: dict[str, tuple[tuple[str, bool, int], int]] = {}
    for offset, body in enumerate(log.values):
        if body in (None, b"{") or dict(log.headers[offset]).get("to") == b"offline":
            continue
        row = json.loads(body or b"")
        age = (row.get("event_timestamp") or row["at"], row.get("_sequence") is not None, offset)
        if row["number"] >= 0 and (row["customer"] not in newest or age > newest[row["customer"]][0]):
            newest[row["customer"]] = age, row["number"]
    return {customer: number for customer, (_, number) in newest.items()}


def said(log: Log) -> dict[int, str]:
    """Where each row goes, by its offset."""
    return {
        offset: (dict(log.headers[offset]).get("to") or b"online_and_offline").decode()
        for offset, body in enumerate(log.values)
        if body not in (None, b"{") and json.loads(body or b"")["number"] >= 0
    }


def assert_complete(world: World) -> None:
    """Every offset is in one link, `verify` finds nothing, Redis and files equal the oracle, rejects are in theirs."""
    covered = assert_linked(world)
    assert stored(world) == expected(world.log)
    assert world.dead_letters.offsets == {offset for offset, body in enumerate(world.log.values) if body == b"{"}
    tables = [read_table(world.store.read(each.file.path)) for link in covered for each in link.views if each.file]
    found = {
        offset: word
        for table in tables
        for offset, word in zip(table.column("_offset").to_pylist(), table.column("_to").to_pylist(), strict=True)
    }
    assert found == said(world.log)


def worker(world: World, name: str, batch: int = 7, window_rows: int = 12) -> Worker:
    return Worker(world, name, batch, window_rows, pipeline=PIPELINE)


def calls_of_a_clean_run(seed: float, kind: str) -> int:
    world = World(some_pushes(random.Random(seed)))
    calls = calls_until_the_end(world, worker(world, "a"), PLANTS[kind])
    assert_complete(world)
    return calls


@pytest.mark.parametrize("kind", PLANTS)
def test_a_fault_at_any_call_loses_and_doubles_nothing(kind: str, rng: random.Random) -> None:
    seed = rng.random()
    for at in range(calls_of_a_clean_run(seed, kind)):
        world = World(some_pushes(random.Random(seed)))
        disturbed = worker(world, "a")
        PLANTS[kind](world, disturbed, Nth(at))
        run(world, disturbed)
        assert_complete(world)


@pytest.mark.parametrize("kind", ["object store", "Redis"])
def test_a_crash_at_any_call_loses_and_doubles_nothing(kind: str, rng: random.Random) -> None:
    """Another worker goes on, with the hint or without it."""
    seed = rng.random()
    for at in range(calls_of_a_clean_run(seed, f"{kind}, lost call")):
        world = World(some_pushes(random.Random(seed)))
        asyncio.run(work_until_crash(world, worker(world, "a"), kind, Nth(at)))
        world.store.faults = lambda operation, path: None
        if at % 2:
            world.committed = None
        run(world, worker(world, "b", batch=5, window_rows=9))
        assert_complete(world)


@pytest.mark.parametrize("writers", [2, 3])
def test_writers_who_all_hold_the_partition_do_no_harm(writers: int, rng: random.Random) -> None:
    for _ in range(10):
        world = World(some_pushes(rng))
        sizes: Sequence[tuple[int, int]] = [(rng.randrange(1, 12), rng.randrange(3, 20)) for _ in range(writers)]
        run(world, *(worker(world, f"w{number}", *size) for number, size in enumerate(sizes)))
        assert_complete(world)
