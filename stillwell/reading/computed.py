"""On-demand features of entities: computed from the rows that were found, the request's values, and the instant.

What is not there is null to the expressions: no row, a row from before the feature, and a row past its view's TTL. The
value is what they make of that; its status says what it was made from:

OUTSIDE_MAX_AGE    a stored feature that it reads is in a row past its TTL
NOT_FOUND          it reads stored features, and none of them is there
NULL_VALUE         otherwise, where the value is null
PRESENT            otherwise

Its event time is the oldest of those that it reads; it is LATE where one of them is. Features of an on-demand view that
reads no stored feature have neither.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import polars as pl

from stillwell.errors import RequestError
from stillwell.layout.projection import ABSENT, StoredColumns
from stillwell.on_demand import at_one_instant
from stillwell.reading.plan import Computation, RequestInput, StoredInput
from stillwell.reading.status import Freshness, Status, present
from stillwell.wire import column, stored_column, stored_values


class FoundRows(NamedTuple):
    """What a lookup found. states: what each row is worth, None where all are there and none is past its TTL.
    freshness: each row against the view's objective, None where there is none."""

    stored: StoredColumns
    states: Sequence[Status] | None
    freshness: Sequence[Freshness | None] | None


def status_of(value: object, row: Status) -> Status:
    """What a stored value is worth. row: what its row is worth."""
    if value is ABSENT:
        return Status.NOT_FOUND
    return Status.NULL_VALUE if value is None and row is Status.PRESENT else row


class ComputedColumn(NamedTuple):
    """One on-demand feature of all entities: as in `stillwell.reading.features.FeatureColumn`."""

    values: Sequence[Any]
    statuses: Sequence[Status]
    event_times: Sequence[int | None]
    freshness: Sequence[Freshness | None] | None


def compute(
    computation: Computation, found: Sequence[FoundRows], columns: Mapping[str, Sequence[Any]], at_us: int
) -> list[ComputedColumn]:
    """The features of one on-demand view, in its computation's order.

    found: of the plan's lookups. columns: of the request, typed. at_us: the instant, AS_OF. Raises RequestError for an
    entity of which an expression makes nothing.
    """
    count = max(map(len, columns.values()), default=0)
    times = 2 if count == 1 else 1  # `stillwell.evaluate` would have to make two rows of one, which takes longer
    inputs = [_stored(each, found[each.lookup], times) for each in computation.stored]
    inputs += [_requested(each, columns[each.name], times) for each in computation.requested]
    computed = computation.on_demand.compute(pl.DataFrame(inputs), at_one_instant(at_us, count * times))
    if computed.failures:
        first = computed.failures[0]
        raise RequestError(f"entities[{first.position}]", f"{computation.view} cannot be computed: {first.error}")
    worth = _Worth(found, count)
    by_name = {each.qualified: each for each in computation.stored}
    answers = []
    for feature in computation.on_demand.features:
        values = stored_values(feature.type, computed.frame.get_column(feature.name))[:count]
        read = [by_name[name] for name in computation.on_demand.reads[feature.name] if name in by_name]
        answers.append(
            ComputedColumn(values, worth.statuses(values, read), worth.event_times(read), worth.freshness(read))
        )
    return answers


def _stored(given: StoredInput, rows: FoundRows, times: int) -> pl.Series:
    """A stored feature as it is computed with, so many times over: null where it is not there."""
    values = rows.stored.columns[given.column]
    if rows.states is not None:
        values = [
            value if state is Status.PRESENT and value is not ABSENT else None
            for value, state in zip(values, rows.states, strict=True)
        ]
    elif ABSENT in values:
        values = [None if value is ABSENT else value for value in values]
    return stored_column(given.type, [*values] * times).alias(given.qualified)


def _requested(given: RequestInput, values: Sequence[Any], times: int) -> pl.Series:
    return column(given.type, [*values] * times).alias(given.qualified)


class _Worth:
    """What on-demand features of one request are worth, by what they read."""

    def __init__(self, found: Sequence[FoundRows], count: int) -> None:
        self._found = found
        self._count = count
        self._event_times: dict[tuple[int, ...], Sequence[int | None]] = {}

    def statuses(self, values: Sequence[Any], read: Sequence[StoredInput]) -> Sequence[Status]:
        """Of a feature's values. read: the stored features that it reads."""
        if all(self._is_there(each) for each in read):
            if None not in values:
                return present(self._count)
            return [Status.NULL_VALUE if value is None else Status.PRESENT for value in values]
        of_inputs = zip(*map(self._input_statuses, read), strict=True)
        return [_status(value, inputs) for value, inputs in zip(values, of_inputs, strict=True)]

    def event_times(self, read: Sequence[StoredInput]) -> Sequence[int | None]:
        """The oldest of the event times that a feature reads, for each entity: one list for all that read the same."""
        lookups = _lookups(read)
        known = self._event_times.get(lookups)
        if known is None:
            of_lookups = [self._found[at].stored.event_times for at in lookups]
            if len(of_lookups) == 1:
                known = of_lookups[0]
            elif of_lookups:
                known = [
                    min((at for at in row if at is not None), default=None) for row in zip(*of_lookups, strict=True)
                ]
            else:
                known = [None] * self._count
            self._event_times[lookups] = known
        return known

    def freshness(self, read: Sequence[StoredInput]) -> Sequence[Freshness | None] | None:
        """LATE where one of the rows that a feature reads is."""
        judged = [each for each in (self._found[at].freshness for at in _lookups(read)) if each is not None]
        if len(judged) < 2:
            return judged[0] if judged else None
        return [
            Freshness.LATE if Freshness.LATE in row else Freshness.FRESH if Freshness.FRESH in row else None
            for row in zip(*judged, strict=True)
        ]

    def _is_there(self, given: StoredInput) -> bool:
        """Whether an input is there for all entities, though it may be null."""
        rows = self._found[given.lookup]
        return rows.states is None and ABSENT not in rows.stored.columns[given.column]

    def _input_statuses(self, given: StoredInput) -> list[Status]:
        rows = self._found[given.lookup]
        states = rows.states or present(self._count)
        return [status_of(value, row) for value, row in zip(rows.stored.columns[given.column], states, strict=True)]


def _lookups(read: Sequence[StoredInput]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(each.lookup for each in read))


def _status(value: object, inputs: Sequence[Status]) -> Status:
    if Status.OUTSIDE_MAX_AGE in inputs:
        return Status.OUTSIDE_MAX_AGE
    if all(each is Status.NOT_FOUND for each in inputs):
        return Status.NOT_FOUND
    return Status.NULL_VALUE if value is None else Status.PRESENT
