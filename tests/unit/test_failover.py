"""A replica takes over between a write and what is said of it: no mark may claim rows that it has not seen."""

import asyncio
import random

import pytest

from stillwell.testing.online import Fault, Operation
from tests.twin_line import Worker, World, expected, some_log, stored


class FailOver:
    """Before the n-th raising of marks a replica takes over that has seen nothing of the put before it."""

    def __init__(self, world: World, at: int) -> None:
        self._server = world.server
        self._left = at
        self._before_put: dict[bytes, tuple[bytes, int | None]] | None = None  # a batch may have no rows to put
        self.lost = 0

    def __call__(self, operation: Operation) -> Fault | None:
        if operation == "put":
            self._before_put = self._server.dump()
        if operation == "raise_marks":
            self._left -= 1
            if self._left == 0 and self._before_put is not None:
                now, before = self._server.dump(), self._before_put
                self.lost = sum(1 for key, value in now.items() if before.get(key) != value)
                self._server.fail_over(lost=self.lost)
            self._before_put = None
        return None


@pytest.mark.parametrize("at", [1, 2, 3])
def test_rows_that_the_old_server_alone_acknowledged_are_written_again(at: int, rng: random.Random) -> None:
    """It acknowledges a batch's rows and is gone before their marks are raised; the replica, which lacks the rows, has
    marks that stand right where the batch begins."""
    lost = 0
    for _ in range(10):
        world = World(some_log(rng))
        worker = Worker(world, "a")
        worker.online.faults = failover = FailOver(world, at)
        asyncio.run(asyncio.wait_for(worker.work(), 20))
        lost += failover.lost
        assert stored(world) == expected(world.log)
    assert lost, "no failover lost a row"
