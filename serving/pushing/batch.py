"""Pushes of one view, taken together: what each row becomes, what goes to Kafka for it, and then what goes to Redis.

The same pipeline as the worker's over the same records, so that Redis gets from here the bytes that the worker would
write. Blocks while it computes: more than a few rows, and what a user's function makes slow, belong into a thread.
"""

import dataclasses
import datetime
import functools
import itertools
import sys
import time
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from stillwell.broken import Broken
from stillwell.layout.encoder import ViewEncoder
from stillwell.layout.online import Answer, EncodedRows
from stillwell.pushing.log import Place
from stillwell.pushing.pipeline import PushPipeline
from stillwell.pushing.record import LARGEST_RECORD, RAW, PushEncoder, PushRecord, To, headers_of
from stillwell.pushing.status import PushStatus
from stillwell.records import Headers, Records, Reject
from stillwell.spec import ViewSpec

_CLOSE_TO_LARGEST = LARGEST_RECORD // 2
"""Whoever is far from it need not be measured: keys and the rest of the headers have some kilobytes at the most."""

_PLACE = "_place"

FEW_ROWS = 200
"""Rows that the event loop itself judges, in two milliseconds, and encodes, in half a millisecond. A thread would need
the interpreter for as long, and to hand them over and back takes as long again where they are sixteen."""

_FEW_BYTES = 256 * 1024
"""Bytes of such rows: one may have nearly a megabyte, and two hundred of those would hold up everybody."""

_TURN = sys.getswitchinterval()
"""Seconds that a thread keeps the interpreter to itself, however many others want it. What takes longer, as a user's
function may, goes into a thread."""


@dataclasses.dataclass(frozen=True, slots=True)
class Push:
    """Rows that somebody pushes to one view.

    values: each one's JSON object: a raw event where `transform`, else a final row. whole: whether all are refused
    where one is.
    """

    view: str
    values: Sequence[bytes]
    transform: bool
    to: To
    idempotency_key: str | None = None
    whole: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Refusal:
    """A row that cannot be used. row: its number in its push; reason: the word that dead letters have for it."""

    row: int
    reason: str
    error: str


@dataclasses.dataclass(frozen=True, slots=True)
class Judged:
    """What a push is found to be.

    refusals: the rows that cannot be used. records: the span of its records in the batch's. refused: whether nothing of
    it is published.
    """

    push: Push
    begin: int
    refusals: tuple[Refusal, ...]
    records: range
    refused: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Batch:
    """Pushes that were transformed together. records: what goes to Kafka, of all of them; frame: the rows that go to
    Redis, with the record that each comes from as `_offset`, and its place among all that was pushed as `_place`.
    timestamp: of the records, by which they were judged. broken: the rules that raw events broke."""

    view: ViewSpec
    judged: tuple[Judged, ...]
    records: tuple[PushRecord, ...]
    frame: pl.DataFrame
    filtered: frozenset[int]
    timestamp: int
    broken: tuple[Broken, ...]

    def of(self, wanted: Sequence[bool]) -> "Batch":
        """With the rows of some of the pushes alone. wanted: which."""
        if all(wanted):
            return self
        of_place = np.repeat(wanted, [len(judged.push.values) for judged in self.judged])
        return dataclasses.replace(
            self, frame=self.frame.filter(pl.Series(of_place[self.frame.get_column(_PLACE).to_numpy()]))
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Encoded:
    """Rows for Redis, and for each in their order its place among all that was pushed."""

    rows: EncodedRows
    places: npt.NDArray[np.int64]


class ViewBatches:
    """Makes batches for one view. Safe from any thread."""

    def __init__(self, project: str, view: ViewSpec, grace: datetime.timedelta, max_future: datetime.timedelta) -> None:
        """grace: how long keys in Redis outlive their rows' TTL. max_future: how far an event time may lie ahead."""
        self.view = view
        self._pipeline = PushPipeline(project, view, max_future=max_future)
        self.topic = self._pipeline.topic.topic
        self.rules = self._pipeline.rules
        self._records = PushEncoder(view)
        self._rows = ViewEncoder(view, grace)
        self.judge([Push(view.name, [], transform=False, to=To.BOTH)], 0)  # imports what it needs, half a second of it
        self.quick = False
        """Whether the last batch of few rows was judged so quickly that the event loop may do the next one itself. A
        user's function is never called there: it has a thread of its own, as in a worker."""
        self.checks_quickly = False
        """The same of the last check."""

    def judge(self, pushes: Sequence[Push], now_ms: int) -> Batch:
        """Transform what was pushed, as records of this timestamp."""
        begun = time.perf_counter()
        values = [value for push in pushes for value in push.values]
        outcome = self._pipeline.run(_records(self.topic, pushes, values, now_ms))
        frame = outcome.rows[0].frame
        rejects = {reject.offset: reject for reject in outcome.rejects}
        made = self._made(pushes, values, frame, rejects)
        judged: list[Judged] = []
        records: list[PushRecord] = []
        record_of = np.full(len(values), -1, np.int64)
        begin = 0
        for push in pushes:
            end = begin + len(push.values)
            good = [at for at in range(begin, end) if at not in rejects] if rejects else range(begin, end)
            refusals = _refusals(range(begin, end), rejects)
            first = len(records)
            refused = push.whole and bool(refusals)
            if not refused:
                record_of[good] = range(first, first + len(good))
                records += [made[at] for at in good]
            judged.append(Judged(push, begin, refusals, range(first, len(records)), refused))
            begin = end
        places = frame.get_column("_offset").to_numpy()
        of_row = record_of[places]
        # Columns are put in their places rather than by `with_columns`, which costs a tenth of a millisecond each time.
        frame = _replaced(frame.hstack([pl.Series(_PLACE, places)]), "_offset", of_row)
        if (of_row < 0).any():
            frame = frame.filter(pl.Series(of_row >= 0))
        filtered = frozenset(range(len(values))).difference(places.tolist(), rejects)
        if 0 < len(values) <= FEW_ROWS and self.view.function is None:
            self.quick = _within_turn(begun)
        return Batch(self.view, tuple(judged), tuple(records), frame, filtered, now_ms, outcome.broken)

    def check(self, pushes: Sequence[Push], now_ms: int) -> list[tuple[Refusal, ...]]:
        """Of each push the raw events that are none of the view's topic; what the view makes of the others is left to a
        worker."""
        begun = time.perf_counter()
        values = [value for push in pushes for value in push.values]
        found = self._pipeline.check(_records(self.topic, pushes, values, now_ms))
        if 0 < len(values) <= FEW_ROWS:
            self.checks_quickly = _within_turn(begun)
        rejects = {reject.offset: reject for reject in found}
        ends = itertools.accumulate(len(push.values) for push in pushes)
        return [_refusals(range(end - len(push.values), end), rejects) for push, end in zip(pushes, ends, strict=True)]

    def as_kept(self, batch: Batch, places: Sequence[Place]) -> Batch:
        """The batch as a worker will find it. Where the topic keeps the log's own timestamps and not those that records
        come with, it judges by others than we did: what it computes or refuses by them must be so in Redis too."""
        if all(place.timestamp == batch.timestamp for place in places):
            return batch
        of_record = [
            judged.begin + row
            for judged in batch.judged
            if not judged.refused
            for row in range(len(judged.push.values))
            if row not in {refusal.row for refusal in judged.refusals}
        ]
        timestamps = [place.timestamp for place in places]
        outcome = self._pipeline.run(
            _as_records(self.topic, [(each.value, each.headers) for each in batch.records], timestamps)
        )
        frame = outcome.rows[0].frame
        record_of = frame.get_column("_offset").to_numpy()
        rejects = {of_record[reject.offset]: reject for reject in outcome.rejects}
        judged = tuple(_with_rejects(each, rejects) for each in batch.judged)
        given = {*frame.get_column("_offset").to_list(), *(reject.offset for reject in outcome.rejects)}
        return dataclasses.replace(
            batch,
            judged=judged,
            frame=frame.hstack([pl.Series(_PLACE, np.array(of_record, np.int64)[record_of])]),
            filtered=frozenset(of_record[number] for number in range(len(batch.records)) if number not in given),
        )

    def encode(self, batch: Batch, places: Sequence[Place], incarnation: int) -> Encoded:
        """The batch's rows for Redis, given where Kafka has its records. Those for the offline store alone are left
        out, and those that are older than another of their entity."""
        frame = batch.of([judged.push.to is not To.OFFLINE for judged in batch.judged]).frame
        of_row = frame.get_column("_offset").to_numpy()
        partitions, offsets, timestamps = np.array(places, np.int64).reshape(-1, 3).T[:, of_row]
        frame = _replaced(_replaced(frame, "_offset", offsets), "_timestamp", timestamps)
        rows, kept = self._rows.encode_unordered(frame, self.topic, incarnation, partitions)
        return Encoded(rows, frame.get_column(_PLACE).to_numpy()[kept])

    def _made(
        self, pushes: Sequence[Push], values: Sequence[bytes], frame: pl.DataFrame, rejects: dict[int, Reject]
    ) -> dict[int, PushRecord]:
        """The record of each row that can be used, by its place. Rejects those that are too large for Kafka."""
        made: dict[int, PushRecord] = {}
        final = self._final(pushes, frame)
        at = 0
        for push in pushes:
            as_it_is = _headers(push, self.view.version, transform=push.transform)
            computed = _headers(push, self.view.version, transform=False)
            for value in push.values:
                if at not in rejects:
                    if at not in final:
                        record = PushRecord(None, value, as_it_is)
                    elif push.transform:
                        record = PushRecord(*final[at], (*computed, (RAW, value)))
                    else:
                        record = PushRecord(*final[at], computed)
                    if len(record.value) + len(value) > _CLOSE_TO_LARGEST and too_large(record):
                        error = f"view {self.view.name}: the row takes more than {LARGEST_RECORD} bytes in Kafka"
                        rejects[at] = Reject(at, self.view.name, "too_long", error)
                    made[at] = record
                at += 1
        return made

    def _final(self, pushes: Sequence[Push], frame: pl.DataFrame) -> dict[int, tuple[bytes, bytes]]:
        """Kafka's key and value of each row that goes there as a final one, by its place."""
        if self.view.rows is not None:
            # A function may make several rows of one event: the worker does it again, from the event itself.
            computed = np.repeat([push.transform for push in pushes], [len(push.values) for push in pushes])
            frame = frame.filter(pl.Series(~computed[frame.get_column("_offset").to_numpy()]))
        return dict(zip(frame.get_column("_offset").to_list(), self._records.keys_and_values(frame), strict=True))


def _within_turn(begun: float) -> bool:
    return time.perf_counter() - begun < _TURN


def _records(topic: str, pushes: Sequence[Push], values: Sequence[bytes], now_ms: int) -> Records:
    headers = [each for push in pushes for each in [_alike(push.transform, push.to, None)] * len(push.values)]
    return _as_records(topic, list(zip(values, headers, strict=True)), [now_ms] * len(values))


def _as_records(topic: str, contents: Sequence[tuple[bytes, Headers]], timestamps: Sequence[int]) -> Records:
    """Records of these values and headers, numbered from 0, as a worker takes them in."""
    count = len(contents)
    return Records(
        topic=topic,
        partition=0,
        start=0,
        end=count,
        offsets=np.arange(count, dtype=np.int64),
        timestamps=np.array(timestamps, np.int64),
        keys=[None] * count,
        values=[value for value, _ in contents],
        headers=[headers for _, headers in contents],
    )


def _replaced(frame: pl.DataFrame, name: str, values: npt.NDArray[np.int64]) -> pl.DataFrame:
    """With other values in a column."""
    return frame.clone().replace_column(frame.get_column_index(name), pl.Series(name, values))


def _refusals(span: range, rejects: Mapping[int, Reject]) -> tuple[Refusal, ...]:
    """Of one push, whose rows are at these places among all that was pushed."""
    if not rejects:
        return ()
    return tuple(Refusal(at - span.start, rejects[at].reason, rejects[at].error) for at in span if at in rejects)


def _with_rejects(judged: Judged, rejects: Mapping[int, Reject]) -> Judged:
    """With those of its rows refused too that a worker will reject."""
    span = range(judged.begin, judged.begin + len(judged.push.values))
    more = _refusals(span, rejects)
    return dataclasses.replace(judged, refusals=(*judged.refusals, *more)) if more else judged


def _headers(push: Push, version: int, *, transform: bool) -> Headers:
    """Those of a record of a push."""
    if push.idempotency_key is None:
        return _alike(transform, push.to, version)
    return headers_of(transform=transform, to=push.to, version=version, idempotency_key=push.idempotency_key)


@functools.lru_cache(maxsize=256)
def _alike(transform: bool, to: To, version: int | None) -> Headers:
    """The headers that records of many pushes share."""
    return headers_of(transform=transform, to=to, version=version)


def raw_records(push: Push, version: int) -> list[PushRecord]:
    """Raw events as they are, for the worker to transform: which entity each is of, only the view can tell. version: of
    the view, as it is served."""
    headers = _headers(push, version, transform=True)
    return [PushRecord(None, value, headers) for value in push.values]


def is_little(values: Sequence[bytes]) -> bool:
    """Whether the event loop may take rows of these values on, if they are judged quickly at all."""
    return len(values) <= FEW_ROWS and sum(map(len, values)) <= _FEW_BYTES


def too_large(record: PushRecord) -> bool:
    """Whether Kafka would refuse the record."""
    return record.nbytes > LARGEST_RECORD


_STATUS = {
    Answer.APPLIED: PushStatus.APPLIED,
    # A stamp holds the place that Kafka gave this push's own record: none but this push can have brought the same one.
    # A worker was faster, or the put was made again.
    Answer.DUPLICATE: PushStatus.APPLIED,
    Answer.EXPIRED: PushStatus.EXPIRED,
    Answer.STALE: PushStatus.STALE,
}
_STRONGER = {status: number for number, status in enumerate(_STATUS.values())}
"""Of an event that gives several rows, the first of these that any of them was."""


def statuses(batch: Batch, encoded: Encoded, answers: Sequence[Answer]) -> list[list[PushStatus]]:
    """What became of every row of every push. answers: Redis's, as the rows were encoded."""
    found: dict[int, PushStatus] = {}
    for place, answer in zip(encoded.places.tolist(), answers, strict=True):
        status = _STATUS[answer]
        known = found.get(place)
        if known is None or _STRONGER[status] < _STRONGER[known]:
            found[place] = status
    told = []
    for judged in batch.judged:
        push, begin = judged.push, judged.begin
        # What was not sent to Redis was older than another row that was.
        unsent = PushStatus.OFFLINE if push.to is To.OFFLINE else PushStatus.STALE
        of_push = [
            PushStatus.FILTERED if at in batch.filtered else found.get(at, unsent)
            for at in range(begin, begin + len(push.values))
        ]
        for refusal in judged.refusals:
            of_push[refusal.row] = PushStatus.REJECTED
        told.append(of_push)
    return told
