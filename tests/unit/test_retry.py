"""A sink that is down is asked again for as long as it takes, at a growing distance, loudly and countably."""

import asyncio

import pytest
from structlog.testing import capture_logs

from stillwell.errors import AlreadyExists, ChainError, NotFound, OutcomeUnknown, StoreNotReady, StoreUnavailable
from streams.metrics import RETRIES, WAITING, Metrics
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
    sleeps, metrics = Sleeps(), Metrics()
    sink = Sink(StoreUnavailable("down"), OutcomeUnknown("no answer"), *[StoreUnavailable("down")] * 40)
    assert await Retry("redis", metrics, sleeps).until_done(sink.call) == "done"
    assert len(sleeps.seconds) == metrics.get(RETRIES, "redis") == 42


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
        await retry.until_done(Sink(*[StoreUnavailable("down")] * 40).call)
    rounds = [sleeps.seconds[first : first + 40] for first in range(0, len(sleeps.seconds), 40)]
    for attempt, pauses in enumerate(zip(*rounds, strict=True), start=1):
        longest = min(5.0, 0.05 * 2 ** (attempt - 1))
        assert longest / 2 <= min(pauses) < max(pauses) <= longest
        assert len(set(pauses)) > 100


async def test_an_outage_is_told_at_once_and_then_at_a_steady_pace() -> None:
    """However many calls wait: thousands of lines would hide what else happens."""
    retry = Retry("redis", Metrics(), Sleeps())
    with capture_logs() as logs:
        calls = [retry.until_done(Sink(*[StoreUnavailable("connection refused")] * 20).call) for _ in range(50)]
        await asyncio.gather(*calls)
    assert [(log["sink"], log["error"]) for log in logs if log["log_level"] == "warning"] == [
        ("redis", "connection refused")
    ]


async def test_another_sinks_outage_is_told_too() -> None:
    metrics = Metrics()
    with capture_logs() as logs:
        for sink in ("redis", "objects"):
            await Retry(sink, metrics, Sleeps()).until_done(Sink(StoreUnavailable("down")).call)
    assert [log["sink"] for log in logs if log["log_level"] == "warning"] == ["redis", "objects"]


class Clock:
    """A clock that moves by what is slept."""

    def __init__(self) -> None:
        self.now = 1_000.0

    async def sleep(self, seconds: float) -> None:
        """Let so much time pass."""
        self.now += seconds
        await asyncio.sleep(0)


async def test_the_end_of_an_outage_is_told_once_with_how_long_it_was() -> None:
    """By the last of the calls that waited; and a blip that nobody was told of ends in silence."""
    clock = Clock()
    retry = Retry("redis", Metrics(), clock.sleep, lambda: clock.now, lambda low, high: 10.0)
    with capture_logs() as logs:
        await retry.until_done(Sink().call)
        await asyncio.gather(*(retry.until_done(Sink(*[StoreUnavailable("down")] * 2).call) for _ in range(3)))
        await retry.until_done(Sink().call)
        await retry.until_done(Sink(StoreUnavailable("down")).call)
        await clock.sleep(60)
        await retry.until_done(Sink(StoreUnavailable("down")).call)
    assert [(log["event"], log.get("seconds")) for log in logs] == [
        ("a sink does not answer; nothing is lost, the worker waits", None),
        ("a sink answers again", 4.5),  # three calls that slept 0.5 s and 1 s, by one clock
        ("a sink does not answer; nothing is lost, the worker waits", None),
        ("a sink answers again", 0.5),
    ]


async def test_the_end_of_an_outage_is_told_also_when_those_who_waited_have_gone() -> None:
    """Their partitions were given away; the sink answers the next one who asks."""
    clock, asleep = Clock(), asyncio.Event()

    async def sleep(seconds: float) -> None:
        await asleep.wait()

    retry = Retry("redis", Metrics(), sleep, lambda: clock.now)
    with capture_logs() as logs:
        waits = asyncio.create_task(retry.until_done(Sink(StoreUnavailable("down")).call))
        await asyncio.sleep(0)
        waits.cancel()
        await asyncio.sleep(0)
        clock.now += 7
        assert [log["log_level"] for log in logs] == ["warning"]
        await retry.until_done(Sink().call)
    assert (logs[-1]["event"], logs[-1]["seconds"]) == ("a sink answers again", 7.0)


async def test_a_call_waits_from_its_first_failure_until_it_succeeds_or_is_given_up() -> None:
    """Also while it is made again and the sink is silent, which takes longer than the sleep between."""
    metrics, answers = Metrics(), asyncio.Event()
    retry = Retry("redis", metrics, Sleeps())
    attempts = 0

    async def silent() -> str:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            raise StoreUnavailable("no answer")
        await answers.wait()
        return "done"

    waits = asyncio.create_task(retry.until_done(silent))
    for _ in range(10):
        await asyncio.sleep(0)
    assert attempts == 2
    assert retry.waiting == metrics.get(WAITING, "redis") == 1
    answers.set()
    assert await waits == "done"
    assert retry.waiting == metrics.get(WAITING, "redis") == 0
    with pytest.raises(StoreNotReady):
        await retry.until_done(Sink(StoreUnavailable("no answer"), StoreNotReady("flushed")).call)
    assert retry.waiting == 0


async def test_calls_that_wait_are_counted_while_they_do() -> None:
    """So that the watchdog can tell a worker that waits for a sink from one that stands still."""
    asleep = asyncio.Event()
    metrics = Metrics()

    async def sleep(seconds: float) -> None:
        await asleep.wait()

    retry = Retry("redis", metrics, sleep)
    calls = [asyncio.create_task(retry.until_done(Sink(StoreUnavailable("down")).call)) for _ in range(3)]
    await asyncio.sleep(0)
    assert retry.waiting == metrics.get(WAITING, "redis") == 3
    calls.pop().cancel()
    await asyncio.sleep(0)
    assert retry.waiting == metrics.get(WAITING, "redis") == 2
    asleep.set()
    assert await asyncio.gather(*calls) == ["done", "done"]
    assert retry.waiting == metrics.get(WAITING, "redis") == 0
