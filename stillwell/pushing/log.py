"""What pushing needs of Kafka, as a narrow protocol. The real one is made in composition roots; its twin is in
`stillwell.testing`."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from stillwell.pushing.record import PushRecord


class Place(NamedTuple):
    """Where Kafka keeps a record. timestamp: the record's, in ms; the log's own, where the topic is kept so."""

    partition: int
    offset: int
    timestamp: int


class PushLog(Protocol):
    """The push topics, for who writes to them."""

    async def append(self, topic: str, records: Sequence[PushRecord], timestamp: int) -> list[Place]:
        """Put records, which all have this timestamp, into a topic; where they are, in their order.

        Those with a key go to the partition that Kafka's producers choose for it, those without to one together. Raises
        StoreUnavailable where certainly none of them was written, OutcomeUnknown where some may be, or may yet come.
        """
