"""The watchdog: a partition that has work and healthy sinks, and does not move, ends the process.

Kafka's own liveness (`max.poll.interval`) cannot tell a worker that waits for a sink, and must wait, from one that has
hung. This looks at what matters: whether offsets move.
"""

import dataclasses
from collections.abc import Hashable, Iterable

from stillwell.errors import StillwellError


class StandsStill(StillwellError):
    """A partition makes no progress for no reason that the worker knows of; a new process may."""


@dataclasses.dataclass(frozen=True, slots=True)
class Progress:
    """Where a partition stands. has_work: records are waiting in Kafka, or a closed span for its link."""

    partition: Hashable
    position: int
    durable: int
    linked: int
    has_work: bool


class Watchdog:
    """Fed with the time, in seconds of any clock that does not jump."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._last_move: dict[Hashable, tuple[float, Progress]] = {}

    def look(self, now: float, partitions: Iterable[Progress], sinks_healthy: bool) -> None:
        """Take note of where every partition stands. Raises StandsStill."""
        seen = {progress.partition: progress for progress in partitions}
        self._last_move = {partition: at for partition, at in self._last_move.items() if partition in seen}
        for partition, progress in seen.items():
            since, before = self._last_move.get(partition, (now, None))
            if progress != before or not progress.has_work or not sinks_healthy:
                self._last_move[partition] = (now, progress)
            elif now - since > self._timeout:
                raise StandsStill(
                    f"{partition}: no progress for {now - since:.0f} s at offset {progress.position} (linked "
                    f"{progress.linked}), although records are waiting and every sink answers; the process ends so "
                    "that a new one can try. Nothing is lost"
                )
