"""From rows of the files to records in the order of sending. The clock and the dice come in as parameters.

The order is that of the events, departures, arrivals and weather interleaved, but for what goes wrong on purpose: some
records are late, some a little out of order, some are sent twice, and some copies are cut short, so that nobody can
read them.
"""

import dataclasses
import datetime
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final
from zlib import crc32

import numpy as np
import numpy.typing as npt
import polars as pl

from scripts.flights.source import Source

DEPARTURES: Final = "flights.departures"
ARRIVALS: Final = "flights.arrivals"
WEATHER: Final = "weather.hourly"

PARTITIONS: Mapping[str, int] = MappingProxyType({DEPARTURES: 4, ARRIVALS: 4, WEATHER: 1})

_MINUTE = datetime.timedelta(minutes=1)
_DAY_MINUTES = 24 * 60
_TYPES: Mapping[str, type[pl.DataType]] = MappingProxyType(
    {
        **dict.fromkeys(("dep_delay", "arr_delay", "sched_arr_time", "arr_time", "minute", "air_time"), pl.Int64),
        **dict.fromkeys(("flight", "distance", "wind_dir"), pl.Int64),
        **dict.fromkeys(
            ("temp", "dewp", "humid", "pressure", "wind_speed", "wind_gust", "precip", "visib"), pl.Float64
        ),
        **dict.fromkeys(("time_hour", "carrier", "tailnum", "origin", "dest", "faa", "tzone"), pl.String),
    }
)
"""The columns that are used, of all files."""

_PUERTO_RICO = "America/Puerto_Rico"
"""The zone of the airports that the file of airports lacks: BQN, PSE, SJU and STT, all of them on one time."""


@dataclasses.dataclass(frozen=True, slots=True)
class Disorder:
    """What goes wrong on purpose: parts of all events, and by how much at most."""

    late: float = 0.01
    late_by: tuple[datetime.timedelta, datetime.timedelta] = (datetime.timedelta(hours=1), datetime.timedelta(hours=48))
    out_of_order: float = 0.05
    out_of_order_by: tuple[datetime.timedelta, datetime.timedelta] = (_MINUTE, 30 * _MINUTE)
    twice: float = 0.01
    twice_within: datetime.timedelta = datetime.timedelta(hours=24)
    cut_short: float = 0.0005


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """All records, in the order of sending.

    records: `topic`, `partition`, `key`, `value`, `feed` (a header; null for none), `row` (the event's row in its
    file), `cut_short`, and `event` (when it happened, in the files' own time). The counts say what goes wrong.
    """

    records: pl.DataFrame
    late: int
    out_of_order: int
    twice: int
    cut_short: int

    @property
    def events(self) -> int:
        """How many different events there are."""
        return self.records.height - self.twice - self.cut_short


@dataclasses.dataclass(frozen=True, slots=True)
class Year:
    """What the files tell, with times as instants.

    flights: one row each, `scheduled`, `departed` (null for a cancelled one) and `arrived` among the columns. weather:
    one row for each observation, made `at`. Both carry `row`, the number of their row in the file, from 0.
    """

    flights: pl.DataFrame
    weather: pl.DataFrame

    @property
    def end(self) -> datetime.datetime:
        """When the last event happened."""
        times = [self.flights["scheduled"], self.flights["departed"], self.flights["arrived"], self.weather["at"]]
        return max(last for time in times if isinstance(last := time.max(), datetime.datetime))


def read(source: Source) -> Year:
    """Read the files."""
    return Year(_read_flights(source), _read_weather(source))


def shift_to(now: datetime.datetime, year: Year) -> datetime.timedelta:
    """By how much to shift times so that the last event happens now, or less than a minute ago."""
    return (now - year.end) // _MINUTE * _MINUTE


def events(year: Year, shift: datetime.timedelta) -> pl.DataFrame:
    """Every event, in no order: `topic`, `row`, `event` (when, not shifted), `key`, `value` (shifted), `feed`."""
    return pl.concat(
        [_departures(year.flights, shift), _arrivals(year.flights, shift), _observations(year.weather, shift)]
    )


def plan(events: pl.DataFrame, count: int | None, seed: int, disorder: Disorder) -> Plan:
    """The last so many events (all without a count), in the order of sending. The same seed gives the same plan."""
    dice = np.random.default_rng(seed)
    ordered = events.sort("event", "topic", "row")
    ordered = ordered if count is None else ordered.tail(count)
    fate = dice.random(ordered.height)
    late = fate < disorder.late
    displaced = ~late & (fate < disorder.late + disorder.out_of_order)
    delay = np.where(
        late,
        _between(dice, disorder.late_by, ordered.height),
        np.where(displaced, _between(dice, disorder.out_of_order_by, ordered.height), 0),
    )
    once = ordered.with_columns(send=pl.col("event") + _microseconds(delay), cut_short=pl.lit(False))
    copies = once.filter(dice.random(once.height) < disorder.twice)
    again = _between(dice, (datetime.timedelta(0), disorder.twice_within), copies.height)
    copies = copies.with_columns(send=pl.col("send") + _microseconds(again))
    broken = once.filter(dice.random(once.height) < disorder.cut_short).with_columns(
        value=pl.col("value").str.head(pl.col("value").str.len_chars() // 2), cut_short=pl.lit(True)
    )
    records = pl.concat([once, copies, broken]).sort("send", maintain_order=True).drop("send")
    return Plan(
        records=records.with_columns(partition=_partitions(records)),
        late=int(late.sum()),
        out_of_order=int(displaced.sum()),
        twice=copies.height,
        cut_short=broken.height,
    )


def routes(year: Year, plan: Plan) -> pl.DataFrame:
    """The routes that are told of: `origin`, `dest`, `sequence` (the records before the first of it), and `count`."""
    sent = plan.records.with_row_index("sequence").filter((pl.col("topic") == DEPARTURES) & ~pl.col("cut_short"))
    known = sent.select("sequence", "row").join(year.flights.select("row", "origin", "dest"), on="row")
    found = known.group_by("origin", "dest").agg(pl.col("sequence").min(), count=pl.len())
    return found.sort("sequence")


def _between(
    dice: np.random.Generator, bounds: tuple[datetime.timedelta, datetime.timedelta], count: int
) -> npt.NDArray[np.int64]:
    """Durations in microseconds."""
    low, high = (bound // datetime.timedelta(microseconds=1) for bound in bounds)
    return dice.integers(low, high, count, endpoint=True)


def _microseconds(durations: npt.NDArray[np.int64]) -> pl.Series:
    return pl.Series(durations).cast(pl.Duration("us"))


def _partitions(records: pl.DataFrame) -> pl.Series:
    """The partition of each record: all news of a flight, or of a station, in one."""
    unique = records.select("topic", "key").unique()
    numbers = [crc32(key.encode()) % PARTITIONS[topic] for topic, key in unique.iter_rows()]
    known = unique.with_columns(partition=pl.Series(numbers, dtype=pl.Int32))
    return records.join(known, on=["topic", "key"], how="left", maintain_order="left").get_column("partition")


# ---- the files ----


def _read_flights(source: Source) -> pl.DataFrame:
    """The flights, with their times as instants: `scheduled`, `departed` and `arrived`."""
    flights = _read_csv(source.flights)
    zones = _read_csv(source.airports).select("faa", zone="tzone")
    flights = flights.join(zones, left_on="dest", right_on="faa", how="left", maintain_order="left")
    flights = flights.with_columns(pl.col("zone").fill_null(_PUERTO_RICO))
    flights = flights.with_columns(scheduled=_instant("time_hour") + pl.duration(minutes="minute"))
    flights = flights.with_columns(departed=pl.col("scheduled") + pl.duration(minutes="dep_delay"))
    there = flights.get_column("zone").unique().to_list()
    planned = _when_clocks_show("sched_arr_time", after="scheduled", zones=there)
    return flights.with_columns(
        arrived=pl.coalesce(
            planned + pl.duration(minutes="arr_delay"),
            _when_clocks_show("arr_time", after="departed", zones=there),
            planned,
        )
    )


def _read_weather(source: Source) -> pl.DataFrame:
    return _read_csv(source.weather).with_columns(at=_instant("time_hour"))


def _read_csv(path: Path) -> pl.DataFrame:
    """The columns that are used, and `row`, the number of the row in the file."""
    file = pl.scan_csv(path, null_values="NA", infer_schema=False, row_index_name="row")
    types = {name: type for name, type in _TYPES.items() if name in file.collect_schema()}
    return file.select("row", **{name: pl.col(name).cast(type) for name, type in types.items()}).collect()


def _instant(column: str) -> pl.Expr:
    return pl.col(column).str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_zone="UTC", time_unit="us")


def _when_clocks_show(clock: str, *, after: str, zones: list[str]) -> pl.Expr:
    """The first instant after another at which the clocks at the destination show a time such as 1345."""
    local = pl.coalesce(
        pl.when(pl.col("zone") == zone).then(_minute_of_day(pl.col(after).dt.convert_time_zone(zone))) for zone in zones
    )
    shown = pl.col(clock) // 100 * 60 + pl.col(clock) % 100
    return pl.col(after) + pl.duration(minutes=(shown - local) % _DAY_MINUTES)


def _minute_of_day(time: pl.Expr) -> pl.Expr:
    return time.dt.hour().cast(pl.Int64) * 60 + time.dt.minute()


def _departures(flights: pl.DataFrame, shift: datetime.timedelta) -> pl.DataFrame:
    """A departure for each flight; one that was cancelled counts at its scheduled time."""
    at = pl.coalesce("departed", "scheduled")
    body = pl.struct(
        at=_text(at, shift),
        flight=_flight(),
        route=_route(),
        times=pl.struct(scheduled=_text(pl.col("scheduled"), shift), departed=_text(pl.col("departed"), shift)),
        delay="dep_delay",
        cancelled=pl.col("departed").is_null(),
    )
    return _events(flights, DEPARTURES, at, _flight_name(), body, feed=pl.lit(None, pl.String))


def _arrivals(flights: pl.DataFrame, shift: datetime.timedelta) -> pl.DataFrame:
    """An arrival for each flight that departed; without a delay, it came down elsewhere."""
    body = pl.struct(
        at=_text(pl.col("arrived"), shift),
        flight=_flight(),
        route=_route(),
        delay="arr_delay",
        airborne="air_time",
        diverted=pl.col("arr_delay").is_null(),
    )
    feed = pl.col("carrier").str.to_lowercase() + "-ops"
    flown = flights.filter(pl.col("departed").is_not_null())
    return _events(flown, ARRIVALS, pl.col("arrived"), _flight_name(), body, feed)


def _observations(weather: pl.DataFrame, shift: datetime.timedelta) -> pl.DataFrame:
    body = pl.struct(
        time=(pl.col("at") + shift).dt.epoch("s"),
        air=pl.struct(temperature="temp", dew_point="dewp", humidity="humid", pressure="pressure"),
        wind=pl.struct(direction="wind_dir", speed="wind_speed", gust="wind_gust"),
        precipitation="precip",
        visibility="visib",
    )
    return _events(weather, WEATHER, pl.col("at"), pl.col("origin"), body, feed=pl.lit(None, pl.String))


def _flight() -> pl.Expr:
    return pl.struct(carrier="carrier", number="flight", tail="tailnum")


def _route() -> pl.Expr:
    return pl.struct(origin="origin", dest="dest", miles="distance")


def _flight_name() -> pl.Expr:
    return pl.format("{}{}", "carrier", "flight")


def _text(time: pl.Expr, shift: datetime.timedelta) -> pl.Expr:
    return (time + shift).dt.strftime("%Y-%m-%dT%H:%M:%SZ")


def _events(rows: pl.DataFrame, topic: str, at: pl.Expr, key: pl.Expr, body: pl.Expr, feed: pl.Expr) -> pl.DataFrame:
    return rows.select(topic=pl.lit(topic), row="row", event=at, key=key, value=body.struct.json_encode(), feed=feed)
