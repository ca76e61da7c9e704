"""The demo's replay: from rows of the files to records, and the oracle that computes their views once more."""

import datetime
import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from scripts.flights import replay
from scripts.flights.agreement import compare
from scripts.flights.examples import INPUTS, TARGET, examples
from scripts.flights.feed import Pace
from scripts.flights.oracle import Oracle, Row
from scripts.flights.replay import ARRIVALS, DEPARTURES, WEATHER, Disorder, Year
from scripts.flights.source import Source
from scripts.flights.table import quantile
from stillwell.layout.stamp import Stamp, topic_digest
from stillwell.layout.value import DecodedRow

FLIGHT = {
    "dep_time": "517",
    "sched_dep_time": "515",
    "dep_delay": "2",
    "arr_time": "830",
    "sched_arr_time": "819",
    "arr_delay": "11",
    "carrier": "UA",
    "flight": "1545",
    "tailnum": "N14228",
    "origin": "EWR",
    "dest": "IAH",
    "air_time": "227",
    "distance": "1400",
    "minute": "15",
    "time_hour": "2013-01-01T10:00:00Z",
}
CANCELLED = dict.fromkeys(("dep_time", "dep_delay", "arr_time", "arr_delay", "air_time"), "NA")
DIVERTED = {"arr_delay": "NA", "air_time": "NA"}
OBSERVATION = {
    "origin": "EWR",
    "temp": "39.02",
    "dewp": "26.06",
    "humid": "59.37",
    "wind_dir": "270",
    "wind_speed": "10.36",
    "wind_gust": "NA",
    "precip": "0",
    "pressure": "1012",
    "visib": "10",
    "time_hour": "2013-01-01T06:00:00Z",
}
NO_SHIFT = datetime.timedelta(0)
GOLDEN = Path(__file__).parents[2] / "schemas" / "golden"

Files = Callable[..., Source]


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """files({changes of a flight}, …, weather=[{…}]): the three files, with a row for each."""

    def write(*flights: dict[str, str], weather: list[dict[str, str]] | None = None) -> Source:
        source = Source(tmp_path / "flights.csv", tmp_path / "weather.csv", tmp_path / "airports.csv")
        for path, first, changes in (
            (source.flights, FLIGHT, flights or ({},)),
            (source.weather, OBSERVATION, weather or [{}]),
        ):
            rows = [{**first, **change} for change in changes]
            path.write_text("".join(",".join(row) + "\n" for row in [list(first), *(row.values() for row in rows)]))
        source.airports.write_text("faa,tzone\nIAH,America/Chicago\nLAX,America/Los_Angeles\n")
        return source

    return write


def many(count: int) -> list[dict[str, str]]:
    """So many flights, a minute apart."""
    times = [datetime.datetime(2013, 1, 1, 10) + datetime.timedelta(minutes=number) for number in range(count)]
    return [
        {
            "flight": str(number % 40 + 1),
            "tailnum": f"N{number % 25}",
            "time_hour": f"{time:%Y-%m-%dT%H:00:00Z}",
            "minute": f"{time.minute}",
        }
        for number, time in enumerate(times)
    ]


def values(year: Year, topic: str, shift: datetime.timedelta = NO_SHIFT) -> list[dict[str, object]]:
    """The bodies of a topic's events."""
    events = replay.events(year, shift).filter(pl.col("topic") == topic)
    return [json.loads(value) for value in events.get_column("value")]


def at(year: Year, topic: str) -> str:
    """When the only event of a topic happened."""
    (event,) = replay.events(year, NO_SHIFT).filter(pl.col("topic") == topic).get_column("event")
    return f"{event:%m-%d %H:%M}"


@pytest.mark.parametrize("topic", [DEPARTURES, ARRIVALS])
def test_a_row_becomes_the_event_that_the_topics_card_shows(files: Files, topic: str) -> None:
    """The golden example `on-time` is of the same flight. Its times are left out: it writes them in another zone."""
    golden = json.loads((GOLDEN / topic / "on-time.json").read_text())
    (event,) = replay.events(replay.read(files()), NO_SHIFT).filter(pl.col("topic") == topic).rows(named=True)
    assert event["key"] == golden["key"]
    assert _without_times(json.loads(event["value"])) == _without_times(golden["value"])


def test_an_observation_becomes_the_event_that_the_topics_card_shows(files: Files) -> None:
    golden = json.loads((GOLDEN / WEATHER / "calm.json").read_text())
    year = replay.read(files(weather=[{"wind_dir": "NA", "wind_speed": "0"}]))
    assert values(year, WEATHER) == [golden["value"]]


def _without_times(value: object) -> object:
    """The same with every time, where there is one, cut to its year."""
    if isinstance(value, dict):
        return {name: _without_times(part) for name, part in value.items()}
    return value[:4] if isinstance(value, str) and value.startswith("2013") else value


def test_a_cancelled_flight_departs_when_it_was_scheduled_to_and_never_arrives(files: Files) -> None:
    year = replay.read(files(CANCELLED))
    assert at(year, DEPARTURES) == "01-01 10:15"
    assert values(year, DEPARTURES)[0]["cancelled"] is True
    assert values(year, ARRIVALS) == []


@pytest.mark.parametrize(
    ("changes", "arrives"),
    [
        ({}, "01-01 14:30"),
        ({"sched_arr_time": "2350", "arr_delay": "20"}, "01-02 06:10"),
        ({"sched_arr_time": "2400", "arr_delay": "0"}, "01-02 06:00"),
        ({"dest": "LAX"}, "01-01 16:30"),
        ({"dest": "SJU"}, "01-01 12:30"),
        ({**DIVERTED, "arr_time": "1200"}, "01-01 18:00"),
        ({**DIVERTED, "arr_time": "NA"}, "01-01 14:19"),
    ],
    ids=["on time", "past midnight", "at midnight", "three zones west", "no zone in the file", "elsewhere", "unknown"],
)
def test_an_arrival_is_told_by_the_clocks_at_its_destination(
    files: Files, changes: dict[str, str], arrives: str
) -> None:
    assert at(replay.read(files(changes)), ARRIVALS) == arrives


def test_the_shifted_year_ends_less_than_a_minute_ago_and_keeps_its_distances(files: Files) -> None:
    year = replay.read(files())
    now = datetime.datetime(2026, 3, 4, 5, 6, 7, tzinfo=datetime.UTC)
    shift = replay.shift_to(now, year)
    assert datetime.timedelta(0) <= now - (year.end + shift) < datetime.timedelta(minutes=1)
    (before,), (after,) = values(year, WEATHER), values(year, WEATHER, shift)
    assert isinstance(before["time"], int)
    assert after["time"] == before["time"] + shift.total_seconds()


def test_everything_is_sent_in_order_of_its_time_where_nothing_goes_wrong(files: Files) -> None:
    events = replay.events(replay.read(files(*many(400))), NO_SHIFT)
    plan = replay.plan(events, None, 1, Disorder(late=0, out_of_order=0, twice=0, cut_short=0))
    assert plan.records.get_column("event").is_sorted()
    assert plan.records.height == events.height
    assert set(plan.records.head(350).get_column("topic")) == {DEPARTURES, ARRIVALS, WEATHER}


def test_what_goes_wrong_is_counted_and_repeats_with_its_seed(files: Files) -> None:
    events = replay.events(replay.read(files(*many(1_000))), NO_SHIFT)
    disorder = Disorder(late=0.1, out_of_order=0.2, twice=0.1, cut_short=0.05)
    plan, again, other = (replay.plan(events, None, seed, disorder) for seed in (1, 1, 2))
    assert plan.records.equals(again.records)
    assert not plan.records.equals(other.records)
    assert plan.records.height == events.height + plan.twice + plan.cut_short
    # A plan without late records would be one of another order: they have to be far behind those of their time.
    behind = plan.records.get_column("event").cum_max() - plan.records.get_column("event")
    assert 0.5 * plan.late < (behind >= datetime.timedelta(hours=1)).sum() <= plan.late + plan.twice + plan.cut_short
    assert min(plan.late, plan.out_of_order, plan.twice, plan.cut_short) > 0


def test_a_record_sent_twice_is_the_same_and_one_that_is_cut_short_is_not_readable(files: Files) -> None:
    events = replay.events(replay.read(files(*many(1_000))), NO_SHIFT)
    plan = replay.plan(events, None, 1, Disorder(twice=0.1, cut_short=0.05))
    sent = defaultdict(set)
    for topic, row, value, cut_short in plan.records.select("topic", "row", "value", "cut_short").rows():
        if cut_short:
            with pytest.raises(json.JSONDecodeError):
                json.loads(value)
        else:
            sent[topic, row].add(value)
    assert len(sent) == events.height
    assert {len(bodies) for bodies in sent.values()} == {1}


def test_fewer_events_are_the_last_of_the_year(files: Files) -> None:
    events = replay.events(replay.read(files(*many(200))), NO_SHIFT)
    plan = replay.plan(events, 50, 1, Disorder(twice=0, cut_short=0))
    assert plan.records.height == 50
    assert plan.records.get_column("event").min() >= events.get_column("event").sort()[-50]


def test_all_news_of_a_flight_is_in_one_partition_and_no_partition_is_idle(files: Files) -> None:
    plan = replay.plan(replay.events(replay.read(files(*many(400))), NO_SHIFT), None, 1, Disorder())
    used = plan.records.group_by("topic", "key").agg(pl.col("partition").n_unique()).get_column("partition")
    assert used.max() == 1
    partitions = plan.records.filter(pl.col("topic") == DEPARTURES).get_column("partition").unique().sort()
    assert partitions.to_list() == list(range(replay.PARTITIONS[DEPARTURES]))


# ---- the oracle ----


def oracle(source: Source, sent: list[dict[str, object]], folder: Path) -> Oracle:
    """An oracle over records sent in this order."""
    ledger = pl.DataFrame(
        [
            {"sequence": number, "partition": 0, "timestamp": 1, "cut_short": False, "topic": DEPARTURES, **record}
            for number, record in enumerate(sent)
        ]
    )
    ledger.write_parquet(folder / "sent.parquet")
    return Oracle(source, folder / "sent.parquet", NO_SHIFT)


TWO_FLIGHTS = ({"distance": "1"}, {"flight": "2", "distance": "2"})
"""Two flights of a route that depart in the same minute; the length of the route tells them apart."""


@pytest.mark.parametrize(
    "sent",
    [
        [{"row": 0, "timestamp": 1}, {"row": 1, "timestamp": 2}],
        [{"row": 1, "timestamp": 2}, {"row": 0, "timestamp": 1}],
        [{"row": 1, "partition": 1}, {"row": 0, "partition": 0}],
        [{"row": 1, "partition": 0, "timestamp": 2}, {"row": 0, "partition": 1, "timestamp": 1}],
        [{"row": 0}, {"row": 1}],
        [{"row": 1}, {"row": 0, "cut_short": True}],
    ],
    ids=["timestamp", "timestamp before order", "partition", "timestamp before partition", "order", "cut short"],
)
def test_events_of_one_time_are_ranked_as_their_stamps_are(
    files: Files, tmp_path: Path, sent: list[dict[str, object]]
) -> None:
    newest = oracle(files(*TWO_FLIGHTS), sent, tmp_path).newest("RouteDepartures")
    assert newest["EWR", "IAH"].features["miles"] == 2
    readable = [record for record in sent if not record.get("cut_short")]
    winner = max(readable, key=lambda record: _stamp(record, sent.index(record)))
    assert winner["row"] == 1


def _stamp(record: dict[str, object], sequence: int) -> bytes:
    timestamp, partition = (int(str(record.get(name, 1))) for name in ("timestamp", "partition"))
    return Stamp(0, None, timestamp, topic_digest(DEPARTURES), 1, partition, sequence, 1, 0).pack()


def test_the_later_event_wins_over_the_later_record(files: Files, tmp_path: Path) -> None:
    source = files({"minute": "20", "distance": "2"}, {"minute": "15", "distance": "1"})
    newest = oracle(source, [{"row": 0}, {"row": 1}], tmp_path).newest("RouteDepartures")
    expected = Row(
        datetime.datetime(2013, 1, 1, 10, 22, tzinfo=datetime.UTC), {"cancelled": False, "delay": 2.0, "miles": 2}
    )
    assert newest == {("EWR", "IAH"): expected}


def test_the_oracle_and_the_replay_read_the_same_times_from_the_files(files: Files, tmp_path: Path) -> None:
    """Both tell them on their own, the one in SQL."""
    changes = [{}, {"dest": "LAX"}, {"dest": "SJU"}, {**DIVERTED, "arr_time": "1200"}, {**DIVERTED, "arr_time": "NA"}]
    source = files(*({**change, "tailnum": f"N{number}"} for number, change in enumerate(changes)))
    sent = [{"row": row, "topic": ARRIVALS} for row in range(len(changes))]
    newest = oracle(source, sent, tmp_path).newest("AircraftArrivals")
    arrivals = replay.events(replay.read(source), NO_SHIFT).filter(pl.col("topic") == ARRIVALS).sort("row")
    assert [newest[(f"N{row}",)].event_time for row in range(len(changes))] == arrivals.get_column("event").to_list()


def test_a_wind_of_a_thousand_miles_an_hour_is_not_used(files: Files, tmp_path: Path) -> None:
    source = files(weather=[{}, {"time_hour": "2013-01-01T07:00:00Z", "wind_speed": "1048.36"}])
    knows = oracle(source, [{"row": 0, "topic": WEATHER}, {"row": 1, "topic": WEATHER}], tmp_path)
    assert knows.readable()[WEATHER] == 1
    assert knows.newest("AirportWeather")["EWR",].event_time.hour == 6


# ---- what the model learns from ----


def test_an_example_knows_what_was_known_the_instant_before(files: Files) -> None:
    """The news of its route, of any flight from its airport, and of the weather; nothing of itself, or of later."""
    source = files(
        {"minute": "0", "dep_delay": "1", "distance": "10"},
        {"minute": "5", "dest": "LAX", "dep_delay": "2"},
        {"minute": "10", "dep_delay": "900"},
        {"minute": "20", "dep_delay": "4", "time_hour": "2013-01-02T10:00:00Z"},
        {**CANCELLED, "minute": "30", "time_hour": "2013-01-02T10:00:00Z"},
        {"minute": "40", "dep_delay": "6", "time_hour": "2013-01-02T10:00:00Z"},
        weather=[{}, {"time_hour": "2013-01-02T10:30:00Z", "wind_speed": "1048.36"}, {"origin": "JFK", "visib": "1"}],
    )
    learned = examples(replay.read(source), most=100, seed=1)
    assert learned.columns == [*INPUTS, TARGET]
    wind = pytest.approx(10.36)
    assert learned.rows() == [
        (None, 10, None, wind, 10.0, 1.0),
        (None, 1400, 1.0, wind, 10.0, 2.0),
        (1.0, 1400, 2.0, wind, 10.0, 900.0),
        (600.0, 1400, 900.0, wind, 10.0, 4.0),
        (None, 1400, 4.0, wind, 10.0, 6.0),
    ]


def test_no_more_examples_are_taken_than_wanted(files: Files) -> None:
    source = files(*({"minute": str(minute)} for minute in range(50)))
    assert examples(replay.read(source), most=10, seed=1).height == 10


def test_routes_are_told_in_the_order_in_which_they_are_sent(files: Files) -> None:
    source = files({"minute": "5"}, {"minute": "1", "dest": "LAX"}, {"minute": "9"}, weather=[{}])
    year = replay.read(source)
    told = replay.routes(
        year, replay.plan(replay.events(year, NO_SHIFT), None, 1, Disorder(0, out_of_order=0, twice=0))
    )
    assert told.select("origin", "dest", "count").rows() == [("EWR", "LAX", 1), ("EWR", "IAH", 2)]
    assert told.get_column("sequence").to_list() == [1, 2]


# ---- the comparison ----

NOON = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC)


def stored(event_time: datetime.datetime, **features: object) -> DecodedRow:
    """A row as it is read from Redis."""
    return DecodedRow(features, Stamp(int(event_time.timestamp()) * 1_000_000, None, 0, b"8 bytes.", 1, 0, 0, 1, 0))


@pytest.mark.parametrize(
    ("found", "there", "says"),
    [
        (stored(NOON, miles=1), 1, None),
        (stored(NOON, miles=2), 1, "JFK-LAX: miles is 2, expected 1"),
        (stored(NOON, miles=1.0), 1, "miles is 1.0, expected 1"),
        (stored(NOON, miles=None), 1, "miles is None, expected 1"),
        (stored(NOON), 1, "miles is None, expected 1"),
        (stored(NOON, miles=1, feet=3), 1, "feet is 3, expected None"),
        (stored(NOON + datetime.timedelta(minutes=1), miles=1), 1, "event time is 2026-01-01 12:01"),
        (None, 1, "JFK-LAX is not there"),
        (stored(NOON, miles=1), 2, "Redis holds 2 entities, where 1 are expected"),
    ],
)
def test_every_difference_is_found(found: DecodedRow | None, there: int, says: str | None) -> None:
    key = ("JFK", "LAX")
    agreement = compare("RouteDepartures", {key: Row(NOON, {"miles": 1})}, {key: found}, there)
    assert agreement.differing == (says is not None)
    assert all(says and says in difference for difference in agreement.differences)
    assert (agreement.entities, agreement.values) == (1, 2)


# ---- the feed's pace, and what the table tells ----


def test_the_feed_stays_within_reach_of_redis() -> None:
    pace = Pace(ahead=100, outage_ahead=1_000)
    assert pace.allows(now=0, sent=150, served=51)
    assert not pace.allows(now=0, sent=150, served=50)


def test_while_a_worker_is_gone_the_feed_goes_on_as_fast_as_it_was_up_to_a_bound() -> None:
    pace = Pace(ahead=100, outage_ahead=1_000)
    pace.begin_outage(now=10.0, sent=500, rate=200.0)
    assert pace.allows(now=11.0, sent=699, served=400)
    assert not pace.allows(now=11.0, sent=700, served=400)
    assert not pace.allows(now=90.0, sent=1_400, served=400)
    pace.end_outage()
    assert not pace.allows(now=90.0, sent=699, served=400)


@pytest.mark.parametrize(("part", "value"), [(0.25, 0.5), (0.5, 1.0), (0.625, 2.0), (0.99, 3.0), (1.0, 3.0)])
def test_quantiles_are_told_from_buckets(part: float, value: float) -> None:
    """Two of four observations are up to 1 s, one up to 3 s, and one is beyond the last bound."""
    buckets = {1.0: 2.0, 3.0: 3.0, float("inf"): 4.0}
    assert quantile(part, [buckets]) == pytest.approx(value)


def test_there_is_no_quantile_of_nothing() -> None:
    assert quantile(0.5, [{1.0: 0.0, float("inf"): 0.0}]) is None
