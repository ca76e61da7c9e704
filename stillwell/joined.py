"""Batches of several partitions of one topic, made one: what a batch costs before its first record is then paid once.

While they are one, each record goes by its place among all of them instead of by its offset, which another partition
may have as well. By nothing else can what is joined be told from one partition's batch.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from stillwell.broken import Broken
from stillwell.records import Outcome, Records, Reject, ViewRows

Cuts = npt.NDArray[np.int64]
"""Where each batch's part of something joined begins, and where the last one's ends, in an array of (batches + 1)."""


@dataclasses.dataclass(frozen=True, slots=True)
class JoinedRows:
    """The rows of one view, batch behind batch, by their offsets again, and the account of each batch's records.

    frame: columns as in `stillwell.records.ViewRows`, each batch's rows in the order of (offset, row). cuts: of its
    rows. The accounts are arrays of shape (batches); offsets_with_rows + filtered + rejected = the records of a batch.
    """

    view: str
    version: int
    frame: pl.DataFrame
    cuts: Cuts
    offsets_with_rows: npt.NDArray[np.int64]
    filtered: npt.NDArray[np.int64]
    rejected: npt.NDArray[np.int64]


class Joined:
    """The batches, and all of them as one."""

    def __init__(self, batches: Sequence[Records]) -> None:
        """At least one batch, and all of one topic; a partition may have several, in their order."""
        self.batches = tuple(batches)
        self._lengths = np.array([len(batch) for batch in batches], np.int64)
        self._cuts: Cuts = np.concatenate([np.zeros(1, np.int64), np.cumsum(self._lengths)])
        self._offsets = np.concatenate([batch.offsets for batch in batches])

    @property
    def records(self) -> Records:
        """All records; their offsets are their places."""
        count = len(self._offsets)
        return Records(
            topic=self.batches[0].topic,
            partition=self.batches[0].partition,
            start=0,
            end=count,
            offsets=np.arange(count, dtype=np.int64),
            timestamps=np.concatenate([batch.timestamps for batch in self.batches]),
            keys=[key for batch in self.batches for key in batch.keys],
            values=[value for batch in self.batches for value in batch.values],
            headers=[headers for batch in self.batches for headers in batch.headers],
        )

    def rows(self, outcome: Outcome) -> Iterator[JoinedRows]:
        """What became of `records`, for each view in the outcome's order."""
        for rows in outcome.rows:
            rejected = self._counts(_places(reject for reject in outcome.rejects if reject.view in (None, rows.view)))
            yield self._rows(rows, rejected)

    def rejects(self, outcome: Outcome) -> list[tuple[Reject, ...]]:
        """What was rejected of `records`, for each batch and by its offsets."""
        rejects = [dataclasses.replace(each, offset=int(self._offsets[each.offset])) for each in outcome.rejects]
        cuts = np.searchsorted(_places(outcome.rejects), self._cuts).tolist()
        return [tuple(rejects[begin:end]) for begin, end in itertools.pairwise(cuts)]

    def broken(self, outcome: Outcome) -> tuple[Broken, ...]:
        """The rules that were broken, each with the partition and the offset of the first record that did."""
        return tuple(
            dataclasses.replace(each, partition=self._partition(each.offset), offset=int(self._offsets[each.offset]))
            for each in outcome.broken
        )

    def _partition(self, place: int) -> int:
        return self.batches[int(np.searchsorted(self._cuts, place, side="right")) - 1].partition

    def _rows(self, rows: ViewRows, rejected: npt.NDArray[np.int64]) -> JoinedRows:
        places = rows.frame.get_column("_offset").to_numpy()
        with_rows = self._counts(places[np.flatnonzero(np.diff(places, prepend=-1))])
        at = rows.frame.columns.index("_offset")
        return JoinedRows(
            view=rows.view,
            version=rows.version,
            frame=rows.frame.clone().replace_column(at, pl.Series("_offset", self._offsets[places])),
            cuts=np.searchsorted(places, self._cuts),
            offsets_with_rows=with_rows,
            filtered=self._lengths - with_rows - rejected,
            rejected=rejected,
        )

    def _counts(self, places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """How many of these places, which ascend, are in each batch."""
        return np.diff(np.searchsorted(places, self._cuts))


def _places(rejects: Iterable[Reject]) -> npt.NDArray[np.int64]:
    return np.array([reject.offset for reject in rejects], np.int64)
