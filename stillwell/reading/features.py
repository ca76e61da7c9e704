"""Features of entities as they stand now: a plan, the rows that it finds, and what each value is worth."""

import asyncio
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from stillwell.instants import duration_us
from stillwell.layout.projection import ABSENT, StoredColumns
from stillwell.layout.redis_keys import RedisKeys
from stillwell.reading.computed import FoundRows, compute, status_of
from stillwell.reading.entities import keys
from stillwell.reading.online import OnlineReader
from stillwell.reading.plan import Kind, Lookup, Output, Plan
from stillwell.reading.predicted import NoPredictions, PredictedColumns, Predictions, aged, of_the_same_rows
from stillwell.reading.status import Freshness, Status
from stillwell.reading.status import present as present
from stillwell.reading.whole import Whole


class FeatureColumn(NamedTuple):
    """One feature of all entities, in their order.

    values: None where there is none; of a row past its TTL, what it was. Timestamps are µs since the epoch. statuses:
    what each is worth. event_times: of the rows, µs since the epoch, None where there is no row; features of one view
    share the same list. An on-demand feature has the oldest of the event times that it is computed from. freshness:
    against the view's objective, None where there is no row, or, for the column, no objective.
    """

    output: Output
    values: Sequence[Any]
    statuses: Sequence[Status]
    event_times: Sequence[int | None]
    freshness: Sequence[Freshness | None] | None = None


class Found:
    """All that was asked for. at_us: when the rows were judged, in µs since the epoch. under: the epoch and the
    server of the reply that they come from. whole: what was found, where it is whole."""

    __slots__ = ("_columns", "_count", "_read", "_stored", "at_us", "plan", "under", "whole")

    def __init__(
        self,
        plan: Plan,
        stored: Sequence[bytes | None],
        count: int,
        at_us: int,
        under: bytes,
        columns: "list[FeatureColumn] | Callable[[], list[FeatureColumn]] | None",
        whole: Whole | None = None,
        read: "Sequence[FoundRows]" = (),
    ) -> None:
        """stored: for each of the plan's lookups, the row of each entity; count: of entities. columns: may be made when
        somebody wants to see them; None: of what is whole. read: what was read of each lookup, where it is not whole.
        """
        self.plan = plan
        self.at_us = at_us
        self.under = under
        self.whole = whole
        self._stored = stored
        self._count = count
        self._columns = columns
        self._read = read

    def against_objectives(self) -> Iterator[tuple[str, int, int]]:
        """For each lookup of a view that has an objective: the view, how many rows were found, and how many are LATE.

        Costs the least of some numbers, or a count of what was judged already.
        """
        for at in self.plan.objectives:
            lookup = self.plan.lookups[at]
            if self.whole:
                times, earliest = self.whole.event_times[at], self.at_us - (lookup.freshness_us or 0)
                late = 0 if min(times) >= earliest else sum(time < earliest for time in times)
                yield lookup.view.name, len(times), late
            else:
                worth = self._read[at].freshness or ()
                yield lookup.view.name, len(worth) - worth.count(None), worth.count(Freshness.LATE)

    @property
    def columns(self) -> "list[FeatureColumn]":
        """The plan's outputs."""
        if self._columns is None:
            assert self.whole
            self._columns = _columns_of_whole(self.plan, self.whole, self._count, self.at_us)
        elif not isinstance(self._columns, list):
            self._columns = self._columns()
        return self._columns

    @property
    def rows(self) -> list[Sequence[bytes | None]]:
        """As they are stored, of each of the plan's lookups."""
        return _parts(self._stored, self._count, len(self.plan.lookups))


class FeatureReader:
    """Reads features from the online store."""

    def __init__(
        self,
        online: OnlineReader,
        keys: RedisKeys,
        now_us: Callable[[], int],
        predictions: Predictions | None = None,
    ) -> None:
        """now_us: the clock that ages are counted by, in µs since the epoch. predictions: who reads those, if anybody
        does."""
        self.predictions = predictions or NoPredictions()
        self._online = online
        self._keys = keys
        self._now_us = now_us
        # Of plans, which are kept as well, and made of views that are defined.
        self._suffixes = functools.lru_cache(1_000)(lambda views: [keys.suffix(view) for view in views])

    async def check(self) -> None:
        """Raise what keeps the store from being read: StoreUnavailable, StoreNotReady."""
        await self._online.read([])

    async def read(self, plan: Plan, columns: Mapping[str, Sequence[object]]) -> Found:
        """The plan's outputs for these entities.

        columns: what `stillwell.reading.entities.typed` gives. Raises RequestError, UnknownLayout, StoreUnavailable and
        StoreNotReady.
        """
        if not plan.models:
            count, wanted = self._wanted(plan, columns)
            found = await self._online.read(wanted)
            now, stored = self._now_us(), found.values
            if plan.whole and count and (whole := plan.whole.read(stored, count, now)):
                return Found(plan, stored, count, now, found.under, None, whole)
            return self._found(plan, stored, count, columns, now, found.under)
        if not plan.lookups and not plan.computations and len(plan.models) == 1:
            only = await self.predictions.columns(plan.models[0], columns)
            now = self._now_us()
            if only.whole:
                if len(only.read_at) == 1:
                    values = [only.values[output.column][0] for output in plan.outputs]
                else:
                    values = [only.values[output.column] for output in plan.outputs]
                whole = Whole(values, [only.read_at])  # type: ignore[list-item]
                predicted_columns = functools.partial(columns_of_rows, plan, [], columns, now, [only])
                return Found(plan, [], 0, now, only.under, predicted_columns, whole)
            return self._found(plan, [], 0, columns, now, only.under, [only])
        # Asked for in the same turn of the event loop, so that they share a round trip, unless it is full.
        count, wanted = self._wanted(plan, columns)
        found, *of_models = await asyncio.gather(
            self._online.read(wanted), *(self.predictions.columns(model, columns) for model in plan.models)
        )
        if len(of_models) > 1:
            now = self._now_us()
            of_models = [
                aged(each, now - duration_us(model.max_staleness))
                for model, each in zip(plan.models, of_models, strict=True)
            ]
        stored, predicted = of_the_same_rows(plan.places, found.values, of_models)
        # What is of several servers, or epochs, is of none: who reads behind a push reads once more.
        under = found.under if all(each.under == found.under for each in predicted) else b""
        return self._found(plan, stored, count, columns, self._now_us(), under, predicted)

    def _found(
        self,
        plan: Plan,
        stored: Sequence[bytes | None],
        count: int,
        columns: Mapping[str, Sequence[object]],
        now: int,
        under: bytes,
        predicted: Sequence[PredictedColumns] = (),
    ) -> Found:
        read = _read(plan, _parts(stored, count, len(plan.lookups)), now)
        return Found(plan, stored, count, now, under, _columns(plan, read, columns, now, predicted), read=read)

    def _wanted(self, plan: Plan, columns: Mapping[str, Sequence[object]]) -> tuple[int, list[bytes]]:
        """How many entities there are; and for each lookup, the key in the store of each one's row."""
        suffixes = self._suffixes(plan.views)
        if plan.of_one_key:
            here = self._keys.places(keys(plan.lookups[0], columns))
            return len(here), [place + suffix for suffix in suffixes for place in here]
        wanted: list[bytes] = []
        places: list[list[bytes]] = []
        for at, (lookup, suffix) in enumerate(zip(plan.lookups, suffixes, strict=True)):
            here = places[lookup.alike] if lookup.alike < at else self._keys.places(keys(lookup, columns))
            places.append(here)
            wanted += [place + suffix for place in here]
        return len(places[0]) if places else 0, wanted


def _parts(stored: Sequence[bytes | None], count: int, lookups: int) -> list[Sequence[bytes | None]]:
    """For each lookup, the row of each entity."""
    return [stored[number * count : (number + 1) * count] for number in range(lookups)]


def columns_of_rows(
    plan: Plan,
    rows: Sequence[Sequence[bytes | None]],
    columns: Mapping[str, Sequence[Any]],
    now_us: int,
    predicted: Sequence[PredictedColumns] = (),
) -> list[FeatureColumn]:
    """The plan's outputs from rows as they are stored: for each lookup, the row of each entity.

    columns: typed. now_us: the instant that rows are judged at, and features on demand computed for. predicted: of each
    of the plan's models. Raises RequestError, and UnknownLayout.
    """
    return _columns(plan, _read(plan, rows, now_us), columns, now_us, predicted)


def _read(plan: Plan, rows: Sequence[Sequence[bytes | None]], now_us: int) -> list[FoundRows]:
    """What each of the plan's lookups has found. Raises UnknownLayout."""
    found: list[FoundRows] = []
    for lookup, of_lookup in zip(plan.lookups, rows, strict=True):
        read = lookup.projection.read(of_lookup)
        found.append(FoundRows(read, _states(lookup, read, now_us), _freshness(lookup, read.event_times, now_us)))
    return found


def _columns(
    plan: Plan,
    found: Sequence[FoundRows],
    columns: Mapping[str, Sequence[Any]],
    now_us: int,
    predicted: Sequence[PredictedColumns],
) -> list[FeatureColumn]:
    if not plan.computations and not plan.models:
        return [_column(output, *found[output.source]) for output in plan.outputs]
    computed = [compute(each, found, columns, now_us) for each in plan.computations]
    return [
        _column(output, *found[output.source])
        if output.kind is Kind.STORED
        else FeatureColumn(output, *computed[output.source][output.column])
        if output.kind is Kind.COMPUTED
        else _predicted(output, predicted[output.source])
        for output in plan.outputs
    ]


def _columns_of_whole(plan: Plan, whole: Whole, count: int, now_us: int) -> list[FeatureColumn]:
    """The plan's outputs from rows that are whole."""
    statuses = present(count)
    beside = [
        (times, _freshness(lookup, times, now_us))
        for lookup, times in zip(plan.lookups, whole.event_times, strict=True)
    ]
    values = [(value,) for value in whole.values] if count == 1 else whole.values
    return [
        FeatureColumn(output, of_output, statuses, *beside[output.source])
        for output, of_output in zip(plan.outputs, values, strict=True)
    ]


def _predicted(output: Output, columns: PredictedColumns) -> FeatureColumn:
    return FeatureColumn(
        output,
        columns.values[output.column],
        columns.statuses[output.column],
        columns.read_at,
        columns.freshness,
    )


def _states(lookup: Lookup, read: StoredColumns, now: int) -> list[Status] | None:
    """What each row is worth; None where all are there and none is past its TTL."""
    event_times = read.event_times
    earliest = None if lookup.ttl_us is None else now - lookup.ttl_us
    if (read.whole or None not in event_times) and (
        earliest is None or min(event_times, default=now) >= earliest  # type: ignore[type-var,operator]
    ):
        return None
    return [
        Status.NOT_FOUND
        if at is None
        else Status.OUTSIDE_MAX_AGE
        if earliest is not None and at < earliest
        else Status.PRESENT
        for at in event_times
    ]


def _freshness(lookup: Lookup, event_times: Sequence[int | None], now: int) -> list[Freshness | None] | None:
    """Each row against the view's objective; None where there is none."""
    if lookup.freshness_us is None:
        return None
    earliest = now - lookup.freshness_us
    return [None if at is None else Freshness.LATE if at < earliest else Freshness.FRESH for at in event_times]


def _column(
    output: Output,
    stored: StoredColumns,
    states: Sequence[Status] | None,
    freshness: Sequence[Freshness | None] | None,
) -> FeatureColumn:
    values = stored.columns[output.column]
    if states is None and (stored.whole or (None not in values and ABSENT not in values)):
        return FeatureColumn(output, values, present(len(values)), stored.event_times, freshness)
    states = states or present(len(values))
    statuses = [status_of(value, state) for value, state in zip(values, states, strict=True)]
    shown = [None if value is ABSENT else value for value in values]
    return FeatureColumn(output, shown, statuses, stored.event_times, freshness)
