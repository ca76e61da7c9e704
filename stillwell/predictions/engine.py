"""Computing predictions: one model call for however many want one, and the newest inputs win.

    read the inputs, and the prediction that there is, at one instant      Redis says which
      ▸ judge                  what is fresh is done; what has just failed is left
      ▸ claim                  a lease for each entity and fingerprint; who does not get it waits for the record
      ▸ ask the model          in batches, while the leases are renewed
      ▸ write back             outputs or failure, merged with what is there
      ▸ give the leases up

Whoever dies on the way leaves a lease that expires, and nothing else. Within a process, who wants a prediction that is
being computed shares it; across processes the lease decides. Serving and the worker use the same engine.
"""

import asyncio
import dataclasses
import random
import time
from collections.abc import Callable, Mapping, Sequence

from stillwell.errors import ModelError, ModelFailed, ModelLeftAlone, ModelUnavailable, RequestError
from stillwell.instants import duration_us
from stillwell.layout.prediction import Failure, OutputLayout, Outputs, Record
from stillwell.layout.redis_keys import PredictionsOf, RedisKeys
from stillwell.predictions.freshness import State, is_near_its_end, kept_ms, may_try, pause_us
from stillwell.predictions.inference import Inference
from stillwell.predictions.inputs import Columns, ModelInputs
from stillwell.predictions.leases import LEASE_MS, Held, Leases
from stillwell.predictions.outcome import Entity, Outcome, columns_of, digests_of
from stillwell.predictions.store import Claim, Listing, PredictionStore, StoredAt
from stillwell.predictions.tensors import Said, Unusable
from stillwell.predictions.watching import Call, Unwatched, Watcher
from stillwell.spec import ModelSpec, OpenInferenceSpec

_LOOK_AFTER = (0.005, 0.01, 0.02, 0.04)
"""Seconds between looks for a record that another process computes; the last one from then on. A look is one round trip
of Redis for all of a process who wait. So who waits hears of a fast model's answer within 5 ms, of any within 40; and
of one that takes a second Redis is asked 28 times."""

_BATCHES_AT_A_TIME = 16
"""Batches that are read, claimed and computed at a time, of a model whose server is asked for eight at a time. Who has
to wait for a turn waits before: inputs that were read long ago would be in memory, and what is said of them old; and
leases would end while nobody has asked yet, so that others ask as well."""

_LEFT_ALONE = 0.5
"""Seconds after which to come back to a model that is left alone: its breaker's shortest pause."""

_FUNCTION_BATCH = 256
"""Entities in one call of a function: its thread is not ended, so that each call has to be short."""

_FUNCTION_PATIENCE = 35.0
"""Seconds that who computes by a function has: the 30 of the function, and those of reading and writing about it."""


class Engine:
    """Computes the predictions of one model."""

    def __init__(
        self,
        model: ModelSpec,
        inputs: ModelInputs,
        inference: Inference,
        store: PredictionStore,
        keys: RedisKeys,
        watcher: Watcher | None = None,
        chance: Callable[[], float] = random.random,
        lease_ms: int = LEASE_MS,
        computed: "Callable[[Engine, Sequence[tuple[Entity, Outcome]]], None] | None" = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """chance: from 0 to 1. computed: told of what this process has computed and written back. clock: seconds that
        only grow."""
        self.model = model
        self.inputs = inputs
        self.layout = OutputLayout.of(model)
        self.of = PredictionsOf(model.name, model.version)
        self.max_staleness_us = duration_us(model.max_staleness)
        self.inference = inference
        self._store = store
        self._keys = keys
        self._watcher = watcher or Unwatched()
        self._chance = chance
        self._leases = Leases(store, lease_ms)
        self._kept_ms = kept_ms(model.max_staleness)
        self._computing = asyncio.Semaphore(_BATCHES_AT_A_TIME)
        self._computed = computed
        self._clock = clock

    @property
    def batch(self) -> int:
        """The most entities in one call of the model."""
        return self.model.server.max_batch if isinstance(self.model.server, OpenInferenceSpec) else _FUNCTION_BATCH

    def entities(self, columns: Columns) -> list[Entity]:
        """The entities of some columns: of the entity's keys, and of requests. Raises WrongKey."""
        keys = self.inputs.entity_keys(columns)
        digests = self.inputs.digests(columns)
        return [self.entity(columns, keys, digests, number) for number in range(len(keys))]

    def entity(self, columns: Columns, keys: Sequence[bytes], digests: Sequence[bytes], number: int) -> Entity:
        """One of them. keys, digests: of all."""
        names = [*(key.name for key in self.model.entity.keys), *self.inputs.request]
        digest = digests[number] if digests else b""
        return Entity(keys[number], digest, {name: columns[name][number] for name in names})

    def record_keys(self, entities: Sequence[Entity]) -> list[bytes]:
        """Where their predictions are."""
        return self._keys.predictions(self.of, [each.key for each in entities], digests_of(entities))

    @property
    def patience(self) -> float:
        """Seconds after which a call of the model is over, however it ends, and who computes has said so."""
        server = self.model.server
        if not isinstance(server, OpenInferenceSpec):
            return _FUNCTION_PATIENCE
        return (server.timeout.total_seconds() + 0.2) * (1 + server.retries) + 0.5

    async def compute(
        self,
        entities: Sequence[Entity],
        patience: float,
        early: Sequence[int] = (),
        done: Callable[[int, Outcome], None] | None = None,
    ) -> list[Outcome]:
        """How each entity stands, after its prediction was computed where it was not fresh.

        entities: each once. patience: seconds to wait for what others compute; what is not there then is told as it is.
        early: of each entity, up to when its inputs must have been read, in µs since the epoch, so that its prediction
        is computed anew also where it is fresh still, and near its end; 0, or none at all, where it is left. Who asks
        gives the instant of the prediction that he saw: what has been computed since is left, however soon that ends.
        done: called with each entity's number and outcome as soon as that is known. Raises StoreError, and FormatError.
        """
        deadline = self._clock() + patience
        outcomes: dict[int, Outcome] = {}
        remaining = list(range(len(entities)))
        looks = 0
        while remaining:
            some = [entities[number] for number in remaining]
            step = await self._step(some, [early[number] for number in remaining] if early else [0] * len(some))
            outcomes.update(zip(remaining, step.outcomes, strict=True))
            if done:
                for number, waits in zip(remaining, step.waits, strict=True):
                    if not waits:
                        done(number, outcomes[number])
            remaining = [number for number, waits in zip(remaining, step.waits, strict=True) if waits]
            if remaining:
                pause = _LOOK_AFTER[min(looks, len(_LOOK_AFTER) - 1)]
                if self._clock() + pause > deadline:
                    break
                looks += 1
                await asyncio.sleep(pause)
        return [outcomes[number] for number in range(len(entities))]

    async def look(self, entities: Sequence[Entity]) -> list[Outcome]:
        """How each entity stands now. Raises StoreError, and FormatError."""
        return (await self._read(entities)).outcomes

    # ---- one step ----

    async def _step(self, entities: Sequence[Entity], early: Sequence[int]) -> "_Step":
        """Read, judge, claim, and compute what could be claimed, in its turn."""
        async with self._computing:
            return await self._step_in_turn(entities, early)

    async def _step_in_turn(self, entities: Sequence[Entity], early: Sequence[int]) -> "_Step":
        now = await self._read(entities)
        wanted = [
            number
            for number, each in enumerate(now.outcomes)
            if self._is_wanted(each, early[number]) and may_try(each.record, each.fingerprint, each.read_at)
        ]
        step = _Step(list(now.outcomes), [False] * len(entities))
        if not wanted:
            return step
        chosen = [entities[number] for number in wanted]
        leases = self._keys.leases(
            self.of,
            [each.key for each in chosen],
            [now.outcomes[number].fingerprint for number in wanted],
            digests_of(chosen),
        )
        claims = [Claim(lease, now.records[number]) for lease, number in zip(leases, wanted, strict=True)]
        async with self._leases.claimed(claims, now.stored.epoch) as held:
            todo = self._ours(now, wanted, held, step)
            if todo:
                await self._compute(entities, now, todo, held, step)
        return step

    def _is_wanted(self, outcome: Outcome, early: int) -> bool:
        record = outcome.record
        if outcome.state is not State.FRESH or record is None or record.outputs is None:
            return True
        return record.outputs.read_at <= early and is_near_its_end(record, self.max_staleness_us, outcome.read_at)

    def _ours(self, now: "_Now", wanted: Sequence[int], held: Held, step: "_Step") -> list[int]:
        """Those for us to compute; of the others the step says how they stand by now, or that they wait."""
        todo = []
        for number, (granted, record) in zip(wanted, held.claimed, strict=True):
            before = now.outcomes[number]
            after = self._judged(before, record)
            if after.record != before.record and after.state is State.FRESH:
                step.outcomes[number] = after  # another one was faster
            elif granted:
                todo.append(number)
            else:
                step.waits[number] = after.state is not State.FRESH
        return todo

    async def _read(self, entities: Sequence[Entity]) -> "_Now":
        records = self.record_keys(entities)
        columns = columns_of(entities)
        rows_at = self.inputs.row_keys(self._keys, columns)
        stored = await self._store.read_at([*records, *(key for each in rows_at for key in each)])
        count = len(entities)
        rows = [stored.values[begin : begin + count] for begin in range(count, count * (len(rows_at) + 1), count)]
        prints = self.inputs.fingerprints(rows, count, stored.at_us)
        by_entity = list(zip(*rows, strict=True)) if rows else [()] * count
        outcomes = []
        for packed, print, of_entity in zip(stored.values[:count], prints, by_entity, strict=True):
            blank = Outcome(None, State.MISSING, print, stored.at_us, of_entity, asked=False, under=stored.under)
            outcomes.append(self._judged(blank, packed))
        return _Now(stored, records, rows, columns, outcomes)

    def _judged(self, outcome: Outcome, packed: bytes | None) -> Outcome:
        return outcome.judged(Record.unpack(packed) if packed else None, self.max_staleness_us)

    # ---- what is computed ----

    async def _compute(
        self, entities: Sequence[Entity], now: "_Now", todo: Sequence[int], held: Held, step: "_Step"
    ) -> None:
        """Ask the model, and write back what it says."""
        rows = [[column[number] for number in todo] for column in now.rows]
        columns = {name: [values[number] for number in todo] for name, values in now.columns.items()}
        try:
            answer = await self._ask(rows, columns, len(todo), now.stored.at_us, held)
        except ModelLeftAlone as error:
            for number in todo:
                step.outcomes[number] = dataclasses.replace(
                    step.outcomes[number], reason=str(error), retry_in_s=_LEFT_ALONE, unavailable=True
                )
            return
        self._count(answer)
        await self._write_back(entities, now, todo, columns, answer, step)
        if self._computed:
            fresh = [number for number in todo if step.outcomes[number].state is State.FRESH]
            self._computed(self, [(entities[number], step.outcomes[number]) for number in fresh])

    async def _ask(
        self, rows: Sequence[Sequence[bytes | None]], columns: Columns, count: int, at_us: int, held: Held
    ) -> "_Answer":
        """What the model says of so many entities, while the leases are renewed. Raises ModelLeftAlone."""
        unusable: Mapping[int, Unusable] = {}
        try:
            values = self.inputs.values(rows, columns, at_us)
        except RequestError:
            values, unusable = self.inputs.each_values(rows, columns, count, at_us)
        begun = self._clock()
        try:
            async with self._leases.renewed(held):
                answered = iter(await self.inference.infer(values, count - len(unusable)))
        except ModelLeftAlone:
            raise
        except ModelError as error:
            call = Call.UNAVAILABLE if isinstance(error, ModelUnavailable) else Call.FAILED
            said: list[Said] = [Unusable(str(error))] * count
            return _Answer(said, call, self._clock() - begun, isinstance(error, ModelFailed))
        said = [unusable.get(number) or next(answered) for number in range(count)]
        return _Answer(said, Call.ANSWERED, self._clock() - begun)

    def _count(self, answer: "_Answer") -> None:
        of_no_use = sum(isinstance(each, Unusable) for each in answer.said) if answer.call is Call.ANSWERED else 0
        self._watcher.called(self.model.name, answer.call, answer.seconds, len(answer.said) - of_no_use)
        if of_no_use:
            self._watcher.called(self.model.name, Call.UNUSABLE, answer.seconds, of_no_use)

    async def _write_back(
        self,
        entities: Sequence[Entity],
        now: "_Now",
        todo: Sequence[int],
        columns: Columns,
        answer: "_Answer",
        step: "_Step",
    ) -> None:
        """Merge what was said with what is there, and list who reads rows through aliases."""
        cost_us = round(answer.seconds * 1_000_000)
        records = [
            self._record(now.outcomes[number], each, now.stored.at_us, cost_us)
            for number, each in zip(todo, answer.said, strict=True)
        ]
        packed = [(now.records[number], each.pack()) for number, each in zip(todo, records, strict=True)]
        places = self.inputs.reader_places(self._keys, self.of, columns, len(todo))
        listings = [Listing(entities[number].key, each) for number, each in zip(todo, places, strict=True) if each]
        put = await self._store.put(packed, self._kept_ms, now.stored.epoch, listings, self.model.max_fan_out)
        for stored in put.stored:
            self._watcher.kept(self.model.name, stored)
        if put.dropped:
            self._watcher.left(self.model.name, put.dropped)
        for number, record, listed in zip(todo, records, put.listed, strict=True):
            before = now.outcomes[number].record
            known = Record(record.outputs or (before.outputs if before else None), record.failure)
            step.outcomes[number] = dataclasses.replace(
                now.outcomes[number].judged(known, self.max_staleness_us),
                asked=True,
                unavailable=answer.call is Call.UNAVAILABLE,
                broke=answer.broke,
                listed=listed,
            )

    def _record(self, before: Outcome, said: Said, read_at: int, cost_us: int) -> Record:
        done_at = read_at + cost_us
        if not isinstance(said, Unusable):
            try:
                body = self.layout.encode(said)
                return Record(Outputs(read_at, before.fingerprint, done_at, cost_us, self.layout.id, body), None)
            except (ValueError, OverflowError) as error:
                said = Unusable(f"its outputs cannot be kept: {error}")
        failure = before.record.failure if before.record else None
        attempts = 1 + (failure.attempts if failure and failure.fingerprint == before.fingerprint else 0)
        retry_at = done_at + pause_us(attempts, self._chance())
        return Record(None, Failure(read_at, before.fingerprint, done_at, retry_at, attempts, said.reason))


@dataclasses.dataclass(frozen=True, slots=True)
class _Now:
    """What was read at one instant. records: where predictions are; rows: those of each view or alias."""

    stored: StoredAt
    records: list[bytes]
    rows: list[list[bytes | None]]
    columns: Columns
    outcomes: list[Outcome]


@dataclasses.dataclass(slots=True)
class _Step:
    """outcomes: how each entity stands now; waits: whether another process computes it."""

    outcomes: list[Outcome]
    waits: list[bool]


@dataclasses.dataclass(frozen=True, slots=True)
class _Answer:
    """What a model was asked and said, of each entity. broke: whether its server answered that it has failed."""

    said: Sequence[Said]
    call: Call
    seconds: float
    broke: bool = False
