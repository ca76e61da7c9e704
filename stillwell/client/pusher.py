"""Pushing rows one by one, put together into batches."""

import asyncio
import functools
import re
import uuid
from collections.abc import Awaitable, Callable, Generator, Sequence
from types import TracebackType
from typing import Any, Self

import msgspec

from stillwell.client.errors import Closed, Failure, NotWritten, PushFailed, RowRejected
from stillwell.client.pushed import Pushed, PushedRow, Row, together
from stillwell.client.rows import NAMED_ROW, encoded_row
from stillwell.errors import RequestError, StillwellError
from stillwell.pushing.status import PushStatus
from stillwell.pushing.token import Token

_ROUNDS = 4
"""How often a batch is sent again without a row that the service refused together with all others. Then each row goes
alone."""


_OF_ALL = re.compile(r"(; [0-9]+ others are refused too)?\. Nothing of the request was taken$")
"""What the service says of the other rows of a request: here they are pushed again."""


class Receipt:
    """Stands for a row that was handed to a pusher. Awaited, it gives the row's PushedRow, or raises why there is none.

    A failure that nobody awaits is raised by the pusher's `flush`, or when its block ends.
    """

    __slots__ = ("_done", "_error", "_failures", "_pushed", "_row", "_wanted", "_watched")

    def __init__(
        self,
        row: Row,
        done: "asyncio.Future[None]",
        failures: "dict[Receipt, Failure]",
        wanted: Callable[[], None] | None = None,
    ) -> None:
        """wanted: called when somebody waits for the outcome."""
        self._wanted = wanted
        self._row = row
        self._done = done
        self._failures = failures
        self._watched = False
        self._pushed: PushedRow | None = None
        self._error: StillwellError | None = None

    def __await__(self) -> Generator[Any, None, PushedRow]:
        return self._outcome().__await__()

    async def settled(self) -> None:
        """Wait until there is an outcome, without asking for it: no batch is sent for that before its time."""
        await asyncio.shield(self._done)

    async def _outcome(self) -> PushedRow:
        self._watched = True
        self._failures.pop(self, None)
        if self._wanted:
            self._wanted()
        await asyncio.shield(self._done)
        if self._error is not None:
            raise self._error
        assert self._pushed is not None
        return self._pushed

    def _settle(self, outcome: PushedRow | StillwellError) -> None:
        """Know what became of the row."""
        if isinstance(outcome, PushedRow):
            if outcome.status is not PushStatus.REJECTED:
                self._pushed = outcome
                return
            outcome = RowRejected(outcome.message or "the row was rejected", outcome.reason)
        self._error = outcome
        if not self._watched:
            self._failures[self] = Failure(self._row, outcome)


class _Batch:
    """Rows that go in one request."""

    __slots__ = ("done", "nbytes", "number", "receipts", "rows", "timer")

    def __init__(self, number: int) -> None:
        self.number = number
        self.rows: list[msgspec.Raw] = []
        self.receipts: list[Receipt] = []
        self.nbytes = 0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.timer: asyncio.TimerHandle | None = None


class Pusher:
    """Puts rows together that are pushed one by one. For one event loop; `async with` sends what is left in the end.

    Rows that wait or are on their way are at most `max_waiting`: beyond, `push` waits. They are sent, each batch under
    an idempotency key of its own, when there are `max_rows` of them or `max_bytes`, or the first has waited for
    `max_delay` seconds; at most `concurrent` batches at once, so that rows may overtake each other. That does no harm:
    which row is the newest is in the rows.

    With a key of the caller's, no clock decides how rows are put together: a batch that is not full is sent when
    somebody waits for one of its rows, by `flush`, or in the end. So the same rows in the same order make the same
    batches, which the service knows again.
    """

    def __init__(
        self,
        send: Callable[[tuple[msgspec.Raw, ...], str], Awaitable[Pushed]],
        *,
        max_rows: int,
        max_delay: float,
        max_bytes: int,
        max_waiting: int,
        concurrent: int,
        idempotency_key: str | None = None,
    ) -> None:
        """send: pushes rows under an idempotency key. idempotency_key: what those of all batches begin with."""
        self._send = send
        self._key = idempotency_key
        self._batches = 0
        self._max_rows = min(max_rows, max_waiting)
        self._max_delay = max_delay
        self._max_bytes = max_bytes
        self._max_waiting = max_waiting
        self._room = asyncio.Semaphore(max_waiting)
        self._sending = asyncio.Semaphore(concurrent)
        self._batch: _Batch | None = None
        self._under_way: set[asyncio.Task[None]] = set()
        self._failures: dict[Receipt, Failure] = {}
        self._closed = False
        self._token: Token | None = None

    @property
    def token(self) -> Token | None:
        """Names all rows that have an outcome by now: hand it to a read, as `after`, that must see them. None where
        nothing was published."""
        return self._token

    async def push(self, row: Row) -> Receipt:
        """Hand over one row; waits while too many are on their way. The row may be changed afterwards.

        Raises RequestError for a row that has no form in JSON, and PushFailed where too many others have failed and
        nobody has asked what became of them.
        """
        encoded = encoded_row(row)
        self._require_open()
        if len(self._failures) >= self._max_waiting:
            self._raise_failures()
        await self._room.acquire()
        if self._closed:
            self._room.release()
            self._require_open()
        nbytes = len(bytes(encoded))
        if self._batch and self._batch.nbytes + nbytes > self._max_bytes:
            self._dispatch()
        batch = self._batch
        if batch is None:
            batch = self._batch = _Batch(self._batches)
            self._batches += 1
            if self._key is None:
                batch.timer = asyncio.get_running_loop().call_later(self._max_delay, self._dispatch)
        wanted = None if self._key is None else functools.partial(self._dispatch, batch)
        receipt = Receipt(dict(row), batch.done, self._failures, wanted)
        batch.rows.append(encoded)
        batch.receipts.append(receipt)
        batch.nbytes += nbytes
        if len(batch.rows) >= self._max_rows:
            self._dispatch()
        return receipt

    async def flush(self) -> None:
        """Wait until all rows so far have an outcome. Raises PushFailed with those that failed unwatched."""
        self._dispatch()
        while self._under_way:
            await asyncio.wait(self._under_way)
        self._raise_failures()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._closed = True
        try:
            await self.flush()
        except PushFailed as failed:
            if error is None:
                raise
            # What ended the block is what its caller must hear of first.
            error.add_note(f"And of what was handed to the pusher, {failed}")

    def _require_open(self) -> None:
        if self._closed:
            raise Closed("the pusher is closed: its `async with` block has ended")

    def _raise_failures(self) -> None:
        if self._failures:
            failures = tuple(self._failures.values())
            self._failures.clear()
            raise PushFailed(failures)

    def _dispatch(self, only: _Batch | None = None) -> None:
        """Send what waits; or only this batch, if it waits."""
        batch = self._batch
        if batch is None or (only is not None and only is not batch):
            return
        self._batch = None
        if batch.timer is not None:
            batch.timer.cancel()
        task = asyncio.get_running_loop().create_task(self._carry(batch))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _carry(self, batch: _Batch) -> None:
        """A batch to its end, whatever that is."""
        try:
            async with self._sending:
                await self._settle(batch)
        except BaseException as error:
            for receipt in batch.receipts:
                if receipt._pushed is None and receipt._error is None:
                    receipt._settle(_told(error))
            if not isinstance(error, StillwellError):
                raise
        finally:
            for _ in batch.rows:
                self._room.release()
            batch.done.set_result(None)

    async def _settle(self, batch: _Batch) -> None:
        """Push a batch; where the service refuses all of it for one row, push the others without that one."""
        left = list(zip(batch.rows, batch.receipts, strict=True))
        for attempt in range(_ROUNDS):
            refused = await self._pushed(left, self._key_of(batch, attempt))
            if refused is None:
                return
            del left[refused]
            if not left:
                return
        for attempt, each in enumerate(left, _ROUNDS):
            await self._pushed([each], self._key_of(batch, attempt))

    def _key_of(self, batch: _Batch, attempt: int) -> str:
        return uuid.uuid4().hex if self._key is None else f"{self._key}/{batch.number}/{attempt}"

    async def _pushed(self, rows: Sequence[tuple[msgspec.Raw, Receipt]], key: str) -> int | None:
        """Push rows together. The number of the one for which all were refused; None where all have their outcome."""
        try:
            pushed = await self._send(tuple(row for row, _ in rows), key)
        except RequestError as error:
            named = NAMED_ROW.fullmatch(error.field)
            if named is None or int(named[1]) >= len(rows):
                raise
            said = str(error).removeprefix(f"{error.field}: ")
            rows[int(named[1])][1]._settle(RowRejected(_OF_ALL.sub("", said)))
            return int(named[1])
        except NotWritten as error:
            self._token = together(self._token, error.token)  # Kafka holds the rows: who waits for it sees them
            raise
        self._token = together(self._token, pushed.token)
        for (_, receipt), outcome in zip(rows, pushed.rows, strict=True):
            receipt._settle(outcome)
        return None


def _told(error: BaseException) -> StillwellError:
    return error if isinstance(error, StillwellError) else StillwellError(f"{type(error).__name__}: {error}")
