"""Outputs of models beside features, as a narrow protocol: who reads predictions is told by whoever puts a reader
together. A reader that has none says so.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from stillwell.errors import RequestError
from stillwell.reading.status import Freshness, Status
from stillwell.spec import ModelSpec


class PredictedColumns(NamedTuple):
    """A model's outputs for some entities: a column for each output, in the model's order.

    under: the epoch and the server that it was read from (`stillwell.reading.online.Stored.under`); empty where these
    are several.

    values, statuses: by output, then entity. read_at: when each entity's inputs were read, in
    µs since the epoch, None where there is no prediction. freshness: LATE for a prediction of other inputs than those
    there are, or an old one. whole: whether it is known that all are there and FRESH, and no value null.
    """

    under: bytes
    values: Sequence[Sequence[Any]]
    statuses: Sequence[Sequence[Status]]
    read_at: Sequence[int | None]
    freshness: Sequence[Freshness | None]
    whole: bool = False


class Predictions(Protocol):
    """Reads predictions."""

    async def columns(self, model: ModelSpec, columns: Mapping[str, Sequence[Any]]) -> PredictedColumns:
        """The outputs of a model for entities, typed. Raises RequestError, and what reading features raises."""


class NoPredictions:
    """Of a reader that has none."""

    async def columns(self, model: ModelSpec, columns: Mapping[str, Sequence[Any]]) -> PredictedColumns:
        """Raises RequestError."""
        raise RequestError(
            "features",
            f"{model.name} is a model, and what reads here was not told where predictions are",
        )
