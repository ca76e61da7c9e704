"""Outputs of models beside features, as a narrow protocol: who reads predictions is told by whoever puts a reader
together. A reader that has none says so.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from stillwell.errors import RequestError
from stillwell.layout.value import stamp_of
from stillwell.reading.plan import Place
from stillwell.reading.status import Freshness, Status
from stillwell.spec import ModelSpec


class PredictedColumns(NamedTuple):
    """A model's outputs for some entities: a column for each output, in the model's order.

    under: the epoch and the server that it was read from (`stillwell.reading.online.Stored.under`); empty where these
    are several.

    values, statuses: by output, then entity. read_at: when each entity's inputs were read, in
    µs since the epoch, None where there is no prediction. freshness: LATE for a prediction of other inputs than those
    there are, or an old one. places, rows: where the model's inputs are, and for each of these, one after the other,
    the row of each entity that freshness is about. whole: whether it is known that all are there and FRESH, and no
    value null.
    """

    under: bytes
    values: Sequence[Sequence[Any]]
    statuses: Sequence[Sequence[Status]]
    read_at: Sequence[int | None]
    freshness: Sequence[Freshness | None]
    places: Sequence[Place]
    rows: list[bytes | None]
    whole: bool = False


def of_the_same_rows(
    places: Mapping[Place, int], stored: list[bytes | None], predicted: Sequence[PredictedColumns]
) -> tuple[list[bytes | None], Sequence[PredictedColumns]]:
    """Rows and predictions as they may stand beside each other: what is FRESH is of these very rows.

    Mostly all were read at one instant. But a model that was asked meanwhile was asked about its inputs as they stood
    then, and what does not fit into one call to the store comes by several. Where rows differ, those are taken that a
    fresh prediction is of; of several the newest, and what is of an older one is LATE. So also where two models read a
    row that nobody has asked for a feature of.

    stored: for each place, by its number, the row of each entity. predicted: of one model at least.
    """
    count, asked_for = len(predicted[0].freshness), len(stored)
    if len(predicted) > 1 and count:
        places, stored = _with_those_of_two_models(places, stored, count, predicted)
    shared = [
        (of, at * count, places[place] * count)
        for of, each in enumerate(predicted)
        for at, place in enumerate(each.places)
        if place in places
    ]
    if all(predicted[of].rows[at : at + count] == stored[to : to + count] for of, at, to in shared):
        return stored[:asked_for], predicted
    fresh = [
        (of, number, predicted[of].rows[at + number], to + number)
        for of, at, to in shared
        for number, worth in enumerate(predicted[of].freshness)
        if worth is Freshness.FRESH
    ]
    newest: dict[int, bytes | None] = {}
    for _, _, row, to in fresh:
        if to not in newest or _stamp(row) > _stamp(newest[to]):
            newest[to] = row
    late = {(of, number) for of, number, row, to in fresh if _stamp(row) != _stamp(newest[to])}
    return [newest.get(to, row) for to, row in enumerate(stored[:asked_for])], [
        each._replace(
            freshness=[Freshness.LATE if (of, number) in late else worth for number, worth in enumerate(each.freshness)]
        )
        for of, each in enumerate(predicted)
    ]


def _with_those_of_two_models(
    places: Mapping[Place, int], stored: Sequence[bytes | None], count: int, predicted: Sequence[PredictedColumns]
) -> tuple[dict[Place, int], list[bytes | None]]:
    """Places and rows, and behind them those that two models read and that are not among them, with the rows that the
    first of the two has there."""
    wider, rows = dict(places), list(stored)
    first: dict[Place, Sequence[bytes | None]] = {}
    for each in predicted:
        for at, place in enumerate(each.places):
            if place in wider:
                continue
            if place in first:
                wider[place] = len(rows) // count
                rows += first[place]
            else:
                first[place] = each.rows[at * count : (at + 1) * count]
    return wider, rows


def _stamp(row: bytes | None) -> bytes:
    """What tells which row is newer, and whether two are the same; none is older than any."""
    return b"" if row is None else stamp_of(row)


def aged(predicted: PredictedColumns, oldest: int) -> PredictedColumns:
    """The same, as it stands when it is told: another model of the answer may have been waited for meanwhile.

    oldest: when the inputs must have been read of what counts as fresh by then, in µs since the epoch.
    """
    old = [at is not None and at < oldest for at in predicted.read_at]
    if not any(old):
        return predicted
    return predicted._replace(
        statuses=[
            [
                Status.OUTSIDE_MAX_AGE if is_old and status in (Status.PRESENT, Status.NULL_VALUE) else status
                for is_old, status in zip(old, column, strict=True)
            ]
            for column in predicted.statuses
        ],
        freshness=[
            Freshness.LATE if is_old and worth else worth
            for is_old, worth in zip(old, predicted.freshness, strict=True)
        ],
        whole=False,
    )


class Predictions(Protocol):
    """Reads predictions."""

    async def columns(self, model: ModelSpec, columns: Mapping[str, Sequence[Any]]) -> PredictedColumns:
        """The outputs of a model for entities, typed. Raises RequestError, and what reading features raises."""


class NoPredictions:
    """Of a reader that has none."""

    async def columns(self, model: ModelSpec, columns: Mapping[str, Sequence[Any]]) -> PredictedColumns:
        """Raises RequestError."""
        raise RequestError(
            "features",
            f"{model.name} is a model, and what reads here was not told where predictions are",
        )
