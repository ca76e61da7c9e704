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
import contextlib
import dataclasses
import enum
import random
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Protocol

from stillwell.errors import (
    ModelError,
    ModelFailed,
    ModelLeftAlone,
    ModelUnavailable,
    RequestError,
    StillwellError,
    StoreError,
)
from stillwell.layout.prediction import Failure, OutputLayout, Outputs, Record
from stillwell.layout.redis_keys import PredictionsOf, RedisKeys
from stillwell.predictions.freshness import State, judge, kept_ms, may_try, microseconds, pause_us
from stillwell.predictions.inference import Inference
from stillwell.predictions.inputs import Columns, ModelInputs
from stillwell.predictions.store import Claim, Listing, PredictionStore, StoredAt
from stillwell.predictions.tensors import Said, Unusable
from stillwell.spec import ModelSpec, OpenInferenceSpec

LEASE_MS = 5_000
"""How long who died in the middle of a call keeps the others waiting. Renewed at a third of it."""

_LOOK_AFTER = (0.005, 0.01, 0.02, 0.04)
"""Seconds between looks for a record that another process computes; the last one from then on. One task of a process
looks, for all who wait."""


class Call(enum.StrEnum):
    """What came of asking a model."""

    ANSWERED = "answered"
    UNUSABLE = "unusable"
    FAILED = "failed"
    UNAVAILABLE = "unavailable"


class Watcher(Protocol):
    """Who counts what the engine does."""

    def called(self, model: str, call: Call, seconds: float, entities: int) -> None:
        """A model was asked about so many entities; of a call that was answered, unusable ones are counted apart."""

    def kept(self, model: str, stored: bool) -> None:
        """A prediction was written back; stored: whether it is now what stands there, or a newer one was first."""

    def left(self, model: str, count: int) -> None:
        """So many predictions are no longer refreshed by writes to an aliased view, but when they are read: too many
        others read the same row."""


class Unwatched:
    """Counts nothing."""

    def called(self, model: str, call: Call, seconds: float, entities: int) -> None:
        """Nothing."""

    def kept(self, model: str, stored: bool) -> None:
        """Nothing."""

    def left(self, model: str, count: int) -> None:
        """Nothing."""


@dataclasses.dataclass(frozen=True, slots=True)
class Entity:
    """One thing to be predicted. key: its entity key; digest: of its request values, b"" where the model has none;
    values: of its keys and its request columns, by name."""

    key: bytes
    digest: bytes
    values: Mapping[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """How one entity stands, after all was done that could be.

    record: what is known of it; state: what that is worth to the inputs as they were read at `read_at` (Redis's time);
    rows: those inputs. asked: whether this call asked the model. retry_in_s: after how long another attempt makes
    sense, 0 where none has failed. unavailable: whether the model was not reached, so that its inputs are not to blame.
    broke: … because its server answered that it has failed, over these inputs perhaps.
    listed: whether writes to aliased views refresh it from now on, and did not when its inputs were read.
    """

    record: Record | None
    state: State
    fingerprint: bytes
    read_at: int
    rows: tuple[bytes | None, ...]
    asked: bool
    retry_in_s: float = 0.0
    reason: str = ""
    unavailable: bool = False
    broke: bool = False
    listed: bool = False


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
    ) -> None:
        """chance: from 0 to 1."""
        self.model = model
        self.inputs = inputs
        self.layout = OutputLayout.of(model)
        self.of = PredictionsOf(model.name, model.version)
        self.max_staleness_us = microseconds(model.max_staleness)
        self.inference = inference
        self._store = store
        self._keys = keys
        self._watcher = watcher or Unwatched()
        self._chance = chance
        self._lease_ms = lease_ms
        self._kept_ms = kept_ms(model.max_staleness)
        self._computing = asyncio.Semaphore(_BATCHES_AT_A_TIME)
        self.computed: Callable[[Sequence[tuple[Entity, Outcome]]], None] | None = None
        """Told of what this process has computed and written back, if anybody is."""

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
        return self._keys.predictions(self.of, [each.key for each in entities], _digests(entities))

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
        early: bool = False,
        done: Callable[[int, Outcome], None] | None = None,
    ) -> list[Outcome]:
        """How each entity stands, after its prediction was computed where it was not fresh.

        entities: each once. patience: seconds to wait for what others compute; what is not there then is told as it is.
        early: also what is still fresh is computed anew. done: called with each entity's number and outcome as soon as
        that is known. Raises StoreError, and FormatError.
        """
        deadline = time.monotonic() + patience
        outcomes: dict[int, Outcome] = {}
        remaining = list(range(len(entities)))
        looks = 0
        while remaining:
            some = [entities[number] for number in remaining]
            step = await self._step(some, early and looks == 0)
            outcomes.update(zip(remaining, step.outcomes, strict=True))
            if done:
                for number, waits in zip(remaining, step.waits, strict=True):
                    if not waits:
                        done(number, outcomes[number])
            remaining = [number for number, waits in zip(remaining, step.waits, strict=True) if waits]
            if remaining:
                pause = _LOOK_AFTER[min(looks, len(_LOOK_AFTER) - 1)]
                if time.monotonic() + pause > deadline:
                    break
                looks += 1
                await asyncio.sleep(pause)
        return [outcomes[number] for number in range(len(entities))]

    async def look(self, entities: Sequence[Entity]) -> list[Outcome]:
        """How each entity stands now. Raises StoreError, and FormatError."""
        return (await self._read(entities)).outcomes

    # ---- one step ----

    async def _step(self, entities: Sequence[Entity], early: bool) -> "_Step":
        """Read, judge, claim, and compute what could be claimed."""
        now = await self._read(entities)
        wanted = [
            number
            for number, each in enumerate(now.outcomes)
            if (early or each.state is not State.FRESH) and may_try(each.record, each.fingerprint, each.read_at)
        ]
        step = _Step(list(now.outcomes), [False] * len(entities))
        if not wanted:
            return step
        owner = secrets.token_bytes(12)
        leases = self._keys.leases(
            self.of,
            [entities[number].key for number in wanted],
            [now.outcomes[number].fingerprint for number in wanted],
            _digests([entities[number] for number in wanted]),
        )
        claims = [Claim(lease, now.records[number]) for lease, number in zip(leases, wanted, strict=True)]
        claimed = await self._store.claim(claims, owner, self._lease_ms, now.stored.epoch)
        mine = {number: lease for number, lease, (held, _) in zip(wanted, leases, claimed, strict=True) if held}
        try:
            todo = []
            for number, (held, record) in zip(wanted, claimed, strict=True):
                before = now.outcomes[number]
                after = self._judged(before, Record.unpack(record) if record else None)
                if after.record != before.record and after.state is State.FRESH:
                    step.outcomes[number] = after  # another one was faster
                elif held:
                    todo.append(number)
                else:
                    step.waits[number] = after.state is not State.FRESH
            if todo:
                await self._ask(entities, now, todo, list(mine.values()), owner, step)
        finally:
            if mine:
                await self._give_up(list(mine.values()), owner, now.stored.epoch)
        return step

    async def _read(self, entities: Sequence[Entity]) -> "_Now":
        records = self.record_keys(entities)
        columns = columns_of(entities)
        rows_at = self.inputs.row_keys(self._keys, columns)
        stored = await self._store.read_at([*records, *(key for each in rows_at for key in each)])
        count = len(entities)
        rows = [stored.values[begin : begin + count] for begin in range(count, count * (len(rows_at) + 1), count)]
        prints = self.inputs.fingerprints(rows, stored.at_us) if rows else [_NO_INPUTS] * count
        by_entity = list(zip(*rows, strict=True)) if rows else [()] * count
        outcomes = []
        for packed, print, of_entity in zip(stored.values[:count], prints, by_entity, strict=True):
            blank = Outcome(None, State.MISSING, print, stored.at_us, of_entity, asked=False)
            outcomes.append(self._judged(blank, Record.unpack(packed) if packed else None))
        return _Now(stored, records, rows, columns, outcomes)

    def _judged(self, outcome: Outcome, record: Record | None) -> Outcome:
        state = judge(record, outcome.fingerprint, self.max_staleness_us, outcome.read_at)
        failure = record.failure if record and state is State.FAILED else None
        return dataclasses.replace(
            outcome,
            record=record,
            state=state,
            reason=failure.reason if failure else "",
            retry_in_s=max(0, failure.retry_at - outcome.read_at) / 1_000_000 if failure else 0.0,
        )

    async def _ask(
        self,
        entities: Sequence[Entity],
        now: "_Now",
        todo: Sequence[int],
        leases: Sequence[bytes],
        owner: bytes,
        step: "_Step",
    ) -> None:
        rows = [[column[number] for number in todo] for column in now.rows]
        columns = {name: [values[number] for number in todo] for name, values in now.columns.items()}
        unusable: Mapping[int, Unusable] = {}
        try:
            values = self.inputs.values(rows, columns, len(todo), now.stored.at_us)
        except RequestError:
            values, unusable = self.inputs.each_values(rows, columns, len(todo), now.stored.at_us)
        begun = time.perf_counter()
        said: list[Said]
        broke = False
        try:
            async with self._computing, self._renewing(leases, owner, now.stored.epoch):
                answered = iter(await self.inference.infer(values, len(todo) - len(unusable)))
            said = [unusable.get(number) or next(answered) for number in range(len(todo))]
            call = Call.ANSWERED
        except ModelLeftAlone as error:
            for number in todo:
                step.outcomes[number] = dataclasses.replace(
                    step.outcomes[number], reason=str(error), retry_in_s=_LEFT_ALONE, unavailable=True
                )
            return
        except ModelError as error:
            call = Call.UNAVAILABLE if isinstance(error, ModelUnavailable) else Call.FAILED
            broke = isinstance(error, ModelFailed)
            said = [Unusable(str(error))] * len(todo)
        seconds = time.perf_counter() - begun
        records = [
            self._record(now.outcomes[number], each, now.stored.at_us, round(seconds * 1_000_000))
            for number, each in zip(todo, said, strict=True)
        ]
        of_no_use = sum(isinstance(each, Unusable) for each in said) if call is Call.ANSWERED else 0
        self._watcher.called(self.model.name, call, seconds, len(todo) - of_no_use)
        if of_no_use:
            self._watcher.called(self.model.name, Call.UNUSABLE, seconds, of_no_use)
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
                self._judged(now.outcomes[number], known),
                asked=True,
                unavailable=call is Call.UNAVAILABLE,
                broke=broke,
                listed=listed,
            )
        if self.computed:
            fresh = [number for number in todo if step.outcomes[number].state is State.FRESH]
            self.computed([(entities[number], step.outcomes[number]) for number in fresh])

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

    # ---- leases ----

    @contextlib.asynccontextmanager
    async def _renewing(self, leases: Sequence[bytes], owner: bytes, epoch: bytes) -> AsyncIterator[None]:
        task = asyncio.create_task(self._renew(leases, owner, epoch))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def _renew(self, leases: Sequence[bytes], owner: bytes, epoch: bytes) -> None:
        """For as long as the model takes. One that was lost, or a store that does not answer, may cost a second call of
        the model, and nothing else: the newest inputs win."""
        while True:
            await asyncio.sleep(self._lease_ms / 3_000)
            with contextlib.suppress(StoreError):
                await self._store.renew(leases, owner, self._lease_ms, epoch)

    async def _give_up(self, leases: Sequence[bytes], owner: bytes, epoch: bytes) -> None:
        with contextlib.suppress(StillwellError):  # they expire
            await asyncio.shield(self._store.release(leases, owner, epoch))


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


_NO_INPUTS = bytes(16)
_BATCHES_AT_A_TIME = 16
_LEFT_ALONE = 0.5
_FUNCTION_PATIENCE = 35.0
_FUNCTION_BATCH = 256


def columns_of(entities: Sequence[Entity]) -> dict[str, list[Any]]:
    """The values of entities by column."""
    return {name: [each.values[name] for each in entities] for name in (entities[0].values if entities else ())}


def _digests(entities: Sequence[Entity]) -> list[bytes]:
    return [each.digest for each in entities] if entities and entities[0].digest else []
