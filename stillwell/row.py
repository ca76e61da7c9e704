"""The one rule of order between rows of the same entity: which of two is newer.

A row is newer if it is greater by (event time, sequence, record timestamp, topic, incarnation, partition, offset, view
version, row ordinal), where a missing sequence is less than any. Within one batch topic, incarnation, partition and
version are constant, so that what is left is `ORDER`. The stamp that Redis compares is the same rule as bytes.
"""

from collections.abc import Sequence

import numpy as np
import polars as pl

from stillwell.layout.stamp import ABSENT_SEQUENCE
from stillwell.series import microseconds

ORDER = (
    pl.col("event_timestamp"),
    pl.col("_sequence").cast(pl.Int64).fill_null(ABSENT_SEQUENCE),
    pl.col("_timestamp"),
    pl.col("_offset"),
    pl.col("_row"),
)


def newest(frame: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
    """The newest row of each entity, given the rows of one view and one batch; the columns stay as they are.

    frame: columns as in `stillwell.records.ViewRows`, rows in the order of (offset, row). keys: the names of the
    entity's key columns. Rows come back in ascending order of the rule.
    """
    return _ordered(frame).unique(keys, keep="last", maintain_order=True)


def _ordered(frame: pl.DataFrame) -> pl.DataFrame:
    """The rows in ascending order of the rule.

    Sorting by all of it takes as long as all the rest of an encoding, and is seldom needed: most topics are nearly in
    order, and have no sequence.
    """
    times = microseconds(frame.get_column("event_timestamp")).to_numpy()
    if (times[1:] > times[:-1]).all():
        return frame
    if frame.get_column("_sequence").null_count() == frame.height and _in_rest_of_order(frame):
        return frame[np.argsort(times, kind="stable")]
    return frame.sort(ORDER)


def _in_rest_of_order(frame: pl.DataFrame) -> bool:
    """Whether the rows ascend by record timestamp, and by (offset, row): then a stable sort by event time is enough."""
    produced, offsets, rows = (frame.get_column(name).to_numpy() for name in ("_timestamp", "_offset", "_row"))
    follows = (offsets[1:] > offsets[:-1]) | ((offsets[1:] == offsets[:-1]) & (rows[1:] > rows[:-1]))
    return bool((produced[1:] >= produced[:-1]).all() and follows.all())
