"""What an operator is told of topics: which were made, and why one is to be adopted."""

import dataclasses
from collections.abc import Mapping

from stillwell.layout.chain import TopicIncarnation
from stillwell.pushing.topics import push_topics
from stillwell.settings import Settings
from stillwell.spec import DefinitionsSpec


def consumed_topics(settings: Settings, definitions: DefinitionsSpec) -> list[str]:
    """The topics that a deployment reads: those of the definitions, and those on which their views are pushed."""
    pushes = push_topics(settings.project, definitions) if settings.push else ()
    return list(dict.fromkeys((*(topic.topic for topic in definitions.topics), *pushes)))


@dataclasses.dataclass(frozen=True, slots=True)
class NewTopic:
    """A topic that was created. configs: what it says against the broker's defaults."""

    name: str
    partitions: int
    replication: int
    configs: Mapping[str, str]


@dataclasses.dataclass(frozen=True, slots=True)
class Ends:
    """A partition: where its chain ends (None: it has none), and the offsets [start, end) that Kafka holds (None: Kafka
    has no such partition)."""

    partition: int
    chain_end: int | None
    log: tuple[int, int] | None

    @property
    def is_short(self) -> bool:
        """Whether Kafka's log ends before what was read of it."""
        return self.chain_end is not None and self.log is not None and self.log[1] < self.chain_end


@dataclasses.dataclass(frozen=True, slots=True)
class Situation:
    """A topic as Kafka has it now, under this id and with so many partitions, against its last incarnation."""

    topic: str
    topic_id: str
    partition_count: int
    last: TopicIncarnation
    partitions: tuple[Ends, ...]

    @property
    def reason(self) -> str | None:
        """Why the topic is to be adopted; None where there is no reason to."""
        if self.topic_id != self.last.topic_id:
            return "it was deleted and made anew"
        short = [str(each.partition) for each in self.partitions if each.is_short]
        return f"Kafka has lost the end of partition {', '.join(short)}" if short else None
