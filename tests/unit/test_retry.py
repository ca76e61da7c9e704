"""A sink that is down is asked again for as long as it takes, at a growing distance, loudly and countably."""

import asyncio

import pytest
from structlog.testing import capture_logs

from stillwell.errors import AlreadyExists, ChainError, NotFound, OutcomeUnknown, StoreNotReady, StoreUnavailable
from streams import metrics
from streams.metrics import Metrics
from streams.retry import Retry


class Sleeps:
    """A clock's worth of sleeping that takes no time."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        """Remember."""
        self.seconds.append(seconds)
        await asyncio.sleep(0)


class Sink:
    """A sink that fails some times, then answers."""

    def __init__(self, *errors: Exception) -> None:
        self._errors = list(errors)

    async def call(self) -> str:
        """Fail, or answer."""
        if self._errors:
            raise self._errors.pop(0)
        return "done"


async def test_a_call_is_made_until_it_succeeds() -> None:
    """Without an answer too: whoever uses it makes calls that are harmless to repeat."""
    sleeps, values = Sleeps(), Metrics()
    sink = Sink(StoreUnavailable("down"), OutcomeUnknown("no answer"), *[StoreUnavailable("down")] * 40)
    assert await Retry("redis", values, sleeps).until_done(sink.call) == "done"
    assert len(sleeps.seconds) == values.get(metrics.RETRIES, "redis") == 42


@pytest.mark.parametrize("error", [StoreNotReady, AlreadyExists, NotFound, ChainError, ValueError])
async def test_what_asking_again_cannot_mend_is_raised_at_once(error: type[Exception]) -> None:
    sleeps = Sleeps()
    with pytest.raises(error):
        await Retry("redis", Metrics(), sleeps).until_done(Sink(error("no")).call)
    assert sleeps.seconds == []


async def test_pauses_grow_to_five_seconds_and_differ() -> None:
    """The first are short, since most failures are; many workers must not all come back at the same instant."""
    sleeps = Sleeps()
    retry = Retry("redis", Metrics(), sleeps)
    for _ in range(200):
        await retry.until_done(Sink(*[StoreUnavailable("down")] * 12).call)
    rounds = [sleeps.seconds[first : first + 12] for first in range(0, len(sleeps.seconds), 12)]
    for attempt, pauses in enumerate(zip(*rounds, strict=True), start=1):
        longest = min(5.0, 0.05 * 2 ** (attempt - 1))
        assert longest / 2 <= min(pauses) < max(pauses) <= longest
        assert len(set(pauses)) > 100
    await retry.pause(10**9, StoreUnavailable("down"))
    assert 2.5 <= sleeps.seconds[-1] <= 5.0


async def test_an_outage_is_told_at_once_and_then_at_a_steady_pace() -> None:
    """However many calls wait: thousands of lines would hide what else happens."""
    retry = Retry("redis", Metrics(), Sleeps())
    with capture_logs() as logs:
        calls = [retry.until_done(Sink(*[StoreUnavailable("connection refused")] * 20).call) for _ in range(50)]
        await asyncio.gather(*calls)
    assert [(log["log_level"], log["sink"], log["error"]) for log in logs] == [
        ("warning", "redis", "connection refused")
    ]


async def test_another_sinks_outage_is_told_too() -> None:
    values = Metrics()
    with capture_logs() as logs:
        for sink in ("redis", "objects"):
            await Retry(sink, values, Sleeps()).until_done(Sink(StoreUnavailable("down")).call)
    assert [log["sink"] for log in logs] == ["redis", "objects"]


async def test_calls_that_wait_are_counted_while_they_do() -> None:
    """So that the watchdog can tell a worker that waits for a sink from one that stands still."""
    asleep = asyncio.Event()
    values = Metrics()

    async def sleep(seconds: float) -> None:
        await asleep.wait()

    retry = Retry("redis", values, sleep)
    calls = [asyncio.create_task(retry.until_done(Sink(StoreUnavailable("down")).call)) for _ in range(3)]
    await asyncio.sleep(0)
    assert retry.waiting == values.get(metrics.WAITING, "redis") == 3
    calls.pop().cancel()
    await asyncio.sleep(0)
    assert retry.waiting == values.get(metrics.WAITING, "redis") == 2
    asleep.set()
    assert await asyncio.gather(*calls) == ["done", "done"]
    assert retry.waiting == values.get(metrics.WAITING, "redis") == 0
