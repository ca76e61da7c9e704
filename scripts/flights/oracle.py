"""What the features ought to be: computed once more, from the files and the order of sending, in SQL.

Nothing of the product has a part in this. Where events are equally old, the stamp's rule decides: the later record
timestamp, then the higher partition, then the later offset.
"""

import dataclasses
import datetime
import importlib.resources
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import duckdb

from scripts.flights.source import Source

VIEWS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "RouteDepartures": ("origin", "dest"),
        "AircraftArrivals": ("tail",),
        "AirportWeather": ("airport",),
    }
)
"""The views that are computed again, with their keys: one of each topic. Not RouteArrivals, one of whose features
depends on when Kafka received the record."""

Key = tuple[str, ...]

_SQL = importlib.resources.files("scripts.flights") / "sql"
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """The newest row of one entity."""

    event_time: datetime.datetime
    features: Mapping[str, object]


class Oracle:
    """Knows what was sent, and what follows from it."""

    def __init__(self, source: Source, sent: Path, shift: datetime.timedelta) -> None:
        """sent: the records in the order of sending, as `feed` notes them, in Parquet."""
        self._database = duckdb.connect()
        variables = {
            "flights": str(source.flights),
            "weather": str(source.weather),
            "airports": str(source.airports),
            "sent": str(sent),
            "shift": shift // datetime.timedelta(minutes=1),
        }
        for name, value in variables.items():
            self._database.execute(f"SET VARIABLE {name} = ?", [value])
        self._database.execute(_SQL.joinpath("events.sql").read_text())

    def readable(self) -> dict[str, int]:
        """How many records of each topic can be used."""
        counts = {"flights.departures": "departure", "flights.arrivals": "arrival", "weather.hourly": "observation"}
        return {topic: self._count(f"FROM {table}") for topic, table in counts.items()}

    def row_count(self, view: str) -> int:
        """How many rows a view has at rest."""
        return self._count(f"FROM ({_rows(view)})")

    def newest(self, view: str) -> dict[Key, Row]:
        """The newest row of every entity."""
        keys = VIEWS[view]
        answer = self._database.execute(
            f"SELECT * EXCLUDE (timestamp, partition, sequence, event_time), epoch_us(event_time) AS event_time "
            f"FROM ({_rows(view)}) QUALIFY row_number() OVER (PARTITION BY {', '.join(keys)} "
            "ORDER BY event_time DESC, timestamp DESC, partition DESC, sequence DESC) = 1"
        )
        names = [column[0] for column in answer.description]
        found = {}
        for values in answer.fetchall():
            row = dict(zip(names, values, strict=True))
            key = tuple(row.pop(name) for name in keys)
            found[key] = Row(_EPOCH + datetime.timedelta(microseconds=row.pop("event_time")), row)
        return found

    def _count(self, of: str) -> int:
        counted = self._database.execute(f"SELECT count(*) {of}").fetchone()
        assert counted is not None
        return int(counted[0])


def _rows(view: str) -> str:
    """The query of all rows of a view."""
    return _SQL.joinpath(f"{view}.sql").read_text()
