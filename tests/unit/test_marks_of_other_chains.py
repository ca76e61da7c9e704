"""The offline store was emptied, or another one is in its place, and Redis kept its keys: their marks tell of a chain
that is no more."""

import asyncio
import json
from collections.abc import Iterable

from stillwell.layout.online import MarkKey
from tests.twin_line import PARTITION, VIEW, Log, Worker, World, links, stored


def orders(numbers: Iterable[int]) -> list[bytes | None]:
    """Events of five customers in turn, each newer than those before."""
    return [
        json.dumps({"at": f"2026-01-01T00:00:{n:02}Z", "customer": f"c{n % 5}", "number": n}).encode() for n in numbers
    ]


async def read_and_empty(world: World) -> None:
    """Let a worker read all of the log, then empty the offline store."""
    await asyncio.wait_for(Worker(world, "a").work(), 10)
    world.store.objects.clear()
    world.committed = None


async def test_a_mark_below_the_new_chain_does_not_stop_it() -> None:
    world = World(Log(orders(range(10))))
    await read_and_empty(world)
    world.log.values += orders(range(10, 30))
    world.log.start = 20
    worker = Worker(world, "b")
    await asyncio.wait_for(worker.work(), 10)
    assert links(world)[-1].end == 30
    assert await worker.online.read_marks([MarkKey(PARTITION, VIEW.name, 1)]) == [30]
    assert stored(world) == {f"c{n % 5}": n for n in range(25, 30)}


async def test_a_mark_beyond_the_new_chain_skips_nothing_of_it() -> None:
    """All is read and linked from the beginning."""
    world = World(Log(orders(range(30))))
    await read_and_empty(world)
    await asyncio.wait_for(Worker(world, "b").work(), 10)
    assert [links(world)[0].start, links(world)[-1].end] == [0, 30]
    assert sum(link.records for link in links(world)) == 30
    assert stored(world) == {f"c{n % 5}": n for n in range(25, 30)}
