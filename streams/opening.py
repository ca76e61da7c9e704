"""How a partition is opened: from what Kafka, the chain and Redis say to a flow that begins at the chain's end.

1. the topic is the one that its incarnation is bound to, else the partition stops until `stillwell topics adopt`
2. genesis is there, ours or another's
3. the log reaches the chain's end; what retention took is covered by an `expired` link
4. Redis holds every row up to the chain's end: lately lost ones are applied again from their files (`streams.catch_up`)
"""

import asyncio
import dataclasses
import functools
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

import structlog

from stillwell.errors import PartitionStopped, StoreNotReady
from stillwell.incarnations import in_force, require_bound
from stillwell.layout.chain import Link, PartitionId, TopicIncarnation
from stillwell.layout.online import MarkKey
from streams.catch_up import CatchUp
from streams.flow import Commit, Flow, Sinks
from streams.metrics import EXPIRED, Metrics
from streams.naming import fields
from streams.online_side import OnlineSide
from streams.ports import Archive, PartitionArchive
from streams.prepare import Preparation
from streams.window import Window

_log = structlog.get_logger(__name__)

_TRUNCATED_LOOKS = 20
_TRUNCATED_PAUSE = 0.5
"""A new leader may not know how far readers had come for a moment: look so often before calling a log truncated."""


@dataclasses.dataclass(frozen=True, slots=True)
class LogFacts:
    """What Kafka says of a partition now: the topic's id and number of partitions, and the offsets it holds,
    [start, end); `committed` is what the group's last commit has as metadata."""

    topic_id: str
    partitions: int
    start: int
    end: int
    committed: str | None


@dataclasses.dataclass(frozen=True, slots=True)
class KafkaPartition:
    """What is asked of Kafka about one partition.

    look: raises PartitionStopped if the topic is gone. require_topic: raises TopicReplaced if Kafka has another topic
    of this name now than the one that the incarnation is bound to. commit: see `streams.flow.Commit`.
    """

    look: Callable[[], Awaitable[LogFacts]]
    require_topic: Callable[[TopicIncarnation], Awaitable[None]]
    commit: Commit


class Opening:
    """Opens partitions of one topic."""

    def __init__(
        self,
        archive: Archive,
        sinks: Sinks,
        preparation: Preparation,
        window: Window,
        metrics: Metrics,
    ) -> None:
        """preparation: of the topic."""
        self._topic = preparation.topic.topic
        self._start = preparation.topic.start
        self._archive = archive
        self._sinks = sinks
        self._preparation = preparation
        self._window = window
        self._metrics = metrics

    async def open(self, partition: int, kafka: KafkaPartition) -> Flow:
        """Waits for stores for as long as they do not answer.

        Raises PartitionStopped, StoreNotReady and ChainError where a person has to decide, and FlowEnded where it is to
        be opened once more.
        """
        sinks = self._sinks
        incarnation = await self.incarnation(await kafka.look())
        id = PartitionId(self._topic, incarnation.incarnation, partition)
        archive = self._archive.partition(id, self._preparation.views)
        last = await self._chain(archive, incarnation, kafka.look)
        epoch = await self._epoch(last is not None)
        marks = [MarkKey(id, view.name, view.version) for view in self._preparation.views]
        catch_up = CatchUp(
            archive, self._preparation, sinks.online, sinks.retry_online, sinks.threads, epoch, sinks.refresh
        )
        await catch_up.run(marks, last)
        return Flow(
            archive=archive,
            online=OnlineSide(id, sinks.online, sinks.retry_online, marks, epoch, self._metrics),
            sinks=sinks,
            window=self._window,
            require_topic=functools.partial(kafka.require_topic, incarnation),
            commit=kafka.commit,
            metrics=self._metrics,
        )

    async def incarnation(self, facts: LogFacts) -> TopicIncarnation:
        """The incarnation that is in force; opens the first one of a topic that was never read.

        Raises PartitionStopped when it is bound to another topic than the one that Kafka has now.
        """
        return await in_force(self._archive, self._topic, self._start, facts.topic_id, facts.partitions)

    async def _chain(
        self,
        archive: PartitionArchive[Any, Any],
        incarnation: TopicIncarnation,
        look: Callable[[], Awaitable[LogFacts]],
    ) -> Link | None:
        """Walk to the chain's end, and make it one that Kafka can be read from. Returns the last link.

        Raises PartitionStopped when the log ends before the chain does, or is that of another topic by now.
        """
        looks = 0
        while True:
            facts = await look()
            require_bound(incarnation, facts.topic_id)
            found = await archive.find_end(_hint(facts.committed))
            if found is None:
                await archive.begin(_first_offset(archive.id, incarnation, facts), incarnation.topic_id)
                continue
            if facts.end < archive.end:
                looks += 1
                if looks > _TRUNCATED_LOOKS:
                    raise PartitionStopped(_truncated(archive, facts))
                await asyncio.sleep(_TRUNCATED_PAUSE)
                continue
            if facts.start > archive.end:
                await self._expire(archive, facts.start)
                continue
            return found[1]

    async def _epoch(self, has_links: bool) -> str:
        """The epoch of Redis that is in force. Makes Redis ready where nothing was ever linked.

        has_links: whether this partition has. Raises StoreNotReady where it is not ready although there are links.
        """
        online, retry = self._sinks.online, self._sinks.retry_online
        state = await retry.until_done(online.read_state)
        if state.epoch is not None:
            return state.epoch
        if has_links or await self._archive.has_links():
            raise StoreNotReady(
                "Redis is not ready: its ready key is missing, though rows were linked; it has lost data, or is new. "
                "Run `stillwell rebuild`; the worker goes on by itself"
            )
        return await retry.until_done(lambda: online.initialise(secrets.token_hex(8)))

    async def _expire(self, archive: PartitionArchive[Any, Any], log_start: int) -> None:
        start = archive.end
        if await archive.expire(log_start):
            self._metrics.count(EXPIRED, log_start - start, self._topic)
            _log.error(
                "events were lost: Kafka's retention took them before they were read",
                **fields(archive.id),
                start=start,
                end=log_start,
            )


def _hint(metadata: str | None) -> tuple[int, str] | None:
    """Start and nonce of the link that a commit was made for."""
    start, _, nonce = (metadata or "").partition(":")
    return (int(start), nonce) if start.isdecimal() and nonce else None


def _first_offset(id: PartitionId, incarnation: TopicIncarnation, facts: LogFacts) -> int:
    if id.partition >= incarnation.partitions:
        return 0
    return facts.end if incarnation.start == "latest" else facts.start


def _truncated(archive: PartitionArchive[Any, Any], facts: LogFacts) -> str:
    id = archive.id
    return (
        f"{id}: Kafka's log ends at {facts.end}, before offset {archive.end} up to which it was read: Kafka has lost "
        f"acknowledged records, or its data was replaced. `stillwell topics adopt {id.topic}` reads the topic anew "
        "under its next incarnation; the worker goes on by itself"
    )
