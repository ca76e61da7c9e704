"""Instants as whole numbers: the same instant again, on either side of the epoch, and no other clock than UTC's."""

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stillwell.instants import EPOCH, duration_ms, duration_us, instant, instant_us, now, now_ms, now_us

ZONES = st.integers(-1_439, 1_439).map(lambda minutes: datetime.timezone(datetime.timedelta(minutes=minutes)))


@given(st.datetimes(timezones=ZONES))
def test_a_time_in_any_zone_is_the_same_instant_again(at: datetime.datetime) -> None:
    try:
        utc = at.astimezone(datetime.UTC)
    except OverflowError:  # in UTC it lies outside the years that Python has
        return
    assert instant(instant_us(at)) == utc


def test_before_the_epoch_numbers_are_negative_and_nothing_is_rounded_away() -> None:
    assert instant_us(EPOCH - datetime.timedelta(microseconds=1)) == -1
    assert instant(-1).isoformat() == "1969-12-31T23:59:59.999999+00:00"
    with pytest.raises(OverflowError):
        instant(253_402_300_800_000_000)


def test_durations_are_whole_numbers() -> None:
    duration = datetime.timedelta(days=400, microseconds=1_999)
    assert (duration_us(duration), duration_ms(duration)) == (34_560_000_001_999, 34_560_000_001)


def test_the_clocks_tell_the_same_time() -> None:
    before, at, us, ms, after = now(), now(), now_us(), now_ms(), now()
    assert before <= at <= after
    assert instant_us(before) // 1_000 - 1 <= us // 1_000 <= ms <= instant_us(after) // 1_000 + 1
