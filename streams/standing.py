"""Where every partition stands, in metrics for people and as progress for the watchdog."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Protocol

from aiokafka import TopicPartition

from streams.ledger import Ledger
from streams.log_ends import LogEnds
from streams.metrics import ASSIGNED, DURABLE_LAG, LAG, UNLINKED, Metrics
from streams.naming import labels, words
from streams.watch import Progress


class Flowing(Protocol):
    """A partition that flows."""

    @property
    def ledger(self) -> Ledger:
        """How far it is."""

    @property
    def unlinked_seconds(self) -> float:
        """How long its oldest record waits for its link; 0 where none waits."""


class Standing:
    """Of all partitions that this process holds."""

    def __init__(self, topics: Iterable[str], log_ends: LogEnds, metrics: Metrics) -> None:
        self._topics = tuple(topics)
        self._log_ends = log_ends
        self._metrics = metrics
        self._linked: dict[TopicPartition, int] = {}

    def was_linked(self, partition: TopicPartition, offset: int) -> None:
        """Take note of where a partition's last link ends, as far as is known before it is opened."""
        self._linked[partition] = offset

    def report(self, assigned: Collection[TopicPartition], flows: Mapping[TopicPartition, Flowing]) -> list[Progress]:
        """Show all, and give the progress of those that flow."""
        progress = [self._report_flow(partition, flow) for partition, flow in flows.items()]
        self._linked = {partition: linked for partition, linked in self._linked.items() if partition in assigned}
        for partition, linked in self._linked.items():
            if partition not in flows:  # it holds nothing, and will go on where its last link ends
                self._show(partition, linked, linked, flows=False)
                self._metrics.set(UNLINKED, 0, *labels(partition))
        held = Counter(partition.topic for partition in assigned)
        for topic in self._topics:
            self._metrics.set(ASSIGNED, held[topic], topic)
        return progress

    def _report_flow(self, partition: TopicPartition, flow: Flowing) -> Progress:
        ledger = flow.ledger
        self._linked[partition] = ledger.linked
        self._metrics.set(UNLINKED, flow.unlinked_seconds, *labels(partition))
        lag = self._show(partition, ledger.position, ledger.linked, flows=True)
        has_work = lag > 0 or ledger.has_closed_spans
        return Progress(words(partition), ledger.position, ledger.durable, ledger.linked, has_work)

    def _show(self, partition: TopicPartition, position: int, linked: int, flows: bool) -> int:
        """Gives how many records a partition is behind."""
        self._metrics.set(DURABLE_LAG, position - linked, *labels(partition))
        end = self._log_ends.of(partition, flows)
        if end is None:
            return 0
        lag = max(0, end - position)
        self._metrics.set(LAG, lag, *labels(partition))
        return lag
