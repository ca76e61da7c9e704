"""The one rule of order between rows of the same entity: which of two is newer.

A row is newer if it is greater by (event time, sequence, record timestamp, topic, incarnation, partition, offset, view
version, row ordinal), where a missing sequence is less than any. Within one batch topic, incarnation, partition and
version are constant, so that what is left is `ORDER`. The stamp that Redis compares is the same rule as bytes.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from stillwell.joined import Cuts
from stillwell.layout.stamp import ABSENT_SEQUENCE
from stillwell.series import FEW, microseconds

ORDER = (
    pl.col("event_timestamp"),
    pl.col("_sequence").cast(pl.Int64).fill_null(ABSENT_SEQUENCE),
    pl.col("_timestamp"),
    pl.col("_offset"),
    pl.col("_row"),
)


_BATCH = "_batch"


def newest(frame: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
    """The newest row of each entity, given the rows of one view and one batch; the columns stay as they are.

    frame: columns as in `stillwell.records.ViewRows`, rows in the order of (offset, row). keys: the names of the
    entity's key columns. Rows come back in ascending order of the rule.
    """
    ordered = _ordered(frame, np.zeros(frame.height, np.uint32))
    return ordered if _distinct(frame, keys, None) else ordered.unique(keys, keep="last", maintain_order=True)


def newest_of_each(frame: pl.DataFrame, cuts: Cuts, keys: Sequence[str]) -> tuple[pl.DataFrame, Cuts]:
    """The same for each batch of rows that are joined; with the cuts of what is left."""
    if len(cuts) == 2:
        kept = newest(frame, keys)
        return kept, np.array([0, kept.height])
    batch = np.repeat(np.arange(len(cuts) - 1, dtype=np.uint32), np.diff(cuts))
    if _distinct(frame, keys, batch):
        return _ordered(frame, batch), cuts
    joined = frame.hstack([pl.Series(_BATCH, batch)])
    kept = _ordered(joined, batch).unique([*keys, _BATCH], keep="last", maintain_order=True)
    left = kept.drop_in_place(_BATCH).to_numpy()
    return kept, np.searchsorted(left, np.arange(len(cuts)))


def _distinct(frame: pl.DataFrame, keys: Sequence[str], batch: npt.NDArray[np.uint32] | None) -> bool:
    """Whether each row is known to be of an entity of its own, in its batch; not known where they are more than few."""
    if frame.height > FEW:
        return False
    columns = [frame.get_column(key).to_list() for key in keys]
    if batch is not None:
        columns.append(batch.tolist())
    return len(set(zip(*columns, strict=True))) == frame.height


def _ordered(frame: pl.DataFrame, batch: npt.NDArray[np.uint32]) -> pl.DataFrame:
    """The rows in ascending order of the rule, batch behind batch; batch: which one each row is of, ascending.

    Sorting by all of it takes as long as all the rest of an encoding, and is seldom needed: most topics are nearly in
    order, and have no sequence.
    """
    times = microseconds(frame.get_column("event_timestamp")).to_numpy()
    another = batch[1:] != batch[:-1]
    if (another | (times[1:] > times[:-1])).all():
        return frame
    if frame.get_column("_sequence").null_count() == frame.height and _in_rest_of_order(frame, another):
        return frame[np.lexsort((times, batch))]
    return frame.sort([pl.lit(pl.Series(batch)), *ORDER])


def _in_rest_of_order(frame: pl.DataFrame, another: npt.NDArray[np.bool_]) -> bool:
    """Whether the rows of each batch ascend by record timestamp, and by (offset, row): then a stable sort by event time
    is enough. another: whether the row behind each is of another batch."""
    produced, offsets, rows = (frame.get_column(name).to_numpy() for name in ("_timestamp", "_offset", "_row"))
    follows = (offsets[1:] > offsets[:-1]) | ((offsets[1:] == offsets[:-1]) & (rows[1:] > rows[:-1]))
    return bool((another | ((produced[1:] >= produced[:-1]) & follows)).all())
