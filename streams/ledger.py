"""The account of one partition during one assignment: what was taken in, what each sink holds, what may be linked.

Pure: no clock, no I/O. Offsets only ever grow:

    linked  ≤  durable = least of the sinks' prefixes  ≤  position
    linked  ≤  end of each closed span                 ≤  position
"""

import dataclasses
import heapq
from collections import deque
from collections.abc import Iterable


@dataclasses.dataclass(frozen=True, slots=True)
class Span:
    """The offsets [start, end)."""

    start: int
    end: int


class _Prefix:
    """The end of the contiguous run of offsets that one sink has acknowledged, in whatever order it did."""

    def __init__(self, start: int) -> None:
        self.end = start
        self._later: list[tuple[int, int]] = []

    def add(self, span: Span) -> None:
        heapq.heappush(self._later, (span.start, span.end))
        while self._later and self._later[0][0] <= self.end:
            self.end = max(self.end, heapq.heappop(self._later)[1])


class Ledger:
    """Begins at the chain's end. Every method raises ValueError for a call that breaks the order above."""

    def __init__(self, start: int, sinks: Iterable[str]) -> None:
        self.position = start
        self.linked = start
        self._acknowledged = {sink: _Prefix(start) for sink in sinks}
        self._closed: deque[Span] = deque()
        self._last_closed = start

    def take(self, span: Span) -> None:
        """A batch was taken in. It must begin where the last one ended."""
        if span.start != self.position or span.end <= span.start:
            raise ValueError(f"a batch {span} does not continue position {self.position}")
        self.position = span.end

    def acknowledge(self, sink: str, span: Span) -> None:
        """A sink holds everything of these offsets that it should."""
        if span.end > self.position:
            raise ValueError(f"{sink} acknowledges {span}, beyond position {self.position}")
        self._acknowledged[sink].add(span)

    @property
    def durable(self) -> int:
        """The first offset that some sink may not hold yet."""
        return min(prefix.end for prefix in self._acknowledged.values())

    def close(self, end: int) -> Span:
        """Close the open span at an offset up to which the archive has come; the next offset begins another."""
        if not self._last_closed < end <= self.position:
            raise ValueError(f"a span {self._last_closed}→{end} is empty or beyond position {self.position}")
        span = Span(self._last_closed, end)
        self._last_closed = end
        self._closed.append(span)
        return span

    @property
    def has_closed_spans(self) -> bool:
        """Whether a span waits for its link."""
        return bool(self._closed)

    def linkable(self) -> Span | None:
        """The oldest closed span, if every sink holds all of it."""
        return self._closed[0] if self._closed and self._closed[0].end <= self.durable else None

    def link(self, span: Span) -> None:
        """The span's link is on the chain."""
        if self.linkable() != span or span.start != self.linked:
            raise ValueError(f"{span} is not the next span to be linked, which is {self.linkable()}")
        self._closed.popleft()
        self.linked = span.end
