"""What happens to whom, and when. Pure: all of it comes from a seed."""

import dataclasses
import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, TypeVar

_Card = TypeVar("_Card")

Service = Literal["kafka", "redis", "store"]
Way = Literal["down", "silent", "deaf", "slow", "torn", "half", "reset"]
Kind = Literal["kill", "freeze"]

WORKERS = 2
SESSION_S = 3.0
"""The workers' session timeout: whoever is frozen for longer has lost its partitions when it wakes."""

_SERVICES: tuple[Service, ...] = ("kafka", "redis", "store")
_WAYS: tuple[Way, ...] = ("down", "silent", "deaf", "slow", "torn", "half", "reset")
_KINDS: tuple[Kind, ...] = ("kill", "kill", "kill", "freeze", "freeze")
_PIECES = (1, 1, 4, 8)
_AMOUNTS: Mapping[Way, tuple[int, int]] = {
    "slow": (50, 1_500),
    "torn": (500, 20_000),
    "half": (500, 20_000),
    "reset": (1, 50),  # less than most pieces last, or nothing would come of it
}


@dataclasses.dataclass(frozen=True, slots=True)
class Cut:
    """A service is out of reach for all workers, from `at` on, for so many seconds.

    down: connections end and are refused. silent: requests arrive, no answer does. deaf: no request arrives, and
    connections stay open. slow: every answer comes late. torn: connections end in the midst of an answer. half:
    connections end in the midst of a request. reset: connections are reset. amount: milliseconds of delay, or bytes
    until the tear. pieces: how often the service comes back and goes again meanwhile; each time it meets other calls.
    """

    service: Service
    way: Way
    at: float
    seconds: float
    amount: int
    pieces: int

    def outages(self) -> Iterator[tuple[float, float]]:
        """Begin and end of each piece: between two of them all is well for as long as a piece lasts."""
        length = self.seconds / (2 * self.pieces - 1)
        for piece in range(self.pieces):
            begin = self.at + 2 * piece * length
            yield begin, begin + length


@dataclasses.dataclass(frozen=True, slots=True)
class Blow:
    """A worker is killed (SIGKILL) at `at` and another started in its place after so many seconds, or it is frozen
    (SIGSTOP) for so long."""

    kind: Kind
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
    """As many rounds as blows. Services take turns; ways and kinds are dealt, so that few blows are of all kinds."""
    services, ways, kinds = itertools.cycle(_SERVICES), _dealt(_WAYS, rng), _dealt(_KINDS, rng)
    for _ in range(kills):
        way, kind = next(ways), next(kinds)
        yield Round(
            cut=Cut(
                service=next(services),
                way=way,
                at=rng.uniform(0, 2),
                seconds=rng.uniform(0.2, 4),
                amount=rng.randint(*_AMOUNTS.get(way, (0, 0))),
                pieces=rng.choice(_PIECES),
            ),
            blow=Blow(
                kind=kind,
                worker=rng.randrange(WORKERS),
                at=rng.uniform(0, 3),
                seconds=rng.uniform(SESSION_S + 0.5, SESSION_S + 3) if kind == "freeze" else rng.uniform(0, 2),
            ),
            rest=rng.random() < 0.7,
        )


def _dealt(cards: Sequence[_Card], rng: random.Random) -> Iterator[_Card]:
    """The cards, shuffled, and again and again."""
    while True:
        yield from rng.sample(cards, len(cards))
