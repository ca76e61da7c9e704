"""Faults and crashes at a call that is told, for workers on the twins; and what they must leave behind."""

import asyncio
from collections.abc import Callable

from stillwell.errors import OutcomeUnknown, StoreUnavailable
from stillwell.layout.chain import Link
from stillwell.verify import verify
from tests.twin_line import Worker, World, links

FAULTS = ("refused", "lost answer", "lost call")


class Nth:
    """Counts calls, and does something at one of them."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.calls = 0

    def __call__(self) -> bool:
        self.calls += 1
        return self.calls == self.at + 1


Plant = Callable[[World, Worker, Nth], None]
"""Has something fail at one call."""


def plant_in_store(fault: str) -> Plant:
    """A fault at one call to the object store."""

    def plant(world: World, worker: Worker, nth: Nth) -> None:
        world.store.faults = lambda operation, path: fault if nth() else None  # type: ignore[assignment,return-value]

    return plant


def plant_in_redis(fault: str) -> Plant:
    """A fault at one call to Redis."""

    def plant(world: World, worker: Worker, nth: Nth) -> None:
        worker.online.faults = lambda operation: fault if nth() else None  # type: ignore[assignment,return-value]

    return plant


def plant_in_dead_letters(error: Exception) -> Plant:
    """A fault at one call to the dead-letter topic."""

    def plant(world: World, worker: Worker, nth: Nth) -> None:
        def fail() -> None:
            if nth():
                raise error

        world.dead_letters.faults = fail

    return plant


PLANTS = {
    **{f"object store, {fault}": plant_in_store(fault) for fault in FAULTS},
    **{f"Redis, {fault}": plant_in_redis(fault) for fault in (*FAULTS, "half done")},
    "dead letters, refused": plant_in_dead_letters(StoreUnavailable("refused by the test")),
    "dead letters, no answer": plant_in_dead_letters(OutcomeUnknown("no answer")),
}


def run(world: World, *workers: Worker) -> None:
    """Let workers work side by side until the log's end."""

    async def work() -> None:
        async with asyncio.timeout(20):
            await asyncio.gather(*(worker.work() for worker in workers))

    asyncio.run(work())


def calls_until_the_end(world: World, worker: Worker, plant: Plant) -> int:
    """How many calls of a kind a worker makes when nothing fails."""
    never = Nth(10**9)
    plant(world, worker, never)
    run(world, worker)
    return never.calls


async def work_until_crash(world: World, worker: Worker, kind: str, nth: Nth) -> None:
    """Work until a call at which everything that the worker has under way ends, that call without effect."""
    process = asyncio.create_task(worker.work())

    def crash(*call: object) -> None:
        if nth():
            process.cancel()
            raise asyncio.CancelledError

    if kind == "object store":
        world.store.faults = crash
    elif kind == "Redis":
        worker.online.faults = crash
    else:
        world.dead_letters.faults = crash
    await asyncio.wait((process,), timeout=20)
    assert process.cancelled(), "the worker did not crash"


def assert_linked(world: World) -> list[Link]:
    """Every offset is in one link, and `verify` finds nothing. The links."""
    covered = links(world)
    assert [link.start for link in covered] == [0, *(link.end for link in covered[:-1])]
    assert covered[-1].end == world.log.end
    report = verify(world.store)
    assert report.findings == ()
    return covered
