"""Predictions over HTTP, with all that is known of each.

    POST /v1/predictions   {"model": "RouteDelay", "entities": {"origin": ["JFK"], "dest": ["LAX"]}}
        {"model": "RouteDelay", "version": "3", "types": {"minutes": "Float32"}, "entities": {…},
         "predictions": [{"state": "FRESH", "outputs": {"minutes": 12.5}, "computed_at": …, "read_at": …, "age_s": 0.8,
                          "inputs": {"RouteDepartures": {"event_time": …, "age_s": 41.2}, …},
                          "refresh": "none", "reason": null}]}

    GET /v1/predictions?model=RouteDelay&origin=JFK&dest=LAX
        {"model": …, "version": …, "types": {…}, "entity": {…}, "prediction": {…}}

state is FRESH, STALE, MISSING or FAILED; outputs are null where the model never answered, or too long ago. read_at is
when the inputs were read that the outputs are of, and age_s counts from it; inputs are those that there are now.
refresh says what this read has set in motion: `none`; `queued`, a hint for the worker; `shared`, somebody else has it
computed; `inline`, it was computed for this read. Floats that JSON cannot write do not occur; bytes are base64.
"""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from serving import described, v1
from serving.as_json import age, encode, written
from serving.features import Features
from serving.messages import Request
from serving.openapi import ANYTHING, Names
from serving.pages import decoded
from serving.web import Page
from stillwell.errors import RequestError
from stillwell.instants import instant
from stillwell.predictions.columns import ModelReaders
from stillwell.predictions.prediction import Prediction
from stillwell.reading import entities
from stillwell.reading.catalog import any_output
from stillwell.reading.entities import RequestColumns
from stillwell.reading.plan import Plan
from stillwell.spec import ModelSpec


class PredictionsRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body of POST /v1/predictions."""

    model: str
    entities: dict[str, list[Any]]


predictions_request = msgspec.json.Decoder(PredictionsRequest)


class PredictionPages:
    """The paths of predictions."""

    def __init__(
        self, features: Features, readers: ModelReaders, now_us: Callable[[], int], names: Names = ANYTHING
    ) -> None:
        """names: what the OpenAPI document is to say that there is."""
        self._features = features
        self._readers = readers
        self._now_us = now_us
        self._names = names

    def pages(self) -> list[Page]:
        """For a site."""
        return [
            Page(
                "POST",
                "/v1/predictions",
                self._of_many,
                v1.error_body,
                described=described.predictions_of_many(self._names),
            ),
            Page(
                "GET",
                "/v1/predictions",
                self._of_one,
                v1.error_body,
                words=None,
                described=described.predictions_of_one(self._names),
            ),
        ]

    async def _of_many(self, request: Request) -> bytes:
        asked = decoded(predictions_request, request.body)
        model = self._features.catalog.model(asked.model)
        found = await self._find(model, asked.entities)
        now = self._now_us()
        return encode(
            {
                "model": model.name,
                "version": model.version,
                "types": _types(model),
                "entities": asked.entities,
                "predictions": [_shown(model, each, now) for each in found],
            }
        )

    async def _of_one(self, request: Request) -> bytes:
        given = v1.single(request.query)
        if "model" not in given:
            raise RequestError("model", "is missing; name the model whose prediction is asked for")
        model = self._features.catalog.model(given.pop("model"))
        entity = v1.entity_of(self._plan(model), self._features.catalog.keys, given)
        (found,) = await self._find(model, entity)
        shown = {name: values[0] for name, values in entity.items()}
        prediction = _shown(model, found, self._now_us())
        return encode(
            {
                "model": model.name,
                "version": model.version,
                "types": _types(model),
                "entity": shown,
                "prediction": prediction,
            }
        )

    def _plan(self, model: ModelSpec) -> Plan:
        return self._features.plan([any_output(model)])

    async def _find(self, model: ModelSpec, asked: RequestColumns) -> Sequence[Prediction]:
        self._features.row_count(asked)
        columns = entities.typed(self._plan(model), asked, self._features.catalog.keys)
        return await self._features.known.reading(lambda: self._readers.read(model.name, columns))


class NoPredictionPages:
    """In their place where the definitions have no model: says so. The OpenAPI document does not speak of it."""

    def __init__(self, features: Features) -> None:
        self._features = features

    def pages(self) -> list[Page]:
        """For a site."""
        return [Page(method, "/v1/predictions", self._none, v1.error_body, words=None) for method in ("GET", "POST")]

    async def _none(self, request: Request) -> bytes:
        self._features.catalog.model("")  # raises, since there is none
        return b""


def _types(model: ModelSpec) -> dict[str, str]:
    """The outputs' types: JSON alone does not say whether a text is a time, or how wide a float is."""
    return {output.name: output.type.name for output in model.outputs}


def _shown(model: ModelSpec, prediction: Prediction, now: int) -> dict[str, Any]:
    outputs = None
    if prediction.values is not None:
        outputs = {
            output.name: written(output.type, [value], instant, whole=False)[0]
            for output, value in zip(model.outputs, prediction.values, strict=True)
        }
    return {
        "state": prediction.state.value,
        "outputs": outputs,
        "computed_at": _time(prediction.computed_at),
        "read_at": _time(prediction.read_at),
        "age_s": age(prediction.read_at, now),
        "inputs": {
            name: {"event_time": _time(at), "age_s": age(at, now)} for name, at in prediction.event_times.items()
        },
        "refresh": prediction.refresh.value,
        "reason": prediction.reason or None,
    }


def _time(us: int | None) -> Any:
    return None if us is None else instant(us)
