"""What a view makes of some records, for a person who looks, or a test: the worker's pipeline, and nothing written."""

import dataclasses
import datetime
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import polars as pl

from stillwell.broken import Broken
from stillwell.pipeline import compile_pipeline
from stillwell.pushing.on_write import PUSHED
from stillwell.pushing.pipeline import PushPipeline
from stillwell.pushing.record import headers_of
from stillwell.records import Headers, Records, Reject
from stillwell.row import newest
from stillwell.spec import ViewSpec


@dataclasses.dataclass(frozen=True, slots=True)
class Record:
    """A record as Kafka has it. timestamp: in ms since the epoch."""

    value: bytes | None
    key: bytes | None = None
    headers: Headers = ()
    timestamp: int = 0
    offset: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class TriedRow:
    """A row that a view made, and the offset of the record that it made it of. values: every key, `event_timestamp`
    and every feature, by name."""

    offset: int
    values: Mapping[str, object]


@dataclasses.dataclass(frozen=True, slots=True)
class Tried:
    """What became of so many records: rows, or why there is none.

    newest: of each entity the row that the online store would keep. filtered: the offsets of the records that `where`
    left out, or of which a function made nothing.
    """

    records: int
    rows: tuple[TriedRow, ...]
    newest: tuple[TriedRow, ...]
    rejects: tuple[Reject, ...]
    filtered: tuple[int, ...]
    broken: tuple[Broken, ...]
    """The rules on columns that records broke, those that only warn too; `offset` is of the first record."""

    @property
    def why_without(self) -> Mapping[str, int]:
        """How many records gave no row, by why: `filtered`, or the reason of a reject."""
        counts = Counter(reject.reason for reject in self.rejects)
        return {**({"filtered": len(self.filtered)} if self.filtered else {}), **dict(counts.most_common())}


class Trial:
    """Tries one view."""

    def __init__(self, view: ViewSpec, max_future: datetime.timedelta) -> None:
        """max_future: how far past its record's timestamp an event time may lie. Raises DefinitionError where topic and
        expressions of the view do not go together."""
        self.view = view
        # A view that stores what is computed on demand has no topic but what is pushed to it.
        self._pushed = view.source.topic.startswith(PUSHED)
        self._pipeline = (
            PushPipeline("", view, max_future=max_future)
            if self._pushed
            else compile_pipeline(view.source, [view], max_future=max_future)
        )

    def run(self, records: Sequence[Record]) -> Tried:
        """What the view makes of records of one partition; their offsets ascend."""
        batch = self._batch(records)
        outcome = self._pipeline.run(batch)
        (rows,) = outcome.rows
        keys = [key.name for key in self.view.entity.keys]
        without = {reject.offset for reject in outcome.rejects} | set(rows.frame.get_column("_offset").to_list())
        return Tried(
            records=len(records),
            rows=self._rows(rows.frame),
            newest=self._rows(newest(rows.frame, keys)),
            rejects=outcome.rejects,
            filtered=tuple(each.offset for each in records if each.offset not in without),
            broken=outcome.broken,
        )

    def _rows(self, frame: pl.DataFrame) -> tuple[TriedRow, ...]:
        names = [key.name for key in self.view.entity.keys]
        names += ["event_timestamp", *(feature.name for feature in self.view.features)]
        offsets = frame.get_column("_offset").to_list()
        return tuple(map(TriedRow, offsets, frame.select(names).rows(named=True)))

    def _batch(self, records: Sequence[Record]) -> Records:
        """The records, column by column."""
        raw = headers_of(transform=True) if self._pushed else ()
        return Records(
            topic=self._pipeline.topic.topic,
            partition=0,
            start=records[0].offset if records else 0,
            end=records[-1].offset + 1 if records else 0,
            offsets=np.array([each.offset for each in records], np.int64),
            timestamps=np.array([each.timestamp for each in records], np.int64),
            keys=[each.key for each in records],
            values=[each.value for each in records],
            headers=[(*raw, *each.headers) for each in records],
        )
