"""Instants and durations as whole numbers: µs since the epoch in rows, stamps and answers, ms in Kafka's records.

What needs to know the time is given a clock; these are the ones that composition roots give.
"""

import datetime
import time

EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
MICROSECOND = datetime.timedelta(microseconds=1)
MILLISECOND = datetime.timedelta(milliseconds=1)
SECOND_US = 1_000_000


def instant(us: int) -> datetime.datetime:
    """A time from µs since the epoch. Raises OverflowError outside the years 1 to 9999."""
    return EPOCH + MICROSECOND * us  # a timedelta made of microseconds takes more than twice as long


def instant_us(at: datetime.datetime) -> int:
    """A time with a zone as µs since the epoch."""
    return (at - EPOCH) // MICROSECOND


def duration_us(duration: datetime.timedelta) -> int:
    """In µs."""
    return duration // MICROSECOND


def duration_ms(duration: datetime.timedelta) -> int:
    """In ms, without what is less than one."""
    return duration // MILLISECOND


def now() -> datetime.datetime:
    """By the system's clock, in UTC."""
    return datetime.datetime.now(datetime.UTC)


def now_us() -> int:
    """The same in µs since the epoch."""
    return time.time_ns() // 1_000


def now_ms() -> int:
    """The same in ms since the epoch."""
    return time.time_ns() // 1_000_000
