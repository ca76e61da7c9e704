"""How partitions are named: in fields of log lines, in labels of metrics, and in sentences."""

from typing import Protocol, TypedDict


class Partition(Protocol):
    """What names a partition: Kafka's own coordinates, or those of a chain."""

    @property
    def topic(self) -> str:
        """Its topic."""

    @property
    def partition(self) -> int:
        """Its number."""


class Fields(TypedDict):
    """A partition in a log line."""

    topic: str
    partition: int


def fields(partition: Partition) -> Fields:
    """For a log line: `log.info("…", **fields(partition))`."""
    return {"topic": partition.topic, "partition": partition.partition}


def labels(partition: Partition) -> tuple[str, str]:
    """For metrics with the labels topic and partition."""
    return partition.topic, str(partition.partition)


def words(partition: Partition) -> str:
    """For people: `orders-0`."""
    return f"{partition.topic}-{partition.partition}"
