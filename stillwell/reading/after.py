"""Read your writes: a reader who brings a push's token waits until the applied marks have passed its records.

A mark stands, for a view version and a partition, at the offset below which every row is in Redis. All who wait look at
the marks together, by one question at a time that also carries what else is read at that moment.
"""

import asyncio
import contextlib
import dataclasses
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Protocol, TypeVar

from stillwell.definitions.mistakes import did_you_mean
from stillwell.errors import Behind, NotDefined, RequestError, StillwellError, StoreUnavailable
from stillwell.layout.chain import PartitionId
from stillwell.layout.online import MarkKey
from stillwell.layout.redis_keys import RedisKeys
from stillwell.pushing.record import push_topic
from stillwell.pushing.token import Token
from stillwell.reading.online import OnlineReader
from stillwell.spec import ViewSpec

MOST_TOKENS = 16
MOST_TIMEOUT_MS = 60_000
DEFAULT_TIMEOUT_MS = 1_000

_PAUSE = 0.005
"""Seconds between two looks at the marks. A worker writes within some 50 ms; more looks would find nothing sooner."""

_PAUSE_PER_KEY = 20e-6
"""… or so many for each mark that is looked at, if that is more: reading one takes Redis 0.7 µs, and those who wait for
many, or for what never comes, must not take it all from those who read."""

_MOST_WAITING = 1_000
_MOST_KEYS = 10_000
"""Marks that all who wait want to see, at the most: beyond, who comes is refused."""


class Answered(Protocol):
    """What was read. under: the epoch and the server of the reply that it comes from (`Stored.under`)."""

    @property
    def under(self) -> bytes: ...


_Answered = TypeVar("_Answered", bound=Answered)


@dataclasses.dataclass(frozen=True, slots=True)
class After:
    """What a read is to wait for, and for how long."""

    tokens: tuple[Token, ...]
    seconds: float


def after(text: str, timeout_ms: int | None) -> After | None:
    """What a request says: tokens, with spaces between several; None where it says nothing. Raises RequestError."""
    if timeout_ms is not None and not 0 <= timeout_ms <= MOST_TIMEOUT_MS:
        raise RequestError("timeout_ms", f"must be from 0 to {MOST_TIMEOUT_MS}, not {timeout_ms}")
    words = text.split()
    if not words:
        return None
    if len(words) > MOST_TOKENS:
        raise RequestError("after", f"names {len(words)} tokens; at most {MOST_TOKENS} are allowed")
    seconds = (DEFAULT_TIMEOUT_MS if timeout_ms is None else timeout_ms) / 1_000
    return After(tuple(Token.parse(word) for word in words), seconds)


_Wanted = Sequence[tuple[Token, dict[bytes, int]]]
"""Tokens, each with the offset that each mark must have passed, by the mark's key; in the order of its partitions."""


@dataclasses.dataclass(slots=True, eq=False)
class _Waiter:
    """Somebody who waits. wanted: for each mark's key, the offset that it must have passed."""

    wanted: dict[bytes, int]
    done: "asyncio.Future[bytes]"
    looked: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)
    seen: dict[bytes, int | None] = dataclasses.field(default_factory=dict)


class Marks:
    """Waits for applied marks; for one event loop."""

    def __init__(self, online: OnlineReader, keys: RedisKeys, project: str, views: Iterable[ViewSpec]) -> None:
        """views: as they are served."""
        self._online = online
        self._keys = keys
        self._project = project
        self._views = {view.name: view for view in views}
        self._waiting: set[_Waiter] = set()
        self._looking: asyncio.Task[None] | None = None
        self._come = asyncio.Event()

    @property
    def waiting(self) -> int:
        """How many reads wait."""
        return len(self._waiting)

    async def read_after(self, asked: After, read: Callable[[], Awaitable[_Answered]]) -> _Answered:
        """What `read` finds once the rows of these tokens are there. It is called once more where Redis was rebuilt in
        between, or another server took over, and what was seen before is worth nothing.

        Raises Behind where they are not there in time, RequestError for a token of a view that is not defined, and what
        `read` and the store raise.
        """
        wanted = [(token, self._wanted(token)) for token in asked.tokens]
        deadline = asyncio.get_running_loop().time() + asked.seconds
        epochs = {(token.epoch or "").encode() for token in asked.tokens}
        # Rows that one server has taken under one epoch need no look at the marks, unless it is another by now.
        passed = b"" if b"" in epochs or len(epochs) > 1 else epochs.pop()
        if not passed:
            passed = await self._passed(wanted, deadline)
        while True:
            found = await read()
            if found.under == passed:
                return found
            passed = await self._passed(wanted, deadline)

    def _wanted(self, token: Token) -> dict[bytes, int]:
        view = self._views.get(token.view)
        if view is None:
            raise NotDefined("after", f"there is no view {token.view!r}{did_you_mean(token.view, self._views)}")
        topic = push_topic(self._project, view.name)
        return {
            self._keys.mark(MarkKey(PartitionId(topic, token.incarnation, partition), view.name, view.version)): offset
            for partition, offset in token.offsets.items()
        }

    async def _passed(self, wanted: _Wanted, deadline: float) -> bytes:
        """Wait until all marks have passed their offsets; the epoch and server under which they have."""
        marks: dict[bytes, int] = {}
        for _, of_token in wanted:
            for key, offset in of_token.items():
                marks[key] = max(offset, marks.get(key, offset))
        if len(marks) > _MOST_KEYS:
            raise RequestError("after", f"names {len(marks)} partitions; at most {_MOST_KEYS} are allowed")
        if len(self._waiting) >= _MOST_WAITING or self._keys_wanted() + len(marks) > _MOST_KEYS:
            raise StoreUnavailable(f"{len(self._waiting)} reads wait for pushes already; ask again in a moment")
        loop = asyncio.get_running_loop()
        waiter = _Waiter(marks, loop.create_future())
        self._waiting.add(waiter)
        self._come.set()
        if self._looking is None:
            self._looking = loop.create_task(self._look())
        try:
            # However little time there is: without one look nobody can say how far behind it is, or that it is not.
            await waiter.looked.wait()
            async with asyncio.timeout_at(deadline):
                return await waiter.done
        except TimeoutError:
            raise _behind(waiter, wanted) from None
        finally:
            self._waiting.discard(waiter)

    def _keys_wanted(self) -> int:
        return sum(len(waiter.wanted) for waiter in self._waiting)

    async def _look(self) -> None:
        """Look at the marks for as long as somebody waits."""
        try:
            while self._waiting:
                self._come.clear()
                waiters = list(self._waiting)
                keys = list(dict.fromkeys(key for waiter in waiters for key in waiter.wanted))
                try:
                    stored = await self._online.read(keys)
                except StillwellError as error:
                    for waiter in waiters:
                        _fail(waiter, error)
                    self._waiting.difference_update(waiters)
                    continue
                found = (_position(value, stored.epoch) for value in stored.values)
                positions = dict(zip(keys, found, strict=True))
                for waiter in waiters:
                    waiter.seen = {key: positions[key] for key in waiter.wanted}
                    waiter.looked.set()
                    if not waiter.done.done() and not _left(waiter):
                        waiter.done.set_result(stored.under)
                        self._waiting.discard(waiter)
                if self._waiting:
                    await self._pause(max(_PAUSE, _PAUSE_PER_KEY * len(keys)))
        finally:
            self._looking = None

    async def _pause(self, seconds: float) -> None:
        """Until the next look is due; at once for somebody who has just come."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._come.wait()

    async def close(self) -> None:
        """Let nobody wait any more."""
        if self._looking:
            self._looking.cancel()
        for waiter in self._waiting:
            _fail(waiter, StoreUnavailable("the query service ends: ask again, another one"))


def _fail(waiter: _Waiter, error: StillwellError) -> None:
    if not waiter.done.done():
        waiter.done.set_exception(error)
    waiter.looked.set()


def _position(value: bytes | None, epoch: bytes) -> int | None:
    """Where a mark stands; None for one that is absent or of another epoch."""
    return int(value[:20]) if value and value[21:] == epoch else None


def _left(waiter: _Waiter) -> dict[bytes, int]:
    """By mark, how many records are still to be taken in."""
    return {
        key: offset + 1 - (waiter.seen.get(key) or 0)
        for key, offset in waiter.wanted.items()
        if (waiter.seen.get(key) or 0) <= offset
    }


def _behind(waiter: _Waiter, wanted: _Wanted) -> Behind:
    left = _left(waiter)
    offsets: dict[str, dict[int, int]] = {}
    absent: list[str] = []
    for token, of_token in wanted:
        for partition, key in zip(token.offsets, of_token, strict=True):
            if key in left:
                offsets.setdefault(token.view, {})[partition] = left[key]
                if waiter.seen and waiter.seen.get(key) is None:
                    absent.append(f"{token.view}, partition {partition}")
    lag = sum(count for of_view in offsets.values() for count in of_view.values())
    said = "; ".join(f"{view}, {_partitions(of_view)}" for view, of_view in offsets.items())
    hint = f". Redis has no mark of {absent[0]}: does a worker run?" if absent else ""
    told = f"after: what was pushed is not applied yet: {lag} records are left to take in ({said}){hint}"
    return Behind(told, lag, offsets)


def _partitions(left: Mapping[int, int]) -> str:
    shown = [f"{count} of partition {partition}" for partition, count in sorted(left.items())[:10]]
    return ", ".join(shown) + (f" and {len(left) - 10} more partitions" if len(left) > 10 else "")
