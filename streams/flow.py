"""One partition, from the chain's end on, for as long as this process holds it.

    take ─┬─► online loop         rows to Redis, then the applied marks ──────────┐
          │     └─► refresh loop  … and hints to predict anew from what is there ─┤
          ├─► dead-letter loop    rejects to their topic ─────────────────────────┤ ledger
          └─► archive loop        tables into the open span; closed spans upload ─┴─► link loop ─► commit

Each loop takes batches in order from a queue of its own; what is queued counts towards the topic's credits. A span is
linked when its files are created and every sink has acknowledged all of it; its offset is committed after that. A flow
that finds itself overtaken, or Redis behind the chain, ends with `FlowEnded`; whoever holds the partition then opens
another one at the chain's end.
"""

import asyncio
import contextlib
import dataclasses
import functools
import itertools
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, NamedTuple

import structlog

from stillwell.errors import StoreNotReady
from stillwell.layout.chain import PartitionId
from stillwell.layout.parquet import BatchTables
from stillwell.predictions.triggers import MOST_READERS, Triggers
from streams.endings import Adopted, OnlineFellBehind, OutOfRange, Overtaken
from streams.ledger import Ledger, Span
from streams.metrics import LEFT_TO_READS, LINKED_RECORDS, LINKS, OVERTAKEN, STAGE, TRIGGERS, Metrics, Stage
from streams.online_side import OnlineSide
from streams.ports import (
    DeadLetters,
    OnlineStore,
    OpenSpan,
    PartitionArchive,
    ReaderLists,
    RefreshTopic,
    Threads,
    UploadedSpan,
)
from streams.prepare import Letters, OnlineBatch, Prepared
from streams.retry import Retry
from streams.window import Window

_log = structlog.get_logger(__name__)

_ONLINE = "online"
_DEAD_LETTERS = "dead_letters"
_REFRESH = "refresh"
_KEY_BYTES = 100
"""Memory of an entity key that waits for its hint, near enough."""

Commit = Callable[[int, str], Awaitable[None]]
"""Commits the group's offset with its metadata; never raises, since the offset is a hint."""

RequireTopic = Callable[[], Awaitable[None]]
"""Raises TopicReplaced if Kafka has another topic of this name now than the one whose chain this is."""


class Asked(NamedTuple):
    """How many hints there were, and how many more had a bound not stood in the way: by model."""

    hints: Counter[str]
    left: Counter[str]


@dataclasses.dataclass(frozen=True, slots=True)
class RefreshOnWrite:
    """Which writes ask for which refreshes, where, and how that is asked again."""

    triggers: Triggers
    readers: ReaderLists
    topic: RefreshTopic
    retry: Retry

    async def ask(self, written: Sequence[tuple[str, Sequence[bytes]]], epoch: str) -> Asked:
        """Ask for what these entities of views concern, once they are written under this epoch: their own predictions,
        and those that are listed as reading them through an alias.

        Who reads a row and is not listed yet lists itself with its prediction, and then looks again: it finds the row
        that is in Redis by now. Raises StoreNotReady where Redis is of another epoch.
        """
        left: Counter[str] = Counter()
        room: dict[str, int] = {}
        readers = []
        for model, places in self.triggers.fan_outs(written):
            most = room.get(model.name, MOST_READERS)
            call = functools.partial(self.readers.readers, places, model.max_fan_out, most, epoch.encode())
            found = await self.retry.until_done(call)
            keys = list(itertools.chain.from_iterable(found.keys))
            room[model.name] = most - len(keys)
            left[model.name] += found.left
            readers.append((model, keys))
        hints = self.triggers.hints(written, readers)
        await self.retry.until_done(lambda: self.topic.send(hints))
        return Asked(Counter(hint.model for hint in hints), left)


@dataclasses.dataclass(frozen=True, slots=True)
class _Written:
    """Entities of the offsets [start, end) whose rows Redis has acknowledged, applied or not: by view.

    nbytes: memory that they take.
    """

    start: int
    end: int
    keys: tuple[tuple[str, list[bytes]], ...]
    nbytes: int


@dataclasses.dataclass(frozen=True, slots=True)
class Sinks:
    """What a flow writes to, and how it asks each again."""

    online: OnlineStore
    dead_letters: DeadLetters
    retry_online: Retry
    retry_dead_letters: Retry
    threads: Threads
    refresh: RefreshOnWrite | None = None
    """None where no write asks for a refresh."""


class Flow:
    """Begins at the chain's end. `run` it, feed it by `take`, and `flush` it before it is given away."""

    def __init__(
        self,
        archive: PartitionArchive[Any, Any],
        online: OnlineSide,
        sinks: Sinks,
        window: Window,
        require_topic: RequireTopic,
        commit: Commit,
        metrics: Metrics,
    ) -> None:
        self.id: PartitionId = archive.id
        self.ledger = Ledger(archive.end, (_ONLINE, _DEAD_LETTERS, _REFRESH))
        self.fetched = archive.end
        """The offset that is to be fetched next."""
        self.ended = False
        """Whether `run` has returned: batches that were fetched for this flow are stale."""
        self._archive = archive
        self._online = online
        self._sinks = sinks
        self._window = window
        self._require_topic = require_topic
        self._commit = commit
        self._metrics = metrics
        self._to_online: asyncio.Queue[OnlineBatch] = asyncio.Queue()
        self._to_dead_letters: asyncio.Queue[Letters] = asyncio.Queue()
        self._to_refresh: asyncio.Queue[_Written] = asyncio.Queue()
        self._to_archive: asyncio.Queue[BatchTables | None] = asyncio.Queue()
        self._uploads: asyncio.Queue[asyncio.Task[UploadedSpan]] = asyncio.Queue()
        self._in_flight: dict[int, int] = {}
        self._queued_bytes = 0
        self._open_span: OpenSpan | None = None
        self._committed = archive.end  # … or tried in vain, which leaves it to the next link
        self._told_to_close = False
        self._closed_spans: deque[OpenSpan] = deque()
        self._opened: deque[float] = deque()  # when each span was that is not linked; the last is the open one's
        self._moved = asyncio.Event()
        self._told_to_end: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()

    # ---- for whoever holds the partition ----

    async def run(self) -> None:
        """Work until cancelled. Raises FlowEnded, or what no retry can mend."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._write_online())
                tasks.create_task(self._write_dead_letters())
                tasks.create_task(self._write_hints())
                tasks.create_task(self._fill_spans(tasks))
                tasks.create_task(self._link_spans())
                tasks.create_task(self._end_when_told())
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None
        finally:
            self.ended = True
            self._moved.set()

    def expect(self, end: int, nbytes: int) -> None:
        """A batch that ends at this offset was fetched and will come by `take`; until then it holds memory."""
        self.fetched = end
        self._in_flight[end] = nbytes

    def take(self, prepared: Prepared) -> None:
        """A batch in its turn, ready for the sinks."""
        span = Span(prepared.tables.start, prepared.tables.end)
        self.ledger.take(span)
        self._in_flight.pop(span.end, None)
        self._queued_bytes += prepared.online.nbytes + prepared.tables.nbytes
        self._to_online.put_nowait(prepared.online)
        self._to_archive.put_nowait(prepared.tables)
        self._moved.set()
        if prepared.letters:
            self._queued_bytes += prepared.letters.nbytes
            self._to_dead_letters.put_nowait(prepared.letters)
        else:
            self._acknowledge(_DEAD_LETTERS, span)

    @property
    def nbytes(self) -> int:
        """Memory that the partition holds: fetched batches, queued ones, spans that are not linked."""
        return self.bytes_ahead + self._queued_bytes + self.open_bytes + self.closing_bytes

    @property
    def open_bytes(self) -> int:
        """Memory of the span that is still open: what closing it would set on its way."""
        return self._open_span.nbytes if self._open_span and not self._told_to_close else 0

    @property
    def closing_bytes(self) -> int:
        """Memory of the spans that are closed, or told to, and on their way to their links: it comes free by itself."""
        told = self._open_span.nbytes if self._open_span and self._told_to_close else 0
        return told + sum(span.nbytes for span in self._closed_spans)

    @property
    def unlinked_seconds(self) -> float:
        """How long the oldest record is in a span that is not linked yet; 0 where there is none."""
        return time.monotonic() - self._opened[0] if self._opened else 0.0

    @property
    def batches_ahead(self) -> int:
        """How many batches were fetched and not yet taken."""
        return len(self._in_flight)

    @property
    def bytes_ahead(self) -> int:
        """Memory of the batches that were fetched and not yet taken."""
        return sum(self._in_flight.values())

    def end(self, reason: Exception) -> None:
        """End `run` with this reason: after linking what is in hand if Kafka has moved on, at once if a sink has."""
        if not self._told_to_end.done():
            self._told_to_end.set_result(reason)

    async def check_online(self) -> None:
        """See that Redis still holds what it acknowledged, also while nothing is written. Ends the flow if not."""
        try:
            await self._online.require(self.ledger.linked)
        except (OnlineFellBehind, StoreNotReady) as reason:
            self.end(reason)

    def close_span(self) -> None:
        """Close the open span as soon as what is queued is in it, full or not."""
        self._told_to_close = True
        self._to_archive.put_nowait(None)

    async def flush(self) -> None:
        """Wait until all that was fetched is linked and its offset committed, or the flow has ended and links nothing
        any more. Bounded by whoever calls."""
        while not self.ended and (self._in_flight or self._committed < self.ledger.position):
            if not self._in_flight:
                self.close_span()
            await self._wait_for_move()

    # ---- the loops ----

    async def _end_when_told(self) -> None:
        reason = await self._told_to_end
        if isinstance(reason, OutOfRange):
            await self.flush()
        raise reason

    # A loop keeps nothing of a batch while it waits for the next one: it would be memory that nobody counts.

    async def _write_online(self) -> None:
        while True:
            await self._write_batch(await self._to_online.get())

    async def _write_batch(self, batch: OnlineBatch) -> None:
        with self._timed(Stage.ONLINE):
            await self._online.write(batch)
        self._queued_bytes -= batch.nbytes
        self._acknowledge(_ONLINE, Span(batch.start, batch.end))
        self._ask_for_refreshes(batch)

    def _ask_for_refreshes(self, batch: OnlineBatch) -> None:
        """Only now: who looks before the rows are there finds what is fresh, and forgets the hint. And for all of them:
        one that is a duplicate may have been written by who died before it could ask."""
        refresh = self._sinks.refresh
        keys = tuple(
            (each.view, each.keys)
            for each in batch.rows
            if refresh is not None and each.keys and refresh.triggers.concern(each.view)
        )
        if not keys:
            self._acknowledge(_REFRESH, Span(batch.start, batch.end))
            return
        written = _Written(batch.start, batch.end, keys, _KEY_BYTES * sum(len(each) for _, each in keys))
        self._queued_bytes += written.nbytes
        self._to_refresh.put_nowait(written)

    async def _write_hints(self) -> None:
        while True:
            await self._send_hints(await self._to_refresh.get())

    async def _send_hints(self, written: _Written) -> None:
        refresh = self._sinks.refresh
        if refresh is None:
            raise AssertionError("nothing is queued where no write asks for a refresh")
        with self._timed(Stage.REFRESH):
            asked = await refresh.ask(written.keys, self._online.epoch)
        for metric, counts in ((TRIGGERS, asked.hints), (LEFT_TO_READS, asked.left)):
            for model, count in counts.items():
                self._metrics.count(metric, count, model)
        self._queued_bytes -= written.nbytes
        self._acknowledge(_REFRESH, Span(written.start, written.end))

    async def _write_dead_letters(self) -> None:
        while True:
            await self._send(await self._to_dead_letters.get())

    async def _send(self, letters: Letters) -> None:
        send, outcome = self._sinks.dead_letters.send, letters.outcome
        with self._timed(Stage.DEAD_LETTERS):
            await self._sinks.retry_dead_letters.until_done(lambda: send(outcome, self.id.incarnation))
        self._queued_bytes -= letters.nbytes
        self._acknowledge(_DEAD_LETTERS, Span(outcome.records.start, outcome.records.end))

    async def _fill_spans(self, tasks: asyncio.TaskGroup) -> None:
        while True:
            told = not await self._fill(await self._next_batch())
            if self._open_span and (told or self._is_full(self._open_span)):
                self.ledger.close(self._open_span.end)
                self._closed_spans.append(self._open_span)
                at_leisure = self._is_of_age_alone(self._open_span)
                self._uploads.put_nowait(tasks.create_task(self._upload(self._open_span, at_leisure)))
                self._open_span = None
            if told:
                self._told_to_close = False

    async def _fill(self, batch: BatchTables | None) -> bool:
        """Take a batch into the open span; False if there was none."""
        if batch is None:
            return False
        if self._open_span is None:
            self._open_span = self._archive.open_span(batch.start)
            self._opened.append(time.monotonic())
        with self._timed(Stage.ARCHIVE):
            await self._sinks.threads.call(self._open_span.add, batch)
        self._queued_bytes -= batch.nbytes
        return True

    def _is_full(self, span: OpenSpan) -> bool:
        return self._window.is_full(span.records, span.nbytes, time.monotonic() - self._opened[-1])

    def _is_of_age_alone(self, span: OpenSpan) -> bool:
        """Whether it closes for nothing else: nobody waits for it then."""
        return not self._told_to_close and not self._window.is_full(span.records, span.nbytes, age=0.0)

    async def _next_batch(self) -> BatchTables | None:
        """The next batch; None when the open span is to be closed, told by a flush or by its age."""
        left = max(0.0, self._opened[-1] + self._window.age - time.monotonic()) if self._open_span else None
        try:
            async with asyncio.timeout(left):
                return await self._to_archive.get()
        except TimeoutError:
            return None

    async def _upload(self, span: OpenSpan, at_leisure: bool) -> UploadedSpan:
        with self._timed(Stage.UPLOAD):
            uploaded: UploadedSpan = await self._archive.upload(span, at_leisure)
        return uploaded

    async def _link_spans(self) -> None:
        while True:
            upload = await self._uploads.get()
            uploaded = await upload
            while self.ledger.durable < uploaded.end:
                await self._wait_for_move()
            with self._timed(Stage.LINK):
                await self._link(uploaded)
            self._closed_spans.popleft()
            self._opened.popleft()
            self.ledger.link(Span(uploaded.start, uploaded.end))
            self._moved.set()
            with self._timed(Stage.COMMIT):
                await self._commit(uploaded.end, f"{uploaded.start}:{uploaded.nonce}")
            self._committed = uploaded.end
            self._moved.set()

    async def _link(self, uploaded: UploadedSpan) -> None:
        """Look once more that Redis still holds what it acknowledged, and that the records were of this topic: after
        they were fetched, since topic ids never come back. Then, that nobody has adopted the topic: whoever reads it
        under the next incarnation links these records too. Then link."""
        state = await self._online.require(uploaded.end)
        await self._require_topic()
        if await self._archive.is_superseded():
            raise Adopted(f"{self.id}: the next incarnation of topic {self.id.topic} is in force")
        if not await self._archive.link(uploaded, self._online.epoch, state.replication_id):
            self._metrics.count(OVERTAKEN, 1, self.id.topic)
            raise Overtaken(f"{self.id}: another writer has linked the offsets from {uploaded.start} on")
        _log.debug(
            "linked",
            topic=self.id.topic,
            partition=self.id.partition,
            incarnation=self.id.incarnation,
            start=uploaded.start,
            end=uploaded.end,
            records=uploaded.records,
        )
        self._metrics.count(LINKS, 1, self.id.topic)
        self._metrics.count(LINKED_RECORDS, uploaded.records, self.id.topic)

    # ---- their parts ----

    def _acknowledge(self, sink: str, span: Span) -> None:
        self.ledger.acknowledge(sink, span)
        self._moved.set()

    async def _wait_for_move(self) -> None:
        self._moved.clear()
        await self._moved.wait()

    @contextlib.contextmanager
    def _timed(self, stage: Stage) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self._metrics.observe(STAGE, time.perf_counter() - started, stage)
