"""The account of a partition: what may be linked follows from what was acknowledged, in whatever order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.ledger import Ledger, Span

SINKS = ("redis", "dead letters")


def test_a_span_is_linkable_only_when_every_sink_holds_all_of_it() -> None:
    """One sink that lags, or one hole in what it acknowledged, keeps the span back."""
    ledger = Ledger(10, SINKS)
    for span in (Span(10, 20), Span(20, 30)):
        ledger.take(span)
    closed = ledger.close(30)
    ledger.acknowledge("redis", Span(20, 30))
    ledger.acknowledge("dead letters", Span(10, 30))
    assert ledger.linkable() is None
    ledger.acknowledge("redis", Span(10, 20))
    assert ledger.linkable() == closed == Span(10, 30)


def test_a_gap_between_batches_is_refused() -> None:
    """A batch that does not continue the position would leave offsets that nobody accounts for."""
    ledger = Ledger(0, SINKS)
    ledger.take(Span(0, 5))
    with pytest.raises(ValueError, match="does not continue position 5"):
        ledger.take(Span(6, 7))
    with pytest.raises(ValueError, match="does not continue position 5"):
        ledger.take(Span(4, 7))
    with pytest.raises(ValueError, match="does not continue position 5"):
        ledger.take(Span(5, 5))


def test_nothing_is_acknowledged_before_it_is_taken_in() -> None:
    """An acknowledgement beyond the position is of another assignment."""
    ledger = Ledger(0, SINKS)
    with pytest.raises(ValueError, match="beyond position 0"):
        ledger.acknowledge("redis", Span(0, 1))


def test_spans_are_linked_in_their_order() -> None:
    """A later span waits for the one before it, even if it is durable already."""
    ledger = Ledger(0, SINKS)
    ledger.take(Span(0, 10))
    first, second = ledger.close(4), ledger.close(10)
    for sink in SINKS:
        ledger.acknowledge(sink, Span(0, 10))
    with pytest.raises(ValueError, match="not the next span"):
        ledger.link(second)
    ledger.link(first)
    ledger.link(second)
    assert ledger.linked == ledger.position == 10


def test_a_span_cannot_be_closed_empty_or_beyond_what_was_taken() -> None:
    """Both would make a link that covers what nobody has."""
    ledger = Ledger(0, SINKS)
    ledger.take(Span(0, 3))
    with pytest.raises(ValueError, match="beyond position 3"):
        ledger.close(4)
    ledger.close(3)
    with pytest.raises(ValueError, match="empty"):
        ledger.close(3)


@given(
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=12),
    closes=st.sets(st.integers(0, 11)),
    data=st.data(),
)
def test_durable_is_the_least_contiguous_prefix(lengths: list[int], closes: set[int], data: st.DataObject) -> None:
    """Against a plain oracle that remembers every acknowledged offset, with acknowledgements in any order, repeated."""
    ledger = Ledger(0, SINKS)
    spans = []
    for index, length in enumerate(lengths):
        span = Span(ledger.position, ledger.position + length)
        ledger.take(span)
        spans.append(span)
        if index in closes:
            ledger.close(span.end)
    held: dict[str, set[int]] = {sink: set() for sink in SINKS}
    todo = [(sink, span) for sink in SINKS for span in spans]
    for sink, span in data.draw(st.permutations(todo + data.draw(st.lists(st.sampled_from(todo), max_size=5)))):
        ledger.acknowledge(sink, span)
        held[sink].update(range(span.start, span.end))
        prefixes = [next(n for n in range(ledger.position + 1) if n not in held[each]) for each in SINKS]
        assert ledger.durable == min(prefixes)
        linkable = ledger.linkable()
        if linkable:
            assert linkable.end <= ledger.durable
            ledger.link(linkable)
        assert ledger.linked <= ledger.durable <= ledger.position
