"""From rows of a view to what is put into the online store."""

import datetime
import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from stillwell.instants import duration_ms
from stillwell.joined import Cuts
from stillwell.layout.chain import PartitionId
from stillwell.layout.entity_key import entity_keys
from stillwell.layout.online import EncodedRows
from stillwell.layout.parquet import OFFLINE, TO
from stillwell.layout.stamp import stamps, stamps_of
from stillwell.layout.value import RowLayout, encode, stamp_of
from stillwell.row import newest_of_each
from stillwell.spec import ViewSpec


class ViewEncoder:
    """Encodes rows of one view version for Redis."""

    def __init__(self, view: ViewSpec, grace: datetime.timedelta) -> None:
        """grace: how long a key outlives its row's TTL."""
        self.view = view
        self._names = [key.name for key in view.entity.keys]
        self._layout = RowLayout.of(view)
        self._lifetime_ms = duration_ms(view.ttl + grace) if view.ttl else None

    def encode(self, frame: pl.DataFrame, id: PartitionId) -> tuple[EncodedRows, pl.DataFrame]:
        """The newest row of each entity among those of one partition, encoded, and as a frame in the same order.

        Pushed rows that are meant for the offline store alone are left out.
        """
        (encoded,) = self.encode_each(frame, np.array([0, frame.height]), [id])
        return encoded

    def encode_each(
        self, frame: pl.DataFrame, cuts: Cuts, sources: Sequence[PartitionId]
    ) -> list[tuple[EncodedRows, pl.DataFrame]]:
        """The same for each batch of rows that are joined; sources: which partition each batch is of."""
        frame, cuts = _for_online(frame, cuts)
        kept, cuts = newest_of_each(frame, cuts, self._names)
        keys = entity_keys(kept, self.view.entity.keys)
        values = encode(self._layout, kept, stamps(kept, cuts, sources, self.view.version))
        return [
            (self._rows(keys[begin:end], values[begin:end]), kept.slice(begin, end - begin))
            for begin, end in itertools.pairwise(cuts.tolist())
        ]

    def encode_unordered(
        self, frame: pl.DataFrame, topic: str, incarnation: int, partitions: npt.NDArray[np.int64]
    ) -> tuple[EncodedRows, list[int]]:
        """The newest row of each entity among rows in any order, encoded; and the number of each among all of them.

        All are meant for Redis. partitions: which one of the topic each row is of. Rows are compared by their stamps,
        as Redis does: to sort a frame, and to take rows out of it, costs more than to encode a hundred of them.
        """
        keys = entity_keys(frame, self.view.entity.keys)
        values = encode(self._layout, frame, stamps_of(frame, topic, incarnation, partitions, self.view.version))
        newest: dict[bytes, int] = {}
        for number, key in enumerate(keys):
            before = newest.setdefault(key, number)
            if before != number and stamp_of(values[number]) > stamp_of(values[before]):
                newest[key] = number
        kept = list(newest.values())
        return self._rows(list(newest), [values[number] for number in kept]), kept

    def _rows(self, keys: list[bytes], values: list[bytes]) -> EncodedRows:
        return EncodedRows(self.view.name, self.view.version, keys, values, self._lifetime_ms)


def offline_among(frame: pl.DataFrame) -> int:
    """How many of the rows are meant for the offline store alone."""
    return int((frame.get_column(TO) == OFFLINE).sum()) if TO in frame.columns else 0


def _for_online(frame: pl.DataFrame, cuts: Cuts) -> tuple[pl.DataFrame, Cuts]:
    """The rows that are meant for Redis, and where each batch's are among them: all, but for some of those pushed."""
    if TO not in frame.columns:
        return frame, cuts
    kept = (frame.get_column(TO) != OFFLINE).to_numpy()
    if kept.all():
        return frame, cuts
    before = np.concatenate([np.zeros(1, np.int64), np.cumsum(kept)])
    return frame.filter(pl.Series(kept)), before[cuts]
