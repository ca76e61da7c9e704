"""Reading predictions: one round trip, a judgement, and by the model's policy a refresh.

A read of what is fresh costs what a read of the inputs costs: rows and prediction come by one MGET, at one instant, so
that FRESH is always the model's word on the very rows that stand beside it.
"""

import asyncio
import dataclasses
import enum
import random
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import structlog

from stillwell.errors import StillwellError
from stillwell.layout.prediction import FINGERPRINT_BYTES, Record
from stillwell.layout.redis_keys import RedisKeys
from stillwell.logs import LogLimit
from stillwell.predictions.engine import Engine
from stillwell.predictions.freshness import State, is_due_early, judge, may_try
from stillwell.predictions.hint import Cause, Hint
from stillwell.predictions.inputs import Columns, ModelInputs
from stillwell.predictions.outcome import Entity, Outcome
from stillwell.reading.online import OnlineReader

_log = structlog.get_logger(__name__)
_FAILED = LogLimit(5.0)

_MOST_AT_ONCE = 10_000
"""Predictions of one model that a process computes at once. Who comes on top is told what there is."""

_MOST_EARLY = 30
"""Nobody refreshes earlier before the end than so many times what the model took: the chance would be e^-30."""

_ATTEMPTS = 3
"""How often a reader joins a computation whose inputs turn out to be older than those that it saw itself."""


class Refresh(enum.StrEnum):
    """What a read has set in motion."""

    NONE = "none"
    QUEUED = "queued"
    SHARED = "shared"
    INLINE = "inline"


class Prediction(NamedTuple):
    """What is told of one entity.

    values: of the outputs, in their order, a Timestamp as µs since the epoch; None where the model never answered, or
    too long ago. read_at: when its inputs were read; computed_at: both in µs since the epoch. rows: the inputs that
    `state` is about. refresh: what this read has set in motion. reason: why it failed, or "".
    """

    state: State
    values: tuple[object, ...] | None
    read_at: int | None
    computed_at: int | None
    inputs: ModelInputs
    rows: tuple[bytes | None, ...]
    refresh: Refresh
    reason: str

    @property
    def event_times(self) -> Mapping[str, int | None]:
        """Of the inputs, by view or alias, in µs since the epoch."""
        return self.inputs.event_times(self.rows)


class Hints(Protocol):
    """Where hints go."""

    def put(self, hints: Sequence[Hint]) -> list[bool]:
        """Have predictions computed again, soon; False for one that somebody has just asked for. Never waits."""


class NoHints:
    """Forgets them: for a process that computes by itself, or not at all."""

    def put(self, hints: Sequence[Hint]) -> list[bool]:
        """Nothing is queued."""
        return [False] * len(hints)


class Counts(Protocol):
    """Who counts reads."""

    def prediction(self, model: str, state: State, refresh: Refresh, count: int = 1) -> None:
        """So many predictions were read."""


_OF_NO_ROWS = bytes(FINGERPRINT_BYTES)
"""The fingerprint of a model that reads no rows."""

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
    server. all_fresh: whether all of it is. seen_at: when, by the event loop's clock."""

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
        self._shared = _Shared(engine, hints)

    async def read(self, columns: Columns) -> list[Prediction]:
        """The predictions for some entities, in their order. columns: of the entity's keys, and of requests.

        Raises WrongKey, StoreUnavailable, StoreNotReady and FormatError.
        """
        return (await self.read_under(columns))[1]

    async def read_under(self, columns: Columns) -> tuple[bytes, list[Prediction]]:
        """The same, and under which epoch and by which server (`stillwell.reading.online.Stored.under`)."""
        looked = await self.look(self.asked(columns))
        return looked.under, await self.told(looked)

    def asked(self, columns: Columns) -> Asked:
        """What is to be looked at for some entities. Raises WrongKey."""
        inputs = self.engine.inputs
        keys, digests = inputs.entity_keys(columns), inputs.digests(columns)
        return Asked(columns, keys, digests, inputs.look_keys(self._keys, self.engine.of, columns, keys, digests))

    async def look(self, asked: Asked) -> Looked:
        """What there is, by one round trip: what was read, and what of it is fresh."""
        answer = await self._online.read(asked.wanted)
        stored, count = answer.values, len(asked.keys)
        seen_at, now = asyncio.get_running_loop().time(), self._now_us()
        inputs = self.engine.inputs
        if count == 1:
            record, *row = stored
            print = inputs.fingerprint(row, now) if row else _OF_NO_ROWS
            fresh, rows, prints = [self._fresh(record, print, now)], [[each] for each in row], [print]
        else:
            rows = [stored[begin : begin + count] for begin in range(count, len(stored), count)] if count else []
            prints = inputs.fingerprints(rows, now) if rows else [_OF_NO_ROWS] * count
            fresh = [self._fresh(record, print, now) for record, print in zip(stored, prints, strict=False)]
        missing = fresh.count(None)
        if self._counts and missing < count:
            self._counts.prediction(self.engine.model.name, State.FRESH, Refresh.NONE, count - missing)
        return Looked(answer.under, fresh, not missing, asked, stored[:count], rows, prints, now, seen_at)

    async def told(self, looked: Looked) -> list[Prediction]:
        """What is told of each entity, after all that the policy does about those that are not fresh."""
        engine, inputs, asked = self.engine, self.engine.inputs, looked.asked
        by_entity = list(zip(*looked.rows, strict=True)) if looked.rows else [()] * len(asked.keys)
        found: list[Prediction | None] = []
        others: list[int] = []
        for number, (fresh, rows) in enumerate(zip(looked.fresh, by_entity, strict=True)):
            if fresh is None:
                others.append(number)
                found.append(None)
            else:
                read_at, computed_at, _, values = fresh
                found.append(Prediction(State.FRESH, values, read_at, computed_at, inputs, rows, Refresh.NONE, ""))
        if others:
            seen = [
                self._seen(
                    engine.entity(asked.columns, asked.keys, asked.digests, number),
                    looked.packed[number],
                    looked.prints[number],
                    by_entity[number],
                    looked.now_us,
                )
                for number in others
            ]
            for number, late in zip(others, await self._refreshed(seen, looked.seen_at), strict=True):
                found[number] = told = self._told(late)
                if self._counts:
                    self._counts.prediction(engine.model.name, told.state, told.refresh)
        return [each for each in found if each is not None]

    async def close(self) -> None:
        """End what is computed; who waits for it is told what there was."""
        await self._shared.close()

    def _fresh(self, packed: bytes | None, print: bytes, now: int) -> Fresh | None:
        """The prediction, if it is fresh and will be for a while: the way that most reads go. `judge` is the rule."""
        engine = self.engine
        found = engine.layout.of_inputs(packed, print) if packed else None
        if found is None:
            return None
        read_at, longest = found[0], engine.max_staleness_us
        return found if read_at - longest <= now <= read_at + longest - _MOST_EARLY * found[2] else None

    def _seen(
        self, entity: Entity, packed: bytes | None, print: bytes, rows: tuple[bytes | None, ...], now: int
    ) -> "_Seen":
        record = Record.unpack(packed) if packed else None
        longest = self.engine.max_staleness_us
        state = judge(record, print, longest, now)
        early = state is State.FRESH and record is not None and is_due_early(record, longest, now, 1 - self._chance())
        wanted = early or (state is not State.FRESH and may_try(record, print, now))
        return _Seen(entity, record, print, rows, state, early, wanted)

    async def _refreshed(self, seen: "list[_Seen]", seen_at: float) -> "list[_Seen]":
        """What is known after all that the policy does about it."""
        policy = self.engine.model.policy
        wanted = [number for number, each in enumerate(seen) if each.wanted]
        if not wanted or policy == "cached":
            return seen
        if policy == "refresh":
            queued = self._hints.put(
                [Hint.of(self.engine.model.name, seen[number].entity, Cause.READ) for number in wanted]
            )
            for number, new in zip(wanted, queued, strict=True):
                seen[number].refresh = Refresh.QUEUED if new else Refresh.SHARED
            return seen
        waiting = []
        for number in wanted:
            each = seen[number]
            flight = self._shared.want(each.entity, each.early)
            if each.early:
                each.refresh = Refresh.QUEUED if flight else Refresh.NONE
            else:
                waiting.append(self._computed(each, flight, seen_at))
        await asyncio.gather(*waiting)
        return seen

    async def _computed(self, each: "_Seen", flight: "_Flight | None", seen_at: float) -> None:
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
                each.record, each.state, each.reason = outcome.record, outcome.state, outcome.reason
                each.rows = outcome.rows
                return
            flight = self._shared.want(each.entity, early=False)

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
            refresh=each.refresh,
            reason=each.reason or (failure.reason if failure else ""),
        )


@dataclasses.dataclass(slots=True)
class _Seen:
    """One entity, as it was read, and then as it turned out."""

    entity: Entity
    record: Record | None
    print: bytes
    rows: tuple[bytes | None, ...]
    state: State
    early: bool
    wanted: bool
    refresh: Refresh = Refresh.NONE
    reason: str = ""


class _Flight:
    """One prediction that is being computed, for all of this process who want it."""

    def __init__(self, entity: Entity, patience: float) -> None:
        self.entity = entity
        self.began = 0.0
        """When its inputs were read, or later, by the event loop's clock."""
        self._patience = patience
        self._done: asyncio.Future[Outcome | None] = asyncio.get_running_loop().create_future()

    async def outcome(self) -> Outcome | None:
        """What came of it; None where that takes too long. Raises what computing raised."""
        done, _ = await asyncio.wait([self._done], timeout=self._patience)
        return self._done.result() if done else None

    def land(self, outcome: Outcome | None) -> None:
        """It came to this."""
        if not self._done.done():
            self._done.set_result(outcome)

    def fail(self, error: StillwellError) -> None:
        """It was not computed."""
        if not self._done.done():
            self._done.set_exception(error)
            self._done.exception()  # told to nobody, where nobody waits


class _Shared:
    """Computes what several readers of this process want, once; what is wanted in one turn of the event loop goes
    together."""

    def __init__(self, engine: Engine, hints: Hints) -> None:
        self._engine = engine
        self._hints = hints
        self._flying: dict[tuple[bytes, bytes], _Flight] = {}
        self._waiting: dict[bool, list[_Flight]] = {False: [], True: []}
        self._tasks: set[asyncio.Task[None]] = set()

    def want(self, entity: Entity, early: bool) -> _Flight | None:
        """The computation of an entity's prediction, which may be under way; None where there are too many."""
        place = (entity.key, entity.digest)
        flight = self._flying.get(place)
        if flight is not None:
            return flight
        if len(self._flying) >= _MOST_AT_ONCE:
            return None
        flight = self._flying[place] = _Flight(entity, self._engine.patience)
        if not any(self._waiting.values()):
            asyncio.get_running_loop().call_soon(self._send)
        self._waiting[early].append(flight)
        return flight

    async def close(self) -> None:
        """End all of it."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _send(self) -> None:
        for early, flights in self._waiting.items():
            for begin in range(0, len(flights), _TOGETHER):
                task = asyncio.create_task(self._fly(flights[begin : begin + _TOGETHER], early))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        self._waiting = {False: [], True: []}

    async def _fly(self, flights: Sequence[_Flight], early: bool) -> None:
        began = asyncio.get_running_loop().time()
        for each in flights:
            each.began = began

        def land(number: int, outcome: Outcome) -> None:
            self._flying.pop((flights[number].entity.key, flights[number].entity.digest), None)
            flights[number].land(outcome)

        try:
            entities = [each.entity for each in flights]
            outcomes = await self._engine.compute(entities, self._engine.patience, early, land)
            await self._look_again([each for each in zip(entities, outcomes, strict=True) if each[1].listed])
        except StillwellError as error:
            if (silent := _FAILED.times((self._engine.model.name, type(error).__name__))) is not None:
                model = self._engine.model.name
                _log.warning("predictions cannot be computed", model=model, error=str(error), silent=silent)
            for each in flights:
                each.fail(error)
        finally:
            for each in flights:
                if self._flying.get((each.entity.key, each.entity.digest)) is each:
                    del self._flying[each.entity.key, each.entity.digest]
                each.land(None)

    async def _look_again(self, computed: Sequence[tuple[Entity, Outcome]]) -> None:
        """Whoever wrote an aliased view after their inputs were read, and before they were listed, did not know of
        them."""
        if computed:
            now = await self._engine.look([entity for entity, _ in computed])
            self._hints.put(
                [
                    Hint.of(self._engine.model.name, entity, Cause.WRITE)
                    for (entity, before), later in zip(computed, now, strict=True)
                    if later.fingerprint != before.fingerprint
                ]
            )


_TOGETHER = 256
"""Entities that are computed together: their leases are claimed and their inputs read in one go."""
