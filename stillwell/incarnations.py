"""Which incarnation of a topic is in force: the one that the offline store knows, else the first."""

from typing import Literal, Protocol

from stillwell.errors import PartitionStopped
from stillwell.layout.chain import TopicIncarnation


class Incarnations(Protocol):
    """What is asked of the offline store."""

    async def incarnation(self, topic: str) -> TopicIncarnation | None:
        """The newest incarnation of a topic, or None for one that was never read."""

    async def open_incarnation(
        self, topic: str, incarnation: int, topic_id: str, partitions: int, start: Literal["earliest", "latest"]
    ) -> TopicIncarnation:
        """Propose an incarnation; returns the one in force."""


async def in_force(
    archive: Incarnations, topic: str, start: Literal["earliest", "latest"], topic_id: str, partitions: int
) -> TopicIncarnation:
    """The incarnation that is in force; opens the first one of a topic that was never read.

    topic_id, partitions: what Kafka says of the topic now. Raises PartitionStopped when the incarnation is bound to
    another topic than that.
    """
    found = await archive.incarnation(topic)
    if found is None:
        found = await archive.open_incarnation(topic, 1, topic_id, partitions, start)
    require_bound(found, topic_id)
    return found


def require_bound(incarnation: TopicIncarnation, topic_id: str) -> None:
    """Raise PartitionStopped when Kafka has another topic of this name now than the incarnation is bound to."""
    if incarnation.topic_id != topic_id:
        topic = incarnation.topic
        raise PartitionStopped(
            f"topic {topic} was deleted and made anew: its id in Kafka is {topic_id}, the offline store knows "
            f"{incarnation.topic_id}. If that was meant, run `stillwell topics adopt {topic}`; the worker goes on by "
            "itself"
        )
