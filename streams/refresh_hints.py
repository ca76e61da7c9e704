"""Hints that have come, and how far they are done: an offset is committed when no hint before it waits.

A hint for a model that only newer definitions have holds its offset back for some minutes: the worker of those that
takes the partition over, while they are rolled out, reads it once more.
"""

import asyncio
import dataclasses
import heapq
import itertools
from typing import Any, NamedTuple

MOST_WAITING = 50_000
"""Hints that wait in memory, over all models. With so many, fetching stops."""

MOST_HELD = 10_000
"""Hints for unknown models that hold their offsets back; of more, the oldest are left out."""

HELD_FOR = 600.0
"""Seconds from its own instant that such a hint is held. All workers should have the new definitions by then. What is
behind it in its partition may be read again for as long, and is found fresh."""

Partition = Any
"""A topic's partition, whoever counts them."""


class RefreshHint(NamedTuple):
    """A record of the refresh topic. timestamp: the record's, in ms."""

    partition: Partition
    offset: int
    value: bytes | None
    timestamp: int


@dataclasses.dataclass(slots=True)
class RefreshBatch:
    """Hints of one fetch. life: which assignment they are of; taken: set when the agent has taken them in."""

    life: int
    hints: list[RefreshHint]
    taken: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)


class Offsets:
    """The hints of one partition that wait: what may be committed."""

    def __init__(self) -> None:
        self.position: int | None = None
        self._waiting: dict[int, None] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def take(self, offset: int) -> None:
        """A hint was taken in; offsets only grow."""
        self._waiting[offset] = None
        self.position = offset + 1

    def done(self, offset: int) -> None:
        """It needs nothing more."""
        self._waiting.pop(offset, None)

    @property
    def commit(self) -> int | None:
        """The offset before which nothing waits."""
        return next(iter(self._waiting), self.position)


class HintsTaken:
    """The hints of the partitions that are ours: which of them wait, and what may be committed."""

    def __init__(self) -> None:
        self.life = 0
        """Counts assignments."""
        self.moved = asyncio.Event()
        """Set when something may have become committable."""
        self._offsets: dict[Partition, Offsets] = {}
        self._held: list[tuple[int, int, Partition, int]] = []
        """Hints for models that are not known, the oldest on top: when each was made, a number, and where it is. They
        come from several partitions, one of which may be far behind."""
        self._numbers = itertools.count()

    def __len__(self) -> int:
        return sum(len(each) for each in self._offsets.values())

    @property
    def held(self) -> int:
        """How many wait for somebody who knows their model."""
        return len(self._held)

    @property
    def has_room(self) -> bool:
        """Whether more may be fetched."""
        return len(self) < MOST_WAITING

    def take(self, hint: RefreshHint) -> None:
        """One has come: it waits until it is done."""
        self._offsets.setdefault(hint.partition, Offsets()).take(hint.offset)
        self.moved.set()

    def done(self, partition: Partition, offset: int) -> None:
        """It needs nothing more."""
        if partition in self._offsets:
            self._offsets[partition].done(offset)
            self.moved.set()

    def hold(self, hint: RefreshHint, now_ms: int) -> None:
        """It is for somebody who knows its model, and waits for a while."""
        # A producer's clock may be ahead by any time.
        made = min(hint.timestamp, now_ms)
        heapq.heappush(self._held, (made, next(self._numbers), hint.partition, hint.offset))

    def release(self, now_ms: int) -> int:
        """Be done with what has been held long enough, or is too much; how many that are."""
        over = now_ms - HELD_FOR * 1_000
        released = 0
        while self._held and (len(self._held) > MOST_HELD or self._held[0][0] <= over):
            _, _, partition, offset = heapq.heappop(self._held)
            self.done(partition, offset)
            released += 1
        return released

    def commits(self) -> dict[Partition, int]:
        """What may be committed now, by partition."""
        found = {partition: offsets.commit for partition, offsets in self._offsets.items()}
        return {partition: offset for partition, offset in found.items() if offset is not None}

    def forget(self) -> None:
        """The partitions are somebody else's now: what waits will come to them, or here again."""
        self.life += 1
        self._offsets.clear()
        self._held.clear()
