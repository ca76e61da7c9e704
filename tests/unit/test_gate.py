"""The worker stops when so much is rejected that the definitions must be wrong, and not before."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.gate import RejectGate, RejectLimit, TooManyRejects

LIMIT = RejectLimit(ratio=0.1, least_records=100)


def stops(limit: RejectLimit, batches: list[tuple[int, int]]) -> list[bool]:
    """After which of the batches (records, rejected) the gate stops the worker."""
    gate = RejectGate("t", limit)
    verdicts = []
    for records, rejected in batches:
        try:
            gate.judge(records, rejected, "an example")
            verdicts.append(False)
        except TooManyRejects:
            verdicts.append(True)
    return verdicts


def test_a_few_records_are_not_judged_however_many_are_bad() -> None:
    """A topic may begin with a handful of test messages."""
    assert stops(LIMIT, [(50, 50), (49, 49)]) == [False, False]
    assert stops(LIMIT, [(50, 50), (50, 0)]) == [False, True]


def test_the_ratio_that_is_allowed_is_allowed() -> None:
    assert stops(LIMIT, [(100, 10), (100, 11)]) == [False, True]
    assert stops(RejectLimit(ratio=1.0, least_records=1), [(100, 100)]) == [False]
    assert stops(RejectLimit(ratio=0.0, least_records=1), [(100, 0), (1, 1)]) == [False, True]


def test_a_long_good_past_does_not_hide_a_bad_present() -> None:
    """Only the last records count, so that a bad deployment is noticed as fast after a year as on the first day."""
    past = [(1_000, 0)] * 1_000
    assert stops(LIMIT, [*past, (50, 50)])[-1] is False  # 50 of the last 1050
    assert stops(LIMIT, [*past, (50, 50), (50, 50)])[-1] is True  # 100 of the last 100


def test_a_bad_past_is_forgotten() -> None:
    assert stops(LIMIT, [(99, 99), (1_000, 0), (100, 0)]) == [False, False, False]


def test_batches_without_records_change_nothing() -> None:
    assert stops(LIMIT, [(0, 0)] * 3) == [False] * 3
    assert stops(LIMIT, [(100, 10), (0, 0), (0, 0)]) == [False] * 3


@settings(deadline=None)
@given(
    least=st.integers(1, 50),
    ratio=st.floats(0, 1),
    batches=st.lists(st.integers(0, 40).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))), max_size=30),
)
def test_the_window_is_the_fewest_last_batches_with_enough_records(
    least: int, ratio: float, batches: list[tuple[int, int]]
) -> None:
    """Against an oracle that looks at the whole past."""
    expected = []
    for last in range(1, len(batches) + 1):
        windows = (batches[first:last] for first in reversed(range(last)))
        window = next((window for window in windows if sum(n for n, _ in window) >= least), [])
        expected.append(sum(bad for _, bad in window) > ratio * sum(n for n, _ in window))
    assert stops(RejectLimit(ratio, least), batches) == expected


def test_the_message_says_how_many_of_what_and_what_to_do() -> None:
    gate = RejectGate("flights.departures", LIMIT)
    with pytest.raises(
        TooManyRejects,
        match=r"topic flights\.departures: 30 of the last 100 records were rejected, more than the 10% that are "
        r"allowed; the last one: offset 7: no JSON\. Mend the definition: nothing was acknowledged.*"
        r"STILLWELL_REJECT_RATIO to 1 until",
    ):
        gate.judge(100, 30, "offset 7: no JSON")
