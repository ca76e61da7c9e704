"""The one rule of order between rows of the same entity: which of two is newer.

A row is newer if it is greater by (event time, sequence, record timestamp, topic, incarnation, partition, offset, view
version, row ordinal), where a missing sequence is less than any. Within one batch topic, incarnation, partition and
version are constant, so that what is left is `ORDER`. The stamp that Redis compares is the same rule as bytes.
"""

from collections.abc import Sequence

import polars as pl

from stillwell.layout.stamp import ABSENT_SEQUENCE

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
    ordered = frame if _ascends(frame) else frame.sort(ORDER)
    return ordered.unique(keys, keep="last", maintain_order=True)


def _ascends(frame: pl.DataFrame) -> bool:
    """Whether event times rise strictly, as they do in a quiet topic: then the rest of the rule has no say."""
    times = frame.get_column("event_timestamp").to_physical().to_numpy()
    return bool((times[1:] > times[:-1]).all())
