"""Pushing rows: some or a table in one call, which is cut into parts, or one by one through a pusher that puts them
together.

`stillwell.pushing.status` says what may have become of a row.
"""

import asyncio
import dataclasses
import functools
import hashlib
import itertools
import re
import uuid
from collections.abc import Awaitable, Callable, Generator, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self

import msgspec

from stillwell.client.errors import Closed, Failure, NotWritten, PartlyPushed, PushFailed, RowRejected
from stillwell.errors import RequestError, StillwellError
from stillwell.floats import writable
from stillwell.pushing.status import PushStatus
from stillwell.pushing.token import Token

Mode = Literal["sync", "async"]
"""sync: answered once the rows are in Redis. async: answered once Kafka holds them."""

To = Literal["online", "offline", "online_and_offline"]

Row = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, slots=True)
class PushedRow:
    """What became of one row. reason, message: why it was rejected; the reason is the word that dead letters have."""

    status: PushStatus
    reason: str | None = None
    message: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Pushed:
    """What became of the rows of a push, in their order. token: hand it to a read, as `after`, that must see them; None
    where all were rejected."""

    token: Token | None
    rows: tuple[PushedRow, ...]

    @property
    def rejected(self) -> tuple[int, ...]:
        """The rows, by their number, that cannot be used."""
        return tuple(number for number, row in enumerate(self.rows) if row.status is PushStatus.REJECTED)


@dataclasses.dataclass(frozen=True, slots=True)
class Pushing:
    """A request to push. rows: each as JSON."""

    view: str
    rows: tuple[msgspec.Raw, ...]
    mode: Mode
    to: To
    transform_on_write: bool
    idempotency_key: str | None


PART_ROWS = 500
PART_BYTES = 512 * 1024
"""The most of one request. A service that is as it comes takes twice that."""


async def pushed_in_parts(push: Callable[[Pushing], Awaitable[Pushed]], whole: Pushing, rows: Any) -> Pushed:
    """What became of rows, or of a table, that are pushed one part after the other. whole: the push, without its rows.

    Raises RequestError, PartlyPushed where a part fails that is not the first, and what the first one raises.
    """
    token: Token | None = None
    told: list[PushedRow] = []
    try:
        for number, part in enumerate(_parts(rows)):
            key = whole.idempotency_key
            own = dataclasses.replace(whole, rows=part, idempotency_key=key and _key_of(key, number))
            pushed = await _of_whole(push(own), len(told))
            token = _together(token, pushed.token)
            told += pushed.rows
    except StillwellError as error:
        if not told:
            raise
        raise PartlyPushed(Pushed(token, tuple(told)), error) from error
    return Pushed(token, tuple(told))


async def _of_whole(push: Awaitable[Pushed], before: int) -> Pushed:
    """What became of a part. before: so many rows, by which its own are counted on in errors."""
    try:
        return await push
    except RequestError as error:
        named = _ROW.match(error.field)
        if not before or named is None:
            raise
        field = f"rows[{int(named[1]) + before}]{error.field[named.end() :]}"
        raise RequestError(field, str(error).removeprefix(f"{error.field}: ")) from error


def _key_of(key: str, part: int) -> str:
    """The idempotency key of a part: that of the whole for the first, which most often is the only one."""
    return hashlib.sha256(f"{key}#{part}".encode("utf-8", "surrogatepass")).hexdigest() if part else key


def _parts(rows: Any) -> Iterator[tuple[msgspec.Raw, ...]]:
    """Rows in JSON, as many at once as one request may have; one part at least. Raises RequestError."""
    part: list[msgspec.Raw] = []
    nbytes = 0
    for number, row in enumerate(rows_of(rows)):
        encoded = encoded_row(row, number)
        size = len(bytes(encoded))
        if part and (len(part) == PART_ROWS or nbytes + size > PART_BYTES):
            yield tuple(part)
            part, nbytes = [], 0
        part.append(encoded)
        nbytes += size
    yield tuple(part)


def rows_of(rows: Any) -> Iterable[Row]:
    """Rows from what a caller may give: one, several, or a table of Polars, pandas or Arrow, which is never there as
    Python values as a whole. Raises RequestError."""
    if isinstance(rows, Mapping):
        return [rows]
    if hasattr(rows, "iter_slices"):  # Polars
        return _listed(part.to_dicts() for part in rows.iter_slices(PART_ROWS))
    if hasattr(rows, "itertuples"):  # pandas
        rows = _arrow_of(rows)
    if hasattr(rows, "to_pylist") and hasattr(rows, "slice"):  # Arrow
        return _listed(rows.slice(at, PART_ROWS).to_pylist() for at in range(0, len(rows), PART_ROWS))
    if hasattr(rows, "collect_schema") and hasattr(rows, "collect"):
        raise RequestError("rows", "is a table that is not computed yet; push what its collect() gives")
    if isinstance(rows, str | bytes) or not isinstance(rows, Iterable):
        raise RequestError("rows", f"must be a row, a list of rows or a table, not {type(rows).__name__}")
    return rows


def _listed(parts: Iterable[Iterable[Row]]) -> Iterator[Row]:
    return itertools.chain.from_iterable(parts)


def _arrow_of(frame: Any) -> Any:
    """A frame of pandas as a table of Arrow: what pandas takes for missing, NaN too, is null, and an index that has a
    name is a column. Times are cut to microseconds, as everywhere here."""
    import pyarrow as pa

    named = any(name is not None for name in frame.index.names)
    try:
        table = pa.Table.from_pandas(frame.reset_index() if named else frame, preserve_index=False)
        micro = [
            field.with_type(pa.timestamp("us", field.type.tz)) if pa.types.is_timestamp(field.type) else field
            for field in table.schema
        ]
        return table.cast(pa.schema(micro), safe=False)
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise RequestError("rows", f"holds a column that has no one type: {error}") from None


def encoded_row(row: Row, number: int = 0) -> msgspec.Raw:
    """A row in JSON: times in ISO-8601, bytes in base64, numbers that JSON lacks by name. Raises RequestError."""
    if not isinstance(row, Mapping):
        raise RequestError(f"rows[{number}]", f"must be a mapping of columns to values, not {type(row).__name__}")
    try:
        return msgspec.Raw(_encode({name: jsonable(value) for name, value in row.items()}))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise RequestError(f"rows[{number}]", f"holds a value that JSON has no form for: {error}") from None


def jsonable(value: Any) -> Any:
    """A value as the service reads it: msgspec would write null for what is no number."""
    return writable(value) if isinstance(value, float) else value


def plain(value: Any) -> Any:
    """For msgspec: a scalar of NumPy's, which it does not know, as Python's."""
    if hasattr(value, "item"):
        return jsonable(value.item())
    raise TypeError(f"{type(value).__name__} {value!r:.80}")


_encode = msgspec.json.Encoder(enc_hook=plain).encode


# ---- one by one ----


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


_ROUNDS = 4
"""How often a batch is sent again without a row that the service refused together with all others. Then each row goes
alone."""

_ROW = re.compile(r"rows\[(\d+)\]")


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
            named = _ROW.fullmatch(error.field)
            if named is None or int(named[1]) >= len(rows):
                raise
            rows[int(named[1])][1]._settle(RowRejected(str(error).removeprefix(f"{error.field}: ")))
            return int(named[1])
        except NotWritten as error:
            self._token = _together(self._token, error.token)  # Kafka holds the rows: who waits for it sees them
            raise
        self._token = _together(self._token, pushed.token)
        for (_, receipt), outcome in zip(rows, pushed.rows, strict=True):
            receipt._settle(outcome)
        return None


def _together(one: Token | None, other: Token | None) -> Token | None:
    """The token of two pushes to one view."""
    if one is None or other is None:
        return one or other
    if one.incarnation != other.incarnation:
        # The topic was made anew: what the older one had cannot be waited for any more.
        return max(one, other, key=lambda token: token.incarnation)
    places = (*one.offsets.items(), *other.offsets.items())
    joined = Token.of_places(one.view, one.incarnation, places)
    return joined.applied(one.epoch) if one.epoch is not None and one.epoch == other.epoch else joined


def _told(error: BaseException) -> StillwellError:
    return error if isinstance(error, StillwellError) else StillwellError(f"{type(error).__name__}: {error}")
