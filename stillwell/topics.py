"""What an operator is told of topics: which there are to be, which were made, and why one is to be adopted."""

import dataclasses
from collections.abc import Mapping
from typing import Literal

from stillwell.layout.chain import TopicIncarnation
from stillwell.predictions.hint import refresh_topic
from stillwell.pushing.topics import push_topics, pushed_views
from stillwell.settings import Settings
from stillwell.spec import DefinitionsSpec


@dataclasses.dataclass(frozen=True, slots=True)
class NeededTopic:
    """A topic that a deployment needs. use: what is in it; of: the definition that it belongs to, or '' for none;
    views: those that get rows from it."""

    name: str
    use: Literal["events", "pushes", "predictions", "dead letters", "refreshes"]
    of: str = ""
    views: tuple[str, ...] = ()


def needed_topics(settings: Settings, definitions: DefinitionsSpec) -> list[NeededTopic]:
    """All of them. Raises DefinitionError where one is defined that is kept for something else."""
    needed = [
        NeededTopic(each.topic, "events", each.name, tuple(view.name for view in definitions.views_of(each)))
        for each in definitions.topics
    ]
    if settings.push:
        pushes = zip(push_topics(settings.project, definitions), pushed_views(definitions), strict=True)
        models = {model.name for model in definitions.models}
        needed += [
            NeededTopic(name, "predictions" if view.name in models else "pushes", view.name, (view.name,))
            for name, view in pushes
        ]
    needed.append(NeededTopic(settings.dead_letter_topic, "dead letters"))
    if definitions.models:
        needed.append(NeededTopic(refresh_topic(settings.project, settings.namespace), "refreshes"))
    return needed


def chained_topics(settings: Settings, definitions: DefinitionsSpec) -> list[str]:
    """Those of them whose records come to rest, under chains of their own."""
    resting = ("events", "pushes", "predictions")
    return [each.name for each in needed_topics(settings, definitions) if each.use in resting]


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
