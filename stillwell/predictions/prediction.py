"""What is told of a prediction."""

import enum
from collections.abc import Mapping
from typing import NamedTuple

from stillwell.predictions.freshness import State
from stillwell.predictions.inputs import ModelInputs


class Refresh(enum.StrEnum):
    """What a read has set in motion."""

    NONE = "none"
    QUEUED = "queued"
    SHARED = "shared"
    INLINE = "inline"


class Prediction(NamedTuple):
    """What is told of one entity.

    values: of the outputs, in their order, a Timestamp as µs since the epoch; None where the model never answered, or
    too long ago. read_at: when its inputs were read; computed_at: both in µs since the epoch. rows: the inputs that
    `state` is about; under: the epoch and server that had them (`stillwell.reading.online.Stored.under`). refresh: what
    this read has set in motion. reason: why it failed, or why nobody computes it anew, or "".
    """

    state: State
    values: tuple[object, ...] | None
    read_at: int | None
    computed_at: int | None
    inputs: ModelInputs
    rows: tuple[bytes | None, ...]
    under: bytes
    refresh: Refresh
    reason: str

    @property
    def event_times(self) -> Mapping[str, int | None]:
        """Of the inputs, by view or alias, in µs since the epoch."""
        return self.inputs.event_times(self.rows)
