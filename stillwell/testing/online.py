"""An online store in memory, with faults on demand: the twin of the one in Redis, under the same contract.

server = MemoryRedis()                     what one Redis server holds; several stores may be opened on it
store = MemoryOnlineStore(server)          what a worker or a reader has of it
server.flush(), server.evict(key)          what an operator, or memory that runs short, does to it
server.fail_over(lost=3)                   a replica takes over that had not yet seen the last three writes
"""

import asyncio
import functools
from collections.abc import Callable, Sequence
from typing import Literal, Self, TypeVar

from stillwell.errors import FormatError, OutcomeUnknown, StoreNotReady, StoreUnavailable
from stillwell.instants import now_ms
from stillwell.layout.online import (
    Answer,
    Applied,
    AppliedEach,
    EncodedRows,
    MarkKey,
    MarkMove,
    OnlineServer,
    OnlineState,
    PutCounts,
    answer,
    expires_at,
)
from stillwell.layout.redis_keys import RedisKeys
from stillwell.reading.online import Stored

Operation = Literal[
    "put",
    "raise_marks",
    "set_marks",
    "read_marks",
    "get",
    "read_state",
    "read_server",
    "initialise",
    "begin_rebuild",
    "finish_rebuild",
]
Fault = Literal["refused", "lost answer", "lost call", "half done"]
FaultPlan = Callable[[Operation], Fault | None]
"""Asked before each call: None lets it pass; `refused` fails it without effect and says so; `lost answer` carries it
out and `lost call` does not, and the caller cannot tell which; `half done` puts the first half of the rows, and the
caller cannot tell that either (other calls are then lost)."""

_T = TypeVar("_T")
_Stored = tuple[bytes, int | None]


def no_faults(operation: Operation) -> Fault | None:
    """Every call succeeds."""
    return None


class MemoryRedis:
    """What one server holds: values by key, each with the time in ms at which it expires, or None."""

    def __init__(self, clock: Callable[[], int] = now_ms) -> None:
        """clock: the server's own, in ms since the epoch."""
        self.clock = clock
        self.role = "master"
        self.maxmemory_policy = "noeviction"
        self._stored: dict[bytes, _Stored] = {}
        self._writes: list[tuple[bytes, _Stored | None]] = []
        self._failovers = 0

    @property
    def replication_id(self) -> str:
        """Changes when another server takes over."""
        return f"{self._failovers:040x}"

    def read(self, key: bytes) -> bytes | None:
        """What is stored under a key and has not expired."""
        value, expires = self._stored.get(key, (None, None))
        return value if expires is None or self.clock() <= expires else None

    def write(self, key: bytes, value: bytes, expires: int | None = None) -> None:
        """Store a value."""
        self._writes.append((key, self._stored.get(key)))
        self._stored[key] = (value, expires)

    def evict(self, key: bytes) -> None:
        """Forget one key."""
        self._writes.append((key, self._stored.pop(key, None)))

    def flush(self) -> None:
        """Forget everything."""
        self._stored.clear()
        self._writes.clear()

    def fail_over(self, lost: int = 0) -> None:
        """Let a replica take over that had not yet seen the last so many writes."""
        self._failovers += 1
        for _ in range(min(lost, len(self._writes))):
            key, before = self._writes.pop()
            if before is None:
                self._stored.pop(key, None)
            else:
                self._stored[key] = before

    def dump(self) -> dict[bytes, _Stored]:
        """All that is stored and has not expired."""
        now = self.clock()
        return {key: (value, at) for key, (value, at) in self._stored.items() if at is None or now <= at}


class MemoryOnlineStore:
    """The newest row of every entity and view, in a MemoryRedis."""

    def __init__(
        self,
        server: MemoryRedis,
        keys: RedisKeys | None = None,
        faults: FaultPlan = no_faults,
        gate: bytes | None = None,
    ) -> None:
        """gate: the key that must hold the epoch; the ready key, unless a rebuild is under way."""
        self.server = server
        self.faults = faults
        self._keys = keys or RedisKeys("test", "test")
        self._gate = gate or self._keys.ready

    async def close(self) -> None:
        """Nothing is open."""

    async def apply(self, rows: Sequence[EncodedRows], moves: Sequence[MarkMove], epoch: str) -> Applied:
        """Write each row that is newer than the one in its place; then raise each mark to the end of its move, if it
        stands within the move. Where it fails, rows may be written in part, and marks only with all of them."""
        connected_to = self.server.replication_id
        counts = [await self.put(each, epoch) for each in rows]
        return Applied(counts, await self._call("raise_marks", lambda: self._raise(moves, epoch, connected_to)))

    async def put(self, rows: EncodedRows, epoch: str) -> PutCounts:
        """Write each row that is newer than the one in its place. A put that failed may be done in part."""
        return PutCounts.of(
            await self._call("put", lambda: self._put(rows, epoch), lambda: self._put_half(rows, epoch))
        )

    async def put_each(self, rows: Sequence[EncodedRows], epoch: str) -> AppliedEach:
        """Write each row that is newer than the one in its place; what became of each, and which server says so."""
        replication_id = self.server.replication_id
        answers = []
        for each in rows:
            put, half = functools.partial(self._put, each, epoch), functools.partial(self._put_half, each, epoch)
            answers.append(await self._call("put", put, half))
        return AppliedEach(answers, replication_id)

    async def set_marks(self, moves: Sequence[MarkMove], epoch: str) -> None:
        """Create the marks that are absent, or of another epoch, at the start of their moves."""
        await self._call("set_marks", lambda: self._set(moves, epoch))

    async def read_marks(self, marks: Sequence[MarkKey]) -> list[int | None]:
        """Where each mark stands; None for one that is absent or of another epoch than the one in force."""
        return await self._call("read_marks", lambda: self._read_marks(marks))

    async def get(self, view: str, keys: Sequence[bytes]) -> list[bytes | None]:
        """The stored rows of these entities, None where there is none."""
        return await self._call("get", lambda: self._get(view, keys))

    async def read(self, keys: Sequence[bytes]) -> Stored:
        """See `stillwell.reading.online.OnlineReader`."""
        return await self._call("get", lambda: self._read(keys))

    async def read_state(self) -> OnlineState:
        """Which epoch is in force (None: not ready), and which server answers."""
        return await self._call("read_state", self._read_state)

    async def read_server(self) -> OnlineServer:
        """What the server says of itself."""
        return await self._call("read_server", self._read_server)

    async def initialise(self, epoch: str) -> str:
        """Make an empty store ready, if nobody did; returns the epoch in force."""
        return await self._call("initialise", lambda: self._initialise(epoch))

    async def begin_rebuild(self, epoch: str) -> Self:
        """Make the store not ready for all but the one that is returned, which puts rows and marks under this epoch."""
        return await self._call("begin_rebuild", lambda: self._begin_rebuild(epoch))

    async def finish_rebuild(self, epoch: str) -> None:
        """Bring the rebuild's epoch into force; call it on what `begin_rebuild` returned.

        Raises StoreNotReady if the store has forgotten the rebuild, or another one has begun.
        """
        await self._call("finish_rebuild", lambda: self._finish_rebuild(epoch))

    async def _call(
        self, operation: Operation, work: Callable[[], _T], half: Callable[[], object] = lambda: None
    ) -> _T:
        """What the work returns, unless the plan has it fail. Others run before it and after it, as with a server."""
        await asyncio.sleep(0)
        fault = self.faults(operation)
        if fault == "refused":
            raise StoreUnavailable(f"{operation}: refused by the test")
        if fault == "half done":
            half()
        if fault in ("half done", "lost call"):
            raise OutcomeUnknown(f"no answer to {operation}")
        result = work()
        await asyncio.sleep(0)
        if fault == "lost answer":
            raise OutcomeUnknown(f"no answer to {operation}")
        return result

    def _require(self, epoch: str) -> None:
        """Raises StoreNotReady unless the epoch is in force."""
        if self.server.read(self._gate) != epoch.encode():
            raise StoreNotReady(
                f"the ready key is missing, or holds another epoch than {epoch}; see `stillwell rebuild`"
            )

    def _put(self, rows: EncodedRows, epoch: str) -> list[Answer]:
        return self._put_first(rows, epoch, len(rows.keys))

    def _put_half(self, rows: EncodedRows, epoch: str) -> list[Answer]:
        return self._put_first(rows, epoch, len(rows.keys) // 2)

    def _put_first(self, rows: EncodedRows, epoch: str, count: int) -> list[Answer]:
        if not rows.keys:
            return []
        self._require(epoch)
        places = self._keys.rows(rows.view, rows.keys)[:count]
        return [
            self._put_row(key, value, rows.lifetime_ms) for key, value in zip(places, rows.values[:count], strict=True)
        ]

    def _put_row(self, key: bytes, value: bytes, lifetime_ms: int | None) -> Answer:
        try:
            found = answer(self.server.read(key), value, lifetime_ms, self.server.clock())
        except FormatError as error:
            raise FormatError(f"{error}, under the key {key!r}") from None
        if found is Answer.APPLIED:
            self.server.write(key, value, expires_at(value, lifetime_ms))
        return found

    def _position(self, mark: MarkKey, epoch: str) -> int | None:
        stored = (self.server.read(self._keys.mark(mark)) or b"").decode()
        position, _, of_epoch = stored.partition(":")
        return int(position) if of_epoch == epoch else None

    def _place(self, mark: MarkKey, position: int, epoch: str) -> None:
        self.server.write(self._keys.mark(mark), f"{position:020d}:{epoch}".encode())

    def _raise(self, moves: Sequence[MarkMove], epoch: str, connected_to: str) -> list[int | None]:
        if self.server.replication_id != connected_to:
            raise OutcomeUnknown("the server that wrote the rows is gone, and the connection to it")
        self._require(epoch)
        for move in moves:
            position = self._position(move.mark, epoch)
            if position is not None and move.start <= position < move.end:
                self._place(move.mark, move.end, epoch)
        return [self._position(move.mark, epoch) for move in moves]

    def _set(self, moves: Sequence[MarkMove], epoch: str) -> None:
        self._require(epoch)
        for move in moves:
            if self._position(move.mark, epoch) is None:
                self._place(move.mark, move.start, epoch)

    def _in_force(self) -> str:
        """The epoch in force. Raises StoreNotReady where there is none."""
        epoch = self.server.read(self._gate)
        if epoch is None:
            raise StoreNotReady("the store is not ready: it may have lost data. Run `stillwell rebuild`")
        return epoch.decode()

    def _read_marks(self, marks: Sequence[MarkKey]) -> list[int | None]:
        epoch = self._in_force()
        return [self._position(mark, epoch) for mark in marks]

    def _read(self, keys: Sequence[bytes]) -> Stored:
        return Stored(self._in_force().encode(), [self.server.read(key) for key in keys], self.server.replication_id)

    def _get(self, view: str, keys: Sequence[bytes]) -> list[bytes | None]:
        self._in_force()
        return [self.server.read(key) for key in self._keys.rows(view, keys)]

    def _read_state(self) -> OnlineState:
        epoch = self.server.read(self._gate)
        return OnlineState(epoch=epoch.decode() if epoch else None, replication_id=self.server.replication_id)

    def _read_server(self) -> OnlineServer:
        return OnlineServer(role=self.server.role, version="7.0.0", maxmemory_policy=self.server.maxmemory_policy)

    def _initialise(self, epoch: str) -> str:
        if self.server.read(self._keys.ready) is None:
            self.server.write(self._keys.ready, epoch.encode())
        return self._in_force()

    def _begin_rebuild(self, epoch: str) -> Self:
        self.server.evict(self._keys.ready)
        self.server.write(self._keys.rebuild, epoch.encode())
        return type(self)(self.server, self._keys, self.faults, self._keys.rebuild)

    def _finish_rebuild(self, epoch: str) -> None:
        if self.server.read(self._keys.ready) == epoch.encode():
            return
        self._require(epoch)
        self.server.evict(self._keys.rebuild)
        self.server.write(self._keys.ready, epoch.encode())
