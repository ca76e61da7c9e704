"""Features of entities as they stand now: a plan, the rows that it finds, and what each value is worth."""

import asyncio
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from stillwell.layout.projection import ABSENT, StoredColumns
from stillwell.layout.redis_keys import RedisKeys
from stillwell.reading.computed import FoundRows, compute, status_of
from stillwell.reading.entities import keys
from stillwell.reading.online import OnlineReader
from stillwell.reading.predicted import NoPredictions, PredictedColumns, Predictions
from stillwell.reading.query import Kind, Lookup, Output, Plan
from stillwell.reading.status import Freshness, Status
from stillwell.reading.status import present as present


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


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """All that was asked for. at_us: when the rows were judged, in µs since the epoch. under: the epoch and the
    server of the reply that they come from. rows: as they are stored, of each of the plan's lookups."""

    columns: list[FeatureColumn]
    at_us: int
    under: bytes
    rows: Sequence[Sequence[bytes | None]] = ()


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
        self._suffix = functools.cache(keys.suffix)  # a view has one, and views are those of the definitions

    async def check(self) -> None:
        """Raise what keeps the store from being read: StoreUnavailable, StoreNotReady."""
        await self._online.read([])

    async def read(self, plan: Plan, columns: Mapping[str, Sequence[object]]) -> Found:
        """The plan's outputs for these entities.

        columns: what `stillwell.reading.entities.typed` gives. Raises RequestError, UnknownLayout, StoreUnavailable and
        StoreNotReady.
        """
        if not plan.models:
            under, rows = await self._rows(plan, columns)
            now = self._now_us()
            return Found(columns_of_rows(plan, rows, columns, now), now, under, rows)
        if not plan.lookups and not plan.computations and len(plan.models) == 1:
            only = await self.predictions.columns(plan.models[0], columns)
            now = self._now_us()
            return Found(columns_of_rows(plan, [], columns, now, [only]), now, only.under, [])
        # Asked for in the same turn of the event loop, so that they share a round trip.
        (under, rows), *predicted = await asyncio.gather(
            self._rows(plan, columns), *(self.predictions.columns(model, columns) for model in plan.models)
        )
        now = self._now_us()
        return Found(columns_of_rows(plan, rows, columns, now, predicted), now, under, rows)

    async def _rows(
        self, plan: Plan, columns: Mapping[str, Sequence[object]]
    ) -> tuple[bytes, list[list[bytes | None]]]:
        """Under which epoch and by which server; and for each lookup, the row of each entity."""
        wanted, places = [], list[list[bytes]]()
        for at, lookup in enumerate(plan.lookups):
            places.append(
                places[lookup.alike] if lookup.alike < at else self._keys.places(keys(lookup, columns)),
            )
            suffix = self._suffix(lookup.view.name)
            wanted += [place + suffix for place in places[at]]
        found = await self._online.read(wanted)
        stored = found.values
        rows = []
        begin = 0
        for of_lookup in places:
            rows.append(stored[begin : begin + len(of_lookup)])
            begin += len(of_lookup)
        return found.under, rows


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
    found: list[FoundRows] = []
    for lookup, of_lookup in zip(plan.lookups, rows, strict=True):
        read = lookup.projection.read(of_lookup)
        found.append(FoundRows(read, _states(lookup, read, now_us), _freshness(lookup, read.event_times, now_us)))
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
