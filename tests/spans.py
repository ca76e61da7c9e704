"""Spans of one partition's records, brought to rest by the real archive, for tests of what is made of them."""

from collections.abc import Sequence

import polars as pl

from sinks.archive import Archive, PartitionArchive, UploadedSpan
from stillwell.layout import chain
from stillwell.layout.chain import PartitionId
from stillwell.layout.parquet import BatchTables, read_table
from stillwell.pipeline import compile_pipeline
from stillwell.records import Records
from stillwell.storage import ObjectStore
from stillwell.types import INT64
from tests import batches
from tests.chain_support import NOON, Inline, at_once

SOURCE = batches.topic(batches.column("amount", INT64))
KEYS = {"id": (INT64, pl.col("T.amount"))}
EVEN = batches.view(SOURCE, KEYS, name="Even", where=pl.col("T.amount") % 2 == 0)
EVERY = batches.view(SOURCE, KEYS, name="Every")
PIPELINE = compile_pipeline(SOURCE, [EVEN, EVERY])
ID = PartitionId("t", 1, 0)


def batch(start: int, end: int, *, gaps: Sequence[int] = ()) -> BatchTables:
    """The offsets [start, end) of one log: the record at offset n has the amount n, or is no JSON at every seventh."""
    offsets = [offset for offset in range(start, end) if offset not in gaps]
    values = [b"no JSON" if offset % 7 == 0 else batches.event(amount=offset) for offset in offsets]
    made = batches.records(values)
    moved = Records("t", 0, start, end, made.offsets - 100, made.timestamps, made.keys, made.values, made.headers)
    moved.offsets[:] = offsets
    return batches.tables(PIPELINE, moved, NOON)


def an_archive(store: ObjectStore, writer: str = "a-test") -> PartitionArchive:
    """One writer of the partition, before its walk."""
    return Archive(Inline(store), at_once, lambda: NOON, writer).partition(ID, PIPELINE.views)


async def opened(store: ObjectStore, writer: str = "a-test", *, begin: int = 0) -> PartitionArchive:
    """One writer that has found the chain's end, or begun it."""
    archive = an_archive(store, writer)
    if await archive.find_end(None) is None:
        topic = Archive(Inline(store), at_once, lambda: NOON, writer)
        await topic.open_incarnation("t", 1, "a-topic-id", 1, "earliest")
        await archive.begin(begin, "a-topic-id")
        await archive.find_end(None)
    return archive


async def uploaded(archive: PartitionArchive, *contents: BatchTables) -> UploadedSpan:
    """A span of these batches whose files are in the store."""
    span = archive.open_span(contents[0].start)
    for tables in contents:
        span.add(tables)
    return await archive.upload(span)


def raw_offsets(store: ObjectStore) -> list[int]:
    """The offsets in the files that the chain reaches, in its order."""
    links = chain.walk(store, ID)[1]
    files = [link.raw for link in links if link.raw]
    return [
        offset for file in files for offset in read_table(chain.read_file(store, file)).column("_offset").to_pylist()
    ]


async def linked(store: ObjectStore, start: int, end: int, writer: str = "a-test") -> UploadedSpan:
    """A span of the offsets [start, end) that is on the chain."""
    archive = await opened(store, writer)
    span = await uploaded(archive, batch(start, end))
    assert await archive.link(span, "", "")
    return span
