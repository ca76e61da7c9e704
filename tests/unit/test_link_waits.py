"""Law 3 where a sink takes its time: what is at rest in every other place is still not linked."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.twin_line import Worker, World, bad_offsets, expected, links, some_log, stored

_TURNS = 2_000
"""Of the event loop: many times as many as a whole run takes."""


def held(world: World, worker: Worker, sink: str, released: asyncio.Event) -> None:
    """From now on a sink takes what it is given only when it is released."""
    owner: Any
    owner, name = {"dead letters": (world.dead_letters, "send"), "Redis": (worker.online, "apply")}[sink]
    call: Callable[..., Awaitable[object]] = getattr(owner, name)

    async def late(*arguments: object) -> object:
        await released.wait()
        return await call(*arguments)

    setattr(owner, name, late)


@pytest.mark.parametrize("sink", ["dead letters", "Redis"])
def test_no_link_covers_what_a_slow_sink_has_not_acknowledged(rng: random.Random, sink: str) -> None:
    """However long it takes; when it has, everything is linked."""
    world = World(some_log(rng))
    first_bad = min(bad_offsets(world.log))

    async def run() -> None:
        worker, released = Worker(world, "a"), asyncio.Event()
        held(world, worker, sink, released)
        working = asyncio.create_task(worker.work())
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        assert not working.done()
        assert all(link.end <= (first_bad if sink == "dead letters" else 0) for link in links(world))
        released.set()
        async with asyncio.timeout(20):
            await working

    asyncio.run(run())
    assert links(world)[-1].end == world.log.end
    assert stored(world) == expected(world.log)
    assert world.dead_letters.offsets >= set(bad_offsets(world.log))
