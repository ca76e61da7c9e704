"""The refresh agent: hints in, predictions computed anew, and only then the offsets committed.

    take ▸ conflate          hints of one prediction are one job, however many come     streams/refresh_jobs.py
         ▸ debounce          what a write asks for waits for more of the same, up to a maximum
         ▸ batch             jobs that are due go to the model together, by size and by milliseconds
         ▸ compute           the engine reads the inputs, leaves what is fresh,         streams/refresh_work.py
                             asks the model, writes back
         ▸ log               what was computed, to the offline store
         ▸ look again        inputs that changed meanwhile make it stale: then once more
         ▸ acknowledge       the hints' offsets are done                                streams/refresh_hints.py

Whoever is killed is succeeded by one who reads all that was not done. A model's server that is down stops its jobs, and
fetching when too many wait; nothing is lost, Kafka keeps them. Jobs whose model answers with nothing of use are tried a
few times and given up: the next read or write asks again.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

import structlog

from stillwell.instants import now_ms
from stillwell.predictions.engine import Engine
from stillwell.predictions.hint import UnknownModel, decode
from streams.metrics import BAD_HINTS, HINTS, HINTS_HELD, Metrics
from streams.refresh_hints import HintsTaken, Partition, RefreshBatch
from streams.refresh_work import PredictionLog, RefreshWork, VersionsAsked
from streams.retry import Retry

_log = structlog.get_logger(__name__)

_RELEASE_EVERY = 1.0
"""Seconds between looks for hints that have been held long enough, where none comes that would be a reason to look."""


async def _nothing() -> None:
    """There is nowhere to look."""


class RefreshAgent:
    """Computes what hints ask for. `take` them, `run` it, and commit what it says."""

    def __init__(
        self,
        engines: Mapping[str, Engine],
        metrics: Metrics,
        retry: Retry,
        log: PredictionLog | None = None,
        look_for_versions: Callable[[], Awaitable[None]] = _nothing,
        clock: Callable[[], float] = time.monotonic,
        wall_ms: Callable[[], int] = now_ms,
    ) -> None:
        """retry: how Redis and the log are asked again. look_for_versions: has the engines know every registered
        version of their views; asked where a row is of one that they do not know. clock: seconds; wall_ms: ms since the
        epoch."""
        self._engines = engines
        self._metrics = metrics
        self._clock = clock
        self._wall_ms = wall_ms
        self._hints = HintsTaken()
        versions = VersionsAsked(look_for_versions, retry, clock)
        self._work = {
            name: RefreshWork(engine, self._hints, metrics, retry, log, versions, clock, wall_ms)
            for name, engine in engines.items()
        }

    # ---- for the consumer ----

    @property
    def life(self) -> int:
        """Counts assignments."""
        return self._hints.life

    @property
    def moved(self) -> asyncio.Event:
        """Set when something may have become committable."""
        return self._hints.moved

    @property
    def waiting(self) -> int:
        """How many hints wait."""
        return len(self._hints)

    @property
    def has_room(self) -> bool:
        """Whether more hints may be fetched."""
        return self._hints.has_room

    def take(self, batch: RefreshBatch) -> None:
        """Hints, in their order; those of an assignment that is over are dropped."""
        batch.taken.set()
        now = self._clock()
        bad: list[str] = []
        for hint in batch.hints if batch.life == self.life else ():
            self._hints.take(hint)
            try:
                wanted = decode(hint.value, self._engines, hint.timestamp * 1_000)
            except UnknownModel as error:
                if not self._hints.held:
                    _log.warning("hints wait for a worker that knows their model", reason=str(error))
                self._hints.hold(hint, self._wall_ms())
                continue
            except ValueError as error:
                bad.append(str(error))
                self._hints.done(hint.partition, hint.offset)
                continue
            self._metrics.count(HINTS, 1, wanted.model, wanted.cause.value)
            self._work[wanted.model].jobs.ask(wanted, hint, now)
        if bad:
            # Whoever may write to the topic can make any number of them: a line for each batch.
            _log.warning("hints are left out", hints=len(bad), reason=bad[0])
            self._metrics.count(BAD_HINTS, len(bad))
        self._release()
        for work in self._work.values():
            work.show()

    def commits(self) -> dict[Partition, int]:
        """What may be committed now, by partition."""
        return self._hints.commits()

    def forget(self) -> None:
        """The partitions are somebody else's now: what waits will come to them, or here again."""
        self._hints.forget()
        self._metrics.set(HINTS_HELD, 0)
        for work in self._work.values():
            work.jobs.clear()

    # ---- the work ----

    async def run(self) -> None:
        """Work until cancelled. Raises what no retry can mend."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._release_on())
                for work in self._work.values():
                    tasks.create_task(work.run())
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None

    async def _release_on(self) -> None:
        while True:
            await asyncio.sleep(_RELEASE_EVERY)
            self._release()

    def _release(self) -> None:
        """Leave out what has been held long enough, or is too much."""
        released = self._hints.release(self._wall_ms())
        self._metrics.set(HINTS_HELD, self._hints.held)
        if released:
            _log.warning("hints whose model nobody knows are left out; reads ask again", hints=released)
            self._metrics.count(BAD_HINTS, released)
