"""The order and the rests in which files are compressed, by a clock of the test's own."""

import asyncio
import functools
import itertools

import pytest

from sinks.compressing import Compressing, pause


class Clock:
    """Seconds that pass when somebody works or rests; so that what happened when is exact."""

    def __init__(self) -> None:
        self.now = 0.0
        self.began: list[float] = []

    def read(self) -> float:
        """The seconds so far."""
        return self.now

    async def rest(self, seconds: float, cut_short: asyncio.Event) -> None:
        """Let them pass, a millisecond at a time; others may run meanwhile."""
        assert seconds >= 0
        end = self.now + seconds
        while self.now < end and not cut_short.is_set():
            await asyncio.sleep(0)
            self.now = min(end, self.now + 0.001)

    async def work(self, seconds: float) -> None:
        """Compress for so long."""
        self.began.append(self.now)
        await asyncio.sleep(0)
        self.now += seconds


async def compressed(*files: tuple[float, bool]) -> list[float]:
    """When each file's turn began, all having asked at once: (seconds that it takes, whether nobody waits for it)."""
    clock = Clock()
    compressing = Compressing(clock.read, clock.rest)
    async with asyncio.TaskGroup() as tasks:
        for took, at_leisure in files:
            tasks.create_task(compressing.one(functools.partial(clock.work, took), at_leisure))
    return clock.began


async def test_files_that_nobody_waits_for_take_a_ninth_of_the_time() -> None:
    began = await compressed((0.01, True), (0.005, True), (0.01, True))
    assert began == pytest.approx([0, 0.01 + 0.08, 0.01 + 0.08 + 0.005 + 0.04])


async def test_no_rest_is_longer_than_a_tenth_of_a_second() -> None:
    assert await compressed((2.0, True), (2.0, True)) == pytest.approx([0, 2.1])


async def test_a_file_that_somebody_waits_for_begins_at_once() -> None:
    """A partition that is given away, or memory that batches wait for: rests would hold up a whole group."""
    assert await compressed((0.01, True), (0.01, False), (0.01, False)) == pytest.approx([0, 0.01, 0.02])


async def test_nobody_rests_in_front_of_a_file_that_somebody_waits_for() -> None:
    """A partition's spans are linked in their order: those that were closed before the flush must be done as well."""
    assert await compressed((0.01, True), (0.01, True), (0.01, False), (0.01, True)) == pytest.approx(
        [0, 0.01, 0.02, 0.03 + 0.08]
    )


async def test_a_rest_is_cut_short_when_a_file_comes_that_somebody_waits_for() -> None:
    clock = Clock()
    compressing = Compressing(clock.read, clock.rest)
    await compressing.one(lambda: clock.work(0.01), at_leisure=True)
    resting = asyncio.create_task(compressing.one(lambda: clock.work(0.01), at_leisure=True))
    while clock.now < 0.03:  # noqa: ASYNC110
        await asyncio.sleep(0)
    await compressing.one(lambda: clock.work(0.01), at_leisure=False)
    await resting
    assert clock.began == pytest.approx([0, 0.03, 0.04], abs=0.003)


async def test_a_rest_in_real_time_is_cut_short_too() -> None:
    cut_short = asyncio.Event()
    resting = asyncio.create_task(pause(3_600, cut_short))
    await asyncio.sleep(0)
    assert not resting.done()
    cut_short.set()
    async with asyncio.timeout(10):
        await resting
    async with asyncio.timeout(10):
        await pause(0.001, asyncio.Event())


async def test_a_rest_begins_with_the_end_of_the_file_before() -> None:
    """Whoever comes later has not to rest again."""
    clock = Clock()
    compressing = Compressing(clock.read, clock.rest)
    await compressing.one(lambda: clock.work(0.01), at_leisure=True)
    clock.now += 5
    await compressing.one(lambda: clock.work(0.01), at_leisure=True)
    assert clock.began == pytest.approx([0, 5.01])


async def test_only_the_last_of_very_many_files_rest() -> None:
    """With 64 partitions and many views the next window would close before all of them had rested."""
    began = await compressed(*[(0.01, True)] * 100)
    pauses = [round(later - earlier, 6) for earlier, later in itertools.pairwise(began)]
    assert pauses == [0.01] * 67 + [0.09] * 32


async def test_a_file_that_cannot_be_compressed_gives_its_turn_to_the_next() -> None:
    clock = Clock()
    compressing = Compressing(clock.read, clock.rest)

    async def fail() -> None:
        raise MemoryError("no room")

    with pytest.raises(MemoryError):
        await compressing.one(fail, at_leisure=True)
    await compressing.one(lambda: clock.work(0.01), at_leisure=True)
    assert clock.began == [0]


async def test_whoever_is_cancelled_while_it_waits_is_not_counted_any_more() -> None:
    """A flow that ends with files in the queue; counted for ever, they would end all rests."""
    clock = Clock()
    compressing = Compressing(clock.read, clock.rest)
    gate = asyncio.Event()
    holding = asyncio.create_task(compressing.one(gate.wait, at_leisure=True))
    waiting = [asyncio.create_task(compressing.one(lambda: clock.work(0.01), at_leisure=True)) for _ in range(50)]
    await asyncio.sleep(0)
    for each in waiting:
        each.cancel()
    await asyncio.wait(waiting)
    gate.set()
    await holding
    for _ in range(2):
        await compressing.one(lambda: clock.work(0.01), at_leisure=True)
    assert clock.began == pytest.approx([0, 0.09])
