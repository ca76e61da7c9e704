"""What the engines of a worker do, for its metrics: see `stillwell.predictions.watching.Watcher`."""

from stillwell.predictions.watching import Call
from streams.metrics import LEFT_TO_READS, MODEL_CALLS, MODEL_SECONDS, Metrics


class EngineMetrics:
    """Counts it."""

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
