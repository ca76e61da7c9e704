"""A partition that cannot go on is opened again soon, but does not spin; and its reason is said, but not for ever."""

from streams.reopening import Reopening


def test_a_flow_that_ends_in_vain_is_opened_at_a_growing_distance() -> None:
    """Up to five seconds; whoever has linked something in between begins anew."""
    reopening = Reopening()
    assert reopening.ended(progressed=True) == 0.1
    pauses = [reopening.ended(progressed=False) for _ in range(100)]
    assert pauses[:6] == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0]
    assert set(pauses[5:]) == {5.0}
    assert reopening.ended(progressed=True) == 0.1
    assert reopening.ended(progressed=False) == 0.2


def test_a_reason_is_said_at_once_and_then_once_a_minute() -> None:
    reopening = Reopening()
    said = [now for now in range(0, 200, 5) if reopening.is_news("truncated", 1_000.0 + now)]
    assert said == [0, 60, 120, 180]


def test_another_reason_is_said_at_once() -> None:
    """And so is the same one, when the partition has flowed in between."""
    reopening = Reopening()
    assert reopening.is_news("truncated", 1_000)
    assert reopening.is_news("made anew", 1_001)
    assert not reopening.is_news("made anew", 1_002)
    reopening.flows()
    assert reopening.is_news("made anew", 1_003)
