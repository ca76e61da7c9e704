"""What travels through a worker: a batch of Kafka records, and what became of it."""

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from stillwell.broken import Broken

Headers = tuple[tuple[str, bytes | None], ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Records:
    """Records of one partition, column by column, in offset order, covering the offsets [start, end).

    offsets (int64) and timestamps (int64, milliseconds since the epoch, as Kafka keeps them) are arrays; keys, values
    and headers are lists of the same length. Offsets in [start, end) without a record are gaps: compacted, aborted, or
    transaction markers.
    """

    topic: str
    partition: int
    start: int
    end: int
    offsets: npt.NDArray[np.int64]
    timestamps: npt.NDArray[np.int64]
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    headers: Sequence[Headers]

    def __len__(self) -> int:
        return len(self.offsets)

    @property
    def gaps(self) -> int:
        """How many offsets of [start, end) hold no record."""
        return self.end - self.start - len(self.offsets)


TopicReason = Literal["decode", "null_value", "expectation", "event_time", "future"]
"""Why no view can use a record."""

ViewReason = Literal["null_key", "null_feature", "null_element", "too_long", "transform"]
"""Why one view cannot use a record."""


@dataclasses.dataclass(frozen=True, slots=True)
class Reject:
    """A record that cannot be used: by every view (view is None), or by the named one.

    reason is one of a few words that metrics are labelled with; error is a sentence for a person.
    """

    offset: int
    view: str | None
    reason: TopicReason | ViewReason
    error: str


@dataclasses.dataclass(frozen=True, slots=True)
class ViewRows:
    """The rows that one batch gives one view, and the account of its offsets.

    frame has, in this order: the entity's key columns, `event_timestamp`, the features, then `_sequence` (Int64 or
    null), `_offset` (Int64), `_timestamp` (Int64, ms) and `_row` (UInt32, the row's ordinal within its event), and of
    pushed rows `_to` (where they go); rows are in the order of (offset, row). offsets_with_rows + filtered + rejected =
    the number of records in the batch.
    """

    view: str
    version: int
    frame: pl.DataFrame
    offsets_with_rows: int
    filtered: int
    rejected: int


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a batch: rows for each view of its topic, in the pipeline's order, and the records refused.

    broken: the rules that records broke. Those that broke one that stops are among the rejects, for whoever goes on.
    """

    records: Records
    rows: tuple[ViewRows, ...]
    rejects: tuple[Reject, ...]
    broken: tuple[Broken, ...] = ()
