"""Saying again what is said too often: what a thousand requests a second find wrong is not logged a thousand times."""

import time
from collections.abc import Callable, Hashable

_MOST_KINDS = 100


class Seldom:
    """Lets each kind of thing be said once in a while."""

    def __init__(self, every: float, clock: Callable[[], float] = time.monotonic) -> None:
        """every: seconds between two of a kind."""
        self._every = every
        self._clock = clock
        self._kinds: dict[Hashable, tuple[float, int]] = {}

    def times(self, kind: Hashable = None) -> int | None:
        """How often this was not said since it was last said, if it may be said now; None where it may not."""
        now = self._clock()
        last = self._kinds.get(kind)
        if last and now < last[0] + self._every:
            self._kinds[kind] = last[0], last[1] + 1
            return None
        if last is None and len(self._kinds) >= _MOST_KINDS:
            self._kinds.clear()
        self._kinds[kind] = now, 0
        return last[1] if last else 0
