"""From a batch of records to what the sinks take: tables for the archive, encoded rows for Redis."""

import dataclasses
import datetime
import functools
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stillwell.layout.chain import PartitionId
from stillwell.layout.encoder import ViewEncoder
from stillwell.layout.online import EncodedRows
from stillwell.layout.parquet import BatchTables, batch_tables, frame_of, view_schema
from stillwell.pipeline import Pipeline
from stillwell.records import Outcome, Records


@dataclasses.dataclass(frozen=True, slots=True)
class Prepared:
    """A batch, ready for the sinks.

    online: for each view the newest row of each entity. produced_at: those rows' record timestamps, in milliseconds.
    nbytes: memory that all of it takes.
    """

    outcome: Outcome
    tables: BatchTables
    online: tuple[EncodedRows, ...]
    produced_at: tuple[npt.NDArray[np.int64], ...]
    nbytes: int


class Preparation:
    """Prepares the batches of one topic."""

    def __init__(self, pipeline: Pipeline, grace: datetime.timedelta) -> None:
        """grace: how long keys in Redis outlive their rows' TTL."""
        self.views = pipeline.views
        self._pipeline = pipeline
        self._encoders = {view.name: ViewEncoder(view, grace) for view in pipeline.views}
        self._schemas = [view_schema(view) for view in pipeline.views]

    def of(self, id: PartitionId, now: Callable[[], datetime.datetime]) -> Callable[[Records], Prepared]:
        """What prepares the batches of one partition; now is asked once a batch, for `_ingested_at`."""
        return functools.partial(self._prepare, id, now)

    def has(self, view: str, version: int) -> bool:
        """Whether this worker computes that version of a view."""
        return view in self._encoders and self._encoders[view].view.version == version

    def encode_linked(self, id: PartitionId, view: str, table: pa.Table) -> EncodedRows:
        """Rows of a linked file, for Redis again."""
        return self._encoders[view].encode(frame_of(table), id)[0]

    def _prepare(self, id: PartitionId, now: Callable[[], datetime.datetime], records: Records) -> Prepared:
        outcome = self._pipeline.run(records)
        tables = batch_tables(outcome, self._schemas, now())
        encoded = [self._encoders[rows.view].encode(rows.frame, id) for rows in outcome.rows]
        online = tuple(rows for rows, _ in encoded)
        return Prepared(
            outcome=outcome,
            tables=tables,
            online=online,
            produced_at=tuple(frame["_timestamp"].to_numpy() for _, frame in encoded),
            nbytes=tables.nbytes + sum(sum(map(len, rows.values)) + sum(map(len, rows.keys)) for rows in online),
        )
