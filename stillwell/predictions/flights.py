"""Predictions that are being computed in this process: whoever wants one that is under way shares it."""

import asyncio
import time
from collections.abc import Sequence

import structlog

from stillwell.errors import FormatError, StillwellError
from stillwell.logs import LogLimit
from stillwell.predictions.engine import Engine
from stillwell.predictions.hint import Cause, Hint, Hints
from stillwell.predictions.outcome import Entity, Outcome

_log = structlog.get_logger(__name__)
_FAILED = LogLimit()

_MOST_AT_ONCE = 10_000
"""Predictions of one model that a process computes at once. Who comes on top is told what there is."""

_TOGETHER = 256
"""Entities that are computed together: their leases are claimed and their inputs read in one go."""


class Flight:
    """One prediction that is being computed, for all of this process who want it."""

    def __init__(self, entity: Entity, patience: float, early: int) -> None:
        self.entity = entity
        self.early = early
        self.began = 0.0
        """A moment before its inputs were read, in seconds that only grow. Not by the event loop's clock: uvloop's
        counts milliseconds, and so much may be written in one of them."""
        self._patience = patience
        self._done: asyncio.Future[Outcome | None] = asyncio.get_running_loop().create_future()

    async def outcome(self) -> Outcome | None:
        """What came of it; None where that takes too long. Raises what computing raised."""
        done, _ = await asyncio.wait([self._done], timeout=self._patience)
        return self._done.result() if done else None

    @property
    def landed(self) -> bool:
        """Whether it is over."""
        return self._done.done()

    def land(self, outcome: Outcome | None) -> None:
        """It came to this."""
        if not self._done.done():
            self._done.set_result(outcome)

    def fail(self, error: StillwellError) -> None:
        """It was not computed."""
        if not self._done.done():
            self._done.set_exception(error)
            self._done.exception()  # told to nobody, where nobody waits


class Flights:
    """Computes what several readers of this process want, once; what is wanted in one turn of the event loop goes
    together."""

    def __init__(self, engine: Engine, hints: Hints) -> None:
        self._engine = engine
        self._hints = hints
        self._flying: dict[tuple[bytes, bytes], Flight] = {}
        self._waiting: list[Flight] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def want(self, entity: Entity, early: int = 0) -> Flight | None:
        """The computation of an entity's prediction, which may be under way; None where there are too many. early: see
        `Engine.compute`."""
        place = (entity.key, entity.digest)
        flight = self._flying.get(place)
        if flight is not None:
            return flight
        if len(self._flying) >= _MOST_AT_ONCE:
            return None
        flight = self._flying[place] = Flight(entity, self._engine.patience, early)
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._send)
        self._waiting.append(flight)
        return flight

    async def close(self) -> None:
        """End all of it."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _send(self) -> None:
        for begin in range(0, len(self._waiting), _TOGETHER):
            task = asyncio.create_task(self._fly(self._waiting[begin : begin + _TOGETHER]))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self._waiting = []

    async def _fly(self, flights: Sequence[Flight]) -> None:
        began = time.monotonic()
        for each in flights:
            each.began = began

        def land(number: int, outcome: Outcome) -> None:
            self._flying.pop((flights[number].entity.key, flights[number].entity.digest), None)
            flights[number].land(outcome)

        try:
            entities = [each.entity for each in flights]
            early = [each.early for each in flights]
            outcomes = await self._engine.compute(entities, self._engine.patience, early, land)
            await self._look_again([each for each in zip(entities, outcomes, strict=True) if each[1].listed])
        except StillwellError as error:
            if isinstance(error, FormatError) and len(flights) > 1:
                # What one of them stands on must not cost the others their prediction.
                await asyncio.gather(*(self._fly([each]) for each in flights if not each.landed))
            else:
                self._fail(flights, error)
        finally:
            for each in flights:
                if self._flying.get((each.entity.key, each.entity.digest)) is each:
                    del self._flying[each.entity.key, each.entity.digest]
                each.land(None)

    def _fail(self, flights: Sequence[Flight], error: StillwellError) -> None:
        model = self._engine.model.name
        if (silent := _FAILED.times((model, type(error).__name__))) is not None:
            _log.warning("predictions cannot be computed", model=model, error=str(error), silent=silent)
        for each in flights:
            each.fail(error)

    async def _look_again(self, computed: Sequence[tuple[Entity, Outcome]]) -> None:
        """Whoever wrote an aliased view after their inputs were read, and before they were listed, did not know of
        them."""
        if computed:
            now = await self._engine.look([entity for entity, _ in computed])
            self._hints.put(
                [
                    Hint.of(self._engine.model.name, entity, Cause.WRITE, fingerprint=later.fingerprint)
                    for (entity, before), later in zip(computed, now, strict=True)
                    if later.fingerprint != before.fingerprint
                ]
            )
