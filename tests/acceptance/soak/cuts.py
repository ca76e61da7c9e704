"""What becomes of the way to Redis, and when. The plan is pure: all of it comes from a seed."""

import asyncio
import random
from collections.abc import Callable, Iterator, Mapping

from tests.acceptance.chaos.arena import Proxies, disturb, relieve
from tests.acceptance.chaos.plan import Cut, Way

_WAYS: tuple[Way, ...] = ("slow", "silent", "torn", "deaf", "reset", "half", "down")
_AMOUNTS: Mapping[Way, tuple[int, int]] = {
    "slow": (50, 1_500),
    "torn": (500, 20_000),
    "half": (500, 20_000),
    "reset": (1, 50),
}
_PAUSES_S = (16.0, 40.0)
_MOST_S = 4.0

RECOVERY_S = 8.0
"""How long after a cut everything must be right again, without a restart of anything. A worker that waited for a Redis
that was away looks again after five seconds at the latest."""


def planned(rng: random.Random) -> Iterator[Cut]:
    """Cuts without end; `at` counts from the end of the one before. All ways come in turn, in another order each
    time."""
    while True:
        for way in rng.sample(_WAYS, len(_WAYS)):
            yield Cut(
                service="redis",
                way=way,
                at=rng.uniform(*_PAUSES_S),
                seconds=rng.uniform(0.5, _MOST_S),
                amount=rng.randint(*_AMOUNTS.get(way, (0, 0))),
                pieces=rng.choice((1, 1, 3)),
            )


class Cuts:
    """Carries cuts out. made: when each began and ended, by the clock; the last one may not have ended."""

    def __init__(self, proxies: Proxies, clock: Callable[[], float]) -> None:
        self._proxies = proxies
        self._clock = clock
        self.made: list[tuple[float, float]] = []
        self.ways: list[str] = []

    async def make(self, cut: Cut) -> None:
        """One, after the pause before it."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        await asyncio.sleep(cut.at)
        self.ways.append(cut.way)
        self.made.append((self._clock(), float("inf")))
        try:
            for begin, end in cut.outages():
                await asyncio.sleep(began + begin - loop.time())
                await asyncio.to_thread(self._proxies.cut, cut.service, lambda proxy: disturb(proxy, cut))
                try:
                    await asyncio.sleep(began + end - loop.time())
                finally:
                    await asyncio.to_thread(self._proxies.mend, cut.service, lambda proxy: relieve(proxy, cut))
        finally:
            self.made[-1] = (self.made[-1][0], self._clock())

    def explain(self, begin: float, end: float) -> bool:
        """Whether a request from begin to end may have been refused for one of them."""
        return any(first <= end and begin <= last + RECOVERY_S for first, last in self.made)
