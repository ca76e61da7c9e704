"""What a query service answers, from its JSON to what a client is given.

Each raises ValueError, and others of Python's that tell of a wrong value, for what the service would not answer.
"""

import base64
import datetime
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from stillwell.client.predictions import Input, Prediction, Predictions, PredictionState, Refresh
from stillwell.client.pushed import Pushed, PushedRow
from stillwell.client.results import Column, Features, Provenance, Row, Value
from stillwell.client.source import Asked, EntityColumns
from stillwell.floats import NAMED
from stillwell.pushing.status import PushStatus
from stillwell.pushing.token import Token
from stillwell.reading.status import Freshness, Status

_LISTED = re.compile(r"(?:List|Vector)\[(?P<element>\w+)(?:, \d+)?\]", re.ASCII)


class _Column(msgspec.Struct):
    type: str
    values: list[Any]
    statuses: list[Status]
    event_times: list[datetime.datetime | None]
    ages_s: list[float | None]
    freshness: list[Freshness | None]
    provenance: list[Provenance | None] | None = None


class _Features(msgspec.Struct):
    features: dict[str, _Column]


class _Value(msgspec.Struct):
    type: str
    value: Any
    status: Status
    event_time: datetime.datetime | None
    age_s: float | None
    freshness: Freshness | None = None


class _One(msgspec.Struct):
    entity: dict[str, Any]
    features: dict[str, _Value]


class _Input(msgspec.Struct):
    event_time: datetime.datetime | None
    age_s: float | None


class _Prediction(msgspec.Struct):
    state: PredictionState
    outputs: dict[str, Any] | None
    computed_at: datetime.datetime | None
    read_at: datetime.datetime | None
    age_s: float | None
    inputs: dict[str, _Input]
    refresh: Refresh
    reason: str | None


class _Predictions(msgspec.Struct):
    model: str
    version: str
    predictions: list[_Prediction]
    types: dict[str, str] = {}


class _OnePrediction(msgspec.Struct):
    model: str
    version: str
    entity: dict[str, Any]
    prediction: _Prediction
    types: dict[str, str] = {}


class _Reject(msgspec.Struct):
    row: int
    reason: str
    message: str


class _Pushed(msgspec.Struct):
    token: str | None
    statuses: list[PushStatus] = []
    rejects: list[_Reject] = []


_features = msgspec.json.Decoder(_Features)
_one = msgspec.json.Decoder(_One)
_predictions = msgspec.json.Decoder(_Predictions)
_one_prediction = msgspec.json.Decoder(_OnePrediction)
_pushed = msgspec.json.Decoder(_Pushed)


def features(body: bytes, asked: Asked) -> Features:
    """Features of the entities that were asked for."""
    said = _features.decode(body)
    columns = {reference: _column(reference, each, asked) for reference, each in said.features.items()}
    return Features(asked.entities, columns, asked.count)


def row(body: bytes) -> Row:
    """Features of one entity."""
    said = _one.decode(body)
    return Row(said.entity, {reference: _value(each) for reference, each in said.features.items()})


def predictions(body: bytes, entities: EntityColumns) -> Predictions:
    """A model's predictions for the entities that were asked for."""
    said = _predictions.decode(body)
    count = len(next(iter(entities.values()), ()))
    if len(said.predictions) != count:
        raise ValueError(f"it has {len(said.predictions)} predictions, for {count} entities")
    names = dict.fromkeys([*said.types, *(name for each in said.predictions for name in each.outputs or ())])
    rows = [
        _prediction({name: values[row] for name, values in entities.items()}, each, said.types, names)
        for row, each in enumerate(said.predictions)
    ]
    return Predictions(said.model, said.version, said.types, tuple(rows))


def one_prediction(body: bytes) -> Predictions:
    """A model's prediction for one entity."""
    said = _one_prediction.decode(body)
    one = _prediction(said.entity, said.prediction, said.types, said.types)
    return Predictions(said.model, said.version, said.types, (one,))


def pushed(body: bytes, count: int) -> Pushed:
    """What became of so many rows. Raises RequestError, too, for a token that is none."""
    said = _pushed.decode(body)
    statuses = said.statuses or [PushStatus.ACCEPTED] * count
    if len(statuses) != count:
        raise ValueError(f"it says what became of {len(statuses)} rows, of {count}")
    rows = [PushedRow(status) for status in statuses]
    for reject in said.rejects:
        rows[reject.row] = PushedRow(PushStatus.REJECTED, reject.reason, reject.message)
    return Pushed(Token.parse(said.token, "token") if said.token is not None else None, tuple(rows))


def _column(reference: str, column: _Column, asked: Asked) -> Column:
    described = [column.values, column.statuses, column.event_times, column.ages_s, column.freshness]
    if asked.provenance:
        described.append(column.provenance or [])
    if set(map(len, described)) != {asked.count}:
        raise ValueError(f"{reference} does not have {asked.count} values, each with all that describes it")
    return Column(
        reference=reference,
        type=column.type,
        values=tuple(_values(column.type, column.values)),
        statuses=tuple(column.statuses),
        event_times=tuple(column.event_times),
        ages=tuple(map(_age, column.ages_s)),
        freshness=tuple(column.freshness),
        provenance=tuple(column.provenance or ()) if asked.provenance else None,
    )


def _value(each: _Value) -> Value:
    (value,) = _values(each.type, [each.value])
    return Value(value, each.status, each.event_time, _age(each.age_s), each.freshness)


def _prediction(
    entity: Mapping[str, Any], each: _Prediction, types: Mapping[str, str], names: Iterable[str]
) -> Prediction:
    values: dict[str, Any] = dict.fromkeys(names) | (each.outputs or {})
    for name, kind in types.items():
        (values[name],) = _values(kind, [values[name]])
    return Prediction(
        entity=entity,
        values=values,
        state=each.state,
        computed_at=each.computed_at,
        read_at=each.read_at,
        age=_age(each.age_s),
        inputs={name: Input(of.event_time, _age(of.age_s)) for name, of in each.inputs.items()},
        refresh=each.refresh,
        reason=each.reason,
    )


def _age(seconds: float | None) -> datetime.timedelta | None:
    return None if seconds is None else datetime.timedelta(seconds=seconds)


def _values(kind: str, values: Sequence[Any]) -> Sequence[Any]:
    """Values of a type from JSON, as Python has them."""
    if (listed := _LISTED.fullmatch(kind)) is not None:
        element = listed["element"]
        return [None if value is None else list(_values(element, _list(value))) for value in values]
    if kind in ("Float32", "Float64"):
        return [value if value is None or not isinstance(value, str) else _named(value) for value in values]
    if kind == "Timestamp":
        return msgspec.convert(values, list[datetime.datetime | None])
    if kind == "Bytes":
        return [None if value is None else base64.b64decode(value, validate=True) for value in values]
    if kind not in ("Bool", "Int32", "Int64", "String"):
        raise ValueError(f"the type {kind} is unknown here: upgrade the client")
    return values


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{value!r:.80} is no list")
    return value


def _named(text: str) -> float:
    if text not in NAMED:
        raise ValueError(f"{text!r} is no number")
    return NAMED[text]
