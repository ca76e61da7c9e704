"""What hints ask for, before it is done: of one prediction one job, however many hints, at the time that it is due.

What a write asks for waits for more of the same, up to a maximum. What a reader or a person asks for waits for nothing.
"""

import asyncio
import dataclasses
import heapq
import itertools

from stillwell.predictions.debounce import Debounced
from stillwell.predictions.hint import Cause, Hint
from stillwell.predictions.outcome import Entity
from stillwell.spec import ModelSpec
from streams.refresh_hints import Partition, RefreshHint

LEAST_PAUSE = 0.05
"""Seconds before anything is computed once more, of a model whose writes wait for nothing too."""

_FEW = 64
"""Times that are no longer anybody's, beside as many as there are jobs, which are not worth a look for them."""


@dataclasses.dataclass(slots=True)
class Job:
    """A prediction that is to be looked at, and the hints that asked for it."""

    entity: Entity
    debounced: Debounced
    hints: list[tuple[Partition, int]]
    asked_at: int
    due: float
    awaited: bool = False
    """Whether a reader has asked, or a person: then no write puts it off."""
    early: int = 0
    """When the inputs were read, in µs since the epoch, of what a reader would have computed although it is fresh,
    because that ends soon; 0 where none would."""
    attempts: int = 0
    answered: int | None = None
    """How much the model had answered when its server last failed over this one; None before it did."""


class Jobs:
    """The jobs of one model. The time is a parameter, in seconds."""

    def __init__(self, model: ModelSpec) -> None:
        self._quiet = model.debounce.total_seconds()
        self._most = model.max_debounce.total_seconds() or 10 * self._quiet
        self._jobs: dict[tuple[bytes, bytes], Job] = {}
        self._by_due: list[tuple[float, int, tuple[bytes, bytes]]] = []
        """When each is due, the first on top; also when it was due before it was put off, or done."""
        self._numbers = itertools.count()
        self.arrived = asyncio.Event()
        """Set when one is due at another time than was known."""

    def __len__(self) -> int:
        return len(self._jobs)

    @property
    def pause(self) -> float:
        """Seconds until what has changed meanwhile is computed once more."""
        return max(self._quiet, LEAST_PAUSE)

    def ask(self, wanted: Hint, hint: RefreshHint, now: float) -> None:
        """A hint for one of them. hint: the record that it was."""
        entity = wanted.entity
        place = (entity.key, entity.digest)
        job = self._jobs.get(place)
        if job is None:
            debounced = Debounced.begin(now, self._quiet, self._most)
            job = self._jobs[place] = Job(entity, debounced, [], hint.timestamp, now)
        else:
            job.debounced = job.debounced.again(now)
        job.hints.append((hint.partition, hint.offset))
        job.early = max(job.early, wanted.early)
        # A reader waits for nothing that may come; nor does a person.
        if wanted.cause is not Cause.WRITE:
            job.awaited = True
            self._schedule(place, job, now)
        elif not job.awaited:
            self._schedule(place, job, job.debounced.due)

    def ask_anew(self, entity: Entity, now: float, asked_at: int) -> None:
        """Its inputs have changed since it was computed, and no hint has come that says so: none has to wait for it."""
        place = (entity.key, entity.digest)
        if place not in self._jobs:
            due = now + self.pause
            job = self._jobs[place] = Job(entity, Debounced.begin(now, self._quiet, self._most), [], asked_at, due)
            self._schedule(place, job, due)

    def put_back(self, job: Job, due: float) -> None:
        """One that was taken is to be done again; hints that came meanwhile join it."""
        place = (job.entity.key, job.entity.digest)
        newer = self._jobs.get(place)
        if newer is not None:
            job.hints += newer.hints
            job.awaited |= newer.awaited
            job.early = max(job.early, newer.early)
            due = max(due, newer.due)
        self._jobs[place] = job
        self._schedule(place, job, due)

    def take_due(self, now: float, most: int) -> list[Job]:
        """Those that are due, the longest overdue first."""
        taken: list[Job] = []
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

    def _schedule(self, place: tuple[bytes, bytes], job: Job, due: float) -> None:
        job.due = due
        heapq.heappush(self._by_due, (due, next(self._numbers), place))
        if len(self._by_due) > 2 * len(self._jobs) + _FEW:
            # What is no longer so would stay until it is due, with a long debounce for a million hints. At least half
            # of what is looked at is dropped, so that each hint pays for two looks.
            self._by_due = [(each.due, next(self._numbers), place) for place, each in self._jobs.items()]
            heapq.heapify(self._by_due)
        self.arrived.set()
