"""The refresh of one model's predictions: jobs that are due, as batches, through the model, until each is done.

Who loses its partitions meanwhile says nothing of what it began: the hints are somebody else's.
"""

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import structlog

from stillwell.errors import FormatError, StoreNotReady
from stillwell.layout.projection import UnknownLayout
from stillwell.predictions.engine import Engine
from stillwell.predictions.freshness import State
from stillwell.predictions.outcome import Entity, Outcome
from streams.metrics import HINTS_WAITING, REFRESHED, REFRESHES, Metrics
from streams.refresh_hints import HintsTaken
from streams.refresh_jobs import LEAST_PAUSE, Job, Jobs
from streams.retry import Retry

_log = structlog.get_logger(__name__)

_LINGER = 0.005
"""Seconds that a batch which is not full waits for more, after its first job is due."""

_GIVE_UP_AFTER = 3
"""Failures over the same inputs after which a job is given up, unless the server is not there at all."""

_NOT_READY_PAUSE = 0.5
"""Seconds between looks whether Redis is rebuilt, which takes a person."""

_UNKNOWN_PAUSE = 2.0
"""Seconds between looks for a version of a view that nobody has told us of."""

_AWAY_PAUSE = 0.5
"""Seconds for all of a model whose server is not there: its breaker's shortest pause."""

_MOST_PAUSE = 5.0
"""Seconds that a job is put back for at the most: a longer pause of its own inputs is met again when it is over, and
newer inputs are found the sooner."""


class PredictionLog(Protocol):
    """Where predictions go that were computed, for the offline store."""

    async def append(self, engine: Engine, predictions: Sequence[tuple[Entity, Outcome]]) -> None:
        """Keep them. Repeating a call repeats them. Raises StoreUnavailable or OutcomeUnknown."""


class VersionsAsked:
    """Has registered versions of views looked for, not too often for however many models."""

    def __init__(self, look: Callable[[], Awaitable[None]], retry: Retry, clock: Callable[[], float]) -> None:
        self._look = look
        self._retry = retry
        self._clock = clock
        self._next = -math.inf

    async def learn(self, model: str, error: UnknownLayout) -> None:
        """Look for them, unless that was a moment ago."""
        now = self._clock()
        if now >= self._next:
            self._next = now + _UNKNOWN_PAUSE
            _log.warning("predictions wait until a version is known", model=model, error=str(error))
            await self._retry.until_done(self._look)


class RefreshWork:
    """Of one model; `run` it."""

    def __init__(
        self,
        engine: Engine,
        hints: HintsTaken,
        metrics: Metrics,
        retry: Retry,
        log: PredictionLog | None,
        versions: VersionsAsked,
        clock: Callable[[], float],
        wall_ms: Callable[[], int],
    ) -> None:
        """See `streams.refresh.RefreshAgent`."""
        self.jobs = Jobs(engine.model)
        self._engine = engine
        self._model = engine.model.name
        self._hints = hints
        self._metrics = metrics
        self._retry = retry
        self._log = log
        self._versions = versions
        self._clock = clock
        self._wall_ms = wall_ms
        self._answered = 0
        """How many predictions the model has made."""

    async def run(self) -> None:
        """Work until cancelled. Raises what no retry can mend."""
        while True:
            batch = await self._next_batch()
            await self._attempt(batch, self._hints.life)
            self.show()

    def show(self) -> None:
        """Tell how many jobs wait."""
        self._metrics.set(HINTS_WAITING, len(self.jobs), self._model)

    async def _next_batch(self) -> list[Job]:
        """What is due, after waiting a little for more unless it is enough for a call."""
        jobs, most = self.jobs, self._engine.batch
        while True:
            jobs.arrived.clear()
            due = jobs.next_due
            left = None if due is None else due - self._clock()
            if left is None or left > 0:
                await _wait(jobs.arrived, left)
                continue
            if len(jobs) < most:
                await asyncio.sleep(_LINGER)
            if batch := jobs.take_due(self._clock(), most):
                return batch

    async def _attempt(self, batch: Sequence[Job], life: int) -> None:
        """Refresh them, or put them back; only what can never be refreshed is given up."""
        if life != self._hints.life:
            return
        try:
            await self._refresh(batch, life)
        except StoreNotReady as error:
            # Redis may have lost rows, and is rebuilt: until then nothing can be said of any prediction.
            _log.warning("predictions wait for Redis", model=self._model, error=str(error))
            self._put_back(batch, life, _NOT_READY_PAUSE)
        except FormatError as error:
            if len(batch) > 1:
                # What one of them stands on must not cost the others their refresh.
                for job in batch:
                    await self._attempt([job], life)
            elif isinstance(error, UnknownLayout):
                # Of a newer worker, most likely, which has registered what it writes.
                await self._versions.learn(self._model, error)
                self._put_back(batch, life, _UNKNOWN_PAUSE)
            elif life == self._hints.life:
                _log.error("a prediction cannot be refreshed", model=self._model, error=str(error))
                self._finish(batch, "given_up")

    def _put_back(self, batch: Sequence[Job], life: int, pause: float) -> None:
        for job in batch if life == self._hints.life else ():
            self.jobs.put_back(job, self._clock() + pause)

    async def _refresh(self, batch: Sequence[Job], life: int) -> None:
        engine = self._engine
        entities = [job.entity for job in batch]
        early = [job.early for job in batch]
        outcomes = await self._retry.until_done(lambda: engine.compute(entities, engine.patience, early))
        computed = [
            (job.entity, outcome)
            for job, outcome in zip(batch, outcomes, strict=True)
            if outcome.asked and outcome.state is State.FRESH
        ]
        self._answered += len(computed)
        if self._log and computed:
            log = self._log
            await self._retry.until_done(lambda: log.append(engine, computed))
        again = await self._retry.until_done(lambda: engine.look(entities))
        if life != self._hints.life:
            return
        now = self._clock()
        for job, outcome, later in zip(batch, outcomes, again, strict=True):
            self._settle(job, outcome, later, now)
        if any(outcome.unavailable for outcome in outcomes):
            # The others would find the same: they wait with it, instead of asking Redis for each in turn.
            await asyncio.sleep(_AWAY_PAUSE)

    def _settle(self, job: Job, outcome: Outcome, later: Outcome, now: float) -> None:
        """Be done with a job, or put it back."""
        if outcome.state is State.FRESH:  # of inputs that were read after the hints came
            if outcome.asked:
                seconds = max(0, self._wall_ms() - job.asked_at) / 1_000
                self._metrics.observe(REFRESHED, seconds, self._model)
            # Not whether it is fresh still: what a model took longer over than max_staleness has aged out by now, and
            # would again each time. Who reads it then asks.
            changed = later.fingerprint != outcome.fingerprint
            if outcome.listed and changed:
                # Whoever wrote the row that it reads through an alias did not know of it yet: nobody hints but these.
                self.jobs.put_back(job, now + self.jobs.pause)
                return
            self._finish([job], "computed" if outcome.asked else "fresh")
            if changed:
                self.jobs.ask_anew(job.entity, now, self._wall_ms())
            return
        if outcome.state is State.FAILED and later.state is State.FAILED and self._is_to_blame(job, outcome):
            job.attempts += outcome.asked
            if job.attempts >= _GIVE_UP_AFTER:
                self._finish([job], "given_up")
                return
        pause = later.retry_in_s or outcome.retry_in_s
        self.jobs.put_back(job, now + min(max(pause, LEAST_PAUSE if outcome.asked or pause else 0.0), _MOST_PAUSE))

    def _is_to_blame(self, job: Job, outcome: Outcome) -> bool:
        """Whether a failure is the inputs'. One alone over which a server fails, again and again, is told from a server
        that is broken by what that answers in between."""
        if not outcome.broke:
            return not outcome.unavailable
        before, job.answered = job.answered, self._answered
        return before is not None and before < self._answered

    def _finish(self, batch: Sequence[Job], result: str) -> None:
        for job in batch:
            for partition, offset in job.hints:
                self._hints.done(partition, offset)
        self._metrics.count(REFRESHES, len(batch), self._model, result)


async def _wait(event: asyncio.Event, seconds: float | None) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
