"""From batches of records to what the sinks take: tables for the archive, encoded rows for Redis."""

import dataclasses
import datetime
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from stillwell.broken import Broken, RuleId
from stillwell.joined import Joined, JoinedRows
from stillwell.layout.chain import PartitionId
from stillwell.layout.encoder import ViewEncoder
from stillwell.layout.online import EncodedRows
from stillwell.layout.parquet import BatchTables, batch_tables, view_schema
from stillwell.records import Outcome, Records, Reject
from stillwell.series import microseconds
from stillwell.spec import TopicSpec, ViewSpec

_OBJECT = 48
"""Bytes that a string of bytes takes beside its content: its head, rounding, and its place in a list."""

_LETTER = 400
"""Bytes that a reject takes beside what it quotes: itself, its record's place in each column, and small objects."""


class Pipeline(Protocol):
    """What is done to the records of one topic: of a source (`stillwell.pipeline`), or of pushes (`stillwell.pushing`).

    pushed: whether its rows say where they go. rules: those on columns that records may break.
    """

    @property
    def topic(self) -> TopicSpec: ...

    @property
    def views(self) -> tuple[ViewSpec, ...]: ...

    @property
    def pushed(self) -> bool: ...

    @property
    def rules(self) -> tuple[RuleId, ...]: ...

    def run(self, records: Records) -> Outcome: ...


@dataclasses.dataclass(frozen=True, slots=True)
class OnlineBatch:
    """What goes to Redis of the offsets [start, end): for each view the newest row of each entity.

    produced_at: those rows' record timestamps, in milliseconds. newest: the newest event time of each view's, in µs
    since the epoch, None where it has no rows. nbytes: memory that all of it takes.
    """

    start: int
    end: int
    rows: tuple[EncodedRows, ...]
    produced_at: tuple[npt.NDArray[np.int64], ...]
    newest: tuple[int | None, ...]
    nbytes: int


@dataclasses.dataclass(frozen=True, slots=True)
class Letters:
    """What goes to the dead-letter topic: an outcome with the rejects, their records and nothing else.

    nbytes: memory that it takes.
    """

    outcome: Outcome
    nbytes: int


@dataclasses.dataclass(frozen=True, slots=True)
class Prepared:
    """A batch, ready for the sinks: each takes its own part, so that none holds on to what the others have done with.

    letters is None where nothing was rejected.
    """

    tables: BatchTables
    online: OnlineBatch
    letters: Letters | None

    @property
    def rejects(self) -> tuple[Reject, ...]:
        """All of them."""
        return self.letters.outcome.rejects if self.letters else ()


@dataclasses.dataclass(frozen=True, slots=True)
class Round:
    """Batches that were prepared together, each ready for the sinks, and the rules that records of them broke."""

    batches: tuple[Prepared, ...]
    broken: tuple[Broken, ...]


class Preparation:
    """Prepares the batches of one topic."""

    def __init__(self, pipeline: Pipeline, grace: datetime.timedelta, now: Callable[[], datetime.datetime]) -> None:
        """grace: how long keys in Redis outlive their rows' TTL. now: the clock of `_ingested_at`."""
        self.topic = pipeline.topic
        self.views = pipeline.views
        self.rules = pipeline.rules
        self._pipeline = pipeline
        self._grace = grace
        self._now = now
        self._encoders = {view.name: self.encoder(view) for view in pipeline.views}
        self._schemas = [view_schema(view, pushed=pipeline.pushed) for view in pipeline.views]

    def encoder(self, view: ViewSpec) -> ViewEncoder:
        """What encodes rows of any version as this worker's are, for Redis."""
        return ViewEncoder(view, self._grace)

    def warm_up(self) -> None:
        """Prepare a batch of nothing: what libraries import at their first use, half a second of it, is not to hold up
        the first batch."""
        nothing = np.empty(0, np.int64)
        topic = self.topic.topic
        records = Records(topic, 0, 0, 0, offsets=nothing, timestamps=nothing, keys=[], values=[], headers=[])
        self.prepare([(PartitionId(topic, 1, 0), records)])

    def prepare(self, batches: Sequence[tuple[PartitionId, Records]]) -> Round:
        """Each batch, with its partition, ready for the sinks. Blocks: call it in a thread.

        Together they cost little more than one of them that has as many records.
        """
        joined = Joined([records for _, records in batches])
        outcome = self._pipeline.run(joined.records)
        rows = list(joined.rows(outcome))
        tables = batch_tables(joined.batches, rows, self._schemas, self._now())
        online = self._online(joined, rows, [id for id, _ in batches])
        letters = [
            _letters(records, rejects) if rejects else None
            for records, rejects in zip(joined.batches, joined.rejects(outcome), strict=True)
        ]
        prepared = tuple(Prepared(*parts) for parts in zip(tables, online, letters, strict=True))
        return Round(prepared, joined.broken(outcome))

    def _online(
        self, joined: Joined, rows: Sequence[JoinedRows], sources: Sequence[PartitionId]
    ) -> Iterator[OnlineBatch]:
        encoded = [self._encoders[each.view].encode_each(each.frame, each.cuts, sources) for each in rows]
        for number, records in enumerate(joined.batches):
            yield _online_batch(records, [of_view[number] for of_view in encoded])


def _online_batch(records: Records, encoded: Sequence[tuple[EncodedRows, pl.DataFrame]]) -> OnlineBatch:
    rows = tuple(each for each, _ in encoded)
    # Copies: they are a part of frames that need not live as long.
    produced_at = tuple(frame["_timestamp"].to_numpy().copy() for _, frame in encoded)
    nbytes = sum(_nbytes(each.keys) + _nbytes(each.values) for each in rows)
    return OnlineBatch(
        start=records.start,
        end=records.end,
        rows=rows,
        produced_at=produced_at,
        newest=tuple(_newest(frame) for _, frame in encoded),
        nbytes=nbytes + sum(each.nbytes for each in produced_at),
    )


def _newest(frame: pl.DataFrame) -> int | None:
    return int(microseconds(frame["event_timestamp"]).to_numpy().max()) if frame.height else None


def _nbytes(values: Sequence[bytes]) -> int:
    return sum(map(len, values)) + _OBJECT * len(values)


def _letters(records: Records, rejects: tuple[Reject, ...]) -> Letters:
    places: list[int] = np.flatnonzero(np.isin(records.offsets, [reject.offset for reject in rejects])).tolist()
    kept = Records(
        topic=records.topic,
        partition=records.partition,
        start=records.start,
        end=records.end,
        offsets=records.offsets[places],
        timestamps=records.timestamps[places],
        keys=[records.keys[place] for place in places],
        values=[records.values[place] for place in places],
        headers=[records.headers[place] for place in places],
    )
    quoted = sum(len(content or b"") for content in itertools.chain(kept.keys, kept.values))
    quoted += sum(len(name) + len(content or b"") + 2 * _OBJECT for each in kept.headers for name, content in each)
    quoted += sum(len(reject.error) for reject in rejects)
    return Letters(Outcome(kept, (), rejects), quoted + _LETTER * len(rejects))
