"""Rows as the worker's sink gets them: made by the real pipeline and encoder from events of the load."""

import datetime
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import polars as pl

from stillwell.definitions.loading import load_definitions
from stillwell.layout.chain import PartitionId
from stillwell.layout.encoder import ViewEncoder
from stillwell.layout.online import EncodedRows
from stillwell.pipeline import compile_pipeline
from stillwell.records import Records
from stillwell.spec import DefinitionsSpec, ViewSpec

BATCH = 5_000
"""Rows of one put: what a batch of the worker has at most."""

GRACE = datetime.timedelta(hours=1)


class RowMaker:
    """Makes batches of encoded rows of the only view of a definitions package."""

    def __init__(self, package: str, folder: Path) -> None:
        """Raises DefinitionError for a package that is not right."""
        definitions: DefinitionsSpec = load_definitions(package, folder)
        (self.view,) = definitions.views
        (self._topic,) = definitions.topics
        self._pipeline = compile_pipeline(self._topic, (self.view,))
        self._encoder = ViewEncoder(self.view, GRACE)

    def batches(self, bodies: Iterable[bytes], timestamp_ms: int) -> Iterator[tuple[EncodedRows, pl.DataFrame]]:
        """The rows of events, encoded and as frames; each record has this timestamp."""
        values, offset = iter(bodies), 0
        while batch := list(itertools.islice(values, BATCH)):
            records = self._records(batch, offset, timestamp_ms)
            offset += len(batch)
            outcome = self._pipeline.run(records)
            if outcome.rejects:
                raise ValueError(f"an event of the load was rejected: {outcome.rejects[0].error}")
            yield self._encoder.encode(outcome.rows[0].frame, PartitionId(self._topic.topic, 1, 0))

    def _records(self, values: list[bytes], start: int, timestamp_ms: int) -> Records:
        return Records(
            topic=self._topic.topic,
            partition=0,
            start=start,
            end=start + len(values),
            offsets=np.arange(start, start + len(values), dtype=np.int64),
            timestamps=np.full(len(values), timestamp_ms, np.int64),
            keys=[None] * len(values),
            values=values,
            headers=[()] * len(values),
        )


def feature_names(view: ViewSpec) -> list[str]:
    """The features' names, in their order."""
    return [feature.name for feature in view.features]
