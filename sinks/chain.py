"""Writing to the object store and to the commit chain, under every answer that a store can give.

The order that makes a span durable:

    1. its files are created, under names that hold the span's own nonce
    2. its rows are acknowledged by Redis, its rejects by the dead-letter topic
    3. its link is created at the chain's end; from here on it exists
    4. the consumer group's offset is committed

Steps 1 and 2 may come in any order and be repeated; 3 is decided by the store alone, whoever else tries at the same
time; 4 is a hint. A crash between any two leaves files that no link names: nobody reads them, and `stillwell.sweep`
removes them.
"""

import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable
from typing import Protocol, TypeVar

import pyarrow as pa

from sinks.backwards import WalkBack
from stillwell.errors import AlreadyExists, ChainError, NotFound, OutcomeUnknown, StoreUnavailable
from stillwell.layout import chain
from stillwell.layout.chain import ChainEnd, ChainObject, DataFile, Genesis, Link, PartitionId, TopicIncarnation
from stillwell.layout.parquet import read_table
from stillwell.retrying import UntilDone
from stillwell.storage import ObjectStore

_T = TypeVar("_T")


class Objects(Protocol):
    """The object store, off the event loop."""

    async def call(self, work: Callable[[ObjectStore], _T]) -> _T:
        """What `work` returns or raises when it is given the store, in a thread."""


async def create_object(objects: Objects, until_done: UntilDone, path: str, data: bytes) -> None:
    """Create an object whose path nobody else can choose (it holds a nonce), until it is certainly there."""
    # It exists already where an earlier attempt of ours was carried out, but its answer was lost.
    with contextlib.suppress(AlreadyExists):
        await until_done(lambda: objects.call(lambda store: store.create(path, data)))


async def settle(objects: Objects, until_done: UntilDone, path: str, data: bytes) -> bytes:
    """Create an object that others may want to create too; returns what is there in the end, ours or theirs.

    Whatever a create answers, only reading back tells. Nothing there means that our create may still arrive: then the
    same bytes are sent again.
    """
    return await until_done(lambda: _create_or_read(objects, path, data))


async def _create_or_read(objects: Objects, path: str, data: bytes) -> bytes:
    """Raises OutcomeUnknown, with the create's own error, where nobody can tell yet what will be there."""
    try:
        await objects.call(lambda store: store.create(path, data))
        return data
    except (AlreadyExists, OutcomeUnknown, StoreUnavailable) as error:
        doubt = error
    try:
        return await objects.call(lambda store: store.read(path))
    except (NotFound, StoreUnavailable):
        raise OutcomeUnknown(str(doubt)) from doubt


async def append(objects: Objects, until_done: UntilDone, link: Link) -> ChainEnd | None:
    """Put a link at its place. Returns the chain's new end, or None when another writer's link has that place.

    Call it only for a link whose start is the chain's end. After None the span is lost: its files are to be discarded,
    and the chain walked again.
    """
    data = chain.encode(link)
    found = await settle(objects, until_done, link.path, data)
    if chain.decode_link(found, link.path).nonce != link.nonce:
        return None
    return ChainEnd(link.end, chain.digest(data))


async def agree_on(objects: Objects, until_done: UntilDone, value: ChainObject, path: str) -> bytes:
    """Propose genesis or a topic's incarnation; returns the bytes that are in force, whoever wrote them."""
    return await settle(objects, until_done, path, chain.encode(value))


async def discard(objects: Objects, paths: Iterable[str]) -> None:
    """Remove files of a span of our own that another writer's link has overtaken; failing to is harmless."""
    for path in paths:
        try:
            await objects.call(lambda store, path=path: store.delete(path))  # type: ignore[misc]
        except StoreUnavailable:
            return  # `stillwell sweep` removes what is left


async def find_end(
    objects: Objects, until_done: UntilDone, id: PartitionId, hint: tuple[int, str] | None
) -> tuple[Genesis, ChainEnd, Link | None] | None:
    """Genesis, the chain's end and its last link if it has one; None where there is no genesis yet.

    hint: start and nonce of a link that was on the chain once. If it is there, the walk begins behind it; any other
    hint is ignored.
    """
    return await _read(objects, until_done, lambda store: _find_end(store, id, hint))


async def links_from_end(
    objects: Objects, until_done: UntilDone, id: PartitionId, end: ChainEnd
) -> AsyncGenerator[Link, None]:
    """The links of a chain from its end back to genesis, read as far as they are asked for."""
    walk = WalkBack(id, end)
    while links := await _read(objects, until_done, walk.read):
        for link in links:
            yield link


async def newest_incarnation(objects: Objects, until_done: UntilDone, topic: str) -> TopicIncarnation | None:
    """The incarnation of a topic with the highest number, or None."""
    return await _read(objects, until_done, lambda store: chain.newest_incarnation(store, topic))


async def has_incarnation(objects: Objects, until_done: UntilDone, topic: str, incarnation: int) -> bool:
    """Whether a topic was ever read under an incarnation."""
    return await _read(objects, until_done, lambda store: _exists(store, chain.topic_path(topic, incarnation)))


async def has_links(objects: Objects, until_done: UntilDone) -> bool:
    """Whether there is any link below this root."""
    return await _read(objects, until_done, chain.has_links)


async def read_rows(objects: Objects, until_done: UntilDone, file: DataFile) -> pa.Table:
    """The rows of a linked file. Raises ChainError when its bytes are not those that were linked."""
    return await _read(objects, until_done, lambda store: read_table(chain.read_file(store, file)))


async def _read(objects: Objects, until_done: UntilDone, work: Callable[[ObjectStore], _T]) -> _T:
    return await until_done(lambda: objects.call(work))


def _exists(store: ObjectStore, path: str) -> bool:
    try:
        store.read(path)
    except NotFound:
        return False
    return True


def _find_end(
    store: ObjectStore, id: PartitionId, hint: tuple[int, str] | None
) -> tuple[Genesis, ChainEnd, Link | None] | None:
    try:
        data = store.read(id.genesis_path)
    except NotFound:
        return None
    genesis = chain.decode_genesis(data, id.genesis_path)
    last = _hinted(store, id, hint) if hint else None
    first = ChainEnd(genesis.start, chain.digest(data))
    links = chain.follow(store, id, chain.end_at(last)) if last else chain.walk_from(store, id, first)
    last = next(iter(deque(links, maxlen=1)), last)
    return genesis, chain.end_at(last) if last else first, last


def _hinted(store: ObjectStore, id: PartitionId, hint: tuple[int, str]) -> Link | None:
    start, nonce = hint
    try:
        link = chain.decode_link(store.read(id.link_path(start)), id.link_path(start))
    except (NotFound, ChainError):
        return None
    return link if link.nonce == nonce else None
