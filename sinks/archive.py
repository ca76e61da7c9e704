"""One partition's offline side: its files, and its place on the commit chain.

A span is filled batch by batch (`SpanFiles.add`), closed and created as files (`upload`), and linked in its turn
(`PartitionArchive.link`). Spans may be filled and uploaded ahead; links are made strictly one after another.
"""

import asyncio
import dataclasses
import datetime
import secrets
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from typing import Literal

import msgspec
import pyarrow as pa

from sinks import chain as writing
from sinks.chain import Objects
from sinks.compressing import Compressing
from sinks.parquet import ParquetEncoder
from stillwell.known_views import registered_versions
from stillwell.layout import chain
from stillwell.layout.chain import ChainEnd, DataFile, Genesis, Link, PartitionId, TopicIncarnation, ViewAccount
from stillwell.layout.debut import Debut, decode_debut
from stillwell.layout.parquet import BatchTables, ViewTable, event_time_range
from stillwell.retrying import UntilDone
from stillwell.spec import ViewSpec

Now = Callable[[], datetime.datetime]


class _ViewFile:
    """A view's file in the making, and the account of its records so far."""

    def __init__(self, view: ViewSpec) -> None:
        self.view = view
        self.encoder = ParquetEncoder()
        self.offsets_with_rows = self.filtered = self.rejected = 0
        self._event_times: tuple[int, int] | None = None

    def add(self, rows: ViewTable) -> None:
        self.offsets_with_rows += rows.offsets_with_rows
        self.filtered += rows.filtered
        self.rejected += rows.rejected
        if rows.table.num_rows:
            first, last = event_time_range(rows.table)
            known = self._event_times or (first, last)
            self._event_times = min(first, known[0]), max(last, known[1])
            self.encoder.add(rows.table)

    def account(self, file: DataFile | None) -> ViewAccount:
        if file and self._event_times:
            first, last = self._event_times
            file = msgspec.structs.replace(file, first_event_time=first, last_event_time=last)
        return ViewAccount(
            view=self.view.name,
            version=self.view.version,
            offsets_with_rows=self.offsets_with_rows,
            filtered=self.filtered,
            rejected=self.rejected,
            rows=self.encoder.rows,
            file=file,
        )


@dataclasses.dataclass(frozen=True, slots=True)
class UploadedSpan:
    """A span whose files are all in the store, ready to be linked when its turn comes."""

    start: int
    end: int
    nonce: str
    opened_at: datetime.datetime
    records: int
    raw: DataFile | None
    views: tuple[ViewAccount, ...]

    @property
    def paths(self) -> Iterator[str]:
        """Where its files are."""
        if self.raw:
            yield self.raw.path
        yield from (account.file.path for account in self.views if account.file)


class SpanFiles:
    """A span being filled. `add` from one thread at a time."""

    def __init__(self, id: PartitionId, start: int, views: Sequence[ViewSpec], opened_at: datetime.datetime) -> None:
        self.start = self.end = start
        self.opened_at = opened_at
        self._id = id
        self._nonce = secrets.token_hex(16)
        self._raw = ParquetEncoder()
        self._views = [_ViewFile(view) for view in views]

    @property
    def records(self) -> int:
        """How many records it holds."""
        return self._raw.rows

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        return self._raw.nbytes + sum(view.encoder.nbytes for view in self._views)

    def add(self, batch: BatchTables) -> None:
        """Take a batch that begins where the span ends. Blocks while it compresses."""
        if batch.start != self.end:
            raise ValueError(f"a batch from {batch.start} does not continue a span that ends at {self.end}")
        self.end = batch.end
        if batch.raw.num_rows:
            self._raw.add(batch.raw)
        for file, rows in zip(self._views, batch.views, strict=True):
            file.add(rows)

    async def upload(
        self, objects: Objects, until_done: UntilDone, compressing: Compressing, at_leisure: bool
    ) -> UploadedSpan:
        """Create all files, side by side, however long it takes; the span takes no more batches."""

        async def create(dataset: str, encoder: ParquetEncoder) -> DataFile | None:
            if not encoder.rows:
                return None
            path = chain.data_path(dataset, self.opened_at.date(), self._id, self.start, self.end, self._nonce)
            data, sha256 = await compressing.one(lambda: objects.call(lambda _: _finish(encoder)), at_leisure)
            await writing.create_object(objects, until_done, path, data)
            return DataFile(path=path, size=len(data), sha256=sha256, rows=encoder.rows)

        raw, *of_views = await asyncio.gather(
            create(chain.raw_dataset(self._id.topic), self._raw),
            *(create(chain.view_dataset(file.view.name), file.encoder) for file in self._views),
        )
        return UploadedSpan(
            start=self.start,
            end=self.end,
            nonce=self._nonce,
            opened_at=self.opened_at,
            records=self.records,
            raw=raw,
            views=tuple(file.account(created) for file, created in zip(self._views, of_views, strict=True)),
        )


class Archive:
    """The offline store: raw records, the rows of every view, and the chains that say what is in them."""

    def __init__(self, objects: Objects, until_done: UntilDone, now: Now, writer: str) -> None:
        """writer: names this process in its links, for people."""
        self._objects = objects
        self._until_done = until_done
        self._now = now
        self._writer = writer
        self._has_links = False
        self._looking_for_links = asyncio.Lock()
        self._compressing = Compressing()

    async def incarnation(self, topic: str) -> TopicIncarnation | None:
        """The newest incarnation of a topic, or None for one that was never read."""
        return await writing.newest_incarnation(self._objects, self._until_done, topic)

    async def open_incarnation(
        self, topic: str, incarnation: int, topic_id: str, partitions: int, start: Literal["earliest", "latest"]
    ) -> TopicIncarnation:
        """Propose an incarnation; returns the one that is in force, whoever proposed it."""
        proposed = TopicIncarnation(
            created_at=self._now(),
            topic=topic,
            incarnation=incarnation,
            topic_id=topic_id,
            partitions=partitions,
            start=start,
        )
        data = await writing.agree_on(self._objects, self._until_done, proposed, proposed.path)
        return chain.decode_topic(data, proposed.path)

    async def has_links(self) -> bool:
        """Whether any partition was ever linked here. Links are never removed: once it is so, nobody looks again."""
        async with self._looking_for_links:
            self._has_links = self._has_links or await writing.has_links(self._objects, self._until_done)
        return self._has_links

    def partition(self, id: PartitionId, views: Sequence[ViewSpec]) -> "PartitionArchive":
        """One partition's side of it."""
        return PartitionArchive(self._objects, self._until_done, id, views, self._now, self._writer, self._compressing)


class PartitionArchive:
    """One partition's chain, as one writer sees it during one assignment."""

    def __init__(
        self,
        objects: Objects,
        until_done: UntilDone,
        id: PartitionId,
        views: Sequence[ViewSpec],
        now: Now,
        writer: str,
        compressing: Compressing,
    ) -> None:
        self.id = id
        self._compressing = compressing
        self._objects = objects
        self._until_done = until_done
        self._views = tuple(views)
        self._now = now
        self._writer = writer
        self._end: ChainEnd | None = None

    async def find_end(self, hint: tuple[int, str] | None) -> tuple[Genesis, Link | None] | None:
        """Walk to the chain's end; genesis and the last link, or None where there is no genesis yet."""
        found = await writing.find_end(self._objects, self._until_done, self.id, hint)
        if found is None:
            return None
        genesis, self._end, last = found
        return genesis, last

    async def begin(self, start: int, topic_id: str) -> None:
        """Propose genesis; whoever wins, `find_end` finds it next."""
        genesis = Genesis(created_at=self._now(), id=self.id, start=start, topic_id=topic_id)
        await writing.agree_on(self._objects, self._until_done, genesis, genesis.path)

    @property
    def end(self) -> int:
        """The offset at which the next link begins. Only after `find_end`."""
        return self._chain_end.offset

    def open_span(self, start: int) -> SpanFiles:
        """A span to be filled from an offset on."""
        return SpanFiles(self.id, start, self._views, self._now())

    async def upload(self, span: SpanFiles, at_leisure: bool = False) -> UploadedSpan:
        """Create the span's files, however long it takes. at_leisure: nobody waits for them, while batches come."""
        return await span.upload(self._objects, self._until_done, self._compressing, at_leisure)

    async def is_superseded(self) -> bool:
        """Whether the topic is read under another incarnation by now: one request, of the kind that costs least."""
        return await writing.has_incarnation(self._objects, self._until_done, self.id.topic, self.id.incarnation + 1)

    async def link(self, span: UploadedSpan, epoch: str, replication_id: str) -> bool:
        """Put the span on the chain. False: another writer's link has its place; the span's files are removed."""
        link = Link(
            created_at=self._now(),
            id=self.id,
            start=span.start,
            end=span.end,
            nonce=span.nonce,
            previous=self._chain_end.digest,
            records=span.records,
            gaps=span.end - span.start - span.records,
            raw=span.raw,
            views=span.views,
            epoch=epoch,
            replication_id=replication_id,
            opened_at=span.opened_at,
            writer=self._writer,
        )
        if await self._append(link):
            return True
        await writing.discard(self._objects, span.paths)
        return False

    async def expire(self, until: int) -> bool:
        """Cover the offsets that retention took, from the chain's end on. False: another writer was faster."""
        now = self._now()
        return await self._append(
            Link(
                created_at=now,
                id=self.id,
                start=self._chain_end.offset,
                end=until,
                nonce=secrets.token_hex(16),
                previous=self._chain_end.digest,
                expired=True,
                opened_at=now,
                writer=self._writer,
            )
        )

    async def debut(self, view: str, version: int) -> int:
        """The offset before which no link lists a version of a view; for one that is in none, the chain's end."""
        proposed = Debut(created_at=self._now(), id=self.id, view=view, version=version, start=self.end)
        data = await writing.agree_on(self._objects, self._until_done, proposed, proposed.path)
        return decode_debut(data, proposed.path).start

    async def registered(self, view: str, version: int) -> ViewSpec | None:
        """A version's keys, features and TTL as they are registered, whether it runs or not."""
        found = await self._until_done(lambda: self._objects.call(lambda store: registered_versions(store, view)))
        return next((each for each in found if each.version == version), None)

    def links_from_end(self) -> AsyncGenerator[Link, None]:
        """The links from the chain's end back to genesis; what is not asked for is not read."""
        return writing.links_from_end(self._objects, self._until_done, self.id, self._chain_end)

    async def read_rows(self, file: DataFile) -> pa.Table:
        """All rows of a linked file. Raises ChainError when its bytes are not those that were linked."""
        return await writing.read_rows(self._objects, self._until_done, file)

    @property
    def _chain_end(self) -> ChainEnd:
        if self._end is None:
            raise RuntimeError("the chain's end is not known before find_end")
        return self._end

    async def _append(self, link: Link) -> bool:
        if link.start != self._chain_end.offset:
            raise ValueError(f"link {link.start}→{link.end} does not begin at the chain's end {self._chain_end.offset}")
        end = await writing.append(self._objects, self._until_done, link)
        if end:
            self._end = end
        return end is not None


def _finish(encoder: ParquetEncoder) -> tuple[bytes, str]:
    data = encoder.finish()
    return data, chain.digest(data)
