"""The way that most reads go: every row is there, of its view as it is defined, without a null, and not past its TTL.

Then nothing need be said of each value but the value itself: no status is picked, no column is looked through, and an
answer is written from what is here. With one entity and forty features that is a third of what `features` takes, which
is asked about all others, and for whoever wants to see columns.
"""

import dataclasses
import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

from stillwell.layout.projection import WholeRows


class Whole(NamedTuple):
    """values: of each output; the value itself where there is one entity, else a sequence of each one's. event_times:
    of each lookup's rows, µs since the epoch."""

    values: Sequence[Any]
    event_times: Sequence[tuple[int, ...]]


@dataclasses.dataclass(frozen=True, slots=True)
class WholeLookup:
    """Rows of one view. ttl_us: the view's, None where it has none."""

    rows: WholeRows
    ttl_us: int | None


class WholePlan:
    """Reads what one plan finds, if it is whole."""

    def __init__(self, lookups: Sequence[WholeLookup], order: Sequence[int]) -> None:
        """order: for each output, which feature it is of those of all lookups, one behind the other."""
        self._lookups = [(lookup.rows.one, lookup.rows.many, lookup.ttl_us) for lookup in lookups]
        self._order = None
        if list(order) != list(range(len(order))):
            pick = operator.itemgetter(*order)
            self._order = pick if len(order) > 1 else lambda values: (pick(values),)

    def read(self, stored: Sequence[bytes | None], count: int, now_us: int) -> Whole | None:
        """What the rows are; None where they are not whole. stored: of each lookup, the row of each entity; count: of
        entities."""
        values: list[Any] = []
        event_times: list[tuple[int, ...]] = []
        if count == 1:
            for (one, _, ttl_us), row in zip(self._lookups, stored, strict=True):
                found = one(row)
                if found is None or (ttl_us is not None and found[0] < now_us - ttl_us):
                    return None
                values += found[1]
                event_times.append((found[0],))
        else:
            begin = 0
            for _, many, ttl_us in self._lookups:
                rows = many(stored[begin : begin + count])
                if rows is None or (ttl_us is not None and min(rows[0]) < now_us - ttl_us):
                    return None
                values += rows[1]
                event_times.append(tuple(rows[0]))
                begin += count
        return Whole(self._order(values) if self._order else values, event_times)
