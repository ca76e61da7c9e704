"""What the engines of a worker do, for its metrics: see `stillwell.predictions.watching.Watcher`."""

from stillwell.predictions.watching import Call, count_call
from streams.metrics import LEFT_TO_READS, Metrics


class EngineMetrics:
    """Counts it."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def called(self, model: str, call: Call, seconds: float, entities: int) -> None:
        """A model was asked."""
        count_call(self._metrics, model, call, seconds, entities)

    def kept(self, model: str, stored: bool) -> None:
        """Not counted."""

    def left(self, model: str, count: int) -> None:
        """Writes do not refresh some any longer."""
        self._metrics.count(LEFT_TO_READS, count, model)
