"""The load that the benchmark puts on everything."""

import json
from pathlib import Path

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from tests.benchmarks import load
from tests.benchmarks.load import ALWAYS_NEW, Load
from tests.benchmarks.rows import BATCH, RowMaker
from tests.benchmarks.steady_producer import PROBE_EVERY, prepared, probe_key, probe_times

NOW_US = 1_767_225_600_000_000


def test_an_event_has_12_fields_and_about_300_bytes() -> None:
    bodies = [value for _, value in Load(1_000, 20_000, NOW_US).bodies()]
    assert all(len(json.loads(value)) == 12 for value in bodies)
    assert 250 < sum(map(len, bodies)) / len(bodies) < 320


def test_a_tenth_of_the_events_are_late_so_that_no_batch_is_in_order() -> None:
    times = [json.loads(value)["ts"] for _, value in Load(1_000, 20_000, NOW_US).bodies()]
    late = [NOW_US + number - at for number, at in enumerate(times) if at < NOW_US + number]
    assert 90 <= len(late) <= 100
    assert max(late) < 50_000


def test_the_same_load_has_the_same_users_however_it_is_read() -> None:
    what = Load(2_000, 500, NOW_US)
    assert list(what.users()) == [user for user, _ in what.bodies()]
    assert what.distinct_users() == len({json.loads(value)["user_id"] for _, value in what.bodies()})
    assert Load(2_000, ALWAYS_NEW, NOW_US).distinct_users() == 2_000


def test_the_definitions_take_every_event_into_a_row_of_ten_features(tmp_path: Path) -> None:
    load.write_definitions(tmp_path, "some-topic")
    maker = RowMaker(load.PACKAGE, tmp_path)
    what = Load(BATCH + 10, ALWAYS_NEW, NOW_US)
    made = list(maker.batches((value for _, value in what.bodies()), timestamp_ms=NOW_US // 1_000))
    assert [len(encoded.keys) for encoded, _ in made] == [BATCH, 10]
    assert len(maker.view.features) == 10
    assert maker.view.ttl
    assert pl.concat([frame for _, frame in made])["user_id"].n_unique() == BATCH + 10


def test_every_probe_has_a_key_of_its_own_and_is_never_late() -> None:
    events = prepared(10 * PROBE_EVERY)
    probes = events[::PROBE_EVERY]
    assert [int(event.key) for event in probes] == [probe_key(number) for number in range(10)]
    assert all(event.late_us == 0 for event in probes)
    assert all(int(event.key) < probe_key(0) for event in events if event not in probes)
    assert json.loads(events[3].value(NOW_US))["ts"] == NOW_US
    assert len(json.loads(events[3].value(NOW_US))) == 12


@given(st.integers(100, 50_000), st.floats(0.1, 5))
def test_sampler_and_producer_agree_on_how_many_probes_there_are(rate: int, seconds: float) -> None:
    times = probe_times(rate, seconds)
    events = round(rate * seconds)
    assert len(times) == len(range(0, events, PROBE_EVERY))
    assert all(at < seconds + 1 / rate for at in times)
