"""What the client gives back for predictions: frozen values that say what each is worth, and become tables.

FRESH      the model's word on the inputs as they are now, and no older than its `max_staleness`
STALE      its word on inputs that have changed since, or that were read too long ago
MISSING    there is no prediction yet
FAILED     the model was asked about these inputs, and gave no answer of use; the values are of before, if there are any
"""

import dataclasses
import datetime
import enum
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from stillwell.client.named import found_in, output_of
from stillwell.client.tables import arrow_table, pandas_frame, polars_frame

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

    from stillwell.client.named import NamedFeature


class PredictionState(enum.Enum):
    """What a prediction is worth."""

    FRESH = "FRESH"
    STALE = "STALE"
    MISSING = "MISSING"
    FAILED = "FAILED"


class Refresh(enum.Enum):
    """What reading a prediction has set in motion: nothing, a refresh, one that others share, or one that is done."""

    NONE = "none"
    QUEUED = "queued"
    SHARED = "shared"
    INLINE = "inline"


@dataclasses.dataclass(frozen=True, slots=True)
class Input:
    """The row of one view that the model is asked about now: None where there is no row."""

    event_time: datetime.datetime | None
    age: datetime.timedelta | None


@dataclasses.dataclass(frozen=True, slots=True)
class Prediction:
    """The prediction for one entity.

    values: by output, None where there are none. computed_at: when the model answered; read_at: when the inputs that it
    was asked about were read, which age counts from. inputs: as they are now, by view or alias. reason: why it failed,
    or was not tried.
    """

    entity: Mapping[str, Any]
    values: Mapping[str, Any]
    state: PredictionState
    computed_at: datetime.datetime | None
    read_at: datetime.datetime | None
    age: datetime.timedelta | None
    inputs: Mapping[str, Input]
    refresh: Refresh
    reason: str | None

    def __getitem__(self, output: "NamedFeature") -> Any:
        return found_in(self.values, output_of(output))

    def to_dict(self, *, stale: bool = False) -> dict[str, Any]:
        """Keys and outputs. stale: also those of a prediction that is not FRESH, which are None otherwise."""
        shown = stale or self.state is PredictionState.FRESH
        return {**self.entity} | {name: value if shown else None for name, value in self.values.items()}


@dataclasses.dataclass(frozen=True, slots=True)
class Predictions:
    """The answer to a request for predictions, in the order of its entities. types: of the outputs."""

    model: str
    version: str
    types: Mapping[str, str]
    rows: tuple[Prediction, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Prediction]:
        return iter(self.rows)

    def __getitem__(self, row: int) -> Prediction:
        """The prediction for one entity, by its place in the request."""
        return self.rows[row]

    def one(self) -> Prediction:
        """The prediction for the only entity that was asked for. Raises ValueError if it was not one."""
        if len(self) != 1:
            raise ValueError(f"the answer has {len(self)} entities, not one: take one of its rows")
        return self.rows[0]

    def to_dict(self, *, details: bool = False, stale: bool = False) -> dict[str, list[Any]]:
        """Columns: the keys, then the outputs.

        details: then `state`, `computed_at`, `read_at`, `age_s`, `refresh` and `reason`, each behind `<model>:`. stale:
        also outputs of what is not FRESH, which are None otherwise: nobody is to take them for current who does not
        look.
        """
        shown = [row.to_dict(stale=stale) for row in self.rows]
        columns: dict[str, list[Any]] = {
            name: [row[name] for row in shown] for name in (shown[0] if shown else self.types)
        }
        if details:
            columns |= {
                f"{self.model}:state": [row.state.value for row in self.rows],
                f"{self.model}:computed_at": [row.computed_at for row in self.rows],
                f"{self.model}:read_at": [row.read_at for row in self.rows],
                f"{self.model}:age_s": [None if row.age is None else row.age.total_seconds() for row in self.rows],
                f"{self.model}:refresh": [row.refresh.value for row in self.rows],
                f"{self.model}:reason": [row.reason for row in self.rows],
            }
        return columns

    def to_arrow(self, *, details: bool = False, stale: bool = False) -> "pyarrow.Table":
        """A table of Arrow, with the outputs in their own types; see `to_dict`."""
        types = {**self.types} | {f"{self.model}:{name}": kind for name, kind in _DETAILS.items()}
        return arrow_table(self.to_dict(details=details, stale=stale), types)

    def to_polars(self, *, details: bool = False, stale: bool = False) -> "polars.DataFrame":
        """A frame of Polars; see `to_dict`."""
        return polars_frame(self.to_arrow(details=details, stale=stale))

    def to_pandas(self, *, details: bool = False, stale: bool = False) -> "pandas.DataFrame":
        """A frame of pandas, which must be installed; see `to_dict`."""
        return pandas_frame(self.to_arrow(details=details, stale=stale))


_DETAILS = {
    "state": "String",
    "computed_at": "Timestamp",
    "read_at": "Timestamp",
    "age_s": "Float64",
    "refresh": "String",
    "reason": "String",
}
