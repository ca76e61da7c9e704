"""What happens to whom, and when. Pure: all of it comes from a seed."""

import dataclasses
import random
from collections.abc import Iterator
from typing import Literal

Service = Literal["kafka", "redis", "store"]
Way = Literal["down", "silent", "deaf", "slow", "torn", "reset"]

WORKERS = 2
SESSION_S = 3.0
"""The workers' session timeout: whoever is frozen for longer has lost its partitions when it wakes."""

_SERVICES: tuple[Service, ...] = ("kafka", "redis", "store")
_WAYS: tuple[Way, ...] = ("down", "silent", "deaf", "slow", "torn", "reset")


@dataclasses.dataclass(frozen=True, slots=True)
class Cut:
    """A service is out of reach for all workers, from `at` on, for so many seconds.

    down: connections end and are refused. silent: requests arrive, no answer does. deaf: no request arrives, and
    connections stay open. slow: every answer comes late. torn: connections end in the midst of an answer. reset:
    connections are reset. amount: milliseconds of delay, or bytes until the tear.
    """

    service: Service
    way: Way
    at: float
    seconds: float
    amount: int


@dataclasses.dataclass(frozen=True, slots=True)
class Blow:
    """A worker is killed (SIGKILL) at `at` and another started in its place after so many seconds, or it is frozen
    (SIGSTOP) for so long."""

    kind: Literal["kill", "freeze"]
    worker: int
    at: float
    seconds: float


@dataclasses.dataclass(frozen=True, slots=True)
class Round:
    """One blow and one cut; times are seconds since the round began. rest: whether the next one waits until events have
    come to rest again, or falls on what this one has left."""

    cut: Cut
    blow: Blow
    rest: bool


def rounds(kills: int, rng: random.Random) -> Iterator[Round]:
    """As many rounds as blows; the services are cut in turn."""
    for number in range(kills):
        way = rng.choice(_WAYS)
        kind: Literal["kill", "freeze"] = "freeze" if rng.random() < 0.3 else "kill"
        yield Round(
            cut=Cut(
                service=_SERVICES[number % len(_SERVICES)],
                way=way,
                at=rng.uniform(0, 2),
                seconds=rng.uniform(0.2, 4),
                amount=rng.randrange(500, 20_000) if way == "torn" else rng.randrange(50, 1_500),
            ),
            blow=Blow(
                kind=kind,
                worker=rng.randrange(WORKERS),
                at=rng.uniform(0, 3),
                seconds=rng.uniform(SESSION_S + 0.5, SESSION_S + 3) if kind == "freeze" else rng.uniform(0, 2),
            ),
            rest=rng.random() < 0.7,
        )
