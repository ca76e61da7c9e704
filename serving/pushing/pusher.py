"""What becomes of a push: transformed with those that came at the same moment, appended to Kafka, written to Redis.

Nothing is acknowledged that Kafka does not hold. From then on nothing can be lost: a process that dies before it has
written to Redis leaves it to the worker, who does it from the same records to the same bytes.
"""

import asyncio
import collections
import dataclasses
import functools
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from serving.pushing.batch import (
    FEW_ROWS,
    Batch,
    Judged,
    Push,
    Refusal,
    ViewBatches,
    is_little,
    raw_records,
    statuses,
    too_large,
)
from stillwell.broken import Broken
from stillwell.errors import (
    NotDefined,
    NotWritten,
    OutcomeUnknown,
    RequestError,
    StillwellError,
    StoreError,
    StoreNotReady,
    StoreUnavailable,
)
from stillwell.evaluate import WHAT_CODE_RAISES
from stillwell.layout.online import AppliedEach, EncodedRows, OnlineState, not_ready, written_under
from stillwell.pushing.instead import not_a_view
from stillwell.pushing.log import Place, PushLog
from stillwell.pushing.record import PushRecord
from stillwell.pushing.status import PushStatus
from stillwell.pushing.token import Token
from stillwell.spec import DefinitionsSpec

_T = TypeVar("_T")

_ROWS_TOGETHER = 1_000
"""Rows that are transformed together: while it lasts, nothing else of their view is. A push of more goes alone."""


class OnlineRows(Protocol):
    """What is needed of the online store."""

    async def put_each(self, rows: Sequence[EncodedRows], epoch: str) -> AppliedEach:
        """Write each row that is newer than the one in its place; what became of each, and which server says so."""

    async def read_state(self) -> OnlineState:
        """Which epoch is in force (None: not ready), and which server answers."""


class Topics(Protocol):
    """What is asked about push topics."""

    async def incarnation(self, topic: str) -> int:
        """The number of the incarnation in force. Raises StoreUnavailable."""


class Threads(Protocol):
    """Runs blocking calls off the event loop."""

    async def call(self, work: Callable[..., _T], *arguments: Any) -> _T:
        """What `work` returns or raises."""


@dataclasses.dataclass(frozen=True, slots=True)
class Written:
    """What a push has come to. token: None where nothing was published. statuses: of each row; empty where
    nothing was written to Redis, because that was not asked for."""

    token: Token | None
    statuses: Sequence[PushStatus]
    refusals: tuple[Refusal, ...]


PATIENCE_S = 30.0
"""Longer than the largest push takes with a slow function, and no longer than clients wait."""

_CARRIED = 2
"""Batches of a view that are on their way to Kafka and Redis while others gather. A batch costs a millisecond of
processor time before its first row: with one on its way to each store, those that come meanwhile share the next one."""


@dataclasses.dataclass(slots=True)
class _Waiting:
    """A push that is on its way. write: whether it is to be in Redis before it is answered."""

    push: Push
    write: bool
    done: "asyncio.Future[Written]"


class Pusher:
    """For one event loop; `close` it."""

    def __init__(
        self,
        definitions: DefinitionsSpec,
        views: Mapping[str, ViewBatches],
        log: PushLog,
        topics: Topics,
        online: OnlineRows,
        threads: Threads,
        functions: Callable[[str], Threads],
        now_ms: Callable[[], int],
        most_rows: int,
        patience: float = PATIENCE_S,
        broken: Callable[[str, Sequence[Broken]], None] = lambda topic, broken: None,
    ) -> None:
        """threads: one is enough. functions: those in which the function of a view is called, by the view's name: where
        one never ends, it is not to hold up other views. now_ms: the clock that records are stamped by. most_rows: that
        may be on their way; beyond, pushes are refused. patience: seconds that a view may take to judge a batch.
        broken: told of a topic's rules that raw events broke which are transformed here, and come to a worker as
        finished rows."""
        self._definitions = definitions
        self._views = views
        self._log = log
        self._topics = topics
        self._online = online
        self._threads = threads
        self._now_ms = now_ms
        self._most_rows = most_rows
        self._broken = broken
        self.rows = 0
        """How many are on their way."""
        self._gathering = {name: _Gathering() for name in views}
        self._judges = {
            name: _Judge(name, threads if view.view.function is None else functions(name), patience)
            for name, view in views.items()
        }
        self._checks = {name: _Checks(view, threads, now_ms) for name, view in views.items()}
        self._background: set[asyncio.Task[None]] = set()
        self._epoch: str | None = None
        self._under: str | None = None

    @property
    def views(self) -> Sequence[str]:
        """The names of all that can be pushed to."""
        return list(self._views)

    def view(self, name: str, field: str = "view") -> ViewBatches:
        """The view of a name. field: what a request calls it. Raises NotDefined."""
        found = self._views.get(name)
        if found is None:
            feast = "; a push source is called as its view" if field == "push_source_name" else ""
            raise NotDefined(field, not_a_view(self._definitions, name) + feast)
        return found

    async def append(self, push: Push) -> Written:
        """Have rows in Kafka, for a worker to write. Where one is no row or event of the view, none is taken; what the
        view makes of raw events only the worker finds out.

        Raises RequestError, StoreUnavailable and OutcomeUnknown.
        """
        if push.transform:
            records = raw_records(push, self.view(push.view).view.version)
            for number, record in enumerate(records):
                if too_large(record):
                    raise RequestError(f"rows[{number}]", "is too large for Kafka: push less in one row")
            return await self._counted(push, self._append(push, records))
        return await self._counted(push, self._join(push, write=False))

    async def write(self, push: Push) -> Written:
        """Have rows in Kafka, and then in Redis.

        Raises as `append`, StoreNotReady where Redis may have lost rows, and NotWritten, with the token, where Kafka
        has the rows and Redis does not answer.
        """
        await self._in_force()
        return await self._counted(push, self._join(push, write=True))

    async def close(self) -> None:
        """Wait for what is on its way."""
        while self._background:
            await asyncio.wait(self._background)

    # ---- one push ----

    async def _counted(self, push: Push, work: Coroutine[Any, Any, Written]) -> Written:
        count = len(push.values)
        if self.rows + count > self._most_rows and self.rows:
            work.close()
            raise StoreUnavailable(
                f"{self.rows} pushed rows are on their way already, of {self._most_rows} that may be; push again later"
            )
        self.rows += count
        try:
            return await work
        finally:
            self.rows -= count

    async def _append(self, push: Push, records: Sequence[PushRecord]) -> Written:
        if refusals := await self._checks[push.view].check(push):
            raise _refused(refusals)
        incarnation, places = await self._publish(self.view(push.view).topic, records, self._now_ms())
        return Written(_token(push.view, incarnation, places), (), ())

    async def _publish(self, topic: str, records: Sequence[PushRecord], now: int) -> tuple[int, list[Place]]:
        """Have records in Kafka; where, and in which incarnation of the topic.

        That is asked before, to publish nothing that nobody will read; and again, which costs nothing while the answer
        holds, and offsets have not begun anew: a token of the incarnation before would be passed at once.
        """
        incarnation = await self._topics.incarnation(topic)
        if not records:
            return incarnation, []
        places = await self._log.append(topic, records, now)
        try:
            return await self._topics.incarnation(topic), places
        except StoreError as error:
            raise OutcomeUnknown(f"Kafka holds the rows, in a topic that nobody reads yet: {error}") from error

    async def _join(self, push: Push, write: bool) -> Written:
        """Be in the next batch of the view."""
        self.view(push.view)
        waiting = _Waiting(push, write, asyncio.get_running_loop().create_future())
        gathering = self._gathering[push.view]
        gathering.add(waiting)
        if not gathering.gathers:
            gathering.gathers = True
            self._spawn(self._gather(push.view, gathering))
        return await waiting.done

    # ---- batches ----

    async def _gather(self, name: str, gathering: "_Gathering") -> None:
        """Transform what waits, one batch after another: while some are under way, the next gathers."""
        view = self._views[name]
        try:
            while gathering.waiting:
                await gathering.turn()
                together = gathering.next()
                now = self._now_ms()
                values = [value for each in together for value in each.push.values]
                try:
                    judge = functools.partial(view.judge, [each.push for each in together], now)
                    batch = judge() if view.quick and is_little(values) else await self._judges[name].call(judge)
                except BaseException as error:
                    _fail(together, error)
                    if _ends(error):
                        raise
                    continue
                self._broken(view.topic, batch.broken)
                gathering.carry(self._spawn(self._carry(view, batch, together, now)), len(values))
        finally:
            gathering.gathers = False

    async def _carry(self, view: ViewBatches, batch: Batch, together: Sequence[_Waiting], now: int) -> None:
        """A batch to Kafka, then to Redis."""
        try:
            incarnation, places = await self._publish(view.topic, batch.records, now)
        except BaseException as error:
            _fail(together, error)
            if _ends(error):
                raise
            return
        tokens = [_token(view.view.name, incarnation, [places[at] for at in judged.records]) for judged in batch.judged]
        for each, judged, token in zip(together, batch.judged, tokens, strict=True):
            if not each.write:  # Redis, which the others wait for, may be slow or away
                _resolve(each, None, token, judged, ())
        try:
            if any(each.write for each in together) and any(place.timestamp != now for place in places):
                batch = await self._judges[view.view.name].call(functools.partial(view.as_kept, batch, places))
            told, epoch = await self._put(view, batch, places, incarnation, together)
        except BaseException as error:
            for each, judged, token in zip(together, batch.judged, tokens, strict=True):
                _resolve(each, _not_written(error, token), token, judged, ())
            if _ends(error):
                raise
            return
        for each, judged, token, of_push in zip(together, batch.judged, tokens, told, strict=True):
            if token and epoch:
                token = token.applied(epoch)
            _resolve(each, None, token, judged, of_push)

    async def _put(
        self,
        view: ViewBatches,
        batch: Batch,
        places: Sequence[Place],
        incarnation: int,
        together: Sequence[_Waiting],
    ) -> tuple[list[list[PushStatus]], str | None]:
        """Write the rows of those pushes that want it. What became of each, and what tokens are to say of it."""
        if not any(each.write for each in together):
            return [[] for _ in together], None
        writing = batch.of([each.write for each in together])
        encode = functools.partial(view.encode, writing, places, incarnation)
        little = writing.frame.height <= FEW_ROWS and is_little([record.value for record in batch.records])
        encoded = encode() if little else await self._threads.call(encode)
        if not encoded.rows.keys:
            return statuses(batch, encoded, []), self._under
        put, epoch = await self._under_epoch(functools.partial(self._online.put_each, [encoded.rows]))
        self._under = written_under(epoch, put.replication_id)
        return statuses(batch, encoded, put.answers[0]), self._under

    async def _under_epoch(self, put: Callable[[str], Coroutine[Any, Any, _T]]) -> tuple[_T, str]:
        """Write under the epoch in force: that which is known, or the one that has taken its place."""
        known = self._epoch
        if known is not None:
            try:
                return await put(known), known
            except StoreNotReady:
                self._epoch = None
        epoch = await self._in_force()
        return await put(epoch), epoch

    async def _in_force(self) -> str:
        """The epoch in force. Raises StoreNotReady where there is none, and StoreUnavailable."""
        if self._epoch is None:
            self._epoch = (await self._online.read_state()).epoch
        if self._epoch is None:
            raise not_ready("Redis")
        return self._epoch

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task


class _Checks:
    """Has raw events of one view looked at, those of pushes of one moment together: a check takes a fifth of a
    millisecond before its first row."""

    def __init__(self, view: ViewBatches, threads: Threads, now_ms: Callable[[], int]) -> None:
        self._view = view
        self._threads = threads
        self._now_ms = now_ms
        self._waiting: list[tuple[Push, asyncio.Future[tuple[Refusal, ...]]]] = []

    async def check(self, push: Push) -> tuple[Refusal, ...]:
        """The events that are none of the view's topic."""
        if not (self._view.checks_quickly and is_little(push.values)):
            (refusals,) = await self._threads.call(functools.partial(self._view.check, [push], self._now_ms()))
            return refusals
        loop = asyncio.get_running_loop()
        if not self._waiting:
            loop.call_soon(loop.call_soon, self._check)  # behind the requests that have come by now
        done: asyncio.Future[tuple[Refusal, ...]] = loop.create_future()
        self._waiting.append((push, done))
        return await done

    def _check(self) -> None:
        waiting, self._waiting = self._waiting, []
        begin = rows = 0
        for end, (push, _) in enumerate(waiting):
            if rows and rows + len(push.values) > FEW_ROWS:
                self._check_together(waiting[begin:end])
                begin, rows = end, 0
            rows += len(push.values)
        self._check_together(waiting[begin:])

    def _check_together(self, waiting: Sequence[tuple[Push, "asyncio.Future[tuple[Refusal, ...]]"]]) -> None:
        try:
            refusals = self._view.check([push for push, _ in waiting], self._now_ms())
        except WHAT_CODE_RAISES as error:
            for _, done in waiting:
                if not done.done():
                    done.set_exception(_told(error))
            return
        for (_, done), each in zip(waiting, refusals, strict=True):
            if not done.done():
                done.set_result(each)


class _Judge:
    """Where a view is computed, off the event loop, within bounds: a function of the user's may never end."""

    def __init__(self, view: str, threads: Threads, patience: float) -> None:
        self._view = view
        self._threads = threads
        self._patience = patience
        self._late: set[asyncio.Future[Any]] = set()
        """Calls that were given up and have not ended: while there are such, no other is begun."""

    async def call(self, work: Callable[[], _T]) -> _T:
        """What `work` returns or raises. Raises StoreUnavailable where it takes too long, or another still does."""
        if not self._late:
            call = asyncio.get_running_loop().create_task(self._threads.call(work))
            await asyncio.wait([call], timeout=self._patience)
            if call.done():
                return call.result()
            self._late.add(call)
            call.add_done_callback(self._has_ended)
        raise StoreUnavailable(
            f"{self._view}: what it computes of pushed rows has not ended in {self._patience:g} s; push again later, "
            "or see what its function or expressions wait for"
        )

    def _has_ended(self, call: "asyncio.Future[Any]") -> None:
        self._late.discard(call)
        if not call.cancelled():
            call.exception()  # nobody else asks, and asyncio would complain of that


class _Gathering:
    """Pushes of one view that wait for the next batch, and how many batches are on their way."""

    def __init__(self) -> None:
        self.gathers = False
        """Whether there is a task that sees to them."""
        self.waiting: collections.deque[_Waiting] = collections.deque()
        self._rows = 0
        self._carried = 0
        self._carried_rows = 0
        self._changed = asyncio.Event()

    def add(self, push: _Waiting) -> None:
        """Have a push in one of the next batches."""
        self.waiting.append(push)
        self._rows += len(push.push.values)
        self._changed.set()

    async def turn(self) -> None:
        """Wait until a batch may go."""
        while not self._may_go():
            self._changed.clear()
            await self._changed.wait()

    def _may_go(self) -> bool:
        """A whole batch may at once, since to wait makes it no larger. Of those that are less one may be on its way,
        and another that has no fewer rows: two that take turns at Kafka and Redis, and behind them the next gathers."""
        if not self._carried or self._rows >= _ROWS_TOGETHER:
            return True
        return self._carried < _CARRIED and self._rows >= self._carried_rows

    def next(self) -> list[_Waiting]:
        """Those that go together: the first that waits, and as many behind it as a batch may have."""
        together = [self._pop()]
        rows = len(together[0].push.values)
        while self.waiting and rows + len(self.waiting[0].push.values) <= _ROWS_TOGETHER:
            together.append(self._pop())
            rows += len(together[-1].push.values)
        return together

    def carry(self, batch: asyncio.Task[None], rows: int) -> None:
        """A batch of so many rows is on its way, until it is done."""
        self._carried += 1
        self._carried_rows += rows
        batch.add_done_callback(functools.partial(self._arrived, rows))

    def _arrived(self, rows: int, batch: asyncio.Task[None]) -> None:
        self._carried -= 1
        self._carried_rows -= rows
        self._changed.set()

    def _pop(self) -> _Waiting:
        first = self.waiting.popleft()
        self._rows -= len(first.push.values)
        return first


def _token(view: str, incarnation: int, places: Sequence[Place]) -> Token | None:
    if not places:
        return None
    return Token.of_places(view, incarnation, ((place.partition, place.offset) for place in places))


def _not_written(error: BaseException, token: Token | None) -> Exception:
    if token is None or not isinstance(error, StillwellError):
        return _told(error)
    return NotWritten(
        f"Kafka holds the rows, and the worker will apply them; but the query service could not: {error}. A read with "
        f"after={token} waits for them",
        str(token),
    )


def _resolve(
    waiting: _Waiting, error: Exception | None, token: Token | None, judged: Judged, told: Sequence[PushStatus]
) -> None:
    if waiting.done.done():
        return
    if judged.refused:
        waiting.done.set_exception(_refused(judged.refusals))
    elif error is not None:
        waiting.done.set_exception(error)
    else:
        waiting.done.set_result(Written(token, told, judged.refusals))


def _refused(refusals: Sequence[Refusal]) -> RequestError:
    """Of a push of which nothing is taken."""
    first = refusals[0]
    more = f"; {len(refusals) - 1} others are refused too" if len(refusals) > 1 else ""
    return RequestError(f"rows[{first.row}]", f"{first.error}{more}. Nothing of the request was taken")


def _fail(together: Sequence[_Waiting], error: BaseException) -> None:
    for each in together:
        if not each.done.done():
            each.done.set_exception(_told(error))


def _ends(error: BaseException) -> bool:
    """Whether who meets an error is to end with it, because the task is, or the process."""
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is not None and task.cancelling() > 0
    return not isinstance(error, WHAT_CODE_RAISES)


def _told(error: BaseException) -> Exception:
    """What those who wait are told: a panic of Polars', or the end of a task, is theirs only as a mistake of ours."""
    if isinstance(error, Exception):
        return error
    told = RuntimeError(f"a push has failed: {error!r}")
    told.__cause__ = error
    return told
