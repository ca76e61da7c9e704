"""From a batch of records to what the sinks take: tables for the archive, encoded rows for Redis."""

import dataclasses
import datetime
import functools
import itertools
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from stillwell.layout.chain import PartitionId
from stillwell.layout.encoder import ViewEncoder
from stillwell.layout.online import EncodedRows
from stillwell.layout.parquet import BatchTables, batch_tables, view_schema
from stillwell.pipeline import Pipeline
from stillwell.records import Outcome, Records
from stillwell.spec import ViewSpec

_OBJECT = 48
"""Bytes that a string of bytes takes beside its content: its head, rounding, and its place in a list."""

_LETTER = 400
"""Bytes that a reject takes beside what it quotes: itself, its record's place in each column, and small objects."""


@dataclasses.dataclass(frozen=True, slots=True)
class OnlineBatch:
    """What goes to Redis of the offsets [start, end): for each view the newest row of each entity.

    produced_at: those rows' record timestamps, in milliseconds. nbytes: memory that all of it takes.
    """

    start: int
    end: int
    rows: tuple[EncodedRows, ...]
    produced_at: tuple[npt.NDArray[np.int64], ...]
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

    outcome: Outcome
    tables: BatchTables
    online: OnlineBatch
    letters: Letters | None


class Preparation:
    """Prepares the batches of one topic."""

    def __init__(self, pipeline: Pipeline, grace: datetime.timedelta) -> None:
        """grace: how long keys in Redis outlive their rows' TTL."""
        self.views = pipeline.views
        self._pipeline = pipeline
        self._grace = grace
        self._encoders = {view.name: self.encoder(view) for view in pipeline.views}
        self._schemas = [view_schema(view) for view in pipeline.views]

    def warm_up(self) -> None:
        """Prepare a batch of nothing: what libraries import at their first use, half a second of it, is not to hold up
        the first batch."""
        nothing = np.empty(0, np.int64)
        topic = self._pipeline.topic.topic
        records = Records(topic, 0, 0, 0, offsets=nothing, timestamps=nothing, keys=[], values=[], headers=[])
        self._prepare(PartitionId(topic, 1, 0), lambda: datetime.datetime.now(datetime.UTC), records)

    def of(self, id: PartitionId, now: Callable[[], datetime.datetime]) -> Callable[[Records], Prepared]:
        """What prepares the batches of one partition; now is asked once a batch, for `_ingested_at`."""
        return functools.partial(self._prepare, id, now)

    def encoder(self, view: ViewSpec) -> ViewEncoder:
        """What encodes rows of any version as this worker's are, for Redis."""
        return ViewEncoder(view, self._grace)

    def _prepare(self, id: PartitionId, now: Callable[[], datetime.datetime], records: Records) -> Prepared:
        outcome = self._pipeline.run(records)
        return Prepared(
            outcome=outcome,
            tables=batch_tables(outcome, self._schemas, now()),
            online=self._online(outcome, id),
            letters=_letters(outcome) if outcome.rejects else None,
        )

    def _online(self, outcome: Outcome, id: PartitionId) -> OnlineBatch:
        encoded = [self._encoders[rows.view].encode(rows.frame, id) for rows in outcome.rows]
        rows = tuple(each for each, _ in encoded)
        # Copies: they are a part of frames that need not live as long.
        produced_at = tuple(frame["_timestamp"].to_numpy().copy() for _, frame in encoded)
        nbytes = sum(_nbytes(each.keys) + _nbytes(each.values) for each in rows)
        return OnlineBatch(
            start=outcome.records.start,
            end=outcome.records.end,
            rows=rows,
            produced_at=produced_at,
            nbytes=nbytes + sum(each.nbytes for each in produced_at),
        )


def _nbytes(values: Sequence[bytes]) -> int:
    return sum(map(len, values)) + _OBJECT * len(values)


def _letters(outcome: Outcome) -> Letters:
    records = outcome.records
    places: list[int] = np.flatnonzero(np.isin(records.offsets, [reject.offset for reject in outcome.rejects])).tolist()
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
    quoted += sum(len(reject.error) for reject in outcome.rejects)
    return Letters(Outcome(kept, (), outcome.rejects), quoted + _LETTER * len(outcome.rejects))
