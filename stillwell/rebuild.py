"""Rebuilding the online store from the files that are linked.

    1. every chain is walked, and every version of a view found in it must be known: nothing is touched yet (`plan`)
    2. the store is made not ready, under an epoch of the rebuild's own: workers and readers stop
    3. every linked file is read, encoded and put, in whatever order: of two rows the newer one stays
    4. applied marks are set to the ends of the chains
    5. the epoch comes into force; workers go on by themselves

A rebuild that dies leaves the store not ready. Another one begins anew, and what is there already is a duplicate.
"""

import asyncio
import dataclasses
import datetime
import functools
import itertools
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, Self, TypeVar

from stillwell.errors import ChainError, FormatError, NotFound, StoreNotReady, StoreUnavailable
from stillwell.known_views import Version
from stillwell.layout import chain
from stillwell.layout.chain import ChainEnd, DataFile, Link, PartitionId
from stillwell.layout.encoder import ViewEncoder, offline_among
from stillwell.layout.online import EncodedRows, MarkKey, MarkMove, OnlineState, PutCounts
from stillwell.layout.parquet import frame_of, read_table
from stillwell.progress import Advance, unseen
from stillwell.retrying import UntilDone
from stillwell.spec import ViewSpec
from stillwell.storage import ObjectStore

_T = TypeVar("_T")

FILES_AT_A_TIME = 4
"""Each file in flight costs its rows in memory, some ten times its size; more of them make no rebuild faster once the
server, or this machine's cores, are busy."""

_LINKS_AT_A_TIME = 256


class Threads(Protocol):
    """Runs blocking calls off the event loop."""

    async def call(self, work: Callable[..., _T], *arguments: Any) -> _T:
        """What `work` returns or raises."""


class OnlineStore(Protocol):
    """What a rebuild needs of the online store. Every write is harmless to repeat."""

    async def read_state(self) -> OnlineState:
        """Which epoch is in force, and which server answers."""

    async def begin_rebuild(self, epoch: str) -> Self:
        """Make the store not ready for all but the one that is returned."""

    async def put(self, rows: EncodedRows, epoch: str) -> PutCounts:
        """Write each row that is newer than the one in its place."""

    async def set_marks(self, moves: Sequence[MarkMove], epoch: str) -> None:
        """Create the marks that are absent, or of another epoch, at the start of their moves."""

    async def finish_rebuild(self, epoch: str) -> None:
        """Bring the rebuild's epoch into force."""


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """What there is to do. rows: those in the files."""

    chains: int
    links: int
    files: int
    rows: int


@dataclasses.dataclass(frozen=True, slots=True)
class Rebuilt:
    """What was done. files, rows: those that were read. Each row is in one of the others: in counts, by what became of
    it when it was put; superseded, older than another of its entity in the same file; offline, pushed for the offline
    store alone."""

    epoch: str
    plan: Plan
    files: int
    rows: int
    counts: PutCounts
    superseded: int
    offline: int


def plan(store: ObjectStore, views: Mapping[Version, ViewSpec]) -> Plan:
    """Walk every chain.

    Raises NotFound where there is none at all, ChainError where one is damaged, FormatError naming what nobody can
    encode, and StoreUnavailable.
    """
    chains = links = files = rows = 0
    found: set[Version] = set()
    for id in chain.partitions(store):
        chains += 1
        for link in _walk(store, id, None):
            links += 1
            for version, file in _files(link):
                found.add(version)
                files += 1
                rows += file.rows
    if not chains:
        raise NotFound(
            f"{store.url}: there are no chains, and so nothing to rebuild from. If STILLWELL_OFFLINE_URL, project and "
            "namespace are right, start a worker: it makes an empty Redis ready by itself"
        )
    if unknown := sorted(found - views.keys()):
        raise _unknown(store, unknown)
    return Plan(chains, links, files, rows)


async def is_ready(online: OnlineStore, until_done: UntilDone) -> bool:
    """Whether the online store is ready, so that nothing seems to be lost. Raises what `until_done` raises."""
    return (await until_done(online.read_state)).epoch is not None


async def rebuild(
    store: ObjectStore,
    online: OnlineStore,
    views: Mapping[Version, ViewSpec],
    planned: Plan,
    grace: datetime.timedelta,
    epoch: str,
    threads: Threads,
    until_done: UntilDone,
    advance: Advance = unseen,
) -> Rebuilt:
    """Make the online store hold every linked row, and ready.

    planned: what `plan` says of the same store and views; what was linked since is put as well. grace: how long keys
    outlive their rows' TTL, as the workers have it. epoch: one that was never used before. advance: told of files.
    Raises StoreNotReady when the store forgets once more, another rebuild begins or another server takes over
    meanwhile; what `plan` raises, if it has come true since; and what `until_done` raises.
    """
    gate = await until_done(lambda: online.begin_rebuild(epoch))
    loading = _Loading(store, gate, views, grace, epoch, threads, until_done, lambda done: advance(done, planned.files))
    server = (await until_done(gate.read_state)).replication_id
    for moves in filter(None, await loading.load()):
        await until_done(functools.partial(gate.set_marks, moves, epoch))
    if (await until_done(gate.read_state)).replication_id != server:
        raise StoreNotReady(
            "another server took over from Redis during the rebuild, and may lack rows that the first one had taken: "
            "run `stillwell rebuild` again"
        )
    await until_done(lambda: gate.finish_rebuild(epoch))
    return Rebuilt(epoch, planned, loading.files, loading.rows, loading.counts, loading.superseded, loading.offline)


class _Loading:
    """Puts the rows of every linked file, several files at a time."""

    def __init__(
        self,
        store: ObjectStore,
        online: OnlineStore,
        views: Mapping[Version, ViewSpec],
        grace: datetime.timedelta,
        epoch: str,
        threads: Threads,
        until_done: UntilDone,
        advance: Callable[[int], None],
    ) -> None:
        self._store = store
        self._online = online
        self._encoders = {version: ViewEncoder(view, grace) for version, view in views.items()}
        self._epoch = epoch
        self._threads = threads
        self._until_done = until_done
        self._advance = advance
        self._slots = asyncio.Semaphore(FILES_AT_A_TIME)
        self.files = 0
        self.rows = 0
        self.counts = PutCounts(0, 0, 0, 0)
        self.superseded = 0
        self.offline = 0

    async def load(self) -> list[list[MarkMove]]:
        """Load all; gives the marks of each chain, at its end."""
        ends: list[list[MarkMove]] = []
        try:
            async with asyncio.TaskGroup() as tasks:
                for id in await self._read(lambda: chain.partitions(self._store)):
                    ends.append(await self._load_chain(id, tasks))
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None
        return ends

    async def _load_chain(self, id: PartitionId, tasks: asyncio.TaskGroup) -> list[MarkMove]:
        """Set all files of a chain on their way; gives a mark for each version, where its last link ends."""
        ends: dict[Version, int] = {}
        async for link in self._links(id):
            for version, file in _files(link):
                if version not in self._encoders:
                    raise _unknown(self._store, [version])
                await self._slots.acquire()
                tasks.create_task(self._load_file(id, self._encoders[version], file))
            listed = (Version(account.view, account.version) for account in link.views)
            # What retention took gave no version rows: who had all before it, has all behind it.
            covered = (version for version, end in ends.items() if end == link.start) if link.expired else listed
            ends |= {version: link.end for version in covered if version in self._encoders}
        return [MarkMove(MarkKey(id, name, number), end, end) for (name, number), end in sorted(ends.items())]

    async def _links(self, id: PartitionId) -> AsyncIterator[Link]:
        """The links of a chain, in order. A walk that failed is taken up behind the last link that it gave."""
        at: ChainEnd | None = None
        walk: Iterator[Link] | None = None

        async def some() -> list[Link]:
            nonlocal walk
            try:
                walk = walk or await self._threads.call(_walk, self._store, id, at)
                return await self._threads.call(_some, walk)
            except StoreUnavailable:
                walk = None  # a generator that has raised is at its end
                raise

        while links := await self._until_done(some):
            for link in links:
                yield link
            at = chain.end_at(links[-1])

    async def _load_file(self, id: PartitionId, encoder: ViewEncoder, file: DataFile) -> None:
        """Put the newest row of each entity of a file, and give its slot back."""

        def read() -> tuple[EncodedRows, int]:
            frame = frame_of(read_table(chain.read_file(self._store, file)))
            return encoder.encode(frame, id)[0], offline_among(frame)

        try:
            rows, offline = await self._read(read)
            counts = await self._until_done(lambda: self._online.put(rows, self._epoch))
        finally:
            self._slots.release()
        totals = zip(dataclasses.astuple(self.counts), dataclasses.astuple(counts), strict=True)
        self.counts = PutCounts(*map(sum, totals))
        self.rows += file.rows
        self.offline += offline
        self.superseded += file.rows - offline - len(rows.keys)
        self.files += 1
        self._advance(self.files)

    async def _read(self, work: Callable[[], _T]) -> _T:
        return await self._until_done(lambda: self._threads.call(work))


def _files(link: Link) -> Iterator[tuple[Version, DataFile]]:
    """Every file of rows that a link names, and of which version of a view they are."""
    for account in link.views:
        if account.file:
            yield Version(account.view, account.version), account.file


def _walk(store: ObjectStore, id: PartitionId, at: ChainEnd | None) -> Iterator[Link]:
    try:
        return chain.walk_from(store, id, at) if at else chain.walk(store, id)[1]
    except NotFound as error:
        raise ChainError(
            f"{id.genesis_path}: is missing, so that nobody knows where the chain of {id} begins, nor what is on it. "
            "Restore it from a backup of the offline store; `stillwell verify` names all else that is missing"
        ) from error


def _some(walk: Iterator[Link]) -> list[Link]:
    return list(itertools.islice(walk, _LINKS_AT_A_TIME))


def _unknown(store: ObjectStore, versions: Sequence[Version]) -> FormatError:
    return FormatError(
        f"{store.url}: there are rows of {', '.join(map(str, versions))}, but neither the definitions nor the registry "
        "say how they are laid out, so that they cannot be put back. Restore `_registry/` from a backup, or point "
        "STILLWELL_DEFINITIONS at the definitions that wrote them"
    )
