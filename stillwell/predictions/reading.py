"""Reading predictions: one look, a judgement, and by the model's policy a refresh.

A read of what is fresh costs what a read of the inputs costs: predictions and rows are asked for together, and FRESH is
always the model's word on the very rows that were read with it. Where they are too many for one MGET they come by
several, predictions first: then a prediction may be called STALE that was computed anew between two of them, and none
FRESH that is not. What it is of was read at one instant, so that the rows that have its fingerprint stood together.
"""

import asyncio
import dataclasses
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, Protocol

from stillwell.layout.prediction import Record
from stillwell.layout.redis_keys import RedisKeys
from stillwell.predictions.engine import Engine
from stillwell.predictions.flights import Flight, Flights
from stillwell.predictions.freshness import MOST_EARLY, State, is_due_early, judge, may_try
from stillwell.predictions.hint import Cause, Hint, Hints
from stillwell.predictions.inputs import Columns
from stillwell.predictions.outcome import Entity, Outcome
from stillwell.predictions.prediction import Prediction, Refresh
from stillwell.reading.online import OnlineReader, Stored

_ATTEMPTS = 3
"""How often a reader joins a computation whose inputs turn out to be older than those that it saw itself."""


class Counts(Protocol):
    """Who counts reads."""

    def prediction(self, model: str, state: State, refresh: Refresh, count: int = 1) -> None:
        """So many predictions were read."""

    def fresh(self, model: str, count: int) -> None:
        """So many were read that are fresh, and of which nothing was set in motion."""


Fresh = tuple[int, int, int, tuple[object, ...]]
"""When the inputs of a fresh prediction were read, when it was computed, what that took in µs, and its values."""


class Asked(NamedTuple):
    """What is looked at for some entities: columns of their keys and of requests, their entity keys, what stands for
    their request values, and where their predictions and rows are."""

    columns: Columns
    keys: list[bytes]
    digests: list[bytes]
    wanted: list[bytes]


class Looked(NamedTuple):
    """What was read for some entities, and what of it is fresh, None for what is not. under: which epoch, and by which
    server. all_fresh: whether all of it is. seen_at: when, by a clock that only grows."""

    under: bytes
    fresh: list[Fresh | None]
    all_fresh: bool
    asked: Asked
    packed: list[bytes | None]
    rows: list[list[bytes | None]]
    prints: list[bytes]
    now_us: int
    seen_at: float


class ModelReader:
    """Reads the predictions of one model, for one event loop."""

    def __init__(
        self,
        engine: Engine,
        online: OnlineReader,
        keys: RedisKeys,
        hints: Hints,
        now_us: Callable[[], int],
        counts: Counts | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        """now_us: the clock that ages are counted by, in µs since the epoch. chance: from 0 to 1, not 1 itself."""
        self.engine = engine
        self._online = online
        self._keys = keys
        self._hints = hints
        self._now_us = now_us
        self._counts = counts
        self._chance = chance
        self._flights = Flights(engine, hints)

    async def read(self, columns: Columns) -> list[Prediction]:
        """The predictions for some entities, in their order. columns: of the entity's keys, and of requests.

        Raises WrongKey, StoreUnavailable, StoreNotReady and FormatError.
        """
        return await self.told(await self.look(self.asked(columns)))

    def asked(self, columns: Columns) -> Asked:
        """What is to be looked at for some entities. Raises WrongKey."""
        inputs = self.engine.inputs
        keys, digests = inputs.entity_keys(columns), inputs.digests(columns)
        return Asked(columns, keys, digests, inputs.look_keys(self._keys, self.engine.of, columns, keys, digests))

    async def look(self, asked: Asked) -> Looked:
        """What there is: what was read, and what of it is fresh."""
        return self.looked(asked, await self.stored(asked))

    def stored(self, asked: Asked) -> Awaitable[Stored]:
        """The read. By itself, since a coroutine less is worth having where a thousand times a second is read."""
        return self._online.read(asked.wanted)

    def looked(self, asked: Asked, answer: Stored) -> Looked:
        """What an answer says."""
        stored, count = answer.values, len(asked.keys)
        now = self._now_us()
        inputs = self.engine.inputs
        rows = [stored[begin : begin + count] for begin in range(count, len(stored), count)] if count else []
        prints = inputs.fingerprints(rows, count, now)
        fresh = [self._fresh(record, print, now) for record, print in zip(stored, prints, strict=False)]
        missing = fresh.count(None)
        if self._counts and missing < count:
            self._counts.fresh(self.engine.model.name, count - missing)
        seen_at = time.monotonic() if missing else 0.0
        return Looked(answer.under, fresh, not missing, asked, stored[:count], rows, prints, now, seen_at)

    def fresh(self, answer: Stored) -> Fresh | None:
        """What an answer says of one entity, if its prediction is fresh: in half of the time that `looked` takes, which
        is to be asked about all others."""
        record, *rows = answer.values
        now = self._now_us()
        found = self._fresh(record, self.engine.inputs.fingerprint(rows, now), now)
        if found is not None and self._counts:
            self._counts.fresh(self.engine.model.name, 1)
        return found

    async def told(self, looked: Looked) -> list[Prediction]:
        """What is told of each entity, after all that the policy does about those that are not fresh."""
        inputs = self.engine.inputs
        by_entity = list(zip(*looked.rows, strict=True)) if looked.rows else [()] * len(looked.asked.keys)
        found: list[Prediction | None] = []
        others: list[int] = []
        for number, (fresh, rows) in enumerate(zip(looked.fresh, by_entity, strict=True)):
            if fresh is None:
                others.append(number)
                found.append(None)
            else:
                read_at, computed_at, _, values = fresh
                told = Prediction(
                    State.FRESH, values, read_at, computed_at, inputs, rows, looked.under, Refresh.NONE, ""
                )
                found.append(told)
        if others:
            seen = [self._seen(looked, number, by_entity[number]) for number in others]
            await self._refresh(seen, looked.seen_at)
            # Only now: the model may have taken longer than what it says counts as fresh, and the others have waited.
            oldest = self._now_us() - self.engine.max_staleness_us
            for number, each in zip(others, seen, strict=True):
                found[number] = told = _aged(self._told(each), oldest)
                if self._counts:
                    self._counts.prediction(self.engine.model.name, told.state, told.refresh)
            return [_aged(each, oldest) for each in found if each is not None]
        return [each for each in found if each is not None]

    async def close(self) -> None:
        """End what is computed; who waits for it is told what there was."""
        await self._flights.close()

    def _fresh(self, packed: bytes | None, print: bytes, now: int) -> Fresh | None:
        """The prediction, if it is fresh and will be for a while: the way that most reads go. `judge` is the rule."""
        engine = self.engine
        found = engine.layout.of_inputs(packed, print) if packed else None
        if found is None:
            return None
        read_at, longest = found[0], engine.max_staleness_us
        return found if read_at - longest <= now <= read_at + longest - MOST_EARLY * found[2] else None

    def _seen(self, looked: Looked, number: int, rows: tuple[bytes | None, ...]) -> "_Seen":
        """What is to be judged of one entity by the whole rule."""
        asked, packed, print, now = looked.asked, looked.packed[number], looked.prints[number], looked.now_us
        entity = self.engine.entity(asked.columns, asked.keys, asked.digests, number)
        record = Record.unpack(packed) if packed else None
        longest = self.engine.max_staleness_us
        state = judge(record, print, longest, now)
        early = 0
        if (
            state is State.FRESH
            and record
            and record.outputs
            and is_due_early(record, longest, now, 1 - self._chance())
        ):
            early = record.outputs.read_at
        wanted = early > 0 or (state is not State.FRESH and may_try(record, print, now))
        return _Seen(entity, record, print, rows, looked.under, state, early, wanted)

    async def _refresh(self, seen: "Sequence[_Seen]", seen_at: float) -> None:
        """Do what the policy does about those that want it; each then says how it stands."""
        wanted = [each for each in seen if each.wanted]
        if not wanted:
            return
        match self.engine.model.policy:
            case "refresh":
                self._hint(wanted)
            case "wait":
                await self._compute(wanted, seen_at)
            case "cached":
                pass

    def _hint(self, wanted: "Sequence[_Seen]") -> None:
        """Have them computed by the worker."""
        queued = self._hints.put(
            [Hint.of(self.engine.model.name, each.entity, Cause.READ, each.early, each.print) for each in wanted]
        )
        unheard = self._hints.problem
        for each, new in zip(wanted, queued, strict=True):
            each.unheard = unheard
            each.refresh = Refresh.NONE if unheard else Refresh.QUEUED if new else Refresh.SHARED

    async def _compute(self, wanted: "Sequence[_Seen]", seen_at: float) -> None:
        """Have them computed here, and wait for those that are not fresh."""
        waiting = []
        for each in wanted:
            flight = self._flights.want(each.entity, each.early)
            if each.early:
                each.refresh = Refresh.QUEUED if flight else Refresh.NONE
            else:
                waiting.append(self._computed(each, flight, seen_at))
        await asyncio.gather(*waiting)

    async def _computed(self, each: "_Seen", flight: Flight | None, seen_at: float) -> None:
        """Wait until a prediction is computed, by us or by somebody else."""
        for _ in range(_ATTEMPTS):
            if flight is None:
                each.reason = "too many predictions are being computed at once"
                return
            outcome = await flight.outcome()
            if outcome is None:
                each.refresh = Refresh.SHARED
                return
            each.refresh = Refresh.INLINE if outcome.asked else Refresh.SHARED
            if flight.began >= seen_at or outcome.fingerprint == each.print:
                each.turn_out(outcome)
                return
            flight = self._flights.want(each.entity)

    def _told(self, each: "_Seen") -> Prediction:
        outputs = each.record.outputs if each.record else None
        failure = each.record.failure if each.record and each.state is State.FAILED else None
        return Prediction(
            state=each.state,
            values=self.engine.layout.decode(outputs) if outputs else None,
            read_at=outputs.read_at if outputs else None,
            computed_at=outputs.computed_at if outputs else None,
            inputs=self.engine.inputs,
            rows=each.rows,
            under=each.under,
            refresh=each.refresh,
            reason=each.reason or (failure.reason if failure else each.unheard),
        )


def _aged(told: Prediction, oldest: int) -> Prediction:
    """The same, as it stands when it is told. oldest: when the inputs must have been read of what is fresh by then."""
    too_old = told.state is State.FRESH and told.read_at is not None and told.read_at < oldest
    return told._replace(state=State.STALE) if too_old else told


@dataclasses.dataclass(slots=True)
class _Seen:
    """One entity, as it was read, and then as it turned out."""

    entity: Entity
    record: Record | None
    print: bytes
    rows: tuple[bytes | None, ...]
    under: bytes
    state: State
    early: int
    """When its inputs were read, of one that is fresh and to be computed before its end; 0 for others."""
    wanted: bool
    refresh: Refresh = Refresh.NONE
    reason: str = ""
    unheard: str = ""
    """Why nobody hears that it should be computed again."""

    def turn_out(self, outcome: Outcome) -> None:
        """It was computed, by us or by somebody else."""
        # A server that has taken over may lack rows that were seen before: what is of its rows is not of those.
        other = outcome.under != self.under and outcome.fingerprint != self.print
        state = State.STALE if other and outcome.state is State.FRESH else outcome.state
        self.record, self.state, self.reason = outcome.record, state, outcome.reason
        self.rows, self.under = outcome.rows, outcome.under
