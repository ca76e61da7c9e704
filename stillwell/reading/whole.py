"""The way that most reads go: every row is there, of its view as it is defined, without a null, and not past its TTL.

Then nothing need be said of each value but the value itself: no status is picked, no column is looked through, and an
answer is written from what is here. With one entity and forty features that is a third of what `features` takes, which
is asked about all others, and for whoever wants to see columns.
"""

import dataclasses
import itertools
import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from stillwell.layout.projection import WholeRows


class Whole(NamedTuple):
    """values: of each output; the value itself where there is one entity, else a sequence of each one's. event_times:
    of each lookup's rows, µs since the epoch. alike: whether it is known that all of them are the same, as those of one
    entity and topic mostly are."""

    values: Sequence[Any]
    event_times: Sequence[tuple[int, ...]]
    alike: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class WholeLookup:
    """Rows of one view. ttl_us: the view's, None where it has none."""

    rows: WholeRows
    ttl_us: int | None


class WholePlan:
    """Reads what one plan finds, if it is whole."""

    def __init__(self, lookups: Sequence[WholeLookup], order: Sequence[int]) -> None:
        """order: for each output, which feature it is of those of all lookups, one behind the other."""
        self._lookups = [(lookup.rows.many, lookup.ttl_us) for lookup in lookups]
        self._order = _in_order(order)
        self._of_one = _OneEntity(lookups, order)

    def read(self, stored: Sequence[bytes | None], count: int, now_us: int) -> Whole | None:
        """What the rows are; None where they are not whole. stored: of each lookup, the row of each entity; count: of
        entities."""
        if count == 1:
            return self._of_one.read(stored, now_us)
        values: list[Any] = []
        event_times: list[tuple[int, ...]] = []
        begin = 0
        for many, ttl_us in self._lookups:
            rows = many(stored[begin : begin + count])
            if rows is None or (ttl_us is not None and min(rows[0]) < now_us - ttl_us):
                return None
            values += rows[1]
            event_times.append(tuple(rows[0]))
            begin += count
        return Whole(self._order(values), event_times)


class _OneEntity:
    """The same of one entity. Of several views the rows are read together, but for those that have texts."""

    def __init__(self, lookups: Sequence[WholeLookup], order: Sequence[int]) -> None:
        even = [at for at, lookup in enumerate(lookups) if lookup.rows.even]
        self._even = even if len(even) > 1 else []
        self._others = [(at, lookup.rows.one) for at, lookup in enumerate(lookups) if at not in self._even]
        self._read_even = WholeRows.together([lookups[at].rows for at in self._even]) if self._even else None
        self._ttls = [lookup.ttl_us for lookup in lookups]
        self._same_ttl = self._ttls[0] if len(set(self._ttls)) == 1 else None
        # Features as they are taken: of those that are read together first.
        features = list(itertools.accumulate((lookup.rows.count for lookup in lookups), initial=0))
        taken = [*self._even, *(at for at, _ in self._others)]
        self._times_in_order = _in_order([taken.index(at) for at in range(len(lookups))])
        place = {
            feature: number
            for number, feature in enumerate(of for at in taken for of in range(features[at], features[at + 1]))
        }
        self._order = _in_order([place[feature] for feature in order])

    def read(self, stored: Sequence[bytes | None], now_us: int) -> Whole | None:
        times: list[int] = []
        values: list[Any] = []
        if self._read_even:
            together = self._read_even([stored[at] for at in self._even])
            if together is None:
                return None
            times += together[0]
            values += together[1]
        for at, one in self._others:
            found = one(stored[at])
            if found is None:
                return None
            times.append(found[0])
            values += found[1]
        alike = times.count(times[0]) == len(times)
        in_order = times if alike else self._times_in_order(times)
        if self._is_past(in_order, now_us):
            return None
        return Whole(self._order(values), [(time,) for time in in_order], alike)

    def _is_past(self, times: Sequence[int], now_us: int) -> bool:
        """Whether a row is past its view's TTL."""
        if self._same_ttl is not None:
            return min(times) < now_us - self._same_ttl
        return any(ttl is not None and time < now_us - ttl for time, ttl in zip(times, self._ttls, strict=True))


def _in_order(order: Sequence[int]) -> Callable[[Sequence[Any]], Sequence[Any]]:
    """Picks the items at these places, in this order."""
    if list(order) == list(range(len(order))):
        return lambda values: values
    pick = operator.itemgetter(*order)
    return pick if len(order) > 1 else lambda values: (pick(values),)
