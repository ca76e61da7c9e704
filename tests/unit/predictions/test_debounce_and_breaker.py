"""Waiting for more of the same, and leaving alone who fails: with the time as a parameter."""

from hypothesis import given
from hypothesis import strategies as st

from stillwell.predictions.breaker import Breaker, BreakerPolicy
from stillwell.predictions.debounce import Debounced

POLICY = BreakerPolicy(failures=3, pause=1.0, longest=5.0)


@given(st.lists(st.integers(0, 100), min_size=1).map(sorted), st.integers(0, 20), st.integers(0, 50))
def test_what_is_asked_for_is_done_after_a_quiet_while_and_no_later_than_its_maximum(
    asked: list[int], quiet: int, most: int
) -> None:
    debounced = Debounced.begin(asked[0], quiet, most)
    for now in asked[1:]:
        debounced = debounced.again(now)
    assert debounced.due == min(asked[-1] + quiet, asked[0] + most)


def test_what_is_told_late_takes_nothing_back() -> None:
    assert Debounced.begin(10, 5, 100).again(3).due == 15


def opened(at: float = 0.0) -> Breaker:
    breaker = Breaker(POLICY)
    for _ in range(POLICY.failures):
        assert breaker.may_call(at)
        breaker.failed(at, chance=0.0)
    return breaker


def test_failures_in_a_row_open_the_circuit_and_an_answer_between_them_does_not() -> None:
    breaker = Breaker(POLICY)
    for _ in range(5):
        breaker.failed(0.0, 0.0)
        breaker.failed(0.0, 0.0)
        assert breaker.may_call(0.0)
        breaker.succeeded()
    assert not breaker.is_open
    assert opened().is_open
    assert not opened().may_call(0.99)


def test_after_the_pause_one_may_try_and_its_answer_decides() -> None:
    breaker = opened()
    assert breaker.wait(0.4) == 0.6
    assert [breaker.may_call(1.0) for _ in range(100)].count(True) == 1
    breaker.failed(1.1, 0.0)
    assert not breaker.may_call(3.0)  # the pause has doubled
    assert breaker.may_call(3.1)
    breaker.succeeded()
    assert all(breaker.may_call(3.1) for _ in range(100))
    assert breaker.wait(3.1) == 0


def test_pauses_double_up_to_the_longest_and_are_by_chance_half_as_long_again() -> None:
    breaker, now, pauses = opened(), 0.0, []
    for _ in range(5):
        pauses.append(breaker.wait(now))
        now += pauses[-1]
        assert breaker.may_call(now)
        breaker.failed(now, chance=0.0)
    assert pauses == [1, 2, 4, 5, 5]
    late = Breaker(BreakerPolicy(failures=1, pause=1.0))
    late.failed(0.0, chance=1.0)
    assert late.wait(0.0) == 1.5


def test_who_tried_and_never_said_what_became_of_it_does_not_keep_the_circuit_open_for_ever() -> None:
    breaker = opened()
    assert breaker.may_call(1.0)
    assert not breaker.may_call(10.9)
    assert breaker.may_call(11.0)
