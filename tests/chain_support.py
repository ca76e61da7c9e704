"""What the tests of the commit chain have in common: a store without threads, asking again at once, small links."""

import contextlib
import datetime
from collections.abc import Awaitable, Callable
from typing import TypeVar

from stillwell.errors import OutcomeUnknown, StoreUnavailable
from stillwell.layout import chain
from stillwell.layout.chain import DataFile, Genesis, Link, PartitionId, ViewAccount
from stillwell.storage import ObjectStore

T = TypeVar("T")

DEPARTURES = PartitionId("flights.departures", 1, 3)
NOON = datetime.datetime(2026, 3, 1, 12, tzinfo=datetime.UTC)


class Inline:
    """A store as the writing side sees it, whose calls are made at once and here."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store

    async def call(self, work: Callable[[ObjectStore], T]) -> T:
        """What `work` returns or raises when it is given the store."""
        return work(self.store)


async def at_once(call: Callable[[], Awaitable[T]]) -> T:
    """Asks again without waiting. Patience ends, so that a test of a call that never succeeds fails."""
    for _ in range(20):
        with contextlib.suppress(StoreUnavailable, OutcomeUnknown):
            return await call()
    raise AssertionError("asked for the twentieth time")


def a_genesis(start: int = 0, id: PartitionId = DEPARTURES) -> Genesis:
    """Where a chain begins."""
    return Genesis(created_at=NOON, id=id, start=start, topic_id="a-topic-id")


def a_link(
    start: int,
    end: int,
    *,
    nonce: str,
    previous: str,
    id: PartitionId = DEPARTURES,
    raw: DataFile | None = None,
    views: tuple[ViewAccount, ...] = (),
) -> Link:
    """A link over [start, end): of records if it has a raw file, else of gaps alone."""
    records = raw.rows if raw else 0
    return Link(
        created_at=NOON,
        id=id,
        start=start,
        end=end,
        nonce=nonce,
        previous=previous,
        records=records,
        gaps=end - start - records,
        raw=raw,
        views=views,
        opened_at=NOON,
        writer="a-test",
    )


def a_chain(store: ObjectStore, ends: list[int], *, start: int = 0, id: PartitionId = DEPARTURES) -> list[Link]:
    """Write genesis and a chain of gaps that ends at each of these offsets; gives its links, with nonces n0, n1, …"""
    data = chain.encode(a_genesis(start, id))
    store.create(id.genesis_path, data)
    links = []
    for number, end in enumerate(ends):
        link = a_link(start, end, nonce=f"n{number}", previous=chain.digest(data), id=id)
        data = chain.encode(link)
        store.create(link.path, data)
        links.append(link)
        start = end
    return links
