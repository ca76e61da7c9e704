"""Who counts what an engine does, and what both the worker and the query service show of it."""

import enum
from typing import Protocol

from stillwell.metric import Metric


class Call(enum.StrEnum):
    """What came of asking a model."""

    ANSWERED = "answered"
    UNUSABLE = "unusable"
    FAILED = "failed"
    UNAVAILABLE = "unavailable"


# Of one name wherever a model is asked: an alarm is about the model, whoever has asked it.
MODEL_CALLS = Metric(
    "counter",
    "stillwell_model_predictions_total",
    "Entities that a model was asked about, by what came of it: answered, unusable (NaN, null, a wrong type), failed "
    "(the call: refused, or answered in another shape), unavailable (its server: down, slow, or broken with 500).",
    ("model", "answer"),
)
MODEL_SECONDS = Metric("histogram", "stillwell_model_seconds", "Time that a call of a model takes.", ("model",))


class Counters(Protocol):
    """The metrics of a process."""

    def count(self, metric: Metric, amount: float, *labels: str) -> None:
        """Add to a counter."""

    def observe(self, metric: Metric, value: float, *labels: str) -> None:
        """Take a value into a histogram."""


def count_call(counters: Counters, model: str, call: Call, seconds: float, entities: int) -> None:
    """Take in that a model was asked: see `Watcher.called`. What was of no use came of a call that is counted."""
    counters.count(MODEL_CALLS, entities, model, call.value)
    if call is not Call.UNUSABLE:
        counters.observe(MODEL_SECONDS, seconds, model)


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
