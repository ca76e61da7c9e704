"""How long an event loop stays awake, by the loops that there are and a clock that the test moves."""

import asyncio
import os
import selectors

import pytest
import uvloop

from serving.busy_poll import BusyPoll

SECONDS = 10.0


class Clock:
    """Seconds that pass only where the test says so."""

    def __init__(self) -> None:
        self.now = 100.0
        self.looks = 0

    def __call__(self) -> float:
        self.looks += 1
        return self.now


async def turns(count: int) -> None:
    """Let the loop turn so many times."""
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def runner(request: pytest.FixtureRequest) -> asyncio.Runner:
    return asyncio.Runner(loop_factory=request.param)


def test_the_loop_turns_until_the_time_is_over_and_then_rests(runner: asyncio.Runner) -> None:
    async def run() -> None:
        clock = Clock()
        poll = BusyPoll(SECONDS, clock)
        poll.prolong()
        await turns(20)
        assert clock.looks >= 20
        clock.now += SECONDS
        await turns(2)
        looks = clock.looks
        await turns(20)
        assert clock.looks == looks

    with runner:
        runner.run(run())


def test_a_request_within_the_time_prolongs_it_and_one_after_it_begins_anew(runner: asyncio.Runner) -> None:
    async def run() -> None:
        clock = Clock()
        poll = BusyPoll(SECONDS, clock)
        poll.prolong()
        clock.now += SECONDS - 1
        poll.prolong()
        clock.now += SECONDS - 1
        await turns(2)
        looks = clock.looks
        await turns(20)
        assert 20 <= clock.looks - looks <= 21  # one look a turn: prolonging began no second one
        clock.now += 1
        await turns(3)
        poll.prolong()
        looks = clock.looks
        await turns(20)
        assert clock.looks - looks >= 19

    with runner:
        runner.run(run())


def test_who_polls_gives_way_and_does_not_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    """By asyncio's own loop, whose selector can be watched."""
    yielded: list[bool] = []
    timeouts: list[float | None] = []

    class Watched(selectors.DefaultSelector):
        def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            timeouts.append(timeout)
            return super().select(timeout)

    monkeypatch.setattr(os, "sched_yield", lambda: yielded.append(True))

    async def run() -> None:
        clock = Clock()
        poll = BusyPoll(SECONDS, clock)
        asyncio.get_running_loop().call_later(0.02, setattr, clock, "now", clock.now + SECONDS)
        poll.prolong()
        await asyncio.sleep(0.05)

    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(Watched())) as runner:
        runner.run(run())
    assert len(yielded) > 100
    assert timeouts.count(0) > 100
    assert any(timeout and timeout > 0.001 for timeout in timeouts)  # and then it does sleep
