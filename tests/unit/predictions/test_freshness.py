"""What a prediction is worth, when it is computed early, and how long a model that fails is left alone."""

import datetime
import math
import random

from hypothesis import given
from hypothesis import strategies as st

from stillwell.layout.prediction import Failure, Outputs, Record
from stillwell.predictions.fingerprint import fingerprint, request_digest
from stillwell.predictions.freshness import State, is_due_early, judge, kept_ms, may_try, pause_us
from tests.online_support import stamp, value

NOW = 1_000_000_000
OLDEST = 60_000_000
"""max_staleness of these tests, in µs."""
ONE, OTHER = b"1" * 16, b"2" * 16


def said(of: bytes = ONE, age: int = 0, cost: int = 1_000) -> Outputs:
    return Outputs(NOW - age, of, NOW - age, cost, b"lyot", b"")


def failed(of: bytes = ONE, retry_in: int = 1) -> Failure:
    return Failure(NOW, of, NOW, NOW + retry_in, 1, "down")


def worth(record: Record | None) -> State:
    return judge(record, ONE, OLDEST, NOW)


def test_fresh_is_what_is_of_these_inputs_and_not_too_old() -> None:
    assert worth(None) is State.MISSING
    assert worth(Record(said(), None)) is State.FRESH
    assert worth(Record(said(age=OLDEST), None)) is State.FRESH
    assert worth(Record(said(age=OLDEST + 1), None)) is State.STALE
    assert worth(Record(said(OTHER), None)) is State.STALE


def test_what_was_read_further_ahead_than_it_may_be_old_was_read_by_a_clock_that_is_no_more() -> None:
    assert worth(Record(said(age=-OLDEST), None)) is State.FRESH
    assert worth(Record(said(age=-OLDEST - 1), None)) is State.STALE
    # No pause is longer than a minute: twice as much before its end it has not begun.
    assert not may_try(Record(None, failed(retry_in=120_000_000)), ONE, NOW)
    assert may_try(Record(None, failed(retry_in=120_000_001)), ONE, NOW)


def test_failed_is_what_failed_over_these_inputs() -> None:
    assert worth(Record(None, failed())) is State.FAILED
    assert worth(Record(None, failed(OTHER))) is State.MISSING
    assert worth(Record(said(OTHER), failed())) is State.FAILED
    assert worth(Record(said(OTHER), failed(OTHER))) is State.STALE
    assert worth(Record(said(age=OLDEST + 1), failed())) is State.FAILED
    assert worth(Record(said(), failed(OTHER))) is State.FRESH


def test_a_model_that_failed_over_these_inputs_is_not_asked_before_its_pause_is_over() -> None:
    assert not may_try(Record(None, failed(retry_in=1)), ONE, NOW)
    assert may_try(Record(None, failed(retry_in=0)), ONE, NOW)
    assert may_try(Record(None, failed(OTHER)), ONE, NOW)
    assert may_try(None, ONE, NOW)


@given(st.floats(1e-300, 1.0), st.integers(0, OLDEST), st.integers(0, 10_000_000))
def test_the_nearer_the_end_and_the_slower_the_model_the_more_readers_refresh_early(
    chance: float, age: int, cost: int
) -> None:
    early = is_due_early(Record(said(age=age, cost=cost), None), OLDEST, NOW, chance)
    assert early == (age + cost * -math.log(chance) >= OLDEST)
    if early:
        assert is_due_early(Record(said(age=OLDEST, cost=cost), None), OLDEST, NOW, chance)
        assert is_due_early(Record(said(age=age, cost=cost * 2), None), OLDEST, NOW, chance)


def test_long_before_the_end_nobody_refreshes_early_and_at_the_end_everybody(rng: random.Random) -> None:
    chances = [1 - rng.random() for _ in range(10_000)]

    def share(age: int) -> float:
        return sum(is_due_early(Record(said(age=age), None), OLDEST, NOW, each) for each in chances) / len(chances)

    assert share(OLDEST // 2) == 0
    assert 0.3 < share(OLDEST - 1_000) < 0.45
    assert share(OLDEST) == 1


@given(st.integers(1, 100), st.floats(0, 1))
def test_pauses_double_up_to_a_minute_and_differ_by_chance(attempts: int, chance: float) -> None:
    whole = min(1_000_000 * 2 ** (attempts - 1), 60_000_000)
    assert whole // 2 <= pause_us(attempts, chance) <= whole
    assert pause_us(attempts, 0) == whole


def test_what_is_kept_outlives_what_is_fresh_tenfold() -> None:
    assert kept_ms(datetime.timedelta(minutes=10)) == 100 * 60_000
    assert kept_ms(datetime.timedelta(seconds=1)) == 60_000


def test_the_fingerprint_tells_other_rows_and_rows_past_their_ttl() -> None:
    one, other = value(stamp(1)), value(stamp(2))
    same_event = value(stamp(1), "another text")
    always, from_now_on = [None, None], [b"\xff" * 8, None]
    prints = [
        fingerprint(b"read", [one, None], always),
        fingerprint(b"read", [other, None], always),
        fingerprint(b"read", [None, one], always),
        fingerprint(b"read", [one, one], always),
        fingerprint(b"read", [one, None], from_now_on),
        fingerprint(b"read", [None, None], always),
        fingerprint(b"read otherwise", [one, None], always),
    ]
    assert len(set(prints)) == len(prints)
    assert fingerprint(b"read", [same_event, None], always) == prints[0]


def test_request_values_of_other_types_have_other_digests() -> None:
    given_values: list[list[object]] = [[1], ["1"], [True], [1.0], [1, 1], ["a\0", "b"], ["a", "\0b"], [None], []]
    assert len({request_digest(each) for each in given_values}) == len(given_values)
    assert request_digest([1, "a"]) == request_digest([1, "a"])
