"""What is asked for together is committed together, and nobody pays for what another one asked."""

import asyncio
import contextlib
import traceback
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
    with pytest.raises(FormatError):
        await group.ask(-5)
    assert sink.calls == [[-5]], "who is alone is not asked for twice"
    sink.calls.clear()
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
    assert [(type(each), str(each)) for each in answers] == [(type(error), str(error))] * 3
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


async def test_who_has_gone_amid_a_call_that_fails_takes_nobody_along(sink: Sink, group: GroupCommit[int, int]) -> None:
    gone, other = asyncio.create_task(group.ask(1)), asyncio.create_task(group.ask(2))
    await eventually_here(lambda: sink.calls == [[1, 2]])
    gone.cancel()
    await asyncio.wait([gone])
    sink.fails = OutcomeUnknown("no answer")
    sink.gate.set()
    with pytest.raises(OutcomeUnknown, match="no answer"):
        await other


async def test_what_nobody_has_foreseen_is_heard_by_whose_fault_it_is() -> None:
    calls: list[list[int]] = []

    async def commit(numbers: Sequence[int]) -> list[float]:
        calls.append(list(numbers))
        return [1 / number for number in numbers]

    group = GroupCommit(commit, abs, 10)
    answers = await asyncio.gather(*map(group.ask, (1, 0, 2)), return_exceptions=True)
    assert [answers[0], type(answers[1]), answers[2]] == [1.0, ZeroDivisionError, 0.5]
    assert calls == [[1, 0, 2], [1], [0], [2]]


async def test_too_few_outcomes_are_an_error_of_each_who_has_none() -> None:
    async def commit(numbers: Sequence[int]) -> list[int]:
        return list(numbers[:-1])

    group = GroupCommit(commit, abs, 10)
    answers = await asyncio.gather(*map(group.ask, (1, 2)), return_exceptions=True)
    assert [answers[0], type(answers[1])] == [1, ValueError]


async def test_a_store_that_falls_silent_amid_the_refused_is_not_asked_by_each() -> None:
    """And not for those who have gone."""
    calls: list[list[int]] = []
    gone: list[asyncio.Task[int]] = []

    async def commit(numbers: Sequence[int]) -> list[int]:
        calls.append(list(numbers))
        if len(numbers) > 1:
            gone[0].cancel()
            await asyncio.wait(gone)
            raise FormatError("one of them is wrong")
        if numbers == [3]:
            raise OutcomeUnknown("no answer")
        return list(numbers)

    group = GroupCommit(commit, abs, 100)
    asking = [asyncio.create_task(group.ask(each)) for each in (1, 2, 3, 4, 5)]
    gone.append(asking[1])
    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert [answers[0], *map(type, answers[1:])] == [1, asyncio.CancelledError, *[OutcomeUnknown] * 3]
    assert calls == [[1, 2, 3, 4, 5], [1], [3]]


async def test_each_of_a_group_gets_an_error_of_its_own_that_holds_nothing_of_the_others(
    sink: Sink, group: GroupCommit[int, int]
) -> None:
    sink.gate.set()
    sink.fails = OutcomeUnknown("no answer")
    sink.fails.__cause__ = OSError("reset")
    first, second = await asyncio.gather(group.ask(1), group.ask(2), return_exceptions=True)
    assert isinstance(first, OutcomeUnknown)
    assert isinstance(second, OutcomeUnknown)
    assert first is not second
    for each in (first, second):
        assert each.__cause__ is each.__context__ is None
        frames = [frame.f_code.co_name for frame, _ in traceback.walk_tb(each.__traceback__)]
        assert frames == ["ask"], "a frame that holds the group would hold what it asked for"


async def test_a_call_that_is_cancelled_from_within_leaves_nobody_waiting() -> None:
    async def commit(numbers: Sequence[int]) -> list[int]:
        if numbers == [9]:
            raise asyncio.CancelledError
        return list(numbers)

    group = GroupCommit(commit, abs, 10)
    async with asyncio.timeout(10):
        answers = await asyncio.gather(*map(group.ask, (9, 8)), return_exceptions=True)
        assert [type(each) for each in answers] == [OutcomeUnknown] * 2
        assert await group.ask(7) == 7


async def test_a_close_before_the_call_begins_leaves_nobody_waiting(sink: Sink, group: GroupCommit[int, int]) -> None:
    async with asyncio.timeout(10):
        asked, _ = await asyncio.gather(group.ask(1), group.close(), return_exceptions=True)
        assert isinstance(asked, OutcomeUnknown)
        assert sink.calls == []
    with pytest.raises(RuntimeError, match="after it had been closed"):
        await group.ask(2)


async def test_a_close_ends_the_call_and_all_who_wait(sink: Sink, group: GroupCommit[int, int]) -> None:
    asking = [asyncio.create_task(group.ask(each)) for each in (9, 8, 7)]
    await eventually_here(lambda: sink.calls == [[9]])
    async with asyncio.timeout(10):
        await group.close()
        answers = await asyncio.gather(*asking, return_exceptions=True)
        await group.close()
    assert sink.ended == 1
    assert [type(each) for each in answers] == [OutcomeUnknown] * 3


async def test_a_close_that_a_call_takes_no_notice_of_begins_no_other() -> None:
    """Python 3.11's `wait_for` forgets to be cancelled where it is about to return."""
    calls: list[list[int]] = []

    async def commit(numbers: Sequence[int]) -> list[int]:
        calls.append(list(numbers))
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return list(numbers)

    group = GroupCommit(commit, abs, 10)
    async with asyncio.timeout(10):
        asking = [asyncio.create_task(group.ask(each)) for each in (9, 8)]
        await eventually_here(lambda: calls == [[9]])
        await group.close()
        answers = await asyncio.gather(*asking, return_exceptions=True)
    assert [answers[0], type(answers[1])] == [9, OutcomeUnknown]
    assert calls == [[9]]


async def test_a_close_amid_the_refused_ends_the_rest() -> None:
    stands_still = asyncio.Event()

    async def commit(numbers: Sequence[int]) -> list[int]:
        if numbers == [2]:
            stands_still.set()
            await asyncio.Event().wait()
        raise FormatError("one of them is negative")

    group = GroupCommit(commit, abs, 10)
    asking = [asyncio.create_task(group.ask(each)) for each in (-1, 2, 3)]
    async with asyncio.timeout(10):
        await stands_still.wait()
        await group.close()
        answers = await asyncio.gather(*asking, return_exceptions=True)
    assert [type(each) for each in answers] == [FormatError, OutcomeUnknown, OutcomeUnknown]
