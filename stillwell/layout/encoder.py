"""From rows of a view to what is put into the online store."""

import datetime

import polars as pl

from stillwell.layout.chain import PartitionId
from stillwell.layout.entity_key import entity_keys
from stillwell.layout.online import EncodedRows
from stillwell.layout.stamp import stamps
from stillwell.layout.value import RowLayout, encode
from stillwell.row import newest
from stillwell.spec import ViewSpec

_MILLISECOND = datetime.timedelta(milliseconds=1)


class ViewEncoder:
    """Encodes rows of one view version for Redis."""

    def __init__(self, view: ViewSpec, grace: datetime.timedelta) -> None:
        """grace: how long a key outlives its row's TTL."""
        self.view = view
        self._names = [key.name for key in view.entity.keys]
        self._layout = RowLayout.of(view)
        self._lifetime_ms = (view.ttl + grace) // _MILLISECOND if view.ttl else None

    def encode(self, frame: pl.DataFrame, id: PartitionId) -> tuple[EncodedRows, pl.DataFrame]:
        """The newest row of each entity among those of one partition, encoded, and as a frame in the same order."""
        kept = newest(frame, self._names)
        rows = EncodedRows(
            view=self.view.name,
            version=self.view.version,
            keys=entity_keys(kept, self.view.entity.keys),
            values=encode(self._layout, kept, stamps(kept, id, self.view.version)),
            lifetime_ms=self._lifetime_ms,
        )
        return rows, kept
