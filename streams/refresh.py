"""The refresh agent: hints in, predictions computed anew, and only then the offsets committed.

    take ▸ conflate          hints of one prediction are one job, however many come
         ▸ debounce          what a write asks for waits for more of the same, up to a maximum
         ▸ batch             jobs that are due go to the model together, by size and by milliseconds
         ▸ compute           the engine reads the inputs, leaves what is fresh, asks the model, writes back
         ▸ log               what was computed, to the offline store
         ▸ look again        inputs that changed meanwhile make it stale: then once more
         ▸ acknowledge       the hints' offsets are done

An offset is committed when no hint before it waits: whoever is killed is succeeded by one who reads all that was not
done. A model's server that is down stops its jobs, and fetching when too many wait; nothing is lost, Kafka keeps them.
A hint for a model that only newer definitions have holds its offset back for some minutes: the worker of those that
takes the partition over, while they are rolled out, reads it once more.
Jobs whose model answers with nothing of use are tried a few times and given up: the next read or write asks again.
"""

import asyncio
import contextlib
import dataclasses
import heapq
import itertools
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import structlog

from stillwell.errors import FormatError, StoreNotReady
from stillwell.layout.projection import UnknownLayout
from stillwell.predictions.debounce import Debounced
from stillwell.predictions.engine import Engine
from stillwell.predictions.freshness import State
from stillwell.predictions.hint import Cause, UnknownModel, decode
from stillwell.predictions.outcome import Entity, Outcome
from stillwell.predictions.watching import Call
from streams.metrics import (
    BAD_HINTS,
    HINTS,
    HINTS_HELD,
    HINTS_WAITING,
    LEFT_TO_READS,
    MODEL_CALLS,
    MODEL_SECONDS,
    REFRESHED,
    REFRESHES,
    Metrics,
)
from streams.retry import Retry

_log = structlog.get_logger(__name__)

MOST_WAITING = 50_000
"""Hints that wait in memory, over all models. With so many, fetching stops."""

MOST_HELD = 10_000
"""Hints for unknown models that hold their offsets back; of more, the oldest are left out."""

HELD_FOR = 600.0
"""Seconds from its own instant that such a hint is held. All workers should have the new definitions by then. What is
behind it in its partition may be read again for as long, and is found fresh."""

_RELEASE_EVERY = 1.0
_LINGER = 0.005
"""Seconds that a batch which is not full waits for more, after its first job is due."""

_GIVE_UP_AFTER = 3
"""Failures over the same inputs after which a job is given up, unless the server is not there at all."""

_NOT_READY_PAUSE = 0.5
_UNKNOWN_PAUSE = 2.0
"""Seconds between looks for a version of a view that nobody has told us of."""

_AWAY_PAUSE = 0.5
_LEAST_PAUSE = 0.05
_MOST_PAUSE = 5.0

Partition = Any
"""A topic's partition, whoever counts them."""


@dataclasses.dataclass(slots=True)
class RefreshBatch:
    """Hints of one fetch. life: which assignment they are of; taken: set when the agent has taken them in."""

    life: int
    hints: "list[RefreshHint]"
    taken: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)


class RefreshHint(NamedTuple):
    """A record of the refresh topic. timestamp: the record's, in ms."""

    partition: Partition
    offset: int
    value: bytes | None
    timestamp: int


class PredictionLog(Protocol):
    """Where predictions go that were computed, for the offline store."""

    async def append(self, engine: Engine, predictions: Sequence[tuple[Entity, Outcome]]) -> None:
        """Keep them. Repeating a call repeats them. Raises StoreUnavailable or OutcomeUnknown."""


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


@dataclasses.dataclass(slots=True)
class _Job:
    """A prediction that is to be looked at, and the hints that asked for it."""

    entity: Entity
    debounced: Debounced
    hints: list[tuple[Partition, int]]
    asked_at: int
    due: float
    awaited: bool = False
    """Whether a reader has asked, or a person: then no write puts it off."""
    attempts: int = 0
    answered: int | None = None
    """How much the model had answered when its server last failed over this one; None before it did."""


class _Jobs:
    """The jobs of one model."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        model = engine.model
        self._quiet = model.debounce.total_seconds()
        self._most = model.max_debounce.total_seconds() or 10 * self._quiet
        self._jobs: dict[tuple[bytes, bytes], _Job] = {}
        self._by_due: list[tuple[float, int, tuple[bytes, bytes]]] = []
        self._numbers = itertools.count()
        self.arrived = asyncio.Event()
        self.answered = 0
        """How many predictions the model has made."""

    def __len__(self) -> int:
        return len(self._jobs)

    @property
    def pause(self) -> float:
        """Seconds until what has changed meanwhile is computed once more."""
        return max(self._quiet, _LEAST_PAUSE)

    def ask(self, entity: Entity, cause: Cause, hint: RefreshHint, now: float) -> None:
        """A hint for one of them."""
        place = (entity.key, entity.digest)
        job = self._jobs.get(place)
        if job is None:
            debounced = Debounced.begin(now, self._quiet, self._most)
            job = self._jobs[place] = _Job(entity, debounced, [], hint.timestamp, now)
        else:
            job.debounced = job.debounced.again(now)
        job.hints.append((hint.partition, hint.offset))
        # A reader waits for nothing that may come; nor does a person.
        if cause is not Cause.WRITE:
            job.awaited = True
            self._schedule(place, job, now)
        elif not job.awaited:
            self._schedule(place, job, job.debounced.due)

    def ask_anew(self, entity: Entity, now: float, asked_at: int) -> None:
        """Its inputs have changed since it was computed, and no hint has come that says so: none has to wait for it."""
        place = (entity.key, entity.digest)
        if place not in self._jobs:
            due = now + self.pause
            job = self._jobs[place] = _Job(entity, Debounced.begin(now, self._quiet, self._most), [], asked_at, due)
            self._schedule(place, job, due)

    def put_back(self, job: _Job, due: float) -> None:
        """One that was taken is to be done again; hints that came meanwhile join it."""
        place = (job.entity.key, job.entity.digest)
        newer = self._jobs.get(place)
        if newer is not None:
            job.hints += newer.hints
            job.awaited |= newer.awaited
            due = max(due, newer.due)
        self._jobs[place] = job
        self._schedule(place, job, due)

    def take_due(self, now: float, most: int) -> list[_Job]:
        """Those that are due, the longest overdue first."""
        taken: list[_Job] = []
        while self._by_due and self._by_due[0][0] <= now and len(taken) < most:
            due, _, place = heapq.heappop(self._by_due)
            job = self._jobs.get(place)
            if job is not None and job.due == due:
                del self._jobs[place]
                taken.append(job)
        return taken

    @property
    def next_due(self) -> float | None:
        """When the next one is due; None where there is none."""
        while self._by_due:
            due, _, place = self._by_due[0]
            job = self._jobs.get(place)
            if job is not None and job.due == due:
                return due
            heapq.heappop(self._by_due)
        return None

    def clear(self) -> None:
        """Forget all of them."""
        self._jobs.clear()
        self._by_due.clear()

    def _schedule(self, place: tuple[bytes, bytes], job: _Job, due: float) -> None:
        job.due = due
        heapq.heappush(self._by_due, (due, next(self._numbers), place))
        self.arrived.set()


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
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        """retry: how Redis and the log are asked again. look_for_versions: has the engines know every registered
        version of their views; asked where a row is of one that they do not know. clock: seconds; wall_ms: ms since the
        epoch."""
        self._engines = engines
        self._metrics = metrics
        self._retry = retry
        self._log = log
        self._clock = clock
        self._wall_ms = wall_ms
        self._jobs = {name: _Jobs(engine) for name, engine in engines.items()}
        self._offsets: dict[Partition, Offsets] = {}
        self._held: list[tuple[int, int, Partition, int]] = []
        """Hints for models that are not known, the oldest on top: when each was made, a number, and where it is. They
        come from several partitions, one of which may be far behind."""
        self._numbers = itertools.count()
        self._look_for_versions = look_for_versions
        self._next_look = -math.inf
        self.life = 0
        """Counts assignments."""
        self.moved = asyncio.Event()
        """Set when something may have become committable."""

    # ---- for the consumer ----

    @property
    def waiting(self) -> int:
        """How many hints wait."""
        return sum(len(each) for each in self._offsets.values())

    @property
    def has_room(self) -> bool:
        """Whether more hints may be fetched."""
        return self.waiting < MOST_WAITING

    def take(self, batch: RefreshBatch) -> None:
        """Hints, in their order; those of an assignment that is over are dropped."""
        batch.taken.set()
        now = self._clock()
        bad: list[str] = []
        for hint in batch.hints if batch.life == self.life else ():
            offsets = self._offsets.setdefault(hint.partition, Offsets())
            offsets.take(hint.offset)
            try:
                model, entity, cause = decode(hint.value, self._engines)
            except UnknownModel as error:
                if not self._held:
                    _log.warning("hints wait for a worker that knows their model", reason=str(error))
                # A producer's clock may be ahead by any time.
                made = min(hint.timestamp, self._wall_ms())
                heapq.heappush(self._held, (made, next(self._numbers), hint.partition, hint.offset))
                continue
            except ValueError as error:
                bad.append(str(error))
                offsets.done(hint.offset)
                continue
            self._metrics.count(HINTS, 1, model, cause.value)
            self._jobs[model].ask(entity, cause, hint, now)
        if bad:
            # Whoever may write to the topic can make any number of them: a line for each batch.
            _log.warning("hints are left out", hints=len(bad), reason=bad[0])
            self._metrics.count(BAD_HINTS, len(bad))
        self._release()
        for name, jobs in self._jobs.items():
            self._metrics.set(HINTS_WAITING, len(jobs), name)
        self.moved.set()

    def commits(self) -> dict[Partition, int]:
        """What may be committed now, by partition."""
        found = {partition: offsets.commit for partition, offsets in self._offsets.items()}
        return {partition: offset for partition, offset in found.items() if offset is not None}

    def forget(self) -> None:
        """The partitions are somebody else's now: what waits will come to them, or here again."""
        self.life += 1
        self._offsets.clear()
        self._held.clear()
        self._metrics.set(HINTS_HELD, 0)
        for jobs in self._jobs.values():
            jobs.clear()

    # ---- the work ----

    async def run(self) -> None:
        """Work until cancelled. Raises what no retry can mend."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._release_on())
                for jobs in self._jobs.values():
                    tasks.create_task(self._work(jobs))
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None

    async def _release_on(self) -> None:
        while True:
            await asyncio.sleep(_RELEASE_EVERY)
            self._release()

    def _release(self) -> None:
        """Leave out what has been held long enough, or is too much."""
        over = self._wall_ms() - HELD_FOR * 1_000
        released = 0
        while self._held and (len(self._held) > MOST_HELD or self._held[0][0] <= over):
            _, _, partition, offset = heapq.heappop(self._held)
            self._offsets[partition].done(offset)
            released += 1
        self._metrics.set(HINTS_HELD, len(self._held))
        if released:
            _log.warning("hints whose model nobody knows are left out; reads ask again", hints=released)
            self._metrics.count(BAD_HINTS, released)
            self.moved.set()

    async def _work(self, jobs: _Jobs) -> None:
        while True:
            batch = await self._next_batch(jobs)
            life = self.life
            await self._attempt(jobs, batch, life)
            if life == self.life:
                self.moved.set()
            self._metrics.set(HINTS_WAITING, len(jobs), jobs.engine.model.name)

    async def _attempt(self, jobs: _Jobs, batch: Sequence[_Job], life: int) -> None:
        """Refresh them, or put them back; only what can never be refreshed is given up."""
        if life != self.life:
            return
        model = jobs.engine.model.name
        try:
            await self._refresh(jobs, batch)
        except StoreNotReady as error:
            # Redis may have lost rows, and is rebuilt: until then nothing can be said of any prediction.
            _log.warning("predictions wait for Redis", model=model, error=str(error))
            self._put_back(jobs, batch, life, _NOT_READY_PAUSE)
        except FormatError as error:
            if len(batch) > 1:
                # What one of them stands on must not cost the others their refresh.
                for job in batch:
                    await self._attempt(jobs, [job], life)
            elif isinstance(error, UnknownLayout):
                # Of a newer worker, most likely, which has registered what it writes.
                await self._learn_versions(model, error)
                self._put_back(jobs, batch, life, _UNKNOWN_PAUSE)
            elif life == self.life:
                _log.error("a prediction cannot be refreshed", model=model, error=str(error))
                self._finish(jobs, batch, "given_up")

    def _put_back(self, jobs: _Jobs, batch: Sequence[_Job], life: int, pause: float) -> None:
        for job in batch if life == self.life else ():
            jobs.put_back(job, self._clock() + pause)

    async def _learn_versions(self, model: str, error: UnknownLayout) -> None:
        """Look for registered versions of views, unless that was a moment ago."""
        now = self._clock()
        if now >= self._next_look:
            self._next_look = now + _UNKNOWN_PAUSE
            _log.warning("predictions wait until a version is known", model=model, error=str(error))
            await self._retry.until_done(self._look_for_versions)

    async def _next_batch(self, jobs: _Jobs) -> list[_Job]:
        """What is due, after waiting a little for more unless it is enough for a call."""
        most = jobs.engine.batch
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

    async def _refresh(self, jobs: _Jobs, batch: Sequence[_Job]) -> None:
        engine, life = jobs.engine, self.life
        entities = [job.entity for job in batch]
        outcomes = await self._retry.until_done(lambda: engine.compute(entities, engine.patience))
        computed = [
            (job.entity, outcome)
            for job, outcome in zip(batch, outcomes, strict=True)
            if outcome.asked and outcome.state is State.FRESH
        ]
        jobs.answered += len(computed)
        if self._log and computed:
            log = self._log
            await self._retry.until_done(lambda: log.append(engine, computed))
        again = await self._retry.until_done(lambda: engine.look(entities))
        if life != self.life:
            return
        now = self._clock()
        for job, outcome, later in zip(batch, outcomes, again, strict=True):
            self._settle(jobs, job, outcome, later, now)
        if any(outcome.unavailable for outcome in outcomes):
            # The others would find the same: they wait with it, instead of asking Redis for each in turn.
            await asyncio.sleep(_AWAY_PAUSE)

    def _settle(self, jobs: _Jobs, job: _Job, outcome: Outcome, later: Outcome, now: float) -> None:
        """Be done with a job, or put it back."""
        if outcome.state is State.FRESH:  # of inputs that were read after the hints came
            if outcome.asked:
                seconds = max(0, self._wall_ms() - job.asked_at) / 1_000
                self._metrics.observe(REFRESHED, seconds, jobs.engine.model.name)
            if outcome.listed and later.state is not State.FRESH:
                # Whoever wrote the row that it reads through an alias did not know of it yet: nobody hints but these.
                jobs.put_back(job, now + jobs.pause)
                return
            self._finish(jobs, [job], "computed" if outcome.asked else "fresh")
            if later.state is not State.FRESH:
                jobs.ask_anew(job.entity, now, self._wall_ms())
            return
        if outcome.state is State.FAILED and later.state is State.FAILED and _is_to_blame(jobs, job, outcome):
            job.attempts += outcome.asked
            if job.attempts >= _GIVE_UP_AFTER:
                self._finish(jobs, [job], "given_up")
                return
        pause = later.retry_in_s or outcome.retry_in_s
        jobs.put_back(job, now + min(max(pause, _LEAST_PAUSE if outcome.asked or pause else 0.0), _MOST_PAUSE))

    def _finish(self, jobs: _Jobs, batch: Sequence[_Job], result: str) -> None:
        for job in batch:
            for partition, offset in job.hints:
                if partition in self._offsets:
                    self._offsets[partition].done(offset)
        self._metrics.count(REFRESHES, len(batch), jobs.engine.model.name, result)


def _is_to_blame(jobs: _Jobs, job: _Job, outcome: Outcome) -> bool:
    """Whether a failure is the inputs'. One alone over which a server fails, again and again, is told from a server
    that is broken by what that answers in between."""
    if not outcome.broke:
        return not outcome.unavailable
    before, job.answered = job.answered, jobs.answered
    return before is not None and before < jobs.answered


class Counting:
    """Counts what the engines do, for the worker's metrics."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def called(self, model: str, call: Call, seconds: float, entities: int) -> None:
        """A model was asked."""
        self._metrics.count(MODEL_CALLS, entities, model, call.value)
        if call is not Call.UNUSABLE:
            self._metrics.observe(MODEL_SECONDS, seconds, model)

    def kept(self, model: str, stored: bool) -> None:
        """Not counted."""

    def left(self, model: str, count: int) -> None:
        """Writes do not refresh some any longer."""
        self._metrics.count(LEFT_TO_READS, count, model)


async def _wait(event: asyncio.Event, seconds: float | None) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
