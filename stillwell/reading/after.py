"""Read your writes: a reader who brings a push's token waits until the applied marks have passed its records.

A mark stands, for a view version and a partition, at the offset below which every row is in Redis. Of which version it
is does not matter: while definitions are rolled out one version takes the records in and another is served, and a row
is read by the layout of the version that wrote it. So the mark of any version counts whose rows can be read here.

All who wait look at the marks together, by one question at a time that also carries what else is read at that moment.
"""

import asyncio
import contextlib
import dataclasses
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import NamedTuple, Protocol, TypeVar

from stillwell.counting import counted
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
"""Of one read: each may name a thousand partitions."""

MOST_TIMEOUT_MS = 60_000
"""As long as proxies commonly wait for an answer."""

DEFAULT_TIMEOUT_MS = 1_000
"""A worker writes within some tens of milliseconds, and takes seconds only while it is replaced."""

_PAUSE = 0.005
"""Seconds between two looks at the marks. A worker writes within some 50 ms; more looks would find nothing sooner."""

_PAUSE_PER_KEY = 20e-6
"""… or so many for each mark that is looked at, if that is more: reading one takes Redis 0.7 µs, and those who wait for
many, or for what never comes, must not take it all from those who read."""

_MOST_WAITING = 1_000
"""Reads: as many as there may be requests, unless STILLWELL_SERVE_IN_FLIGHT says otherwise."""

_MOST_PARTITIONS = 10_000
"""Partitions whose marks all who wait want to see, at the most: beyond, who comes is refused."""

_MOST_VERSIONS = 4
"""Of a view, whose marks are looked at: the one that is served, and the latest others. No more run at once, and each
is a key more for every partition and look."""

_LONG = 0.25
"""Seconds after which a read that waits has other versions looked for: a worker of a new one may have begun."""


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


class _Place(NamedTuple):
    """A partition of a view's push topic."""

    view: str
    id: PartitionId


@dataclasses.dataclass(slots=True, eq=False)
class _Waiter:
    """Somebody who waits. wanted: the offset that a mark of each partition must have passed; seen: where the one
    stands that is furthest, None where there is none."""

    wanted: dict[_Place, int]
    since: float
    done: "asyncio.Future[bytes]"
    looked: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)
    seen: dict[_Place, int | None] = dataclasses.field(default_factory=dict)


class Marks:
    """Waits for applied marks; for one event loop."""

    def __init__(self, online: OnlineReader, keys: RedisKeys, project: str, views: Iterable[ViewSpec]) -> None:
        """views: as they are served."""
        self._online = online
        self._keys = keys
        self._project = project
        self._served = {view.name: view.version for view in views}
        self._versions: dict[str, tuple[int, ...]] = {name: (version,) for name, version in self._served.items()}
        self.late: Callable[[], object] = lambda: None
        """Called, again and again, while a read has waited for long: to look for other versions, and call `know`."""
        self._waiting: set[_Waiter] = set()
        self._looking: asyncio.Task[None] | None = None
        self._come = asyncio.Event()

    @property
    def waiting(self) -> int:
        """How many reads wait."""
        return len(self._waiting)

    def know(self, versions: Iterable[ViewSpec]) -> None:
        """Take the marks of these versions too, in the place of those that were told before."""
        others: dict[str, set[int]] = {}
        for view in versions:
            others.setdefault(view.name, set()).add(view.version)
        self._versions = {
            name: (served, *sorted(others.get(name, set()) - {served}, reverse=True)[: _MOST_VERSIONS - 1])
            for name, served in self._served.items()
        }

    async def read_after(
        self,
        asked: After,
        read: Callable[[], Awaitable[_Answered]],
        waits: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> _Answered:
        """What `read` finds once the rows of these tokens are there. It is called once more where Redis was rebuilt in
        between, or another server took over, and what was seen before is worth nothing. waits: entered while it only
        waits; to cancel the task then takes nothing from anybody else.

        Raises Behind where they are not there in time, RequestError for a token of a view that is not defined, and what
        `read` and the store raise; StoreUnavailable where marks and rows are of different servers until the time is up.
        """
        wanted, loop = self._wanted(asked.tokens), asyncio.get_running_loop()
        deadline = loop.time() + asked.seconds
        epochs = {(token.epoch or "").encode() for token in asked.tokens}
        # Rows that one server has taken under one epoch need no look at the marks, unless it is another by now.
        passed = b"" if b"" in epochs or len(epochs) > 1 else epochs.pop()
        looked = not passed
        if looked:
            with waits():
                passed = await self._passed(wanted, deadline)
        while True:
            found = await read()
            if passed and found.under == passed:
                return found
            # Marks that are passed are waited for no longer: without an end two servers would be asked for ever.
            if looked and loop.time() >= deadline:
                raise StoreUnavailable("marks and rows were read from different servers, or epochs; ask again")
            with waits():
                looked, passed = True, await self._passed(wanted, deadline)

    def _wanted(self, tokens: Iterable[Token]) -> dict[_Place, int]:
        wanted: dict[_Place, int] = {}
        for token in tokens:
            if token.view not in self._served:
                raise NotDefined("after", f"there is no view {token.view!r}{did_you_mean(token.view, self._served)}")
            topic = push_topic(self._project, token.view)
            for partition, offset in token.offsets.items():
                place = _Place(token.view, PartitionId(topic, token.incarnation, partition))
                wanted[place] = max(offset, wanted.get(place, offset))
        return wanted

    def _marks(self, place: _Place) -> list[bytes]:
        """The keys of the marks of a partition, one for each version."""
        return [self._keys.mark(MarkKey(place.id, place.view, version)) for version in self._versions[place.view]]

    async def _passed(self, wanted: dict[_Place, int], deadline: float) -> bytes:
        """Wait until marks have passed all of their offsets; the epoch and server under which they have."""
        if len(wanted) > _MOST_PARTITIONS:
            raise RequestError("after", f"names {len(wanted)} partitions; at most {_MOST_PARTITIONS} are allowed")
        if len(self._waiting) >= _MOST_WAITING or self._partitions_wanted() + len(wanted) > _MOST_PARTITIONS:
            raise StoreUnavailable(f"{len(self._waiting)} reads wait for pushes already; ask again in a moment")
        loop = asyncio.get_running_loop()
        waiter = _Waiter(wanted, loop.time(), loop.create_future())
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
            raise _behind(waiter) from None
        finally:
            self._waiting.discard(waiter)

    def _partitions_wanted(self) -> int:
        return sum(len(waiter.wanted) for waiter in self._waiting)

    async def _look(self) -> None:
        """Look at the marks for as long as somebody waits."""
        try:
            while self._waiting:
                self._come.clear()
                waiters = list(self._waiting)
                marks = {place: self._marks(place) for waiter in waiters for place in waiter.wanted}
                keys = [key for of_place in marks.values() for key in of_place]
                try:
                    stored = await self._online.read(keys)
                except StillwellError as error:
                    for waiter in waiters:
                        _fail(waiter, error)
                    self._waiting.difference_update(waiters)
                    continue
                found = (_position(value, stored.epoch) for value in stored.values)
                positions = dict(zip(keys, found, strict=True))
                furthest = {
                    place: max((at for key in of_place if (at := positions[key]) is not None), default=None)
                    for place, of_place in marks.items()
                }
                for waiter in waiters:
                    waiter.seen = {place: furthest[place] for place in waiter.wanted}
                    waiter.looked.set()
                    if not waiter.done.done() and not _left(waiter):
                        waiter.done.set_result(stored.under)
                        self._waiting.discard(waiter)
                now = asyncio.get_running_loop().time()
                if any(now >= waiter.since + _LONG for waiter in self._waiting):
                    self.late()
                if self._waiting:
                    await self._pause(max(_PAUSE, _PAUSE_PER_KEY * len(keys)))
        except Exception as error:
            # A mistake of ours, or a mark that is none: who waits is told, and waits not for ever.
            for waiter in self._waiting:
                _fail(waiter, error)
            self._waiting.clear()
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


def _fail(waiter: _Waiter, error: Exception) -> None:
    if not waiter.done.done():
        waiter.done.set_exception(error)
    waiter.looked.set()


def _position(value: bytes | None, epoch: bytes) -> int | None:
    """Where a mark stands; None for one that is absent or of another epoch."""
    return int(value[:20]) if value and value[21:] == epoch else None


def _left(waiter: _Waiter) -> dict[_Place, int]:
    """By partition, how many records are still to be taken in."""
    return {
        place: offset + 1 - (waiter.seen.get(place) or 0)
        for place, offset in waiter.wanted.items()
        if (waiter.seen.get(place) or 0) <= offset
    }


def _behind(waiter: _Waiter) -> Behind:
    offsets: dict[str, dict[int, int]] = {}
    absent: list[str] = []
    for place, count in _left(waiter).items():
        offsets.setdefault(place.view, {})[place.id.partition] = count
        if waiter.seen and waiter.seen.get(place) is None:
            absent.append(f"{place.view}, partition {place.id.partition}")
    lag = sum(count for of_view in offsets.values() for count in of_view.values())
    said = "; ".join(f"{view}, {_partitions(of_view)}" for view, of_view in offsets.items())
    hint = f"Redis has no mark of {absent[0]}: does a worker run?" if absent else "If it stays so: does a worker run?"
    told = f"after: what was pushed is not applied yet: {counted(lag, 'record')} to be taken in ({said}). {hint}"
    return Behind(told, lag, offsets)


def _partitions(left: Mapping[int, int]) -> str:
    shown = [f"{count} of partition {partition}" for partition, count in sorted(left.items())[:10]]
    return ", ".join(shown) + (f" and {counted(len(left) - 10, 'more partition')}" if len(left) > 10 else "")
