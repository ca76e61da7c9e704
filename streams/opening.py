"""How a partition is opened: from what Kafka, the chain and Redis say to the offset at which its flow begins.

1. the topic is the one that its incarnation is bound to, else the partition stops until `stillwell topics adopt`
2. genesis is there, ours or another's
3. the log reaches the chain's end; what retention took is covered by an `expired` link
4. Redis holds every row up to the chain's end: lately lost ones are applied again from their files
"""

import asyncio
import dataclasses
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal

import structlog

from stillwell.errors import PartitionStopped, StoreNotReady
from stillwell.layout.chain import Genesis, Link, PartitionId, TopicIncarnation
from stillwell.layout.online import EncodedRows, MarkKey, MarkMove
from streams.metrics import EXPIRED, Metrics
from streams.naming import fields
from streams.ports import Archive, OnlineStore, PartitionArchive
from streams.retry import Retry

_log = structlog.get_logger(__name__)

_TRUNCATED_LOOKS = 20
_TRUNCATED_PAUSE = 0.5
"""A new leader may not know how far readers had come for a moment: look so often before calling a log truncated."""

MOST_LINKS_APPLIED_AGAIN = 1_000
"""Links that a worker applies to Redis again by itself after a failover; for more it asks for `stillwell rebuild`."""


@dataclasses.dataclass(frozen=True, slots=True)
class LogFacts:
    """What Kafka says of a partition now: the topic's id and number of partitions, and the offsets it holds,
    [start, end); `hint` is the last link's start and nonce, as the group committed them."""

    topic_id: str
    partitions: int
    start: int
    end: int
    hint: tuple[int, str] | None


Look = Callable[[], Awaitable[LogFacts]]
"""Looks at the partition in Kafka. Raises PartitionStopped if the topic is gone."""

ReadLinked = Callable[[Link], Awaitable[list[EncodedRows]]]
"""Reads the rows of a link from its files: of each view that has any, as they are put into Redis."""


class Opening:
    """Opens partitions of one topic."""

    def __init__(
        self,
        topic: str,
        start: Literal["earliest", "latest"],
        archive: Archive,
        online: OnlineStore,
        retry_online: Retry,
        read_linked: ReadLinked,
        metrics: Metrics,
    ) -> None:
        """start: where the first partitions of a topic that was never read begin."""
        self._topic = topic
        self._start = start
        self._archive = archive
        self._online = online
        self._retry_online = retry_online
        self._read_linked = read_linked
        self._metrics = metrics

    async def incarnation(self, facts: LogFacts) -> TopicIncarnation:
        """The incarnation that is in force; opens the first one of a topic that was never read.

        Raises PartitionStopped when it is bound to another topic than the one that Kafka has now.
        """
        found = await self._archive.incarnation(self._topic)
        if found is None:
            found = await self._archive.open_incarnation(self._topic, 1, facts.topic_id, facts.partitions, self._start)
        _require_bound(found, facts)
        return found

    async def chain(
        self, archive: PartitionArchive, incarnation: TopicIncarnation, look: Look
    ) -> tuple[Genesis, Link | None]:
        """Walk to the chain's end, and make it one that Kafka can be read from. Returns genesis and the last link.

        Raises PartitionStopped when the log ends before the chain does, or is that of another topic by now.
        """
        looks = 0
        while True:
            facts = await look()
            _require_bound(incarnation, facts)
            found = await archive.find_end(facts.hint)
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
            return found

    async def epoch(self) -> str:
        """The epoch of Redis that is in force. Makes Redis ready where nothing was ever linked.

        Raises StoreNotReady where it is not ready although there are links.
        """
        state = await self._retry_online.until_done(self._online.read_state)
        if state.epoch is not None:
            return state.epoch
        if await self._archive.has_links():
            raise StoreNotReady(
                "Redis is not ready: its ready key is missing, though rows were linked; it has lost data, or is new. "
                "Run `stillwell rebuild`; the worker goes on by itself"
            )
        return await self._retry_online.until_done(lambda: self._online.initialise(secrets.token_hex(8)))

    async def online(
        self, archive: PartitionArchive, begun: tuple[Genesis, Link | None], marks: Sequence[MarkKey], epoch: str
    ) -> None:
        """Make Redis hold every row up to the chain's end, and every mark stand there or beyond.

        begun: genesis and the last link. A mark that is absent is that of a view version which no link knows yet, or
        was lost. Raises StoreNotReady when too much is missing to be applied again by a worker.
        """
        genesis, last = begun
        known = {(account.view, account.version) for account in last.views} if last else set()
        positions = await self._retry_online.until_done(lambda: self._online.read_marks(marks))
        stands = [
            genesis.start if position is None and (mark.view, mark.version) in known else position
            for mark, position in zip(marks, positions, strict=True)
        ]
        if behind := [position for position in stands if position is not None and position < archive.end]:
            await self._catch_up(archive, marks, min(behind), epoch)
        moves = [MarkMove(mark, archive.end, archive.end) for mark in marks]
        await self._retry_online.until_done(lambda: self._online.set_marks(moves, epoch))

    async def _catch_up(self, archive: PartitionArchive, marks: Sequence[MarkKey], since: int, epoch: str) -> None:
        links = await archive.links_since(since)
        if len(links) > MOST_LINKS_APPLIED_AGAIN:
            raise StoreNotReady(
                f"{archive.id}: Redis lacks the rows of {len(links)} links, since offset {since}; "
                "run `stillwell rebuild`"
            )
        _log.warning("applying rows again that Redis lost", **fields(archive.id), links=len(links), since=since)
        for link in links:
            rows = await self._read_linked(link)
            moves = [MarkMove(mark, link.start, link.end) for mark in marks]
            await self._retry_online.until_done(lambda: self._online.set_marks(moves, epoch))  # noqa: B023
            await self._retry_online.until_done(lambda: self._online.apply(rows, moves, epoch))  # noqa: B023

    async def _expire(self, archive: PartitionArchive, log_start: int) -> None:
        start = archive.end
        if await archive.expire(log_start):
            self._metrics.count(EXPIRED, log_start - start, self._topic)
            _log.error(
                "events were lost: Kafka's retention took them before they were read",
                **fields(archive.id),
                start=start,
                end=log_start,
            )


def _require_bound(incarnation: TopicIncarnation, facts: LogFacts) -> None:
    if incarnation.topic_id != facts.topic_id:
        topic = incarnation.topic
        raise PartitionStopped(
            f"topic {topic} was deleted and made anew: its id in Kafka is {facts.topic_id}, the offline store knows "
            f"{incarnation.topic_id}. If that was meant, run `stillwell topics adopt {topic}`; the worker goes on by "
            "itself"
        )


def _first_offset(id: PartitionId, incarnation: TopicIncarnation, facts: LogFacts) -> int:
    if id.partition >= incarnation.partitions:
        return 0
    return facts.end if incarnation.start == "latest" else facts.start


def _truncated(archive: PartitionArchive, facts: LogFacts) -> str:
    id = archive.id
    return (
        f"{id}: Kafka's log ends at {facts.end}, before offset {archive.end} up to which it was read: Kafka has lost "
        f"acknowledged records, or its data was replaced. `stillwell topics adopt {id.topic}` reads the topic anew "
        "under its next incarnation; the worker goes on by itself"
    )
