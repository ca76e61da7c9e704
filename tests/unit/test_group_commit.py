"""What is asked for together is committed together, and nobody pays for what another one asked."""

import asyncio
from collections.abc import Sequence

import pytest

from sinks.group_commit import GroupCommit
from stillwell.errors import FormatError, OutcomeUnknown, StoreUnavailable
from tests.waiting import eventually_here


class Sink:
    """Takes numbers, and waits with each call until it may go on; refuses a negative one, and all that came with it."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.gate = asyncio.Event()
        self.fails: Exception | None = None
        self.ended = 0

    async def commit(self, numbers: Sequence[int]) -> list[int]:
        self.calls.append(list(numbers))
        try:
            await self.gate.wait()
            if self.fails:
                raise self.fails
            if any(number < 0 for number in numbers):
                raise FormatError(f"{min(numbers)} is negative")
            return [10 * number for number in numbers]
        finally:
            self.ended += 1


@pytest.fixture
def sink() -> Sink:
    return Sink()


@pytest.fixture
def group(sink: Sink) -> GroupCommit[int, int]:
    return GroupCommit(sink.commit, abs, 10)


async def test_what_is_asked_for_at_one_moment_and_meanwhile_goes_together(
    sink: Sink, group: GroupCommit[int, int]
) -> None:
    first = asyncio.gather(group.ask(1), group.ask(2))
    await eventually_here(lambda: sink.calls == [[1, 2]])
    second = asyncio.gather(group.ask(3), group.ask(4))
    await asyncio.sleep(0)
    assert sink.calls == [[1, 2]], "one call at a time"
    sink.gate.set()
    assert [*await first, *await second] == [10, 20, 30, 40]
    assert sink.calls == [[1, 2], [3, 4]]
    assert await group.ask(5) == 50, "who comes when all is done begins anew"


async def test_a_group_is_no_heavier_than_it_may_be_unless_it_is_one(sink: Sink, group: GroupCommit[int, int]) -> None:
    sink.gate.set()
    assert await asyncio.gather(*(group.ask(each) for each in (4, 6, 1, 25, 9, 1))) == [40, 60, 10, 250, 90, 10]
    assert sink.calls == [[4, 6], [1], [25], [9, 1]]


async def test_what_is_refused_is_refused_alone(sink: Sink, group: GroupCommit[int, int]) -> None:
    sink.gate.set()
    answers = await asyncio.gather(*(group.ask(each) for each in (1, -2, 3)), return_exceptions=True)
    assert [answers[0], answers[2]] == [10, 30]
    assert isinstance(answers[1], FormatError)
    assert sink.calls == [[1, -2, 3], [1], [-2], [3]]


@pytest.mark.parametrize("error", [OutcomeUnknown("no answer"), StoreUnavailable("away")])
async def test_a_store_that_does_not_answer_is_not_asked_by_each(
    sink: Sink, group: GroupCommit[int, int], error: Exception
) -> None:
    sink.gate.set()
    sink.fails = error
    answers = await asyncio.gather(*(group.ask(each) for each in (1, 2, 3)), return_exceptions=True)
    assert answers == [error] * 3
    assert sink.calls == [[1, 2, 3]]
    sink.fails = None
    assert await group.ask(4) == 40


async def test_who_stops_waiting_leaves_the_others_what_they_asked_for(
    sink: Sink, group: GroupCommit[int, int]
) -> None:
    under_way, other = asyncio.create_task(group.ask(1)), asyncio.create_task(group.ask(2))
    await eventually_here(lambda: sink.calls == [[1, 2]])
    waiting, last = asyncio.create_task(group.ask(3)), asyncio.create_task(group.ask(4))
    await asyncio.sleep(0)
    under_way.cancel()
    waiting.cancel()
    sink.gate.set()
    assert await other == 20
    assert await last == 40
    assert sink.calls == [[1, 2], [4]], "what nobody waits for any longer is not asked for"


async def test_a_close_ends_the_call_and_all_who_wait(sink: Sink, group: GroupCommit[int, int]) -> None:
    asking = [asyncio.create_task(group.ask(each)) for each in (9, 8, 7)]
    await eventually_here(lambda: sink.calls == [[9]])
    await group.close()
    assert sink.ended == 1
    assert all(
        isinstance(each, asyncio.CancelledError) for each in await asyncio.gather(*asking, return_exceptions=True)
    )
    await group.close()


async def test_a_close_amid_the_refused_ends_the_rest() -> None:
    stands_still = asyncio.Event()

    async def commit(numbers: Sequence[int]) -> list[int]:
        if numbers == [2]:
            stands_still.set()
            await asyncio.Event().wait()
        raise FormatError("one of them is negative")

    group = GroupCommit(commit, abs, 10)
    asking = [asyncio.create_task(group.ask(each)) for each in (-1, 2, 3)]
    await stands_still.wait()
    await group.close()
    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert [type(each) for each in answers] == [FormatError, asyncio.CancelledError, asyncio.CancelledError]
