"""Runs the code that writes the chain under every schedule, fault and crash that its bounds allow.

Nothing of the protocol is modelled here: the writers are coroutines that use `sinks` and `streams.ledger` as they are.
Each call to the store is a point at which anything may happen: another writer's call, a fault, the writer's end, the
arrival of a create that was given up long ago. The search is breadth first over what can be told apart (the store,
creates on their way, and what each writer has heard since it began anew), so that what it finds is a shortest schedule.

A coroutine cannot be copied. But a writer is a function of what it has heard, so its state is that list; it is replayed
once to find the call that it makes next, and from then on remembered.

Two reductions, both exact:
- A call is one step, although a walk asks many times. Objects of a chain are never changed or removed, and a walk ends
  at the first link that is missing: it gives what it would have given at the instant of its last question.
- A nonce that nobody holds any more, neither store nor writer nor create on its way, may be given out again.

Left out: hints (a walk from genesis finds the same), the sweep, Redis and the dead letters, which the model in
`protocol.py` has; walks that fail half way (the next attempt begins anew, and nothing was written).
"""

import asyncio
import dataclasses
import datetime
import itertools
import re
import types
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Hashable, Iterable, Iterator
from functools import cache
from typing import Any, Literal, NamedTuple, TypeVar, cast

from sinks import chain as writing
from sinks.archive import PartitionArchive, UploadedSpan
from sinks.compressing import Compressing
from stillwell.errors import AlreadyExists, ChainError, NotFound, OutcomeUnknown, StoreUnavailable
from stillwell.layout import chain
from stillwell.layout.chain import DataFile, Link
from stillwell.storage import ObjectStore
from stillwell.testing.objects import MemoryStore
from streams.ledger import Ledger, Span
from tests.chain_support import DEPARTURES, NOON, at_once

T = TypeVar("T")
Work = Callable[[ObjectStore], object]
Object = tuple[str, bytes]
Objects = frozenset[Object]
Mishap = Literal["is refused", "gets no answer", "is lost", "was repeated by the client"]

SPANS_AHEAD = 2


# ---- the writers: the code that is tested ----


@dataclasses.dataclass(frozen=True)
class Habits:
    """How one writer works. span: offsets of one link. first: where the log begins when it looks. stubborn: after a
    loss it goes on with the spans that it has prepared, as no flow does; the archive has to stop it."""

    span: int
    first: int = 0
    stubborn: bool = False

    @property
    def ends(self) -> tuple["Raised", ...]:
        """The exceptions with which a life may end."""
        stopped = (Raised(ValueError),) if self.stubborn else ()
        return (Raised(asyncio.CancelledError), *stopped)


class Suspending:
    """The object store for a coroutine: every call stops it, and whoever drives it says what comes back."""

    async def call(self, work: Callable[[ObjectStore], T]) -> T:
        """Whatever the driver sends or throws."""
        return cast(T, await _stop(work))


@types.coroutine
def _stop(work: Work) -> Generator[Work, object, object]:
    return (yield work)


class GivenNonces:
    """Stands in for `secrets` in `sinks.archive`, so that a replay does the same again."""

    def __init__(self) -> None:
        self.next = ""

    def token_hex(self, size: int) -> str:
        """The nonce of the one link without files that a life makes."""
        return self.next


GIVEN_NONCES = GivenNonces()


async def write(habits: Habits, log_end: int, nonces: tuple[str, ...], verdicts: list[tuple[str, bool]]) -> bool:
    """One life of a writer: walk, begin where nobody has, cover what retention took, prepare spans, link them in their
    turn, end after a loss.

    verdicts: takes the nonce of every span, and whether the writer was told that it won. True: the log is at rest.
    """
    archive = PartitionArchive(Suspending(), at_once, DEPARTURES, (), lambda: NOON, "a writer", Compressing())
    while await archive.find_end(None) is None:
        await archive.begin(habits.first, "a-topic-id")
    if archive.end < habits.first:
        GIVEN_NONCES.next = nonces[-1]
        verdicts.append((nonces[-1], await archive.expire(habits.first)))
        if archive.end < habits.first:
            return False
    ledger = Ledger(archive.end, ("redis",))
    uploaded = []
    for nonce in nonces[:-1]:
        if ledger.position < log_end:
            span = Span(ledger.position, min(ledger.position + habits.span, log_end))
            ledger.take(span)
            ledger.close(span.end)
            uploaded.append(await _upload(span, nonce))
            ledger.acknowledge("redis", span)
    for ready in uploaded:
        won = await archive.link(ready, "epoch", "id")
        verdicts.append((ready.nonce, won))
        if won:
            ledger.link(Span(ready.start, ready.end))
        elif not habits.stubborn:
            break
    return archive.end == log_end


async def _upload(span: Span, nonce: str) -> UploadedSpan:
    records = span.end - span.start
    path = chain.data_path(chain.raw_dataset(DEPARTURES.topic), NOON.date(), DEPARTURES, span.start, span.end, nonce)
    data = f"rows of {nonce}".encode()
    await writing.create_object(Suspending(), at_once, path, data)
    file = DataFile(path=path, size=len(data), sha256=chain.digest(data), rows=records)
    return UploadedSpan(span.start, span.end, nonce, NOON, records, file, ())


# ---- what can be told apart ----


class Raised(NamedTuple):
    """An answer that is an exception."""

    kind: type[BaseException]


class Life(NamedTuple):
    """A writer since it began anew: its nonces, and what it has heard."""

    nonces: tuple[str, ...]
    heard: tuple[object, ...] = ()


class World(NamedTuple):
    """Everything. A writer that has brought the log to rest is None."""

    objects: Objects
    on_their_way: Objects
    writers: tuple[Life | None, ...]
    faults: int
    crashes: int


@dataclasses.dataclass(frozen=True)
class Next:
    """What a writer does next: its call, or nothing, with what it returned or raised."""

    work: Work | None
    operation: str
    created: Object | None
    outcome: bool | Raised | None
    verdicts: tuple[tuple[str, bool], ...]


@dataclasses.dataclass(frozen=True)
class Finding:
    """How many worlds were seen; what went wrong, if anything did, and the steps that lead there."""

    worlds: int
    wrong: str | None = None
    schedule: tuple[str, ...] = ()


class Search:
    """All schedules of some writers, with so many faults and crashes between them."""

    def __init__(self, writers: Iterable[Habits], *, log_end: int, faults: int = 0, crashes: int = 0) -> None:
        self._habits = tuple(writers)
        self._log_end = log_end
        self._first = World(frozenset(), frozenset(), (), faults, crashes)
        for _ in self._habits:
            fresh = Life(_fresh_nonces(self._first))
            self._first = self._first._replace(writers=(*self._first.writers, fresh))
        self._results: dict[Hashable, tuple[object, Objects]] = {}
        self._nexts: dict[tuple[Habits, Life], Next] = {}
        self._chains: dict[Objects, tuple[Link, ...] | str] = {}

    def run(self) -> Finding:
        """Until nothing new turns up, or something is wrong."""
        parents: dict[World, tuple[World, str] | None] = {self._first: None}
        queue = deque([self._first])
        while queue:
            world = queue.popleft()
            for step, after in self._steps(world):
                wrong = self._wrong(world, after)
                if wrong:
                    return Finding(len(parents), wrong, (*_schedule(parents, world), step))
                after = self._begin_anew(after)
                if after not in parents:
                    parents[after] = (world, step)
                    queue.append(after)
        return Finding(len(parents))

    # ---- steps ----

    def _steps(self, world: World) -> Iterator[tuple[str, World]]:
        for index in range(len(world.writers)):
            yield from self._steps_of(world, index)
        for late in sorted(world.on_their_way):
            yield f"late: {late[0]} arrives", _with(world, _created(world.objects, late), arrived=late)

    def _steps_of(self, world: World, index: int) -> Iterator[tuple[str, World]]:
        life = world.writers[index]
        if life is None:
            return
        todo = self._next(index, life)
        if todo.work is None:
            return
        who = f"{chr(ord('A') + index)}: {todo.operation}"

        def hears(answer: object, objects: Objects, **changes: Any) -> World:
            writers = list(world.writers)
            writers[index] = Life(life.nonces, (*life.heard, answer))
            return _with(world._replace(writers=tuple(writers), **changes), objects)

        answer, objects = self._result(todo.work, world.objects)
        yield who, hears(answer, objects)
        if world.faults:
            fewer = world.faults - 1
            for mishap, mishap_answer, after, late in self._mishaps(todo, world.objects, objects):
                on_their_way = world.on_their_way | ({late} if late else set())
                yield f"{who} {mishap}", hears(mishap_answer, after, faults=fewer, on_their_way=on_their_way)
        if world.crashes and life.heard:
            on_their_way = world.on_their_way | ({todo.created} if todo.created else set())
            ended = Raised(asyncio.CancelledError)
            yield (
                f"{who} is cut short",
                hears(ended, world.objects, crashes=world.crashes - 1, on_their_way=on_their_way),
            )

    def _mishaps(
        self, todo: Next, before: Objects, after: Objects
    ) -> Iterator[tuple[Mishap, Raised, Objects, Object | None]]:
        yield "is refused", Raised(StoreUnavailable), before, None
        if todo.created:
            yield "gets no answer", Raised(OutcomeUnknown), after, None
            yield "is lost", Raised(OutcomeUnknown), before, todo.created
            yield "was repeated by the client", Raised(AlreadyExists), after, None
        elif after != before:
            yield "gets no answer", Raised(StoreUnavailable), after, None

    def _begin_anew(self, world: World) -> World:
        """Lives that are over are followed by others, unless the log is at rest."""
        for index, life in enumerate(world.writers):
            if life is not None:
                outcome = self._next(index, life).outcome
                if outcome is not None:
                    fresh = None if outcome is True else Life(_fresh_nonces(_replaced(world, index, None)))
                    world = _replaced(world, index, fresh)
        return world

    # ---- the code at work ----

    def _next(self, index: int, life: Life) -> Next:
        key = (self._habits[index], life)
        if key not in self._nexts:
            self._nexts[key] = _replay(*key, self._log_end)
        return self._nexts[key]

    def _result(self, work: Work, objects: Objects) -> tuple[object, Objects]:
        """What a call gives and leaves; calls of the same code over the same values are the same."""
        key = (work.__code__, tuple(cell.cell_contents for cell in work.__closure__ or ()), work.__defaults__, objects)
        if key not in self._results:
            store = MemoryStore()
            store.objects = dict(objects)
            answer: object
            try:
                answer = work(store)
            except (AlreadyExists, NotFound, ChainError) as error:
                answer = Raised(type(error))
            self._results[key] = answer, frozenset(store.objects.items())
        return self._results[key]

    # ---- what must hold ----

    def _wrong(self, before: World, after: World) -> str | None:
        links, seen = self._chain(after.objects), self._chain(before.objects)
        if isinstance(links, str):
            return links
        if links[: len(seen)] != seen:
            return "what a walk has seen is no longer seen"
        linked = {link.nonce for link in links}
        for index, life in enumerate(after.writers):
            if life is None:
                continue
            todo = self._next(index, life)
            for nonce, won in todo.verdicts:
                if won != (nonce in linked):
                    return f"a writer was told that it {'won' if won else 'lost'}, and {'lost' if won else 'won'}"
            if isinstance(todo.outcome, Raised) and todo.outcome not in self._habits[index].ends:
                return f"a writer fails with {todo.outcome.kind.__name__}"
            if todo.outcome is True and links[-1].end != self._log_end:
                return "a writer rests before the log does"
        return None

    def _chain(self, objects: Objects) -> tuple[Link, ...] | str:
        """The links that a walk reaches, or what is wrong with them."""
        if objects not in self._chains:
            self._chains[objects] = _examine(objects)
        return self._chains[objects]


def _examine(objects: Objects) -> tuple[Link, ...] | str:
    store = MemoryStore()
    store.objects = dict(objects)
    try:
        links = tuple(chain.walk(store, DEPARTURES)[1])
    except NotFound:
        links = ()
    except ChainError as error:
        return f"the chain cannot be walked: {error}"
    places = {path for path in store.objects if path.startswith(DEPARTURES.folder) and path != DEPARTURES.genesis_path}
    if places != {link.path for link in links}:
        return "the chain forks: a link that the walk does not reach"
    try:
        for file in itertools.chain.from_iterable(link.files for link in links):
            chain.read_file(store, file)
    except ChainError:
        return "a linked file is gone, or holds other bytes"
    return links


def _replay(habits: Habits, life: Life, log_end: int) -> Next:
    """Where a writer stands that has heard these answers."""
    verdicts: list[tuple[str, bool]] = []
    writer: Coroutine[Work, object, bool] = write(habits, log_end, life.nonces, verdicts)
    try:
        work = writer.send(None)
        for answer in life.heard:
            work = writer.throw(answer.kind("as scheduled")) if isinstance(answer, Raised) else writer.send(answer)
    except StopIteration as end:
        return Next(None, "", None, bool(end.value), tuple(verdicts))
    except (asyncio.CancelledError, Exception) as error:
        return Next(None, "", None, Raised(type(error)), tuple(verdicts))
    writer.close()
    operation, created = _peek(work)
    return Next(work, operation, created, None, tuple(verdicts))


class _Peeked(BaseException):
    """Nothing that the code under test would catch."""


class _Peek:
    """A store that tells the first thing that is asked of it."""

    url = "peek://"

    def create(self, path: str, data: bytes) -> None:
        raise _Peeked(f"creates {path}", (path, data))

    def read(self, path: str) -> bytes:
        raise _Peeked(f"reads {path}", None)

    def list(self, prefix: str) -> list[str]:
        raise _Peeked(f"lists {prefix}", None)

    def delete(self, path: str) -> None:
        raise _Peeked(f"deletes {path}", None)

    def half_written(self, before: datetime.datetime) -> tuple[str, ...]:
        raise _Peeked("looks for what is half written", None)


def _peek(work: Work) -> tuple[str, Object | None]:
    try:
        work(_Peek())
    except _Peeked as peeked:
        return cast(tuple[str, Object | None], peeked.args)
    raise AssertionError("a call that asks nothing of the store")


# ---- worlds ----


def _created(objects: Objects, object: Object) -> Objects:
    return objects if any(path == object[0] for path, _ in objects) else objects | {object}


def _with(world: World, objects: Objects, arrived: Object | None = None) -> World:
    """A world with other objects; creates that can only be refused are forgotten."""
    taken = {path for path, _ in objects}
    late = frozenset(late for late in world.on_their_way if late[0] not in taken and late != arrived)
    return world._replace(objects=objects, on_their_way=late)


def _replaced(world: World, index: int, life: Life | None) -> World:
    return world._replace(writers=(*world.writers[:index], life, *world.writers[index + 1 :]))


def _fresh_nonces(world: World) -> tuple[str, ...]:
    """The least that nobody holds."""
    held = {nonce for life in world.writers if life for nonce in life.nonces}
    for object in (*world.objects, *world.on_their_way):
        held |= _nonces_in(object)
    unheld = (nonce for nonce in map("nonce{}".format, itertools.count()) if nonce not in held)
    return tuple(itertools.islice(unheld, SPANS_AHEAD + 1))


@cache
def _nonces_in(object: Object) -> frozenset[str]:
    path, data = object
    return frozenset(re.findall(r"nonce\d+", path + data.decode()))


def _schedule(parents: dict[World, tuple[World, str] | None], world: World) -> tuple[str, ...]:
    steps = []
    while (came := parents[world]) is not None:
        world, step = came
        steps.append(step)
    return tuple(reversed(steps))
