"""What the client gives back for features: frozen values that know what each is worth, and become tables.

An answer is held by column, as it comes; `for row in features` and `features.one()` give it by entity. Values are as
their types have them in Python: a Timestamp is a time in UTC, Bytes are bytes, a Float32 is a float of that width.
"""

import dataclasses
import datetime
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from stillwell.client.named import found_in, reference_of
from stillwell.client.tables import arrow_table, pandas_frame, polars_frame
from stillwell.reading.status import Freshness, Status

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

    from stillwell.client.named import NamedFeature


@dataclasses.dataclass(frozen=True, slots=True)
class Provenance:
    """The record that a value's row was made of. topic: Kafka's name of it, or `sha256:` and its digest, where nobody
    knows that by now; incarnation: counts topics of that name. version: of the view that made the row."""

    topic: str
    incarnation: int
    partition: int
    offset: int
    version: int


@dataclasses.dataclass(frozen=True, slots=True)
class Value:
    """One feature of one entity. value: None where there is none; past the TTL, what it was. event_time, age: of the
    row, None where there is no row; age was counted when the row was read. freshness: against the view's objective,
    None where there is no row or no objective. provenance: None where there is no row, for what is computed or
    predicted, and where it was not asked for."""

    value: Any
    status: Status
    event_time: datetime.datetime | None
    age: datetime.timedelta | None
    freshness: Freshness | None = None
    provenance: Provenance | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Column:
    """One feature of all entities, in the order of the request: see Value. type: as definitions write it. provenance:
    None where it was not asked for."""

    reference: str
    type: str
    values: tuple[Any, ...]
    statuses: tuple[Status, ...]
    event_times: tuple[datetime.datetime | None, ...]
    ages: tuple[datetime.timedelta | None, ...]
    freshness: tuple[Freshness | None, ...]
    provenance: tuple[Provenance | None, ...] | None = None

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, row: int) -> Value:
        return Value(
            self.values[row],
            self.statuses[row],
            self.event_times[row],
            self.ages[row],
            self.freshness[row],
            None if self.provenance is None else self.provenance[row],
        )

    def shown(self, expired: bool) -> tuple[Any, ...]:
        """The values, and None for those past their TTL unless `expired` says so."""
        if expired or Status.OUTSIDE_MAX_AGE not in self.statuses:
            return self.values
        return tuple(
            None if status is Status.OUTSIDE_MAX_AGE else value
            for value, status in zip(self.values, self.statuses, strict=True)
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """All features of one entity, by reference: `row["Departures:late"]`, or `row[Departures.late]`."""

    entity: Mapping[str, Any]
    features: Mapping[str, Value]

    def __getitem__(self, reference: "NamedFeature") -> Value:
        return found_in(self.features, reference_of(reference))

    def to_dict(self, *, expired: bool = False) -> dict[str, Any]:
        """Keys and values. expired: values past their TTL too, which are None otherwise."""
        return {**self.entity} | {
            reference: None if each.status is Status.OUTSIDE_MAX_AGE and not expired else each.value
            for reference, each in self.features.items()
        }


@dataclasses.dataclass(frozen=True, slots=True)
class Features:
    """The answer to a request for features. entities: the keys as they were given, by column."""

    entities: Mapping[str, tuple[Any, ...]]
    columns: Mapping[str, Column]
    """By reference, in the order of the request."""
    count: int
    """Of entities."""

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Row]:
        return (self[row] for row in range(self.count))

    def __getitem__(self, row: int) -> Row:
        """The features of one entity, by its place in the request."""
        return Row(
            {name: values[row] for name, values in self.entities.items()},
            {reference: column[row] for reference, column in self.columns.items()},
        )

    def column(self, reference: "NamedFeature") -> Column:
        """One feature of all entities."""
        return found_in(self.columns, reference_of(reference))

    def one(self) -> Row:
        """The features of the only entity that was asked for. Raises ValueError if it was not one."""
        if self.count != 1:
            raise ValueError(f"the answer has {self.count} entities, not one: take one of its rows")
        return self[0]

    def to_dict(self, *, details: bool = False, expired: bool = False) -> dict[str, list[Any]]:
        """Columns: the keys, then each feature under its reference.

        details: with each feature `<reference>:status`, `…:event_time`, `…:age_s` and `…:freshness`, and where it was
        asked for its provenance, `…:topic`, `…:incarnation`, `…:partition`, `…:offset` and `…:version`. expired: values
        past their TTL too, which are None otherwise: whoever does not look at statuses must not take them for current.
        """
        columns = {name: list(values) for name, values in self.entities.items()}
        for reference, column in self.columns.items():
            columns[reference] = list(column.shown(expired))
            if details:
                columns[f"{reference}:status"] = [status.value for status in column.statuses]
                columns[f"{reference}:event_time"] = list(column.event_times)
                columns[f"{reference}:age_s"] = [None if age is None else age.total_seconds() for age in column.ages]
                columns[f"{reference}:freshness"] = [each and each.value for each in column.freshness]
                if column.provenance is not None:
                    for name in _PROVENANCE:
                        columns[f"{reference}:{name}"] = [each and getattr(each, name) for each in column.provenance]
        return columns

    def to_arrow(self, *, details: bool = False, expired: bool = False) -> "pyarrow.Table":
        """A table of Arrow, with the features in their own types; see `to_dict`."""
        types = {reference: column.type for reference, column in self.columns.items()}
        if details:
            for reference in self.columns:
                types |= {f"{reference}:{name}": kind for name, kind in (_DETAILS | _PROVENANCE).items()}
        return arrow_table(self.to_dict(details=details, expired=expired), types)

    def to_polars(self, *, details: bool = False, expired: bool = False) -> "polars.DataFrame":
        """A frame of Polars; see `to_dict`."""
        return polars_frame(self.to_arrow(details=details, expired=expired))

    def to_pandas(self, *, details: bool = False, expired: bool = False) -> "pandas.DataFrame":
        """A frame of pandas, which must be installed; see `to_dict`."""
        return pandas_frame(self.to_arrow(details=details, expired=expired))


_DETAILS = {"status": "String", "event_time": "Timestamp", "age_s": "Float64", "freshness": "String"}
_PROVENANCE = {"topic": "String", "incarnation": "Int64", "partition": "Int64", "offset": "Int64", "version": "Int64"}
