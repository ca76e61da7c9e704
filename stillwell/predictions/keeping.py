"""Keeping computed predictions: final rows on the push topic of the view that a model's log stands as."""

import datetime
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog

from stillwell.errors import StillwellError
from stillwell.instants import instant
from stillwell.logs import LogLimit
from stillwell.predictions.engine import Engine
from stillwell.predictions.log import log_view
from stillwell.predictions.outbox import Outbox
from stillwell.predictions.outcome import Entity, Outcome
from stillwell.pushing.log import PushLog
from stillwell.pushing.record import PushEncoder, PushRecord, To, push_topic
from stillwell.spec import ModelSpec
from stillwell.types import TIMESTAMP, FieldType

_log = structlog.get_logger(__name__)

_MOST_WAITING = 10_000
"""Predictions that wait while Kafka is away, some megabytes: what is lost is rows of a log, and no answer."""


class PredictionLog:
    """Pushes predictions to their models' topics."""

    def __init__(self, log: PushLog, project: str, models: Sequence[ModelSpec], now_ms: Callable[[], int]) -> None:
        """now_ms: the clock of records, in ms since the epoch."""
        self._log = log
        self._topics = {model.name: push_topic(project, model.name) for model in models}
        self._encoders = {model.name: PushEncoder(log_view(model)) for model in models}
        self._now_ms = now_ms

    async def append(self, engine: Engine, predictions: Sequence[tuple[Entity, Outcome]]) -> None:
        """Keep those that were computed. Repeating a call repeats them. Raises StoreUnavailable or OutcomeUnknown."""
        records = [
            record for entity, outcome in predictions if (record := self.record(engine, entity, outcome)) is not None
        ]
        if records:
            await self._log.append(self._topics[engine.model.name], records, self._now_ms())

    def record(self, engine: Engine, entity: Entity, outcome: Outcome) -> PushRecord | None:
        """The record of one prediction; None where there is none."""
        outputs = outcome.record.outputs if outcome.record else None
        if outputs is None:
            return None
        model = engine.model
        values = zip(model.outputs, engine.layout.decode(outputs), strict=True)
        row: Mapping[str, object] = {
            **{key.name: entity.values[key.name] for key in model.entity.keys},
            "event_timestamp": _time(outputs.read_at),
            **{each.name: _kept(each.type, value) for each, value in values},
            "model_version": model.version,
            "computed_at": _time(outputs.computed_at),
        }
        return self._encoders[model.name].final(row, to=To.OFFLINE)


def _kept(kind: FieldType, value: Any) -> object:
    """An output as its row has it."""
    if kind is TIMESTAMP:
        return _time(value)
    return list(map(_time, value)) if kind.element is TIMESTAMP and value is not None else value


def _time(us: object) -> datetime.datetime | None:
    return instant(us) if isinstance(us, int) else None


_Computed = tuple[Engine, Sequence[tuple[Entity, Outcome]]]


class LogBuffer:
    """Predictions of a process that answers, on their way to the log, for one event loop; `close` it.

    Nobody who reads waits for it. What cannot be kept is dropped, with a warning: the log is for who looks back.
    """

    def __init__(self, log: PredictionLog) -> None:
        self._log = log
        self._outbox: Outbox[_Computed] = Outbox(self._keep, self._failed, most=_MOST_WAITING, together=1)
        self._limit = LogLimit()
        self._silent = 0

    def put(self, engine: Engine, predictions: Sequence[tuple[Entity, Outcome]]) -> None:
        """Keep what an engine has computed, soon."""
        if predictions and not self._outbox.put((engine, predictions), len(predictions)):
            self._dropped(len(predictions), "full", f"{len(self._outbox)} wait already")

    async def close(self) -> None:
        """Keep no more."""
        await self._outbox.close()

    async def _keep(self, computed: list[_Computed]) -> None:
        for engine, predictions in computed:
            await self._log.append(engine, predictions)

    async def _failed(self, computed: list[_Computed], error: Exception) -> None:
        count = sum(len(predictions) for _, predictions in computed)
        if isinstance(error, StillwellError):
            self._dropped(count, type(error).__name__, str(error))
        else:  # a mistake of ours, about these
            _log.error("predictions are not logged", predictions=count, exc_info=error)

    def _dropped(self, count: int, kind: str, why: str) -> None:
        self._silent += count
        if self._limit.times(kind) is not None:
            _log.warning("predictions are not logged", predictions=self._silent, reason=why)
            self._silent = 0
